//! What `[bans]`, `[[jail]]` and `[[rate]]` say: one reading for the whole process.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::jail::{Action, Jail, Reach};
use super::ledger::Bounds;
use super::rate::{self, Rate};
use super::watch::{self, Watch};
use super::{Ban, Culprit, SiteId, UserId};
use crate::client::cidr::NetSet;
use crate::client::key::{Key, Prefix};
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::{Mode, Size};

/// Failures with one user name, whoever tries it, until the name is banned, where `per_user = true`.
const USER_RETRY: u32 = 20;

/// How much of an IPv6 address is a network, bits: what providers give to a site (RFC 6177).
const NETWORK: u64 = 48;

/// The most failures that a jail counts.
const MOST_RETRY: u64 = 1_000;

/// A ledger below this holds a few thousand bans and would forget the attacker that it met last.
const LEAST_MEMORY: u64 = 1 << 20;

/// What was written.
#[derive(Debug, Default)]
pub struct Raw {
    terms: Terms,
    ignore: Option<Vec<Placed<Text<IpNet>>>>,
    per_user: Option<Placed<bool>>,
    ipv6_network: Option<Placed<u64>>,
    network_retry: Option<Placed<u64>>,
    tarpit: Option<Placed<u64>>,
    tarpit_time: Option<Placed<Text<Duration>>>,
    memory: Option<Placed<Text<Size>>>,
    place: Option<Arc<str>>,
    jails: Vec<watch::Raw>,
    rates: Vec<rate::Raw>,
}

/// What every jail says about its failures and bans.
#[derive(Debug, Default)]
pub(super) struct Terms {
    max_retry: Option<Placed<u64>>,
    find_time: Option<Placed<Text<Duration>>>,
    ban_time: Option<Placed<Text<Duration>>>,
    longest: Option<Placed<Text<Duration>>>,
    action: Option<Placed<Text<Action>>>,
    scope: Option<Placed<Text<Reach>>>,
}

/// What it means.
#[derive(Debug)]
pub struct Policy {
    login: Jail,
    /// Failed logins of all clients in one IPv6 network, and how large that is; none if they are not counted.
    network: Option<(Jail, Prefix)>,
    /// The jails of the operator.
    pub jails: Box<[Watch]>,
    /// The limits of what one client may ask.
    pub rates: Box<[Rate]>,
    ignore: NetSet,
    /// As many requests of banned clients are held at once, and for how long.
    pub tarpit: (usize, Duration),
    /// How much the ledger keeps; from the start of the process on.
    pub bounds: Bounds,
}

impl Default for Policy {
    fn default() -> Self {
        Raw::default().compile(&mut Complaints::default())
    }
}

impl Raw {
    /// Reads `[bans]`, every `[[jail]]` and every `[[rate]]`.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let mut raw = Self {
            jails: root.sections(reading, "jail").into_iter().map(|s| watch::Raw::read(s, reading)).collect(),
            rates: root.sections(reading, "rate").into_iter().map(|s| rate::Raw::read(s, reading)).collect(),
            ..Self::default()
        };
        let Some(mut section) = root.section(reading, "bans") else { return raw };
        raw.place = Some(section.place.label().into());
        raw.terms = Terms::read(&mut section, reading);
        raw.ignore = section.get(reading, "ignore").map(|list| list.value);
        raw.per_user = section.get(reading, "per_user");
        raw.ipv6_network = section.get(reading, "ipv6_network");
        raw.network_retry = section.get(reading, "network_retry");
        raw.tarpit = section.get(reading, "tarpit");
        raw.tarpit_time = section.get(reading, "tarpit_time");
        raw.memory = section.get(reading, "memory");
        section.finish(reading);
        raw
    }

    /// Fills in the defaults, and complains about what cannot be.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let place = self.place.unwrap_or_else(|| "default".into());
        let jail = Jail { place, ..Jail::default() };
        let mut login = self.terms.compile(jail, "bans", complaints);
        login.user_retry = self.per_user.filter(|written| written.value).map(|_| USER_RETRY);
        let network = network(&login, self.ipv6_network.as_ref(), self.network_retry.as_ref(), complaints);
        let ignored = self.ignore.into_iter().flatten();
        if let Some(memory) = self.memory.as_ref().filter(|memory| memory.value.0.0 < LEAST_MEMORY) {
            let hint = Some("leave the key out for 64 MiB".to_owned());
            complaints.error(Some(&memory.place), "`bans.memory` must be 1 MiB or more", hint);
        }
        let bytes = self.memory.and_then(|memory| usize::try_from(memory.value.0.0).ok());
        let held = self.tarpit.map_or(100, |held| held.value);
        let time = self.tarpit_time.map_or(Duration::from_secs(10), |time| time.value.0);
        Policy {
            jails: watch::compile(self.jails, &login, complaints),
            rates: rate::compile(self.rates, complaints),
            login,
            network,
            ignore: ignored.map(|net| net.value.0).collect(),
            tarpit: (usize::try_from(held).unwrap_or(usize::MAX), time),
            bounds: bytes.map_or_else(Bounds::default, Bounds::within),
        }
    }
}

