//! The whole file: every table at the top, put together into a generation.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::complaint::{Complaints, Place, Source};
use super::crossed;
use super::development;
use super::layer::{Layer, Stacks};
use super::section::{Placed, Reading, Section, Text};
use super::served;
use super::site;
use super::units::Size;
use crate::acme;
use crate::admin;
use crate::bans;
use crate::client;
use crate::clock;
use crate::firewall;
use crate::generation::{Generation, Listener, Shutdown};
use crate::guard::host::{self, HostPattern, HostTable};
use crate::guard::install_tool::Entrance;
use crate::guard::{framing, pace};
use crate::health;
use crate::listen;
use crate::listen::settings::{Certificates, Https, Maker, Service, UnknownSni};
use crate::observe;
use crate::runtime::worker_count;
use crate::site::Site;
use crate::state;
use crate::tls::clients;
use crate::tls::load::{Files, load};
use crate::tls::store::{Store, UnknownName};
use crate::upstream;

/// Reads `source` and compiles it. What is wrong is in `reading.complaints`; `None` if it is not TOML at
/// all or lacks what everything else stands on.
pub fn read(source: &Arc<Source>, reading: &mut Reading<'_>) -> Option<Generation> {
    let document = parse(source, reading)?;
    let mut root = Section::root(document.get_ref(), source);
    let raw = Raw::read(&mut root, reading);
    root.finish(reading);
    // With ten thousand sites the document is larger than what becomes of it.
    drop(document);
    raw.compile(source, reading)
}

/// The addresses of the admin listener of `source` and nothing else.
pub fn admin(source: &Arc<Source>, reading: &mut Reading<'_>) -> Option<Vec<admin::settings::Address>> {
    let document = parse(source, reading)?;
    let section = Section::root(document.get_ref(), source).section(reading, "admin")?;
    Some(admin::settings::Raw::read(section, reading).compile(&mut reading.complaints).listen)
}

/// Where bans are kept, and nothing else.
pub fn state(source: &Arc<Source>, reading: &mut Reading<'_>) -> Option<state::Policy> {
    let document = parse(source, reading)?;
    let mut root = Section::root(document.get_ref(), source);
    let raw = state::settings::Raw::read(&mut root, reading);
    Some(raw.compile(&mut reading.complaints))
}

/// The text as TOML; every fault is complained about.
fn parse<'s>(source: &'s Arc<Source>, reading: &mut Reading<'_>) -> Option<Spanned<DeTable<'s>>> {
    let (document, faults) = DeTable::parse_recoverable(&source.text);
    for fault in &faults {
        let place = fault.span().map(|span| Place { source: Arc::clone(source), span });
        let word = place.as_ref().and_then(|place| source.text.get(place.span.clone()));
        let (message, hint) = syntax(fault.message(), word.unwrap_or_default());
        reading.complaints.error(place.as_ref(), message, hint);
    }
    faults.is_empty().then_some(document)
}

/// A fault of the grammar in words, and what to do about it; `word` is what stands there.
fn syntax(message: &str, word: &str) -> (String, Option<String>) {
    if message.contains("duplicate") && !word.is_empty() {
        let hint = "a key may stand only once in a table: keep one of the lines".to_owned();
        return (format!("`{word}` stands here a second time"), Some(hint));
    }
    (message.to_owned(), None)
}

/// The file as it was written.
struct Raw {
    listeners: Vec<listen::settings::Raw>,
    limits: Limits,
    client: client::Raw,
    firewall: firewall::Raw,
    bans: bans::Raw,
    log: observe::settings::Raw,
    metrics: observe::emf::Raw,
    admin: admin::settings::Raw,
    health: health::Raw,
    state: state::settings::Raw,
    acme: acme::settings::Raw,
    shutdown: Shutdown,
    unknown_host: host::Raw,
    layer: Layer,
    sites: Vec<site::Raw>,
    stacks: Stacks,
}

