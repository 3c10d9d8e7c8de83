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
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::HeaderMap;
use hyper::body::Incoming;

use super::conduct::{Heard, LARGE};
use super::limits;
use super::tally::Event;
use super::trust::{Pass, Trust};
use crate::body::Rest;
use crate::clock;

/// How long a connection that was told to end may take to send its last bytes, and for how long the rest
/// of what the client sends is then thrown away so that it reads them.
const FAREWELL: Duration = Duration::from_secs(5);

/// The same for a tunnel. It ends by itself ten seconds after one direction did; this is for one that does not.
const TUNNELS_FAREWELL: Duration = Duration::from_secs(15);

/// The same for a connection on which nothing was under way: long enough for the last answer's last bytes,
/// and a client that keeps its end open holds nobody up.
const NOD: Duration = Duration::from_secs(1);

/// Cancelled requests are forgiven up to this number; beyond it, while they are less than two thirds of all.
const CANCELLED: u64 = 200;

/// HTTP/2 streams that were opened and never became a request (malformed, too large, beyond the streams that are
/// allowed, reset before we saw them) are forgiven up to this number. So are those that a client opens before it
/// reads our farewell.
const SPOILED: u64 = 100;

/// The same for those with a large header block, each of which costs as much CPU as dozens of requests.
const SPOILED_LARGE: u64 = 4;

/// The state of one connection. All of it is touched by one worker only; the atomics make it `Send`.
#[derive(Debug)]
pub(super) struct Pulse {
    start: Instant,
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
    /// Whether the server will close soon, and whether it does.
    draining: AtomicBool,
    closing: AtomicBool,
    /// Whether it was told to end while nothing was under way, and nothing came since.
    idle: AtomicBool,
    /// Whether the connection became a tunnel.
    tunnel: AtomicBool,
    /// Whether it is to make room for others, and whether its time for a request head is over.
    dismissed: AtomicBool,
    hurried: AtomicBool,
    /// Whether it ends because the client is to get no answer.
    banished: AtomicBool,
    /// Wakes the driver to look at the two.
    driver: AtomicWaker,
    /// What only HTTP/2 has.
    http2: Option<Box<Http2>>,
}

/// The state of an HTTP/2 connection.
#[derive(Debug)]
struct Http2 {
    /// The stream of the request that began last, until its task is spawned.
    newest: Mutex<Option<Arc<Stream>>>,
    /// How many requests may be with the origin unanswered.
    trust: Trust,
    /// Streams that the client opened, by its frames; and how many when it was told to end.
    streams: AtomicU64,
    streams_at_parting: AtomicU64,
    /// Large header blocks, and requests that may have come in one.
    large: AtomicU64,
    large_requests: AtomicU64,
    /// Since when a header block is begun and not ended.
    block: Mark,
    /// Whether the client's conduct is that of a flood.
    floods: AtomicBool,
}

/// One HTTP/2 stream's answer.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Since when a piece of the answer waits for the client.
    waiting: Mark,
    /// Set once the road may begin with the request.
    pass: OnceLock<Pass>,
    /// Whether the answer has begun.
    answered: AtomicBool,
    /// What the road leaves unread of the request's body.
    rest: OnceLock<Arc<Rest>>,
}

/// A moment, or none.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

