//! Writes the head of an answer.
//!
//! Whatever decides where the answer ends and what becomes of the connection is written here and nowhere
//! else: such fields among those given are passed over. A line can never be broken by what is in it:
//! [`HeaderName`] and [`HeaderValue`] hold neither CR nor LF nor NUL, by construction.

use std::borrow::Borrow;

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode};

/// `HTTP/1.1 100 Continue`: the client may send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Room for the status line and the fields that are written here.
const OWN_ROOM: usize = 192;
/// Room for each field given, if only their number is known.
const FIELD_ROOM: usize = 64;

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFraming {
    /// Nothing is said: there is no body (1xx, 204, 304), or it ends with the connection.
    Unsaid,
    /// `Content-Length`; for HEAD and 304 that of the body which is not sent.
    Length(u64),
    /// `Transfer-Encoding: chunked`; only ever towards HTTP/1.1.
    Chunked,
}

/// What is said about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerConnection {
    /// Nothing: it goes on with HTTP/1.1.
    Unsaid,
    /// It ends after this answer.
    Close,
    /// It goes on, though the client speaks HTTP/1.0.
    KeepAlive,
    /// It leaves HTTP with this answer; the `Upgrade` field is among those given.
    Upgrade,
}

/// The head of an answer, without the fields that are given.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// The status.
    pub status: StatusCode,
    /// How the body ends. Neither 1xx nor 204 ever says it (RFC 9110 section 8.6, RFC 9112 section 6.1).
    pub framing: AnswerFraming,
    /// What is said about the connection.
    pub connection: AnswerConnection,
    /// The date, written if none is given among the fields (RFC 9110 section 6.6.1).
    pub date: Option<&'a HeaderValue>,
}

impl AnswerHead<'_> {
    /// Appends the whole head, its empty line included.
    pub fn write<N, V>(&self, fields: impl IntoIterator<Item = (N, V)>, out: &mut BytesMut)
    where
        N: Borrow<HeaderName>,
        V: Borrow<HeaderValue>,
    {
        let fields = fields.into_iter();
        out.reserve(OWN_ROOM + FIELD_ROOM * fields.size_hint().0);
        status_line(self.status, out);
        let mut dated = false;
        for (name, value) in fields {
            let (name, value) = (name.borrow(), value.borrow());
            if !is_ours(name) {
                dated |= *name == DATE;
                line(name.as_str().as_bytes(), value.as_bytes(), out);
            }
        }
        if let Some(date) = self.date.filter(|_| !dated) {
            line(b"date", date.as_bytes(), out);
        }
        self.framing(out);
        out.put_slice(match self.connection {
            AnswerConnection::Unsaid => b"\r\n",
            AnswerConnection::Close => b"connection: close\r\n\r\n",
            AnswerConnection::KeepAlive => b"connection: keep-alive\r\n\r\n",
            AnswerConnection::Upgrade => b"connection: upgrade\r\n\r\n",
        });
    }

    fn framing(&self, out: &mut BytesMut) {
        if self.status.is_informational() || self.status == StatusCode::NO_CONTENT {
            return;
        }
        match self.framing {
            AnswerFraming::Unsaid => {}
            AnswerFraming::Length(length) => {
                line(b"content-length", itoa::Buffer::new().format(length).as_bytes(), out);
            }
            AnswerFraming::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        }
    }
}

