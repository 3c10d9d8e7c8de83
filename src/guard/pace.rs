//! Does a request body come fast enough, and end before its limit? Sans-IO: time is an argument.
//!
//! Only the time spent waiting for the client counts. While the origin is slow to take what came, nobody
//! reads from the client, and that is not the client's fault.

use std::time::{Duration, Instant};

use super::size::too_large;
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::Size;
use crate::refusal::{Reason, Refusal};

/// What `[limits]` says about slow bodies.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    idle: Option<Placed<Text<Duration>>>,
    rate: Option<Placed<Text<Size>>>,
}

/// How slowly a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The longest wait for the next byte.
    pub idle: Duration,
    /// Bytes per second, averaged over all the waiting, once [`GRACE`] is over. Zero asks for none.
    pub rate: u64,
}

/// How long a client may take before its rate is looked at.
pub const GRACE: Duration = Duration::from_secs(10);

impl Default for Policy {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), rate: 500 }
    }
}

impl Raw {
    /// Reads `body_idle` and `body_rate` from the section `[limits]`; the caller, who shares it among
    /// rooms, closes it.
    pub fn read(limits: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { idle: limits.get(reading, "body_idle"), rate: limits.get(reading, "body_rate") }
    }

    /// These limits with more specific ones laid over them.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { idle: specific.idle.or(self.idle), rate: specific.rate.or(self.rate) }
    }

    /// What was written, with the defaults for the rest.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let default = Policy::default();
        if let Some(idle) = self.idle.as_ref().filter(|idle| idle.value.0.is_zero()) {
            let hint = Some("write e.g. `body_idle = \"30 s\"`".to_owned());
            complaints.error(Some(&idle.place), "`limits.body_idle` is zero: no body could ever come", hint);
        }
        Policy {
            idle: self.idle.map_or(default.idle, |idle| idle.value.0),
            rate: self.rate.map_or(default.rate, |rate| rate.value.0.0),
        }
    }
}

