//! Who is connected: caps in total and per client, shared by all workers.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::limits;
use super::pulse::Pulse;
use super::roll::{Line, Roll};

/// A power of two well above the number of workers, so that two of them seldom want the same lock.
const SHARDS: usize = 64;

/// Open connections, in total and per client `K`.
#[derive(Debug)]
pub struct Census<K> {
    total: AtomicUsize,
    shards: [Mutex<HashMap<K, u32>>; SHARDS],
    roll: Roll,
    /// Whether memory is short.
    short: AtomicBool,
    /// Keyed at random: a client cannot choose addresses that meet in one shard.
    hasher: RandomState,
}

/// A place that a connection holds; given back when it is dropped.
#[derive(Debug)]
pub struct Seat<K: Copy + Eq + Hash> {
    census: Arc<Census<K>>,
    client: Option<K>,
    line: Line,
    crowded: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many connections as allowed are open.
    Total,
    /// This client has as many as one client may.
    Client,
    /// Memory is short.
    Memory,
}

impl<K: Copy + Eq + Hash> Census<K> {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            total: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
            roll: Roll::default(),
            short: AtomicBool::new(false),
            hasher: RandomState::new(),
        }
    }

    /// Open connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Clients that have at least one connection open.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Takes a place for a connection of `client`, if there is one, or if idle ones can be asked to make room.
    /// Without a client only the total counts: trusted proxies carry many clients over one address.
    ///
    /// # Errors
    /// When there is no place.
    pub fn enter(
        self: &Arc<Self>,
        client: Option<K>,
        limits: &limits::Policy,
        now: Instant,
    ) -> Result<Seat<K>, Full> {
        let before = self.total.fetch_add(1, Ordering::Relaxed);
        if let Err(full) = self.admit(before, client, limits, now) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        let (line, crowded) = self.roll.begin(limits.handshakes, now);
        Ok(Seat { census: Arc::clone(self), client, line, crowded })
    }

    fn admit(
        &self,
        before: usize,
        client: Option<K>,
        limits: &limits::Policy,
        now: Instant,
    ) -> Result<(), Full> {
        // Those who were asked to go count no more.
        let is_full = || before.saturating_sub(self.roll.leaving()) >= limits.connections;
        if self.short.load(Ordering::Relaxed) {
            return Err(Full::Memory);
        }
        if is_full() {
            self.roll.make_room(now);
        }
        if is_full() {
            return Err(Full::Total);
        }
        client.map_or(Ok(()), |client| self.count_in(client, limits.connections_per_client))
    }

    /// Memory is short from now on, and nobody comes in; or it is no longer.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// Asks up to `most` idle connections to go, the ones first that have been idle for longest; says how many.
    pub fn dismiss_idle(&self, most: usize) -> usize {
        self.roll.dismiss_idle(most)
    }

    /// The same for a few, and not again at once if there were none.
    pub(super) fn make_room(&self, now: Instant) -> usize {
        self.roll.make_room(now)
    }

    /// Ends the oldest of the request heads that take long, if there are more than `most`; says how many. To be
    /// called about once a second.
    pub fn hurry(&self, most: usize, now: Instant) -> usize {
        self.roll.hurry(most, now)
    }

    fn count_in(&self, client: K, most: u32) -> Result<(), Full> {
        let Some(shard) = self.shard(&client) else { return Ok(()) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.entry(client).or_insert(0);
        if *count >= most {
            // Only a limit of 0 meets a fresh entry here.
            if *count == 0 {
                shard.remove(&client);
            }
            return Err(Full::Client);
        }
        *count += 1;
        Ok(())
    }

    fn count_out(&self, client: K) {
        let Some(shard) = self.shard(&client) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = shard.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn shard(&self, client: &K) -> Option<&Mutex<HashMap<K, u32>>> {
        let hash = usize::try_from(self.hasher.hash_one(client) % SHARDS as u64).ok()?;
        self.shards.get(hash)
    }
}

impl<K: Copy + Eq + Hash> Default for Census<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Eq + Hash> Seat<K> {
    /// Whether another connection was called off when this one came.
    pub(super) fn crowded(&self) -> bool {
        self.crowded
    }

    /// The connection turns out to be one of `client`'s: it counts for its limit from now on.
    ///
    /// # Errors
    /// When this client has as many as one client may.
    pub(super) fn belongs_to(&mut self, client: K, limits: &limits::Policy) -> Result<(), Full> {
        self.census.count_in(client, limits.connections_per_client)?;
        if let Some(before) = self.client.replace(client) {
            self.census.count_out(before);
        }
        Ok(())
    }

    /// Waits until this connection is called off while it opens.
    pub(super) async fn called_off(&self) {
        self.line.called_off().await;
    }

    /// The connection speaks HTTP from now on.
    pub(super) fn open(&mut self, pulse: &Arc<Pulse>) {
        self.census.roll.open(&mut self.line, pulse);
    }
}

impl<K: Copy + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        self.census.roll.strike(&self.line);
        self.census.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.census.count_out(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn limits(connections: usize, connections_per_client: u32) -> limits::Policy {
        limits::Policy { connections, connections_per_client, ..limits::Policy::default() }
    }

    fn enter<K: Copy + Eq + Hash>(
        census: &Arc<Census<K>>,
        client: Option<K>,
        limits: &limits::Policy,
    ) -> Result<Seat<K>, Full> {
        census.enter(client, limits, clock::now())
    }

    #[test]
    fn one_client_cannot_take_every_place() {
        let (census, limits) = (Arc::new(Census::new()), limits(10, 3));
        let seats: Vec<_> = (0..3).map(|_| enter(&census, Some(1), &limits).unwrap()).collect();
        assert_eq!(enter(&census, Some(1), &limits).unwrap_err(), Full::Client);
        assert_eq!(census.total(), 3, "a refusal holds no place");
        let other = enter(&census, Some(2), &limits).unwrap();
        assert_eq!((census.total(), census.clients()), (4, 2));
        drop(seats);
        assert_eq!((census.total(), census.clients()), (1, 1));
        enter(&census, Some(1), &limits).unwrap();
        drop(other);
        assert_eq!((census.total(), census.clients()), (0, 0));
    }

    #[test]
    fn the_total_counts_everybody() {
        let (census, limits) = (Arc::new(Census::<u8>::new()), limits(2, 1));
        let _one = enter(&census, None, &limits).unwrap();
        let _two = enter(&census, None, &limits).unwrap();
        assert_eq!(enter(&census, Some(1), &limits).unwrap_err(), Full::Total);
        assert_eq!((census.total(), census.clients()), (2, 0));
    }

    #[test]
    fn nobody_comes_in_while_memory_is_short() {
        let (census, limits) = (Arc::new(Census::<u8>::new()), limits(2, 2));
        census.set_short(true);
        assert_eq!(enter(&census, Some(1), &limits).unwrap_err(), Full::Memory);
        census.set_short(false);
        enter(&census, Some(1), &limits).unwrap();
        assert_eq!((census.total(), census.clients()), (0, 0));
    }

    #[test]
    fn idle_connections_make_room_one_for_one() {
        let (census, limits) = (Arc::new(Census::<u8>::new()), limits(2, 9));
        let idle: Vec<_> = (0..2)
            .map(|_| {
                let mut seat = enter(&census, None, &limits).unwrap();
                let pulse = Pulse::new(clock::now(), false, false);
                seat.open(&pulse);
                (seat, pulse)
            })
            .collect();
        let _fresh = enter(&census, None, &limits).unwrap();
        let _another = enter(&census, None, &limits).unwrap();
        assert!(idle.iter().all(|(_, pulse)| pulse.is_dismissed()));
        assert_eq!(enter(&census, None, &limits).unwrap_err(), Full::Total, "they are two still");
        drop(idle);
        assert_eq!(census.total(), 2);
        assert_eq!(enter(&census, None, &limits).unwrap_err(), Full::Total);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let (census, limits) = (Arc::new(Census::new()), limits(1000, 1000));
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let (census, limits) = (&census, &limits);
                scope.spawn(move || {
                    for i in 0..500u32 {
                        let _seat = enter(census, Some((thread + i) % 5), limits).unwrap();
                    }
                });
            }
        });
        assert_eq!((census.total(), census.clients()), (0, 0));
    }
}
