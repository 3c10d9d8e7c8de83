//! The body of an answer, polled straight from the origin's socket: no task, no channel, one buffer.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::balance::Seat;
use super::stream::Link;
use super::upload::{Upload, UploadFault};
use crate::body::Body;
use crate::clock;
use crate::http1::chunked::{self, ChunkFault, Piece};
use crate::http1::framing::Framing;

/// How much is read at once when little is expected.
const LITTLE: usize = 16 * 1024;

/// A response body. When its last byte has been read cleanly, the connection goes back to the pool at
/// once, whether or not anybody polls again; in every other case it is closed.
pub struct OriginBody {
    coding: Coding,
    /// Received and not yet decoded.
    buffer: Bytes,
    /// Decoded ahead, to see whether it was the last piece.
    next: Option<Bytes>,
    flow: Option<Box<Flow>>,
    bulk: bool,
    /// The most that is read at once.
    piece: usize,
}

enum Coding {
    Length(u64),
    Chunked(chunked::Decoder),
    UntilClose,
    Done,
}

/// A connection in use, and what is still under way on it.
#[derive(Debug)]
pub(super) struct Flow {
    /// The connection.
    pub(super) link: Link,
    /// The request, which may still be going out when the answer has begun.
    pub(super) upload: Upload,
    /// The place at the member.
    pub(super) seat: Seat,
    /// How long the connection may be kept afterwards; zero if not at all.
    pub(super) keep: Duration,
    /// The longest pause between two bytes of the body.
    pub(super) idle: Duration,
    /// Whether the timer of the connection runs.
    waits: bool,
}

impl Flow {
    /// A flow whose response head has been read.
    #[must_use]
    pub(super) fn new(link: Link, upload: Upload, seat: Seat, keep: Duration, idle: Duration) -> Self {
        Self { link, upload, seat, keep, idle, waits: false }
    }

    /// Gives the connection back, if nothing is left on it that could be taken for the next answer.
    fn finish(self, surplus: bool, now: Instant) {
        if !surplus && self.upload.is_sent() {
            self.seat.give_back(self.link, now, self.keep);
        }
    }

    /// Reads once, sending on what is left of the request.
    fn poll_read(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<Bytes>> {
        if let Err(error) = self.send(cx) {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(read) = self.link.stream.poll_read_block(cx, want) {
            self.waits = false;
            return Poll::Ready(read);
        }
        if !std::mem::replace(&mut self.waits, true) {
            self.link.timer.set(clock::now() + self.idle);
        }
        ready!(self.link.timer.poll(cx));
        let stalled = format!("the origin sent nothing for {:?}", self.idle);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, stalled)))
    }

    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.upload.is_over() {
            return Ok(());
        }
        match self.upload.poll(cx, &mut self.link.stream) {
            // An origin that has answered may stop reading.
            Poll::Pending | Poll::Ready(Ok(()) | Err(UploadFault::Origin(_))) => Ok(()),
            Poll::Ready(Err(UploadFault::Client(error))) => Err(io::Error::other(error)),
        }
    }
}

/// The body that follows a head: `buffer` holds what of it came with the head. A fault in there, before
/// any data, is one while the head can still be withheld.
///
/// Most answers are here as a whole; then the connection goes back to the pool now.
pub(super) fn open(
    framing: Framing,
    buffer: Bytes,
    flow: Flow,
    piece: usize,
    now: Instant,
) -> Result<Body, ChunkFault> {
    let coding = match framing {
        Framing::Empty => return Ok(whole(0, buffer, flow, now)),
        Framing::Length(length) => match usize::try_from(length) {
            Ok(length) if length <= buffer.len() => return Ok(whole(length, buffer, flow, now)),
            _ => Coding::Length(length),
        },
        Framing::Chunked => Coding::Chunked(chunked::Decoder::default()),
        Framing::UntilClose => Coding::UntilClose,
    };
    OriginBody::new(coding, buffer, flow, piece).map(Body::origin)
}

