//! What all TLS listeners share: the cipher suites that are known, tickets, and how a listener's configuration is made.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite as suite};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};
use zeroize::Zeroizing;

use super::accept::ALPN;
use super::clients;
use super::key_log::KeyLogFile;
use super::profile::Profile;
use super::tickets::{self, Shared};
use crate::clock;

/// Cipher suites in our order, each with its IANA name: all with forward secrecy and authenticated
/// encryption. AES-128-GCM first: it is the fastest and no weaker in practice.
pub(super) const SUITES: [(SupportedCipherSuite, &str); 9] = [
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
    /// Makes and reads session tickets; its keys change every six hours and live for twelve. Shared by
    /// all workers, so that a client may come back to any of them.
    tickets: Arc<dyn ProducesTickets>,
    /// Keys that other processes have, too. They take the place of the others where there are some.
    shared: Arc<Shared>,
}

impl Policy {
    /// Draws the first ticket key; an error means that the system gives no random numbers.
    pub fn new() -> Result<Self, rustls::Error> {
        Ok(Self { tickets: Ticketer::new()?, shared: Arc::default() })
    }

    /// Where the keys come that are shared.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration of one listener. A new generation builds a new one: nothing in it changes.
    pub fn server_config(
        &self,
        certificates: Arc<dyn ResolvesServerCert>,
        profile: &Profile,
        clients: &clients::Policy,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(profile.provider()))
            .with_protocol_versions(&profile.versions())?
            .with_client_cert_verifier(
                clients.verifier().unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
            .with_cert_resolver(certificates);
        if let Some(path) = &profile.key_log {
            let failed = |error| rustls::Error::General(format!("cannot write {}: {error}", path.display()));
            config.key_log = Arc::new(KeyLogFile::open(path).map_err(failed)?);
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        let shared = (clients.wish == clients::Wish::Off).then(|| Arc::clone(&self.shared));
        config.ticketer = Arc::new(Scoped { inner: Arc::clone(&self.tickets), shared, id: clients.id() });
        // Tickets carry the session; nothing is kept here, so there is nothing to lock or to fill.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A replayed request is a request: no 0-RTT (RFC 8446 section 8).
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        Ok(Arc::new(config))
    }
}

/// The configuration for a CA that looks for its proof (RFC 8737): it asks for no certificate, speaks `acme-tls/1` alone,
/// and makes no session.
pub fn proof_config(
    certificates: Arc<dyn ResolvesServerCert>,
    profile: &Profile,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(profile.provider()))
        .with_protocol_versions(&profile.versions())?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Tickets that are good for one policy of client certificates only: a session carries the certificate that was shown,
/// and no verifier looks at it again. A session of a site that asks nobody, or that asked others yesterday, resumes
/// nothing here.
#[derive(Debug)]
struct Scoped {
    inner: Arc<dyn ProducesTickets>,
    /// None where clients are asked for certificates: who they are never leaves this process.
    shared: Option<Arc<Shared>>,
    id: clients::Id,
}

impl ProducesTickets for Scoped {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let scoped = Zeroizing::new([&self.id, plain].concat());
        let shared = self.shared.as_ref().filter(|_| tickets::is_tls13(plain));
        let sealed = shared.and_then(|shared| shared.ring().seal(&scoped, clock::millis()));
        sealed.or_else(|| self.inner.encrypt(&scoped))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let shared = self.shared.as_ref();
        let opened = shared.and_then(|shared| shared.ring().open(cipher, clock::millis()));
        let mut plain = opened.or_else(|| self.inner.decrypt(cipher))?;
        plain.starts_with(&self.id).then(|| plain.split_off(self.id.len()))
    }
}

/// The cryptography of the usual policy.
#[must_use]
pub fn provider() -> CryptoProvider {
    Profile::default().provider()
}

/// The IANA name of a cipher suite that we offer.
pub(super) fn suite_name(wanted: CipherSuite) -> &'static str {
    SUITES.iter().find(|(suite, _)| suite.suite() == wanted).map_or("unknown", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;
    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    #[test]
    fn the_offer_is_modern_and_in_our_order() {
        let provider = provider();
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        let wanted =
            [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
        assert_eq!(groups, wanted);
        let names: Vec<_> = provider.cipher_suites.iter().map(|s| suite_name(s.suite())).collect();
        assert_eq!(names.first(), Some(&"TLS_AES_128_GCM_SHA256"));
        for name in names {
            let tls13 = name.starts_with("TLS_AES") || name.starts_with("TLS_CHACHA20");
            assert!(tls13 || name.starts_with("TLS_ECDHE_"), "{name} has forward secrecy");
            assert!(name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"), "{name} is an AEAD");
        }
    }

    #[test]
    fn the_names_are_those_of_their_suites() {
        for (suite, name) in SUITES {
            let rustls = suite.suite().as_str().unwrap().replace("TLS13_", "TLS_");
            assert_eq!(rustls, name);
        }
    }

    #[test]
    fn the_configuration_has_tickets_and_no_early_data() {
        let policy = Policy::new().unwrap();
        let config = policy
            .server_config(
                Arc::new(ResolvesServerCertUsingSni::new()),
                &Profile::default(),
                &crate::tls::clients::Policy::off(),
            )
            .unwrap();
        assert!(config.ticketer.enabled() && !config.session_storage.can_cache());
        assert_eq!((config.max_early_data_size, config.send_half_rtt_data), (0, false));
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        let other = policy
            .server_config(
                Arc::new(ResolvesServerCertUsingSni::new()),
                &Profile::default(),
                &crate::tls::clients::Policy::off(),
            )
            .unwrap();
        let ticket = config.ticketer.encrypt(b"session").unwrap();
        assert_eq!(other.ticketer.decrypt(&ticket).unwrap(), b"session", "a reload keeps the sessions");
    }
}
