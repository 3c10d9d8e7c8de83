//! Large buffers for what the origin sends, on loan from the thread's pool.
//!
//! A piece of a body is read into a block, goes on as [`Bytes`] without a copy, and its block comes back
//! when the last of them is dropped. All answers of a thread share a few blocks, the one used last
//! first: a body that waits holds none, and the next piece finds a block that is still in the cache.

use std::cell::RefCell;

use bytes::Bytes;

/// Room in a small block: little is expected, or the reader may be held back with many others.
pub(super) const SMALL: usize = 32 * 1024;
/// Room in a large block. Measured with 10 MiB downloads: half of it costs 30 % more CPU, twice as much
/// saves 0 to 5 %, which the memory is not worth.
pub(super) const LARGE: usize = 128 * 1024;
/// How many large blocks of a thread may be on loan, 8 MiB: with more readers than that who are slow to
/// take their pieces, the others get small ones.
const LENT: usize = 64;
/// Where the data starts. Large blocks begin at a page boundary, and copying from there to a few bytes
/// behind another page boundary (a TLS record behind its header) falls to a fraction of the speed on
/// some processors, because the addresses alias.
const OFFSET: usize = 1024;
/// How many free blocks of each size a thread keeps. More than that is memory better given back.
const SPARE: usize = 8;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), large: Vec::new(), lent: 0 }) };
}

/// The free blocks of a thread, by their size.
struct Pool {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    /// Large blocks on loan.
    lent: usize,
}

/// A buffer on loan. Only what was put in since it was taken can be read from it.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    end: usize,
}

impl Block {
    /// An empty block with room for `want` bytes; for fewer if that is more than [`LARGE`], or if too many
    /// large ones are on loan.
    #[must_use]
    pub(super) fn take(want: usize) -> Self {
        let bytes = POOL.try_with(|pool| pool.borrow_mut().lend(want)).unwrap_or_else(|_| fresh(SMALL));
        Self { bytes, end: OFFSET }
    }

    /// Where bytes may be put; see [`filled`](Self::filled).
    #[must_use]
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(OFFSET..).unwrap_or_default()
    }

    /// The first `count` bytes of [`space`](Self::space), on their way.
    #[must_use]
    pub(super) fn filled(mut self, count: usize) -> Bytes {
        self.end = self.bytes.len().min(OFFSET.saturating_add(count));
        Bytes::from_owner(self)
    }
}

impl Pool {
    fn lend(&mut self, want: usize) -> Box<[u8]> {
        if want <= SMALL || self.lent >= LENT {
            return self.small.pop().unwrap_or_else(|| fresh(SMALL));
        }
        self.lent += 1;
        self.large.pop().unwrap_or_else(|| fresh(LARGE))
    }

    fn take_back(&mut self, bytes: Box<[u8]>) {
        let shelf = if bytes.len() > OFFSET + SMALL {
            self.lent = self.lent.saturating_sub(1);
            &mut self.large
        } else {
            &mut self.small
        };
        if shelf.len() < SPARE {
            shelf.push(bytes);
        }
    }
}

fn fresh(room: usize) -> Box<[u8]> {
    vec![0; OFFSET + room].into_boxed_slice()
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(OFFSET..self.end).unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // While the thread ends its pool may be gone already: then the block is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().take_back(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Free blocks, small and large.
    fn kept() -> (usize, usize) {
        POOL.with_borrow(|pool| (pool.small.len(), pool.large.len()))
    }

    #[test]
    fn a_block_comes_back_with_its_last_bytes_and_is_the_next_one() {
        let mut block = Block::take(1);
        assert_eq!(block.space().len(), SMALL);
        block.space()[..4].copy_from_slice(b"abcd");
        let place = block.bytes.as_ptr();
        let bytes = block.filled(3);
        assert_eq!(bytes, "abc");
        assert_eq!(bytes.as_ptr().addr(), place.addr() + OFFSET);
        let rest = bytes.slice(1..);
        drop(bytes);
        assert_eq!((kept(), &rest[..]), ((0, 0), &b"bc"[..]));
        drop(rest);
        assert_eq!(kept(), (1, 0));
        let again = Block::take(SMALL);
        assert_eq!(again.bytes.as_ptr(), place);
        assert_eq!(again.as_ref(), b"", "what an earlier borrower left cannot be read");
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_none_is_larger_than_large() {
        let blocks: Vec<Block> = (0..SPARE + 5).map(|_| Block::take(usize::MAX)).collect();
        drop(blocks);
        assert_eq!(kept(), (0, SPARE));
        let mut block = Block::take(SMALL + 1);
        assert_eq!(block.space().len(), LARGE);
        assert_eq!(block.filled(usize::MAX).len(), LARGE);
    }

    #[test]
    fn when_many_large_ones_are_on_loan_the_next_is_small() {
        let pieces: Vec<Bytes> = (0..LENT).map(|_| Block::take(LARGE).filled(1)).collect();
        assert_eq!(Block::take(LARGE).space().len(), SMALL);
        drop(pieces);
        assert_eq!(Block::take(LARGE).space().len(), LARGE);
    }
}