/// What a mark holds for a moment that was not read off the clock yet.
const NOW: u64 = u64::MAX;

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
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            head: AtomicBool::new(begun),
            since: Mark::default(),
            blocked: Mark::default(),
            shut: Mark::default(),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            banished: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            http2: http2.then(Box::default),
        })
    }

    /// When the connection began; what streams count from.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// Bytes arrived.
    pub(super) fn read(&self) {
        if self.in_flight.load(Relaxed) == 0 && !self.head.swap(true, Relaxed) && self.http2.is_none() {
            self.since.set_now();
        }
    }

    /// What was read since the last answer belonged to the body before it (HTTP/1).
    pub(super) fn settled(&self) {
        if self.head.swap(false, Relaxed) {
            self.since.set_now();
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
        let stream = self.http2.as_ref().map(|http2| http2.begin());
        Ticket { pulse: Arc::clone(self), stream, complete: false }
    }

    /// The stream of the request that hyper has just called the service with. hyper spawns its task
    /// right after the call, on the same thread.
    pub(super) fn newest(&self) -> Option<Arc<Stream>> {
        self.http2.as_ref()?.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How many requests may be with the origin unanswered (HTTP/2).
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.http2.as_ref().map(|http2| &http2.trust)
    }

    /// What the client's frames say so far, and whether it is inside a header block (HTTP/2).
    pub(super) fn heard(&self, heard: Heard, in_block: bool) {
        let Some(http2) = &self.http2 else { return };
        http2.streams.store(heard.streams, Relaxed);
        http2.large.store(heard.large, Relaxed);
        if !in_block {
            http2.block.clear();
        } else if !http2.block.is_set() {
            http2.block.set(self.start);
        }
        if heard.floods {
            http2.floods.store(true, Relaxed);
        }
    }

    /// A request came with these fields (HTTP/2).
    pub(super) fn came_with(&self, fields: &HeaderMap) {
        let Some(http2) = self.http2.as_ref().filter(|http2| http2.large.load(Relaxed) > 0) else { return };
        let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        http2.large_requests.fetch_add(u64::from(size > LARGE), Relaxed);
    }

    /// Whether the client is to be heard no more: it floods (HTTP/2). To be asked when the parser has seen
    /// everything that was read.
    pub(super) fn is_judged(&self) -> bool {
        // The parser's own verdict is on its way then.
        let Some(http2) = self.http2.as_ref().filter(|_| !self.shut.is_set()) else { return false };
        let streams = http2.streams.load(Relaxed);
        http2.floods.load(Relaxed)
            || http2.large.load(Relaxed) > http2.large_requests.load(Relaxed) + SPOILED_LARGE
            || streams > self.requests.load(Relaxed) + SPOILED
            || streams > http2.streams_at_parting.load(Relaxed).saturating_add(SPOILED)
    }

    /// Whether the connection may be told to end without a request being lost: not while the head of
    /// one is on its way in HTTP/1. (HTTP/2 says which streams it still serves.)
    pub(super) fn may_part(&self) -> bool {
        self.http2.is_some() || self.in_flight.load(Relaxed) > 0 || !self.head.load(Relaxed)
    }

    /// Since when nothing has been under way, if so, and if the connection was not told to end already.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let in_head = match &self.http2 {
            Some(http2) => http2.block.is_set(),
            None => self.head.load(Relaxed),
        };
        let is_busy = in_head || self.in_flight.load(Relaxed) > 0 || self.is_tunnel();
        let is_leaving = self.is_dismissed() || self.shut.is_set();
        (!is_busy && !is_leaving).then(|| self.since.get(self.start).unwrap_or(self.start))
    }

    /// Since when a request head is begun and not ended.
    pub(super) fn reads_head_since(&self) -> Option<Instant> {
        if let Some(http2) = &self.http2 {
            return http2.block.get(self.start);
        }
        let reads = self.head.load(Relaxed) && self.in_flight.load(Relaxed) == 0 && !self.shut.is_set();
        reads.then(|| self.since.get(self.start).unwrap_or(self.start))
    }

    /// The client gets no answer, and is heard no more (HTTP/2).
    pub(super) fn banish(&self) {
        self.banished.store(true, Relaxed);
        self.driver.wake();
    }

    /// Whether it was told so.
    pub(super) fn is_banished(&self) -> bool {
        self.banished.load(Relaxed)
    }

    /// Asks the connection to make room for others: it ends once nothing is under way. False if it was asked.
    pub(super) fn dismiss(&self) -> bool {
        let is_new = !self.dismissed.swap(true, Relaxed);
        self.driver.wake();
        is_new
    }

    /// Whether it was asked to make room.
    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }

    /// Ends the time for the request head that is being read.
    pub(super) fn hurry(&self) {
        self.hurried.store(true, Relaxed);
        self.driver.wake();
    }

    /// Whether the time for a request head is over.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried.load(Relaxed)
    }

    /// Before the driver looks at what it is asked to do, and then waits: from here on it is woken when it is asked
    /// for more. While a request is under way it looks by itself once that is over.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        if self.in_flight.load(Relaxed) == 0 {
            self.driver.register(cx.waker());
        }
    }

    /// The server will close soon: whoever asks is told, and comes back on another connection.
    pub(super) fn draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether it is so.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The server closes.
    pub(super) fn closing(&self) {
        self.closing.store(true, Relaxed);
    }

    /// The connection is told to end.
    pub(super) fn part(&self) {
        self.idle.store(self.in_flight.load(Relaxed) == 0, Relaxed);
        if let Some(http2) = &self.http2 {
            http2.streams_at_parting.store(http2.streams.load(Relaxed), Relaxed);
        }
    }

    /// Whether the client is to be told to part: the server closes, the connection has had its share of
    /// requests, or the client is fickle. While the server drains, HTTP/2 can be told without losing a request, once
    /// there was one; HTTP/1 is told with its next answer.
    pub(super) fn must_part(&self, limits: &limits::Policy) -> bool {
        self.closing.load(Relaxed)
            || (self.is_draining() && self.http2.is_some() && self.requests.load(Relaxed) > 0)
            || self.is_dismissed()
            || limits.requests_per_connection.is_some_and(|most| self.requests.load(Relaxed) >= most.get())
            || self.is_fickle()
    }

    /// Whether the client mostly cancels what it asks for. h2 itself ends a burst of resets that it has
    /// not yet handed over; this ends the patient variant, which makes the origin work for nothing.
    pub(super) fn is_fickle(&self) -> bool {
        let cancelled = self.cancelled.load(Relaxed);
        cancelled > CANCELLED && cancelled * 3 > self.requests.load(Relaxed) * 2
    }

    /// Until when the connection may go on as it is; none while the road decides (bodies, origin).
    /// `parting` is when it was told to end.
    pub(super) fn deadline(&self, limits: &limits::Policy, parting: Option<Instant>) -> Option<Deadline> {
        let usual = self.usual_deadline(limits, parting);
        // A header block holds up every other stream, so it has no more time than a head in HTTP/1.
        let block = self
            .http2
            .as_ref()
            .and_then(|http2| http2.block.get(self.start))
            .map(|since| Deadline { at: since + limits.header_read, event: Some(Event::HeaderTimeout) });
        let deadline = usual.into_iter().chain(block).min_by_key(|deadline| deadline.at)?;
        let is_over = self.is_hurried() && deadline.event == Some(Event::HeaderTimeout);
        Some(if is_over { Deadline { at: self.start, ..deadline } } else { deadline })
    }

    /// What happened while the driver drove an HTTP/1 connection happened just now. Until here most of it is over:
    /// a request whose head has come in one piece never asks for the time.
    fn usual_deadline(&self, limits: &limits::Policy, parting: Option<Instant>) -> Option<Deadline> {
        let after = |at: Instant, time: Duration, event| Some(Deadline { at: at + time, event });
        if let Some(shut) = self.shut.get(self.start) {
            let time = match (self.is_tunnel(), self.idle.load(Relaxed)) {
                (true, _) => TUNNELS_FAREWELL,
                (false, true) => NOD,
                (false, false) => FAREWELL,
            };
            return after(shut, time, None);
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
        self.since.fix(self.start);
        let since = self.since.get(self.start).unwrap_or(self.start);
        if let Some(parting) = parting {
            return after(parting.max(since), FAREWELL, None);
        }
        let heard = self.head.load(Relaxed);
        if heard && self.http2.is_none() {
            return after(since, limits.header_read, Some(Event::HeaderTimeout));
        }
        if !heard && self.requests.load(Relaxed) == 0 {
            return after(since, limits.header_read, Some(Event::Silent));
        }
        after(since, limits.keep_alive, Some(Event::IdleTimeout))
    }
}

