//! The only caller of `now`. Everything else takes time as an argument.

use std::time::{Instant, SystemTime};

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
