//! Where bans live beyond this process: in a file, or in a Valkey or Redis that replicas share.
//!
//! Requests never wait for it. They ask the ledger, which is in memory; the [`Keeper`] on the control thread writes
//! what changed there to the [`Store`], and applies what other replicas changed. A store that is slow, full or gone
//! costs nobody an answer: what happens meanwhile is told when it is back.

use std::fmt;
use std::time::Duration;

pub mod file;
mod keeper;
pub mod line;
pub mod settings;
pub mod shelf;
mod status;
pub mod store;
pub mod valkey;

pub use self::keeper::Keeper;
pub use self::settings::{Place, Policy};
pub use self::shelf::Shelf;
pub use self::status::Status;
pub use self::store::Store;

use crate::bans::{Ban, Change};
use crate::clock::Millis;

/// How long a client that logged in is known, see `bans::ledger`.
const KNOWN_FOR: Duration = Duration::from_hours(8);
/// How long a session that began is waited for, see there.
const BEGUN_FOR: Duration = Duration::from_hours(1);
/// How long a ban is remembered after its end, so that the next one is longer; also, how long it is remembered that a
/// ban was lifted.
const MEMORY: Duration = Duration::from_hours(24);

/// Why a store does not do what it is asked for: a sentence without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// From when on a change means nothing any more.
#[must_use]
pub fn over(change: &Change) -> Millis {
    match change {
        Change::Banned(ban) if &*ban.jail == Ban::BY_HAND => ban.until,
        Change::Banned(ban) => ban.until.plus(MEMORY),
        Change::LoggedIn { at, .. } => at.plus(KNOWN_FOR),
        Change::Began { at, .. } => at.plus(BEGUN_FOR),
        Change::Granted { until, .. } => *until,
        Change::Struck(tally, _) | Change::Forgiven(tally) => tally.at.plus(tally.find_time),
        Change::Lifted { .. } | Change::Flushed => Millis(0),
    }
}
