//! What one connection is doing, and until when it may.
//!
//! hyper's own header timer starts with the wait for a request, so it cannot tell an idle connection
//! (75 s are fine) from a request head that trickles in (10 s are not), and it knows nothing of clients
//! that take no answer. Here the socket's side notes reads and blocked writes, the service's side notes
//! requests, and the driver asks for the deadline that follows. Per request that is a few relaxed
//! stores; no timer is touched.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;

use super::limits;
use super::tally::Event;
use crate::body::Rest;
use crate::clock;

/// How long a connection that was told to end may take to send its last bytes, and for how long the rest
/// of what the client sends is then thrown away so that it reads them.
const FAREWELL: Duration = Duration::from_secs(5);

/// The same for a connection on which nothing was under way: long enough for the last answer's last bytes,
/// and a client that keeps its end open holds nobody up.
const NOD: Duration = Duration::from_secs(1);

/// Cancelled requests are forgiven up to this number; beyond it, while they are less than half of all.
const CANCELLED: u64 = 200;

/// The state of one connection. All of it is touched by one worker only; the atomics make it `Send`.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
    http2: bool,
    /// Requests whose answer has not been handed over completely.
    in_flight: AtomicU32,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests dropped before their answer was complete, through no fault of the origin.
    cancelled: AtomicU64,
    /// Whether bytes of a request head are here (HTTP/1), or of anything (HTTP/2, whose frames do not
    /// prolong an idle life).
    head: AtomicBool,
    /// Since when nothing has been in flight, or since when a head is being read.
    since: Mark,
    /// Since when the socket takes no more bytes.
    blocked: Mark,
    /// Since when our side is being closed.
    shut: Mark,
    /// Whether the server is closing.
    closing: AtomicBool,
    /// Whether it was told to end while nothing was under way, and nothing came since.
    idle: AtomicBool,
    /// Whether the connection became a tunnel.
    tunnel: AtomicBool,
    /// The stream of the request that began last, until its task is spawned (HTTP/2).
    newest: Mutex<Option<Arc<Stream>>>,
}

/// One HTTP/2 stream's answer.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Since when a piece of the answer waits for the client.
    waiting: Mark,
    /// Whether the road may begin with the request.
    open: AtomicBool,
    /// What the road leaves unread of the request's body.
    rest: OnceLock<Arc<Rest>>,
}

/// A moment, or none.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

/// What comes next if nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// What it means; none for an end that is no news.
    pub(super) event: Option<Event>,
}

/// One request in flight. Dropped when its answer has been handed over, or when nobody wants it.
#[derive(Debug)]
pub(super) struct Ticket {
    pulse: Arc<Pulse>,
    stream: Option<Arc<Stream>>,
    complete: bool,
}

impl Pulse {
    /// A connection at `start`; `begun` says that bytes of its first request have been read already.
    pub(super) fn new(start: Instant, http2: bool, begun: bool) -> Arc<Self> {
        Arc::new(Self {
            start,
            http2,
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            head: AtomicBool::new(begun),
            since: Mark::default(),
            blocked: Mark::default(),
            shut: Mark::default(),
            closing: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            newest: Mutex::new(None),
        })
    }

    /// When the connection began; what streams count from.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Bytes arrived.
    pub(super) fn read(&self) {
        if self.in_flight.load(Relaxed) == 0 && !self.head.swap(true, Relaxed) && !self.http2 {
            self.since.set(self.start);
        }
    }

    /// The socket took bytes, or everything.
    pub(super) fn flowing(&self) {
        self.blocked.clear();
    }

    /// The socket takes no more.
    pub(super) fn blocked(&self) {
        if !self.blocked.is_set() {
            self.blocked.set(self.start);
        }
    }

    /// Our side is being closed.
    pub(super) fn shut(&self) {
        if !self.shut.is_set() {
            self.shut.set(self.start);
        }
    }

    /// What is being sent is the last: it has as long as a request head has.
    pub(super) fn last_words(&self) {
        self.head.store(true, Relaxed);
        self.since.set(self.start);
    }

