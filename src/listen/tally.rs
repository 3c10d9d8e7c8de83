//! What happened at the door, counted by why. Shared by all workers; read by the metrics page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::first_bytes::Protocol;

/// An event at the door that is not a request. The label is a metrics label and a word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    /// A connection was accepted and may go on.
    Accepted,
    /// Closed at once: no `[[ingress]]` rule lets this address in.
    KeptOut,
    /// Closed at once: `limits.connections` are open.
    FullTotal,
    /// Closed at once: this client has `limits.connections_per_client` open.
    FullClient,
    /// Closed at once, or without an answer: the client is banned.
    Banned,
    /// Closed at once: memory is short.
    FullMemory,
    /// An idle connection was ended to make room: `limits.connections` were open, or files or memory ran short.
    MadeRoom,
    /// Closed before it said anything of use: `limits.handshakes` were opening, and it was the oldest of them.
    ShedOpening,
    /// The time for a request head ended early: `limits.slow_heads` were being read, and it was the oldest of them.
    ShedHead,
    /// The process or the system is out of file descriptors or memory; accepting paused.
    Exhausted,
    /// A client was gone before it was accepted, or the system said no to this one.
    AcceptFailed,
    /// No PROXY header where one is required, in time and well-formed, or from somebody whose headers are not believed.
    BadProxyHeader,
    /// Opened and closed without a byte: a port check.
    Probe,
    /// Said nothing, or not enough to tell a protocol, for `limits.handshake` or `limits.header_read`.
    Silent,
    /// A TLS handshake succeeded.
    Handshake,
    /// A TLS handshake took longer than `limits.handshake`.
    HandshakeTimeout,
    /// A request head took longer than `limits.header_read`.
    HeaderTimeout,
    /// An idle connection was closed after `limits.keep_alive`.
    IdleTimeout,
    /// A client took no byte of an answer for `limits.body_idle`.
    WriteStalled,
    /// A client took no byte of one HTTP/2 stream's answer for `limits.body_idle`; the stream was reset.
    StreamStalled,
    /// A client cancelled too many HTTP/2 requests.
    TooManyCancelled,
    /// A client sent HTTP/2 frames without end that ask for nothing, requests that are none, or asked on after it
    /// was told to end.
    Flood,
    /// The parser found something other than HTTP/1, or a body that begins with a broken chunk.
    BadHttp1,
    /// The HTTP/2 connection broke a rule or a limit of the protocol.
    BadHttp2,
    /// The client reset or closed in the middle of something.
    ClientGone,
}

