//! The generation that is in force, swapped atomically.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::generation::Generation;

/// The generation in force. Each request loads it once and stays with it to its end.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Generation>,
}

impl Live {
    /// Starts with `generation`.
    #[must_use]
    pub fn new(generation: Arc<Generation>) -> Self {
        Self { current: ArcSwap::new(generation) }
    }

    /// The generation in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Puts another one in force; requests under way keep theirs.
    pub fn swap(&self, generation: Arc<Generation>) {
        self.current.store(generation);
    }
}
