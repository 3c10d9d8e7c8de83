//! TLS towards clients: which TLS, which certificate, and the stream that hyper reads and writes.

pub mod accept;
mod block;
pub mod lazy;
pub mod plain;
pub mod policy;
mod session;
pub mod stream;

pub use accept::{AcceptError, Alpn, Cause, Facts, accept};
pub use lazy::{Flusher, Lazy, lazy};
pub use plain::Plain;
pub use policy::Policy;
pub use stream::TlsStream;
