//! HTTP/2 in raw frames: what no well-behaved client library lets a test send.

use std::time::{Duration, Instant};

use httlib_hpack::Decoder;

use super::reply::Reply;
use super::{Ravelin, Wire};

const PATIENCE: Duration = Duration::from_secs(10);

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// How a stream ended.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "the codes are read in messages")]
pub(crate) enum End {
    /// With a final answer.
    Answer(Box<Reply>),
    /// With `RST_STREAM` and this code.
    Reset(u32),
    /// With the connection: `GOAWAY` and this code.
    Goaway(u32),
    /// With the connection, without a word.
    Closed,
    /// Not at all.
    Silent,
}

/// A connection.
pub(crate) struct H2 {
    wire: Wire,
    unread: Vec<u8>,
    decoder: Decoder<'static>,
    closed: bool,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl H2 {
    /// Opens one for the first site.
    #[track_caller]
    pub(crate) fn open(site: &Ravelin) -> Self {
        Self::named(site, site.host())
    }

    /// Opens one with this server name.
    #[track_caller]
    pub(crate) fn named(site: &Ravelin, host: &str) -> Self {
        let mut wire = site.wire_named(host, &[b"h2"]);
        assert_eq!(wire.alpn().as_deref(), Some("h2"));
        wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut this = Self { wire, unread: Vec::new(), decoder: Decoder::default(), closed: false };
        this.frame(SETTINGS, 0, 0, &[]);
        this
    }

    /// Sends a frame.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.wire.send(bytes);
    }

    /// Opens a stream with exactly these fields, literal and never indexed; `end` if there is no body.
    pub(crate) fn headers(&mut self, stream: u32, fields: &[(Vec<u8>, Vec<u8>)], end: bool) {
        let block = block(fields);
        let mut pieces = block.chunks(16_000).peekable();
        let mut kind = HEADERS;
        let mut flags = if end { END_STREAM } else { 0 };
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.frame(kind, flags | last, stream, piece);
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Sends a piece of a body.
    pub(crate) fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes);
    }

    /// Waits for the end of a stream.
    #[track_caller]
    pub(crate) fn end_of(&mut self, stream: u32) -> End {
        let deadline = Instant::now() + PATIENCE;
        let mut answer: Option<Reply> = None;
        loop {
            let Some(frame) = self.next(deadline) else {
                return if self.closed { End::Closed } else { End::Silent };
            };
            let code = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u32::from_be_bytes)
            };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                GOAWAY if code(4) != 0 => return End::Goaway(code(4)),
                RST_STREAM if frame.stream == stream => return End::Reset(code(0)),
                HEADERS => {
                    assert!(frame.flags & END_HEADERS != 0, "an answer's head fits one frame");
                    let reply = self.decode(frame.payload);
                    if frame.stream == stream && reply.status >= 200 {
                        answer = Some(reply);
                    }
                }
                DATA if frame.stream == stream => {
                    if let Some(answer) = &mut answer {
                        answer.body.extend(frame.payload);
                    }
                }
                _ => {}
            }
            let ended = matches!(frame.kind, HEADERS | DATA)
                && frame.stream == stream
                && frame.flags & END_STREAM != 0;
            if ended && let Some(answer) = answer.take() {
                return End::Answer(Box::new(answer));
            }
        }
    }

    #[track_caller]
    fn decode(&mut self, mut block: Vec<u8>) -> Reply {
        let mut fields = Vec::new();
        self.decoder.decode(&mut block, &mut fields).expect("the answer's fields can be read");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut reply = Reply { version: "HTTP/2".to_owned(), secure: true, ..Reply::default() };
        for (name, value, _) in fields {
            if name == b":status" {
                reply.status = text(&value).parse().expect("a status");
            } else {
                reply.fields.push((text(&name), text(&value)));
            }
        }
        reply
    }

    fn next(&mut self, deadline: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if self.closed || Instant::now() >= deadline {
                return None;
            }
            let (bytes, closed) = self.wire.whatever(Duration::from_millis(10));
            self.unread.extend(bytes);
            self.closed = closed;
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let (head, rest) = self.unread.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = rest.get(..length)?.to_vec();
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        self.unread.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }
}

/// A field section of literals without indexing (RFC 7541 section 6.2.2).
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).expect("small"));
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("small"));
}
