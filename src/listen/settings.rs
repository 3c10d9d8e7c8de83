//! `[[listen]]`: where Ravelin listens, and what for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::cidr::NetSet;
use crate::client::networks::{self, Networks};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Item, Placed, Reading, Section, Text};
use crate::config::units::choice;
use crate::guard::host::HostPattern;
use crate::tls::clients;
use crate::tls::profile::{self, Profile};
use crate::tls::watch::Watched;

/// What was written in one `[[listen]]`.
#[derive(Clone, Debug)]
pub struct Raw {
    place: Place,
    url: Option<Placed<Text<Url>>>,
    certificates: Certificates,
    certificates_place: Option<Place>,
    acme_names: Option<Placed<Vec<Placed<Text<HostPattern>>>>>,
    unknown_sni: Option<Placed<Text<UnknownSni>>>,
    default_certificate: Option<Placed<String>>,
    plain: Option<Placed<Text<Plain>>>,
    https_port: Option<Placed<u64>>,
    proxy_protocol: Option<Placed<Text<ProxyProtocol>>>,
    proxy_protocol_from: Option<Placed<Vec<Placed<Networks>>>>,
    tls: profile::Raw,
    clients: clients::Raw,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The address and port.
    pub address: SocketAddr,
    /// What it speaks.
    pub service: Service,
    /// Who sends a PROXY header, and nobody else may connect; none if nobody does.
    pub proxies: Option<Arc<NetSet>>,
    /// Where it was written.
    pub place: Place,
}

/// What a listener does with a connection.
#[derive(Clone, Debug)]
pub enum Service {
    /// TLS with these certificates.
    Https(Box<Https>),
    /// Plain HTTP, redirected to https at this public port.
    Redirect {
        /// The port that the redirect names; 443 is left out of URLs.
        https_port: u16,
    },
    /// Plain HTTP, served.
    Http,
}

/// The TLS side of a listener, for the TLS room to load.
#[derive(Clone, Debug)]
pub struct Https {
    /// Where they come from.
    pub certificates: Certificates,
    /// What a client gets that names no known site.
    pub unknown_sni: UnknownSni,
    /// The name whose certificate is the default; the first certificate otherwise.
    pub default_certificate: Option<Placed<String>>,
    /// Which TLS is spoken.
    pub profile: Profile,
    /// What is asked of clients; sites may ask something else.
    pub clients: clients::Raw,
}

/// Where a listener's certificates come from.
#[derive(Clone, Debug)]
pub enum Certificates {
    /// PEM files; at least one pair, unless there were complaints.
    Files(Vec<Certificate>),
    /// The PEM files of a folder, paired by their names.
    Folder(Placed<PathBuf>),
    /// One is made on the spot for the hosts of all sites, and made again before it ends.
    Made(Maker),
    /// They come from a CA by ACME, for these names, or for the hosts of all sites.
    Acme(Option<Vec<Placed<HostPattern>>>),
}

/// Who makes a certificate on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The development CA in the user's data directory, which browsers can be told to trust.
    Development,
    /// Nobody: it signs itself, is kept nowhere, and no browser trusts it.
    ThrowAway,
}

/// A certificate chain and its key, both PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: Placed<PathBuf>,
    /// The private key.
    pub key: Placed<PathBuf>,
}

/// What happens when a client names no known site in its TLS greeting, or none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownSni {
    /// It gets the default certificate.
    #[default]
    Default,
    /// The handshake is refused.
    Refuse,
}

/// What a plain listener does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plain {
    /// It sends everybody to https.
    #[default]
    Redirect,
    /// It serves without TLS.
    Serve,
}

/// `https://0.0.0.0:443`: a scheme, an address of this machine and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The address and port.
    pub address: SocketAddr,
}

impl Policy {
    /// The files and folders that its certificates come from.
    pub fn watched(&self) -> impl Iterator<Item = Watched> {
        let certificates = match &self.service {
            Service::Https(https) => Some(&https.certificates),
            _ => None,
        };
        let all = match certificates {
            Some(Certificates::Files(pairs)) => {
                let files = pairs.iter().flat_map(|pair| [&pair.chain, &pair.key]);
                files.map(|file| Watched::File(file.value.clone())).collect()
            }
            Some(Certificates::Folder(folder)) => vec![Watched::Folder(folder.value.clone())],
            _ => Vec::new(),
        };
        all.into_iter()
    }