    /// Whether the connection became a tunnel, whose two directions end on their own.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// A request head is complete.
    pub(super) fn request(self: &Arc<Self>) -> Ticket {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.head.store(false, Relaxed);
        self.idle.store(false, Relaxed);
        let stream = self.http2.then(Arc::<Stream>::default);
        if let Some(stream) = &stream {
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(stream));
        }
        Ticket { pulse: Arc::clone(self), stream, complete: false }
    }

    /// The stream of the request that hyper has just called the service with. hyper spawns its task
    /// right after the call, on the same thread.
    pub(super) fn newest(&self) -> Option<Arc<Stream>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the connection may be told to end without a request being lost: not while the head of
    /// one is on its way in HTTP/1. (HTTP/2 says which streams it still serves.)
    pub(super) fn may_part(&self) -> bool {
        self.http2 || self.in_flight.load(Relaxed) > 0 || !self.head.load(Relaxed)
    }

    /// The server closes.
    pub(super) fn closing(&self) {
        self.closing.store(true, Relaxed);
    }

    /// The connection is told to end.
    pub(super) fn part(&self) {
        self.idle.store(self.in_flight.load(Relaxed) == 0, Relaxed);
    }

    /// Whether the client is to be told to part: the server closes, the connection has had its share of
    /// requests, or the client is fickle.
    pub(super) fn must_part(&self, limits: &limits::Policy) -> bool {
        self.closing.load(Relaxed)
            || limits.requests_per_connection.is_some_and(|most| self.requests.load(Relaxed) >= most.get())
            || self.is_fickle()
    }

    /// Whether the client mostly cancels what it asks for. h2 itself ends a burst of resets that it has
    /// not yet handed over; this ends the patient variant, which makes the origin work for nothing.
    pub(super) fn is_fickle(&self) -> bool {
        let cancelled = self.cancelled.load(Relaxed);
        cancelled > CANCELLED && cancelled * 2 > self.requests.load(Relaxed)
    }

    /// Until when the connection may go on as it is; none while the road decides (bodies, origin).
    /// `parting` is when it was told to end.
    pub(super) fn deadline(&self, limits: &limits::Policy, parting: Option<Instant>) -> Option<Deadline> {
        let after = |at: Instant, time: Duration, event| Some(Deadline { at: at + time, event });
        if let Some(shut) = self.shut.get(self.start) {
            return after(shut, if self.idle.load(Relaxed) { NOD } else { FAREWELL }, None);
        }
        if let Some(blocked) = self.blocked.get(self.start) {
            return after(blocked, limits.write_idle, Some(Event::WriteStalled));
        }
        // Whoever keeps asking in spite of the farewell is not waited for: the peer decides whether it heeds
        // GOAWAY, and HTTP/2's graceful end waits for an answer to its PING that need not come.
        if let Some(parting) = parting
            && self.is_fickle()
        {
            return after(parting, NOD, None);
        }
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let since = self.since.get(self.start).unwrap_or(self.start);
        if let Some(parting) = parting {
            return after(parting.max(since), FAREWELL, None);
        }
        let heard = self.head.load(Relaxed);
        if heard && !self.http2 {
            return after(since, limits.header_read, Some(Event::HeaderTimeout));
        }
        if !heard && self.requests.load(Relaxed) == 0 {
            return after(since, limits.header_read, Some(Event::Silent));
        }
        after(since, limits.keep_alive, Some(Event::IdleTimeout))
    }
}

impl Stream {
    /// Lets the road begin.
    pub(super) fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// What the road left unread of the request's body.
    pub(super) fn rest(&self) -> Option<Incoming> {
        self.rest.get()?.take()
    }

    /// When this stream will have waited for `time` for its client; none while it does not wait.
    pub(super) fn stalls_at(&self, start: Instant, time: Duration) -> Option<Instant> {
        self.waiting.get(start).map(|since| since + time)
    }
}