/// Watches one request body. Tell it when the waiting begins and when bytes came.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    policy: Policy,
    limit: u64,
    counted: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Meter {
    /// Starts to watch a body of at most `limit` bytes.
    #[must_use]
    pub fn new(policy: Policy, limit: u64) -> Self {
        Self { policy, limit, counted: 0, waited: Duration::ZERO, waiting_since: None }
    }

    /// The client was asked for more and has nothing yet. Asking again while waiting changes nothing.
    pub fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Nobody asks the client for more until [`Meter::wait`]: what passes meanwhile is not its fault.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// `bytes` came. Refuses once there are more than the limit.
    pub fn came(&mut self, bytes: usize, now: Instant) -> Result<(), Refusal> {
        self.pause(now);
        self.counted = self.counted.saturating_add(bytes as u64);
        if self.counted > self.limit { Err(too_large(self.counted, self.limit)) } else { Ok(()) }
    }

    /// How many bytes came so far.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// When the waiting must be over at the latest; `None` while nobody waits for the client.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting_since?.checked_add(self.patience())
    }

    /// Refuses once the deadline has passed.
    pub fn check(&self, now: Instant) -> Result<(), Refusal> {
        match self.deadline() {
            Some(deadline) if now >= deadline => Err(self.too_slow(now)),
            _ => Ok(()),
        }
    }

    /// How long the wait under way may last: the idle limit, or until the average falls below the rate.
    fn patience(&self) -> Duration {
        let Some(earned) = self.counted.saturating_mul(1000).checked_div(self.policy.rate) else {
            return self.policy.idle;
        };
        let allowed = Duration::from_millis(earned).max(GRACE);
        allowed.saturating_sub(self.waited).min(self.policy.idle)
    }

    fn too_slow(&self, now: Instant) -> Refusal {
        let waited =
            self.waiting_since.map_or(self.waited, |s| self.waited + now.saturating_duration_since(s));
        let detail = format!("{} bytes of body in {} s of waiting", self.counted, waited.as_secs());
        Refusal::new(Reason::BodyTimeout, detail)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::testing;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter() -> (Meter, Instant) {
        (Meter::new(Policy::default(), 1 << 20), crate::clock::now())
    }

    #[test]
    fn the_limit_is_inclusive() {
        let now = crate::clock::now();
        let mut meter = Meter::new(Policy::default(), 10);
        assert!(meter.came(10, now).is_ok());
        assert_eq!(meter.came(1, now).unwrap_err().reason, Reason::BodyTooLarge);
        assert_eq!(meter.counted(), 11);
    }

    #[test]
    fn nothing_at_all_ends_when_the_grace_is_over() {
        let (mut meter, start) = meter();
        meter.wait(start);
        assert_eq!(meter.deadline(), Some(start + GRACE));
        assert!(meter.check(start + SECOND * 9).is_ok());
        assert_eq!(meter.check(start + GRACE).unwrap_err().reason, Reason::BodyTimeout);
    }

    #[test]
    fn asking_again_while_waiting_does_not_move_the_deadline() {
        let (mut meter, start) = meter();
        meter.wait(start);
        meter.wait(start + SECOND * 5);
        assert_eq!(meter.deadline(), Some(start + GRACE));
    }

    #[test]
    fn a_fast_start_that_stalls_ends_at_the_idle_limit() {
        let (mut meter, start) = meter();
        meter.wait(start);
        meter.came(1 << 19, start + SECOND).unwrap();
        meter.wait(start + SECOND);
        assert_eq!(meter.deadline(), Some(start + SECOND + Policy::default().idle));
    }

    #[test]
    fn a_trickle_ends_once_the_average_is_too_low() {
        // One byte every two seconds: the slow-body attack of slowhttptest.
        let (mut meter, start) = meter();
        let mut now = start;
        let ended = (0..60).find(|_| {
            meter.wait(now);
            now += SECOND * 2;
            meter.check(now).is_err() || meter.came(1, now).is_err()
        });
        assert!(ended.is_some() && now - start <= GRACE + SECOND * 2, "{:?}", now - start);
    }

    #[test]
    fn a_slow_but_honest_line_goes_on() {
        let (mut meter, start) = meter();
        let mut now = start;
        for _ in 0..300 {
            meter.wait(now);
            now += SECOND;
            assert!(meter.check(now).is_ok());
            meter.came(600, now).unwrap();
        }
    }

    #[test]
    fn a_slow_origin_is_not_the_clients_fault() {
        let (mut meter, start) = meter();
        meter.wait(start);
        meter.came(100, start + SECOND).unwrap();
        // Ten minutes in which nobody asks the client.
        let later = start + SECOND * 600;
        assert_eq!(meter.deadline(), None);
        assert!(meter.check(later).is_ok());
        meter.wait(later);
        assert!(meter.check(later + SECOND).is_ok());
    }

    #[test]
    fn who_reads_the_answer_and_is_not_asked_meanwhile_is_not_slow() {
        let (mut meter, start) = meter();
        meter.wait(start);
        meter.pause(start + SECOND);
        let later = start + SECOND * 600;
        assert!(meter.check(later).is_ok());
        meter.wait(later);
        assert_eq!(meter.deadline(), Some(later + SECOND * 9), "the second in which it was asked counts");
        meter.came(1, later + SECOND).unwrap();
        meter.wait(later + SECOND);
        assert_eq!(meter.deadline(), Some(later + SECOND * 9));
    }

    #[test]
    fn without_a_rate_only_the_idle_limit_holds() {
        let start = crate::clock::now();
        let mut meter = Meter::new(Policy { idle: SECOND * 30, rate: 0 }, 10);
        meter.wait(start);
        assert_eq!(meter.deadline(), Some(start + SECOND * 30));
    }

    #[test]
    fn the_limits_are_read() {
        let (raw, complaints) = testing::read("body_idle = \"5 s\"\nbody_rate = \"1 KiB\"", Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        let mut complaints = Complaints::default();
        assert_eq!(raw.compile(&mut complaints), Policy { idle: SECOND * 5, rate: 1024 });
        let (raw, _) = testing::read("body_idle = \"0 s\"", Raw::read);
        raw.compile(&mut complaints);
        assert!(complaints.has_errors());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever comes: the deadline is never later than the idle limit, and the refusal falls on it
        /// exactly.
        #[test]
        fn the_deadline_is_kept(steps in prop::collection::vec((0u64..40_000, 0usize..5_000), 1..20)) {
            let (mut meter, mut now) = meter();
            for (millis, bytes) in steps {
                meter.wait(now);
                let deadline = meter.deadline().unwrap();
                prop_assert!(deadline <= now + Policy::default().idle);
                now += Duration::from_millis(millis);
                prop_assert_eq!(meter.check(now).is_err(), now >= deadline);
                if meter.check(now).is_err() {
                    break;
                }
                let _ = meter.came(bytes, now);
            }
        }
    }
}
