//! Who is connected: caps in total and per client, shared by all workers.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A power of two well above the number of workers, so that two of them seldom want the same lock.
const SHARDS: usize = 64;

/// Open connections, in total and per client `K`.
#[derive(Debug)]
pub struct Census<K> {
    total: AtomicUsize,
    shards: [Mutex<HashMap<K, u32>>; SHARDS],
    /// Keyed at random: a client cannot choose addresses that meet in one shard.
    hasher: RandomState,
}

/// A place that a connection holds; given back when it is dropped.
#[derive(Debug)]
pub struct Seat<K: Copy + Eq + Hash> {
    census: Arc<Census<K>>,
    client: Option<K>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many connections as allowed are open.
    Total,
    /// This client has as many as one client may.
    Client,
}

impl<K: Copy + Eq + Hash> Census<K> {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            total: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Mutex::default()),
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

    /// Takes a place for a connection of `client`, if there is one. Without a client only the total
    /// counts: trusted proxies carry many clients over one address.
    pub fn enter(
        self: &Arc<Self>,
        client: Option<K>,
        most: usize,
        most_per_client: u32,
    ) -> Result<Seat<K>, Full> {
        // The seat exists from the first count on, so that every early return gives it back.
        let before = self.total.fetch_add(1, Ordering::Relaxed);
        let mut seat = Seat { census: Arc::clone(self), client: None };
        if before >= most {
            return Err(Full::Total);
        }
        if let Some(client) = client {
            self.count_in(client, most_per_client)?;
            seat.client = Some(client);
        }
        Ok(seat)
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

impl<K: Copy + Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        self.census.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = self.client {
            self.census.count_out(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_every_place() {
        let census = Arc::new(Census::new());
        let seats: Vec<_> = (0..3).map(|_| census.enter(Some(1), 10, 3).unwrap()).collect();
        assert_eq!(census.enter(Some(1), 10, 3).unwrap_err(), Full::Client);
        assert_eq!(census.total(), 3, "a refusal holds no place");
        let other = census.enter(Some(2), 10, 3).unwrap();
        assert_eq!((census.total(), census.clients()), (4, 2));
        drop(seats);
        assert_eq!((census.total(), census.clients()), (1, 1));
        census.enter(Some(1), 10, 3).unwrap();
        drop(other);
        assert_eq!((census.total(), census.clients()), (0, 0));
    }

    #[test]
    fn the_total_counts_everybody() {
        let census = Arc::new(Census::<u8>::new());
        let _one = census.enter(None, 2, 1).unwrap();
        let _two = census.enter(None, 2, 1).unwrap();
        assert_eq!(census.enter(Some(1), 2, 1).unwrap_err(), Full::Total);
        assert_eq!((census.total(), census.clients()), (2, 0));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let census = Arc::new(Census::new());
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let census = &census;
                scope.spawn(move || {
                    for i in 0..500u32 {
                        let _seat = census.enter(Some((thread + i) % 5), 1000, 1000).unwrap();
                    }
                });
            }
        });
        assert_eq!((census.total(), census.clients()), (0, 0));
    }
}
