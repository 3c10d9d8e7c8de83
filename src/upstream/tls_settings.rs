//! `[site.upstream_tls]`: whom Ravelin believes, and how it shows itself to an origin.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::endpoint::Endpoint;
use super::pin::Pin;
use super::settings::shown;
use super::tls::{self, Tls, Trust};
use crate::config::complaint::{Complaints, Place};
use crate::config::file;
use crate::config::section::{Placed, Reading, Section, Text};

/// Bytes of the largest file of certificates that is read.
const LARGEST_PEM: u64 = 8 << 20;

/// What was written.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) place: Place,
    roots: Option<Placed<PathBuf>>,
    pins: Option<Placed<Vec<Placed<Text<Pin>>>>>,
    client: Option<RawClient>,
    server_name: Option<Placed<String>>,
    accept_any: Option<Placed<bool>>,
    http2: Option<Placed<bool>>,
}

/// `client_certificate = { chain = …, key = … }`.
#[derive(Clone, Debug)]
struct RawClient {
    place: Place,
    chain: Option<Placed<PathBuf>>,
    key: Option<Placed<PathBuf>>,
}

/// What the sites of a configuration share. The operating system has some 140 roots: they are read when the
/// first site needs them, and once.
#[derive(Debug, Default)]
pub struct Common {
    roots: Option<Arc<RootCertStore>>,
    /// TLS to the origins of sites that write nothing about it.
    plain: Option<Arc<ClientConfig>>,
}

/// What it means: everything but the name of the single member.
#[derive(Debug)]
pub(super) struct Shared {
    config: Arc<ClientConfig>,
    /// The same with HTTP/2, where that is wanted.
    http2: Option<Arc<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

impl Raw {
    /// Reads the whole section.
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let client = section.section(reading, "client_certificate").map(|mut client| {
            let written = RawClient {
                place: client.place.clone(),
                chain: client.get(reading, "chain"),
                key: client.get(reading, "key"),
            };
            client.finish(reading);
            written
        });
        let raw = Self {
            place: section.place.clone(),
            roots: section.get(reading, "roots"),
            pins: section.get(reading, "pin_sha256"),
            client,
            server_name: section.get(reading, "server_name"),
            accept_any: section.get(reading, "danger_accept_any_certificate"),
            http2: section.get(reading, "http2"),
        };
        section.finish(reading);
        raw
    }

    fn accepts_any(&self, complaints: &mut Complaints) -> bool {
        let Some(any) = self.accept_any.as_ref().filter(|any| any.value) else { return false };
        let message =
            "any certificate is accepted from this origin: whoever sits between can read and change all";
        let hint = "use `roots` with the origin's CA, or its own certificate, instead".to_owned();
        complaints.warning(Some(&any.place), message, Some(hint));
        if let Some(roots) = &self.roots {
            let message = "`roots` and `danger_accept_any_certificate` contradict each other";
            complaints.error(Some(&roots.place), message, Some("keep `roots` alone".to_owned()));
        }
        true
    }

    fn client(
        &self,
        complaints: &mut Complaints,
    ) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let RawClient { place, chain, key } = self.client.as_ref()?;
        let (Some(chain), Some(key)) = (chain, key) else {
            let message = "`client_certificate` needs both `chain` and `key`";
            complaints.error(Some(place), message, None);
            return None;
        };
        let certificates = certificates(chain, complaints);
        let loaded = pem(&key.value).and_then(|text| PrivateKeyDer::from_pem_slice(text.as_bytes()));
        let loaded = loaded.map_err(|error| {
            complaints.error(Some(&key.place), format!("cannot read the key {}: {error}", shown(key)), None);
        });
        Some((certificates?, loaded.ok()?))
    }

    fn server_name(&self, complaints: &mut Complaints) -> Option<ServerName<'static>> {
        let name = self.server_name.as_ref()?;
        let parsed = ServerName::try_from(name.value.clone());
        if parsed.is_err() {
            let message = format!("`{}` is not a server name", name.value);
            complaints.error(Some(&name.place), message, Some("write e.g. `origin.internal`".to_owned()));
        }
        parsed.ok()
    }
}