    /// Whether its certificates come from a CA by ACME.
    #[must_use]
    pub fn is_by_acme(&self) -> bool {
        matches!(&self.service, Service::Https(https) if matches!(https.certificates, Certificates::Acme(_)))
    }

    /// Whether the certificate is made on the spot, and has to be made again before it ends.
    #[must_use]
    pub fn makes_its_certificate(&self) -> bool {
        matches!(&self.service, Service::Https(https) if matches!(https.certificates, Certificates::Made(_)))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

impl FromText for UnknownSni {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("default", Self::Default), ("refuse", Self::Refuse)])
    }
}

/// What may stand where certificates are named.
#[derive(Clone, Copy)]
enum Word {
    Acme,
    Made(Maker),
}

impl FromText for Word {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let made = |maker| Self::Made(maker);
        choice(
            text,
            &[
                ("acme", Self::Acme),
                ("development", made(Maker::Development)),
                ("throw-away", made(Maker::ThrowAway)),
            ],
        )
    }
}

/// Whether connections begin with a PROXY header. There is no "if it is there": whoever may leave it out may also
/// forge it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// They must.
    Require,
}

impl FromText for ProxyProtocol {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("off", Self::Off), ("require", Self::Require)])
    }
}

impl FromText for Plain {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("redirect", Self::Redirect), ("serve", Self::Serve)])
    }
}

impl FromText for Url {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Fault::new(
                format!("`{text}` does not say whether http or https is spoken"),
                format!("write `https://{text}` or `http://{text}`"),
            ));
        };
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                let message = format!("`{scheme}` is not spoken here");
                return Err(Fault::new(message, "only `http://` and `https://` are listened for"));
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            let message = format!("`{text}` has a path, and a listener has none");
            return Err(Fault::new(message, "paths belong into `[[site.path]]`"));
        }
        match authority.parse() {
            Ok(address) => Ok(Self { tls, address }),
            Err(_) => Err(not_an_address(scheme, authority)),
        }
    }
}

/// What is wrong with an authority that is not `ADDRESS:PORT`.
fn not_an_address(scheme: &str, authority: &str) -> Fault {
    let port = if scheme == "https" { 443 } else { 80 };
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        let whole = SocketAddr::new(address, port);
        return Fault::new(format!("`{authority}` lacks a port"), format!("write `{scheme}://{whole}`"));
    }
    let (host, given) = authority.rsplit_once(':').unwrap_or((authority, ""));
    if !given.is_empty() && given.parse::<u16>().is_err() {
        let message = format!("`{given}` is not a port");
        return Fault::new(message, format!("a port is a number from 1 to 65535, such as {port}"));
    }
    let port = given.parse().unwrap_or(port);
    match host {
        "*" | "" => Fault::new(
            format!("`{authority}` names no address"),
            format!(
                "`{scheme}://0.0.0.0:{port}` listens on every IPv4 address, `{scheme}://[::]:{port}` on IPv6 too"
            ),
        ),
        "localhost" => Fault::new(
            "`localhost` is a name, and a listener needs an address",
            format!("write `{scheme}://127.0.0.1:{port}` or `{scheme}://[::1]:{port}`"),
        ),
        _ => Fault::new(
            format!("`{host}` is not an address"),
            format!("site names belong into `hosts` of a `[[site]]`; here write `{scheme}://0.0.0.0:{port}`"),
        ),
    }
}

