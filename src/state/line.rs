//! What happened, as one line of text: how it is kept in a file or a store, and told to other replicas.
//!
//! Fields are separated by tabs; in texts, tab, line break and backslash are escaped. A line that says more than is
//! known here is understood as far as it is: replicas of two versions may share a store.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crate::bans::{Action, Ban, Change, SessionId, SiteId, Subject, Tally, UserId};
use crate::client::key::{Key, Prefix};
use crate::clock::Millis;

/// The longest line that is read. Names and reasons are a line of a configuration or a sentence.
pub const LONGEST: usize = 4 << 10;
/// As much of a reason is kept.
const TEXT_MAX: usize = 512;

/// `192.0.2.1`, `2001:db8::` or `user:0123456789abcdef`.
#[must_use]
pub fn subject(subject: Subject) -> String {
    subject.to_string()
}

/// The number of a site in hexadecimal; `*` is every site.
#[must_use]
pub fn site(site: Option<SiteId>) -> String {
    site.map_or_else(|| "*".to_owned(), |site| format!("{:016x}", site.0))
}

/// A text without what separates.
#[must_use]
pub fn text(text: &str) -> String {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut out = String::with_capacity(end);
    for c in text.get(..end).unwrap_or_default().chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

/// A ban: `subject jail site since until level failures action why`.
#[must_use]
pub fn ban(ban: &Ban) -> String {
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        subject(ban.subject),
        text(&ban.jail),
        site(ban.site),
        ban.since.0,
        ban.until.0,
        ban.level,
        ban.failures,
        ban.action.word(),
        text(&ban.why)
    )
}

/// Whose failures, in which jail: `subject jail-number site`.
#[must_use]
pub fn tally(tally: &Tally) -> String {
    format!("{}\t{:016x}\t{}", subject(tally.subject), tally.jail, site(tally.site))
}

/// The number of a user name; `-` if none is known.
#[must_use]
pub fn name(user: Option<UserId>) -> String {
    user.map_or_else(|| "-".to_owned(), |user| format!("{:016x}", user.0))
}

/// Anything that happened: its kind, then its fields.
#[must_use]
pub fn change(change: &Change) -> String {
    let mut out = String::new();
    match change {
        Change::Banned(made) => {
            let _ = write!(out, "banned\t{}", ban(made));
        }
        Change::Lifted { subject: whose, site: from, jail } => {
            let jail = jail.as_ref().map_or_else(|| "*".to_owned(), |jail| text(jail));
            let _ = write!(out, "lifted\t{}\t{jail}\t{}", subject(*whose), site(*from));
        }
        Change::Struck(counted, _) => {
            let find_time = counted.find_time.as_millis();
            let user = name(counted.user);
            let _ = write!(out, "struck\t{}\t{}\t{find_time}\t{user}", tally(counted), counted.at.0);
        }
        Change::Forgiven(counted) => {
            let user = name(counted.user);
            let _ = write!(out, "forgiven\t{}\t{}\t0\t{user}", tally(counted), counted.at.0);
        }
        Change::Began { client, site: at_site, session, at } => {
            let (site, session) = (site(Some(*at_site)), session.0);
            let _ = write!(out, "began\t{}\t{site}\t{session:016x}\t{}", client.addr(), at.0);
        }
        Change::LoggedIn { client, site: at_site, at, work } => {
            let _ = write!(out, "login\t{}\t{}\t{}", client.addr(), site(Some(*at_site)), at.0);
            if let Some((session, began)) = work {
                let _ = write!(out, "\t{:016x}\t{}", session.0, began.0);
            }
        }
        Change::Flushed => out.push_str("flushed"),
        Change::Granted { net, until } => {
            let _ = write!(out, "granted\t{net}\t{}", until.0);
        }
    }
    out
}

