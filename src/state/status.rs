//! How the store is: for metrics, and for those who ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

/// Counters that the keeper moves.
#[derive(Debug, Default)]
pub struct Status {
    /// Whether another process is to have what only one can have open; and whether it is closed here.
    exclusive: AtomicBool,
    released: watch::Sender<bool>,
    closed: watch::Sender<bool>,
    up: AtomicBool,
    written: AtomicU64,
    applied: AtomicU64,
    unclear: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
}

impl Status {
    /// Whether the store was reached last time.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Closes what only one process can have open, and comes back when that is done.
    pub async fn release(&self) {
        if !self.exclusive.load(Relaxed) {
            return;
        }
        self.released.send_replace(true);
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Opens it again: the other process did not come up.
    pub fn take_back(&self) {
        self.closed.send_replace(false);
        self.released.send_replace(false);
    }

    /// From now on something is open, at times, that only one process can have open.
    pub(super) fn is_exclusive(&self) {
        self.exclusive.store(true, Relaxed);
    }

    /// Whether it is to be closed.
    pub(super) fn is_released(&self) -> bool {
        *self.released.borrow()
    }

    /// Waits until it is to be closed, or, with `false`, may be opened again.
    pub(super) async fn released(&self, released: bool) {
        let _ = self.released.subscribe().wait_for(|now| *now == released).await;
    }

    /// It is closed.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// What happened so far, by name.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let count = |number: &AtomicU64| number.load(Relaxed);
        [
            ("written", count(&self.written)),
            ("applied", count(&self.applied)),
            ("unclear", count(&self.unclear)),
            ("refused", count(&self.refused)),
            ("failed", count(&self.failures)),
        ]
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
        if !up {
            self.failures.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn wrote(&self, changes: usize) {
        self.written.fetch_add(changes as u64, Relaxed);
    }

    pub(super) fn apply(&self, changes: usize) {
        self.applied.fetch_add(changes as u64, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn unclear(&self, lines: u64) {
        self.unclear.fetch_add(lines, Relaxed);
    }
}
