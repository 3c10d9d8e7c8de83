//! Serving HTTP/1.1 on one connection with hyper.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1::{Builder, Parts, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response};

use super::answer;
use super::converse::{Conversation, Outcome, drive};
use super::flight::{Flight, board};
use super::limits;
use super::metered::Metered;
use super::pulse::Pulse;
use super::tally::Event;
use crate::body::Body;
use crate::clock;
use crate::drain::DrainWatch;

/// hyper's own limit of fields, for which it needs no allocation per request. A limit below it is the
/// guard's to enforce, with a hardened answer.
const HYPER_HEADERS: usize = 100;

/// Fields that the parser takes beyond a higher limit, so that there too a client meets our refusal, and
/// hyper's bare 431 only far outside.
const SLACK: usize = 32;

/// Serves `io` until the connection ends. Says what ended it, if that is worth a count.
pub(super) async fn serve<T, G, S, F>(
    io: Metered<T, G>,
    pulse: &Arc<Pulse>,
    limits: &limits::Policy,
    drain: &DrainWatch,
    on_event: impl Fn(Event) + Copy,
    service: S,
) where
    T: Read + Write + Unpin + Send + 'static,
    G: Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Body>>,
{
    let calls = service_fn(|request: Request<Incoming>| {
        let ticket = pulse.request();
        let to_head = request.method() == Method::HEAD;
        let answer = service(request);
        async move {
            let mut response = answer.await;
            // A fast answer is written before the driver can tell hyper that it is the last.
            if pulse.must_part(limits) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(board(response, ticket, to_head))
        }
    });
    let mut connection = builder(limits).serve_connection(io, calls).with_upgrades();
    match drive(&mut connection, pulse, limits, drain, on_event).await {
        Outcome::Done(Ok(())) | Outcome::Killed | Outcome::Expired(None) => {}
        Outcome::Done(Err(error)) => {
            tracing::debug!(%error, "HTTP/1 connection ended with an error");
            on_event(if error.is_parse() { Event::BadHttp1 } else { Event::ClientGone });
        }
        Outcome::Expired(Some(event)) => {
            on_event(event);
            if event == Event::HeaderTimeout
                && let Some(Parts { io, .. }) = connection.into_parts()
            {
                say(io, answer::too_slow(clock::wall()), pulse, limits, drain).await;
            }
        }
    }
}

/// Sends `bytes` and closes, within `limits.header_read` and its farewell.
pub(super) async fn say<T: Read + Write + Unpin, G: Unpin>(
    io: Metered<T, G>,
    bytes: Vec<u8>,
    pulse: &Pulse,
    limits: &limits::Policy,
    drain: &DrainWatch,
) {
    // The pulse's deadlines apply: a write that blocks, and the patience after our side is closed.
    pulse.last_words();
    let mut last_words = LastWords { io, bytes: Bytes::from(bytes) };
    let _ = drive(&mut last_words, pulse, limits, drain, |_| ()).await;
}

fn builder(limits: &limits::Policy) -> Builder {
    let mut builder = Builder::new();
    // The pulse does what hyper's header timer would do, and tells idle from slow.
    builder.header_read_timeout(None);
    // One buffer serves head and body; a head that does not fit is answered with 431.
    builder.max_buf_size(limits.head());
    if limits.header_count > HYPER_HEADERS {
        builder.max_headers(limits.header_count.saturating_add(SLACK));
    }
    // A client that closes its side while it waits has gone away; going on would keep the origin busy
    // for nobody. (A half-closing client is indistinguishable, and not a browser.)
    builder.half_close(false);
    builder.keep_alive(true);
    // RFC 9110 section 6.6.1: a server with a clock sends Date.
    builder.auto_date_header(true);
    builder
}

/// The usual bounds of hyper's connection, once.
impl<T, G, S> Conversation for UpgradeableConnection<Metered<T, G>, S>
where
    T: Read + Write + Unpin + Send + 'static,
    G: Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Flight> + Unpin,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(self).poll(cx)
    }

    fn part(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Bytes to send before the end, and the end.
struct LastWords<T> {
    io: T,
    bytes: Bytes,
}

impl<T: Read + Write + Unpin> Conversation for LastWords<T> {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        // A client that is gone already hears nothing: any error is the end.
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes)) {
                Ok(count) if count > 0 => self.bytes.advance(count),
                _ => return Poll::Ready(Ok(())),
            }
        }
        let _ = ready!(Pin::new(&mut self.io).poll_flush(cx));
        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(Ok(()))
    }

    fn part(&mut self) {}
}
