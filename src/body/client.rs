//! A request body as the client sends it: counted, limited, and not waited for without end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::SizeHint;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyError;
use super::upload::Upload;
use crate::clock;
use crate::guard::pace::Meter;
use crate::http1::chunked::ChunkFault;
use crate::login::Tap;
use crate::observe::Received;
use crate::refusal::{Reason, Refusal};

/// What comes from the client. Only the time spent waiting for the client counts against it.
pub(super) struct ClientBody {
    upload: Upload,
    meter: Meter,
    received: Received,
    /// Fires when the client has been too slow; made when the first byte has to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
    tap: Option<Tap>,
}

impl ClientBody {
    pub(super) fn new(upload: Upload, meter: Meter, received: Received) -> Self {
        Self { upload, meter, received, timer: None, tap: None }
    }

    /// Tells `tap` what comes.
    pub(super) fn tap(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// The next piece.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self.upload.poll_piece(cx) {
            Poll::Pending => self.wait(cx).map(|error| Some(Err(error))),
            Poll::Ready(None) => {
                let over = self.tap.as_ref().map_or(Ok(()), Tap::end);
                Poll::Ready(over.err().map(|refusal| Err(BodyError::Refused(refusal))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(told_apart(error)))),
            Poll::Ready(Some(Ok(data))) => {
                self.received.add(data.len());
                let counted = self.meter.came(data.len(), clock::now());
                let counted = counted.and_then(|()| self.tap.as_ref().map_or(Ok(()), |tap| tap.push(&data)));
                Poll::Ready(Some(counted.map(|()| data).map_err(BodyError::Refused)))
            }
        }
    }

    /// Nobody asks for more until the next call of [`ClientBody::poll_data`].
    pub(super) fn pause(&mut self) {
        self.meter.pause(clock::now());
    }

    /// Nothing is there yet: waits, but not beyond the deadline.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.meter.wait(clock::now());
        let Some(deadline) = self.meter.deadline().map(Instant::from_std) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if let Err(refusal) = self.meter.check(clock::now()) {
                return Poll::Ready(BodyError::Refused(refusal));
            }
            // The timer was a hair early.
            timer.as_mut().reset(Instant::from_std(clock::now()) + std::time::Duration::from_millis(5));
        }
        Poll::Pending
    }

    pub(super) fn is_end(&self) -> bool {
        self.upload.is_end()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.upload.size_hint()
    }
}

/// Whoever breaks the chunks has not gone away: two readers could find two ends of what is sent.
fn told_apart(error: io::Error) -> BodyError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ChunkFault>()) {
        None => BodyError::Client(error),
        Some(fault) => {
            BodyError::Refused(Refusal::new(Reason::BadChunk, fault.to_string()).graded(fault.grade()))
        }
    }
}
