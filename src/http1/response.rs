//! Decodes the head of a response: one clear message, or a named fault.
//!
//! Lines end with CR LF. RFC 9112 section 2.2 lets a recipient take a bare LF as well; it is refused
//! here, because an LF that an application let into a field value would otherwise become a field of
//! its own (response splitting). Apache, PHP's own server and every common framework write CR LF, also
//! when a CGI script or PHP printed LF, since they serialise the head anew.

use std::fmt;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, StatusCode, Version};

use super::connection::{KeepAlive, Options};
use super::framing::{Declared, FramingFault};

/// The most field lines of a response. TYPO3 with every extension stays below 60.
pub const FIELDS_MAX: usize = 256;

const START: &[u8] = b"HTTP/1.";

/// A response head, hop-by-hop fields taken out and understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status, 100 to 599.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The end-to-end fields in order; `Content-Length` is still among them.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// What the fields say about the body.
    pub declared: Declared,
    /// What `Connection` says.
    pub options: Options,
    /// What `Keep-Alive` says.
    pub keep_alive: KeepAlive,
    /// What `Upgrade` says; it is hop-by-hop, and only a 101 passes it on.
    pub upgrade: Option<HeaderValue>,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// It does not start with `HTTP/1.`: HTTP/0.9, HTTP/2, or no HTTP at all.
    NotHttp,
    /// A version other than 1.0 and 1.1.
    BadVersion,
    /// A status that is not three digits from 100 to 599.
    BadStatus,
    /// A line ends with a bare LF.
    BareLineFeed,
    /// A line starts with a blank: an obsolete folded field (RFC 9112 section 5.2).
    Folded,
    /// A field name that is no token, or a blank before the colon.
    BadName,
    /// NUL, a bare CR or another control byte in a field value.
    BadValue,
    /// The line structure is broken in another way.
    Malformed,
    /// More than [`FIELDS_MAX`] fields.
    TooManyFields,
    /// Longer than allowed.
    TooLarge,
    /// The length of the body is not clear.
    Framing(FramingFault),
}

/// Finds the end of a head that arrives in pieces, looking at each byte once.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    scanned: usize,
    line: usize,
}

impl Decoder {
    /// Takes a head off the front of `input` once it is complete; `limit` bounds its bytes.
    pub fn decode(&mut self, input: &mut BytesMut, limit: usize) -> Result<Option<ResponseHead>, HeadFault> {
        let window = input.get(..limit.min(input.len())).unwrap_or_default();
        if !starts_like_http(window) {
            return Err(HeadFault::NotHttp);
        }
        match self.end(window)? {
            Some(end) => {
                *self = Self::default();
                parse(&input.split_to(end).freeze()).map(Some)
            }
            None if input.len() >= limit => Err(HeadFault::TooLarge),
            None => Ok(None),
        }
    }

    /// The length of the head, when its empty line is there.
    fn end(&mut self, window: &[u8]) -> Result<Option<usize>, HeadFault> {
        while let Some(fresh) = window.get(self.scanned..)
            && let Some(found) = memchr::memchr(b'\n', fresh)
        {
            let feed = self.scanned + found;
            let line = window.get(self.line..feed).unwrap_or_default();
            self.scanned = feed + 1;
            self.line = feed + 1;
            match line {
                [b'\r'] => return Ok(Some(feed + 1)),
                [b' ' | b'\t', ..] => return Err(HeadFault::Folded),
                [.., b'\r'] => {}
                _ => return Err(HeadFault::BareLineFeed),
            }
        }
        self.scanned = window.len();
        Ok(None)
    }
}

impl ResponseHead {
    /// Adds one field to where it belongs. What is for this connection only is understood and left out
    /// before a name is made of it: a name that is no registered constant would be copied.
    fn take(&mut self, name: &str, value: Bytes) -> Result<(), HeadFault> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            17 if is("transfer-encoding") => self.declared.add_encoding(&value)?,
            10 if is("connection") => self.options.read(&value),
            10 if is("keep-alive") => self.keep_alive.read(&value),
            16 if is("proxy-connection") => {}
            7 if is("trailer") => {}
            2 if is("te") => {}
            7 if is("upgrade") => self.upgrade = Some(checked(value)?),
            _ => {
                let name = match known(name) {
                    Some(name) => name,
                    None => HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeadFault::BadName)?,
                };
                if name == CONTENT_LENGTH {
                    self.declared.add_length(&value)?;
                }
                self.fields.push((name, checked(value)?));
            }
        }
        Ok(())
    }

    /// Takes out what `Connection` names; never the length, which we have understood ourselves.
    fn drop_named(&mut self) {
        let named = &self.options.named;
        if !named.is_empty() {
            self.fields.retain(|(name, _)| *name == CONTENT_LENGTH || !named.contains(name));
        }
    }
}

