//! `multipart/form-data` as PHP reads it, piece by piece and without a buffer. Sans-IO.
//!
//! Where PHP's versions differ, or where a body is written so that readers could disagree, more is seen here than
//! PHP sees, never less: a delimiter counts at the end of any line, every `name=` in a part's header is a name
//! that the part may have, and the name of a file counts like any other. What a browser writes is read exactly.
//! Source: PHP's `main/rfc1867.c` (`find_boundary`, `multipart_buffer_headers`, `php_ap_getword_conf`), and
//! RFC 7578 for what browsers write.

use memchr::memchr;

use super::form::{NAME_MAX, Sink, VALUE_MAX};
use super::short::Short;

/// The longest boundary that is looked for, about as much as a request's fields may take; RFC 2046 section 5.1.1 allows
/// 70 bytes, PHP any number.
const BOUNDARY_MAX: usize = 65_000;
/// PHP takes so many bytes without a line end for a line, or as many as a longer boundary needs.
const LINE_MAX: usize = 5 * 1_024;
/// As much of a value as is kept, with the line end before the delimiter.
const KEPT: usize = VALUE_MAX + b"\r\n".len();

/// The decoder of one body.
#[derive(Clone, Debug)]
pub struct Multipart {
    delimiter: Delimiter,
    /// So many bytes are a line (`multipart_buffer_new`).
    line_max: usize,
    at: At,
    /// Bytes of the line that came before the next byte.
    column: usize,
    last: u8,
    header: Header,
    value: Option<Short<KEPT>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first delimiter, in a value, or behind the last one.
    Outside,
    /// Between a delimiter and an empty line.
    Header,
}

/// Looks for `--boundary` (Knuth, Morris and Pratt).
#[derive(Clone, Debug)]
struct Delimiter {
    text: Box<[u8]>,
    /// How much of the text is still matched when the byte behind so many of its bytes does not fit.
    fallback: Box<[u16]>,
    matched: usize,
    /// Whether it was found right before, but for a carriage return perhaps.
    found: bool,
}

/// Looks for names in a part's header.
#[derive(Clone, Debug, Default)]
struct Header {
    /// How much of `name=` was matched.
    matched: usize,
    last: u8,
    name: Option<Name>,
}

#[derive(Clone, Debug, Default)]
struct Name {
    text: Short<NAME_MAX>,
    begun: bool,
    quote: Option<u8>,
    escaped: bool,
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is no boundary: PHP reads nothing either.
    Bare,
    /// A boundary that no browser makes.
    Overlong,
}

impl Multipart {
    /// The decoder for a body of this `Content-Type`.
    pub fn new(content_type: &[u8]) -> Result<Self, Unreadable> {
        let boundary = boundary(content_type).ok_or(Unreadable::Bare)?;
        if boundary.len() > BOUNDARY_MAX {
            return Err(Unreadable::Overlong);
        }
        Ok(Self {
            delimiter: Delimiter::new(boundary),
            line_max: LINE_MAX.max(boundary.len() + 6),
            at: At::Outside,
            column: 0,
            last: 0,
            header: Header::default(),
            value: None,
        })
    }

