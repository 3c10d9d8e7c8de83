//! Whether a client is locked out: the first thing that is asked once it is known.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::ledger::Ledger;
use super::policy::Policy;
use super::rate::{Asked, Meters, Rate};
use super::{Ban, SiteId, Subject, UserId};
use crate::client::key::Key;
use crate::clock::Millis;
use crate::config::units::Mode;
use crate::gate::is_enforced;
use crate::refusal::{Reason, Refusal};

/// What is remembered of clients, and when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// Failures, bans, and who logged in.
    pub ledger: &'a Ledger,
    /// Where every client stands with the limits on how often it may ask.
    pub meters: &'a Meters,
    /// The time, for bans.
    pub now: Millis,
    /// The same, for limits.
    pub instant: Instant,
}

/// Who asks, and which site.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The address.
    pub addr: IpAddr,
    /// What it counts as.
    pub client: Key,
    /// The site.
    pub site: SiteId,
}

/// The ban that this client meets here whatever it asks for, if any, as a refusal and with the mode of its jail: of
/// several, one that is enforced before others, and then the one that lasts longest.
///
/// Who guesses behind an address where somebody is at work locks out logins, and nobody's work: an address that was
/// seen to log in meets bans by failed logins in [`check_try`] only.
#[must_use]
pub fn check(policy: &Policy, memory: &Memory<'_>, who: &Who) -> Option<(Mode, Refusal)> {
    let ban = met(policy, memory, who, |_| true)?;
    let spared = policy.is_about_logins(&ban.jail) && memory.ledger.knows(who.client, who.site, memory.now);
    let others = |ban: &Ban| !policy.is_about_logins(&ban.jail);
    let ban = if spared { met(policy, memory, who, others)? } else { ban };
    Some((policy.mode_of(&ban.jail), refusal(&ban, Reason::Banned, memory.now)))
}

/// The ban that a try to log in meets: no address is spared. Says too whether the rest of what its client asks for is.
#[must_use]
pub fn check_try(policy: &Policy, memory: &Memory<'_>, who: &Who) -> Option<(Mode, Refusal, bool)> {
    let ban = met(policy, memory, who, |_| true)?;
    let (mode, refusal) = (policy.mode_of(&ban.jail), refusal(&ban, Reason::Banned, memory.now));
    if check(policy, memory, who).is_some() {
        return Some((mode, refusal, false));
    }
    // Nothing is held or cut off: the connection may carry what others are at work on.
    Some((mode, refusal.said(super::Action::Refuse), true))
}

fn met(policy: &Policy, memory: &Memory<'_>, who: &Who, counts: impl Fn(&Ban) -> bool) -> Option<Ban> {
    if memory.ledger.is_empty() || policy.ignores(who.addr) {
        return None;
    }
    let strength = |ban: &Ban| (policy.mode_of(&ban.jail), ban.until);
    let counts = |ban: &Ban| ban.bars_pages() && ban.covers(who.site) && counts(ban);
    memory.ledger.strongest(Subject::Client(who.client), memory.now, counts, strength)
}

/// What the door asks of a connection before a byte of it is read: whether its client is locked out of everything.
#[derive(Clone, Debug)]
pub struct Barred {
    ledger: Arc<Ledger>,
    policy: Arc<Policy>,
    mode: Mode,
}

impl Barred {
    /// By the bans of `ledger`, where `mode` is that of the rule at the top of the file.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>, policy: &Arc<Policy>, mode: Mode) -> Self {
        Self { ledger: Arc::clone(ledger), policy: Arc::clone(policy), mode }
    }

    /// Whether this client gets no connection.
    #[must_use]
    pub fn bars(&self, addr: IpAddr, client: Key, now: Millis) -> bool {
        if self.ledger.is_empty() || self.policy.ignores(addr) {
            return false;
        }
        let bars = |ban: &Ban| {
            ban.site.is_none()
                && ban.bars_pages()
                && is_enforced(client.draw(), self.mode.min(self.policy.mode_of(&ban.jail)))
        };
        let spared = |ban: &Ban| self.policy.is_about_logins(&ban.jail);
        let found = |counts: &dyn Fn(&Ban) -> bool| {
            self.ledger.find(Subject::Client(client), now, |ban| bars(ban) && counts(ban)).is_some()
        };
        // Which site is asked is not known yet: there, only those are spared who are known to it.
        found(&|_| true) && (!self.ledger.knows_somewhere(client, now) || found(&|ban| !spared(ban)))
    }
}

/// The refusal of an attempt to log in with a user name that is banned, if it is; with the mode of its jail.
#[must_use]
pub fn check_user(
    policy: &Policy,
    ledger: &Ledger,
    user: UserId,
    site: SiteId,
    now: Millis,
) -> Option<(Mode, Refusal)> {
    let ban = ledger.user_banned(user, site, now)?;
    let refusal = refusal(&ban, Reason::LoginRateLimited, now).said(super::Action::Refuse);
    Some((policy.mode_of(&ban.jail), refusal))
}

/// The refusal of an attempt to log in that a page of another site had the client's browser send, if there were too many;
/// with the mode of its jail.
#[must_use]
pub fn check_cross_site(
    policy: &Policy,
    ledger: &Ledger,
    client: Key,
    site: SiteId,
    now: Millis,
) -> Option<(Mode, Refusal)> {
    check_jail(policy, ledger, (client, Ban::CROSS_SITE), site, now)
}

/// The refusal of an attempt to log in from an IPv6 network that had too many failures, over all clients in it; with the
/// mode of its jail.
#[must_use]
pub fn check_network(
    policy: &Policy,
    ledger: &Ledger,
    addr: IpAddr,
    site: SiteId,
    now: Millis,
) -> Option<(Mode, Refusal)> {
    if policy.ignores(addr) {
        return None;
    }
    let (_, network) = policy.network(addr)?;
    check_jail(policy, ledger, (network, Ban::NETWORK), site, now)
}

fn check_jail(
    policy: &Policy,
    ledger: &Ledger,
    (client, jail): (Key, &str),
    site: SiteId,
    now: Millis,
) -> Option<(Mode, Refusal)> {
    let counts = |ban: &Ban| &*ban.jail == jail && ban.covers(site);
    let ban = ledger.find(Subject::Client(client), now, counts)?;
    Some((
        policy.mode_of(&ban.jail),
        refusal(&ban, Reason::LoginRateLimited, now).said(super::Action::Refuse),
    ))
}

fn refusal(ban: &Ban, reason: Reason, now: Millis) -> Refusal {
    let left = ban.left(now);
    let detail = format!(
        "{} by jail `{}` ({}): {} failures, level {}, {} s left",
        ban.subject,
        ban.jail,
        ban.why,
        ban.failures,
        ban.level,
        left.as_secs()
    );
    Refusal::new(reason, detail).retry_after(left).said(ban.action)
}

impl Rate {
    /// Whether a client asks too often by this limit.
    ///
    /// # Errors
    /// When it does; the request then counts for nothing.
    pub fn check(&self, memory: &Memory<'_>, client: Key, asked: &Asked<'_>) -> Result<(), Refusal> {
        self.ask(memory.meters, client, asked, memory.instant).map_or(Ok(()), |wait| Err(self.refusal(wait)))
    }
}
