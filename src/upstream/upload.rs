//! Sends one request: the head, and the body behind it as fast as both sides allow.
//!
//! The last byte of a request of known length goes out only once the client has ended its body. Over HTTP/2 a
//! length is a claim that the frames behind it may belie (RFC 9113 section 8.1.1): an origin that had the whole
//! message by then would have served what was none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::error::UpstreamError;
use super::stream::Stream;
use crate::body::Body;
use crate::http1::chunked;
use crate::http1::framing::RequestFraming;

/// A request on its way out. At most one piece of the body is held at a time.
#[derive(Debug)]
pub(super) struct Upload {
    /// The whole head, kept for a second sending.
    head: BytesMut,
    /// How much of it went out.
    written: usize,
    /// Chunk framing.
    frame: BytesMut,
    data: Bytes,
    /// What completes the length, until the client has ended the body.
    last: Bytes,
    body: Option<Body>,
    coding: Coding,
    state: State,
    sent: u64,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Length { left: u64 },
    Chunked { first: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sending,
    /// Everything we have is written; the client has not sent more.
    AwaitingClient,
    /// The origin takes no more; what it answered may still be read.
    Broken,
    Sent,
}

/// Why the request could not be sent.
#[derive(Debug)]
pub(super) enum UploadFault {
    /// The origin takes no more.
    Origin(io::Error),
    /// The client's body broke off.
    Client(UpstreamError),
}

impl Upload {
    /// A request with this head and body.
    #[must_use]
    pub(super) fn new(head: BytesMut, body: Body, framing: RequestFraming) -> Self {
        let coding = match framing {
            RequestFraming::None => Coding::Length { left: 0 },
            RequestFraming::Length(left) => Coding::Length { left },
            RequestFraming::Chunked => Coding::Chunked { first: true },
        };
        let is_whole = matches!(coding, Coding::Length { left: 0 }) && body.is_end_stream();
        let body = (!is_whole).then_some(body);
        let (frame, data, last) = (BytesMut::new(), Bytes::new(), Bytes::new());
        Self { head, written: 0, frame, data, last, body, coding, state: State::Sending, sent: 0 }
    }

    /// Bytes that went out.
    #[must_use]
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether all of it went out.
    #[must_use]
    pub(super) fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// Whether there is nothing more to be done: sent, or broken.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Sent | State::Broken)
    }

    /// Whether the origin waits for the client, and not we for the origin.
    #[must_use]
    pub(super) fn awaits_client(&self) -> bool {
        self.state == State::AwaitingClient
    }

    /// Head, body and, where that is known, length: for HTTP/2, which frames them in its own way. Nothing went out yet.
    pub(super) fn lend(&mut self) -> (&[u8], Option<Body>, Option<u64>) {
        let length = match self.coding {
            Coding::Length { left } => Some(left),
            Coding::Chunked { .. } => None,
        };
        (&self.head, self.body.take(), length)
    }

    /// Takes the body back, of which nothing went out.
    pub(super) fn take_back(&mut self, body: Option<Body>) {
        self.body = body;
    }

    /// Goes back to the start, for another connection, if nothing of the body would be missing.
    /// Whether the request *may* be sent again is the caller's decision.
    pub(super) fn rewind(&mut self) -> bool {
        if self.sent > 0 {
            let bodyless = matches!(self.coding, Coding::Length { left: 0 }) && self.sent <= self.head_len();
            if !bodyless || self.body.is_some() {
                return false;
            }
            self.written = 0;
            self.sent = 0;
        }
        self.state = State::Sending;
        true
    }