    /// The next piece of the body.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut impl Sink) {
        while let Some((byte, rest)) = piece.split_first() {
            piece = rest;
            match self.at {
                At::Header => self.header(*byte, sink),
                At::Outside if self.value.is_none() && self.delimiter.is_idle() && *byte != b'-' => {
                    let next = memchr(b'-', rest).unwrap_or(rest.len());
                    piece = rest.get(next..).unwrap_or_default();
                    self.column = self.line_max;
                    continue;
                }
                At::Outside => self.outside(*byte, sink),
            }
            let cut = self.at == At::Header && self.column + 1 == self.line_max;
            self.column = if *byte == b'\n' || cut { 0 } else { self.column.saturating_add(1) };
            self.last = *byte;
        }
    }

    /// The body is over, or this is all of it that will be seen.
    pub fn end(&mut self, sink: &mut impl Sink) {
        if let Some(value) = self.value.take() {
            report(value.start(), value.len(), sink);
        }
    }

    fn outside(&mut self, byte: u8, sink: &mut impl Sink) {
        if self.delimiter.ends_line(byte) {
            // Text before a delimiter in the same line is a value that goes on, to PHP, or none of a browser's.
            self.end(sink);
            sink.begin();
            (self.at, self.header) = (At::Header, Header::default());
            return;
        }
        if let Some(value) = &mut self.value {
            value.push(byte);
        }
        if self.delimiter.step(byte) && self.column + 1 == self.delimiter.text.len() {
            self.delimited(sink);
        }
        let most = KEPT + self.delimiter.text.len();
        if let Some(value) = self.value.take_if(|value| value.len() > most) {
            report(value.start(), value.len(), sink);
        }
    }

    /// A line has begun with the delimiter: the value ends before that line.
    fn delimited(&mut self, sink: &mut impl Sink) {
        let Some(value) = self.value.take() else { return };
        let length = value.len().saturating_sub(self.delimiter.text.len());
        let kept = value.first(length);
        let kept = kept.strip_suffix(b"\n").map_or(kept, |kept| kept.strip_suffix(b"\r").unwrap_or(kept));
        // A line end behind what is kept does not matter: the value is too long anyway.
        report(kept, if length > KEPT { length } else { kept.len() }, sink);
    }

    fn header(&mut self, byte: u8, sink: &mut impl Sink) {
        let after_return = self.column > 0 && self.last == b'\r';
        match byte {
            b'\n' => {
                if self.column == usize::from(after_return) {
                    self.header.end(sink);
                    self.at = At::Outside;
                    self.delimiter.reset();
                    self.value = sink.wants().then(Short::default);
                    return;
                }
                self.header.end_of_line(sink);
            }
            b'\r' => {}
            byte => {
                if after_return {
                    self.header.push(b'\r', sink);
                }
                self.header.push(byte, sink);
            }
        }
        if self.column + 1 == self.line_max {
            self.header.end_of_line(sink);
        }
    }
}

fn report(kept: &[u8], length: usize, sink: &mut impl Sink) {
    sink.value(kept.get(..VALUE_MAX).unwrap_or(kept), length <= VALUE_MAX);
}

/// What PHP takes for the boundary: what stands behind the first `=` behind the first `boundary`.
fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let word = b"boundary";
    let at = content_type.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))?;
    let behind = content_type.get(at + word.len()..)?;
    let value = behind.get(memchr(b'=', behind)? + 1..)?;
    match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.get(..memchr(b'"', quoted)?),
        None => value.split(|byte| matches!(byte, b',' | b';')).next(),
    }
}

impl Delimiter {
    fn new(boundary: &[u8]) -> Self {
        let text: Box<[u8]> = [b"--", boundary].concat().into();
        let mut fallback: Vec<u16> = Vec::with_capacity(text.len());
        let mut matched = 0_u16;
        for (index, byte) in text.iter().enumerate() {
            // Of the first byte alone, nothing stays matched.
            while index > 0 && matched > 0 && text.get(usize::from(matched)) != Some(byte) {
                matched = fallback.get(usize::from(matched) - 1).copied().unwrap_or_default();
            }
            if index > 0 && text.get(usize::from(matched)) == Some(byte) {
                matched += 1;
            }
            fallback.push(matched);
        }
        Self { text, fallback: fallback.into(), matched: 0, found: false }
    }

    fn reset(&mut self) {
        (self.matched, self.found) = (0, false);
    }

    /// Whether nothing of it has come.
    fn is_idle(&self) -> bool {
        self.matched == 0 && !self.found
    }

    /// Whether `byte` ends a line whose last bytes are the delimiter.
    fn ends_line(&mut self, byte: u8) -> bool {
        let found = self.found;
        self.found = found && byte == b'\r' && self.matched == self.text.len();
        if self.found {
            // Once: a second carriage return belongs to the line.
            self.matched = 0;
            return false;
        }
        found && byte == b'\n'
    }

    /// Takes a byte; whether it completes the delimiter.
    fn step(&mut self, byte: u8) -> bool {
        if self.found {
            return false;
        }
        while self.matched > 0 && self.text.get(self.matched) != Some(&byte) {
            self.matched = self.fallback.get(self.matched - 1).copied().unwrap_or_default().into();
        }
        if self.text.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.found = self.matched == self.text.len();
        self.found
    }
}

