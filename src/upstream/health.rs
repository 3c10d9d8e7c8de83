//! Passive health: a member that cannot be reached is left alone for a while.
//!
//! Only failures to *connect* count (refused, no route, time-out, TLS). What happens after that, a
//! slow page or a crash while answering, can be provoked by anyone who knows a suitable URL, and must
//! not take a member away from everyone else; least-outstanding avoids a member that hangs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a member is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// After how many failures in a row; 0 means never.
    pub(super) fail_after: u32,
    /// For how long. Then one request tries it again.
    pub(super) retry_after: Duration,
}

/// What is remembered about one member, shared by all workers.
#[derive(Debug)]
pub(super) struct Health {
    patience: Patience,
    start: Instant,
    failures: AtomicU32,
    /// Milliseconds after `start` until which the member is left alone; 0 while it is up.
    until: AtomicU64,
}

impl Health {
    /// A member that is up. `start` is any moment before the first use.
    #[must_use]
    pub(super) fn new(patience: Patience, start: Instant) -> Self {
        Self { patience, start, failures: AtomicU32::new(0), until: AtomicU64::new(0) }
    }

    /// Whether requests may go there freely.
    pub(super) fn is_up(&self) -> bool {
        self.until.load(Ordering::Relaxed) == 0
    }

    /// Whether this caller is the one request that tries a member which was left alone long enough.
    /// Until it knows more, the others stay away for another while.
    pub(super) fn claim_trial(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0
            && self.millis(now) >= until
            && self
                .until
                .compare_exchange(until, self.later(now), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// A connection came about.
    pub(super) fn succeeded(&self) {
        // Read first: an unconditional store would move the cache line between cores each time.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// No connection came about. Answers true when the member is left alone from now on.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if self.patience.fail_after == 0 || failures < self.patience.fail_after {
            return false;
        }
        self.until.swap(self.later(now), Ordering::Relaxed) == 0
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    fn later(&self, now: Instant) -> u64 {
        self.millis(now + self.patience.retry_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const RETRY: Duration = Duration::from_secs(10);

    fn health(fail_after: u32) -> (Health, Instant) {
        let now = clock::now();
        (Health::new(Patience { fail_after, retry_after: RETRY }, now), now)
    }

    #[test]
    fn it_is_left_alone_after_so_many_failures_in_a_row() {
        let (health, now) = health(3);
        assert!(!health.failed(now) && !health.failed(now));
        health.succeeded();
        assert!(!health.failed(now) && !health.failed(now));
        assert!(health.is_up());
        assert!(health.failed(now));
        assert!(!health.is_up());
        assert!(!health.failed(now), "said once");
    }

    #[test]
    fn one_request_tries_it_again() {
        let (health, now) = health(1);
        health.failed(now);
        assert!(!health.claim_trial(now + RETRY / 2));
        let later = now + RETRY;
        assert!(health.claim_trial(later));
        assert!(!health.claim_trial(later), "only one");
        health.failed(later);
        assert!(!health.claim_trial(later + RETRY / 2));
        assert!(health.claim_trial(later + RETRY));
        health.succeeded();
        assert!(health.is_up());
    }

    #[test]
    fn a_trial_that_is_never_heard_of_again_is_repeated() {
        let (health, now) = health(1);
        health.failed(now);
        assert!(health.claim_trial(now + RETRY));
        assert!(health.claim_trial(now + RETRY * 2));
    }

    #[test]
    fn zero_means_never() {
        let (health, now) = health(0);
        (0..100).for_each(|_| assert!(!health.failed(now)));
        assert!(health.is_up());
    }
}
