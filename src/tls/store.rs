//! Which certificate a client gets, by the server name that it asks for (SNI, RFC 6066 section 3).
//!
//! A store never changes. A reload builds a new one with the new generation's `ServerConfig`, and the
//! accept loop takes the current generation for each connection: one swap for everything, instead of
//! a second one hidden in here.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::SignatureScheme;

use super::load::Certificate;
use crate::config::complaint::{Complaints, Place, did_you_mean};

/// What a client gets that asks for a name without certificate, or for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// The default certificate.
    #[default]
    Default,
    /// A refused handshake.
    Refuse,
}

/// The certificates of one listener.
#[derive(Debug)]
pub struct Store {
    exact: HashMap<Box<str>, Keys>,
    /// By the name without its first label: `*.example.org` is kept as `example.org`.
    wildcard: HashMap<Box<str>, Keys>,
    default: Keys,
    unknown: UnknownName,
}

/// Certificates for the same name, with keys of different kinds, in the operator's order.
type Keys = Vec<Arc<CertifiedKey>>;

impl Store {
    /// Sorts the certificates by their names. `default` is a name of the certificate that is the
    /// default one; without it the first is.
    pub fn new(
        certificates: &[Arc<Certificate>],
        default: Option<&str>,
        unknown: UnknownName,
        place: Option<&Place>,
        complaints: &mut Complaints,
    ) -> Option<Self> {
        let mut store = Self { exact: HashMap::new(), wildcard: HashMap::new(), default: Vec::new(), unknown };
        for certificate in certificates {
            for name in &certificate.facts.names {
                store.add(name, certificate, place, complaints);
            }
        }
        store.default = match default {
            Some(name) => store.named_default(name, place, complaints)?,
            None => store.first_default(certificates, place, complaints)?,
        };
        Some(store)
    }

    fn add(
        &mut self,
        name: &str,
        certificate: &Certificate,
        place: Option<&Place>,
        complaints: &mut Complaints,
    ) {
        let keys = match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.into()).or_default(),
            None => self.exact.entry(name.into()).or_default(),
        };
        if keys.iter().any(|key| key.key.algorithm() == certificate.key.key.algorithm()) {
            let message = format!(
                "`{name}` is already served by an earlier certificate; the one in {} is not used for it",
                certificate.origin.display()
            );
            complaints.warning(place, message, None);
            return;
        }
        keys.push(Arc::clone(&certificate.key));
    }

    fn named_default(
        &self,
        name: &str,
        place: Option<&Place>,
        complaints: &mut Complaints,
    ) -> Option<Keys> {
        if let Some(keys) = self.find(name) {
            return Some(keys.clone());
        }
        let known = self.exact.keys().map(|known| &**known);
        let hint = did_you_mean(name, known).unwrap_or_else(|| format!("there are: {}", self.names()));
        let message = format!("`default_certificate`: no certificate is for `{name}`");
        complaints.error(place, message, Some(hint));
        None
    }

    /// The first certificate, together with those for the same first name and another kind of key.
    fn first_default(
        &self,
        certificates: &[Arc<Certificate>],
        place: Option<&Place>,
        complaints: &mut Complaints,
    ) -> Option<Keys> {
        let Some(first) = certificates.first() else {
            let hint = "add `certificates = [{ chain = \"www.pem\", key = \"www.key\" }]`";
            complaints.error(place, "an https listener needs a certificate", Some(hint.to_owned()));
            return None;
        };
        let same = first.facts.names.first().and_then(|name| self.entry(name));
        Some(same.cloned().unwrap_or_else(|| vec![Arc::clone(&first.key)]))
    }

    fn names(&self) -> String {
        let wildcards = self.wildcard.keys().map(|parent| format!("*.{parent}"));
        let mut names: Vec<_> = self.exact.keys().map(ToString::to_string).chain(wildcards).collect();
        names.sort_unstable();
        names.join(", ")
    }

    /// The entry for a name as a certificate writes it.
    fn entry(&self, name: &str) -> Option<&Keys> {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.get(parent),
            None => self.exact.get(name),
        }
    }

    /// The certificates for the name of a host: exact first, then a wildcard for exactly one label
    /// (RFC 9525 section 6.3).
    fn find(&self, name: &str) -> Option<&Keys> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.exact.get(name.as_str()).or_else(|| {
            let (label, parent) = name.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(parent) }
        })
    }

    fn choose(&self, name: Option<&str>) -> Option<&Keys> {
        match (name.and_then(|name| self.find(name)), self.unknown) {
            (Some(keys), _) => Some(keys),
            (None, UnknownName::Default) => Some(&self.default),
            (None, UnknownName::Refuse) => None,
        }
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.choose(hello.server_name())?;
        usable(keys, hello.signature_schemes()).map(Arc::clone)
    }
}

/// The first certificate whose key the client understands. If it understands none, the first: rustls
/// then says what is wrong, instead of us saying that the name is unknown.
fn usable<'k>(keys: &'k [Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<&'k Arc<CertifiedKey>> {
    keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).or_else(|| keys.first())
}
