//! What a service manager is told (systemd's `sd_notify`): ready, reloading, stopping, still alive.
//!
//! Nothing happens where no manager asked for it (`NOTIFY_SOCKET` is not set). A manager that cannot be told is
//! no reason to stop serving.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Connections are taken: units that wait for this one may start.
pub fn ready(generation: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving generation {generation}"))]);
}

/// The configuration is read again; [`ready`] follows, whether it changed anything or not.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// This process has handed its work over to the one with this id, which serves: from now on the manager listens to
/// that one. Said by the old one, because a manager hears nobody but the main process.
pub fn handed_over(process: u32) {
    tell(&[
        NotifyState::MainPid(process),
        NotifyState::Ready,
        NotifyState::Status(&format!("serving, upgraded to process {process}")),
    ]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: what is under way may finish")]);
}

/// All threads turn round.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be said: half of the unit's `WatchdogSec`, so that one may be late. None if nobody
/// watches.
#[must_use]
pub fn watched() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(Duration::from_millis(100)))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// When each worker last came round: a worker that hangs is seen although the others serve.
#[derive(Debug)]
pub struct Heartbeats {
    since: Instant,
    beats: Box<[AtomicU64]>,
}

impl Heartbeats {
    /// Of so many workers, all of them alive at `now`.
    #[must_use]
    pub fn new(workers: usize, now: Instant) -> Self {
        Self { since: now, beats: (0..workers).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The worker with this number came round.
    pub fn beat(&self, worker: usize, now: Instant) {
        if let Some(beat) = self.beats.get(worker) {
            beat.store(self.after(now), Ordering::Relaxed);
        }
    }

    /// How long ago the one came round who did so longest ago.
    #[must_use]
    pub fn longest(&self, now: Instant) -> Duration {
        let oldest = self.beats.iter().map(|beat| beat.load(Ordering::Relaxed)).min().unwrap_or_default();
        Duration::from_millis(self.after(now).saturating_sub(oldest))
    }

    fn after(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_slowest_worker_counts() {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let hearts = Heartbeats::new(2, start);
        hearts.beat(0, at(9));
        assert_eq!(hearts.longest(at(10)), Duration::from_secs(10), "the other one never came round");
        hearts.beat(1, at(8));
        assert_eq!(hearts.longest(at(10)), Duration::from_secs(2));
        hearts.beat(7, at(10));
        assert_eq!(hearts.longest(at(10)), Duration::from_secs(2), "there is no such worker");
    }
}
