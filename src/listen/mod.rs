//! The door: sockets, first bytes, caps, and serving one connection after the other.

pub mod census;
pub mod first_bytes;
mod holder;
pub mod limits;
pub mod settings;
pub mod socket;
pub mod tally;