impl Ticket {
    /// Waits until the road may begin. Whoever opens the stream polls on by itself: nobody is woken.
    pub(super) async fn opened(&self) {
        let is_open = || self.stream.as_ref().is_none_or(|stream| stream.open.load(Relaxed));
        poll_fn(|_| if is_open() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Where the rest of the request's body goes (HTTP/2).
    pub(super) fn rest(&self) -> Option<Arc<Rest>> {
        Some(Arc::clone(self.stream.as_ref()?.rest.get_or_init(Arc::default)))
    }

    /// A piece of the answer was handed over, and now waits for the client.
    pub(super) fn handed_over(&self) {
        if let Some(stream) = &self.stream {
            stream.waiting.set(self.pulse.start);
        }
    }

    /// The client is ready for more, and the answer is not.
    pub(super) fn awaits_origin(&self) {
        if let Some(stream) = &self.stream {
            stream.waiting.clear();
        }
    }

    /// The answer switches protocols.
    pub(super) fn switches(&self) {
        self.pulse.tunnel.store(true, Relaxed);
    }

    /// The answer ended, well or by the origin's fault.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.awaits_origin();
        if !self.complete {
            self.pulse.cancelled.fetch_add(1, Relaxed);
        }
        if self.pulse.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.pulse.since.set(self.pulse.start);
        }
    }
}

impl Mark {
    /// Milliseconds since `start`, plus one: 0 means none.
    fn set(&self, start: Instant) {
        let millis = clock::now().saturating_duration_since(start).as_millis();
        self.0.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn get(&self, start: Instant) -> Option<Instant> {
        let millis = self.0.load(Relaxed).checked_sub(1)?;
        start.checked_add(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pulse: &Pulse) -> Option<Event> {
        pulse.deadline(&limits::Policy::default(), None).and_then(|deadline| deadline.event)
    }

    #[test]
    fn an_http1_connection_is_fresh_then_busy_then_idle_then_reads_a_head() {
        let pulse = Pulse::new(clock::now(), false, false);
        assert_eq!(event(&pulse), Some(Event::Silent));
        assert!(pulse.may_part());
        pulse.read();
        assert_eq!(event(&pulse), Some(Event::HeaderTimeout));
        assert!(!pulse.may_part(), "a request is on its way");
        let ticket = pulse.request();
        assert_eq!(pulse.deadline(&limits::Policy::default(), None), None);
        pulse.read();
        drop(ticket);
        assert_eq!(event(&pulse), Some(Event::IdleTimeout));
        pulse.read();
        assert_eq!(event(&pulse), Some(Event::HeaderTimeout));
    }

    #[test]
    fn trickling_does_not_move_the_deadline_of_a_head() {
        let pulse = Pulse::new(clock::now(), false, true);
        let limits = limits::Policy::default();
        let first = pulse.deadline(&limits, None);
        std::thread::sleep(Duration::from_millis(5));
        pulse.read();
        assert_eq!(pulse.deadline(&limits, None), first);
    }

    #[test]
    fn an_http2_client_that_sends_no_preface_is_silent() {
        let pulse = Pulse::new(clock::now(), true, false);
        assert_eq!(event(&pulse), Some(Event::Silent));
        pulse.read();
        assert_eq!(event(&pulse), Some(Event::IdleTimeout), "a browser that connects ahead of time");
    }

    #[test]
    fn pings_do_not_keep_an_http2_connection_open() {
        let pulse = Pulse::new(clock::now(), true, true);
        drop(pulse.request());
        let limits = limits::Policy::default();
        let idle = pulse.deadline(&limits, None);
        assert_eq!(idle.unwrap().event, Some(Event::IdleTimeout));
        std::thread::sleep(Duration::from_millis(5));
        pulse.read();
        assert_eq!(pulse.deadline(&limits, None), idle);
    }

    #[test]
    fn a_client_that_takes_nothing_has_a_deadline_even_while_busy() {
        let pulse = Pulse::new(clock::now(), false, true);
        let _ticket = pulse.request();
        pulse.blocked();
        assert_eq!(event(&pulse), Some(Event::WriteStalled));
        pulse.flowing();
        assert_eq!(event(&pulse), None);
    }

    #[test]
    fn only_cancelled_requests_make_a_client_fickle() {
        let pulse = Pulse::new(clock::now(), true, false);
        for _ in 0..=CANCELLED {
            drop(pulse.request());
        }
        assert!(pulse.is_fickle());
        for _ in 0..=CANCELLED {
            pulse.request().complete();
        }
        assert!(!pulse.is_fickle(), "half of them were wanted");
    }
}
