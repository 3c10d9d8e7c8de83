//! When an operator is to hear that a certificate ends: 30, 7 and 1 day before, and when it has ended.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::x509::{CertificateFacts, date};

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
    /// 30 days: what renews itself does so about now.
    Early,
    /// 7 days.
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
        (at(month), Urgency::Early),
    ];
    steps.into_iter().find(|(at, _)| before < *at && *at <= now).map(|(_, urgency)| urgency)
}

/// What is said of a certificate that an operator looks after, in this file, when [`passed`] says that it is time.
#[must_use]
pub fn of_a_file(
    file: &Path,
    facts: &CertificateFacts,
    before: SystemTime,
    now: SystemTime,
) -> Option<(Urgency, String)> {
    let urgency = passed(facts, before, now)?;
    let what = format!("the certificate in {} for `{}`", file.display(), facts.subject);
    let (left, until) = (left(facts.not_after, now), date(facts.not_after));
    let said = match urgency {
        Urgency::Early | Urgency::Soon => format!("{what} expires in {left}, on {until}: renew it"),
        Urgency::Tomorrow => format!("{what} expires in {left}, on {until}: renew it now"),
        Urgency::Over => format!("{what} expired on {until}: browsers refuse the site"),
    };
    Some((urgency, said))
}

/// The same of one that comes by ACME for `name`. At the first notice it is renewed anyway, and nobody need hear of it.
#[must_use]
pub fn of_acme(
    name: &str,
    facts: &CertificateFacts,
    before: SystemTime,
    now: SystemTime,
) -> Option<(Urgency, String)> {
    let urgency = passed(facts, before, now).filter(|urgency| *urgency != Urgency::Early)?;
    let (left, until) = (left(facts.not_after, now), date(facts.not_after));
    let end = match urgency {
        Urgency::Over => format!("expired on {until}: browsers refuse the site"),
        _ => format!("expires in {left}, on {until}"),
    };
    let said = format!(
        "the certificate by ACME for `{name}` {end}. It renews itself and has not: `no certificate from this CA` above says why"
    );
    Some((urgency, said))
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
            (hours(30), Urgency::Early),
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

    #[test]
    fn what_is_said_fits_whoever_renews_it() {
        let facts = facts(90);
        let told = |days: u32, acme: bool| {
            let now = facts.not_after - days * DAY;
            let before = now - Duration::from_mins(1);
            let said = if acme {
                of_acme("www.example.org", &facts, before, now)
            } else {
                of_a_file(Path::new("/etc/www.pem"), &facts, before, now)
            };
            said.map(|(urgency, said)| (urgency, said.replace(&date(facts.not_after), "DATE")))
        };
        let file =
            |days| told(days, false).map(|(urgency, said)| (urgency, said.replace(&*facts.subject, "WWW")));
        let in_file = "the certificate in /etc/www.pem for `WWW`";
        let wanted = |urgency, end: &str| Some((urgency, format!("{in_file} {end}")));
        assert_eq!(file(30), wanted(Urgency::Early, "expires in 30 days, on DATE: renew it"));
        assert_eq!(file(7), wanted(Urgency::Soon, "expires in 7 days, on DATE: renew it"));
        assert_eq!(file(1), wanted(Urgency::Tomorrow, "expires in 24 hours, on DATE: renew it now"));
        assert_eq!(file(0), wanted(Urgency::Over, "expired on DATE: browsers refuse the site"));
        assert_eq!(told(30, true), None, "it is renewed about now");
        let acme = |days| told(days, true).unwrap();
        let (urgency, said) = acme(7);
        assert_eq!(urgency, Urgency::Soon);
        let wanted = "the certificate by ACME for `www.example.org` expires in 7 days, on DATE. It renews itself and has not: \
                      `no certificate from this CA` above says why";
        assert_eq!(said, wanted);
        assert_eq!(acme(1).0, Urgency::Tomorrow);
        assert!(
            acme(0).1.contains("expired on DATE: browsers refuse the site. It renews itself and has not")
        );
    }
}
