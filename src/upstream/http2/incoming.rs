//! The body of an answer over HTTP/2: a body that does not end with `END_STREAM` is an error.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use super::cause;
use super::lane::Ride;
use super::outgoing::Parcel;
use crate::clock;
use crate::upstream::balance::Seat;
use crate::upstream::timer::Timer;

/// A response body. Dropped before its end, its stream is reset; other streams of the connection go on.
pub struct OriginStream {
    incoming: Incoming,
    /// Bytes to come, where the origin said so.
    left: Option<u64>,
    parcel: Parcel,
    /// The places at the member and on the connection, until the end.
    place: Option<(Ride, Seat)>,
    timer: Timer,
    idle: Duration,
    waits: bool,
}

impl OriginStream {
    /// What follows a response head; `idle` is the longest pause between two pieces.
    pub(super) fn new(
        incoming: Incoming,
        left: Option<u64>,
        parcel: Parcel,
        place: (Ride, Seat),
        idle: Duration,
    ) -> Self {
        let mut body = Self {
            incoming,
            left,
            parcel,
            place: Some(place),
            timer: Timer::after(idle),
            idle,
            waits: false,
        };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// The next piece of data; `None` at the end. A body that is cut off is an error, never an end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        while self.place.is_some() {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                return self.poll_idle(cx).map(|error| Some(Err(error)));
            };
            self.waits = false;
            match frame {
                // hyper takes a reset without an error for an end; only END_STREAM is one.
                None if !self.incoming.is_end_stream() => {
                    return Poll::Ready(Some(Err(self.fail("the origin reset the stream before its end"))));
                }
                None if self.left.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Some(Err(self.fail("the origin sent less than its Content-Length"))));
                }
                None => self.finish(),
                Some(Err(error)) => {
                    let why = cause(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    return Poll::Ready(Some(Err(self.fail(&format!("the body broke off: {why}")))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(self.counted(data))),
                    // Trailers are dropped, as over HTTP/1.
                    _ => {}
                },
            }
        }
        Poll::Ready(None)
    }

    /// Whether the end was reached.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.place.is_none()
    }

    /// Bytes left, if the origin said so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.left
    }

    fn counted(&mut self, data: Bytes) -> io::Result<Bytes> {
        if let Some(left) = self.left {
            let Some(rest) = left.checked_sub(data.len() as u64) else {
                return Err(self.fail("the origin sent more than its Content-Length"));
            };
            self.left = Some(rest);
        }
        // What ended too early is said by the next poll: the good data before it goes on first.
        if self.incoming.is_end_stream() && self.left.is_none_or(|left| left == 0) {
            self.finish();
        }
        Ok(data)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !std::mem::replace(&mut self.waits, true) {
            self.timer.set(clock::now() + self.idle);
        }
        ready!(self.timer.poll(cx));
        let stalled = format!("the origin sent nothing for {:?}", self.idle);
        self.finish();
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, stalled))
    }

    /// Lets go of the places; what is left of the request is wanted by nobody.
    fn finish(&mut self) {
        if let Some((ride, _)) = self.place.take()
            && !self.parcel.is_over()
        {
            self.parcel.abort();
            ride.retire();
        }
    }

    fn fail(&mut self, why: &str) -> io::Error {
        let fault = self.parcel.fault();
        self.finish();
        match fault {
            Some(client) => io::Error::other(client),
            None => io::Error::new(io::ErrorKind::UnexpectedEof, why.to_owned()),
        }
    }
}

impl Drop for OriginStream {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for OriginStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginStream").field("remaining", &self.left).finish_non_exhaustive()
    }
}