    /// Sends on. Ready when all of it went out, or nothing more can.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), UploadFault>> {
        loop {
            let waiting = self.frame.is_empty() && self.data.is_empty() && self.refill(cx)?.is_pending();
            if waiting && self.is_head_alone() {
                self.state = State::AwaitingClient;
                return Poll::Pending;
            }
            if self.rest().is_empty() && self.frame.is_empty() && self.data.is_empty() {
                ready!(self.flush(cx, stream))?;
                self.state = if waiting { State::AwaitingClient } else { State::Sent };
                return if waiting { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            self.state = State::Sending;
            ready!(self.write(cx, stream))?;
        }
    }

    /// Whether the head is the whole request, if the client sends nothing behind it after all.
    fn is_head_alone(&self) -> bool {
        self.written == 0 && self.last.is_empty() && matches!(self.coding, Coding::Length { left: 0 })
    }

    /// The client is asked for nothing until the next call of [`Upload::poll`].
    pub(super) fn pause(&mut self) {
        if let Some(body) = &mut self.body {
            body.pause();
        }
    }

    /// Takes the next piece of the body. Ready when there is one, or the body has ended.
    fn refill(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, UploadFault> {
        while let Some(body) = &mut self.body
            && self.data.is_empty()
        {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(None) => self.end()?,
                Poll::Ready(Some(Ok(frame))) => self.stage(frame.into_data().unwrap_or_default())?,
                Poll::Ready(Some(Err(error))) => {
                    return Err(UploadFault::Client(UpstreamError::body(&error)));
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    fn stage(&mut self, data: Bytes) -> Result<(), UploadFault> {
        match &mut self.coding {
            _ if data.is_empty() => return Ok(()),
            Coding::Chunked { first } => {
                chunked::encode_size(std::mem::take(first), data.len(), &mut self.frame);
            }
            Coding::Length { left } => {
                // hyper keeps bodies to their length; a second request must not hide in the surplus.
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| client("the client sent more than its Content-Length"))?;
                if *left == 0 {
                    self.last = data;
                    return if self.body.as_ref().is_none_or(Body::is_end_stream) {
                        self.end()
                    } else {
                        Ok(())
                    };
                }
            }
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self) -> Result<(), UploadFault> {
        self.body = None;
        match self.coding {
            Coding::Chunked { first } => chunked::encode_end(first, &mut self.frame),
            Coding::Length { left: 0 } => self.data = std::mem::take(&mut self.last),
            Coding::Length { .. } => return Err(client("the client sent less than its Content-Length")),
        }
        Ok(())
    }

    /// One write of everything at hand.
    fn write(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), UploadFault>> {
        let parts = [IoSlice::new(self.rest()), IoSlice::new(&self.frame), IoSlice::new(&self.data)];
        let wrote = if self.frame.is_empty() && self.data.is_empty() {
            // Most requests are a head alone, and a plain send costs the kernel less than a gathered one.
            ready!(Pin::new(stream).poll_write(cx, self.rest()))
        } else {
            ready!(Pin::new(stream).poll_write_vectored(cx, &parts))
        };
        let wrote = match wrote {
            Ok(0) => return Poll::Ready(Err(self.broken(io::ErrorKind::WriteZero.into()))),
            Ok(wrote) => wrote,
            Err(error) => return Poll::Ready(Err(self.broken(error))),
        };
        self.sent += wrote as u64;
        let of_head = wrote.min(self.rest().len());
        self.written += of_head;
        let left = take(&mut self.frame, wrote - of_head);
        take(&mut self.data, left);
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), UploadFault>> {
        ready!(Pin::new(stream).poll_flush(cx)).map_err(|error| self.broken(error))?;
        Poll::Ready(Ok(()))
    }

    fn broken(&mut self, error: io::Error) -> UploadFault {
        self.state = State::Broken;
        UploadFault::Origin(error)
    }

    /// What is left of the head.
    fn rest(&self) -> &[u8] {
        self.head.get(self.written..).unwrap_or_default()
    }

    fn head_len(&self) -> u64 {
        self.head.len() as u64
    }
}

/// Takes up to `count` bytes off `buffer`; answers how many are still to be taken.
fn take(buffer: &mut impl Buf, count: usize) -> usize {
    let most = count.min(buffer.remaining());
    buffer.advance(most);
    count - most
}

fn client(detail: &'static str) -> UploadFault {
    UploadFault::Client(UpstreamError::new(super::error::Kind::ClientBody, detail))
}
