//! Which certificates clients must show (mutual TLS), for each listener and each site.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::identity::Identity;
use super::policy;
use super::x509::{CertificateFacts, date, instant};
use crate::config::complaint::{Complaints, Place};
use crate::config::file;
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;

/// Larger files are not read: a list of a hundred thousand revoked certificates is 4 MiB.
const LARGEST_FILE: u64 = 16 << 20;

/// What was written in a `[[listen]]` or a `[[site]]`.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    wish: Option<Placed<Text<Wish>>>,
    ca: Option<Placed<PathBuf>>,
    crl: Option<Placed<Vec<Placed<PathBuf>>>>,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wish {
    /// They are not.
    #[default]
    Off,
    /// They are, and may have none. A wrong one is refused.
    Request,
    /// They are, and without a valid one there is no connection.
    Require,
}

impl FromText for Wish {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("off", Self::Off), ("request", Self::Request), ("require", Self::Require)])
    }
}

/// Whose certificates are accepted, and whether one is needed.
#[derive(Debug)]
pub struct Policy {
    /// Whether clients are asked.
    pub wish: Wish,
    /// A hash of everything that decides, the wish included: what was agreed under one policy is worth nothing under
    /// another. Zero if nobody is asked.
    id: Id,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What tells policies apart; it stands in every session ticket.
pub(super) type Id = [u8; 16];

/// The policies of one listener: its own, and those of sites that wrote another.
#[derive(Debug)]
pub struct Table {
    default: Arc<Policy>,
    sites: HashMap<usize, Arc<Policy>>,
    /// What they were read from, each file once.
    files: Vec<PathBuf>,
}

/// Compiles the policies of a configuration: many sites may name the same files, which are read once.
#[derive(Debug, Default)]
pub struct Compiler {
    known: HashMap<Key, Option<Arc<Policy>>>,
}

type Key = (Wish, PathBuf, Vec<PathBuf>);

impl Raw {
    /// Reads the keys of a `[[listen]]` or `[[site]]`; the caller closes the section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            wish: section.get(reading, "client_certificates"),
            ca: section.get(reading, "client_ca"),
            crl: section.get(reading, "client_crl"),
        }
    }

    /// Every key that was written, for a listener that speaks no TLS.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let wish = self.wish.as_ref().map(|written| ("client_certificates", &written.place));
        let ca = self.ca.as_ref().map(|written| ("client_ca", &written.place));
        let crl = self.crl.as_ref().map(|written| ("client_crl", &written.place));
        [wish, ca, crl].into_iter().flatten()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let ca = self.ca.iter().map(|written| &written.value);
        let crl = self.crl.iter().flat_map(|written| &written.value).map(|written| &written.value);
        ca.chain(crl)
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places().next().is_none()
    }

    fn wish(&self) -> Option<Wish> {
        self.wish.as_ref().map(|written| written.value.0)
    }

    /// This, for what a site leaves unsaid. A list of revoked certificates belongs to its authority.
    fn under(&self, site: &Self) -> Self {
        let crl =
            if site.ca.is_some() { site.crl.clone() } else { site.crl.clone().or_else(|| self.crl.clone()) };
        Self {
            wish: site.wish.clone().or_else(|| self.wish.clone()),
            ca: site.ca.clone().or_else(|| self.ca.clone()),
            crl,
        }
    }
}

impl Compiler {
    /// The policies of a TLS listener, for sites by their number.
    pub fn table(
        &mut self,
        listener: &Raw,
        sites: &[Option<Box<Raw>>],
        now: SystemTime,
        complaints: &mut Complaints,
    ) -> Table {
        let is_asked = |raw: &Raw| raw.wish().is_some_and(|wish| wish != Wish::Off);
        if !is_asked(listener) && !sites.iter().flatten().any(|raw| is_asked(raw)) {
            idle(listener, complaints);
        }
        let own = self.policy(listener, now, complaints);
        let written = sites.iter().enumerate().filter_map(|(number, raw)| Some((number, raw.as_deref()?)));
        let written: Vec<_> = written.map(|(number, raw)| (number, listener.under(raw))).collect();
        let mut files: Vec<_> =
            written.iter().map(|(_, raw)| raw).chain([listener]).flat_map(Raw::files).cloned().collect();
        files.sort_unstable();
        files.dedup();
        let sites = written.iter().map(|(number, raw)| (*number, self.policy(raw, now, complaints)));
        Table { default: own, sites: sites.collect(), files }
    }

    fn policy(&mut self, raw: &Raw, now: SystemTime, complaints: &mut Complaints) -> Arc<Policy> {
        let Some(wish) = raw.wish.as_ref().filter(|wish| wish.value.0 != Wish::Off) else {
            return Policy::off();
        };
        let Some(ca) = &raw.ca else {
            let hint = "write `client_ca = \"clients-ca.pem\"`: the certificates of the authorities that sign your clients'";
            let message = "clients are asked for certificates, and it is not said whose are accepted";
            complaints.error(Some(&wish.place), message, Some(hint.to_owned()));
            return Policy::off();
        };
        let crls = raw.crl.as_ref().map(|crl| &crl.value[..]).unwrap_or_default();
        let key = (wish.value.0, ca.value.clone(), crls.iter().map(|crl| crl.value.clone()).collect());
        let known = self.known.entry(key).or_insert_with(|| load(wish.value.0, ca, crls, now, complaints));
        known.clone().unwrap_or_else(Policy::off)
    }
}

