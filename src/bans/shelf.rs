//! A map with a bound: who comes when it is full takes the place of one that is worth less.
//!
//! A hand goes round over the entries, a few at each insertion: it drops what is over, and if nothing was, the least
//! of those it saw. So neither an insertion nor the sweep ever looks at everything at once.

use std::collections::hash_map::RandomState;
use std::hash::Hash;

use indexmap::IndexMap;

use crate::clock::Millis;

/// So many entries are looked at for one that goes.
const SEEN_AT_ONCE: usize = 16;

/// What an entry is worth at a time; `None` if it is over. Of those that are not over, the least goes first.
pub(super) trait Worth {
    fn worth(&self, now: Millis) -> Option<u64>;
}

/// A bounded map.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    entries: IndexMap<K, V, RandomState>,
    hand: usize,
    most: usize,
    pushed_out: u64,
}

impl<K: Eq + Hash, V: Worth> Shelf<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { entries: IndexMap::default(), hand: 0, most: most.max(1), pushed_out: 0 }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.swap_remove(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    pub(super) fn clear(&mut self) {
        self.entries = IndexMap::default();
        self.hand = 0;
    }

    /// How many entries had to go before they were over.
    pub(super) fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    /// The entry of `key`, made by `fresh` if there is none.
    pub(super) fn entry(&mut self, key: K, now: Millis, fresh: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.most {
            self.make_room(now);
        }
        self.entries.entry(key).or_insert_with(fresh)
    }

    /// Drops what is over among the next `most` entries.
    pub(super) fn sweep(&mut self, now: Millis, most: usize) {
        for _ in 0..most.min(self.entries.len()) {
            match self.turn() {
                Some(at) if self.worth(at, now).is_none() => self.drop_at(at),
                Some(_) => self.hand += 1,
                None => return,
            }
        }
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    fn make_room(&mut self, now: Millis) {
        let mut least: Option<(u64, usize)> = None;
        for _ in 0..SEEN_AT_ONCE.min(self.entries.len()) {
            let Some(at) = self.turn() else { return };
            match self.worth(at, now) {
                None => return self.drop_at(at),
                Some(worth) if least.is_none_or(|(known, _)| worth < known) => least = Some((worth, at)),
                Some(_) => {}
            }
            self.hand += 1;
        }
        if let Some((_, at)) = least {
            self.pushed_out += 1;
            self.drop_at(at);
        }
    }

    /// Where the hand points; it goes back to the start behind the end.
    fn turn(&mut self) -> Option<usize> {
        if self.hand >= self.entries.len() {
            self.hand = 0;
        }
        (!self.entries.is_empty()).then_some(self.hand)
    }

    fn worth(&self, at: usize, now: Millis) -> Option<u64> {
        self.entries.get_index(at).and_then(|(_, value)| value.worth(now))
    }

    fn drop_at(&mut self, at: usize) {
        self.entries.swap_remove_index(at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Worth its number, until then.
    struct Until(u64);

    impl Worth for Until {
        fn worth(&self, now: Millis) -> Option<u64> {
            (self.0 > now.0).then_some(self.0)
        }
    }

    #[test]
    fn what_is_over_goes_before_what_is_not() {
        let mut shelf = Shelf::new(3);
        for (key, until) in [(1, 50), (2, 5), (3, 60)] {
            shelf.entry(key, Millis(0), || Until(until));
        }
        shelf.entry(4, Millis(10), || Until(70));
        assert!(shelf.get(&2).is_none() && shelf.get(&1).is_some() && shelf.pushed_out() == 0);
        shelf.entry(5, Millis(10), || Until(80));
        assert!(shelf.get(&1).is_none() && shelf.get(&3).is_some(), "the least of those that hold");
        assert_eq!((shelf.len(), shelf.pushed_out()), (3, 1));
    }

    #[test]
    fn a_sweep_goes_round_bit_by_bit() {
        let mut shelf = Shelf::new(100);
        for key in 0..100 {
            shelf.entry(key, Millis(0), || Until(u64::from(key % 2 == 0) * 1_000 + 1));
        }
        for _ in 0..10 {
            shelf.sweep(Millis(10), 10);
        }
        assert!(shelf.len() <= 75, "{}", shelf.len());
        shelf.sweep(Millis(10), 100);
        assert_eq!(shelf.len(), 50);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(
            most in 1usize..20, keys in prop::collection::vec((0u8..60, 0u64..100), 0..200),
        ) {
            let mut shelf = Shelf::new(most);
            for (now, (key, until)) in keys.into_iter().enumerate() {
                shelf.entry(key, Millis(now as u64), || Until(until));
                prop_assert!(shelf.len() <= most);
                prop_assert!(shelf.get(&key).is_some(), "who comes in is in");
            }
        }
    }
}