impl Raw {
    fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let listeners = root
            .sections(reading, "listen")
            .into_iter()
            .map(|section| listen::settings::Raw::read(section, reading))
            .collect();
        let mut stacks = Stacks::default();
        Self {
            listeners,
            limits: Limits::read(root, reading),
            client: client::Raw::read(root, reading),
            firewall: firewall::Raw::read(root, reading),
            bans: bans::Raw::read(root, reading),
            log: root
                .section(reading, "log")
                .map(|section| observe::settings::Raw::read(section, reading))
                .unwrap_or_default(),
            metrics: observe::emf::Raw::read(root, reading),
            admin: root
                .section(reading, "admin")
                .map(|section| admin::settings::Raw::read(section, reading))
                .unwrap_or_default(),
            health: health::Raw::read(root, reading),
            state: state::settings::Raw::read(root, reading),
            acme: acme::settings::Raw::read(root, reading),
            shutdown: read_shutdown(root, reading),
            unknown_host: host::Raw::read(root, reading),
            layer: Layer::read(root, reading),
            sites: root
                .sections(reading, "site")
                .into_iter()
                .map(|section| site::Raw::read(section, &mut stacks, reading))
                .collect(),
            stacks,
        }
    }

    fn compile(mut self, source: &Arc<Source>, reading: &mut Reading<'_>) -> Option<Generation> {
        let read_at = clock::wall();
        let whole = Place { source: Arc::clone(source), span: 0..0 };
        if self.sites.is_empty() {
            let hint = "add `[[site]]` with `hosts` and `upstream`; `ravelin config default` shows one";
            reading.complaints.error(Some(&whole), "there is no `[[site]]`", Some(hint.to_owned()));
        }
        if self.listeners.is_empty() {
            let hint = "add `[[listen]]` with e.g. `url = \"https://0.0.0.0:443\"`";
            reading.complaints.error(Some(&whole), "there is no `[[listen]]`", Some(hint.to_owned()));
        }
        let patterns: Vec<_> = self.sites.iter().flat_map(|site| site.hosts.clone()).collect();
        let clients: Vec<_> = self.sites.iter_mut().map(|site| site.clients.take()).collect();
        let listeners = listeners(self.listeners, &patterns, &clients, reading);
        check_balancer(&listeners, &self.client, &mut reading.complaints);
        let state = self.state.compile(&mut reading.complaints);
        let wanted = acme_names(&listeners, &patterns, self.acme.is_written(), &mut reading.complaints);
        let acme = self.acme.compile(wanted, &state, &mut reading.complaints);
        if let Some(acme) = &acme {
            check_proofs(acme, &listeners, &mut reading.complaints);
        }
        let ports: Vec<_> = listeners.iter().map(Listener::port).collect();
        let workers = worker_count(self.limits.workers);
        self.layer.check_paths(&mut reading.complaints);
        let outside = self.stacks.outside(&self.layer, reading)?;
        let mut common = site::Common {
            file: &self.layer,
            stacks: self.stacks,
            origins: upstream::settings::Common::default(),
            limits: self.limits.origin,
            workers,
        };
        let mut hosts = Vec::new();
        let mut sites: Vec<Site> = Vec::with_capacity(self.sites.len());
        for raw in self.sites {
            let patterns = raw.hosts.clone();
            hosts.extend(patterns.into_iter().map(|host| (host, sites.len())));
            sites.push(raw.compile(sites.len(), &mut common, &mut reading.complaints));
        }
        let log = self.log.compile(&mut reading.complaints);
        let admin = self.admin.compile(&mut reading.complaints);
        crossed::check(&listeners, &sites, &admin.listen, &mut reading.complaints);
        let limits = self.limits.connections.compile(&mut reading.complaints);
        self.client.check_keep_alive(limits.keep_alive, &mut reading.complaints);
        Some(Generation {
            id: identity(source, &listeners),
            read_at,
            listeners,
            workers,
            limits,
            load: self.limits.load.compile(&mut reading.complaints),
            framing: self.limits.framing.compile(&mut reading.complaints),
            pace: self.limits.pace.compile(&mut reading.complaints),
            client: self.client.compile(&mut reading.complaints),
            firewall: self.firewall.compile(&ports, &mut reading.complaints),
            bans: Arc::new(self.bans.compile(&mut reading.complaints)),
            hosts: Arc::new(HostTable::compile(hosts, &mut reading.complaints)),
            sites,
            unknown_host: self.unknown_host.compile(&mut reading.complaints),
            outside,
            install_tool: Entrance::default(),
            metrics: self.metrics.compile(&log, &mut reading.complaints),
            log,
            admin,
            health: self.health.compile(&mut reading.complaints),
            state,
            acme,
            shutdown: self.shutdown,
        })
    }
}

/// What comes after the grace: bans and the log are written to their end.
const AFTERWARDS: Duration = Duration::from_secs(1);

