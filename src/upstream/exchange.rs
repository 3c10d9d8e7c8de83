//! One request and its response head on one connection.
//!
//! The request is sent *while* the answer is awaited, so that an early answer to a large upload (413,
//! 401) is seen even when the origin stops reading, and is never lost to a write that fails.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::StatusCode;

use super::error::{Kind, Retry, UpstreamError};
use super::stream::Link;
use super::upload::{Upload, UploadFault};
use crate::http1::response::{Decoder, HeadFault, ResponseHead};

/// Interim answers (1xx) before the final one; more are a fault.
const INTERIM_MAX: u32 = 8;
/// The first read: a small page and its head in one go.
const FIRST_READ: usize = 20 * 1024;

/// An answer whose first read is this short gets a buffer of its own size, and not one of the size of
/// the read: hundreds of them may wait for their clients.
const COPIED: usize = 4 * 1024;

thread_local! {
    /// Where a first read lands before its size is known. It stays warm in the cache.
    static LANDING: RefCell<BytesMut> = RefCell::default();
}

/// What is expected of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expect {
    /// From the moment the request is sent to the end of the response head, in total. While the
    /// request is still going out it counts from the last byte that the origin took.
    pub(super) first_byte: Duration,
    /// The most bytes of a response head.
    pub(super) head_max: usize,
    /// Whether the request asked for an upgrade: otherwise a 101 is a fault.
    pub(super) upgrade: bool,
}

/// Where the wait for a response head stands.
pub(super) struct Exchange<'a> {
    expect: Expect,
    link: &'a mut Link,
    upload: &'a mut Upload,
    /// Received and not yet understood; after the head, the start of the body.
    pub(super) buffer: BytesMut,
    decoder: Decoder,
    begun: bool,
    interim: u32,
    heard: bool,
    /// Why the origin takes no more of the request.
    cut: Option<std::io::Error>,
}

impl<'a> Exchange<'a> {
    /// An exchange that begins now.
    #[must_use]
    pub(super) fn new(link: &'a mut Link, upload: &'a mut Upload, expect: Expect, now: Instant) -> Self {
        link.timer.set(now + expect.first_byte);
        Self {
            expect,
            link,
            upload,
            buffer: BytesMut::new(),
            decoder: Decoder::default(),
            begun: false,
            interim: 0,
            heard: false,
            cut: None,
        }
    }

    /// Sends, and waits for the final response head.
    pub(super) async fn head(&mut self) -> Result<ResponseHead, UpstreamError> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        self.send(cx)?;
        if let Poll::Ready(result) = self.receive(cx) {
            return Poll::Ready(result);
        }
        ready!(self.link.timer.poll(cx));
        Poll::Ready(Err(self.too_late()))
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        if self.upload.is_over() {
            return Ok(());
        }
        let before = self.upload.sent();
        match self.upload.poll(cx, &mut self.link.stream) {
            Poll::Pending | Poll::Ready(Ok(())) => {}
            // What the origin said before it stopped reading still counts: read on.
            Poll::Ready(Err(UploadFault::Origin(error))) => self.cut = Some(error),
            Poll::Ready(Err(UploadFault::Client(error))) => return Err(error),
        }
        // What goes out at once counts from the beginning, which is now.
        if self.upload.sent() != before && self.begun {
            self.link.timer.push(self.expect.first_byte);
        }
        self.begun = true;
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            match ready!(self.read(cx)) {
                Ok(0) => return Poll::Ready(Err(self.closed("the origin closed the connection"))),
                Ok(_) => self.heard = true,
                Err(error) => {
                    return Poll::Ready(Err(self.closed(&format!("reading the answer: {error}"))));
                }
            }
            if let Some(head) = self.decode()? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Reads once.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let grow = |buffer: &mut BytesMut| buffer.reserve(FIRST_READ);
        if !self.buffer.is_empty() {
            return self.link.stream.poll_read_into(cx, &mut self.buffer, grow);
        }
        LANDING.with_borrow_mut(|landing| {
            let read = self.link.stream.poll_read_into(cx, landing, grow);
            if landing.len() <= COPIED {
                self.buffer.extend_from_slice(landing);
            } else {
                mem::swap(&mut self.buffer, landing);
            }
            landing.clear();
            read
        })
    }

    /// The final head, if it is here; interim ones are passed over.
    fn decode(&mut self) -> Result<Option<ResponseHead>, UpstreamError> {
        while !self.buffer.is_empty() {
            let decoded = self.decoder.decode(&mut self.buffer, self.expect.head_max);
            let Some(head) = decoded.map_err(head_fault)? else { return Ok(None) };
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switching(head).map(Some);
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                let detail = format!("more than {INTERIM_MAX} interim answers");
                return Err(UpstreamError::new(Kind::Protocol, detail));
            }
        }
        Ok(None)
    }

    /// A 101 counts only if it was asked for and says to what.
    fn switching(&self, head: ResponseHead) -> Result<ResponseHead, UpstreamError> {
        let websocket =
            head.upgrade.as_ref().is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if self.expect.upgrade && websocket && head.options.upgrade {
            return Ok(head);
        }
        Err(UpstreamError::new(Kind::Protocol, "a 101 that nobody asked for"))
    }

    fn closed(&self, how: &str) -> UpstreamError {
        let detail = match (&self.cut, self.heard) {
            (Some(cut), _) => format!("{how} ({cut})"),
            (None, true) => format!("{how} in the middle of the header"),
            (None, false) => format!("{how} before it answered"),
        };
        let retry = match (self.upload.sent(), self.heard) {
            (0, _) => Retry::Anywhere,
            (_, false) => Retry::IfIdempotent,
            (_, true) => Retry::Never,
        };
        UpstreamError::new(Kind::Closed, detail).retry(retry)
    }

    fn too_late(&self) -> UpstreamError {
        let limit = self.expect.first_byte;
        if self.upload.awaits_client() {
            return UpstreamError::new(Kind::ClientStalled, format!("the client sent nothing for {limit:?}"));
        }
        let what = match (self.upload.is_over(), self.heard) {
            (false, _) => "the origin took no more of the request",
            (true, false) => "the origin did not answer",
            (true, true) => "the origin's header did not come to its end",
        };
        UpstreamError::new(Kind::Timeout, format!("{what} within {limit:?}"))
    }
}

fn head_fault(fault: HeadFault) -> UpstreamError {
    let kind = match fault {
        HeadFault::TooLarge | HeadFault::TooManyFields => Kind::HeadTooLarge,
        _ => Kind::Protocol,
    };
    UpstreamError::new(kind, fault.to_string())
}
