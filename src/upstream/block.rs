//! Large buffers for what the origin sends, on loan from the thread's pool.
//!
//! A piece of a body is read into a block, goes on as [`Bytes`] without a copy, and its block comes back
//! when the last of them is dropped. All answers of a thread share a few blocks, the one used last
//! first: a body that waits holds none, and the next piece finds a block that is still in the cache.

use std::cell::RefCell;

use bytes::Bytes;

/// Room in a small block: little is expected, or the reader may be held back with many others.
pub(super) const SMALL: usize = 32 * 1024;
/// Room in a large block.
pub(super) const LARGE: usize = 128 * 1024;
/// Where the data starts. Large blocks begin at a page boundary, and copying from there to a few bytes
/// behind another page boundary (a TLS record behind its header) falls to a fraction of the speed on
/// some processors, because the addresses alias.
const OFFSET: usize = 1024;
/// How many free blocks of each size a thread keeps. More than that is memory better given back.
const SPARE: usize = 8;

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A buffer on loan. Only what was put in since it was taken can be read from it.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    end: usize,
}

impl Block {
    /// An empty block with room for `want` bytes, or for [`LARGE`] if that is less.
    #[must_use]
    pub(super) fn take(want: usize) -> Self {
        let room = if want <= SMALL { SMALL } else { LARGE };
        let bytes = POOL.try_with(|pool| shelf(&mut pool.borrow_mut(), room).pop()).ok().flatten();
        let bytes = bytes.unwrap_or_else(|| vec![0; OFFSET + room].into_boxed_slice());
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

/// Where the free blocks with this room are.
fn shelf(pool: &mut [Vec<Box<[u8]>>; 2], room: usize) -> &mut Vec<Box<[u8]>> {
    let [small, large] = pool;
    if room <= SMALL { small } else { large }
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
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let shelf = shelf(&mut pool, bytes.len() - OFFSET);
            if shelf.len() < SPARE {
                shelf.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(room: usize) -> usize {
        POOL.with(|pool| shelf(&mut pool.borrow_mut(), room).len())
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
        assert_eq!((kept(SMALL), &rest[..]), (0, &b"bc"[..]));
        drop(rest);
        assert_eq!((kept(SMALL), kept(LARGE)), (1, 0));
        let again = Block::take(SMALL);
        assert_eq!(again.bytes.as_ptr(), place);
        assert_eq!(again.as_ref(), b"", "what an earlier borrower left cannot be read");
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_none_is_larger_than_large() {
        let blocks: Vec<Block> = (0..SPARE + 5).map(|_| Block::take(usize::MAX)).collect();
        drop(blocks);
        assert_eq!(kept(LARGE), SPARE);
        let mut block = Block::take(SMALL + 1);
        assert_eq!(block.space().len(), LARGE);
        assert_eq!(block.filled(usize::MAX).len(), LARGE);
    }
}
