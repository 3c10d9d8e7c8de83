//! `[acme]`: which CA is asked, for what, how it is convinced, and where the results are kept.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::hook::{self, Hook};
use super::storage::Storage;
use crate::config;
use crate::config::complaint::{Complaints, Place, did_you_mean};
use crate::config::file;
use crate::config::section::{Fault, FromText, Item, Placed, Reading, Section, Text};
use crate::config::units::choice;
use crate::guard::host::{self, HostPattern};
use crate::state::{self, Shelf};
use crate::tls::policy::provider;

/// A larger file holds no roots.
const LARGEST_ROOTS: u64 = 4 << 20;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    place: Option<Place>,
    email: Option<Placed<String>>,
    agree: Option<Placed<bool>>,
    issuers: Option<Vec<RawIssuer>>,
    challenges: Option<Placed<Vec<Placed<Text<Challenge>>>>>,
    dns_hook: Option<Placed<Vec<Placed<String>>>>,
    storage: Option<Placed<String>>,
    renew_after: Option<Placed<u64>>,
    base: PathBuf,
}

#[derive(Clone, Debug)]
struct RawIssuer {
    place: Place,
    name: Option<Placed<String>>,
    directory: Option<Placed<String>>,
    staging: Option<Placed<String>>,
    profile: Option<Placed<String>>,
    roots: Option<Placed<PathBuf>>,
    eab_key_id: Option<Placed<String>>,
    eab_hmac_key: Option<Placed<String>>,
}

/// What it means.
#[derive(Debug)]
pub struct Policy {
    /// Every name that a certificate is wanted for, each once.
    pub names: Vec<Box<str>>,
    /// The names of each listener, by its number; none where its certificates do not come from here.
    pub listeners: Vec<Option<Arc<[Box<str>]>>>,
    /// Who tells the CA's mail from spam.
    pub email: Option<String>,
    /// Who is asked, in this order.
    pub issuers: Vec<Issuer>,
    /// How a name is proven, in this order.
    pub challenges: Vec<Challenge>,
    /// What changes the zone.
    pub hook: Option<Hook>,
    /// Where things are kept.
    pub storage: Storage,
    /// After how much of its lifetime a certificate is renewed, in percent.
    pub renew_after: u32,
}

/// One CA.
pub struct Issuer {
    /// What it is called in messages.
    pub name: String,
    /// Its directory (RFC 8555 section 7.1.1).
    pub directory: String,
    /// The directory in which a failed order is tried first.
    pub staging: Option<String>,
    /// The profile that is asked for.
    pub profile: Option<String>,
    /// The key that binds our account to one there: its id, and its value.
    pub eab: Option<(String, Vec<u8>)>,
    pub(super) tls: Arc<ClientConfig>,
}

/// How a name is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// In a TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
    /// By an answer over plain HTTP on port 80.
    Http01,
    /// By a record in the zone; the only one for wildcards.
    Dns01,
}

/// CAs by name: their directory, the one for tries, and whether they want an account of yours.
const KNOWN: [(&str, &str, Option<&str>, bool); 4] = [
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
        Some("https://acme-staging-v02.api.letsencrypt.org/directory"),
        false,
    ),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory", None, false),
    ("zerossl", "https://acme.zerossl.com/v2/DV90", None, true),
    (
        "google",
        "https://dv.acme-v02.api.pki.goog/directory",
        Some("https://dv.acme-v02.test-api.pki.goog/directory"),
        true,
    ),
];

impl FromText for Challenge {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("tls-alpn-01", Self::TlsAlpn01), ("http-01", Self::Http01), ("dns-01", Self::Dns01)])
    }
}

