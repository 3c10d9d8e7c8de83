//! Everything that is counted in this process: by workers, by other rooms, and what is known of the
//! process itself.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::meters::{Meters, SiteMeters, SiteNames};
use super::spool::Tally;

/// The content type of the text (`OpenMetrics` 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted in this process.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) workers: Box<[Arc<Meters>]>,
    pub(super) sites: SiteNames,
    pub(super) process: Process,
    pub(super) outside: Mutex<Vec<Outside>>,
    pub(super) named: Mutex<Vec<Named>>,
}

/// A family of numbers that another room counts: connections at the door, handshakes, foreign
/// protocols. It is asked when somebody scrapes.
pub struct Outside {
    /// The name, without `ravelin_` and without `_total`.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// Whether it can go down.
    pub kind: Kind,
    /// The label that tells the numbers apart; empty if there is only one.
    pub label: &'static str,
    /// Gives each number with its word for the label: words from tables in the code, never from clients.
    pub read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>,
}

/// A family of counters by names that the operator chose, such as those of jails.
pub struct Named {
    /// The name, without `ravelin_` and without `_total`.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// The label that tells the numbers apart.
    pub label: &'static str,
    /// Gives each number with its name: from the configuration, never from clients.
    pub read: Box<dyn Fn() -> Vec<(Arc<str>, u64)> + Send + Sync>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a number does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// What is counted outside of workers.
#[derive(Debug, Default)]
pub(super) struct Process {
    state: Mutex<State>,
    pub(super) reloads: AtomicU64,
    pub(super) reloads_failed: AtomicU64,
}

/// What is known of the process; times in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) generation: Box<str>,
    pub(super) loaded: u64,
    pub(super) started: u64,
    pub(super) certificates: Vec<(Box<str>, u64)>,
    pub(super) log: Tally,
}

impl Process {
    pub(super) fn started(&self, wall: SystemTime) {
        self.with(|state| state.started = seconds(wall));
    }

    pub(super) fn generation(&self, id: &str, wall: SystemTime) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        self.with(|state| {
            state.generation = id.into();
            state.loaded = seconds(wall);
        });
    }

    pub(super) fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn certificates(&self, list: Vec<(Box<str>, u64)>) {
        self.with(|state| state.certificates = list);
    }

    pub(super) fn log(&self, tally: Tally) {
        self.with(|state| state.log = tally);
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    /// The text, as of now.
    pub(super) fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("ravelin");
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut out = String::with_capacity(16 << 10);
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    /// A number of all workers together.
    pub(super) fn sum(&self, of: impl Fn(&Meters) -> u64) -> u64 {
        self.workers.iter().map(|meters| of(meters)).sum()
    }

    /// A number of one site on all workers together.
    pub(super) fn site_sum(&self, number: usize, of: impl Fn(&SiteMeters) -> u64) -> u64 {
        self.workers.iter().filter_map(|meters| meters.site(number)).map(of).sum()
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(super) fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
