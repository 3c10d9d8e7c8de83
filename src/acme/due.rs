//! When a certificate is renewed, and when a failed order is tried again. Pure arithmetic.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime};

use super::client::LONGEST;
use crate::clock::Millis;

/// How long to wait after the first failure, and at most. Let's Encrypt allows five failed validations of a name in an
/// hour.
const REST: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(12));
/// A CA that says `rateLimited` is left alone for this long at least.
const RATE_LIMITED: Duration = Duration::from_hours(1);
/// So much of a lifetime, in percent, is the earliest of the renewals that were moved apart.
const SPREAD: u32 = 3;

/// A number from 0 to 999 that is always the same for a name: certificates that were issued together are not renewed
/// together.
#[must_use]
pub fn draw(name: &str) -> u32 {
    let mut hash = DefaultHasher::new();
    name.hash(&mut hash);
    u32::try_from(hash.finish() % 1000).unwrap_or_default()
}

/// When a certificate is renewed: after `percent` of its lifetime, and up to three percent of it earlier. What lives for
/// six days and what lives for ninety are treated alike.
#[must_use]
pub fn renewal(not_before: SystemTime, not_after: SystemTime, percent: u32, draw: u32) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life / 100 * percent - life / 100_000 * (SPREAD * draw)
}

/// The time in the window that the CA suggests (RFC 9773 section 4.2), but never so late that nine tenths of the lifetime
/// have passed.
#[must_use]
pub fn suggested(
    (start, end): (SystemTime, SystemTime),
    (not_before, not_after): (SystemTime, SystemTime),
    draw: u32,
) -> SystemTime {
    let window = end.duration_since(start).unwrap_or_default();
    (start + window / 1000 * draw).min(renewal(not_before, not_after, 90, 0))
}

/// How long to wait after so many failures in a row: twice as long each time, up to twelve hours, and up to a fifth less.
#[must_use]
pub fn rest(failures: u32, rate_limited: bool, draw: u32) -> Duration {
    let whole = REST.0.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(REST.1);
    let whole = if rate_limited { whole.max(RATE_LIMITED) } else { whole };
    if rate_limited { whole + whole / 5000 * draw } else { whole.saturating_sub(whole / 5000 * draw) }
}

/// Directories of CAs, and until when they want to be left alone, milliseconds since 1970.
pub type Barred = HashMap<String, u64>;

/// Those that are still to be left alone at `now`. A time further away than anybody may ask for was written by a clock that
/// was wrong.
#[must_use]
pub fn still_barred(mut barred: Barred, now: Millis) -> Barred {
    barred.retain(|_, until| now.0 < *until && *until <= now.plus(LONGEST).0);
    barred
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_lives_shorter_is_renewed_sooner() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |days| renewal(start, start + DAY * days, 66, 0).duration_since(start).unwrap();
        assert!(at(90) > DAY * 59 && at(90) < DAY * 60);
        assert!(at(6) > Duration::from_hours(95) && at(6) < Duration::from_hours(96), "a third is left");
        assert!(renewal(start, start + DAY * 90, 66, 999) < start + at(90) - DAY * 2, "not all at once");
    }

    #[test]
    fn the_window_of_the_ca_is_kept_unless_it_is_too_late() {
        let start = SystemTime::UNIX_EPOCH;
        let life = (start, start + DAY * 90);
        assert_eq!(suggested((start + DAY * 10, start + DAY * 20), life, 500), start + DAY * 15);
        assert_eq!(suggested((start + DAY * 20, start + DAY * 10), life, 500), start + DAY * 20);
        assert_eq!(suggested((start + DAY * 200, start + DAY * 300), life, 0), start + DAY * 81);
    }

    #[test]
    fn rests_double_and_end_at_half_a_day() {
        assert_eq!(rest(1, false, 0), Duration::from_mins(1));
        assert_eq!(rest(3, false, 0), Duration::from_mins(4));
        assert_eq!(rest(99, false, 0), Duration::from_hours(12));
        assert_eq!(rest(1, true, 0), Duration::from_hours(1));
        assert!(rest(1, true, 999) > Duration::from_hours(1), "never before the CA wants it");
    }

    #[test]
    fn who_wants_to_be_left_alone_is_until_then_and_no_wrong_clock_bars_for_ever() {
        let now = Millis(1_000_000_000_000);
        let barred = |until: Millis| still_barred(Barred::from([("ca".to_owned(), until.0)]), now).len();
        assert_eq!(barred(now.plus(Duration::from_secs(1))), 1);
        assert_eq!(barred(now), 0);
        assert_eq!(barred(now.plus(LONGEST + Duration::from_secs(1))), 0);
    }

    #[test]
    fn a_certificate_of_the_future_is_not_due_and_of_the_past_it_is() {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let at = |from: SystemTime| renewal(from, from + DAY * 90, 66, draw("www.example.org"));
        assert!(at(now + Duration::from_mins(5)) > now, "the clock of the CA is ahead");
        assert!(at(now + DAY * 365) > now, "or ours is a year behind");
        assert!(at(now - DAY * 365) < now, "ours is a year ahead: due on arrival, which is said");
        let window = (now - DAY * 365, now - DAY * 364);
        assert!(suggested(window, (now, now + DAY * 90), 500) < now, "a window that has passed means now");
    }

    proptest! {
        #[test]
        fn a_renewal_lies_within_the_lifetime(life in 1u64..40_000_000, percent in 10u32..=90, name in ".*") {
            let start = SystemTime::UNIX_EPOCH + DAY;
            let end = start + Duration::from_secs(life);
            let at = renewal(start, end, percent, draw(&name));
            prop_assert!(start <= at && at < end);
        }
    }
}
