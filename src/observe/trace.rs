//! Which trace a request belongs to: reading `traceparent` or `X-Amzn-Trace-Id`, continuing the trace or starting one.
//!
//! Sources: W3C Trace Context, section 3.2; AWS X-Ray, "tracing header". The trace id of the one is that of the other in
//! other words: `1-67891233-abcdef012345678912345678` is `67891233abcdef012345678912345678`. Sans-IO: bytes in, a value out.

use std::fmt;

/// The length of a version 00 `traceparent`.
const LENGTH: usize = 55;
/// The flag bits that version 00 (level 2) knows: sampled and random-trace-id.
const KNOWN_FLAGS: u8 = 0b11;
/// A trace that starts here is marked as sampled: our log line records it, and an origin that follows
/// its parent's decision would otherwise stop tracing because a proxy was put in front of it.
const SAMPLED: u8 = 0b01;

/// The length of the `X-Amzn-Trace-Id` that we send.
const AMZN_LENGTH: usize = 74;

const HEX: [u8; 16] = *b"0123456789abcdef";

/// What a valid `traceparent` or `X-Amzn-Trace-Id` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace, 32 hexadecimal digits.
    trace: [u8; 32],
    /// The caller's span, 16 hexadecimal digits. A balancer of AWS names none.
    span: Option<[u8; 16]>,
    flags: u8,
}

/// Our place in a trace: the value that goes on to the origin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    text: [u8; LENGTH],
    continued: bool,
}

impl Parent {
    /// Reads the value of `traceparent`; `None` for anything but one valid context. Versions above 00
    /// are read as far as version 00 goes (section 3.2.4).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, tail) = value.split_at_checked(LENGTH)?;
        let mut parts = head.split(|b| *b == b'-');
        let version: [u8; 2] = hexadecimal(parts.next()?)?;
        let trace = hexadecimal(parts.next()?)?;
        let span = hexadecimal(parts.next()?)?;
        let flags: [u8; 2] = hexadecimal(parts.next()?)?;
        let known = version == *b"00";
        let clean = if known { tail.is_empty() } else { tail.is_empty() || tail.starts_with(b"-") };
        if parts.next().is_some() || version == *b"ff" || !clean {
            return None;
        }
        if trace == [b'0'; 32] || span == [b'0'; 16] {
            return None;
        }
        let flags = u8::from_str_radix(std::str::from_utf8(&flags).ok()?, 16).ok()?;
        Some(Self { trace, span: Some(span), flags: flags & KNOWN_FLAGS })
    }

    /// Reads the value of `X-Amzn-Trace-Id`: `Root=1-8 digits-24 digits` among parts that are separated by `;`, perhaps
    /// with `Parent=16 digits` and `Sampled=0`. `None` without exactly one valid root. `Self`, which a balancer adds when
    /// it finds a root, is its own name for the request and not the trace's.
    #[must_use]
    pub fn parse_amzn(value: &[u8]) -> Option<Self> {
        let (mut root, mut span, mut flags) = (None, None, SAMPLED);
        for part in value.split(|b| *b == b';').map(<[u8]>::trim_ascii) {
            if let Some(id) = part.strip_prefix(b"Root=") {
                let [
                    b'1',
                    b'-',
                    time @ ..,
                    b'-',
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                ] = id
                else {
                    return None;
                };
                let unique = id.get(3 + time.len()..)?;
                let digits: [u8; 32] = hexadecimal(&[time, unique].concat())?;
                let fits = time.len() == 8 && digits != [b'0'; 32];
                if !fits || root.replace(digits).is_some() {
                    return None;
                }
            } else if let Some(id) = part.strip_prefix(b"Parent=") {
                span = hexadecimal(id).filter(|id| *id != [b'0'; 16]);
            } else if part == b"Sampled=0" {
                flags = 0;
            }
        }
        Some(Self { trace: root?, span, flags })
    }

    /// The caller's span, as 16 hexadecimal digits, if it is known.
    #[must_use]
    pub fn span(&self) -> Option<&str> {
        self.span.as_ref().and_then(|span| std::str::from_utf8(span).ok())
    }
}

