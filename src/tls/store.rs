//! Which certificate a client gets, by the server name that it asks for (SNI, RFC 6066 section 3).
//!
//! A store never changes. A reload builds a new one with the new generation's `ServerConfig`, and the
//! accept loop takes the current generation for each connection: one swap for everything, instead of
//! a second one hidden in here.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

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
    certificates: Vec<Arc<Certificate>>,
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
        let mut store = Self {
            certificates: certificates.to_vec(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: Vec::new(),
            unknown,
        };
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

    /// Every certificate, in the operator's order.
    #[must_use]
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
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

    fn named_default(&self, name: &str, place: Option<&Place>, complaints: &mut Complaints) -> Option<Keys> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::tls::throw_away;

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        throw_away(names, clock::wall()).unwrap()
    }

    fn store(
        certificates: &[Arc<Certificate>],
        default: Option<&str>,
        unknown: UnknownName,
    ) -> (Option<Store>, String) {
        let mut complaints = Complaints::default();
        let store = Store::new(certificates, default, unknown, None, &mut complaints);
        assert_eq!(store.is_none(), complaints.has_errors());
        (store, complaints.to_string())
    }

    /// Which of the certificates a client gets that asks for `name`.
    fn chosen(store: &Store, certificates: &[Arc<Certificate>], name: Option<&str>) -> Option<usize> {
        let key = store.choose(name)?.first()?;
        certificates.iter().position(|certificate| Arc::ptr_eq(&certificate.key, key))
    }

    #[test]
    fn the_exact_name_wins_over_the_wildcard() {
        let all = [
            certificate(&["first.test"]),
            certificate(&["*.Example.ORG"]),
            certificate(&["www.example.org"]),
        ];
        let (store, said) = store(&all, None, UnknownName::Default);
        let store = store.unwrap();
        assert_eq!(said, "");
        for (name, index) in [
            ("www.example.org", 2),
            ("WWW.example.Org.", 2),
            ("shop.example.org", 1),
            ("example.org", 0),
            ("a.b.example.org", 0),
            (".example.org", 0),
            ("", 0),
            ("first.test", 0),
            ("unknown.test", 0),
        ] {
            assert_eq!(chosen(&store, &all, Some(name)), Some(index), "{name}");
        }
        assert_eq!(chosen(&store, &all, None), Some(0));
    }

    #[test]
    fn unknown_and_missing_names_may_be_refused() {
        let all = [certificate(&["www.example.org"])];
        let store = store(&all, None, UnknownName::Refuse).0.unwrap();
        assert_eq!(chosen(&store, &all, Some("www.example.org")), Some(0));
        assert_eq!(chosen(&store, &all, Some("example.org")), None);
        assert_eq!(chosen(&store, &all, None), None);
    }

    #[test]
    fn the_default_is_chosen_by_name_or_complained_about() {
        let all = [certificate(&["one.test"]), certificate(&["two.test", "*.three.test"])];
        let (named, _) = store(&all, Some("www.three.test"), UnknownName::Default);
        assert_eq!(chosen(&named.unwrap(), &all, None), Some(1));
        let (none, said) = store(&all, Some("tow.test"), UnknownName::Default);
        assert!(none.is_none() && said.contains("did you mean `two.test`"), "{said}");
        assert!(store(&[], None, UnknownName::Default).1.contains("needs a certificate"));
    }

    #[test]
    fn a_second_certificate_for_a_name_is_warned_of_and_the_first_stays() {
        let all = [certificate(&["one.test"]), certificate(&["one.test", "two.test"])];
        let (store, said) = store(&all, None, UnknownName::Default);
        let store = store.unwrap();
        assert!(said.contains("`one.test` is already served"), "{said}");
        assert_eq!(chosen(&store, &all, Some("one.test")), Some(0));
        assert_eq!(chosen(&store, &all, Some("two.test")), Some(1));
    }

    #[test]
    fn a_client_gets_the_kind_of_key_that_it_understands() {
        let ecdsa = Arc::clone(&certificate(&["one.test"]).key);
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let der = rcgen::CertificateParams::new(["one.test".to_owned()]).unwrap().self_signed(&rsa).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(rsa.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let rsa = Arc::new(CertifiedKey::new(vec![der.der().clone()], key));
        let keys = [Arc::clone(&ecdsa), Arc::clone(&rsa)];
        let pick = |schemes: &[SignatureScheme]| Arc::clone(usable(&keys, schemes).unwrap());
        assert!(Arc::ptr_eq(&pick(&[SignatureScheme::RSA_PSS_SHA256]), &rsa));
        let both = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(Arc::ptr_eq(&pick(&both), &ecdsa), "the operator's order");
        assert!(Arc::ptr_eq(&pick(&[SignatureScheme::ED448]), &ecdsa), "rustls then says what is wrong");
    }
}
