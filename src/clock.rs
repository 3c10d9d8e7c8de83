//! The only caller of `now`. Everything else takes time as an argument.

use std::time::{Duration, Instant, SystemTime};

/// Monotonic time, for durations and deadlines. It is the time of the runtime's timers: the same clock, and
/// in a simulation the same that stands still.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall-clock time, for log lines and certificate dates.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970: wall-clock time for what outlives the process, such as bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// That much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier`; nothing if it is not.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// How far from `other`, on whichever side: what is far in the future comes from a clock that was set back, and is
    /// worth no more than what is as far in the past.
    #[must_use]
    pub fn apart(self, other: Millis) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

impl From<SystemTime> for Millis {
    fn from(time: SystemTime) -> Self {
        Self(0).plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Millis> for SystemTime {
    fn from(time: Millis) -> Self {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(time.0)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Wall-clock time in milliseconds.
#[must_use]
pub fn millis() -> Millis {
    wall().into()
}