/// Reads what [`change`] wrote; none if it is anything else.
#[must_use]
pub fn read(line: &str) -> Option<Change> {
    if line.len() > LONGEST {
        return None;
    }
    let (kind, rest) = line.split_once('\t').unwrap_or((line, ""));
    let mut fields = rest.split('\t');
    Some(match kind {
        "banned" => Change::Banned(read_ban(rest)?),
        "lifted" => {
            let subject = read_subject(fields.next()?)?;
            let jail = fields.next().filter(|jail| *jail != "*").map(|jail| read_text(jail).into());
            Change::Lifted { subject, site: read_site(fields.next()?)?, jail }
        }
        "struck" => Change::Struck(read_tally(&mut fields)?, None),
        "forgiven" => Change::Forgiven(read_tally(&mut fields)?),
        "began" => Change::Began {
            client: read_client(fields.next()?)?,
            site: read_site(fields.next()?)??,
            session: read_session(fields.next()?)?,
            at: read_time(fields.next()?)?,
        },
        "login" => Change::LoggedIn {
            client: read_client(fields.next()?)?,
            site: read_site(fields.next()?)??,
            at: read_time(fields.next()?)?,
            work: fields.next().and_then(read_session).zip(fields.next().and_then(read_time)),
        },
        "flushed" => Change::Flushed,
        "granted" => Change::Granted { net: fields.next()?.parse().ok()?, until: read_time(fields.next()?)? },
        _ => return None,
    })
}

fn read_session(text: &str) -> Option<SessionId> {
    u64::from_str_radix(text, 16).ok().map(SessionId)
}

/// Reads what [`ban`] wrote.
#[must_use]
pub fn read_ban(line: &str) -> Option<Ban> {
    let mut fields = line.split('\t');
    Some(Ban {
        subject: read_subject(fields.next()?)?,
        jail: read_text(fields.next()?).into(),
        site: read_site(fields.next()?)?,
        since: read_time(fields.next()?)?,
        until: read_time(fields.next()?)?,
        level: fields.next()?.parse().ok()?,
        failures: fields.next()?.parse().ok()?,
        action: read_action(fields.next()?),
        why: read_text(fields.next()?).into(),
    })
}

fn read_tally<'l>(fields: &mut impl Iterator<Item = &'l str>) -> Option<Tally> {
    Some(Tally {
        subject: read_subject(fields.next()?)?,
        jail: u64::from_str_radix(fields.next()?, 16).ok()?,
        site: read_site(fields.next()?)?,
        at: read_time(fields.next()?)?,
        find_time: Duration::from_millis(fields.next()?.parse().ok()?),
        // Versions before this one end here.
        user: fields.next().and_then(|hash| u64::from_str_radix(hash, 16).ok()).map(UserId),
    })
}

fn read_subject(text: &str) -> Option<Subject> {
    match text.strip_prefix("user:") {
        Some(hash) => u64::from_str_radix(hash, 16).ok().map(UserId).map(Subject::User),
        None => read_client(text).map(Subject::Client),
    }
}

/// The network was cut to its prefix when the line was written.
fn read_client(text: &str) -> Option<Key> {
    let addr: IpAddr = text.parse().ok()?;
    Some(Key::new(addr, Prefix::new(128)?))
}

/// Some none is every site.
#[expect(clippy::option_option, reason = "a field that cannot be read is not the same as every site")]
fn read_site(text: &str) -> Option<Option<SiteId>> {
    match text {
        "*" => Some(None),
        number => u64::from_str_radix(number, 16).ok().map(SiteId).map(Some),
    }
}

fn read_time(text: &str) -> Option<Millis> {
    text.parse().ok().map(Millis)
}

/// An action of a later version is a refusal here.
fn read_action(word: &str) -> Action {
    let known = [Action::Refuse, Action::Tarpit, Action::Drop];
    known.into_iter().find(|action| action.word() == word).unwrap_or_default()
}