impl Header {
    /// A byte of a line, without its end. PHP joins lines that do not look like a field of their own.
    fn push(&mut self, byte: u8, sink: &mut impl Sink) {
        const WORD: &[u8] = b"name=";
        if let Some(name) = &mut self.name {
            if name.push(byte) {
                self.end(sink);
            }
        } else if WORD.get(self.matched).is_some_and(|want| want.eq_ignore_ascii_case(&byte))
            && (self.matched > 0 || begins_word(self.last))
        {
            self.matched += 1;
            if self.matched == WORD.len() {
                self.name = Some(Name::default());
                self.matched = 0;
            }
        } else {
            self.matched = usize::from(byte.eq_ignore_ascii_case(&b'n') && begins_word(self.last));
        }
        self.last = byte;
    }

    /// A line has ended: perhaps the name has, too, or it goes on in the next line.
    fn end_of_line(&mut self, sink: &mut impl Sink) {
        if let Some(name) = &self.name {
            sink.name(name.text.start());
        }
    }

    fn end(&mut self, sink: &mut impl Sink) {
        self.end_of_line(sink);
        self.name = None;
    }
}

/// Whether a parameter's name may stand behind this byte; 0 stands for the beginning.
fn begins_word(before: u8) -> bool {
    matches!(before, 0 | b':' | b';' | b' ' | 0x09..=0x0d)
}

impl Name {
    /// Takes a byte; whether it is the one behind the name.
    fn push(&mut self, byte: u8) -> bool {
        let is_blank = matches!(byte, b' ' | 0x09..=0x0d);
        if !self.begun {
            self.begun = !is_blank;
            match byte {
                b'"' | b'\'' => self.quote = Some(byte),
                _ if is_blank => {}
                byte => self.text.push(byte),
            }
            return false;
        }
        if std::mem::take(&mut self.escaped) {
            if byte != b'\\' && Some(byte) != self.quote {
                self.text.push(b'\\');
            }
            self.text.push(byte);
            return false;
        }
        match (byte, self.quote) {
            (b'\\', _) => self.escaped = true,
            (byte, Some(quote)) if byte == quote => return true,
            (b';', None) => return true,
            (_, None) if is_blank => return true,
            (byte, _) => self.text.push(byte),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::form::All;
    use super::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=----WebKitFormBoundaryX";
    const BOUNDARY: &str = "----WebKitFormBoundaryX";

    fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<(Vec<Vec<u8>>, Vec<u8>)> {
        let (mut multipart, mut all) = (Multipart::new(TYPE).unwrap(), All::default());
        for piece in pieces {
            multipart.push(piece, &mut all);
        }
        multipart.end(&mut all);
        all.pairs
    }

    /// Names that a part may have, joined by `|`, and its value.
    fn pairs(text: &str) -> Vec<(String, String)> {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names = |names: &[Vec<u8>]| names.iter().map(|name| text_of(name)).collect::<Vec<_>>().join("|");
        read([text.as_bytes()]).iter().map(|(all, value)| (names(all), text_of(value))).collect()
    }

    fn part(header: &str, value: &str) -> String {
        format!("--{BOUNDARY}\r\n{header}\r\n\r\n{value}\r\n")
    }

    fn named(name: &str, value: &str) -> String {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), value)
    }

