//! What has come from a CA, and what a CA may ask for while an order is under way; read by every handshake.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::head::Head;
use crate::reply::Reply;
use crate::tls::accept::ALPN;
use crate::tls::{Certificate, Store};

/// Where a CA looks for the answer to HTTP-01 (RFC 8555 section 8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The certificates of this process by name, and the challenge that is open. For the life of the process; generations
/// come and go.
#[derive(Debug, Default)]
pub struct Book {
    certificates: ArcSwap<HashMap<Box<str>, Arc<Certificate>>>,
    open: ArcSwapOption<Open>,
    /// Names that are waited for.
    pub(super) waiting: AtomicU64,
    /// Certificates that came.
    pub(super) issued: AtomicU64,
    /// Orders that failed.
    pub(super) failed: AtomicU64,
}

/// A challenge that is open. Replicas tell one another: the CA may come to any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Challenge {
    /// Whether it is TLS-ALPN-01; HTTP-01 otherwise.
    pub(super) tls: bool,
    /// The name or address that is to be proven.
    pub(super) name: String,
    /// The token of HTTP-01.
    pub(super) token: String,
    /// The key authorization (RFC 8555 section 8.1).
    pub(super) authorization: String,
    /// When it ends, in seconds of Unix time: a folder keeps what a process left behind that was killed.
    pub(super) until: u64,
}

#[derive(Debug)]
struct Open {
    challenge: Challenge,
    /// What the CA sends as server name, and the certificate that it wants to see.
    key: Option<(String, Arc<CertifiedKey>)>,
}

impl Book {
    /// The certificate for the name of a host: exact first, then a wildcard for exactly one label (RFC 9525 section 6.3).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Certificate>> {
        let certificates = self.certificates.load();
        if certificates.is_empty() {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let wildcard = || {
            let (label, parent) = name.split_once('.')?;
            if label.is_empty() { None } else { certificates.get(format!("*.{parent}").as_str()) }
        };
        certificates.get(name.as_str()).or_else(wildcard).cloned()
    }

    /// The certificate that was ordered for `name`, a wildcard as it is written.
    pub(super) fn exactly(&self, name: &str) -> Option<Arc<Certificate>> {
        self.certificates.load().get(name).cloned()
    }

    /// Every certificate with its name.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<Certificate>)> {
        self.certificates.load().iter().map(|(name, own)| (name.clone(), Arc::clone(own))).collect()
    }

    /// How many names are waited for, how many certificates came, and how many orders failed.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        [self.waiting.load(Relaxed), self.issued.load(Relaxed), self.failed.load(Relaxed)]
    }

    /// Serves `certificate` for `name` from the next handshake on.
    pub(super) fn enter(&self, name: &str, certificate: Arc<Certificate>) {
        let mut all = HashMap::clone(&self.certificates.load());
        all.insert(name.into(), certificate);
        self.certificates.store(Arc::new(all));
    }

    /// Drops what is wanted no more.
    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        let mut all = HashMap::clone(&self.certificates.load());
        let before = all.len();
        all.retain(|name, _| wanted(name));
        if all.len() != before {
            self.certificates.store(Arc::new(all));
        }
    }

    /// Opens a challenge in place of the one before.
    ///
    /// # Errors
    /// When no certificate can be made for it.
    pub(super) fn open(&self, challenge: &Challenge) -> Result<(), String> {
        if self.open.load().as_ref().is_some_and(|open| open.challenge == *challenge) {
            return Ok(());
        }
        let key = challenge.tls.then(|| proof(challenge)).transpose()?;
        let key = key.map(|key| (server_name(&challenge.name), key));
        self.open.store(Some(Arc::new(Open { challenge: challenge.clone(), key })));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.open.load().is_some()
    }

    /// No challenge is open.
    pub(super) fn close(&self) {
        self.open.store(None);
    }

    /// The answer to HTTP-01, if it is asked for the token that is open. Any other token is the origin's business.
    #[must_use]
    pub fn answer(&self, head: &Head<'_>) -> Option<Reply> {
        let open = self.open.load();
        let challenge = &open.as_ref()?.challenge;
        let token = head.target().path.and_then(|path| path.strip_prefix(WELL_KNOWN))?;
        let asked = matches!(*head.method(), Method::GET | Method::HEAD);
        if challenge.tls || token != challenge.token || !asked {
            return None;
        }
        let mut reply = Reply::new(StatusCode::OK, Body::full(challenge.authorization.clone()));
        reply.fields.push(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Some(reply)
    }

    fn proof(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let open = self.open.load();
        let (own, key) = open.as_ref()?.key.as_ref()?;
        own.eq_ignore_ascii_case(name).then(|| Arc::clone(key))
    }
}

/// The answer to TLS-ALPN-01, and no other certificate.
#[derive(Debug)]
pub struct Prover(
    /// Where the challenge is open.
    pub Arc<Book>,
);

