//! One worker's end of what is seen: begins records, counts them, and has them written.

use std::sync::Arc;
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

impl Seen {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Begins the record of a request; it is written when it is dropped.
    #[must_use]
    pub fn record(&self, arrival: &Arrival<'_>, head: &Head<'_>) -> Box<Record> {
        Record::begin(self.clone(), arrival, head)
    }

    /// A panic was caught.
    pub fn panicked(&self) {
        self.0.meters.panics.add(1);
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
