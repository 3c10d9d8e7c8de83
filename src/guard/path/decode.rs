//! The decoder of paths: one normal form, which every rule sees and the origin gets. Sans-IO.
//!
//! Two readers of a path that disagree are a bypass: one refuses `/typo3/`, the other serves
//! `/%74ypo3/./`. So escapes of unreserved characters are decoded (RFC 3986 section 6.2.2.2), other
//! escapes are kept with upper-case digits, dot segments are removed, runs of slashes become one, bytes
//! that no URI may hold (raw UTF-8, `"<>^{|}` and the back-tick) are escaped, and whatever origins are
//! known to read in different ways is refused.
//!
//! Kept as received: `[` and `]`, which TYPO3 links use; path parameters (`;x=1`), which Apache and PHP
//! take for a part of the name; escapes that are not UTF-8 (old links in Latin-1); and trailing dots and
//! blanks, which only Windows drops.

use std::borrow::Cow;
use std::fmt;

/// Why a path cannot be normalised without guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A `%` without two hexadecimal digits behind it.
    BadEscape,
    /// A control byte, raw or escaped other than HTAB; NUL ends names in C.
    Control,
    /// `%2F`: a slash to some readers, a part of a name to others (CVE-2021-29492).
    EncodedSlash,
    /// A backslash, raw or escaped: a slash to some readers.
    Backslash,
    /// A longer spelling of a character than UTF-8 allows, such as `%C0%AF` for a slash.
    Overlong,
    /// `..` climbs above the root.
    AboveRoot,
    /// `..;` or `.;`: a dot segment to readers that drop parameters first.
    DotParameter,
}

impl PathFault {
    /// A word for it, in kebab case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAbsolute => "not-absolute",
            Self::BadEscape => "bad-escape",
            Self::Control => "control",
            Self::EncodedSlash => "encoded-slash",
            Self::Backslash => "backslash",
            Self::Overlong => "overlong",
            Self::AboveRoot => "above-root",
            Self::DotParameter => "dot-parameter",
        }
    }

    /// What it is, for the log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::BadEscape => "a `%` is not followed by two hexadecimal digits",
            Self::Control => "the path holds a control byte or a blank",
            Self::EncodedSlash => "the path holds an encoded slash",
            Self::Backslash => "the path holds a backslash",
            Self::Overlong => "the path holds an overlong UTF-8 sequence",
            Self::AboveRoot => "the path climbs above the root",
            Self::DotParameter => "a dot segment carries a parameter",
        }
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The normal form of a path, borrowed if it is already in it. The query must not be part of `raw`.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, PathFault> {
    if !raw.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    if is_normal(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    rebuild(raw).map(Cow::Owned)
}

/// Whether a path is in its normal form. The everyday path is told by one look at each byte; where a segment
/// begins with a dot, or holds an escape, the segments are looked at one by one.
fn is_normal(path: &str) -> bool {
    let mut before = Class::Slash;
    for byte in path.bytes().skip(1) {
        let class = class(byte);
        match (before, class) {
            (_, Class::Never) | (Class::Slash, Class::Slash) => return false,
            (Class::Slash, Class::Dot) | (_, Class::Percent) => return is_each_normal(path),
            _ => before = class,
        }
    }
    true
}

fn is_each_normal(path: &str) -> bool {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let named = match kind(segment) {
            Kind::Name => true,
            Kind::Empty => last,
            Kind::Here | Kind::Up | Kind::Parameter => false,
        };
        if !named || !is_clean(segment.as_bytes()) {
            return false;
        }
    }
    true
}

fn rebuild(raw: &str) -> Result<String, PathFault> {
    let mut out = String::with_capacity(raw.len() + 16);
    let mut folder = false;
    for segment in raw.split('/').skip(1) {
        let start = out.len();
        out.push('/');
        clean(segment.as_bytes(), &mut out)?;
        let found = kind(out.get(start + 1..).unwrap_or(""));
        folder = found != Kind::Name;
        match found {
            Kind::Name => {}
            Kind::Empty | Kind::Here => out.truncate(start),
            Kind::Up => {
                out.truncate(start);
                out.truncate(out.rfind('/').ok_or(PathFault::AboveRoot)?);
            }
            Kind::Parameter => return Err(PathFault::DotParameter),
        }
    }
    if folder {
        out.push('/');
    }
    Ok(out)
}

