//! Serving HTTP/2 on one connection with hyper, with every limit that h2 0.4 has against floods.
//!
//! | attack | what ends it |
//! |---|---|
//! | rapid reset (CVE-2023-44487), in bursts | `max_pending_accept_reset_streams`; what was reset before we saw it never reaches the road |
//! | rapid reset with patience, or in volleys, so that the origin works for nothing | [`Trust`](super::trust), [`Pulse::is_fickle`] |
//! | MadeYouReset (CVE-2025-8671) | the same, and `max_local_error_reset_streams` |
//! | CONTINUATION flood (CVE-2024-27316) | h2 derives a count of frames from `max_header_list_size` |
//! | a header block that stalls or trickles | [`Pulse::deadline`] |
//! | HPACK bomb, 16,000 fields | h2 at four times `max_header_list_size`; below it, [`Pulse::is_judged`] |
//! | empty DATA frames (CVE-2019-9518) | h2's budget of small frames; not adjustable |
//! | SETTINGS, PING, PRIORITY and WINDOW_UPDATE floods | [`Conduct`](super::conduct) |
//! | malformed requests without end, many open streams | `max_concurrent_streams`, and [`Pulse::is_judged`] |
//! | zero window, slow reading | `max_send_buf_size` per stream, stalled streams are reset here, stalled sockets by the pulse |

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::http2::{Builder, Connection};
use hyper::service::{HttpService, service_fn};
use tokio::time::{sleep_until, timeout};

use super::converse::{Conversation, Outcome, drive};
use super::flight::{Flight, board};
use super::limits;
use super::metered::Metered;
use super::overheard::Overheard;
use super::pulse::{Pulse, Stream};
use super::tally::{Event, Tally};
use super::timer::TokioTimer;
use super::trust::Pass;
use crate::body::Upload;
use crate::clock;
use crate::drain::DrainWatch;
use crate::http1::grade::Fault;
use crate::reply::Reply;
use crate::request::{Held, Request};
use crate::tls::{Flusher, Lazy, Tapped, lazy};

/// Streams that a client may have open at once; what Envoy and other proxies allow too.
const STREAMS: u32 = 100;

/// What a client may send ahead on one stream. It bounds the speed of an upload over a distance (256 KiB
/// are 5 MB/s at 50 ms), and costs nothing beyond the connection's window, which bounds the memory.
const STREAM_WINDOW: u32 = 256 * 1024;

/// What a client may send ahead in total.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is kept per stream of an answer that the client's window does not admit yet.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams reset by the client before we looked at them; h2's own default, written down.
const PENDING_RESETS: usize = 20;

/// Streams that the client made us reset by its errors, in the life of a connection. Browsers cause none.
const ERROR_RESETS: usize = 64;

/// The pause after which a silent client is asked whether it is still there, and how long it may take to
/// answer. What matters is a long answer without data (server-sent events) to a client that is gone.
const PING_EVERY: Duration = Duration::from_mins(1);
const PING_WAIT: Duration = Duration::from_secs(20);

/// How much of an unread request body is read on after the answer: what a browser has on its way when a form
/// or a small upload is refused. And how long such a client may take to notice its answer.
const READ_ON: usize = 64 * 1024;
const READ_ON_TIME: Duration = Duration::from_secs(2);