/// A body that is all in the first `length` bytes of `buffer`.
fn whole(length: usize, mut buffer: Bytes, flow: Flow, now: Instant) -> Body {
    flow.finish(buffer.len() > length, now);
    buffer.truncate(length);
    if buffer.is_empty() { Body::empty() } else { Body::full(buffer) }
}

impl OriginBody {
    /// The body that goes on after `buffer`.
    fn new(coding: Coding, buffer: Bytes, flow: Flow, piece: usize) -> Result<Self, ChunkFault> {
        let bulk = matches!(coding, Coding::Length(length) if length > 4 * LITTLE as u64);
        let mut body = Self { coding, buffer, next: None, flow: Some(Box::new(flow)), bulk, piece };
        body.fill()?;
        Ok(body)
    }

    /// The next piece of data; `None` at the end. A truncated body is an error, never an end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        loop {
            if let Err(fault) = self.fill() {
                let error = io::Error::new(io::ErrorKind::InvalidData, fault.to_string());
                return Poll::Ready(Some(Err(self.fail(error))));
            }
            if let Some(data) = self.next.take() {
                self.look_ahead();
                self.pause();
                return Poll::Ready(Some(Ok(data)));
            }
            if matches!(self.coding, Coding::Done) {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_more(cx)) {
                return Poll::Ready(Some(Err(self.fail(error))));
            }
        }
    }

    /// Whoever has a piece asks for the next one when this one is out, however long its client takes. The request is not
    /// sent on meanwhile, and nobody asks for the rest of it.
    fn pause(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.upload.pause();
        }
    }

    /// Whether the end was reached.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.coding, Coding::Done) && self.next.is_none()
    }

    /// Bytes left, if the origin said so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let next = self.next.as_ref().map_or(0, |n| n.len() as u64);
        match self.coding {
            Coding::Length(left) => Some(left + next),
            Coding::Done => Some(next),
            Coding::Chunked(_) | Coding::UntilClose => None,
        }
    }

    /// Decodes one piece ahead, so that the connection is let go of together with the last piece. A
    /// fault is said by the next `fill`: the good data before it goes on first.
    fn look_ahead(&mut self) {
        let _ = self.fill();
    }

    /// Decodes the next piece of what is here already.
    fn fill(&mut self) -> Result<(), ChunkFault> {
        if self.next.is_some() {
            return Ok(());
        }
        let mut ended = false;
        let data = match &mut self.coding {
            Coding::Done => return Ok(()),
            Coding::UntilClose => std::mem::take(&mut self.buffer),
            Coding::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                *left -= most as u64;
                ended = *left == 0;
                self.buffer.split_to(most)
            }
            Coding::Chunked(decoder) => match decoder.decode(&mut self.buffer)? {
                Piece::Data(data) => data,
                Piece::More => Bytes::new(),
                Piece::End => {
                    ended = true;
                    Bytes::new()
                }
            },
        };
        self.next = Some(data).filter(|d| !d.is_empty());
        if ended {
            self.end();
        }
        Ok(())
    }

    /// The last byte of the body is here: lets go of the connection.
    fn end(&mut self) {
        self.coding = Coding::Done;
        if let Some(flow) = self.flow.take() {
            flow.finish(!self.buffer.is_empty(), clock::now());
        }
        self.buffer = Bytes::new();
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(flow) = &mut self.flow else { return Poll::Ready(Err(truncated())) };
        // Everything received so far is decoded, or there would be no reason to ask for more.
        let want = if self.bulk { self.piece } else { LITTLE };
        self.buffer = ready!(flow.poll_read(cx, want))?;
        if self.buffer.is_empty() {
            if !matches!(self.coding, Coding::UntilClose) {
                return Poll::Ready(Err(truncated()));
            }
            self.coding = Coding::Done;
            self.flow = None;
        }
        self.bulk |= self.buffer.len() >= LITTLE;
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.coding = Coding::Done;
        self.next = None;
        self.flow = None;
        self.buffer.clear();
        error
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the origin closed before the end of the body")
}

impl fmt::Debug for OriginBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginBody").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}
