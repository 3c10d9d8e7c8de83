//! The only caller of `now`. Everything else takes time as an argument.

use std::time::{Instant, SystemTime};

/// Monotonic time, for durations and deadlines.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for log lines and certificate dates.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