/// How long a client that was judged may take to hear why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Serves `io` until the connection ends.
pub(super) async fn serve<T, G, S, F>(
    io: Metered<T, G>,
    pulse: &Arc<Pulse>,
    limits: &limits::Policy,
    drain: &DrainWatch,
    tally: &Arc<Tally>,
    service: S,
) where
    T: Tapped + Write + Unpin,
    G: Unpin,
    S: Fn(Request) -> F,
    F: Future<Output = Reply> + Send + 'static,
{
    let calls = service_fn(|request: hyper::Request<Incoming>| {
        let ticket = pulse.request();
        pulse.came_with(request.headers());
        let to_head = request.method() == Method::HEAD;
        let (parts, incoming) = request.into_parts();
        let upload =
            if incoming.is_end_stream() { Upload::nothing() } else { Upload::http2(incoming, ticket.rest()) };
        // What the origin would get over HTTP/1 could be read in two ways.
        let no_meaning = matches!(parts.method, Method::GET | Method::HEAD) && !upload.is_end();
        let head = Held::Parsed(Box::new(parts), no_meaning.then_some(Fault::BodyWithGet));
        // Boxed, because every future around it would hold it twice, and the task of a stream be 21 KB
        // that are copied to and fro.
        let answer = Box::pin(service(Request { head, upload, slow_since: None }));
        let pulse = Arc::clone(pulse);
        async move {
            ticket.opened().await;
            let reply = answer.await;
            if reply.silent {
                pulse.banish();
                return Err(Silence);
            }
            let answer = reply.into_response();
            ticket.answered();
            Ok(board(answer, ticket, to_head))
        }
    });
    let streams = Streams { pulse: Arc::clone(pulse), patience: limits.write_idle, tally: Arc::clone(tally) };
    let (io, flusher) = lazy(Overheard::new(io, Arc::clone(pulse)));
    let connection = builder(limits, streams).serve_connection(io, calls);
    let mut driven = Driven { connection, flusher };
    match drive(&mut driven, pulse, limits, drain, |event| tally.event(event)).await {
        Outcome::Done(Ok(())) | Outcome::Killed | Outcome::Expired(None) => {}
        Outcome::Expired(Some(event)) => {
            tally.event(event);
            if matches!(event, Event::Flood | Event::HeaderTimeout | Event::Banned) {
                let _ = timeout(LAST_WORD, driven.calm()).await;
            }
        }
        Outcome::Done(Err(error)) => {
            tracing::debug!(%error, "HTTP/2 connection ended with an error");
            let gone = std::error::Error::source(&error)
                .and_then(|cause| cause.downcast_ref::<std::io::Error>())
                .is_some()
                || error.is_incomplete_message();
            tally.event(if gone { Event::ClientGone } else { Event::BadHttp2 });
        }
    }
}

/// The client gets no answer: its stream is reset, and the connection ends.
#[derive(Debug)]
struct Silence;

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer on purpose")
    }
}

impl std::error::Error for Silence {}

impl<T: Read + Write + Unpin, S: HttpService<Incoming>> Driven<Overheard<T>, S> {
    /// Ends the connection, and says that it was too much (RFC 9113 sections 6.8 and 7: `ENHANCE_YOUR_CALM`). hyper
    /// can only say farewell without a reason, and reads on meanwhile.
    async fn calm(self) {
        let Self { connection, flusher } = self;
        drop(connection);
        let Some((mut io, Some(newest))) = flusher.into_inner().map(Overheard::into_parts) else { return };
        let mut goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
        if let Some(last) = goaway.get_mut(9..13) {
            last.copy_from_slice(&newest.to_be_bytes());
        }
        let mut left = goaway.as_slice();
        while !left.is_empty() {
            match poll_fn(|cx| Pin::new(&mut io).poll_write(cx, left)).await {
                Ok(count) if count > 0 => left = left.get(count..).unwrap_or_default(),
                _ => return,
            }
        }
        // Flushed, and read on for a moment, lest a reset overtakes the last word.
        let _ = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await;
    }
}

fn builder(limits: &limits::Policy, streams: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .timer(TokioTimer)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .max_header_list_size(header_list(limits))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .auto_date_header(true);
    // Extended CONNECT (RFC 8441) stays off, so that browsers open WebSockets over HTTP/1.1, where the
    // upgrade is a rule of the site.
    builder
}

/// The room for a request's fields: HTTP/2 counts 32 bytes more for each (RFC 9113 section 6.5.2), and
/// the target and authority are fields too. The guard's limits are within, so that a client meets our
/// refusal and not a bare one of h2.
fn header_list(limits: &limits::Policy) -> u32 {
    let overhead = limits.header_count.saturating_mul(32);
    u32::try_from(limits.head().saturating_add(overhead)).unwrap_or(u32::MAX)
}

