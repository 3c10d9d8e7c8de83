//! How much may be under way at once: in the whole process, for one client, and with one origin.
//!
//! Whoever is above a limit of the process or of a client is refused at once, for those limits are far above what
//! honest use needs. Requests above what an origin takes wait in a [`Gate`], for an origin's limit is met in the
//! ordinary life of a site: one page asks for a hundred files at once, and a short wait is kinder than a page without
//! its style. When memory runs short nothing new begins at all.

pub mod gate;
pub mod memory;
pub mod settings;
mod sketch;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

pub use gate::{Gate, Turn};
pub use settings::Policy;

use crate::client::key::Key;
use crate::refusal::{Reason, Refusal};
use sketch::Sketch;

/// Counters per row: with ten thousand clients busy at once, one in a million meets another's counts.
const WIDTH: usize = 4096;

/// What is under way, shared by all workers.
#[derive(Debug)]
pub struct Load {
    /// Apart from everything else, because every worker writes here.
    total: Apart<AtomicUsize>,
    clients: Sketch<WIDTH>,
    /// Keyed at random: a client cannot choose addresses whose counts meet another's.
    hasher: RandomState,
    short: AtomicBool,
    /// What was seen last of memory: taken and allowed, in bytes.
    memory: (AtomicU64, AtomicU64),
    refused: [AtomicU64; Limit::ALL.len()],
}

/// A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    /// Memory is short.
    Memory,
    /// `limits.requests`.
    Total,
    /// `limits.requests_per_client`.
    Client,
}

impl Limit {
    /// Every limit, in the order of their numbers.
    pub const ALL: [Limit; 3] = [Limit::Memory, Limit::Total, Limit::Client];

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Total => "total",
            Limit::Client => "client",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Limit::Memory => "memory is short: nothing new begins",
            Limit::Total => "`limits.requests` are under way",
            Limit::Client => "`limits.requests_per_client` of this client are under way",
        }
    }
}

/// One client among others, where something is counted for each: not its address, but a number that is keyed at
/// random. The default stands for whoever asks on nobody's behalf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

/// A request under way; it counts until this is dropped.
#[derive(Debug)]
pub struct Place {
    load: Arc<Load>,
    client: Mark,
}

impl Load {
    /// Nothing is under way.
    #[must_use]
    pub fn new() -> Self {
        Self {
            total: Apart::default(),
            clients: Sketch::default(),
            hasher: RandomState::new(),
            short: AtomicBool::new(false),
            memory: Default::default(),
            refused: [const { AtomicU64::new(0) }; Limit::ALL.len()],
        }
    }

    /// Begins a request of `client`: a handful of relaxed atomics, no lock, no allocation.
    ///
    /// # Errors
    /// With [`Reason::Overloaded`] when too much is under way already.
    pub fn enter(self: &Arc<Self>, client: Key, policy: &Policy) -> Result<Place, Refusal> {
        if self.is_short() {
            return Err(self.refuse(Limit::Memory));
        }
        let client = Mark(self.hasher.hash_one(client));
        // The place exists from here on, so that every early return gives it back.
        let before = self.total.0.fetch_add(1, Relaxed);
        let of_client = self.clients.add(client.0);
        let place = Place { load: Arc::clone(self), client };
        if before >= policy.requests {
            return Err(self.refuse(Limit::Total));
        }
        if of_client > policy.requests_per_client {
            return Err(self.refuse(Limit::Client));
        }
        Ok(place)
    }

    fn refuse(&self, limit: Limit) -> Refusal {
        if let Some(counter) = self.refused.get(limit as usize) {
            counter.fetch_add(1, Relaxed);
        }
        Refusal::new(Reason::Overloaded, limit.detail())
    }

    /// How many requests are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.total.0.load(Relaxed)
    }

    /// How often `limit` refused.
    #[must_use]
    pub fn refused(&self, limit: Limit) -> u64 {
        self.refused.get(limit as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    /// Whether memory is short.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Relaxed)
    }

    /// Memory is short from now on, or is no longer.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Relaxed);
    }

    /// What was seen last of memory, in bytes: taken and allowed; zeros if there is no bound.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        (self.memory.0.load(Relaxed), self.memory.1.load(Relaxed))
    }

    /// Memory was looked at.
    pub fn saw_memory(&self, taken: u64, allowed: u64) {
        self.memory.0.store(taken, Relaxed);
        self.memory.1.store(allowed, Relaxed);
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// The client, where requests of one client are told from another's.
    #[must_use]
    pub fn client(&self) -> Mark {
        self.client
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.clients.subtract(self.client.0);
        self.load.total.0.fetch_sub(1, Relaxed);
    }
}

impl Mark {
    /// A client that a test made up.
    #[cfg(test)]
    pub(crate) fn of(number: u64) -> Self {
        Self(RandomState::new().hash_one(number))
    }
}

/// Reads a counter that is only compared.
fn count(counter: &AtomicU32) -> u32 {
    counter.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::key::Prefix;

    fn key(last: u8) -> Key {
        Key::new([192, 0, 2, last].into(), Prefix::default())
    }

    #[test]
    fn the_process_and_each_client_have_their_limit() {
        let (load, policy) =
            (Arc::new(Load::new()), Policy { requests: 5, requests_per_client: 3, memory: None });
        let one: Vec<_> = (0..3).map(|_| load.enter(key(1), &policy).unwrap()).collect();
        let refused = load.enter(key(1), &policy).unwrap_err();
        assert_eq!((refused.reason, load.refused(Limit::Client)), (Reason::Overloaded, 1));
        assert_eq!(load.under_way(), 3, "a refusal holds no place");
        let other: Vec<_> = (0..2).map(|_| load.enter(key(2), &policy).unwrap()).collect();
        load.enter(key(3), &policy).unwrap_err();
        assert_eq!(load.refused(Limit::Total), 1);
        drop(one);
        load.enter(key(1), &policy).unwrap();
        drop(other);
        assert_eq!(load.under_way(), 0);
    }

    #[test]
    fn nothing_new_begins_while_memory_is_short() {
        let (load, policy) = (Arc::new(Load::new()), Policy::default());
        let place = load.enter(key(1), &policy).unwrap();
        load.set_short(true);
        load.enter(key(1), &policy).unwrap_err();
        drop(place);
        load.set_short(false);
        load.enter(key(1), &policy).unwrap();
        assert_eq!((load.refused(Limit::Memory), load.under_way()), (1, 0));
    }

    #[test]
    fn limits_are_numbered_as_they_stand_in_their_list() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index, "{}", limit.name());
        }
    }
}