impl Event {
    /// Every event, in the order of their numbers.
    pub const ALL: [Event; 25] = [
        Event::Accepted,
        Event::KeptOut,
        Event::FullTotal,
        Event::FullClient,
        Event::Banned,
        Event::FullMemory,
        Event::MadeRoom,
        Event::ShedOpening,
        Event::ShedHead,
        Event::Exhausted,
        Event::AcceptFailed,
        Event::BadProxyHeader,
        Event::Probe,
        Event::Silent,
        Event::Handshake,
        Event::HandshakeTimeout,
        Event::HeaderTimeout,
        Event::IdleTimeout,
        Event::WriteStalled,
        Event::StreamStalled,
        Event::TooManyCancelled,
        Event::Flood,
        Event::BadHttp1,
        Event::BadHttp2,
        Event::ClientGone,
    ];

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Event::Accepted => "accepted",
            Event::KeptOut => "kept-out",
            Event::FullTotal => "full-total",
            Event::FullClient => "full-client",
            Event::Banned => "banned",
            Event::FullMemory => "full-memory",
            Event::MadeRoom => "made-room",
            Event::ShedOpening => "shed-opening",
            Event::ShedHead => "shed-head",
            Event::Exhausted => "exhausted",
            Event::AcceptFailed => "accept-failed",
            Event::BadProxyHeader => "bad-proxy-header",
            Event::Probe => "probe",
            Event::Silent => "silent",
            Event::Handshake => "handshake",
            Event::HandshakeTimeout => "handshake-timeout",
            Event::HeaderTimeout => "header-timeout",
            Event::IdleTimeout => "idle-timeout",
            Event::WriteStalled => "write-stalled",
            Event::StreamStalled => "stream-stalled",
            Event::TooManyCancelled => "too-many-cancelled",
            Event::Flood => "flood",
            Event::BadHttp1 => "bad-http1",
            Event::BadHttp2 => "bad-http2",
            Event::ClientGone => "client-gone",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// All counters of the door.
#[derive(Debug)]
pub struct Tally {
    events: [AtomicU64; Event::ALL.len()],
    protocols: [AtomicU64; Protocol::ALL.len()],
    /// Handshakes that failed, by the word of the TLS room. The words are a closed set there.
    handshakes: Mutex<BTreeMap<&'static str, u64>>,
    /// One line per kind and pause: a flood must not become a flood of log lines.
    seldom: [Seldom; Event::ALL.len() + 1],
    start: Instant,
}

/// When a kind of log line may be written again, and how many were held back since.
#[derive(Debug, Default)]
struct Seldom {
    next: AtomicU64,
    held: AtomicU64,
}

/// The pause between two log lines of one kind, in milliseconds.
const PAUSE: u64 = 10_000;

impl Tally {
    /// All zero. `start` is what log pauses are counted from.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            events: std::array::from_fn(|_| AtomicU64::new(0)),
            protocols: std::array::from_fn(|_| AtomicU64::new(0)),
            handshakes: Mutex::default(),
            seldom: std::array::from_fn(|_| Seldom::default()),
            start,
        }
    }

    /// Counts `event`.
    pub fn event(&self, event: Event) {
        bump(self.events.get(event.index()));
    }

    /// Counts `event` so many times.
    pub fn events(&self, event: Event, times: usize) {
        if let Some(counter) = self.events.get(event.index()) {
            counter.fetch_add(times as u64, Ordering::Relaxed);
        }
    }

    /// Counts a first word in `protocol`: HTTP where it is not served, or a foreign one.
    pub fn foreign(&self, protocol: Protocol) {
        bump(self.protocols.get(protocol.index()));
    }

    /// Counts a TLS handshake that failed, by why.
    pub fn handshake_failed(&self, why: &'static str) {
        *self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// How often `event` happened.
    #[must_use]
    pub fn count(&self, event: Event) -> u64 {
        load(self.events.get(event.index()))
    }

    /// How often `protocol` was spoken where it is not served.
    #[must_use]
    pub fn foreign_count(&self, protocol: Protocol) -> u64 {
        load(self.protocols.get(protocol.index()))
    }

    /// Failed handshakes by why.
    #[must_use]
    pub fn handshakes(&self) -> Vec<(&'static str, u64)> {
        let map = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(why, count)| (*why, *count)).collect()
    }

    /// Whether a log line about `event` may be written now; then, how many were held back before it.
    pub(super) fn may_log(&self, event: Event, now: Instant) -> Option<u64> {
        self.seldom.get(event.index())?.turn(self.millis(now))
    }

    /// The same for a log line about a foreign protocol.
    pub(super) fn may_log_foreign(&self, now: Instant) -> Option<u64> {
        self.seldom.last()?.turn(self.millis(now))
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl Seldom {
    fn turn(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let mine = now >= next
            && self.next.compare_exchange(next, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            return Some(self.held.swap(0, Ordering::Relaxed));
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn bump(counter: Option<&AtomicU64>) {
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn load(counter: Option<&AtomicU64>) -> u64 {
    counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_and_protocols_are_counted_apart() {
        let tally = Tally::new(crate::clock::now());
        tally.event(Event::Silent);
        tally.foreign(Protocol::Ssh);
        tally.foreign(Protocol::Ssh);
        tally.handshake_failed("no-shared-cipher");
        assert_eq!(tally.count(Event::Silent), 1);
        assert_eq!(tally.count(Event::Probe), 0);
        assert_eq!(tally.foreign_count(Protocol::Ssh), 2);
        assert_eq!(tally.handshakes(), [("no-shared-cipher", 1)]);
        for (position, event) in Event::ALL.iter().enumerate() {
            assert_eq!(event.index(), position);
        }
    }

    #[test]
    fn a_flood_is_one_line_per_pause_and_says_how_many_it_stands_for() {
        let start = crate::clock::now();
        let tally = Tally::new(start);
        assert_eq!(tally.may_log(Event::FullTotal, start), Some(0));
        for _ in 0..7 {
            assert_eq!(tally.may_log(Event::FullTotal, start + Duration::from_secs(1)), None);
        }
        assert_eq!(tally.may_log(Event::FullClient, start), Some(0), "kinds have their own pause");
        assert_eq!(tally.may_log(Event::FullTotal, start + Duration::from_secs(10)), Some(7));
    }
}