fn read_shutdown(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Shutdown {
    let default = Shutdown::default();
    let Some(mut section) = root.section(reading, "shutdown") else { return default };
    let mut time = |key| -> Option<Placed<Duration>> {
        section.get::<Text<Duration>>(reading, key).map(|placed| placed.map(|time| time.0))
    };
    let (drain_delay, grace, stop_timeout) = (time("drain_delay"), time("grace"), time("stop_timeout"));
    section.finish(reading);
    let shutdown = Shutdown {
        drain_delay: drain_delay.map_or(default.drain_delay, |placed| placed.value),
        grace: grace.map_or(default.grace, |placed| placed.value),
        stop_timeout: stop_timeout.as_ref().map(|placed| placed.value),
    };
    if let Some(limit) = stop_timeout {
        check_stop(&shutdown, &limit, &mut reading.complaints);
    }
    shutdown
}

/// A stop that takes longer than the service manager allows ends with its kill, in the middle of requests.
fn check_stop(shutdown: &Shutdown, limit: &Placed<Duration>, complaints: &mut Complaints) {
    let Shutdown { drain_delay, grace, .. } = *shutdown;
    let sum = drain_delay.saturating_add(grace).saturating_add(AFTERWARDS);
    if sum <= limit.value {
        return;
    }
    let message = format!(
        "a stop takes up to {sum:?} and is killed after {:?}: `drain_delay` ({drain_delay:?}) and `grace` ({grace:?}) \
         do not fit into `stop_timeout`, with {AFTERWARDS:?} for what is written last",
        limit.value
    );
    let room = limit.value.saturating_sub(drain_delay).saturating_sub(AFTERWARDS);
    let hint = if room.is_zero() {
        "raise `stop_timeout` and that of the service manager (`TimeoutStopSec=`, `stopTimeout`, `docker stop -t`), or \
         shorten `drain_delay`"
            .to_owned()
    } else {
        format!(
            "write `grace = \"{} s\"`, or raise `stop_timeout` and that of the service manager (`TimeoutStopSec=`, \
             `stopTimeout`, `docker stop -t`)",
            room.as_secs()
        )
    };
    complaints.error(Some(&limit.place), message, Some(hint));
}

/// `[limits]`, which several rooms read their own keys from.
#[derive(Default)]
struct Limits {
    connections: listen::limits::Raw,
    load: crate::load::settings::Raw,
    framing: framing::Raw,
    pace: pace::Raw,
    origin: upstream::Limits,
    workers: usize,
}

impl Limits {
    fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut section) = root.section(reading, "limits") else { return Self::default() };
        let default = upstream::Limits::default();
        let limits = Self {
            connections: listen::limits::Raw::read(&mut section, reading),
            load: crate::load::settings::Raw::read(&mut section, reading),
            framing: framing::Raw::read(&mut section, reading),
            pace: pace::Raw::read(&mut section, reading),
            origin: upstream::Limits {
                response_head: section
                    .get::<Text<Size>>(reading, "response_head")
                    .and_then(|placed| usize::try_from(placed.value.0.0).ok())
                    .unwrap_or(default.response_head),
                body_idle: section
                    .get::<Text<Duration>>(reading, "body_idle")
                    .map_or(default.body_idle, |placed| placed.value.0),
                tunnel_idle: section
                    .get::<Text<Duration>>(reading, "tunnel_idle")
                    .map_or(default.tunnel_idle, |placed| placed.value.0),
            },
            workers: section
                .get::<u64>(reading, "workers")
                .and_then(|placed| usize::try_from(placed.value).ok())
                .unwrap_or_default(),
        };
        section.finish(reading);
        limits
    }
}

/// The listeners with their certificates loaded, or made for `hosts`.
fn listeners(
    raw: Vec<listen::settings::Raw>,
    hosts: &[Placed<HostPattern>],
    asked: &[Option<Box<clients::Raw>>],
    reading: &mut Reading<'_>,
) -> Vec<Listener> {
    let mut compiler = clients::Compiler::default();
    listen::settings::Raw::compile(raw, &mut reading.complaints)
        .into_iter()
        .map(|settings| {
            let store = match &settings.service {
                Service::Https(https) => store(https, &settings.place, hosts, reading),
                _ => None,
            };
            let clients = match &settings.service {
                Service::Https(https) => {
                    compiler.table(&https.clients, asked, clock::wall(), &mut reading.complaints)
                }
                _ => clients::Table::plain(asked),
            };
            Listener { settings, store: store.map(Arc::new), clients }
        })
        .collect()
}

