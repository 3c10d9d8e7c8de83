//! The origin's side: what it gets, how it is reached, and what it answers.
//!
//! A lean HTTP/1.1 client of our own. A request takes one connection from a pool that belongs to its
//! worker, is written with one system call, and its answer is polled straight from the socket: no task
//! and no channel stand between. What may be repeated, and who is to blame, is data in
//! [`UpstreamError`].

mod balance;
mod block;
mod body;
mod connect;
mod endpoint;
mod error;
mod exchange;
mod health;
mod http2;
mod names;
mod pin;
mod pool;
pub mod rewrite;
mod send;
pub mod settings;
mod stream;
mod timer;
mod tls;
mod tls_settings;
mod tunnel;
mod upload;

#[cfg(test)]
mod tests;

pub use body::OriginBody;
pub use endpoint::Endpoint;
pub use error::{Blame, Facts, Kind, Retry, UpstreamError};
pub use http2::OriginStream;
pub use send::{Answer, Call, Limits, Upstream};
pub use tunnel::{Carried, Toll, Tunnel};
