//! The origin's side: what it gets, how it is reached, and what it answers.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

/// A response body as it comes from the origin's socket.
#[derive(Debug)]
pub struct OriginBody {
    left: u64,
}

impl OriginBody {
    /// The next piece of data; `None` at the end.
    pub fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(None)
    }

    /// Whether the end was reached.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.left == 0
    }

    /// Bytes left, if the origin said so.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }
}
