//! TLS towards clients: which TLS, which certificate, and the stream that hyper reads and writes.

pub mod accept;
mod block;
pub mod clients;
pub mod dev_ca;
pub mod expiry;
pub mod folder;
pub mod identity;
mod key_log;
pub mod lazy;
pub mod load;
pub mod offer;
pub mod pem;
pub mod plain;
pub mod policy;
pub mod profile;
pub mod read_into;
mod session;
pub mod store;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod tickets;
pub mod trust;
pub mod watch;
pub mod x509;

pub use accept::{AcceptError, Alpn, Cause, Facts, accept};
pub use dev_ca::{DevCa, DevCaError, throw_away, vouched};
pub use identity::Identity;
pub use lazy::{Flusher, Lazy, lazy};
pub use load::{Certificate, Files, load};
pub use offer::Offer;
pub use plain::Plain;
pub use policy::Policy;
pub use profile::Profile;
pub use read_into::ReadInto;
pub use store::{Store, UnknownName};
pub use stream::{Tapped, TlsStream};
pub use trust::trust_instructions;
pub use x509::CertificateFacts;
