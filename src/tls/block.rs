//! Buffers that a connection borrows from its thread only while bytes are in them.
//!
//! Ten thousand idle connections must not hold ten thousand buffers: a [`Block`] comes from a pool of
//! the current thread and goes back when it is dropped. Data starts at an offset inside the block
//! ([`Lead`]): both ends of a copy lying at nearly the same offset of a 4096-byte page slow `memmove`
//! down twentyfold on some processors, and page-aligned buffers hit exactly that.

use std::cell::RefCell;

/// Bytes of a small block: one TLS record of the largest size on the wire (RFC 8446 section 5.2:
/// 5 + 16384 + 256; RFC 5246 section 6.2.3 allows 2048 instead of 256), the lead, and some room.
const SMALL: usize = 20 * 1024;
/// Bytes of a large block: 128 KiB of plaintext, one more record, and their overhead.
const LARGE: usize = 160 * 1024;
/// How many free blocks a thread keeps. More than that is memory better given back.
const SPARE_SMALL: usize = 64;
const SPARE_LARGE: usize = 8;

/// How large a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// One record.
    Small,
    /// Bulk data.
    Large,
}

/// Where in a block the data starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// For bytes that rustls copies out of the block.
    Source = 1024,
    /// For bytes that rustls copies into the block.
    Target = 2048,
}

/// A buffer on loan from the thread's pool. Only what was written since it was taken can be read
/// from it: bytes of an earlier borrower stay behind `end`.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    lead: usize,
    start: usize,
    end: usize,
}

#[derive(Default)]
struct Pool {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Block {
    /// An empty block.
    pub(super) fn take(class: Class, lead: Lead) -> Self {
        let bytes = POOL.try_with(|pool| pool.borrow_mut().pop(class)).ok().flatten();
        let bytes = bytes.unwrap_or_else(|| vec![0; class.bytes()].into_boxed_slice());
        let lead = lead as usize;
        Self { bytes, lead, start: lead, end: lead }
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The waiting bytes.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The waiting bytes, to be decrypted in place.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Where more bytes may be written; see [`commit`](Self::commit).
    pub(super) fn spare_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// How many more bytes fit behind the waiting ones.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// `count` bytes have been written to the front of [`spare_mut`](Self::spare_mut).
    pub(super) fn commit(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The first `count` waiting bytes are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.start = self.lead;
            self.end = self.lead;
        }
    }

    /// Copies as much of `data` as fits and says how much that was.
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.room());
        if let (Some(to), Some(from)) = (self.spare_mut().get_mut(..count), data.get(..count)) {
            to.copy_from_slice(from);
        }
        self.commit(count);
        count
    }

    /// Moves the waiting bytes to the front, so that all free room is behind them.
    pub(super) fn compact(&mut self) {
        if self.start > self.lead {
            self.bytes.copy_within(self.start..self.end, self.lead);
            self.end = self.lead + self.len();
            self.start = self.lead;
        }
    }

    /// Makes room for `need` more bytes in `slot`: takes a block, moves its bytes to the front, or
    /// moves them to a large block. `None` if even that is too small.
    pub(super) fn reserve(slot: &mut Option<Self>, lead: Lead, need: usize) -> Option<&mut Self> {
        let waiting = slot.as_ref().map_or(0, Self::len);
        let class = Class::for_bytes(waiting + need + lead as usize)?;
        let block = slot.get_or_insert_with(|| Self::take(class, lead));
        if block.room() < need {
            block.compact();
        }
        if block.room() < need {
            let mut larger = Self::take(Class::Large, lead);
            larger.push(block.filled());
            *block = larger;
        }
        (block.room() >= need).then_some(block)
    }

    /// Gives an empty block back to the pool.
    pub(super) fn release(slot: &mut Option<Self>) {
        if slot.as_ref().is_some_and(Self::is_empty) {
            *slot = None;
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // While the thread ends its pool may be gone already: then the block is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().put(bytes));
    }
}

impl Class {
    fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL,
            Self::Large => LARGE,
        }
    }

    fn for_bytes(bytes: usize) -> Option<Self> {
        [Self::Small, Self::Large].into_iter().find(|class| bytes <= class.bytes())
    }
}

impl Pool {
    fn pop(&mut self, class: Class) -> Option<Box<[u8]>> {
        match class {
            Class::Small => self.small.pop(),
            Class::Large => self.large.pop(),
        }
    }

    fn put(&mut self, bytes: Box<[u8]>) {
        let (list, most) = match bytes.len() {
            SMALL => (&mut self.small, SPARE_SMALL),
            LARGE => (&mut self.large, SPARE_LARGE),
            _ => return,
        };
        if list.len() < most {
            list.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_back_what_was_pushed_and_nothing_older() {
        let mut slot = Some(Block::take(Class::Small, Lead::Source));
        let block = slot.as_mut().unwrap();
        assert_eq!(block.push(&[7; 500]), 500);
        block.consume(200);
        assert_eq!(block.filled(), &[7; 300]);
        drop(slot);
        // The same memory, taken again, shows nothing of its earlier life.
        assert!(Block::take(Class::Small, Lead::Source).filled().is_empty());
    }

    #[test]
    fn reserve_compacts_then_grows_then_refuses() {
        let mut slot = None;
        Block::reserve(&mut slot, Lead::Source, 10).unwrap().push(&vec![1; 19_000]);
        slot.as_mut().unwrap().consume(18_000);
        let block = Block::reserve(&mut slot, Lead::Source, 17_000).unwrap();
        assert_eq!(block.bytes.len(), SMALL, "moving the bytes to the front was enough");
        assert_eq!(block.filled(), &[1; 1000]);
        let block = Block::reserve(&mut slot, Lead::Source, 100_000).unwrap();
        assert_eq!(block.bytes.len(), LARGE);
        assert_eq!(block.filled(), &[1; 1000]);
        assert!(Block::reserve(&mut slot, Lead::Source, LARGE).is_none());
        assert_eq!(slot.unwrap().filled(), &[1; 1000], "a refusal loses nothing");
    }

    #[test]
    fn push_stops_at_the_end_of_the_block() {
        let mut block = Block::take(Class::Small, Lead::Target);
        assert_eq!(block.push(&vec![1; SMALL]), SMALL - 2048);
        assert_eq!(block.push(&[1]), 0);
        block.commit(99);
        assert_eq!(block.len(), SMALL - 2048);
    }
}