impl Policy {
    /// The names of the listener with this number, if its certificates come from here.
    #[must_use]
    pub fn names_of(&self, listener: usize) -> Option<&Arc<[Box<str>]>> {
        self.listeners.get(listener)?.as_ref()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// Whether it says `true`. Whatever is neither `true` nor `false` is complained about once, here.
fn agreed(item: &Item<'_>, reading: &mut Reading<'_>) -> Placed<bool> {
    let value = item.as_bool().unwrap_or_else(|| {
        let message = "`acme.agree_to_terms` must be true or false, without quotes";
        let hint = "read the terms of the CAs that are asked; once you have, write `agree_to_terms = true`";
        reading.complaints.error(Some(&item.place), message, Some(hint.to_owned()));
        true
    });
    Placed { value, place: item.place.clone() }
}

impl Raw {
    /// Reads `[acme]` of the file.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let base = reading.base.clone();
        let Some(mut section) = root.section(reading, "acme") else {
            return Self { base, ..Self::default() };
        };
        let issuers = section.item("issuers").map(|item| {
            item.elements().into_iter().filter_map(|issuer| RawIssuer::read(issuer, reading)).collect()
        });
        let raw = Self {
            place: Some(section.place.clone()),
            email: section.get(reading, "email"),
            agree: section.item("agree_to_terms").map(|item| agreed(&item, reading)),
            issuers,
            challenges: section.get(reading, "challenges"),
            dns_hook: section.get(reading, "dns_hook"),
            storage: section.get(reading, "storage"),
            renew_after: section.get(reading, "renew_after"),
            base,
        };
        section.finish(reading);
        raw
    }

    /// What it means for `wanted`, the names of each listener that asks for certificates here.
    pub fn compile(
        self,
        wanted: Vec<Option<Vec<Placed<HostPattern>>>>,
        state: &state::Policy,
        complaints: &mut Complaints,
    ) -> Option<Arc<Policy>> {
        let asked = wanted.iter().flatten().next().is_some();
        let place = self.place.clone()?;
        if !asked {
            let hint = "write `certificates = \"acme\"` in a `[[listen]]`";
            complaints.warning(
                Some(&place),
                "no listener takes its certificates from `[acme]`",
                Some(hint.to_owned()),
            );
            return None;
        }
        if !self.agree.as_ref().is_some_and(|agree| agree.value) {
            let at = self.agree.as_ref().map_or(&place, |agree| &agree.place);
            let hint = "read the terms of the CAs that are asked, and write `agree_to_terms = true`";
            complaints.error(
                Some(at),
                "no CA opens an account unless you agree to its terms",
                Some(hint.to_owned()),
            );
        }
        let issuers = self.issuers(&place, complaints);
        let challenges = self.challenges(complaints);
        let hook = self.hook(&challenges, &place, complaints);
        for name in wanted.iter().flatten().flatten() {
            check_name(name, &challenges, &issuers, complaints);
        }
        let listeners: Vec<Option<Arc<[Box<str>]>>> = wanted
            .into_iter()
            .map(|names| names.map(|names| names.iter().map(|name| text(&name.value)).collect()))
            .collect();
        let mut names: Vec<Box<str>> =
            listeners.iter().flatten().flat_map(|names| names.iter().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        Some(Arc::new(Policy {
            names,
            listeners,
            email: self.email(complaints),
            issuers,
            challenges,
            hook,
            renew_after: self.renew_after(complaints),
            storage: self.storage(state, &place, complaints)?,
        }))
    }

    /// Where it stands, for complaints of a listener.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.place.is_some()
    }

    fn email(&self, complaints: &mut Complaints) -> Option<String> {
        let email = self.email.as_ref()?;
        let fine = |text: &str| {
            text.split_once('@').is_some_and(|(who, at)| !who.is_empty() && at.contains('.'))
                && text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b',')
        };
        if !fine(&email.value) {
            let hint = "write one address, such as `admin@example.org`, or leave it out".to_owned();
            complaints.error(
                Some(&email.place),
                format!("`{}` is no e-mail address", email.value),
                Some(hint),
            );
        }
        Some(email.value.clone())
    }

    fn renew_after(&self, complaints: &mut Complaints) -> u32 {
        const USUAL: u32 = 66;
        let Some(written) = &self.renew_after else { return USUAL };
        if let Ok(percent @ 10..=90) = u32::try_from(written.value) {
            return percent;
        }
        let message = format!("`renew_after` = {} is no percentage from 10 to 90", written.value);
        let hint = "it counts in percent of the lifetime: 66 renews when a third is left".to_owned();
        complaints.error(Some(&written.place), message, Some(hint));
        USUAL
    }

    fn challenges(&self, complaints: &mut Complaints) -> Vec<Challenge> {
        let usual = vec![Challenge::TlsAlpn01, Challenge::Http01];
        let Some(written) = &self.challenges else { return usual };
        if written.value.is_empty() {
            let hint = "write `[\"tls-alpn-01\", \"http-01\"]` or `[\"dns-01\"]`".to_owned();
            complaints.error(
                Some(&written.place),
                "`challenges` names none: no name could be proven",
                Some(hint),
            );
            return usual;
        }
        written.value.iter().map(|challenge| challenge.value.0).collect()
    }

