//! A text of which only the beginning is kept, so that no body can make it grow.

/// The first `N` bytes of a text, and how long the whole is.
#[derive(Clone, Debug)]
pub struct Short<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Short<N> {
    /// Forgets what it holds.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Takes one byte more.
    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Takes many bytes more.
    pub fn extend(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        room.iter_mut().zip(more).for_each(|(slot, byte)| *slot = *byte);
        self.length = self.length.saturating_add(more.len());
    }

    /// How long the whole is, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing came yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The beginning, as far as it is kept.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        self.first(self.length)
    }

    /// The first `count` bytes, as far as they are kept.
    #[must_use]
    pub fn first(&self, count: usize) -> &[u8] {
        self.bytes.get(..count.min(self.length).min(N)).unwrap_or_default()
    }
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0 }
    }
}
