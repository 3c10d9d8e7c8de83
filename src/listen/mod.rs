//! The door: sockets, first bytes, caps, and serving one connection after the other.

pub mod first_bytes;