impl Table {
    /// Of a listener without TLS: nobody can show a certificate there, and a site that requires one is not served.
    #[must_use]
    pub fn plain(sites: &[Option<Box<Raw>>]) -> Self {
        let wishes = sites.iter().enumerate();
        let required =
            wishes.filter(|(_, raw)| raw.as_ref().and_then(|raw| raw.wish()) == Some(Wish::Require));
        let unmet = || Arc::new(Policy { wish: Wish::Require, id: Id::default(), verifier: None });
        Self {
            default: Policy::off(),
            sites: required.map(|(number, _)| (number, unmet())).collect(),
            files: Vec::new(),
        }
    }

    /// What the site with this number asks of clients here; without a site, what the listener does.
    #[must_use]
    pub fn of(&self, site: Option<usize>) -> &Arc<Policy> {
        site.and_then(|site| self.sites.get(&site)).unwrap_or(&self.default)
    }

    /// Whether somebody is turned away here who has no certificate.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.sites.values().chain([&self.default]).any(|policy| policy.wish == Wish::Require)
    }

    /// The files of authorities and of revoked certificates.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter()
    }

    /// What the policies are made of: a configuration with other files is another one.
    #[must_use]
    pub fn ids(&self) -> Vec<[u8; 16]> {
        let mut ids: Vec<_> = self.sites.values().map(|policy| policy.id).collect();
        ids.push(self.default.id);
        ids.sort_unstable();
        ids
    }

    /// Every policy but the listener's own, by site.
    pub(super) fn sites(&self) -> impl Iterator<Item = (usize, &Arc<Policy>)> {
        self.sites.iter().map(|(number, policy)| (*number, policy))
    }
}

impl Policy {
    /// Nobody is asked.
    #[must_use]
    pub fn off() -> Arc<Self> {
        Arc::new(Self { wish: Wish::Off, id: Id::default(), verifier: None })
    }

    /// Whether a client that was accepted by the one is accepted by the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.wish == other.wish
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone()
    }

    /// Whether this policy accepts a certificate that another one accepted, or that no certificate was shown.
    ///
    /// # Errors
    /// Why not, for the log.
    pub fn accepts(&self, identity: Option<&Identity>, now: SystemTime) -> Result<(), String> {
        match (self.wish, &self.verifier, identity) {
            (Wish::Off, _, _) | (Wish::Request, _, None) => Ok(()),
            (Wish::Require, _, None) => Err("this site requires a client certificate".to_owned()),
            (_, Some(verifier), Some(identity)) => {
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let (leaf, rest) = identity.chain().split_first().ok_or("no certificate")?;
                let verified = verifier.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(since));
                verified.map(drop).map_err(|error| error.to_string())
            }
            (_, None, Some(_)) => Err("no client certificate is accepted here".to_owned()),
        }
    }
}

/// Says of files that nobody is measured by.
fn idle(raw: &Raw, complaints: &mut Complaints) {
    for (key, place) in raw.places().filter(|(key, _)| *key != "client_certificates") {
        let hint = "write `client_certificates = \"require\"` or `\"request\"` beside it".to_owned();
        complaints.warning(
            Some(place),
            format!("`{key}` has no effect: nobody is asked for a certificate"),
            Some(hint),
        );
    }
}

/// Reads the files and makes the verifier; `None` after a complaint.
fn load(
    wish: Wish,
    ca: &Placed<PathBuf>,
    crls: &[Placed<PathBuf>],
    now: SystemTime,
    complaints: &mut Complaints,
) -> Option<Arc<Policy>> {
    let authorities = authorities(ca, now, complaints)?;
    let lists: Option<Vec<_>> = crls.iter().map(|crl| revoked(crl, complaints)).collect();
    let lists: Vec<_> = lists?.into_iter().flatten().collect();
    if let Some(first) = crls.first() {
        check_lists(&authorities, &lists, first, now, complaints);
    }
    let mut roots = RootCertStore::empty();
    for (der, _) in &authorities {
        if let Err(error) = roots.add(der.clone()) {
            let message = format!("a certificate in {} cannot be an authority: {error}", ca.value.display());
            complaints.error(Some(&ca.place), message, None);
            return None;
        }
    }
    let id =
        identify(wish, authorities.iter().map(|(der, _)| der.as_ref()), lists.iter().map(AsRef::as_ref))?;
    let provider = Arc::new(policy::provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    if wish == Wish::Request {
        builder = builder.allow_unauthenticated();
    }
    // A list that is out of date does not know who was revoked since.
    match builder.enforce_revocation_expiration().build() {
        Ok(verifier) => Some(Arc::new(Policy { wish, id, verifier: Some(verifier) })),
        Err(error) => {
            complaints.error(
                Some(&ca.place),
                format!("client certificates cannot be verified: {error}"),
                None,
            );
            None
        }
    }
}

/// The number of a policy: what it was made of, each part with its length.
fn identify<'d>(
    wish: Wish,
    authorities: impl Iterator<Item = &'d [u8]>,
    lists: impl Iterator<Item = &'d [u8]>,
) -> Option<Id> {
    let mut all = vec![u8::from(wish == Wish::Require)];
    let parts = authorities.map(|der| (1_u8, der)).chain(lists.map(|der| (2, der)));
    for (kind, der) in parts {
        all.push(kind);
        all.extend_from_slice(&der.len().to_be_bytes());
        all.extend_from_slice(der);
    }
    let hash = TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.hash(&all);
    hash.as_ref().first_chunk().copied()
}