    fn hook(&self, challenges: &[Challenge], place: &Place, complaints: &mut Complaints) -> Option<Hook> {
        let wants = challenges.contains(&Challenge::Dns01);
        let Some(written) = &self.dns_hook else {
            if wants {
                let hint = "write `dns_hook = [\"/etc/ravelin/dns-hook\"]`: it is called with `add` or `remove`, the \
                            record's name and its value";
                complaints.error(
                    Some(place),
                    "`dns-01` needs a program that changes the zone",
                    Some(hint.to_owned()),
                );
            }
            return None;
        };
        if !wants {
            let hint = "write `challenges = [\"dns-01\"]` to have it called".to_owned();
            complaints.warning(Some(&written.place), "`dns_hook` is never called", Some(hint));
        }
        let mut words = written.value.iter().map(|word| word.value.clone());
        // A bare name would be looked for in the PATH.
        let base = if self.base.as_os_str().is_empty() { Path::new(".") } else { &self.base };
        let program = base.join(words.next().unwrap_or_default());
        let runs =
            program.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        if !runs {
            let message = format!("`dns_hook`: {} is no program that can be run", program.display());
            let hint = format!("check the path, and `chmod +x {}`", program.display());
            complaints.error(Some(&written.place), message, Some(hint));
        }
        let kept_back = hook::kept_back(&written.place.source.text, config::own_variables());
        Some(Hook { program, words: words.collect(), kept_back })
    }

    fn storage(&self, state: &state::Policy, place: &Place, complaints: &mut Complaints) -> Option<Storage> {
        let shelf = || Storage::Shelf(Shelf::new(&state.place));
        match (&self.storage, &state.place) {
            (Some(written), kept) if written.value == "state" => {
                if *kept == state::Place::Memory {
                    let message = "`storage = \"state\"`, but `[state]` keeps everything in memory: each start would order anew";
                    let hint = "write a folder, such as `/var/lib/ravelin/acme`, or a `store` in `[state]`"
                        .to_owned();
                    complaints.error(Some(&written.place), message, Some(hint));
                }
                Some(shelf())
            }
            (Some(written), _) => {
                let folder = self.base.join(&written.value);
                if folder.metadata().is_ok_and(|data| !data.is_dir()) {
                    let message = format!("`storage`: {} is not a folder", folder.display());
                    complaints.error(
                        Some(&written.place),
                        message,
                        Some("name a folder, or `state`".to_owned()),
                    );
                }
                if folder.metadata().is_ok_and(|data| data.permissions().mode() & 0o022 != 0) {
                    let message =
                        format!("others may write to {}, where private keys are kept", folder.display());
                    complaints.error(
                        Some(&written.place),
                        message,
                        Some(format!("`chmod 700 {}`", folder.display())),
                    );
                }
                Some(Storage::Folder(folder))
            }
            (None, state::Place::Valkey(_)) => Some(shelf()),
            (None, state::Place::File(file)) => {
                Some(Storage::Folder(file.parent().unwrap_or(Path::new(".")).join("acme")))
            }
            (None, state::Place::Memory) => {
                let hint = "write `storage = \"/var/lib/ravelin/acme\"`".to_owned();
                let message = "`[acme]` does not know where to keep its account, keys and certificates";
                complaints.error(Some(place), message, Some(hint));
                None
            }
        }
    }

    fn issuers(&self, place: &Place, complaints: &mut Complaints) -> Vec<Issuer> {
        let usual = || RawIssuer::named("letsencrypt", place);
        let written = self.issuers.clone().unwrap_or_else(|| vec![usual()]);
        if written.is_empty() {
            let hint = "write `issuers = [\"letsencrypt\"]`".to_owned();
            complaints.error(Some(place), "`issuers` names no CA", Some(hint));
        }
        let mut system = None;
        written.into_iter().filter_map(|raw| raw.compile(&mut system, complaints)).collect()
    }
}

impl RawIssuer {
    fn named(name: &str, place: &Place) -> Self {
        Self {
            place: place.clone(),
            name: Some(Placed { value: name.to_owned(), place: place.clone() }),
            directory: None,
            staging: None,
            profile: None,
            roots: None,
            eab_key_id: None,
            eab_hmac_key: None,
        }
    }