fn read_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_subject() -> impl Strategy<Value = Subject> {
        prop_oneof![
            any::<IpAddr>().prop_map(|ip| Subject::Client(Key::new(ip, Prefix::default()))),
            any::<u64>().prop_map(|hash| Subject::User(UserId(hash))),
        ]
    }

    fn any_site() -> impl Strategy<Value = Option<SiteId>> {
        proptest::option::of(any::<u64>().prop_map(SiteId))
    }

    fn any_ban() -> impl Strategy<Value = Ban> {
        let action = prop_oneof![Just(Action::Refuse), Just(Action::Tarpit), Just(Action::Drop)];
        let times = (any::<u64>(), any::<u64>());
        let texts = (".{0,40}", ".{0,40}");
        (any_subject(), any_site(), texts, times, any::<u8>(), any::<u32>(), action).prop_map(
            |(subject, site, (jail, why), (since, until), level, failures, action)| Ban {
                subject,
                site,
                jail: jail.into(),
                since: Millis(since),
                until: Millis(until),
                level,
                failures,
                action,
                why: why.into(),
            },
        )
    }

    fn any_tally() -> impl Strategy<Value = Tally> {
        let user = proptest::option::of(any::<u64>().prop_map(UserId));
        (any::<u64>(), any_subject(), any_site(), user, any::<u64>(), any::<u64>()).prop_map(
            |(jail, subject, site, user, at, find)| Tally {
                user,
                jail,
                subject,
                site,
                at: Millis(at),
                find_time: Duration::from_millis(find),
            },
        )
    }

    fn any_change() -> impl Strategy<Value = Change> {
        // A jail cannot be called `*`, which means any.
        let jail = proptest::option::of("[^*].{0,20}".prop_map(Into::into));
        prop_oneof![
            any_ban().prop_map(Change::Banned),
            (any_subject(), any_site(), jail).prop_map(|(subject, site, jail)| Change::Lifted {
                subject,
                site,
                jail
            }),
            any_tally().prop_map(|tally| Change::Struck(tally, None)),
            any_tally().prop_map(|tally| Change::Forgiven(Tally { find_time: Duration::ZERO, ..tally })),
            (any::<IpAddr>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(ip, site, at, told)| {
                Change::LoggedIn {
                    client: Key::new(ip, Prefix::default()),
                    site: SiteId(site),
                    at: Millis(at),
                    work: told.then_some((SessionId(!site), Millis(at / 2))),
                }
            }),
            (any::<IpAddr>(), any::<u64>(), any::<u64>()).prop_map(|(ip, number, at)| Change::Began {
                client: Key::new(ip, Prefix::default()),
                site: SiteId(number),
                session: SessionId(!number),
                at: Millis(at),
            }),
            Just(Change::Flushed),
            (any::<IpAddr>(), 0_u8..=32, any::<u64>()).prop_map(|(ip, bits, until)| Change::Granted {
                net: ipnet::IpNet::new(ip, bits).unwrap(),
                until: Millis(until),
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(made in any_change()) {
            let line = change(&made);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(read(&line), Some(made.clone()));
            prop_assert_eq!(read(&format!("{line}\tfrom a later version")), Some(made));
        }

        #[test]
        fn nothing_that_is_sent_makes_it_panic(line in "(banned|lifted|struck|began|login|granted)?\t?[0-9a-f.:*\t\\\\]{0,80}.{0,20}") {
            let _ = read(&line);
        }
    }

    #[test]
    fn what_is_no_line_is_none() {
        for line in ["", "banned", "banned\t192.0.2.1", "lifted\tnobody\t*\t*", "sold\t1", "login\t::1\t*\t5"]
        {
            assert_eq!(read(line), None, "{line:?}");
        }
        assert_eq!(read(&format!("flushed\t{}", "x".repeat(LONGEST))), None);
    }

    #[test]
    fn a_reason_has_an_end() {
        assert_eq!(text(&"é".repeat(TEXT_MAX)).len(), TEXT_MAX);
    }
}