fn store(
    https: &Https,
    place: &Place,
    hosts: &[Placed<HostPattern>],
    reading: &mut Reading<'_>,
) -> Option<Store> {
    let mut certificates = Vec::new();
    match &https.certificates {
        Certificates::Files(pairs) => {
            for pair in pairs {
                let files = Files { chain: &pair.chain.value, key: &pair.key.value };
                let place = Some(&pair.chain.place);
                let loaded = load(files, clock::wall(), place, &mut reading.complaints);
                if let Some(certificate) = &loaded {
                    served::check(certificate, hosts, place, &mut reading.complaints);
                }
                certificates.extend(loaded);
            }
        }
        Certificates::Folder(folder) => {
            certificates = served::folder(folder, hosts, clock::wall(), &mut reading.complaints);
        }
        Certificates::Made(maker) => {
            certificates.extend(development::certificate(*maker, place, hosts, reading));
        }
        Certificates::Acme(names) => {
            // What serves until a certificate has come.
            let names = names.as_deref().unwrap_or(hosts);
            let names = names.get(..names.len().min(STAND_IN_NAMES)).unwrap_or_default();
            certificates.extend(development::certificate(Maker::ThrowAway, place, names, reading));
        }
    }
    if certificates.is_empty() {
        return None;
    }
    let default = https.default_certificate.as_ref();
    let unknown = match https.unknown_sni {
        UnknownSni::Default => UnknownName::Default,
        UnknownSni::Refuse => UnknownName::Refuse,
    };
    let place = default.map_or(place, |name| &name.place);
    let default = default.map(|name| name.value.as_str());
    Store::new(&certificates, default, unknown, Some(place), &mut reading.complaints)
}

/// More names do not stand in a self-signed certificate.
const STAND_IN_NAMES: usize = 100;

/// The names that each listener wants certificates for by ACME.
fn acme_names(
    listeners: &[Listener],
    hosts: &[Placed<HostPattern>],
    is_written: bool,
    complaints: &mut Complaints,
) -> Vec<Option<Vec<Placed<HostPattern>>>> {
    let wanted = |listener: &Listener| {
        let Service::Https(https) = &listener.settings.service else { return None };
        let Certificates::Acme(names) = &https.certificates else { return None };
        if !is_written {
            let hint = "write `[acme]` with `agree_to_terms = true` and, if you like, an `email`";
            let message = "`certificates = \"acme\"` needs a table `[acme]`";
            complaints.error(Some(&listener.settings.place), message, Some(hint.to_owned()));
        }
        Some(names.clone().unwrap_or_else(|| hosts.to_vec()))
    };
    listeners.iter().map(wanted).collect()
}

/// A CA that is to come over plain HTTP needs somewhere to come to.
fn check_proofs(acme: &acme::Policy, listeners: &[Listener], complaints: &mut Complaints) {
    let plain = listeners.iter().any(|listener| !matches!(listener.settings.service, Service::Https(_)));
    if plain || acme.challenges.first() != Some(&acme::settings::Challenge::Http01) {
        return;
    }
    let by_acme = listeners.iter().find(|listener| listener.settings.is_by_acme());
    let hint =
        "add `[[listen]]` with `url = \"http://0.0.0.0:80\"`, or write `challenges = [\"tls-alpn-01\"]`";
    complaints.warning(
        by_acme.map(|listener| &listener.settings.place),
        "`http-01` is asked for over plain HTTP on port 80, and no listener speaks it: no certificate would come",
        Some(hint.to_owned()),
    );
}

/// A listener that others than this machine reach without TLS stands behind something that ends it. Unless it is said
/// whom to trust, all clients of that are one.
fn check_balancer(listeners: &[Listener], client: &client::Raw, complaints: &mut Complaints) {
    let behind = |listener: &&Listener| {
        matches!(listener.settings.service, Service::Http) && !listener.settings.address.ip().is_loopback()
    };
    let Some(listener) = listeners.iter().find(behind).filter(|_| !client.says_whom_to_trust()) else {
        return;
    };
    let message = "this listener serves without TLS, as behind a load balancer, and no proxy is trusted: all clients \
                   of a balancer would count as one";
    let hint = "write `trusted_proxies = [\"vpc\"]` or its subnets into `[client]`; `trusted_proxies = []` says that there is none";
    complaints.warning(Some(&listener.settings.place), message, Some(hint.to_owned()));
}

/// The name of a generation: twelve hexadecimal digits of a hash of everything it was built from. It tells
/// generations apart; it proves nothing.
fn identity(source: &Source, listeners: &[Listener]) -> Box<str> {
    let mut hash = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), &source.text).hash(&mut hash);
    for listener in listeners {
        listener.clients.ids().hash(&mut hash);
    }
    let stores = listeners.iter().filter_map(|listener| listener.store.as_ref());
    for certificate in stores.flat_map(|store| store.certificates()) {
        certificate.key.cert.iter().for_each(|der| der.as_ref().hash(&mut hash));
    }
    format!("{:012x}", hash.finish() >> 16).into()
}
