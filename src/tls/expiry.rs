//! When an operator is to hear that a certificate ends: 30, 7 and 1 day before, and when it has ended.

use std::time::{Duration, SystemTime};

use super::x509::CertificateFacts;

const DAY: Duration = Duration::from_hours(24);

/// How long before the end of a certificate it is said that it ends, the longest first. Certificates that live for days
/// are renewed in hours: at most a third, a twelfth and a twenty-fourth of the lifetime. Of the usual 90 days these are
/// no less than 30, 7 and 1.
#[must_use]
pub fn notices(facts: &CertificateFacts) -> [Duration; 3] {
    let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
    [(30 * DAY).min(life / 3), (7 * DAY).min(life / 12), DAY.min(life / 24)]
}

/// Whether it is time to renew at `now`.
#[must_use]
pub fn is_soon(facts: &CertificateFacts, now: SystemTime) -> bool {
    facts.not_after.duration_since(now).unwrap_or_default() < notices(facts)[0]
}

/// How urgent an end is that has come nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// 30 or 7 days.
    Soon,
    /// A day.
    Tomorrow,
    /// It has ended.
    Over,
}

/// Whether the end of a certificate has come past one of its notices in the time after `before`, up to `now`. A
/// machine that slept over several of them hears the most urgent one.
#[must_use]
pub fn passed(facts: &CertificateFacts, before: SystemTime, now: SystemTime) -> Option<Urgency> {
    let [month, week, day] = notices(facts);
    let at = |ahead: Duration| facts.not_after.checked_sub(ahead).unwrap_or(SystemTime::UNIX_EPOCH);
    let steps = [
        (at(Duration::ZERO), Urgency::Over),
        (at(day), Urgency::Tomorrow),
        (at(week), Urgency::Soon),
        (at(month), Urgency::Soon),
    ];
    steps.into_iter().find(|(at, _)| before < *at && *at <= now).map(|(_, urgency)| urgency)
}

/// How much time is left, in words: `42 days`, `5 hours`, `nothing`.
#[must_use]
pub fn left(until: SystemTime, now: SystemTime) -> String {
    let left = until.duration_since(now).unwrap_or_default().as_secs();
    let (count, word) = match left {
        0 => return "nothing".to_owned(),
        1..172_800 => (left / 3600, "hour"),
        _ => (left / 86_400, "day"),
    };
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::tls::throw_away;

    fn facts(days: u32) -> CertificateFacts {
        let mut facts = throw_away(&["www.example.org"], clock::wall()).unwrap().facts.clone();
        facts.not_after = facts.not_before + days * DAY;
        facts
    }

    #[test]
    fn every_notice_is_given_once() {
        let facts = facts(90);
        let mut told = Vec::new();
        let mut before = facts.not_before;
        for hour in 1..=(91 * 24) {
            let now = facts.not_before + Duration::from_hours(hour);
            if let Some(urgency) = passed(&facts, before, now) {
                told.push((hour, urgency));
            }
            before = now;
        }
        let hours = |days_left: u64| (90 - days_left) * 24;
        let wanted = [
            (hours(30), Urgency::Soon),
            (hours(7), Urgency::Soon),
            (hours(1), Urgency::Tomorrow),
            (hours(0), Urgency::Over),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn whoever_slept_hears_the_worst_and_short_lives_are_not_always_ending() {
        let long = facts(90);
        assert_eq!(passed(&long, long.not_before, long.not_after), Some(Urgency::Over));
        assert_eq!(passed(&long, long.not_before, long.not_after - DAY), Some(Urgency::Tomorrow));
        let short = facts(6);
        assert_eq!(notices(&short), [2 * DAY, DAY / 2, DAY / 4]);
        assert!(!is_soon(&short, short.not_before + 3 * DAY) && is_soon(&short, short.not_before + 5 * DAY));
        assert_eq!(left(short.not_after, short.not_after - 5 * DAY), "5 days");
        assert_eq!(left(short.not_after, short.not_after - DAY), "24 hours");
        assert_eq!(left(short.not_after, short.not_after + DAY), "nothing");
    }
}