type Authority = (CertificateDer<'static>, CertificateFacts);

fn authorities(ca: &Placed<PathBuf>, now: SystemTime, complaints: &mut Complaints) -> Option<Vec<Authority>> {
    let name = ca.value.display();
    let hint =
        || Some("it must be a PEM file of the authorities that sign your clients' certificates".to_owned());
    let read = file::text(&ca.value, LARGEST_FILE).map_err(|error| error.to_string());
    let ders = read.and_then(|text| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        all.map_err(|error| error.to_string())
    });
    let ders = match ders {
        Ok(ders) if !ders.is_empty() => ders,
        Ok(_) => {
            complaints.error(Some(&ca.place), format!("{name} holds no certificate"), hint());
            return None;
        }
        Err(error) => {
            complaints.error(Some(&ca.place), format!("cannot read {name}: {error}"), hint());
            return None;
        }
    };
    let mut authorities = Vec::new();
    for der in ders {
        let facts = match CertificateFacts::read(&der) {
            Ok(facts) => facts,
            Err(error) => {
                complaints.error(
                    Some(&ca.place),
                    format!("a certificate in {name} is damaged: {error}"),
                    hint(),
                );
                return None;
            }
        };
        let subject = &facts.subject;
        if !facts.is_authority {
            let message = format!("`{subject}` in {name} is no authority: it vouches for no client");
            let hint = "name the certificate of whoever signed the clients', not a client's own".to_owned();
            complaints.warning(Some(&ca.place), message, Some(hint));
        }
        if facts.not_after < now {
            let message = format!("the authority `{subject}` in {name} expired on {}", date(facts.not_after));
            complaints.warning(Some(&ca.place), message, Some("renew it, or take it out".to_owned()));
        }
        authorities.push((der, facts));
    }
    Some(authorities)
}

type Lists = Vec<CertificateRevocationListDer<'static>>;

/// Lists of revoked certificates: PEM, or DER as authorities publish it.
fn revoked(crl: &Placed<PathBuf>, complaints: &mut Complaints) -> Option<Lists> {
    let name = crl.value.display();
    let lists = file::bytes(&crl.value, LARGEST_FILE).map_err(|error| error.to_string()).and_then(|bytes| {
        if bytes.first() == Some(&0x30) {
            return Ok(vec![CertificateRevocationListDer::from(bytes)]);
        }
        let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        all.map_err(|error| error.to_string())
    });
    let message = match lists {
        Ok(lists) if !lists.is_empty() => return Some(lists),
        Ok(_) => format!("{name} holds no list of revoked certificates"),
        Err(error) => format!("cannot read {name}: {error}"),
    };
    let hint =
        "a list is a PEM file with `-----BEGIN X509 CRL-----`, or the DER file that the authority publishes";
    complaints.error(Some(&crl.place), message, Some(hint.to_owned()));
    None
}

/// What the lists do to clients: refuse all of an authority that has none, and all if one is out of date.
fn check_lists(
    authorities: &[Authority],
    lists: &[CertificateRevocationListDer<'static>],
    crl: &Placed<PathBuf>,
    now: SystemTime,
    complaints: &mut Complaints,
) {
    let parsed: Vec<_> = lists
        .iter()
        .filter_map(|list| CertificateRevocationList::from_der(list).ok())
        .map(|(_, list)| list)
        .collect();
    for list in &parsed {
        let Some(until) = list.next_update().map(instant).filter(|until| *until < now) else { continue };
        let message = format!(
            "the list of `{}` in {} was to be replaced on {}: it does not know who was revoked since, and all clients are refused",
            list.issuer(),
            crl.value.display(),
            date(until)
        );
        complaints.warning(Some(&crl.place), message, Some("fetch the current one, and reload".to_owned()));
    }
    for (_, facts) in authorities {
        if !parsed.iter().any(|list| list.issuer().to_string() == facts.subject) {
            let message = format!(
                "there is no list of `{}`: all clients that it vouches for are refused",
                facts.subject
            );
            let hint =
                "`client_crl` takes several files; each authority in `client_ca` needs its list".to_owned();
            complaints.warning(Some(&crl.place), message, Some(hint));
        }
    }
}
