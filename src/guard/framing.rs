//! Is this one clear message, within its limits?
//!
//! The grammar of HTTP/1 is its decoder's business, which grades what it finds; here the grade becomes a
//! refusal or not. What is allowed over HTTP/2 is the least that honest clients need.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};

use super::excerpt;
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::Size;
use crate::head::Head;
use crate::http1::grade::{Fault, Mode};
use crate::refusal::{Reason, Refusal};

/// What `[limits]` says about request heads.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    header_count: Option<Placed<u64>>,
    header_size: Option<Placed<Text<Size>>>,
    request_line: Option<Placed<Text<Size>>>,
    desync: Option<Placed<Text<Mode>>>,
}

/// The limits of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many field lines.
    pub header_count: usize,
    /// How many bytes all field lines have together, each counted as `name: value` and its line break.
    pub header_size: usize,
    /// How many bytes the request line has; for HTTP/2 its equivalent.
    pub request_line: usize,
    /// Which HTTP/1 messages are taken although they are not quite clear.
    pub desync: Mode,
}

impl Default for Policy {
    fn default() -> Self {
        Self { header_count: 100, header_size: 64 << 10, request_line: 16 << 10, desync: Mode::default() }
    }
}

/// The most field lines that can be asked for: the map behind them holds 24,576.
const MOST_FIELDS: u64 = 10_000;
/// The most bytes of all fields that can be asked for.
const MOST_FIELD_BYTES: u64 = 1 << 20;
/// The longest request line that can be asked for: the parser's own limit for a target.
const LONGEST_LINE: u64 = 64 << 10;

impl Raw {
    /// Reads the keys from the section `[limits]`; the caller, who shares it among rooms, closes it.
    pub fn read(limits: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            header_count: limits.get(reading, "header_count"),
            header_size: limits.get(reading, "header_size"),
            request_line: limits.get(reading, "request_line"),
            desync: limits.get(reading, "desync_mitigation"),
        }
    }

    /// These limits with more specific ones laid over them.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self {
            header_count: specific.header_count.or(self.header_count),
            header_size: specific.header_size.or(self.header_size),
            request_line: specific.request_line.or(self.request_line),
            desync: specific.desync.or(self.desync),
        }
    }

    /// What was written, with the defaults for the rest.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let default = Policy::default();
        let size = |text: Placed<Text<Size>>| text.map(|size| size.0.0);
        let mut take = |name, written: Option<Placed<u64>>, most, default| {
            written.map_or(default, |w| within(name, &w, most, complaints).unwrap_or(default))
        };
        Policy {
            header_count: take("header_count", self.header_count, MOST_FIELDS, default.header_count),
            header_size: take(
                "header_size",
                self.header_size.map(size),
                MOST_FIELD_BYTES,
                default.header_size,
            ),
            request_line: take(
                "request_line",
                self.request_line.map(size),
                LONGEST_LINE,
                default.request_line,
            ),
            desync: self.desync.map_or(default.desync, |written| written.value.0),
        }
    }
}

fn within(name: &str, written: &Placed<u64>, most: u64, complaints: &mut Complaints) -> Option<usize> {
    if (1..=most).contains(&written.value) {
        return usize::try_from(written.value).ok();
    }
    let message = format!("`limits.{name}` is {}: it must lie between 1 and {most}", written.value);
    complaints.error(Some(&written.place), message, None);
    None
}

/// Refuses what is not one clear message. Cheap questions first. How the body of an HTTP/1 message is framed
/// was settled by its decoder, whose verdict comes with the head.
pub fn check(policy: &Policy, head: &Head<'_>) -> Result<(), Refusal> {
    if let Some(fault) = head.fault() {
        graded(policy.desync, fault, head.is_refused())?;
    }
    method(head.method())?;
    version(head.version())?;
    request_line(policy, head)?;
    fields(policy, head)?;
    hosts(head)?;
    expectation(head)?;
    if head.version() == Version::HTTP_2 {
        content_length(head)?;
        connection_specific(head)?;
        blanks(head)?;
    }
    Ok(())
}