/// A connection with the handle that flushes what it wrote.
struct Driven<T, S: HttpService<Incoming>> {
    connection: Connection<Lazy<T>, S, Streams>,
    flusher: Flusher<T>,
}

impl<T, S> Conversation for Driven<T, S>
where
    T: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = Flight> + Unpin,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Error = hyper::Error;

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.flusher.drive(Pin::new(&mut self.connection), cx)
    }

    fn part(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }
}

/// Spawns the task of each stream, and ends those whose client takes nothing.
#[derive(Clone)]
struct Streams {
    pulse: Arc<Pulse>,
    patience: Duration,
    tally: Arc<Tally>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let Some(stream) = self.pulse.newest() else {
            tokio::spawn(task);
            return;
        };
        let (pulse, patience) = (Arc::clone(&self.pulse), self.patience);
        let tally = Arc::clone(&self.tally);
        // In a box, for the future around it would hold it twice, and be moved five times until it runs.
        let task = Box::pin(task);
        tokio::spawn(async move {
            if !run(task, &stream, &pulse, patience).await {
                tally.event(Event::StreamStalled);
            } else if let Some(rest) = stream.rest() {
                let _ = Box::pin(timeout(READ_ON_TIME, read_on(rest))).await;
            }
        });
    }
}

/// Reads on what a client sends although its answer is complete, so that it reads the answer too; of a large
/// rest no more than a little, and then it waits. What is still to come when the time is over is reset with
/// `NO_ERROR`: RFC 9113 section 8.1 has that for clients that go on. A reset that comes together with the
/// answer makes some clients (curl 7.88) fail in their next write and never look at the answer.
async fn read_on(mut rest: Incoming) {
    let mut left = READ_ON;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
        let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
            return pending().await;
        };
        left = less;
    }
}

/// Lets a request go to the origin, or waits with it; none if it was taken back meanwhile.
async fn pass(mut task: Pin<&mut impl Future<Output = ()>>, pulse: &Pulse) -> Option<Pass> {
    let trust = pulse.trust()?;
    if let Some(pass) = trust.try_pass() {
        return Some(pass);
    }
    // In a box, so that a request that need not wait does not carry the room for it.
    let mut waits = Box::pin(trust.pass());
    let pass = poll_fn(|cx| match task.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => waits.as_mut().poll(cx).map(Some),
    });
    pass.await.filter(|_| !pulse.is_fickle())
}

/// Runs `task` to its end, or until its client has taken nothing for `patience`; then it is dropped, which
/// resets the stream and lets the origin go. Says whether it came to its end.
///
/// The first poll finds the stream closed to the road: h2 hands over requests that were reset already,
/// and hyper looks for the reset only after it has polled the service. So a request that was taken back
/// before we saw it does not reach the origin. Nor does any that a fickle client still asks for.
async fn run(
    mut task: Pin<Box<impl Future<Output = ()>>>,
    stream: &Stream,
    pulse: &Pulse,
    patience: Duration,
) -> bool {
    let mut alarm = pin!(None);
    if poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await.is_ready() || pulse.is_fickle() {
        return true;
    }
    let Some(pass) = pass(task.as_mut(), pulse).await else { return true };
    let start = pulse.start();
    stream.open(pass);
    poll_fn(|cx| {
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        // Set once it waits, and again when it rings too early: a stream that flows costs no timer.
        while let Some(at) = stream.stalls_at(start, patience) {
            if alarm.is_none() {
                alarm.set(Some(sleep_until(at.into())));
            }
            match alarm.as_mut().as_pin_mut().map(|alarm| alarm.poll(cx)) {
                Some(Poll::Pending) => break,
                _ if clock::now() >= at => return Poll::Ready(false),
                _ => alarm.set(None),
            }
        }
        Poll::Pending
    })
    .await
}