impl ResolvesServerCert for Prover {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offers = hello.alpn()?;
        let alone = offers.next() == Some(ALPN) && offers.next().is_none();
        self.0.proof(hello.server_name()?).filter(|_| alone)
    }
}

/// The certificates of one listener: those that came, a self-signed one until they do, and the answer to TLS-ALPN-01.
#[derive(Debug)]
pub struct Resolver {
    /// What has come.
    pub book: Arc<Book>,
    /// The names of this listener; the first is the default.
    pub names: Arc<[Box<str>]>,
    /// What serves until then.
    pub stand_in: Arc<Store>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offers = hello.alpn().into_iter().flatten();
        if offers.next() == Some(ALPN) && offers.next().is_none() {
            return self.book.proof(hello.server_name()?);
        }
        let name = hello.server_name().map(ToOwned::to_owned);
        if let Some(own) = name.as_deref().and_then(|name| self.book.find(name)) {
            return Some(Arc::clone(&own.key));
        }
        // Whether unknown names are refused is the store's to say.
        let stand_in = self.stand_in.resolve(hello)?;
        let is = |name: &str| self.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        if name.as_deref().is_some_and(is) {
            return Some(stand_in);
        }
        // Clients that ask for an address send no name (RFC 6066 section 3).
        let address = || self.names.iter().find(|own| own.parse::<IpAddr>().is_ok());
        let default = if name.is_none() { address().or(self.names.first()) } else { self.names.first() };
        let default = default.and_then(|name| self.book.exactly(name));
        Some(default.map_or(stand_in, |own| Arc::clone(&own.key)))
    }
}

/// What a CA sends as server name: addresses as in the reverse zone (RFC 8738 section 6).
fn server_name(name: &str) -> String {
    use std::fmt::Write as _;
    match name.parse() {
        Ok(IpAddr::V4(four)) => {
            let [a, b, c, d] = four.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(six)) => {
            let mut text = String::new();
            for byte in six.octets().iter().rev() {
                let _ = write!(text, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
            text + "ip6.arpa"
        }
        Err(_) => name.to_owned(),
    }
}

/// The self-signed certificate of RFC 8737 section 3.
fn proof(challenge: &Challenge) -> Result<Arc<CertifiedKey>, String> {
    let said = |error: &dyn std::fmt::Display| format!("the proof for TLS-ALPN-01 cannot be made: {error}");
    let mut params = CertificateParams::new([challenge.name.clone()]).map_err(|error| said(&error))?;
    let digest = sha256(challenge.authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().map_err(|error| said(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| said(&error))?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| said(&error))?;
    let key = any_supported_type(&der).map_err(|error| said(&error))?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.hash(bytes).as_ref().to_vec(),
        SupportedCipherSuite::Tls12(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::tls::throw_away;

    #[test]
    fn names_are_found_exactly_then_by_wildcard() {
        let book = Book::default();
        let (one, any) = (throw_away(&["a.test"], clock::wall()), throw_away(&["*.a.test"], clock::wall()));
        let (one, any) = (one.unwrap(), any.unwrap());
        book.enter("a.test", Arc::clone(&one));
        book.enter("*.a.test", Arc::clone(&any));
        assert!(Arc::ptr_eq(&book.find("A.test.").unwrap(), &one));
        assert!(Arc::ptr_eq(&book.find("www.a.test").unwrap(), &any));
        assert!(book.find("x.www.a.test").is_none() && book.find(".a.test").is_none());
        book.retain(|name| name == "a.test");
        assert!(book.find("www.a.test").is_none() && book.find("a.test").is_some());
    }

    #[test]
    fn addresses_are_asked_for_in_the_reverse_zone() {
        assert_eq!(server_name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let six = server_name("2001:db8::1");
        assert!(six.starts_with("1.0.0.0.") && six.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{six}");
        assert_eq!(server_name("a.test"), "a.test");
    }

    #[test]
    fn a_proof_is_for_its_name_alone_and_as_long_as_it_is_open() {
        let book = Book::default();
        let challenge = Challenge {
            tls: true,
            name: "a.test".to_owned(),
            token: "t".to_owned(),
            authorization: "t.thumb".to_owned(),
            until: 0,
        };
        book.open(&challenge).unwrap();
        let key = book.proof("A.test").unwrap();
        // RFC 8737 section 6.1: 1.3.6.1.5.5.7.1.31, critical.
        let oid = [0x2b, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff];
        assert!(key.cert[0].windows(oid.len()).any(|window| window == oid));
        let digest = sha256(b"t.thumb");
        assert!(key.cert[0].windows(32).any(|window| window == digest));
        assert!(book.proof("b.test").is_none());
        book.close();
        assert!(book.proof("a.test").is_none());
    }
}