    #[test]
    fn what_a_browser_writes_is_read_exactly() {
        let file = "Content-Disposition: form-data; name=\"upload\"; filename=\"a.bin\"\r\nContent-Type: x/y";
        let body = [
            named("login_status", "login"),
            part(file, "\0--\r\n----WebKit\n"),
            named("empty", ""),
            named("lines", "a\r\n\r\nb"),
            format!("--{BOUNDARY}--\r\n"),
        ];
        let want = [
            ("login_status", "login"),
            ("upload", "\0--\r\n----WebKit\n"),
            ("empty", ""),
            ("lines", "a\r\n\r\nb"),
        ];
        assert_eq!(pairs(&body.concat()), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn odd_bodies_that_php_reads_are_read() {
        let login = |body: &str| {
            pairs(body)
                .iter()
                .any(|(names, value)| value == "login" && names.split('|').any(|name| name == "login_status"))
        };
        let close = format!("--{BOUNDARY}--");
        for (body, why) in [
            (format!("preamble\n{}{close}", named("login_status", "login")), "a preamble"),
            (
                format!("{}{}{close}", "x".repeat(LINE_MAX), named("login_status", "login")),
                "a line cut by PHP",
            ),
            (
                format!("--{BOUNDARY}\nContent-Disposition: form-data; name=login_status\n\nlogin\n{close}"),
                "bare line feeds",
            ),
            (part("content-disposition:x;NAME='login_status'", "login") + &close, "another spelling"),
            (
                part("Content-Disposition: form-data;\r\n name=\"login_status\"", "login") + &close,
                "a folded line",
            ),
            (
                part("Content-Disposition: form-data; na\r\nme=login_\r\nstatus", "login") + &close,
                "joined lines",
            ),
            (
                part(
                    "Content-Disposition: form-data; name=x; name=\"login\\_status\"; name=login_status",
                    "login",
                ) + &close,
                "the last name",
            ),
            (
                part(
                    &format!(
                        "X: {}\r\nContent-Disposition: form-data; name=login_status\r\nY: z",
                        "p".repeat(9_000)
                    ),
                    "login",
                ) + &close,
                "a long field",
            ),
            (
                format!(
                    "--{BOUNDARY}\r\nX: {:p<2$}\nlogin\r\n{1}",
                    "name=login_status;",
                    close,
                    LINE_MAX - 3
                ),
                "an empty line behind a cut one",
            ),
            (named("login_status", "login").trim_end().to_owned(), "no last delimiter"),
            (
                part(
                    "Content-Disposition: form-data; name=login_status",
                    &format!("login\r\n--{BOUNDARY}junk"),
                ),
                "a delimiter with something behind",
            ),
        ] {
            assert!(login(&body), "{why}: {:?}", pairs(&body));
        }
        assert!(!login(&(named("login_status", "logout") + &named("other", "login"))));
        assert!(!login(&(named("login_statusx", "login") + &close)));
    }

    #[test]
    fn a_boundary_may_be_as_long_as_a_head() {
        for length in [1_001, LINE_MAX, 9_000, BOUNDARY_MAX] {
            let boundary = "-b".repeat(length / 2);
            let mut multipart =
                Multipart::new(format!("multipart/form-data; boundary={boundary}").as_bytes()).unwrap();
            // A line that would be cut behind a short boundary, so that an empty one seemed to follow.
            let long = "p".repeat(length.min(LINE_MAX + 1) - "X: -".len());
            let head = format!("X: {long}\r\nContent-Disposition: form-data; name=logintype");
            let body = format!("--{boundary}\r\n{head}\r\n\r\nlogin\r\n--{boundary}--");
            let mut all = All::default();
            body.as_bytes().chunks(4_096).for_each(|piece| multipart.push(piece, &mut all));
            multipart.end(&mut all);
            assert_eq!(all.pairs.last().map(|(_, value)| &**value), Some(&b"login"[..]), "{length}");
        }
    }

    #[test]
    fn boundaries_are_found_as_php_finds_them() {
        for (text, want) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("multipart/form-data; BOUNDARY=\"a;b\"; x", Some("a;b")),
            ("multipart/form-data; xboundaryx = a,b", Some(" a")),
            ("multipart/form-data; boundary=", Some("")),
            ("multipart/form-data; boundary=\"a", None),
            ("multipart/form-data", None),
        ] {
            assert_eq!(boundary(text.as_bytes()), want.map(str::as_bytes), "{text}");
        }
        let long = format!("multipart/form-data; boundary={}", "b".repeat(BOUNDARY_MAX + 1));
        assert_eq!(Multipart::new(long.as_bytes()).err(), Some(Unreadable::Overlong));
        assert_eq!(Multipart::new(b"multipart/form-data").err(), Some(Unreadable::Bare));
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_it_is_cut(
            text in "(------WebKitFormBoundaryX|--|\r\n|\n|\r|name=|;|\"|a|login| ){0,30}",
            cuts in prop::collection::vec(1usize..12, 0..20),
        ) {
            let whole = read([text.as_bytes()]);
            prop_assert_eq!(&read(text.as_bytes().chunks(1)), &whole);
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(read(pieces), whole);
        }

        /// Any values but for those that hold the delimiter.
        #[test]
        fn values_are_read_exactly(values in prop::collection::vec("[a\r\n -]{0,40}", 1..4)) {
            let body: String = values.iter().map(|value| named("n", value)).collect();
            let read: Vec<_> = pairs(&(body + &format!("--{BOUNDARY}--"))).into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn nothing_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5)) {
            read(pieces.iter().map(Vec::as_slice));
        }
    }
}
