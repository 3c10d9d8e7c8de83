//! Counts for any number of clients in a fixed room: a count-min sketch (Cormode and Muthukrishnan, 2005) of two rows.
//!
//! Each client has one counter in each row; the smaller one is its count, or a little more if in both rows it shares a
//! counter with somebody who is busy. Neither locks nor allocations, and memory that no number of clients can grow.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::count;

/// Counters of `WIDTH` per row, a power of two.
#[derive(Debug)]
pub(super) struct Sketch<const WIDTH: usize> {
    rows: Box<[[AtomicU32; WIDTH]; 2]>,
}

impl<const WIDTH: usize> Sketch<WIDTH> {
    /// One more of the client with this number, whose bits are as good as random; says how many there are.
    pub(super) fn add(&self, client: u64) -> u32 {
        self.cells(client).map(|cell| cell.fetch_add(1, Relaxed) + 1).min().unwrap_or(0)
    }

    /// One less.
    pub(super) fn subtract(&self, client: u64) {
        self.cells(client).for_each(|cell| {
            cell.fetch_sub(1, Relaxed);
        });
    }

    /// How many there are.
    pub(super) fn get(&self, client: u64) -> u32 {
        self.cells(client).map(count).min().unwrap_or(0)
    }

    fn cells(&self, client: u64) -> impl Iterator<Item = &AtomicU32> {
        let halves = [client & 0xffff_ffff, client >> 32];
        self.rows.iter().zip(halves).filter_map(|(row, half)| row.get(usize::try_from(half).ok()? % WIDTH))
    }
}

impl<const WIDTH: usize> Default for Sketch<WIDTH> {
    fn default() -> Self {
        Self { rows: Box::new([const { [const { AtomicU32::new(0) }; WIDTH] }; 2]) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_counts_less_than_it_has_and_all_is_given_back(clients in prop::collection::vec(any::<u64>(), 0..60)) {
            let sketch = Sketch::<16>::default();
            for (before, client) in clients.iter().enumerate() {
                let own = clients[..before].iter().filter(|other| *other == client).count() + 1;
                prop_assert!(sketch.add(*client) as usize >= own);
                prop_assert!(sketch.get(*client) as usize >= own);
            }
            for client in &clients {
                sketch.subtract(*client);
            }
            prop_assert!(clients.iter().all(|client| sketch.get(*client) == 0));
        }
    }

    #[test]
    fn one_busy_client_does_not_count_for_another() {
        let sketch = Sketch::<4096>::default();
        for _ in 0..100 {
            sketch.add(7 << 32 | 7);
        }
        assert_eq!(sketch.add(7 << 32 | 8), 1, "they meet in one row only");
        assert_eq!(sketch.get(7 << 32 | 7), 100);
    }
}
