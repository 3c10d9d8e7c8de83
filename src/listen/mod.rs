//! The door: sockets, first bytes, caps, and serving one connection after the other.
//!
//! ```text
//! socket::bind ─ accept::run ─┬─ census (caps) ─ connection: sniff ─┬─ HTTP/1 ── http1 ─┐
//!                             └─ tally (counts)                     ├─ TLS ─ http1/http2 ┴─ the road
//!                                                                   └─ anything else: answer, or nothing
//! ```
//!
//! Every connection has a pulse, from which its deadlines follow, and a place, which it gives back when
//! its socket closes.

pub mod accept;
mod answer;
pub mod census;
mod conduct;
mod connection;
mod converse;
mod date;
pub mod door;
mod farewell;
pub mod first_bytes;
mod flight;
mod frames;
mod holder;
mod http1;
mod http2;
pub mod inherited;
mod introduction;
pub mod limits;
mod metered;
mod overheard;
pub mod proxy_protocol;
mod pulse;
mod roll;
pub mod settings;
pub mod socket;
pub mod tally;
#[cfg(test)]
mod tests;
mod timer;
mod trust;
mod wire;

pub use door::{Door, Terms};