impl Traceparent {
    /// Goes on with the caller's trace if there is one, else starts one. `draw` gives an unguessable
    /// number, another one each time.
    #[must_use]
    pub fn following(parent: Option<&Parent>, draw: impl FnOnce() -> u64) -> Self {
        let random = draw();
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // Never zero: an all-zero id is invalid.
        fill(&mut text, 36, &digits(random | 1));
        let flags = if let Some(parent) = parent {
            fill(&mut text, 3, &parent.trace);
            parent.flags
        } else {
            // A trace and its first span always travel together: one need not hide the other.
            fill(&mut text, 3, &digits(scrambled(random, 1) | 1));
            fill(&mut text, 19, &digits(scrambled(random, 2)));
            SAMPLED
        };
        fill(&mut text, 53, &pair(flags));
        Self { text, continued: parent.is_some() }
    }

    /// The value of the header in bytes, all of them ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The same as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// The trace, as 32 hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> &str {
        std::str::from_utf8(self.trace_digits()).unwrap_or_default()
    }

    /// Our own span in it, as 16 hexadecimal digits: the parent of whatever the origin does.
    #[must_use]
    pub fn span(&self) -> &str {
        std::str::from_utf8(self.span_digits()).unwrap_or_default()
    }

    /// Our place in the trace in the words of AWS X-Ray: below `root`, if the caller named one, else below the same
    /// trace as in `traceparent`. All of it is ASCII.
    #[must_use]
    pub fn amzn(&self, root: Option<&Parent>) -> [u8; AMZN_LENGTH] {
        let mut text = *b"Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=1";
        let trace = root.map_or(self.trace_digits(), |root| &root.trace);
        let (time, unique) = trace.split_at_checked(8).unwrap_or_default();
        let own = self.text.last().is_some_and(|digit| matches!(digit, b'1' | b'3'));
        let sampled = root.map_or(own, |root| root.flags & SAMPLED != 0);
        fill(&mut text, 7, time);
        fill(&mut text, 16, unique);
        fill(&mut text, 48, self.span_digits());
        fill(&mut text, 73, if sampled { b"1" } else { b"0" });
        text
    }

    /// The digits of [`trace`](Self::trace).
    pub(super) fn trace_digits(&self) -> &[u8] {
        self.text.get(3..35).unwrap_or_default()
    }

    /// The digits of [`span`](Self::span).
    pub(super) fn span_digits(&self) -> &[u8] {
        self.text.get(36..52).unwrap_or_default()
    }

    /// Whether the trace came from the caller. Only then does its `tracestate` belong to it
    /// (section 3.3).
    #[must_use]
    pub fn continued(&self) -> bool {
        self.continued
    }
}

/// Exactly `N` lower-case hexadecimal digits; upper case is invalid (section 3.2.2).
fn hexadecimal<const N: usize>(part: &[u8]) -> Option<[u8; N]> {
    let digits: [u8; N] = part.try_into().ok()?;
    digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(digits)
}

/// The number at a place of the sequence that `seed` begins (`SplitMix64`: Steele, Lea and Flood 2014). Other
/// seeds give other numbers at the same place.
fn scrambled(seed: u64, place: u64) -> u64 {
    let mut z = seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number as sixteen hexadecimal digits.
fn digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (place, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        place.copy_from_slice(&pair(byte));
    }
    digits
}

/// A byte as two hexadecimal digits.
fn pair(byte: u8) -> [u8; 2] {
    let digit = |half: u8| HEX.get(usize::from(half)).copied().unwrap_or(b'0');
    [digit(byte >> 4), digit(byte & 15)]
}

