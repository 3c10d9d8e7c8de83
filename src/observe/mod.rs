//! What is seen of every request: one record, and where it goes.

use crate::body::BodyError;

/// One request from its first byte to its last.
#[derive(Debug, Default)]
pub struct Record {
    sent: u64,
    complete: bool,
}

impl Record {
    /// `bytes` of the response body went towards the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The response body broke off.
    pub fn broke_off(&mut self, _error: &BodyError) {
        self.complete = false;
    }

    /// The response body reached its end.
    pub fn complete(&mut self) {
        self.complete = true;
    }
}