impl Raw {
    /// Reads one `[[listen]]`.
    pub fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let certificates = section.item("certificates");
        let certificates_place = certificates.as_ref().map(|item| item.place.clone());
        let raw = Self {
            place: section.place.clone(),
            url: section.get(reading, "url"),
            certificates: Certificates::read(certificates.as_ref(), reading),
            certificates_place,
            acme_names: section.get(reading, "acme_names"),
            unknown_sni: section.get(reading, "unknown_sni"),
            default_certificate: section.get(reading, "default_certificate"),
            plain: section.get(reading, "plain"),
            https_port: section.get(reading, "https_port"),
            proxy_protocol: section.get(reading, "proxy_protocol"),
            proxy_protocol_from: section.get(reading, "proxy_protocol_from"),
            tls: profile::Raw::read(&mut section, reading),
            clients: clients::Raw::read(&mut section, reading),
        };
        if section.item("url").is_none() {
            reading.complaints.error(
                Some(&raw.place),
                "this `[[listen]]` lacks `url`",
                Some("write `url = \"https://0.0.0.0:443\"`".to_owned()),
            );
        }
        section.finish(reading);
        raw
    }

    /// Compiles all listeners together: they need each other for the https port of redirects, and no
    /// two may have one address.
    pub fn compile(all: Vec<Self>, complaints: &mut Complaints) -> Vec<Policy> {
        let https_port = all
            .iter()
            .filter_map(|raw| raw.url.as_ref())
            .find(|url| url.value.0.tls)
            .map(|url| url.value.0.address.port());
        let mut listeners: Vec<Policy> = Vec::new();
        for raw in all {
            let Some(listener) = raw.compile_one(https_port, complaints) else { continue };
            if let Some(other) = listeners.iter().find(|other| collide(other.address, listener.address)) {
                complaints.error(
                    Some(&listener.place),
                    format!(
                        "two listeners on {}: the other stands at {}",
                        listener.address,
                        other.place.label()
                    ),
                    Some(
                        "one address and port can be listened on once; several sites share one listener"
                            .to_owned(),
                    ),
                );
            }
            listeners.push(listener);
        }
        listeners
    }

    fn compile_one(self, https_port: Option<u16>, complaints: &mut Complaints) -> Option<Policy> {
        let Text(url) = self.url.as_ref()?.value;
        let place = self.url.as_ref()?.place.clone();
        let proxies = self.proxies(complaints);
        let service = if url.tls { self.https(complaints) } else { self.http(https_port, complaints) };
        Some(Policy { address: url.address, service, proxies, place })
    }

    /// Whose PROXY headers are believed; it must be said.
    fn proxies(&self, complaints: &mut Complaints) -> Option<Arc<NetSet>> {
        let required =
            self.proxy_protocol.as_ref().filter(|written| written.value.0 == ProxyProtocol::Require);
        let (Some(required), from) = (required, &self.proxy_protocol_from) else {
            let from = self.proxy_protocol_from.as_ref().map(|from| &from.place);
            misplaced(from, "proxy_protocol_from", "write `proxy_protocol = \"require\"` too", complaints);
            return None;
        };
        let Some(from) = from else {
            let hint = "write `proxy_protocol_from = [\"10.0.0.0/16\"]`, the subnets of the load balancer, or `[\"vpc\"]`";
            let message = "`proxy_protocol` needs to know whose headers are believed";
            complaints.error(Some(&required.place), message, Some(hint.to_owned()));
            return None;
        };
        if networks::all(&from.value).any(|net| net.prefix_len() == 0) {
            let message = "`proxy_protocol_from` believes everybody: any client can choose its own address";
            complaints.warning(
                Some(&from.place),
                message,
                Some("name the subnets of the load balancer".to_owned()),
            );
        }
        Some(Arc::new(networks::all(&from.value).collect()))
    }

    fn https(self, complaints: &mut Complaints) -> Service {
        let none = matches!(&self.certificates, Certificates::Files(files) if files.is_empty());
        if self.certificates_place.is_none() || (none && !complaints.has_errors()) {
            complaints.error(
                Some(&self.place),
                "an https listener needs a certificate",
                Some(
                    "write `certificates = [{ chain = \"www.pem\", key = \"www.key\" }]`; on your own machine \
                     `certificates = \"development\"` makes one"
                        .to_owned(),
                ),
            );
        }
        let names = self.acme_names.map(|names| (names.place, names.value));
        let mut certificates = self.certificates;
        match (&mut certificates, names) {
            (Certificates::Acme(own), Some((place, names))) => {
                if names.is_empty() {
                    let hint =
                        "name hosts, or leave it out: then the hosts of all sites are meant".to_owned();
                    complaints.error(Some(&place), "`acme_names` names none", Some(hint));
                }
                *own = Some(names.into_iter().map(|name| name.map(|name| name.0)).collect());
            }
            (_, Some((place, _))) => {
                misplaced(Some(&place), "acme_names", "write `certificates = \"acme\"` too", complaints);
            }
            (_, None) => {}
        }
        let only_http = "it is for http listeners: https ones always serve";
        misplaced(self.plain.as_ref().map(|p| &p.place), "plain", only_http, complaints);
        misplaced(self.https_port.as_ref().map(|p| &p.place), "https_port", only_http, complaints);
        Service::Https(Box::new(Https {
            certificates,
            unknown_sni: self.unknown_sni.map_or_else(UnknownSni::default, |p| p.value.0),
            default_certificate: self.default_certificate,
            profile: self.tls.compile(complaints),
            clients: self.clients,
        }))
    }

    fn http(self, first_https: Option<u16>, complaints: &mut Complaints) -> Service {
        let only_https = "write `url = \"https://…\"` if this listener is to speak TLS";
        misplaced(self.certificates_place.as_ref(), "certificates", only_https, complaints);
        misplaced(self.acme_names.as_ref().map(|p| &p.place), "acme_names", only_https, complaints);
        misplaced(self.unknown_sni.as_ref().map(|p| &p.place), "unknown_sni", only_https, complaints);
        let default = self.default_certificate.as_ref().map(|p| &p.place);
        misplaced(default, "default_certificate", only_https, complaints);
        for (key, place) in self.tls.places().chain(self.clients.places()) {
            misplaced(Some(place), key, only_https, complaints);
        }
        let redirect = self.plain.as_ref().is_none_or(|p| p.value.0 == Plain::Redirect);
        if !redirect {
            misplaced(
                self.https_port.as_ref().map(|p| &p.place),
                "https_port",
                "this listener serves and never redirects",
                complaints,
            );
            return Service::Http;
        }
        let Some(written) = &self.https_port else {
            if first_https.is_none() {
                complaints.warning(
                    Some(&self.place),
                    "this listener redirects to https, but there is no https listener",
                    Some("write `plain = \"serve\"` to serve without TLS, or `https_port` if TLS ends in front".to_owned()),
                );
            }
            return Service::Redirect { https_port: first_https.unwrap_or(443) };
        };
        let https_port = u16::try_from(written.value).ok().filter(|port| *port != 0);
        if https_port.is_none() {
            let message = format!("`https_port` = {} is not a port", written.value);
            complaints.error(
                Some(&written.place),
                message,
                Some("a port is a number from 1 to 65535".to_owned()),
            );
        }
        Service::Redirect { https_port: https_port.unwrap_or(443) }
    }
}