fn fill(text: &mut [u8], at: usize, digits: &[u8]) {
    if let Some(place) = text.get_mut(at..at + digits.len()) {
        place.copy_from_slice(digits);
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_trace_goes_on_with_a_span_of_our_own() {
        let parent = Parent::parse(GOOD).unwrap();
        assert_eq!(parent.span(), Some("00f067aa0ba902b7"));
        let ours = Traceparent::following(Some(&parent), || 0xab);
        assert_eq!(ours.as_str(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01");
        assert!(ours.continued());
    }

    #[test]
    fn without_a_valid_caller_a_trace_starts() {
        let ours = Traceparent::following(None, || 0);
        assert_eq!(ours.span(), "0000000000000001");
        assert!(ours.as_str().ends_with("-01"), "sampled");
        assert!(!ours.continued());
        assert_ne!(ours.trace(), Traceparent::following(None, || 1 << 60).trace());
        assert!(Parent::parse(ours.as_str().as_bytes()).is_some(), "what we send is valid");
    }

    #[test]
    fn what_the_specification_calls_invalid_is_ignored() {
        for bad in [
            &b""[..],
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.extra",
            b"00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert!(Parent::parse(bad).is_none(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_trace_of_aws_is_the_same_in_other_words() {
        let ours = |value: &str| {
            let parent = Parent::parse_amzn(value.as_bytes()).unwrap();
            let ours = Traceparent::following(Some(&parent), || 0xab);
            let amzn = String::from_utf8(ours.amzn(Some(&parent)).to_vec()).unwrap();
            (ours.as_str().to_owned(), parent.span().map(str::to_owned), amzn)
        };
        let (trace, root) = ("67891233abcdef012345678912345678", "Root=1-67891233-abcdef012345678912345678");
        let (w3c, span, amzn) = ours(root);
        assert_eq!((w3c, span), (format!("00-{trace}-00000000000000ab-01"), None));
        assert_eq!(amzn, format!("{root};Parent=00000000000000ab;Sampled=1"));
        let (w3c, span, amzn) = ours(&format!(
            "Self=1-67891234-12456789abcdef0123456789; {root};Parent=53995c3f42cd8ad8;Sampled=0"
        ));
        assert_eq!(
            (w3c, span.as_deref()),
            (format!("00-{trace}-00000000000000ab-00"), Some("53995c3f42cd8ad8"))
        );
        assert_eq!(amzn, format!("{root};Parent=00000000000000ab;Sampled=0"));
        let started = Traceparent::following(None, || 7);
        let amzn = String::from_utf8(started.amzn(None).to_vec()).unwrap();
        assert_eq!(Parent::parse_amzn(amzn.as_bytes()).unwrap().trace, *started.trace().as_bytes());
    }

    #[test]
    fn what_is_no_trace_of_aws_is_ignored() {
        for bad in [
            "",
            "Root=",
            "Root=1-6789123-abcdef012345678912345678",
            "Root=1-678912333-bcdef012345678912345678",
            "Root=2-67891233-abcdef012345678912345678",
            "Root=1-67891233-ABCDEF012345678912345678",
            "Root=1-00000000-000000000000000000000000",
            "Root=1-67891233-abcdef012345678912345678;Root=1-67891233-abcdef012345678912345678",
            "Self=1-67891233-abcdef012345678912345678",
            "root=1-67891233-abcdef012345678912345678",
            "Root=1-67891233-abcdef0123456789123456789",
        ] {
            assert!(Parent::parse_amzn(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_we_know_them() {
        let later = b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-the-future-brings";
        let ours = Traceparent::following(Parent::parse(later).as_ref(), || 2);
        assert_eq!(ours.as_str(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000003-03");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_whatever_is_sent_on_is_valid(
            value in proptest::collection::vec(any::<u8>(), 0..70),
            near in "(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?",
            random in any::<u64>(),
        ) {
            let amzn = format!("Root=1-{}", near.get(3..).unwrap_or_default());
            for (value, read) in [
                (&value[..], Parent::parse as fn(&[u8]) -> Option<Parent>),
                (near.as_bytes(), Parent::parse),
                (&value[..], Parent::parse_amzn),
                (amzn.as_bytes(), Parent::parse_amzn),
            ] {
                let parent = read(value);
                let ours = Traceparent::following(parent.as_ref(), || random);
                prop_assert_eq!(ours.as_str().len(), LENGTH);
                let back = Parent::parse_amzn(&ours.amzn(parent.as_ref())).unwrap();
                prop_assert_eq!(back.span(), Some(ours.span()));
                let read = Parent::parse(ours.as_str().as_bytes()).unwrap();
                if let Some(parent) = parent {
                    prop_assert_eq!(read.trace, parent.trace);
                }
            }
        }
    }
}
