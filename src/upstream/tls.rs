//! TLS towards an origin: verified by default, insecure only where it is spelled dangerously.
//!
//! Pins are *additional*: the chain and the name are verified as always, and then the key of the
//! origin's own certificate must be one of the pins. A pin therefore never weakens anything, and a
//! self-signed origin needs its certificate as `roots`, not a pin.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pin::Pin;

/// What HTTP/2 is called in a handshake.
pub(super) const HTTP2: &[u8] = b"h2";

/// How TLS is spoken to one member.
#[derive(Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    /// The same without HTTP/2, for what HTTP/2 cannot carry; none where it is not offered anyway.
    http1: Option<Arc<ClientConfig>>,
    name: ServerName<'static>,
}

/// How an origin is recognised, and how Ravelin shows itself to it.
#[derive(Debug)]
pub(super) struct Trust {
    /// The roots that certificates must chain to; `None` accepts any certificate.
    pub(super) roots: Option<Arc<RootCertStore>>,
    /// Certificates that the operator named himself: an origin may show one of these, whatever else it may sign.
    pub(super) named: Vec<CertificateDer<'static>>,
    /// Keys of which the origin must have one; none pinned if empty.
    pub(super) pins: Vec<Pin>,
    /// The certificate and key that Ravelin shows.
    pub(super) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Tls {
    /// TLS to a member that is called `name`.
    pub(super) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        Self { config, http1: None, name }
    }

    /// The same, which offers HTTP/2 as `config` does.
    pub(super) fn or_http2(self, config: Arc<ClientConfig>) -> Self {
        Self { config, http1: Some(self.config), name: self.name }
    }

    /// Whether HTTP/2 is offered.
    pub(super) fn offers_http2(&self) -> bool {
        self.http1.is_some()
    }

    /// Shakes hands; with `http1`, no other version is offered.
    pub(super) async fn connect(&self, tcp: TcpStream, http1: bool) -> io::Result<TlsStream<TcpStream>> {
        let config = self.http1.as_ref().filter(|_| http1).unwrap_or(&self.config);
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), tcp).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The rustls configuration that all members of a site share, with it the memory of TLS sessions.
pub(super) fn config(trust: Trust) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier::new(trust.roots, trust.named, trust.pins, Arc::clone(&provider))?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match trust.client {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same configuration, which offers HTTP/2 first (RFC 9113 section 3.2).
pub(super) fn with_http2(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols.insert(0, HTTP2.to_vec());
    Arc::new(config)
}

/// Chain and name by webpki (unless any certificate is accepted), then the pins.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    named: Vec<CertificateDer<'static>>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        roots: Option<Arc<RootCertStore>>,
        named: Vec<CertificateDer<'static>>,
        pins: Vec<Pin>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let build = |roots| {
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| Error::General(error.to_string()))
        };
        let chain = roots.map(build).transpose()?;
        Ok(Self { chain, named, pins, provider })
    }

    fn check_pins(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let seen = Pin::of(parsed.public_key().raw);
        if self.pins.contains(&seen) {
            return Ok(());
        }
        Err(Error::General(format!("the origin's key is not pinned; its pin_sha256 is {seen}")))
    }
}

/// Verifies the very certificate that the operator named: its dates, its name, and that it is for servers. `openssl req
/// -x509` marks what it makes as a CA, which webpki takes from no server; but who named it trusts this key already.
fn verify_named(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |error| Err(Error::InvalidCertificate(error));
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return bad(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after.timestamp() {
        return bad(CertificateError::Expired);
    }
    match parsed.extended_key_usage() {
        Ok(usage) if usage.as_ref().is_none_or(|usage| usage.value.server_auth || usage.value.any) => {}
        _ => return bad(CertificateError::InvalidPurpose),
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(chain) = &self.chain {
            let verified =
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            if let Err(error) = verified {
                if !self.named.contains(end_entity) {
                    return Err(error);
                }
                verify_named(end_entity, server_name, now)?;
            }
        }
        self.check_pins(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
