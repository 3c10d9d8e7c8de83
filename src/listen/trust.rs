//! How many requests of one HTTP/2 connection may be with the origin before one of them was answered.
//!
//! A client that asks and takes back, again and again, makes the origin work for nothing (CVE-2023-44487,
//! CVE-2025-8671), and no count of resets helps the origin that was asked already. So a connection begins with a
//! few places. Each answer earns one more, as far as streams go; each request that is taken back before it was
//! answered loses its place. A request that finds no place hesitates until one is free, for [`PATIENCE`] at most:
//! long enough for a reset to overtake it, and a wait that an honest client, whose answers double its places with
//! each round, hardly meets.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Places of a client that nothing is known of.
const FIRST: u32 = 8;

/// The most places: as many as there are streams.
const MOST: u32 = 100;

/// How long a request without a place waits.
const PATIENCE: Duration = Duration::from_millis(250);

/// The places of one connection.
#[derive(Debug)]
pub(super) struct Trust {
    free: Semaphore,
    places: AtomicU32,
}

/// How a request came to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// In a place.
    Placed,
    /// It has waited long enough.
    Waited,
}

impl Trust {
    /// Of a client that nothing is known of.
    pub(super) fn new() -> Self {
        Self { free: Semaphore::new(FIRST as usize), places: AtomicU32::new(FIRST) }
    }

    /// A place, if one is free.
    pub(super) fn try_pass(&self) -> Option<Pass> {
        self.free.try_acquire().ok().map(|permit| {
            permit.forget();
            Pass::Placed
        })
    }

    /// A place, or the end of patience.
    pub(super) async fn pass(&self) -> Pass {
        match timeout(PATIENCE, self.free.acquire()).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Pass::Placed
            }
            _ => Pass::Waited,
        }
    }

    /// The answer to a request has begun.
    pub(super) fn answered(&self, pass: Pass) {
        let mut free = usize::from(pass == Pass::Placed);
        if self.places.load(Relaxed) < MOST {
            self.places.fetch_add(1, Relaxed);
            free += 1;
        }
        self.free.add_permits(free);
    }

    /// A request was taken back before its answer began.
    pub(super) fn taken_back(&self, pass: Pass) {
        if pass == Pass::Placed {
            self.places.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_earn_places_up_to_the_number_of_streams() {
        let trust = Trust::new();
        for _ in 0..FIRST {
            assert_eq!(trust.try_pass(), Some(Pass::Placed));
        }
        assert_eq!(trust.try_pass(), None);
        trust.answered(Pass::Placed);
        assert!(trust.try_pass().is_some() && trust.try_pass().is_some(), "its own place and one more");
        assert_eq!(trust.try_pass(), None);
        for _ in 0..500 {
            trust.answered(Pass::Waited);
        }
        assert_eq!(trust.places.load(Relaxed), MOST);
        assert_eq!(trust.free.available_permits(), (MOST - FIRST - 1) as usize, "nine are in use");
    }

    #[tokio::test]
    async fn who_takes_back_has_to_wait_and_never_for_ever() {
        let trust = Trust::new();
        while let Some(pass) = trust.try_pass() {
            trust.taken_back(pass);
        }
        assert_eq!(trust.places.load(Relaxed), 0);
        let began = crate::clock::now();
        assert_eq!(trust.pass().await, Pass::Waited);
        assert!(began.elapsed() >= PATIENCE);
        trust.taken_back(Pass::Waited);
        trust.answered(Pass::Waited);
        assert_eq!(trust.try_pass(), Some(Pass::Placed), "one answer, one place");
    }
}