    /// A name, a URL, or a table with either and more.
    fn read(item: Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        if item.is_text() {
            let text = item.read::<String>(reading)?;
            let mut raw = Self::named(&text.value, &text.place);
            if text.value.contains("://") {
                raw.directory = raw.name.take();
            }
            return Some(raw);
        }
        let mut section = item.into_section(reading)?;
        let raw = Self {
            place: section.place.clone(),
            name: section.get(reading, "name"),
            directory: section.get(reading, "directory"),
            staging: section.get(reading, "staging"),
            profile: section.get(reading, "profile"),
            roots: section.get(reading, "roots"),
            eab_key_id: section.get(reading, "eab_key_id"),
            eab_hmac_key: section.get(reading, "eab_hmac_key"),
        };
        section.finish(reading);
        Some(raw)
    }

    fn compile(self, system: &mut Option<Arc<ClientConfig>>, complaints: &mut Complaints) -> Option<Issuer> {
        let known = self.name.as_ref().and_then(|name| KNOWN.iter().find(|known| known.0 == name.value));
        let directory = match (&self.directory, known) {
            (Some(written), _) => directory(written, complaints)?,
            (None, Some(known)) => known.1.to_owned(),
            (None, None) => {
                let name = self.name.as_ref().map_or("", |name| &name.value);
                let names: Vec<&str> = KNOWN.iter().map(|known| known.0).collect();
                let hint = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| {
                    format!("known: {}; any other by `{{ directory = \"https://…\" }}`", names.join(", "))
                });
                complaints.error(Some(&self.place), format!("no CA is known as `{name}`"), Some(hint));
                return None;
            }
        };
        let staging = match &self.staging {
            Some(written) => Some(self::directory(written, complaints)?),
            None => known.filter(|_| self.directory.is_none()).and_then(|known| known.2).map(str::to_owned),
        };
        if known.is_some_and(|known| known.3) && self.eab_key_id.is_none() && self.directory.is_none() {
            let name = self.name.as_ref().map_or("", |name| &name.value);
            let message = format!("`{name}` wants an account of yours: external account binding");
            let hint = format!(
                "write `{{ name = \"{name}\", eab_key_id = \"…\", eab_hmac_key = \"file:…\" }}`; its website gives you both"
            );
            complaints.error(Some(&self.place), message, Some(hint));
        }
        let name = self.name.as_ref().map(|name| name.value.clone());
        Some(Issuer {
            name: name.unwrap_or_else(|| authority(&directory)),
            eab: self.eab(complaints),
            tls: self.tls(system, complaints)?,
            profile: self.profile.map(|profile| profile.value),
            staging,
            directory,
        })
    }

    fn eab(&self, complaints: &mut Complaints) -> Option<(String, Vec<u8>)> {
        let (id, key) = match (&self.eab_key_id, &self.eab_hmac_key) {
            (Some(id), Some(key)) => (id, key),
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => {
                let message = "`eab_key_id` and `eab_hmac_key` belong together";
                complaints.error(Some(&one.place), message, Some("write both".to_owned()));
                return None;
            }
        };
        let text = key.value.trim();
        let value = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        match value.or_else(|_| BASE64_STANDARD.decode(text)) {
            Ok(bytes) if !bytes.is_empty() => Some((id.value.clone(), bytes)),
            _ => {
                // The value is a secret, and is not shown.
                let hint = "copy it as the CA shows it; `eab_hmac_key = \"file:PATH\"` reads it from a file"
                    .to_owned();
                complaints.error(Some(&id.place), "`eab_hmac_key` is not base64url", Some(hint));
                None
            }
        }
    }

    fn tls(
        &self,
        system: &mut Option<Arc<ClientConfig>>,
        complaints: &mut Complaints,
    ) -> Option<Arc<ClientConfig>> {
        if let (None, Some(known)) = (&self.roots, &system) {
            return Some(Arc::clone(known));
        }
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.roots {
            let read = file::text(&path.value, LARGEST_ROOTS).map_err(|error| error.to_string());
            let read = read.and_then(|text| {
                let ders = CertificateDer::pem_slice_iter(text.as_bytes());
                ders.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
            });
            let name = path.value.display();
            match read {
                Ok(ders) => drop(roots.add_parsable_certificates(ders)),
                Err(why) => {
                    complaints.error(Some(&path.place), format!("`roots`: cannot read {name}: {why}"), None);
                    return None;
                }
            }
            if roots.is_empty() {
                let hint = "it must hold the CA's root as PEM, `-----BEGIN CERTIFICATE-----`".to_owned();
                complaints.error(
                    Some(&path.place),
                    format!("`roots`: {name} holds no certificate"),
                    Some(hint),
                );
                return None;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let hint = "install `ca-certificates`, or write `roots` for this CA".to_owned();
                let message = "this system has no root certificates to verify the CA's own server";
                complaints.error(Some(&self.place), message, Some(hint));
                return None;
            }
        }
        let config =
            ClientConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions();
        let config = match config {
            Ok(config) => Arc::new(config.with_root_certificates(roots).with_no_client_auth()),
            Err(error) => {
                complaints.error(
                    Some(&self.place),
                    format!("TLS to this CA cannot be set up: {error}"),
                    None,
                );
                return None;
            }
        };
        if self.roots.is_none() {
            *system = Some(Arc::clone(&config));
        }
        Some(config)
    }
}