/// Whether a field is written here, whatever is given.
fn is_ours(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || *name == CONNECTION || *name == TRANSFER_ENCODING || *name == KEEP_ALIVE
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

fn line(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn status_line(status: StatusCode, out: &mut BytesMut) {
    out.put_slice(match status.as_u16() {
        101 => b"HTTP/1.1 101 Switching Protocols\r\n",
        200 => b"HTTP/1.1 200 OK\r\n",
        204 => b"HTTP/1.1 204 No Content\r\n",
        206 => b"HTTP/1.1 206 Partial Content\r\n",
        301 => b"HTTP/1.1 301 Moved Permanently\r\n",
        302 => b"HTTP/1.1 302 Found\r\n",
        303 => b"HTTP/1.1 303 See Other\r\n",
        304 => b"HTTP/1.1 304 Not Modified\r\n",
        307 => b"HTTP/1.1 307 Temporary Redirect\r\n",
        308 => b"HTTP/1.1 308 Permanent Redirect\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        401 => b"HTTP/1.1 401 Unauthorized\r\n",
        403 => b"HTTP/1.1 403 Forbidden\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        500 => b"HTTP/1.1 500 Internal Server Error\r\n",
        502 => b"HTTP/1.1 502 Bad Gateway\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        _ => return other_status_line(status, out),
    });
}

fn other_status_line(status: StatusCode, out: &mut BytesMut) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    // The blank stands also where there is no phrase (RFC 9112 section 4).
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(head: AnswerHead<'_>, fields: &[(&'static str, &str)]) -> String {
        let fields = fields.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let mut out = BytesMut::new();
        head.write(fields, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn head(status: u16, framing: AnswerFraming, connection: AnswerConnection) -> AnswerHead<'static> {
        AnswerHead { status: StatusCode::from_u16(status).unwrap(), framing, connection, date: None }
    }

    #[test]
    fn a_page() {
        let date = HeaderValue::from_static("Sun, 22 Nov 2026 12:00:00 GMT");
        let page = AnswerHead {
            date: Some(&date),
            ..head(200, AnswerFraming::Length(12), AnswerConnection::Unsaid)
        };
        assert_eq!(
            written(page, &[("content-type", "text/html"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]),
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
             date: Sun, 22 Nov 2026 12:00:00 GMT\r\ncontent-length: 12\r\n\r\n"
        );
    }

    #[test]
    fn the_origins_date_stays() {
        let date = HeaderValue::from_static("ours");
        let page =
            AnswerHead { date: Some(&date), ..head(304, AnswerFraming::Unsaid, AnswerConnection::KeepAlive) };
        assert_eq!(
            written(page, &[("date", "theirs")]),
            "HTTP/1.1 304 Not Modified\r\ndate: theirs\r\nconnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn framing_and_connection_are_ours_alone() {
        let given = [
            ("content-length", "7"),
            ("transfer-encoding", "gzip"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
        ];
        assert_eq!(
            written(head(200, AnswerFraming::Chunked, AnswerConnection::Close), &given),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            written(head(404, AnswerFraming::Length(u64::MAX), AnswerConnection::Unsaid), &given),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 18446744073709551615\r\n\r\n"
        );
    }

    #[test]
    fn what_has_no_body_by_its_status_says_no_length() {
        for framing in [AnswerFraming::Length(0), AnswerFraming::Chunked] {
            assert_eq!(
                written(head(204, framing, AnswerConnection::Unsaid), &[]),
                "HTTP/1.1 204 No Content\r\n\r\n"
            );
            assert_eq!(
                written(head(101, framing, AnswerConnection::Upgrade), &[("upgrade", "websocket")]),
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            );
        }
    }

    #[test]
    fn every_status_has_its_line() {
        for code in 100..600 {
            let status = StatusCode::from_u16(code).unwrap();
            let mut out = BytesMut::new();
            status_line(status, &mut out);
            let phrase = status.canonical_reason().unwrap_or_default();
            assert_eq!(out, format!("HTTP/1.1 {code} {phrase}\r\n"));
        }
    }

    #[test]
    fn the_interim_answer_is_one() {
        assert!(super::super::response::Decoder::default().decode(&mut BytesMut::from(CONTINUE), 99).is_ok());
    }

    proptest! {
        #[test]
        fn our_own_decoder_of_answers_reads_what_was_written(
            fields in prop::collection::vec(("x-[a-z]{1,9}", "[!-~]([ -~\u{e4}]{0,30}[!-~])?"), 0..20),
            status in 200_u16..600,
        ) {
            let given: Vec<(HeaderName, HeaderValue)> = fields
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
                .collect();
            let mut out = BytesMut::new();
            head(status, AnswerFraming::Unsaid, AnswerConnection::Unsaid).write(given.iter().map(|(n, v)| (n, v)), &mut out);
            let read = super::super::response::Decoder::default().decode(&mut out, 1 << 20).unwrap().unwrap();
            prop_assert_eq!(read.status.as_u16(), status);
            prop_assert_eq!(read.fields, given);
            prop_assert!(out.is_empty());
        }
    }
}
