//! A generation: one configuration, compiled, immutable, with a name.
//!
//! A reload builds a new one, checks all of it, and swaps it in; a request under way keeps the one it
//! started with. What a generation holds is everything that can be computed at load.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::acme;
use crate::admin;
use crate::bans;
use crate::client;
use crate::config::complaint::Place;
use crate::firewall;
use crate::guard::host::{self, HostTable};
use crate::guard::{framing, install_tool, pace};
use crate::health;
use crate::listen;
use crate::load;
use crate::observe::{self, Observe};
use crate::site::{Route, Site};
use crate::state;
use crate::tls::clients;
use crate::tls::load::Certificate;
use crate::tls::store::Store;
use crate::tls::watch::Watched;

/// One configuration, ready to serve.
#[derive(Debug)]
pub struct Generation {
    /// The hash of everything it was built from, twelve hexadecimal digits.
    pub id: Box<str>,
    /// When it was begun to read what it is made of. What changes on the disk later may not be in it.
    pub read_at: SystemTime,
    /// Where clients connect, in the order of the file.
    pub listeners: Vec<Listener>,
    /// How many threads serve.
    pub workers: usize,
    /// Caps and times of connections.
    pub limits: listen::limits::Policy,
    /// How many requests may be under way, and how much memory they may take.
    pub load: load::Policy,
    /// What a request head may be.
    pub framing: framing::Policy,
    /// How slowly a request body may come.
    pub pace: pace::Policy,
    /// Whose forwarded addresses are believed.
    pub client: client::Policy,
    /// Who may connect where.
    pub firewall: firewall::Table,
    /// Who is locked out, and who may ask how often.
    pub bans: Arc<bans::Policy>,
    /// The sites, in the order of the file.
    pub sites: Vec<Site>,
    /// Which site a host belongs to: the number in `sites`.
    pub hosts: Arc<HostTable<usize>>,
    /// What is said about a host that belongs to no site.
    pub unknown_host: host::Policy,
    /// What a request for the Install Tool looks like.
    pub install_tool: install_tool::Entrance,
    /// What holds for a request that belongs to no site: refusals are hardened by it.
    pub outside: Route,
    /// The access log and diagnostics.
    pub log: observe::settings::Policy,
    /// What else is told of the counters.
    pub metrics: observe::emf::Policy,
    /// Where metrics and readiness are served, and changes taken.
    pub admin: admin::settings::Policy,
    /// Whose health checks are answered on the listeners.
    pub health: health::Policy,
    /// Where bans are kept.
    pub state: state::Policy,
    /// Where certificates come from by themselves; none if they do not.
    pub acme: Option<Arc<acme::Policy>>,
    /// How a stop goes.
    pub shutdown: Shutdown,
}

/// One `[[listen]]`, compiled.
#[derive(Debug)]
pub struct Listener {
    /// Its address and what it does.
    pub settings: listen::settings::Policy,
    /// Its certificates, if it speaks TLS.
    pub store: Option<Arc<Store>>,
    /// What it asks of clients, and what each site does.
    pub clients: clients::Table,
}

impl Listener {
    /// The port, and where it was written.
    #[must_use]
    pub fn port(&self) -> (u16, Place) {
        (self.settings.address.port(), self.settings.place.clone())
    }
}

impl Generation {
    /// Every certificate that was loaded or made and is served, each once. What stands in until a CA gives one is none.
    #[must_use]
    pub fn certificates(&self) -> Vec<Arc<Certificate>> {
        let own = self.listeners.iter().filter(|listener| !listener.settings.is_by_acme());
        let stores = own.filter_map(|listener| listener.store.as_ref());
        let mut all: Vec<_> = stores.flat_map(|store| store.certificates()).cloned().collect();
        let mut known = HashSet::new();
        all.retain(|certificate| known.insert(certificate.facts.fingerprint.clone()));
        all
    }

    /// The files and folders that certificates come from, and whose clients' certificates are accepted or revoked.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let certificates = self.listeners.iter().flat_map(|listener| listener.settings.watched());
        let clients = self.listeners.iter().flat_map(|listener| listener.clients.files());
        certificates.chain(clients.cloned().map(Watched::File)).collect()
    }

    /// When the first of the certificates that were made on the spot ends; none if all are files.
    #[must_use]
    pub fn made_until(&self) -> Option<SystemTime> {
        let made = self.listeners.iter().filter(|listener| listener.settings.makes_its_certificate());
        let stores = made.filter_map(|listener| listener.store.as_ref());
        stores.flat_map(|store| store.certificates()).map(|certificate| certificate.facts.not_after).min()
    }

    /// What a client is asked by the listener with this number that names this host.
    #[must_use]
    pub fn asked(&self, listener: usize, host: Option<&str>) -> Option<&Arc<clients::Policy>> {
        let site = host.and_then(|host| self.hosts.get(host)).copied();
        self.listeners.get(listener).map(|listener| listener.clients.of(site))
    }

    /// Gives every site its number in the metrics; before it is put in force.
    pub fn register(&mut self, observe: &Observe) {
        for site in &mut self.sites {
            site.meter = observe.site(&site.name);
        }
    }
}

/// How a stop goes: readiness off and serving on, then finishing what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long it serves on after readiness went off, so that balancers notice.
    pub drain_delay: Duration,
    /// How long requests under way may take to finish.
    pub grace: Duration,
    /// After how long the service manager kills what has not ended; none if nobody said.
    pub stop_timeout: Option<Duration>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_delay: Duration::from_secs(5), grace: Duration::from_secs(30), stop_timeout: None }
    }
}
