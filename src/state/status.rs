//! How the store is: for metrics, and for those who ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counters that the keeper moves.
#[derive(Debug, Default)]
pub struct Status {
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
