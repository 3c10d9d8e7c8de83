//! The body of a request on its way out over HTTP/2.
//!
//! hyper takes it piece by piece, in a task of its own, as fast as the origin's window allows; the request's own task
//! looks in from outside to see how far it came and why it ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::Body;
use crate::clock;
use crate::upstream::error::{Kind, UpstreamError};

/// The body, as seen from outside.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Parcel(Arc<Mutex<State>>);

/// The body, as hyper takes it.
#[derive(Debug)]
pub(super) struct Outgoing(Arc<Mutex<State>>);

/// Why hyper gets no more of it: the stream is reset.
type Cut = h2::Error;

#[derive(Debug)]
struct State {
    body: Option<Body>,
    /// Bytes to come, where that is known.
    left: Option<u64>,
    /// What completes the length, until the client has ended the body.
    last: Bytes,
    sent: u64,
    /// When the origin last took something.
    moved: Instant,
    touched: bool,
    awaits_client: bool,
    aborted: bool,
    fault: Option<UpstreamError>,
    waker: Option<Waker>,
}

impl Parcel {
    /// A body of which nothing went out; `length` where that is known.
    pub(in crate::upstream) fn new(body: Option<Body>, length: Option<u64>, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            body,
            left: length,
            last: Bytes::new(),
            sent: 0,
            moved: now,
            touched: false,
            awaits_client: false,
            aborted: false,
            fault: None,
            waker: None,
        })))
    }

    /// What hyper takes.
    pub(super) fn body(&self) -> Outgoing {
        Outgoing(Arc::clone(&self.0))
    }

    /// Ready at once, unless the length is nothing and the client has not ended the body yet.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        let mut state = self.lock();
        if state.left != Some(0) || state.body.is_none() {
            return Poll::Ready(Ok(()));
        }
        match state.poll(cx) {
            Poll::Ready(Some(Err(_))) => {
                let fault = state.fault.take();
                Poll::Ready(Err(fault.unwrap_or_else(|| client("the client's body broke off"))))
            }
            Poll::Ready(_) => {
                // Nothing was sent, and nothing is missing if it is sent again.
                state.touched = false;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Bytes that hyper took.
    pub(in crate::upstream) fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Whether nothing of it was taken and nothing is lost to an error.
    pub(in crate::upstream) fn is_untouched(&self) -> bool {
        let state = self.lock();
        !state.touched && state.fault.is_none()
    }

    /// Takes the body back, if there is one.
    pub(in crate::upstream) fn unpack(&self) -> Option<Body> {
        self.lock().body.take()
    }

    /// When the origin last took something.
    pub(super) fn moved(&self) -> Instant {
        self.lock().moved
    }

    /// Whether the origin waits for the client, and not we for the origin.
    pub(super) fn awaits_client(&self) -> bool {
        self.lock().awaits_client
    }

    /// Whether all of it went out.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// Why the client's side of it ended, if that is why.
    pub(super) fn fault(&self) -> Option<UpstreamError> {
        self.lock().fault.clone()
    }

    /// Nobody wants the rest: the stream is reset if there is one.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.aborted = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.body.is_none() && self.last.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        while let Some(body) = &mut self.body {
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Pending => {
                    self.awaits_client = true;
                    self.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            };
            self.awaits_client = false;
            self.touched = true;
            match frame {
                None => self.end()?,
                Some(Err(error)) => return Poll::Ready(Some(Err(self.cut(UpstreamError::body(&error))))),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if let Some(data) = self.stage(data)? {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
        let last = std::mem::take(&mut self.last);
        Poll::Ready((!last.is_empty()).then_some(Ok(last)))
    }

    /// What of a piece goes out now: all but what completes the length.
    fn stage(&mut self, data: Bytes) -> Result<Option<Bytes>, Cut> {
        let Some(left) = self.left else { return Ok(Some(data).filter(|data| !data.is_empty())) };
        let Some(rest) = left.checked_sub(data.len() as u64) else {
            return Err(self.cut(client("the client sent more than its Content-Length")));
        };
        self.left = Some(rest);
        if rest > 0 || data.is_empty() {
            return Ok(Some(data).filter(|data| !data.is_empty()));
        }
        self.last = data;
        if self.body.as_ref().is_none_or(HttpBody::is_end_stream) {
            self.end()?;
        }
        Ok(None)
    }

    fn end(&mut self) -> Result<(), Cut> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(self.cut(client("the client sent less than its Content-Length")));
        }
        self.body = None;
        Ok(())
    }

    fn cut(&mut self, fault: UpstreamError) -> Cut {
        self.body = None;
        self.last = Bytes::new();
        self.fault = Some(fault);
        h2::Reason::CANCEL.into()
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.aborted && !state.is_over() {
            state.body = None;
            state.last = Bytes::new();
            return Poll::Ready(Some(Err(h2::Reason::CANCEL.into())));
        }
        let polled = state.poll(cx);
        if let Poll::Ready(Some(Ok(data))) = &polled {
            state.sent += data.len() as u64;
            state.moved = clock::now();
        }
        polled.map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_over() && state.fault.is_none() && !state.aborted
    }

    fn size_hint(&self) -> SizeHint {
        // The length stands in the head, if it is known.
        SizeHint::default()
    }
}

fn client(detail: &'static str) -> UpstreamError {
    UpstreamError::new(Kind::ClientBody, detail)
}
