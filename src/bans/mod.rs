//! Who is locked out, for how long, and why: failures are counted by jail, and a jail that is full makes a ban.
//!
//! The [`Ledger`] is the memory of it, shared by all workers. It knows neither modes nor rules: whether a ban is
//! enforced is decided where it is met.

mod audit;
pub mod check;
mod grants;
pub mod jail;
pub mod ledger;
pub mod policy;
pub mod rate;
mod shelf;
pub mod tarpit;
mod under_way;
pub mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use check::{Barred, Memory, Who, check, check_cross_site, check_network, check_try, check_user};
pub use grants::LONGEST as LONGEST_GRANT;
pub use jail::{Action, Jail, Reach};
pub use ledger::{Bounds, Change, Ledger, Sentence, Tally};
pub use policy::{Policy, Raw};
pub use rate::Meters;
pub use tarpit::Tarpit;
pub use under_way::{Full, UnderWay};

use crate::client::key::Key;
pub use crate::client::key::stable_hash;
use crate::clock::Millis;

/// A site as bans know it: a hash of its name, the same after every reload and in every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u64);

impl SiteId {
    /// The number of the site with this name, its first host.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(stable_hash(name.as_bytes()))
    }
}

/// A user name as bans know it: a hash that the login room makes, so that no name is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// A session of the backend as bans know it: a hash that the login room makes of what no client can guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Who is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A client.
    Client(Key),
    /// A user name, whoever types it: only attempts to log in with it are refused.
    User(UserId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(key) => write!(f, "{}", key.addr()),
            Self::User(user) => write!(f, "user:{:016x}", user.0),
        }
    }
}

/// Who failed, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The client.
    pub client: Key,
    /// The site that it asked.
    pub site: SiteId,
    /// The user name that it tried, if there was one.
    pub user: Option<UserId>,
    /// Whether the operator's `ignore` list names the client: it is counted and never banned.
    pub ignored: bool,
}

impl Culprit {
    /// As whom a failure counts, and the failure that makes the ban of each.
    fn subjects(&self, jail: &Jail) -> impl Iterator<Item = (Subject, u32)> + use<> {
        let user = self.user.zip(jail.user_retry).map(|(user, most)| (Subject::User(user), most));
        [Some((Subject::Client(self.client), jail.max_retry)), user].into_iter().flatten()
    }
}

/// A subject that is locked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub subject: Subject,
    /// From where; `None` from everything.
    pub site: Option<SiteId>,
    /// The jail that made it; of bans made by hand, [`Ban::BY_HAND`].
    pub jail: Arc<str>,
    /// Since when.
    pub since: Millis,
    /// Until when.
    pub until: Millis,
    /// How many bans by the same jail went before it, as far as they are not forgiven.
    pub level: u8,
    /// How many failures made it.
    pub failures: u32,
    /// What its subject meets.
    pub action: Action,
    /// Why: the configuration line of the jail, or what the operator said.
    pub why: Arc<str>,
}

impl Ban {
    /// The jail of bans that an operator made.
    pub const BY_HAND: &str = "by-hand";

    /// The jail of tries to log in that pages of other sites had browsers send. Its bans are about such tries only.
    pub const CROSS_SITE: &str = "login-cross-site";

    /// The jail of failed logins from an IPv6 network that is larger than one client. Its bans are about tries only.
    pub const NETWORK: &str = "login-network";

    /// How the jails end whose failures no request tells, but only its answer.
    pub const UNFORESEEN: &str = "-by-answer";

    /// Whether it is about everything that its subject asks for.
    #[must_use]
    pub fn bars_pages(&self) -> bool {
        ![Self::CROSS_SITE, Self::NETWORK].contains(&&*self.jail)
    }

    /// What is left of it, which is the honest `Retry-After`.
    #[must_use]
    pub fn left(&self, now: Millis) -> Duration {
        self.until.since(now)
    }

    /// Whether it is in force.
    ///
    /// Not if it was made further in the future than it lasts: then the clock was wrong and has been set back, and nobody
    /// is to be locked out until a year comes that somebody mistyped. So no jump of the clock makes a ban last longer than
    /// twice its time.
    #[must_use]
    pub fn holds(&self, now: Millis) -> bool {
        !self.is_over(now) && self.since.since(now) <= self.until.since(self.since)
    }

    /// Whether it is behind us.
    #[must_use]
    pub fn is_over(&self, now: Millis) -> bool {
        self.until <= now
    }

    /// Whether it is about `site`.
    #[must_use]
    pub fn covers(&self, site: SiteId) -> bool {
        self.site.is_none_or(|own| own == site)
    }
}