/// What the decoder has found, unless it is taken in this mode. What the decoder has refused stays refused: its mode
/// is that of the connection, which may be older than this one, and it has left the body alone.
fn graded(mode: Mode, fault: Fault, is_refused: bool) -> Result<(), Refusal> {
    if !is_refused && mode.accepts(fault.class()) {
        return Ok(());
    }
    let reason = match fault {
        Fault::RequestLineTooLong => Reason::TargetTooLong,
        Fault::TooManyFields => Reason::TooManyHeaders,
        Fault::FieldsTooLarge => Reason::HeadersTooLarge,
        Fault::TooSlow => Reason::HeadTimeout,
        Fault::NoHost | Fault::RepeatedHost => Reason::BadHost,
        Fault::BadMethod
        | Fault::BadSpacing
        | Fault::BadTargetByte
        | Fault::BadTargetForm
        | Fault::NoVersion
        | Fault::BadVersion
        | Fault::EmptyLines => Reason::BadTarget,
        Fault::BadChunkSize
        | Fault::ChunkTooLarge
        | Fault::ChunkExtensionTooLong
        | Fault::ChunkControlByte
        | Fault::BadChunkEnd
        | Fault::BadTrailer
        | Fault::TrailersTooLong => Reason::BadChunk,
        _ => Reason::BadFraming,
    };
    Err(Refusal::new(reason, fault.to_string()))
}

fn method(method: &Method) -> Result<(), Refusal> {
    if !is_forbidden(method) {
        return Ok(());
    }
    // RFC 9110 section 15.5.6 asks for Allow; no site is known yet, so it names what every site serves.
    let allow = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    Err(Refusal::method(Reason::ForbiddenMethod, method.as_str().to_owned(), allow))
}

/// Methods that never reach an origin: CONNECT would make a tunnel, TRACE and TRACK repeat credentials.
pub(super) fn is_forbidden(method: &Method) -> bool {
    *method == Method::CONNECT || *method == Method::TRACE || method.as_str().eq_ignore_ascii_case("TRACK")
}

fn version(version: Version) -> Result<(), Refusal> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        other => Err(Refusal::new(Reason::BadTarget, format!("the version is {other:?}"))),
    }
}

fn request_line(policy: &Policy, head: &Head<'_>) -> Result<(), Refusal> {
    const REST: usize = "  HTTP/1.1".len();
    let length = head.method().as_str().len() + head.target_len() + REST;
    if length <= policy.request_line {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::TargetTooLong,
        format!("the request line has {length} bytes, the limit is {}", policy.request_line),
    ))
}

fn fields(policy: &Policy, head: &Head<'_>) -> Result<(), Refusal> {
    const AROUND: usize = ": \r\n".len();
    if head.len() > policy.header_count {
        let detail = format!("{} fields, the limit is {}", head.len(), policy.header_count);
        return Err(Refusal::new(Reason::TooManyHeaders, detail));
    }
    let size: usize = head.lines().map(|(name, value)| name.len() + value.len() + AROUND).sum();
    if size > policy.header_size {
        let detail = format!("{size} bytes of fields, the limit is {}", policy.header_size);
        return Err(Refusal::new(Reason::HeadersTooLarge, detail));
    }
    Ok(())
}

fn hosts(head: &Head<'_>) -> Result<(), Refusal> {
    match head.all(&HOST).count() {
        0 | 1 => Ok(()),
        several => {
            let refusal = Refusal::new(Reason::BadHost, format!("{several} Host fields"));
            Err(refusal.graded(Fault::RepeatedHost))
        }
    }
}

/// RFC 9110 section 10.1.1: whatever else is expected cannot be met.
fn expectation(head: &Head<'_>) -> Result<(), Refusal> {
    match head.all(&EXPECT).find(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        None => Ok(()),
        Some(value) => Err(Refusal::new(Reason::Expectation, shown("Expect", value))),
    }
}

/// RFC 9110 section 8.6: digits only, and once.
fn content_length(head: &Head<'_>) -> Result<(), Refusal> {
    let mut lines = head.all(&CONTENT_LENGTH);
    let Some(value) = lines.next() else { return Ok(()) };
    if lines.next().is_some() {
        return Err(bad("several Content-Length fields".to_owned()));
    }
    super::size::declared(value).map(|_| ()).ok_or_else(|| bad(shown("Content-Length", value)))
}

