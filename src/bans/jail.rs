//! A jail: how many failures in which time make a ban, and what the ban is like.

use std::sync::Arc;
use std::time::Duration;

use crate::config::section::{Fault, FromText};
use crate::config::units::{Mode, choice};

/// What a banned client meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// A page that says so, with a reference and the rest of the time.
    #[default]
    Refuse,
    /// The same, late: a bounded number of requests is held.
    Tarpit,
    /// The connection is closed without an answer.
    Drop,
}

impl Action {
    const WORDS: [(&'static str, Action); 3] =
        [("refuse", Action::Refuse), ("tarpit", Action::Tarpit), ("drop", Action::Drop)];

    /// The word that stands in the configuration and in the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Tarpit => "tarpit",
            Self::Drop => "drop",
        }
    }
}

impl FromText for Action {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &Self::WORDS)
    }
}

/// How far a ban reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The site where the failures were.
    #[default]
    Site,
    /// Every site: connections are closed as they come.
    Everything,
}

impl FromText for Reach {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("site", Self::Site), ("everything", Self::Everything)])
    }
}

/// A jail, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// Its name, which the log, the metrics and the store know it by.
    pub name: Arc<str>,
    /// How long a failure counts.
    pub find_time: Duration,
    /// The failure that makes the ban: the fourth, if it is 4.
    pub max_retry: u32,
    /// How long the first ban takes; each one after it twice as long.
    pub ban_time: Duration,
    /// How long a ban may take at most; also how long it takes until a former ban is forgiven.
    pub longest: Duration,
    /// What a banned client meets.
    pub action: Action,
    /// How far the ban reaches; failures are counted site by site if it is a site.
    pub reach: Reach,
    /// The failure with one user name, whoever tries it, that makes a ban of that name; `None` if names are not
    /// counted.
    pub user_retry: Option<u32>,
    /// Whether its bans are enforced.
    pub mode: Mode,
    /// Where it was written.
    pub place: Arc<str>,
}

impl Default for Jail {
    /// Four failures in ten minutes, one fewer than TYPO3's own limit: ten minutes, later up to a day.
    fn default() -> Self {
        Self {
            name: Arc::from("login"),
            find_time: Duration::from_mins(10),
            max_retry: 4,
            ban_time: Duration::from_mins(10),
            longest: Duration::from_hours(24),
            action: Action::Refuse,
            reach: Reach::Site,
            user_retry: None,
            mode: Mode::Enforce,
            place: Arc::from("default"),
        }
    }
}
