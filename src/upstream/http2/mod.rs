//! HTTP/2 to an origin, where the operator wants it: hyper's client, held to the rules of our own.
//!
//! The request is the one that [`rewrite`](super::rewrite) wrote, read back. Many requests share a connection, which a
//! task of its own drives. What HTTP/1 promises holds here, too: the last byte of a request of known length goes out only
//! once the client has ended its body, a body that is cut off is an error and never an end, and no request is sent twice
//! that may not be.

mod incoming;
mod lane;
mod outgoing;
mod request;
mod socket;

use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use h2::Reason as Code;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderName, Response, StatusCode, Version};
use hyper::body::Incoming;

pub use self::incoming::OriginStream;
pub(super) use self::lane::{Lanes, Ride};
pub(super) use self::outgoing::Parcel;
use super::balance::Seat;
use super::error::{Kind, Retry, UpstreamError};
use super::exchange::Expect;
use super::timer::Timer;
use crate::body::Body;
use crate::http1::connection::{KeepAlive, Options};
use crate::http1::framing::{Declared, Framing};
use crate::http1::response::{FIELDS_MAX, ResponseHead};

/// Fields of the connection (RFC 9113 section 8.2.2), which have no meaning here and go no further.
static HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A response head, and what its body is read from.
pub(super) struct Asked {
    head: ResponseHead,
    incoming: Incoming,
    ride: Ride,
    parcel: Parcel,
}

/// Sends one request and waits for its response head.
pub(super) async fn ask(
    ride: Ride,
    head: &[u8],
    secure: bool,
    parcel: Parcel,
    expect: &Expect,
    start: Instant,
) -> Result<Asked, UpstreamError> {
    let mut timer = Timer::at(start + expect.first_byte);
    // A length of nothing is a claim that what follows may belie; nothing goes out before the client has ended.
    poll_fn(|cx| match parcel.poll_empty(cx) {
        Poll::Ready(ended) => Poll::Ready(ended),
        Poll::Pending => timer.poll(cx).map(|()| Err(stalled(expect.first_byte))),
    })
    .await?;
    let request = request::read_back(head, secure, parcel.body())?;
    let mut sender = ride.sender();
    let mut asked = pin!(sender.try_send_request(request));
    let answer = poll_fn(|cx| {
        if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|mut failed| {
                let unsent = failed.take_message().is_some();
                parcel.fault().unwrap_or_else(|| fault(failed.error(), unsent))
            }));
        }
        loop {
            ready!(timer.poll(cx));
            // While the request goes out, the time counts from the last byte that the origin took.
            let due = parcel.moved() + expect.first_byte;
            if !timer.later(due) {
                return Poll::Ready(Err(too_late(&parcel, expect.first_byte)));
            }
        }
    })
    .await;
    match answer.and_then(|answer| understood(answer, expect)) {
        Ok((head, incoming)) => Ok(Asked { head, incoming, ride, parcel }),
        Err(error) => {
            if error.kind == Kind::Timeout || !parcel.is_over() {
                // Whoever comes next shall not wait on a connection that may be dead, or holds what was given up.
                ride.retire();
            }
            parcel.abort();
            Err(error)
        }
    }
}

impl Asked {
    /// Head and body of the answer. The body is empty where the method or the status says so, whatever is sent.
    pub(super) fn open(
        self,
        seat: Seat,
        to_head: bool,
        idle: Duration,
    ) -> Result<(ResponseHead, Body), UpstreamError> {
        let Self { head, incoming, ride, parcel } = self;
        let left = match head.declared.of_response(to_head, head.status) {
            Framing::Empty => {
                if !parcel.is_over() {
                    parcel.abort();
                    ride.retire();
                }
                return Ok((head, Body::empty()));
            }
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let body = OriginStream::new(incoming, left, parcel, (ride, seat), idle);
        if body.is_end() && left.unwrap_or_default() > 0 {
            return Err(UpstreamError::new(Kind::Protocol, "the answer ended before its Content-Length"));
        }
        Ok((head, Body::stream(body)))
    }
}

/// The head as the rest of the house knows it.
fn understood(
    answer: Response<Incoming>,
    expect: &Expect,
) -> Result<(ResponseHead, Incoming), UpstreamError> {
    let protocol = |detail: String| UpstreamError::new(Kind::Protocol, detail);
    let (Parts { status, headers, .. }, incoming) = answer.into_parts();
    if status.is_informational() || status.as_u16() >= 600 {
        return Err(protocol(format!("the status {status} ends no answer over HTTP/2")));
    }
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > FIELDS_MAX || size > expect.head_max {
        return Err(UpstreamError::new(Kind::HeadTooLarge, "the header is larger than allowed"));
    }
    let mut declared = Declared::default();
    for length in headers.get_all(CONTENT_LENGTH) {
        declared.add_length(length.as_bytes()).map_err(|fault| protocol(fault.to_string()))?;
    }
    declared.check(Version::HTTP_11).map_err(|fault| protocol(fault.to_string()))?;
    let mut fields = Vec::with_capacity(headers.len() + 8);
    let mut last: Option<HeaderName> = None;
    for (name, value) in headers {
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| !HOP_BY_HOP.contains(name)) {
            fields.push((name.clone(), value));
        }
    }
    let head = ResponseHead {
        status,
        version: Version::HTTP_2,
        fields,
        declared,
        options: Options::default(),
        keep_alive: KeepAlive::default(),
        upgrade: None,
    };
    debug_assert!(status != StatusCode::SWITCHING_PROTOCOLS, "refused above");
    Ok((head, incoming))
}

/// What it means that there is no answer. `unsent`: the request never left.
///
/// After GOAWAY it cannot be told whether the origin began with a request, so that only what is safe to repeat is
/// repeated; `REFUSED_STREAM` says that it did not (RFC 9113 section 8.7).
fn fault(error: &hyper::Error, unsent: bool) -> UpstreamError {
    let closed = |detail: String| UpstreamError::new(Kind::Closed, detail);
    if unsent {
        return closed("the connection closed before the request was sent".to_owned()).retry(Retry::Anywhere);
    }
    let Some(cause) = cause(error) else {
        return closed(format!("HTTP/2: {error}")).retry(Retry::IfIdempotent);
    };
    match cause.reason() {
        Some(Code::REFUSED_STREAM) if cause.is_remote() && cause.is_reset() => {
            closed("the origin refused the stream".to_owned()).retry(Retry::Anywhere)
        }
        _ if cause.is_io() => {
            closed(format!("the origin closed the connection: {cause}")).retry(Retry::IfIdempotent)
        }
        _ if cause.is_remote() && cause.is_go_away() => {
            closed(format!("the origin ended the connection: {cause}")).retry(Retry::IfIdempotent)
        }
        _ if cause.is_remote() => closed(format!("the origin reset the stream: {cause}")),
        _ => UpstreamError::new(Kind::Protocol, format!("HTTP/2: {cause}")),
    }
}

/// What HTTP/2 says of it.
fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn stalled(limit: Duration) -> UpstreamError {
    UpstreamError::new(Kind::ClientStalled, format!("the client sent nothing for {limit:?}"))
}

fn too_late(parcel: &Parcel, limit: Duration) -> UpstreamError {
    if parcel.awaits_client() {
        return stalled(limit);
    }
    let what =
        if parcel.is_over() { "the origin did not answer" } else { "the origin took no more of the request" };
    UpstreamError::new(Kind::Timeout, format!("{what} within {limit:?}"))
}
