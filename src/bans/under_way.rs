//! Tries whose outcome is not known yet: each takes the place of one of the failures that its client has left, so
//! that nobody gets more guesses by making them at once. It is a place and no failure: nobody is banned by it.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::{Ledger, TrackKey};
use super::shelf::Worth;
use crate::clock::{self, Millis};

/// How long a try keeps its place whose client has left before the answer: an origin may be at work on it.
const LINGERS: Duration = Duration::from_secs(10);

/// The tries of one subject in one jail.
#[derive(Debug, Default)]
pub(super) struct Tries {
    open: u32,
    /// Until when those count whose clients have left. There are never more than the jail takes failures.
    left: Vec<Millis>,
}

/// There is no place for one more try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Failures that count.
    pub failures: u32,
    /// Tries without an outcome.
    pub under_way: u32,
    /// The failure that makes a ban.
    pub most: u32,
}

/// The places of one try. Dropped, they are kept for a while longer.
#[derive(Debug)]
pub struct UnderWay {
    ledger: Arc<Ledger>,
    keys: Vec<TrackKey>,
}

impl Tries {
    /// One more, if there is a place. The first one always has one: only tries at once are kept from each other.
    pub(super) fn begin(&mut self, failures: u32, most: u32, now: Millis) -> Result<(), Full> {
        self.left.retain(|until| now < *until);
        let left = u32::try_from(self.left.len()).unwrap_or(u32::MAX);
        let under_way = self.open.saturating_add(left);
        if under_way > 0 && failures.saturating_add(under_way) >= most {
            return Err(Full { failures, under_way, most });
        }
        self.open = self.open.saturating_add(1);
        Ok(())
    }

    /// One is over; whether there is nothing left to remember.
    pub(super) fn end(&mut self, lingers_from: Option<Millis>) -> bool {
        self.open = self.open.saturating_sub(1);
        self.left.extend(lingers_from.map(|now| now.plus(LINGERS)));
        self.open == 0 && self.left.is_empty()
    }
}

impl Worth for Tries {
    fn worth(&self, now: Millis) -> Option<u64> {
        let left = self.left.iter().filter(|until| now < **until).count() as u64;
        let all = left.saturating_add(self.open.into());
        (all > 0).then_some(all)
    }
}

impl UnderWay {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), keys: Vec::new() }
    }

    pub(super) fn holds(&mut self, key: TrackKey) {
        self.keys.push(key);
    }

    /// The outcome is known and counted, or there will be none.
    pub fn give_back(mut self) {
        self.end(None);
    }

    fn end(&mut self, lingers_from: Option<Millis>) {
        for key in std::mem::take(&mut self.keys) {
            self.ledger.end(&key, lingers_from);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.end(Some(clock::millis()));
        }
    }
}