impl Shared {
    /// TLS to one member; `None` if it speaks none, or cannot be named.
    pub(super) fn to(&self, endpoint: &Endpoint, place: &Place, complaints: &mut Complaints) -> Option<Tls> {
        let Endpoint::Net { host, tls: true, .. } = endpoint else { return None };
        let name = match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_string()),
        };
        if name.is_err() {
            let message = format!("`{endpoint}` has a host that no certificate can name");
            complaints.error(
                Some(place),
                message,
                Some("set `server_name` in `[site.upstream_tls]`".to_owned()),
            );
        }
        let tls = Tls::new(Arc::clone(&self.config), name.ok()?);
        Some(match &self.http2 {
            Some(http2) => tls.or_http2(Arc::clone(http2)),
            None => tls,
        })
    }
}

/// What the section, or its absence, means for a site with an https origin.
pub(super) fn compile(
    raw: Option<&Raw>,
    common: &mut Common,
    site: &Place,
    complaints: &mut Complaints,
) -> Option<Shared> {
    if let (None, Some(config)) = (raw, &common.plain) {
        return Some(Shared { config: Arc::clone(config), http2: None, server_name: None });
    }
    let place = raw.map_or(site, |raw| &raw.place);
    let any = raw.is_some_and(|raw| raw.accepts_any(complaints));
    let file = raw.and_then(|raw| raw.roots.as_ref());
    let (roots, named) = if any {
        (None, Vec::new())
    } else {
        let (roots, named) = roots(file, common, place, complaints)?;
        (Some(roots), named)
    };
    let pins = raw.and_then(|raw| raw.pins.as_ref());
    let trust = Trust {
        roots,
        named,
        pins: pins.map(|p| p.value.iter().map(|pin| pin.value.0).collect()).unwrap_or_default(),
        client: raw.and_then(|raw| raw.client(complaints)),
    };
    if let Some(pins) = pins.filter(|p| p.value.is_empty()) {
        complaints.error(
            Some(&pins.place),
            "`pin_sha256` is an empty list: leave it out to pin nothing",
            None,
        );
    }
    let server_name = raw.and_then(|raw| raw.server_name(complaints));
    match tls::config(trust) {
        Ok(config) => {
            if raw.is_none() {
                common.plain = Some(Arc::clone(&config));
            }
            let wanted = raw.and_then(|raw| raw.http2.as_ref()).is_some_and(|http2| http2.value);
            let http2 = wanted.then(|| tls::with_http2(&config));
            Some(Shared { config, http2, server_name })
        }
        Err(error) => {
            complaints.error(
                Some(place),
                format!("TLS to this site's origins cannot be set up: {error}"),
                None,
            );
            None
        }
    }
}

/// Roots, and the certificates that they were made of if an operator named them.
type Roots = (Arc<RootCertStore>, Vec<CertificateDer<'static>>);

/// The roots of a file, or the operating system's.
fn roots(
    file: Option<&Placed<PathBuf>>,
    common: &mut Common,
    place: &Place,
    complaints: &mut Complaints,
) -> Option<Roots> {
    let mut store = RootCertStore::empty();
    let Some(file) = file else {
        if let Some(known) = &common.roots {
            return Some((Arc::clone(known), Vec::new()));
        }
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            let hint = "install `ca-certificates`, or set `roots` in `[site.upstream_tls]`".to_owned();
            complaints.error(
                Some(place),
                "this system has no root certificates to verify an https origin",
                Some(hint),
            );
            return None;
        }
        return Some((Arc::clone(common.roots.insert(Arc::new(store))), Vec::new()));
    };
    let named = certificates(file, complaints)?;
    for certificate in &named {
        if let Err(error) = store.add(certificate.clone()) {
            let message = format!("a certificate in {} cannot be a root: {error}", shown(file));
            complaints.error(Some(&file.place), message, None);
            return None;
        }
    }
    Some((Arc::new(store), named))
}

/// The text of a PEM file that is no larger than makes sense: a system's whole bundle has 200 KiB.
fn pem(path: &Path) -> Result<String, pem::Error> {
    file::text(path, LARGEST_PEM).map_err(pem::Error::Io)
}

/// Every certificate of a PEM file; at least one.
fn certificates(file: &Placed<PathBuf>, complaints: &mut Complaints) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> =
        pem(&file.value).and_then(|text| CertificateDer::pem_slice_iter(text.as_bytes()).collect());
    let message = match read {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => format!("{} holds no certificate", shown(file)),
        Err(error) => format!("cannot read certificates from {}: {error}", shown(file)),
    };
    complaints.error(Some(&file.place), message, Some("the file must be PEM".to_owned()));
    None
}
