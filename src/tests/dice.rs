//! Chance that can be repeated.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `SplitMix64` (Steele, Lea and Flood, 2014): every seed is as good as any other.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for somebody else, so that how often one throws changes nothing for the other.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`.
    pub(crate) fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let width = (range.end() - range.start()) as u64 + 1;
        range.start() + usize::try_from(self.next() % width).unwrap()
    }

    /// Whether something happens that happens once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.within(1..=times) == 1
    }

    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.within(0..=among.len() - 1)]
    }

    /// So many milliseconds.
    pub(crate) fn millis(&mut self, range: RangeInclusive<usize>) -> Duration {
        Duration::from_millis(self.within(range) as u64)
    }

    /// A size: often tiny, seldom large, at most `most`.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        match self.within(0..=9) {
            0 => 0,
            1..=5 => self.within(0..=most.min(64)),
            6..=8 => self.within(0..=most.min(4096)),
            _ => self.within(0..=most),
        }
    }

    /// Cuts `bytes` into pieces that are not empty.
    pub(crate) fn cut(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let whole = self.once_in(2);
        let most = *self.pick(&[1, 7, 100, 2000, 40_000]);
        while !bytes.is_empty() {
            // A long tail byte by byte would only take long.
            let most = if whole { bytes.len() } else { self.within(1..=most).max(bytes.len() / 50) };
            let (piece, rest) = bytes.split_at(most.min(bytes.len()));
            pieces.push(piece.to_vec());
            bytes = rest;
        }
        pieces
    }
}