/// RFC 9113 section 8.2.1: a value neither begins nor ends with a blank. Written as HTTP/1 they would be gone, and two
/// readers would compare two values.
fn blanks(head: &Head<'_>) -> Result<(), Refusal> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    match head.iter().find(|(_, value)| is_blank(value.first()) || is_blank(value.last())) {
        None => Ok(()),
        Some((name, _)) => Err(bad(format!("a blank around the value of `{}`", excerpt(name.as_bytes())))),
    }
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// RFC 9113 section 8.2.2: such fields make an HTTP/2 request malformed.
fn connection_specific(head: &Head<'_>) -> Result<(), Refusal> {
    let never = [&CONNECTION, &TRANSFER_ENCODING, &UPGRADE, &KEEP_ALIVE, &PROXY_CONNECTION];
    if let Some(name) = never.into_iter().find(|name| head.get(name).is_some()) {
        return Err(bad(format!("`{name}` over HTTP/2")));
    }
    match head.all(&TE).find(|value| !value.eq_ignore_ascii_case(b"trailers")) {
        None => Ok(()),
        Some(value) => Err(bad(format!("{} over HTTP/2", shown("TE", value)))),
    }
}

fn shown(name: &str, value: &[u8]) -> String {
    format!("`{name}: {}`", excerpt(value))
}