impl From<FramingFault> for HeadFault {
    fn from(fault: FramingFault) -> Self {
        Self::Framing(fault)
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "the answer is not HTTP/1",
            Self::BadVersion => "the version is neither HTTP/1.0 nor HTTP/1.1",
            Self::BadStatus => "the status is not three digits from 100 to 599",
            Self::BareLineFeed => "a header line ends with a bare LF",
            Self::Folded => "a folded header line (obs-fold)",
            Self::BadName => "a malformed header name",
            Self::BadValue => "a control byte in a header value",
            Self::Malformed => "the header lines are malformed",
            Self::TooManyFields => "too many header fields",
            Self::TooLarge => "the header is larger than allowed",
            Self::Framing(fault) => return fault.fmt(f),
        })
    }
}

fn starts_like_http(window: &[u8]) -> bool {
    window.iter().zip(START).all(|(a, b)| a == b)
}

/// Parses a head that is complete, its empty line included.
fn parse(head: &Bytes) -> Result<ResponseHead, HeadFault> {
    let mut lines = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut lines)
    {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(HeadFault::Malformed),
        Err(error) => return Err(fault(error)),
    }
    let mut answer = ResponseHead {
        status: status(parsed.code)?,
        version: if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 },
        fields: Vec::with_capacity(parsed.headers.len() + 8),
        declared: Declared::default(),
        options: Options::default(),
        keep_alive: KeepAlive::default(),
        upgrade: None,
    };
    for line in parsed.headers.iter() {
        answer.take(line.name, head.slice_ref(line.value.trim_ascii()))?;
    }
    answer.declared.check(answer.version)?;
    answer.drop_named();
    Ok(answer)
}

/// The names of an ordinary TYPO3 page, spelled as Apache and PHP spell them: found by one comparison, where
/// every other name is lower-cased, looked up and perhaps copied.
fn known(name: &str) -> Option<HeaderName> {
    const X_POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
    Some(match name {
        "Age" => header::AGE,
        "ETag" => header::ETAG,
        "Date" => header::DATE,
        "Link" => header::LINK,
        "Vary" => header::VARY,
        "Pragma" => header::PRAGMA,
        "Server" => header::SERVER,
        "Expires" => header::EXPIRES,
        "Location" => header::LOCATION,
        "Set-Cookie" => header::SET_COOKIE,
        "Content-Type" => header::CONTENT_TYPE,
        "X-Powered-By" => X_POWERED_BY,
        "Accept-Ranges" => header::ACCEPT_RANGES,
        "Cache-Control" => header::CACHE_CONTROL,
        "Last-Modified" => header::LAST_MODIFIED,
        "Content-Length" => header::CONTENT_LENGTH,
        "Referrer-Policy" => header::REFERRER_POLICY,
        "X-Frame-Options" => header::X_FRAME_OPTIONS,
        "Content-Encoding" => header::CONTENT_ENCODING,
        "Content-Language" => header::CONTENT_LANGUAGE,
        "X-Content-Type-Options" => header::X_CONTENT_TYPE_OPTIONS,
        "Content-Security-Policy" => header::CONTENT_SECURITY_POLICY,
        _ => return None,
    })
}

fn checked(value: Bytes) -> Result<HeaderValue, HeadFault> {
    HeaderValue::from_maybe_shared(value).map_err(|_| HeadFault::BadValue)
}

/// Codes outside 100 to 599 are invalid (RFC 9110 section 15).
fn status(code: Option<u16>) -> Result<StatusCode, HeadFault> {
    code.filter(|c| (100..600).contains(c))
        .and_then(|c| StatusCode::from_u16(c).ok())
        .ok_or(HeadFault::BadStatus)
}