/// The jail of whole IPv6 networks: it takes ten times the failures of one client, and bars tries only.
fn network(
    login: &Jail,
    bits: Option<&Placed<u64>>,
    most: Option<&Placed<u64>>,
    complaints: &mut Complaints,
) -> Option<(Jail, Prefix)> {
    if let Some(most) = most.filter(|most| !(1..=MOST_RETRY).contains(&most.value)) {
        let message = format!("`bans.network_retry` must be 1 to {MOST_RETRY}, not {}", most.value);
        complaints.error(
            Some(&most.place),
            message,
            Some("leave the key out for ten times `max_retry`".to_owned()),
        );
    }
    let prefix = u8::try_from(bits.map_or(NETWORK, |bits| bits.value)).ok();
    if prefix == Some(0) {
        return None;
    }
    let prefix = prefix.and_then(Prefix::new);
    if let (None, Some(bits)) = (prefix, bits) {
        let hint = "48 is what a site of a provider's customer gets; 0 counts no networks".to_owned();
        complaints.error(Some(&bits.place), "`bans.ipv6_network` must be 32 to 128, or 0", Some(hint));
    }
    let most = most.and_then(|most| u32::try_from(most.value).ok());
    let max_retry = most.unwrap_or(login.max_retry.saturating_mul(10)).max(1);
    let jail = Jail {
        name: Ban::NETWORK.into(),
        max_retry,
        action: Action::Refuse,
        user_retry: None,
        ..login.clone()
    };
    prefix.map(|prefix| (jail, prefix))
}

impl Terms {
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            max_retry: section.get(reading, "max_retry"),
            find_time: section.get(reading, "find_time"),
            ban_time: section.get(reading, "ban_time"),
            longest: section.get(reading, "longest"),
            action: section.get(reading, "action"),
            scope: section.get(reading, "scope"),
        }
    }

    /// `jail` with what was written laid over it; `table` is what complaints call it.
    pub(super) fn compile(self, jail: Jail, table: &str, complaints: &mut Complaints) -> Jail {
        if let Some(most) = self.max_retry.as_ref().filter(|most| !(1..=MOST_RETRY).contains(&most.value)) {
            let message = format!("`{table}.max_retry` must be 1 to {MOST_RETRY}, not {}", most.value);
            let hint = "4 is one fewer than TYPO3's own limit; for requests in general write a `[[rate]]`";
            complaints.error(Some(&most.place), message, Some(hint.to_owned()));
        }
        let mut time = |written: Option<Placed<Text<Duration>>>, otherwise: Duration, key: &str| {
            let Some(written) = written else { return otherwise };
            if written.value.0 < Duration::from_secs(1) {
                let message = format!("`{table}.{key}` must be a second or more");
                let hint = format!("leave the key out for {} s", otherwise.as_secs());
                complaints.error(Some(&written.place), message, Some(hint));
            }
            written.value.0
        };
        let find_time = time(self.find_time, jail.find_time, "find_time");
        let ban_time = time(self.ban_time, jail.ban_time, "ban_time");
        let longest_place = self.longest.as_ref().map(|longest| longest.place.clone());
        let longest = time(self.longest, jail.longest.max(ban_time), "longest");
        if longest < ban_time {
            let hint = "bans begin with `ban_time` and double up to `longest`".to_owned();
            let message = format!("`{table}.longest` is shorter than `{table}.ban_time`");
            complaints.error(longest_place.as_ref(), message, Some(hint));
        }
        Jail {
            find_time,
            ban_time,
            longest,
            max_retry: self
                .max_retry
                .and_then(|most| u32::try_from(most.value).ok())
                .unwrap_or(jail.max_retry)
                .max(1),
            action: self.action.map_or(jail.action, |action| action.value.0),
            reach: self.scope.map_or(jail.reach, |scope| scope.value.0),
            ..jail
        }
    }
}

impl Policy {
    /// The jail of failed logins.
    #[must_use]
    pub fn login(&self) -> &Jail {
        &self.login
    }

    /// The network that an IPv6 address is in besides being a client, and its jail.
    #[must_use]
    pub fn network(&self, addr: IpAddr) -> Option<(&Jail, Key)> {
        let (jail, prefix) = self.network.as_ref()?;
        addr.to_canonical().is_ipv6().then(|| (jail, Key::new(addr, *prefix)))
    }

    /// Whether the operator wants this address never to be banned.
    #[must_use]
    pub fn ignores(&self, addr: IpAddr) -> bool {
        self.ignore.contains(addr)
    }

    /// Whose failure it is.
    #[must_use]
    pub fn culprit(&self, addr: IpAddr, client: Key, site: SiteId, user: Option<UserId>) -> Culprit {
        Culprit { client, site, user, ignored: self.ignores(addr) }
    }

    /// Whether a jail counts failed logins that are known for tries before they are answered: that of `[bans]` and those
    /// that are made from it, for second factors, say.
    #[must_use]
    pub fn is_about_logins(&self, jail: &str) -> bool {
        let rest = jail.strip_prefix(&*self.login.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-') && !rest.ends_with(Ban::UNFORESEEN))
            && !self.jails.iter().any(|watch| &*watch.jail.name == jail)
    }

    /// The mode of a jail's bans; of a jail that is no more, and of bans made by hand, as the rule says.
    #[must_use]
    pub fn mode_of(&self, jail: &str) -> Mode {
        let watch = self.jails.iter().find(|watch| &*watch.jail.name == jail);
        watch.map_or(Mode::Enforce, |watch| watch.jail.mode)
    }
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
