//! One worker's end of what is seen: begins records, and counts what happens outside of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::access_log::AccessLog;
use super::id::Source;
use super::meters::Meters;
use super::record::{Arrival, Record};
use crate::head::Head;

/// The handle of one worker; cheap to clone, and only this worker's cores write what it counts.
#[derive(Clone, Debug)]
pub struct Seen(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) index: usize,
    pub(super) meters: Arc<Meters>,
    pub(super) log: Arc<AccessLog>,
    pub(super) ids: Source,
}

/// A connection that is open; counted as closed when it is dropped.
#[derive(Debug)]
pub struct Connection(Seen);

impl Seen {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Begins the record of a request; it is written when it is dropped.
    #[must_use]
    pub fn record(&self, arrival: &Arrival<'_>, head: &Head<'_>) -> Box<Record> {
        Record::begin(self.clone(), arrival, head)
    }

    /// A connection was taken. Hold the answer for as long as it is open.
    #[must_use]
    pub fn connection(&self) -> Connection {
        one(&self.0.meters.connections_opened);
        Connection(self.clone())
    }

    /// A connection was not taken; `cause` is a number in [`Words::refused`](super::Words::refused).
    pub fn connection_refused(&self, cause: usize) {
        self.0.meters.connections_refused.add(cause, 1);
    }

    /// A client spoke something other than HTTP; a number in [`Words::foreign`](super::Words::foreign).
    pub fn foreign(&self, protocol: usize) {
        self.0.meters.foreign.add(protocol, 1);
    }

    /// A TLS handshake succeeded.
    pub fn handshake(&self) {
        one(&self.0.meters.handshakes);
    }

    /// A TLS handshake failed; a number in [`Words::handshake`](super::Words::handshake).
    pub fn handshake_failed(&self, cause: usize) {
        self.0.meters.handshakes_failed.add(cause, 1);
    }

    /// An exchange with an origin failed, whether or not a retry mends it; a number in
    /// [`Words::origin`](super::Words::origin).
    pub fn origin_failed(&self, kind: usize) {
        self.0.meters.origin_errors.add(kind, 1);
    }

    /// A panic was caught.
    pub fn panicked(&self) {
        one(&self.0.meters.panics);
    }

    pub(super) fn meters(&self) -> Arc<Meters> {
        Arc::clone(&self.0.meters)
    }

    /// An unguessable number that was not handed out before.
    pub(super) fn draw(&self) -> u64 {
        self.0.ids.draw()
    }

    /// A record is over.
    pub(super) fn written(&self, record: &Record, took: Duration) {
        self.0.meters.request(record, took);
        self.0.log.write(self.0.index, record, took);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        one(&self.0.0.meters.connections_closed);
    }
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
