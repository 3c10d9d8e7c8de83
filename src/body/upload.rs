//! A request body as the connection hands it over, and what becomes of its rest.
//!
//! Over HTTP/2 a body that is dropped before its end resets the stream. RFC 9113 section 8.1 allows that
//! after a complete answer, but a client that is still sending may take the reset for a failure and never
//! show the answer. So the rest goes back to the connection, which reads a little of it on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

/// Where the rest of a body goes that nobody reads to its end.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Incoming>>);

/// What a client sends.
#[derive(Debug)]
pub struct Upload {
    /// Always there, until it is dropped.
    incoming: Option<Incoming>,
    rest: Option<Arc<Rest>>,
}

impl Rest {
    /// The rest, if there is one.
    pub fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, incoming: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
    }
}

impl Upload {
    /// A body whose rest goes to `rest`, or is dropped.
    #[must_use]
    pub fn new(incoming: Incoming, rest: Option<Arc<Rest>>) -> Self {
        Self { incoming: Some(incoming), rest }
    }

    /// The next frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    /// Whether nothing comes any more.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// How much will come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(incoming), Some(rest)) = (self.incoming.take(), &self.rest)
            && !incoming.is_end_stream()
        {
            rest.keep(incoming);
        }
    }
}