fn bad(detail: String) -> Refusal {
    Refusal::new(Reason::BadFraming, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;
    use crate::http1::request::{Decoder, Limits};

    fn verdict(method: &str, version: Version, fields: &[(&str, &str)]) -> Option<Reason> {
        let parts = testing::head(method, "/", version, fields);
        check(&Policy::default(), &Head::new(&parts)).err().map(|refusal| refusal.reason)
    }

    fn h1(fields: &[(&str, &str)]) -> Option<Reason> {
        verdict("POST", Version::HTTP_11, fields)
    }

    fn h2(fields: &[(&str, &str)]) -> Option<Reason> {
        verdict("POST", Version::HTTP_2, fields)
    }

    #[test]
    fn what_the_decoder_has_refused_stays_refused_in_every_mode() {
        let mut bytes =
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi".into();
        let limits = Limits { request_line: 99, fields: 9, fields_size: 999 };
        let broken = Decoder::default().decode(&mut bytes, &limits, Mode::Strictest).unwrap_err();
        for desync in [Mode::Strictest, Mode::Defensive, Mode::Monitor] {
            let refusal = check(&Policy { desync, ..Policy::default() }, &Head::received(&broken.head));
            assert_eq!(refusal.err().map(|refusal| refusal.reason), Some(Reason::BadFraming), "{desync:?}");
        }
    }

    #[test]
    fn what_browsers_send_passes() {
        assert_eq!(h1(&[("host", "a.test"), ("content-length", "12")]), None);
        assert_eq!(h1(&[("host", "a.test"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(h1(&[("expect", "100-Continue"), ("content-length", "0")]), None);
        assert_eq!(h1(&[("te", "gzip"), ("connection", "te")]), None);
        assert_eq!(h2(&[("te", "trailers"), ("content-length", "3")]), None);
        assert_eq!(verdict("GET", Version::HTTP_10, &[("host", "a.test")]), None);
    }

    #[test]
    fn tunnels_and_echoes_are_never_forwarded() {
        for method in ["TRACE", "TRACK", "track"] {
            let parts = testing::head(method, "/", Version::HTTP_11, &[]);
            let refusal = check(&Policy::default(), &Head::new(&parts)).unwrap_err();
            assert_eq!(refusal.reason, Reason::ForbiddenMethod, "{method}");
            assert!(refusal.allow.is_some(), "a 405 names what is allowed");
        }
        let parts = testing::head("CONNECT", "a.test:443", Version::HTTP_11, &[]);
        let refusal = check(&Policy::default(), &Head::new(&parts)).unwrap_err();
        assert_eq!(refusal.reason, Reason::ForbiddenMethod);
    }

    #[test]
    fn foreign_versions_are_refused() {
        assert_eq!(verdict("GET", Version::HTTP_09, &[]), Some(Reason::BadTarget));
        assert_eq!(verdict("GET", Version::HTTP_3, &[]), Some(Reason::BadTarget));
    }

    #[test]
    fn the_grade_of_a_message_decides_with_the_mode() {
        let parts = testing::head("GET", "/", Version::HTTP_11, &[("host", "a.test")]);
        let verdict = |desync, fault| {
            let policy = Policy { desync, ..Policy::default() };
            check(&policy, &Head::graded(&parts, Some(fault))).err().map(|refusal| refusal.reason)
        };
        assert_eq!(verdict(Mode::Strictest, Fault::BodyWithGet), Some(Reason::BadFraming));
        assert_eq!(verdict(Mode::Defensive, Fault::BodyWithGet), None);
        assert_eq!(verdict(Mode::Strictest, Fault::ZeroLengthWithGet), None);
        for (fault, reason) in [
            (Fault::BadEncoding, Reason::BadFraming),
            (Fault::NoHost, Reason::BadHost),
            (Fault::BadVersion, Reason::BadTarget),
            (Fault::RequestLineTooLong, Reason::TargetTooLong),
            (Fault::TooManyFields, Reason::TooManyHeaders),
            (Fault::FieldsTooLarge, Reason::HeadersTooLarge),
            (Fault::TooSlow, Reason::HeadTimeout),
        ] {
            assert_eq!(verdict(Mode::Monitor, fault), Some(reason), "{fault}");
        }
    }

    #[test]
    fn content_length_is_digits_once() {
        for value in ["+3", "-1", "0x3", "3,3", "3 3", "", "99999999999999999999"] {
            assert_eq!(h2(&[("content-length", value)]), Some(Reason::BadFraming), "{value}");
        }
        assert_eq!(h2(&[("content-length", "3"), ("content-length", "3")]), Some(Reason::BadFraming));
    }

    #[test]
    fn several_hosts_are_refused_even_when_equal() {
        assert_eq!(h1(&[("host", "a.test"), ("host", "a.test")]), Some(Reason::BadHost));
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        for value in ["200-ok", "100-continue, x", "y 100-continue", ""] {
            assert_eq!(h1(&[("expect", value)]), Some(Reason::Expectation), "{value}");
        }
        assert_eq!(h1(&[("expect", "100-continue"), ("expect", "x")]), Some(Reason::Expectation));
    }

    #[test]
    fn http2_has_no_connection_specific_fields() {
        for name in ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
            assert_eq!(h2(&[(name, "x")]), Some(Reason::BadFraming), "{name}");
        }
        assert_eq!(h2(&[("te", "gzip")]), Some(Reason::BadFraming));
        assert_eq!(h2(&[("x", " a")]), Some(Reason::BadFraming));
        assert_eq!(h2(&[("x", "a\t")]), Some(Reason::BadFraming));
        assert_eq!(h2(&[("x", "a b"), ("y", "")]), None);
    }

    #[test]
    fn limits_are_inclusive() {
        let policy = Policy { header_count: 1, header_size: 8, request_line: 15, ..Policy::default() };
        let verdict = |target: &str, fields: &[(&str, &str)]| {
            let parts = testing::head("GET", target, Version::HTTP_11, fields);
            check(&policy, &Head::new(&parts)).err().map(|refusal| refusal.reason)
        };
        assert_eq!(verdict("/a", &[("xy", "zz")]), None);
        assert_eq!(verdict("/ab", &[]), Some(Reason::TargetTooLong));
        assert_eq!(verdict("/", &[("xy", "zzz")]), Some(Reason::HeadersTooLarge));
        assert_eq!(verdict("/", &[("x", ""), ("y", "")]), Some(Reason::TooManyHeaders));
    }

    #[test]
    fn limits_are_read_and_complained_about() {
        let (raw, complaints) = testing::read(
            "header_count = 50\nheader_size = \"32 KiB\"\nrequest_line = \"8 KiB\"\ndesync_mitigation = \"defensive\"",
            Raw::read,
        );
        assert!(complaints.is_empty(), "{complaints}");
        let mut complaints = Complaints::default();
        let policy = raw.compile(&mut complaints);
        assert_eq!(
            policy,
            Policy {
                header_count: 50,
                header_size: 32 << 10,
                request_line: 8 << 10,
                desync: Mode::Defensive,
            }
        );
        assert!(complaints.is_empty(), "{complaints}");

        let (raw, _) = testing::read("header_count = 0\nrequest_line = \"1 MiB\"", Raw::read);
        let mut complaints = Complaints::default();
        assert_eq!(raw.compile(&mut complaints), Policy::default());
        assert_eq!(complaints.iter().count(), 2, "{complaints}");
    }
}
