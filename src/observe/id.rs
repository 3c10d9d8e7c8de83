//! Request ids: what a visitor reads out over the telephone and an administrator finds in the log.
//!
//! Twenty characters of Crockford's base 32 (digits and lower-case letters without `i`, `l`, `o`, `u`):
//! eight of time in milliseconds, so that ids sort by time, and twelve of a keyed hash over worker and
//! counter. The key is drawn once per process, so ids are unique across workers and restarts, tell
//! nothing about how many requests there were, and cost no system call.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The characters of an id that was made here.
pub const LENGTH: usize = 20;
/// The shortest id that is taken over from a trusted proxy.
const ADOPTED_MIN: usize = 8;
/// The longest id that is taken over from a trusted proxy.
const ADOPTED_MAX: usize = 64;
/// 2020-01-01, from 1970: forty bits of milliseconds from here last until 2054.
const EPOCH: Duration = Duration::from_hours(438_288);
const ALPHABET: [u8; 32] = *b"0123456789abcdefghjkmnpqrstvwxyz";

/// The id of one request; the reference id of its refusal page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; ADOPTED_MAX],
    length: u8,
}

/// Makes ids and other unguessable numbers for one worker.
#[derive(Debug)]
pub struct Source {
    key: Arc<RandomState>,
    worker: u64,
    counter: AtomicU64,
}

impl RequestId {
    /// The id for a moment and sixty unguessable bits.
    #[must_use]
    pub fn new(wall: SystemTime, random: u64) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(EPOCH);
        let mut text = [0; ADOPTED_MAX];
        let (time, rest) = text.split_at_mut(8);
        spell(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), time);
        spell(random, rest.split_at_mut(LENGTH - 8).0);
        Self { text, length: 20 }
    }

    /// The id that a trusted proxy sent in `X-Request-Id`, if it is sane: 8 to 64 letters, digits, `-`,
    /// `_` and `.`. Whatever else it holds would have to be escaped wherever the id goes.
    #[must_use]
    pub fn adopted(sent: &[u8]) -> Option<Self> {
        let sane = sent.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !sane || !(ADOPTED_MIN..=ADOPTED_MAX).contains(&sent.len()) {
            return None;
        }
        let mut text = [0; ADOPTED_MAX];
        text.get_mut(..sent.len())?.copy_from_slice(sent);
        Some(Self { text, length: u8::try_from(sent.len()).ok()? })
    }

    /// The id as text; every character is safe in URLs, HTML, JSON and shells.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The same in bytes, all of them ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Source {
    /// The source of one worker; `key` is shared by all workers of the process.
    #[must_use]
    pub fn new(key: Arc<RandomState>, worker: usize) -> Self {
        Self { key, worker: worker as u64, counter: AtomicU64::new(0) }
    }

    /// A number that was not handed out before and cannot be guessed from those that were.
    pub fn draw(&self) -> u64 {
        // The worker's number is above every bit that the counter will ever reach.
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(self.worker.rotate_right(16) ^ self.counter.fetch_add(1, Ordering::Relaxed));
        hasher.finish()
    }
}

/// Writes the lowest bits of `number`, five for each place, the highest first.
fn spell(mut number: u64, places: &mut [u8]) {
    for place in places.iter_mut().rev() {
        *place = usize::try_from(number & 31).ok().and_then(|i| ALPHABET.get(i)).copied().unwrap_or(b'0');
        number >>= 5;
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn ids_are_twenty_characters_and_sort_by_time() {
        let ids: Vec<String> =
            [0, 1, 31, 32, 1 << 39].iter().map(|ms| RequestId::new(at(*ms), u64::MAX).to_string()).collect();
        assert!(ids.iter().all(|id| id.len() == LENGTH), "{ids:?}");
        assert!(ids.is_sorted(), "{ids:?}");
        assert_eq!(ids[0], "00000000zzzzzzzzzzzz");
    }

    #[test]
    fn workers_and_processes_never_make_the_same_id() {
        let (one, other) = (Arc::new(RandomState::new()), Arc::new(RandomState::new()));
        let sources =
            [Source::new(Arc::clone(&one), 0), Source::new(one, 1), Source::new(Arc::clone(&other), 0)];
        let mut seen = HashSet::new();
        for source in &sources {
            for _ in 0..5_000 {
                assert!(seen.insert(RequestId::new(at(7), source.draw()).to_string()));
            }
        }
    }

    #[test]
    fn only_sane_ids_are_adopted() {
        assert_eq!(RequestId::adopted(b"4bf92f3577b34da6").unwrap().as_str(), "4bf92f3577b34da6");
        assert!(RequestId::adopted(&[b'a'; 64]).is_some());
        for bad in [
            &b"short"[..],
            &[b'a'; 65],
            b"",
            b"with blank in it",
            b"new\nline-here",
            b"\"quoted\"",
            b"<script>alert",
        ] {
            assert!(RequestId::adopted(bad).is_none(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_adopted_is_kept_as_it_was(sent in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(id) = RequestId::adopted(&sent) {
                prop_assert_eq!(id.as_str().as_bytes(), &sent[..]);
                prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"\"\\<>&'".contains(&b)));
            }
        }

        #[test]
        fn any_moment_makes_an_id(secs in any::<u32>(), random in any::<u64>()) {
            let id = RequestId::new(UNIX_EPOCH + Duration::from_secs(u64::from(secs)), random);
            prop_assert_eq!(id.as_str().len(), LENGTH);
        }
    }
}
