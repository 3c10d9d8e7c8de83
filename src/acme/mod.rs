//! Certificates that come by themselves, from a CA that speaks ACME (RFC 8555), and are renewed in time.
//!
//! The [`Steward`] on the control thread orders; the [`Book`] holds what has come, and what a CA may ask for meanwhile.
//! Handshakes and requests look into the book and never wait: until a certificate is there, a self-signed one serves.

pub mod book;
mod client;
pub mod due;
mod hook;
mod order;
pub mod settings;
mod steward;
mod storage;

pub use book::{Book, Prover, Resolver};
pub use settings::Policy;
pub use steward::{Kept, Steward, kept};

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;

use crate::generation::Generation;
use crate::tls::Store;
use crate::tls::accept::ALPN;

/// Where the listener with this number finds its certificates, if they come from here; `stand_in` serves until they have
/// come.
#[must_use]
pub fn resolver(
    generation: &Generation,
    number: usize,
    book: &Arc<Book>,
    stand_in: &Arc<Store>,
) -> Option<Arc<dyn ResolvesServerCert>> {
    let names = Arc::clone(generation.acme.as_ref()?.names_of(number)?);
    Some(Arc::new(Resolver { book: Arc::clone(book), names, stand_in: Arc::clone(stand_in) }))
}

/// The same, for a CA that looks for the answer to TLS-ALPN-01, too.
#[must_use]
pub fn answering(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    let mut config = Arc::unwrap_or_clone(config);
    // Last: nobody who speaks HTTP gets it.
    config.alpn_protocols.push(ALPN.to_vec());
    Arc::new(config)
}
