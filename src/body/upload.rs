//! A request body as the connection hands it over, and what becomes of its rest.
//!
//! Over HTTP/1 the bytes stay with the connection, which alone may read on. Over HTTP/2 a body that is
//! dropped before its end resets the stream. RFC 9113 section 8.1 allows that after a complete answer, but
//! a client that is still sending may take the reset for a failure and never show the answer. So the rest
//! goes back to the connection, which reads a little of it on.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;

/// The body of the request that an HTTP/1 connection is reading.
pub trait Inflow: Send + Sync {
    /// The next piece; none at the end.
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>;

    /// Bytes still to come, if the client has said so; none for a chunked body before its end.
    fn remaining(&self) -> Option<u64>;
}

/// Where the rest of an HTTP/2 body goes that nobody reads to its end.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Incoming>>);

/// What a client sends.
pub struct Upload(Source);

enum Source {
    Nothing,
    Http1(Arc<dyn Inflow>),
    Http2 {
        /// Always there, until it is dropped.
        incoming: Option<Incoming>,
        rest: Option<Arc<Rest>>,
    },
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
    /// No body.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Source::Nothing)
    }

    /// The body that `inflow` reads from its connection.
    #[must_use]
    pub fn http1(inflow: Arc<dyn Inflow>) -> Self {
        Self(Source::Http1(inflow))
    }

    /// A body whose rest goes to `rest`, or is dropped.
    #[must_use]
    pub fn http2(incoming: Incoming, rest: Option<Arc<Rest>>) -> Self {
        Self(Source::Http2 { incoming: Some(incoming), rest })
    }

    /// The next piece; trailers are dropped.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match &mut self.0 {
            Source::Nothing | Source::Http2 { incoming: None, .. } => Poll::Ready(None),
            Source::Http1(inflow) => inflow.poll_piece(cx),
            Source::Http2 { incoming: Some(incoming), .. } => loop {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    None if incoming.is_end_stream() => return Poll::Ready(None),
                    // hyper takes a stream that the client reset with CANCEL or NO_ERROR for one that has ended.
                    None => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
                    Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                    Some(Ok(frame)) => {
                        let Ok(data) = frame.into_data() else { continue };
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            },
        }
    }

    /// Whether nothing comes any more.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Http1(inflow) => inflow.remaining() == Some(0),
            Source::Http2 { incoming, .. } => incoming.as_ref().is_none_or(Incoming::is_end_stream),
        }
    }

    /// How much will come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing | Source::Http2 { incoming: None, .. } => SizeHint::with_exact(0),
            Source::Http1(inflow) => inflow.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Http2 { incoming: Some(incoming), .. } => incoming.size_hint(),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Source::Http2 { incoming, rest: Some(rest) } = &mut self.0
            && let Some(incoming) = incoming.take().filter(|incoming| !incoming.is_end_stream())
        {
            rest.keep(incoming);
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}