impl Certificates {
    /// `dir:PATH`.
    fn folder(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let text = item.is_text().then(|| item.read::<String>(reading)).flatten()?;
        let path = text.value.strip_prefix("dir:")?;
        if path.is_empty() {
            let hint = Some("write `certificates = \"dir:/etc/ravelin/certs\"`".to_owned());
            reading.complaints.error(Some(&text.place), "`dir:` names no folder", hint);
        }
        Some(Self::Folder(Placed { value: reading.base.join(path), place: text.place }))
    }

    /// A word says who makes one or which folder has them; everything else is a list of files.
    fn read(item: Option<&Item<'_>>, reading: &mut Reading<'_>) -> Self {
        let none = Self::Files(Vec::new());
        let Some(item) = item else { return none };
        if let Some(folder) = Self::folder(item, reading) {
            return folder;
        }
        if item.is_text() {
            return item.read::<Text<Word>>(reading).map_or(none, |word| match word.value.0 {
                Word::Acme => Self::Acme(None),
                Word::Made(maker) => Self::Made(maker),
            });
        }
        let pairs = item.elements().into_iter();
        Self::Files(
            pairs.filter_map(|element| Certificate::read(element.into_section(reading)?, reading)).collect(),
        )
    }
}

impl Certificate {
    fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let place = section.place.clone();
        let (chain, key) = (section.get(reading, "chain"), section.get(reading, "key"));
        for (name, missing) in
            [("chain", section.item("chain").is_none()), ("key", section.item("key").is_none())]
        {
            if missing {
                let hint = "write `{ chain = \"www.pem\", key = \"www.key\" }`".to_owned();
                reading.complaints.error(
                    Some(&place),
                    format!("this certificate lacks `{name}`"),
                    Some(hint),
                );
            }
        }
        section.finish(reading);
        Some(Self { chain: chain?, key: key? })
    }
}

