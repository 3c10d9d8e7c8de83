//! How long a body is: RFC 9112 section 6, with every ambiguity refused.

use std::fmt;

use http::{StatusCode, Version};

/// What the fields of one message declare about its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    length: Option<u64>,
    chunked: bool,
}

/// How the body of a response ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, whatever the fields say.
    Empty,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// When the connection closes.
    UntilClose,
}

/// How the body of a request that we write ends. Exactly one of these is written, so the origin can
/// never be of two minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// No body and no framing field.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Why the length of a body is not clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingFault {
    /// `Content-Length` is not a plain number.
    BadLength,
    /// More than one `Content-Length`. Two equal ones may be merged by RFC 9110 section 8.6; they are
    /// refused all the same, because no healthy server sends them.
    TwoLengths,
    /// `Transfer-Encoding` is something other than one `chunked`.
    BadEncoding,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.1: probably an attack).
    BothFields,
    /// `Transfer-Encoding` in an HTTP/1.0 message (RFC 9112 section 6.1: faulty framing).
    EncodingInHttp10,
}

impl Declared {
    /// Adds one `Content-Length` value: digits only, no sign, no list.
    pub fn add_length(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        if self.length.is_some() {
            return Err(FramingFault::TwoLengths);
        }
        self.length = Some(length(value)?);
        Ok(())
    }

    /// Adds one `Transfer-Encoding` value: exactly `chunked`, in any case.
    pub fn add_encoding(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingFault::BadEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// Refuses what only the whole message shows.
    pub fn check(&self, version: Version) -> Result<(), FramingFault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(FramingFault::BothFields),
            (true, None) if version != Version::HTTP_11 => Err(FramingFault::EncodingInHttp10),
            _ => Ok(()),
        }
    }

    /// How the body of a response with this status, to this request, ends (RFC 9112 section 6.3).
    #[must_use]
    pub fn of_response(&self, to_head: bool, status: StatusCode) -> Framing {
        if to_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Framing::Empty;
        }
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        }
    }
}

impl fmt::Display for FramingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadLength => "Content-Length is not a plain number",
            Self::TwoLengths => "more than one Content-Length",
            Self::BadEncoding => "Transfer-Encoding is not exactly `chunked`",
            Self::BothFields => "both Content-Length and Transfer-Encoding",
            Self::EncodingInHttp10 => "Transfer-Encoding in an HTTP/1.0 message",
        })
    }
}

/// `1*DIGIT` below 2^60, so that sums with it cannot overflow.
fn length(value: &[u8]) -> Result<u64, FramingFault> {
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    let number = value.iter().fold(0, |number: u64, digit| {
        number.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    });
    plain.then_some(number).ok_or(FramingFault::BadLength)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn declared(lengths: &[&str], encodings: &[&str]) -> Result<Declared, FramingFault> {
        let mut declared = Declared::default();
        lengths.iter().try_for_each(|v| declared.add_length(v.as_bytes()))?;
        encodings.iter().try_for_each(|v| declared.add_encoding(v.as_bytes()))?;
        declared.check(Version::HTTP_11).map(|()| declared)
    }

    #[test]
    fn every_ambiguity_has_its_own_fault() {
        for bad in ["", "+5", "-1", "5,5", "5 5", "0x5", "5\0", "1234567890123456789"] {
            assert_eq!(declared(&[bad], &[]), Err(FramingFault::BadLength), "{bad:?}");
        }
        assert_eq!(declared(&["5", "6"], &[]), Err(FramingFault::TwoLengths));
        assert_eq!(declared(&["5", "5"], &[]), Err(FramingFault::TwoLengths));
        assert_eq!(declared(&["5"], &["chunked"]), Err(FramingFault::BothFields));
        for bad in ["", "gzip", "gzip, chunked", "chunked, chunked", ",chunked", "xchunked", "identity"] {
            assert_eq!(declared(&[], &[bad]), Err(FramingFault::BadEncoding), "{bad:?}");
        }
        assert_eq!(declared(&[], &["chunked", "chunked"]), Err(FramingFault::BadEncoding));
        let old = Declared { length: None, chunked: true };
        assert_eq!(old.check(Version::HTTP_10), Err(FramingFault::EncodingInHttp10));
    }

    #[test]
    fn the_status_and_the_method_come_first() {
        let five = declared(&["5"], &[]).unwrap();
        let chunked = declared(&[], &["Chunked"]).unwrap();
        let none = Declared::default();
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::CONTINUE] {
            assert_eq!(five.of_response(false, status), Framing::Empty);
            assert_eq!(chunked.of_response(false, status), Framing::Empty);
        }
        assert_eq!(five.of_response(true, StatusCode::OK), Framing::Empty);
        assert_eq!(five.of_response(false, StatusCode::OK), Framing::Length(5));
        assert_eq!(chunked.of_response(false, StatusCode::OK), Framing::Chunked);
        assert_eq!(none.of_response(false, StatusCode::OK), Framing::UntilClose);
    }

    proptest! {
        #[test]
        fn a_length_is_what_was_written(n in 0_u64..1 << 59) {
            prop_assert_eq!(length(n.to_string().as_bytes()), Ok(n));
        }

        #[test]
        fn anything_but_digits_is_refused(value in "[^0-9]{1,5}[0-9]{0,3}") {
            prop_assert_eq!(length(value.as_bytes()), Err(FramingFault::BadLength));
        }
    }
}