impl Http2 {
    fn begin(&self) -> Arc<Stream> {
        let stream = Arc::<Stream>::default();
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stream));
        stream
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            newest: Mutex::new(None),
            trust: Trust::new(),
            streams: AtomicU64::new(0),
            streams_at_parting: AtomicU64::new(u64::MAX),
            large: AtomicU64::new(0),
            large_requests: AtomicU64::new(0),
            block: Mark::default(),
            floods: AtomicBool::new(false),
        }
    }
}

impl Stream {
    /// Lets the road begin.
    pub(super) fn open(&self, pass: Pass) {
        let _ = self.pass.set(pass);
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
        let is_open = || self.stream.as_ref().is_none_or(|stream| stream.pass.get().is_some());
        poll_fn(|_| if is_open() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The answer begins.
    pub(super) fn answered(&self) {
        if let Some((trust, pass)) = self.trust() {
            trust.answered(pass);
        }
    }

    /// What is to be settled with the client's trust, if it is not yet.
    fn trust(&self) -> Option<(&Trust, Pass)> {
        let stream = self.stream.as_ref()?;
        let pass = *stream.pass.get()?;
        let open = !stream.answered.swap(true, Relaxed);
        self.pulse.trust().filter(|_| open).map(|trust| (trust, pass))
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
        if let Some((trust, pass)) = self.trust() {
            trust.taken_back(pass);
        }
        if !self.complete {
            self.pulse.cancelled.fetch_add(1, Relaxed);
        }
        if self.pulse.in_flight.fetch_sub(1, Relaxed) == 1 {
            // A stream of HTTP/2 ends in a task of its own, and the driver may not look for long.
            match self.stream {
                Some(_) => self.pulse.since.set(self.pulse.start),
                None => self.pulse.since.set_now(),
            }
        }
    }
}

impl Mark {
    /// Milliseconds since `start`, plus one: 0 means none.
    fn set(&self, start: Instant) {
        let millis = clock::now().saturating_duration_since(start).as_millis();
        self.0.store(u64::try_from(millis).map_or(NOW - 1, |millis| millis + 1), Relaxed);
    }

    /// Now, whenever that is read off the clock.
    fn set_now(&self) {
        self.0.store(NOW, Relaxed);
    }

    /// Reads off the clock when now was.
    fn fix(&self, start: Instant) {
        if self.0.load(Relaxed) == NOW {
            self.set(start);
        }
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn get(&self, start: Instant) -> Option<Instant> {
        match self.0.load(Relaxed) {
            0 => None,
            NOW => Some(clock::now()),
            millis => start.checked_add(Duration::from_millis(millis - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pulse: &Pulse) -> Option<Event> {
        pulse.deadline(&limits::Policy::default(), None).and_then(|deadline| deadline.event)
    }

    fn opened(streams: u64) -> Heard {
        Heard { streams, ..Heard::default() }
    }

    #[test]
    fn large_blocks_are_forgiven_a_few_times_and_always_if_they_are_requests() {
        let pulse = Pulse::new(clock::now(), true, false);
        let large = |large| Heard { streams: 20, large, floods: false };
        pulse.heard(large(SPOILED_LARGE), false);
        assert!(!pulse.is_judged());
        let mut fields = HeaderMap::new();
        pulse.came_with(&fields);
        pulse.heard(large(SPOILED_LARGE + 1), false);
        assert!(pulse.is_judged());
        fields.insert("cookie", "c".repeat(LARGE).parse().unwrap());
        pulse.came_with(&fields);
        assert!(!pulse.is_judged());
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
    fn a_tunnel_outlives_the_end_of_one_direction() {
        let (pulse, limits) = (Pulse::new(clock::now(), false, true), limits::Policy::default());
        let ticket = pulse.request();
        ticket.switches();
        assert_eq!(pulse.deadline(&limits, None), None);
        pulse.shut();
        let deadline = pulse.deadline(&limits, None).unwrap();
        assert!(
            deadline.at >= clock::now() + Duration::from_secs(11),
            "the tunnel itself ends after ten seconds"
        );
        assert_eq!(deadline.event, None);
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
    fn an_open_header_block_has_a_deadline_whatever_else_is_under_way() {
        let pulse = Pulse::new(clock::now(), true, false);
        let ticket = pulse.request();
        assert_eq!(event(&pulse), None);
        pulse.heard(opened(2), true);
        assert_eq!(event(&pulse), Some(Event::HeaderTimeout));
        let first = pulse.deadline(&limits::Policy::default(), None);
        std::thread::sleep(Duration::from_millis(5));
        pulse.heard(opened(2), true);
        assert_eq!(pulse.deadline(&limits::Policy::default(), None), first, "trickling does not move it");
        pulse.heard(opened(2), false);
        assert_eq!(event(&pulse), None);
        drop(ticket);
    }

    #[test]
    fn streams_that_are_no_requests_make_a_flood_and_requests_do_not() {
        let pulse = Pulse::new(clock::now(), true, false);
        for _ in 0..500 {
            pulse.request().complete();
        }
        pulse.heard(opened(500 + SPOILED), false);
        assert!(!pulse.is_judged());
        pulse.heard(opened(500 + SPOILED + 1), false);
        assert!(pulse.is_judged());
    }

    #[test]
    fn whoever_asks_on_after_the_farewell_floods() {
        let pulse = Pulse::new(clock::now(), true, false);
        (0..300).for_each(|_| pulse.request().complete());
        pulse.heard(opened(100), false);
        pulse.part();
        pulse.heard(opened(200), false);
        assert!(!pulse.is_judged(), "the farewell may have been on its way");
        pulse.heard(opened(201), false);
        assert!(pulse.is_judged());
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
        for _ in 0..=CANCELLED / 2 {
            pulse.request().complete();
        }
        assert!(!pulse.is_fickle(), "a third of them was wanted");
    }
}