fn fault(error: httparse::Error) -> HeadFault {
    match error {
        httparse::Error::Version => HeadFault::BadVersion,
        httparse::Error::Status => HeadFault::BadStatus,
        httparse::Error::HeaderName => HeadFault::BadName,
        httparse::Error::HeaderValue => HeadFault::BadValue,
        httparse::Error::TooManyHeaders => HeadFault::TooManyFields,
        httparse::Error::NewLine | httparse::Error::Token => HeadFault::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::framing::Framing;
    use super::*;

    const LIMIT: usize = 4096;

    fn decode(input: impl AsRef<[u8]>) -> Result<Option<ResponseHead>, HeadFault> {
        Decoder::default().decode(&mut BytesMut::from(input.as_ref()), LIMIT)
    }

    fn fails(input: &str) -> HeadFault {
        decode(input).unwrap_err()
    }

    /// The same input, one byte at a time.
    fn trickle(input: &[u8]) -> Result<Option<ResponseHead>, HeadFault> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        for byte in input {
            buffer.extend_from_slice(&[*byte]);
            if let Some(head) = decoder.decode(&mut buffer, LIMIT)? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_apache_sends() {
        let head = decode(
            "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 15:00:00 GMT\r\nServer: Apache\r\n\
             Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 12\r\n\
             Keep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive\r\nContent-Type: text/html\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(head.status, StatusCode::OK);
        let names: Vec<&str> = head.fields.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["date", "server", "set-cookie", "set-cookie", "content-length", "content-type"]);
        assert_eq!(head.declared.of_response(false, head.status), Framing::Length(12));
        assert!(head.options.persists(head.version));
        assert_eq!(head.keep_alive.timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_name_is_the_same_however_it_is_spelled() {
        for name in ["Age", "ETag", "Set-Cookie", "X-Powered-By", "Content-Security-Policy", "X-Other"] {
            let spelled = |name: &str| {
                let head = decode(format!("HTTP/1.1 200 OK\r\n{name}: 1\r\n\r\n")).unwrap().unwrap();
                head.fields.first().unwrap().0.clone()
            };
            assert_eq!(spelled(name).as_str(), name.to_ascii_lowercase());
            assert_eq!(spelled(name), spelled(&name.to_ascii_uppercase()));
        }
    }

    #[test]
    fn a_reason_may_be_missing_and_bytes_above_ascii_pass() {
        assert!(decode("HTTP/1.1 200\r\n\r\n").unwrap().is_some());
        assert!(decode(b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn every_fault_has_its_name() {
        assert_eq!(fails("<html>old</html>"), HeadFault::NotHttp);
        assert_eq!(fails("\r\nHTTP/1.1 200 OK\r\n\r\n"), HeadFault::NotHttp);
        assert_eq!(fails("HTTP/2.0 200 OK\r\n\r\n"), HeadFault::NotHttp);
        assert_eq!(fails("HTTP/1.2 200 OK\r\n\r\n"), HeadFault::BadVersion);
        for status in ["99", "2000", "abc", "-20", "600", "999", ""] {
            assert_eq!(fails(&format!("HTTP/1.1 {status} OK\r\n\r\n")), HeadFault::BadStatus, "{status}");
        }
        assert_eq!(fails("HTTP/1.1 200 OK\nA: b\r\n\r\n"), HeadFault::BareLineFeed);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n"), HeadFault::BareLineFeed);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\r\n\n"), HeadFault::BareLineFeed);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), HeadFault::Folded);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n"), HeadFault::Folded);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA : b\r\n\r\n"), HeadFault::BadName);
        assert_eq!(fails("HTTP/1.1 200 OK\r\n: b\r\n\r\n"), HeadFault::BadName);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA\r\n\r\n"), HeadFault::BadName);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n"), HeadFault::BadValue);
        assert_eq!(fails("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n"), HeadFault::BadValue);
        let two = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(fails(two), HeadFault::Framing(FramingFault::TwoLengths));
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(fails(both), HeadFault::Framing(FramingFault::BothFields));
        let gzip = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        assert_eq!(fails(gzip), HeadFault::Framing(FramingFault::BadEncoding));
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(fails(old), HeadFault::Framing(FramingFault::EncodingInHttp10));
    }

    #[test]
    fn bytes_and_fields_are_bounded() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(1000));
        assert_eq!(fails(&endless), HeadFault::TooLarge);
        let line = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(LIMIT));
        assert_eq!(fails(&line), HeadFault::TooLarge);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert_eq!(fails(&many), HeadFault::TooManyFields);
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_are_taken_out_but_never_the_length() {
        let head = decode(
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, Content-Length, close\r\nX-Hop: 1\r\nTrailer: X\r\n\
             Proxy-Connection: x\r\nUpgrade: h2\r\nContent-Length: 3\r\nX-Stay: 1\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        let names: Vec<&str> = head.fields.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["content-length", "x-stay"]);
        assert!(!head.options.persists(head.version));
        assert_eq!(head.upgrade.unwrap(), "h2");
    }

    #[test]
    fn what_follows_the_head_is_left_alone() {
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\n\r\nbody\n\n");
        assert!(Decoder::default().decode(&mut input, LIMIT).unwrap().is_some());
        assert_eq!(&input[..], b"body\n\n");
    }

    proptest! {
        #[test]
        fn never_panics(tail: Vec<u8>) {
            let _ = decode(&tail);
            let _ = decode([&b"HTTP/1.1 200 OK\r\n"[..], &tail].concat());
        }

        #[test]
        fn in_pieces_or_at_once_the_same(
            lines in prop::collection::vec("[A-Za-z_ \t:\u{0}-]{0,6}(: ?[a-z0-9, \r]{0,8})?(\r\n|\r\n|\r\n|\n)", 0..6),
            status in "[0-9]{2,4}",
        ) {
            let text = format!("HTTP/1.1 {status} OK\r\n{}\r\n", lines.concat());
            prop_assert_eq!(trickle(text.as_bytes()), decode(&text));
        }

        #[test]
        fn a_clean_head_round_trips(fields in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20)) {
            let lines: Vec<String> = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            let lines = lines.concat();
            let head = decode(format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).unwrap().unwrap();
            let got: Vec<(String, String)> = head
                .fields
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
                .collect();
            prop_assert_eq!(got, fields);
        }
    }
}