/// Whether two addresses cannot both be listened on. Port 0 never collides: the kernel chooses. `[::]` takes every IPv4 address too.
#[must_use]
pub fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let all_v6 = |x: SocketAddr| x.is_ipv6() && x.ip().is_unspecified();
    let covers = |x: SocketAddr, y: SocketAddr| {
        all_v6(x) || (x.ip().is_unspecified() && x.is_ipv4() == y.is_ipv4()) || x.ip() == y.ip()
    };
    a.port() != 0 && a.port() == b.port() && (covers(a, b) || covers(b, a))
}

fn misplaced(place: Option<&Place>, key: &str, hint: &str, complaints: &mut Complaints) {
    if let Some(place) = place {
        let message = format!("`{key}` has no meaning for this listener");
        complaints.error(Some(place), message, Some(hint.to_owned()));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use toml::de::DeTable;

    use super::*;
    use crate::config::complaint::Source;

    /// Reads `text` as a file named ravelin.toml and hands its root to `read`.
    pub(crate) fn read_with<T>(
        text: &str,
        read: impl FnOnce(&mut Section<'_>, &mut Reading<'_>) -> T,
    ) -> (T, Complaints) {
        let source = Arc::new(Source { name: "ravelin.toml".to_owned(), text: text.to_owned() });
        let table = DeTable::parse(&source.text).unwrap();
        let mut reading = Reading {
            complaints: Complaints::default(),
            env: &|_| None,
            base: PathBuf::from("/etc/ravelin"),
        };
        let mut root = Section::root(table.get_ref(), &source);
        let value = read(&mut root, &mut reading);
        (value, reading.complaints)
    }

    /// What one room's part of `[limits]` in `text` means, and the complaints about it.
    pub(crate) fn limits_with<R, P>(
        text: &str,
        read: impl FnOnce(&mut Section<'_>, &mut Reading<'_>) -> R,
        compile: impl FnOnce(R, &mut Complaints) -> P,
    ) -> (P, Complaints) {
        read_with(text, |root, reading| {
            let mut section = root.section(reading, "limits").unwrap();
            let raw = read(&mut section, reading);
            section.finish(reading);
            compile(raw, &mut reading.complaints)
        })
    }

    fn compile(text: &str) -> (Vec<Policy>, Complaints) {
        read_with(text, |root, reading| {
            let sections = root.sections(reading, "listen");
            let raws = sections.into_iter().map(|section| Raw::read(section, reading)).collect();
            Raw::compile(raws, &mut reading.complaints)
        })
    }

    #[test]
    fn the_smallest_real_file() {
        let (listeners, complaints) = compile(
            "[[listen]]\nurl = \"https://0.0.0.0:8443\"\ncertificates = [{ chain = \"www.pem\", key = \"www.key\" }]\n\
             [[listen]]\nurl = \"http://0.0.0.0:80\"\n",
        );
        assert!(complaints.is_empty(), "{complaints}");
        let [https, http] = listeners.as_slice() else { panic!("{listeners:?}") };
        assert_eq!(https.address, "0.0.0.0:8443".parse().unwrap());
        let Service::Https(tls) = &https.service else { panic!("{https:?}") };
        let Certificates::Files(pairs) = &tls.certificates else { panic!("{tls:?}") };
        assert_eq!(pairs[0].chain.value, PathBuf::from("/etc/ravelin/www.pem"));
        assert_eq!(tls.unknown_sni, UnknownSni::Default);
        assert!(matches!(http.service, Service::Redirect { https_port: 8443 }));
    }

    #[test]
    fn a_word_says_who_makes_the_certificate() {
        for (word, want) in [("development", Maker::Development), ("throw-away", Maker::ThrowAway)] {
            let (listeners, complaints) = compile(&format!(
                "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = \"{word}\"\n"
            ));
            assert!(complaints.is_empty(), "{complaints}");
            let Service::Https(tls) = &listeners[0].service else { panic!("{listeners:?}") };
            assert!(matches!(tls.certificates, Certificates::Made(maker) if maker == want));
        }
        let (_, complaints) =
            compile("[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = \"developmnt\"\n");
        assert!(complaints.to_string().contains("did you mean `development`?"), "{complaints}");
        assert_eq!(complaints.iter().count(), 1, "{complaints}");
    }

    #[test]
    fn a_plain_listener_may_serve_or_name_another_port() {
        let (listeners, complaints) = compile(
            "[[listen]]\nurl = \"http://[::]:80\"\nplain = \"serve\"\n\
             [[listen]]\nurl = \"http://0.0.0.0:81\"\nhttps_port = 443\n",
        );
        assert!(complaints.is_empty(), "{complaints}");
        assert!(matches!(listeners[0].service, Service::Http));
        assert!(matches!(listeners[1].service, Service::Redirect { https_port: 443 }));
    }

    #[test]
    fn urls_that_cannot_be_meant_say_what_to_write() {
        for (url, message, hint) in [
            ("0.0.0.0:443", "does not say whether http or https", "https://0.0.0.0:443"),
            ("ftp://0.0.0.0:21", "`ftp` is not spoken here", "only `http://` and `https://`"),
            ("https://0.0.0.0", "lacks a port", "`https://0.0.0.0:443`"),
            ("http://[::1]", "lacks a port", "`http://[::1]:80`"),
            ("https://::1", "lacks a port", "`https://[::1]:443`"),
            ("https://*:443", "names no address", "https://[::]:443"),
            ("https://localhost:8443", "is a name", "https://127.0.0.1:8443"),
            ("https://www.example.org:443", "is not an address", "`hosts` of a `[[site]]`"),
            ("https://www.example.org", "is not an address", "https://0.0.0.0:443"),
            ("https://0.0.0.0:443/typo3", "has a path", "[[site.path]]"),
            ("https://0.0.0.0:70000", "is not a port", "65535"),
        ] {
            let fault = Url::from_text(url).unwrap_err();
            assert!(fault.message.contains(message), "{url}: {}", fault.message);
            assert!(fault.hint.as_deref().unwrap().contains(hint), "{url}: {fault:?}");
        }
        let url = Url::from_text("https://[::]:443/").unwrap();
        assert_eq!(url.to_string(), "https://[::]:443");
    }

    #[test]
    fn impossible_combinations_are_errors_with_a_line() {
        let https = "[[listen]]\nurl = \"https://0.0.0.0:443\"\n";
        let http = "[[listen]]\nurl = \"http://0.0.0.0:80\"\n";
        for (text, want) in [
            (https.to_owned(), "an https listener needs a certificate"),
            (format!("{http}certificates = []\n"), "`certificates` has no meaning"),
            (format!("{http}unknown_sni = \"refuse\"\n"), "`unknown_sni` has no meaning"),
            (
                format!("{https}certificates = [{{ chain = \"a\", key = \"b\" }}]\nplain = \"serve\"\n"),
                "`plain` has",
            ),
            (format!("{https}certificates = [{{ chain = \"a\" }}]\n"), "this certificate lacks `key`"),
            (format!("{http}plain = \"serv\"\n"), "did you mean `serve`?"),
            (format!("{http}https_port = 0\n"), "is not a port"),
            (format!("{http}https_port = 1\nplain = \"serve\"\n"), "never redirects"),
            ("[[listen]]\n".to_owned(), "lacks `url`"),
            (format!("{http}{http}"), "two listeners on 0.0.0.0:80: the other stands at ravelin.toml:2"),
            (format!("{http}[[listen]]\nurl = \"http://127.0.0.1:80\"\n"), "two listeners on 127.0.0.1:80"),
            (format!("{http}[[listen]]\nurl = \"http://[::]:80\"\n"), "two listeners on [::]:80"),
            (format!("{http}portt = 1\n"), "unknown key `portt` in `listen`"),
        ] {
            let (_, complaints) = compile(&text);
            let said = complaints.to_string();
            assert!(complaints.has_errors() && said.contains(want), "{text}\n{said}");
            assert!(said.contains("--> ravelin.toml:"), "{said}");
        }
    }

    #[test]
    fn a_redirect_to_nowhere_is_a_warning() {
        let (_, complaints) = compile("[[listen]]\nurl = \"http://0.0.0.0:80\"\n");
        assert!(!complaints.has_errors() && complaints.to_string().contains("there is no https listener"));
    }

    #[test]
    fn different_addresses_and_chosen_ports_do_not_collide() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(!collide(at("127.0.0.1:80"), at("127.0.0.2:80")));
        assert!(!collide(at("0.0.0.0:80"), at("[::1]:80")));
        assert!(!collide(at("0.0.0.0:0"), at("0.0.0.0:0")));
        assert!(collide(at("0.0.0.0:80"), at("127.0.0.1:80")));
    }
}