fn directory(written: &Placed<String>, complaints: &mut Complaints) -> Option<String> {
    let uri = written.value.parse::<Uri>().ok();
    if uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.authority().is_some()) {
        return Some(written.value.clone());
    }
    let hint = "write `https://HOST/PATH`: ACME is spoken over https only (RFC 8555 section 6.1)".to_owned();
    complaints.error(Some(&written.place), format!("`{}` is no ACME directory", written.value), Some(hint));
    None
}

fn authority(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
}

/// A name as certificates write it: addresses have no brackets there.
fn text(name: &HostPattern) -> Box<str> {
    let text = name.to_string();
    host::address(&text).map_or(text, |address| address.to_string()).into()
}

/// Complains about a name that no CA, or none of these, will certify.
fn check_name(
    name: &Placed<HostPattern>,
    challenges: &[Challenge],
    issuers: &[Issuer],
    complaints: &mut Complaints,
) {
    let place = Some(&name.place);
    let own = text(&name.value);
    if name.value == HostPattern::Any {
        let hint = "name the hosts: `acme_names = [\"www.example.org\"]` in the `[[listen]]`".to_owned();
        return complaints.error(place, "`*` is no name that a CA certifies", Some(hint));
    }
    if own.starts_with("*.") && !challenges.contains(&Challenge::Dns01) {
        let hint = "write `challenges = [\"dns-01\"]` and a `dns_hook`, or name the hosts one by one in `acme_names`";
        let message = format!("`{own}` can be proven in the zone only (RFC 8555 section 7.4.1)");
        return complaints.error(place, message, Some(hint.to_owned()));
    }
    let public = |issuer: &&Issuer| KNOWN.iter().any(|known| known.1 == issuer.directory);
    let address = own.parse::<IpAddr>().ok();
    if !is_public(&own, address) && !issuers.is_empty() && issuers.iter().all(|issuer| public(&issuer)) {
        let hint = "leave it out by `acme_names`, use `certificates = \"development\"`, or a CA of your own by \
                    `issuers = [{ directory = \"https://…\", roots = \"ca.pem\" }]`";
        return complaints.error(place, format!("no public CA certifies `{own}`"), Some(hint.to_owned()));
    }
    let short = |issuer: &Issuer| issuer.profile.as_deref() == Some("shortlived");
    let lets_encrypt = issuers.iter().find(|issuer| issuer.name == "letsencrypt" && !short(issuer));
    if address.is_some() && lets_encrypt.is_some() {
        let hint = "write `issuers = [{ name = \"letsencrypt\", profile = \"shortlived\" }]`".to_owned();
        let message = format!("Let's Encrypt certifies addresses such as `{own}` for six days only");
        complaints.error(place, message, Some(hint));
    }
}

/// Whether it may be reached from everywhere: names of RFC 6761, RFC 6762 and RFC 9476, and of ICANN for private use, are not.
fn is_public(name: &str, address: Option<IpAddr>) -> bool {
    const PRIVATE: [&str; 8] =
        [".localhost", ".test", ".example", ".invalid", ".local", ".internal", ".alt", ".home.arpa"];
    match address {
        Some(IpAddr::V4(four)) => {
            !(four.is_private() || four.is_loopback() || four.is_link_local() || four.is_unspecified())
        }
        Some(IpAddr::V6(six)) => {
            !(six.is_loopback()
                || six.is_unique_local()
                || six.is_unicast_link_local()
                || six.is_unspecified())
        }
        None => name.contains('.') && !PRIVATE.iter().any(|end| name.ends_with(end)),
    }
}
