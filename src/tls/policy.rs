//! Which TLS is spoken: versions, cipher suites, key exchange, tickets. Not configurable, on purpose.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite as suite, kx_group};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};

/// Cipher suites in our order, each with its IANA name: all with forward secrecy and authenticated
/// encryption. AES-128-GCM first: it is the fastest and no weaker in practice.
const SUITES: [(SupportedCipherSuite, &str); 9] = [
    (suite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    (suite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
    (suite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256"),
    (suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    (suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    (suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// What all listeners share for the life of the process. It outlives generations, so that a reload
/// does not cost every client its session.
#[derive(Debug)]
pub struct Policy {
    provider: Arc<CryptoProvider>,
    /// Makes and reads session tickets; its keys change every six hours and live for twelve. Shared by
    /// all workers, so that a client may come back to any of them.
    tickets: Arc<dyn ProducesTickets>,
}

impl Policy {
    /// Draws the first ticket key; an error means that the system gives no random numbers.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self { provider: Arc::new(provider()), tickets: Ticketer::new()? })
    }

    /// The configuration of one listener. A new generation builds a new one: nothing in it changes.
    pub fn server_config(&self, certificates: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        config.ticketer = Arc::clone(&self.tickets);
        // Tickets carry the session; nothing is kept here, so there is nothing to lock or to fill.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A replayed request is a request: no 0-RTT (RFC 8446 section 8).
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        Ok(Arc::new(config))
    }
}

/// The cryptography behind TLS, narrowed to what we offer.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: SUITES.iter().map(|(suite, _)| *suite).collect(),
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// The IANA name of a cipher suite that we offer.
pub(super) fn suite_name(wanted: CipherSuite) -> &'static str {
    SUITES.iter().find(|(suite, _)| suite.suite() == wanted).map_or("unknown", |(_, name)| name)
}