/// What a segment does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Empty,
    Here,
    Up,
    Parameter,
    Name,
}

fn kind(segment: &str) -> Kind {
    let Some(rest) = segment.strip_prefix('.') else {
        return if segment.is_empty() { Kind::Empty } else { Kind::Name };
    };
    let (rest, dots) = rest.strip_prefix('.').map_or((rest, Kind::Here), |rest| (rest, Kind::Up));
    match rest {
        "" => dots,
        _ if rest.starts_with(';') || rest.starts_with("%3B") => Kind::Parameter,
        _ => Kind::Name,
    }
}

/// Whether `clean` would leave the segment as it is.
fn is_clean(mut segment: &[u8]) -> bool {
    while let Some((byte, rest)) = segment.split_first() {
        segment = match (byte, rest) {
            (b'%', [a, b, rest @ ..]) if is_upper_hex(*a) && is_upper_hex(*b) => match escape(*a, *b, rest) {
                Ok(value) if !is_unreserved(value) => rest,
                _ => return false,
            },
            (byte, rest) if is_kept(*byte) => rest,
            _ => return false,
        };
    }
    true
}

fn clean(mut segment: &[u8], out: &mut String) -> Result<(), PathFault> {
    while let Some((byte, rest)) = segment.split_first() {
        segment = rest;
        match byte {
            b'%' => {
                let [a, b, rest @ ..] = rest else { return Err(PathFault::BadEscape) };
                let value = escape(*a, *b, rest)?;
                match value {
                    value if is_unreserved(value) => out.push(char::from(value)),
                    value => push_escaped(value, out),
                }
                segment = rest;
            }
            b'\\' => return Err(PathFault::Backslash),
            0..=b' ' | 0x7f => return Err(PathFault::Control),
            byte if is_kept(*byte) => out.push(char::from(*byte)),
            byte => push_escaped(*byte, out),
        }
    }
    Ok(())
}

/// The value of an escape, if it may stand in a path; `rest` is what follows it.
fn escape(a: u8, b: u8, rest: &[u8]) -> Result<u8, PathFault> {
    let value = hex(a).zip(hex(b)).map(|(a, b)| a << 4 | b).ok_or(PathFault::BadEscape)?;
    match value {
        // HTAB ends no line and no name: a field may hold it too.
        0..=0x08 | 0x0a..=0x1f | 0x7f => Err(PathFault::Control),
        b'/' => Err(PathFault::EncodedSlash),
        b'\\' => Err(PathFault::Backslash),
        0xc0.. if is_overlong(value, rest) => Err(PathFault::Overlong),
        _ => Ok(value),
    }
}

/// Whether a lead byte and the escape behind it spell a character longer than needed. The forms of five and
/// six bytes, which old decoders still read, count as well.
fn is_overlong(lead: u8, rest: &[u8]) -> bool {
    let [b'%', a, b, ..] = rest else { return false };
    let Some(next) = hex(*a).zip(hex(*b)).map(|(a, b)| a << 4 | b) else { return false };
    match lead {
        0xc0 | 0xc1 => (0x80..=0xbf).contains(&next),
        0xe0 => (0x80..=0x9f).contains(&next),
        0xf0 => (0x80..=0x8f).contains(&next),
        0xf8 => (0x80..=0x87).contains(&next),
        0xfc => (0x80..=0x83).contains(&next),
        _ => false,
    }
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

fn push_escaped(byte: u8, out: &mut String) {
    let digit = |n: u8| DIGITS.get(usize::from(n & 0xf)).map_or('0', |d| char::from(*d));
    out.push('%');
    out.push(digit(byte >> 4));
    out.push(digit(byte));
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn is_upper_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'A'..=b'F')
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What stands raw in the normal form: `pchar` of RFC 3986 section 3.3, and brackets.
fn is_kept(byte: u8) -> bool {
    matches!(class(byte), Class::Kept | Class::Dot)
}

/// What a byte may mean in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It never stands raw in the normal form.
    Never,
    Kept,
    Dot,
    Slash,
    Percent,
}

fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Never)
}

#[expect(clippy::indexing_slicing, reason = "happens while compiling, where it cannot panic unseen")]
static CLASSES: [Class; 256] = {
    let mut classes = [Class::Never; 256];
    let mut byte = 0;
    while byte < 0x80_u8 {
        classes[byte as usize] = match byte {
            b'.' => Class::Dot,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
            | b'=' | b':' | b'@' | b'[' | b']' => Class::Kept,
            _ if byte.is_ascii_alphanumeric() => Class::Kept,
            _ => Class::Never,
        };
        byte += 1;
    }
    classes
};

/// The bytes that a path stands for, escapes decoded once: what the origin's file system sees. Rules
/// compare in this form, so that `%40` and `@` are the same to them.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    rest: &'a [u8],
}

/// Reads a normalised path, or a part of one, byte by byte with its escapes decoded.
#[must_use]
pub fn decoded(path: &str) -> Decoded<'_> {
    Decoded { rest: path.as_bytes() }
}

/// The same for bytes that are no text any more, such as a path that was decoded once.
#[must_use]
pub fn decoded_again(path: &[u8]) -> Decoded<'_> {
    Decoded { rest: path }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        if let (b'%', [a, b, rest @ ..]) = (byte, rest)
            && let Some((a, b)) = hex(*a).zip(hex(*b))
        {
            self.rest = rest;
            return Some(a << 4 | b);
        }
        Some(*byte)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Paths made of the pieces that matter, so that most cases hit something.
    fn paths() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "//", ".", "..", "%2e", "%2E", "%74", "typo3", "a", ";", "%3b", "%2f", "\\", "%5c", "%00",
            "%c3%bc", "ü", "%FC", "%c0", "%af", "%25", "%", "%4", "~", "[", "]", "@", "%40", "+", "{", "\"",
            " ", "%20", "%0a", "?", "#",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn the_normal_form_keeps_its_promises(raw in paths()) {
            if let Ok(path) = normalise(&raw) {
                prop_assert!(path.starts_with('/'));
                for never in ["//", "/./", "/../", "\\", "%2F", "%5C", "?", "#", " "] {
                    prop_assert!(!path.contains(never), "{raw} became {path}");
                }
                prop_assert!(!path.ends_with("/.") && !path.ends_with("/.."), "{raw} became {path}");
                prop_assert!(path.bytes().all(|b| b.is_ascii_graphic()), "{raw} became {path}");
                for (i, _) in path.match_indices('%') {
                    let digits = &path[i + 1..i + 3];
                    let value = u8::from_str_radix(digits, 16).unwrap();
                    prop_assert!(!is_unreserved(value) && value >= 0x20, "{raw} became {path}");
                    prop_assert_eq!(digits.to_uppercase(), digits);
                }
            }
        }

        #[test]
        fn normalising_twice_changes_nothing_and_allocates_nothing(raw in paths()) {
            if let Ok(path) = normalise(&raw) {
                prop_assert!(matches!(normalise(&path), Ok(Cow::Borrowed(again)) if again == path));
            }
        }

        #[test]
        fn any_text_at_all_is_survived(raw in "\\PC{0,60}") {
            let _ = normalise(&raw);
            let _ = normalise(&format!("/{raw}"));
        }

        #[test]
        fn plain_names_are_left_alone(path in "(/[A-Za-z0-9_~-]{1,8}){1,6}/?") {
            prop_assert!(matches!(normalise(&path), Ok(Cow::Borrowed(same)) if same == path));
        }

        #[test]
        fn decoding_a_normal_path_yields_what_was_meant(name in "[^/\\\\\\x00-\\x20\\x7f.%]{1,12}") {
            let path = normalise(&format!("/{name}")).unwrap().into_owned();
            let bytes: Vec<u8> = decoded(&path).collect();
            prop_assert_eq!(bytes, format!("/{name}").into_bytes());
        }
    }
}
