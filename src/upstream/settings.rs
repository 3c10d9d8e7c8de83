//! What the operator writes about the origins of a site, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};

use super::balance::MEMBERS_MAX;
use super::endpoint::Endpoint;
use super::tls::{self, Tls, Trust};
use super::tls_settings;
pub use super::tls_settings::Common;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};

/// Apache's `KeepAliveTimeout` where nothing else is set.
const APACHE_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// `upstream`, `[upstream_tls]` and `[upstream_pool]`, as written in a site.
#[derive(Clone, Debug)]
pub struct Raw {
    site: Place,
    upstream: Option<Placed<Vec<Placed<Text<Endpoint>>>>>,
    // Boxed: most of ten thousand sites write neither.
    tls: Option<Box<tls_settings::Raw>>,
    pool: Option<Box<RawPool>>,
}

#[derive(Clone, Debug, Default)]
struct RawPool {
    idle: Option<Placed<Text<Duration>>>,
    idle_per_worker: Option<Placed<u64>>,
    connect: Option<Placed<Text<Duration>>>,
    fail_after: Option<Placed<u64>>,
    retry_after: Option<Placed<Text<Duration>>>,
    requests: Option<Placed<u64>>,
    queue: Option<Placed<Text<Duration>>>,
}

/// The origins of one site.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where they are, and how TLS is spoken to those with https.
    pub(super) members: Vec<(Endpoint, Option<Tls>)>,
    /// How connections are kept and members left alone.
    pub pool: PoolPolicy,
}

/// `[site.upstream_pool]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// How long an idle connection is kept; below Apache's `KeepAliveTimeout` of 5 s.
    pub idle: Duration,
    /// How many idle connections each worker keeps to each member.
    pub idle_per_worker: usize,
    /// How long connecting may take: name, TCP and TLS together.
    pub connect: Duration,
    /// After how many failures to connect in a row a member is left alone; 0 for never. With a single
    /// member it has no effect.
    pub fail_after: u32,
    /// For how long.
    pub retry_after: Duration,
    /// How many requests a member may have at once whose answers have not begun.
    pub requests: usize,
    /// How long a request above that may wait for its turn.
    pub queue: Duration,
}

impl Policy {
    /// A single origin, for a command that asks it itself. Over https `root` alone is believed.
    ///
    /// # Errors
    /// When the root cannot be one, or no certificate can name the host.
    pub fn single(endpoint: Endpoint, root: Option<&CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let tls = match &endpoint {
            Endpoint::Net { host, tls: true, .. } => {
                let name = ServerName::try_from(host.to_string())
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                let mut roots = RootCertStore::empty();
                root.map_or(Ok(()), |root| roots.add(root.clone()))?;
                let trust =
                    Trust { roots: Some(roots.into()), named: Vec::new(), pins: Vec::new(), client: None };
                Some(Tls::new(tls::config(trust)?, name))
            }
            _ => None,
        };
        Ok(Self { members: vec![(endpoint, tls)], pool: PoolPolicy::default() })
    }

    /// Host and port of every member that is reached over TCP.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, u16)> {
        self.members.iter().filter_map(|(endpoint, _)| match endpoint {
            Endpoint::Net { host, port, .. } => Some((&**host, *port)),
            Endpoint::Unix(_) => None,
        })
    }
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(4),
            idle_per_worker: 64,
            connect: Duration::from_secs(5),
            fail_after: 3,
            retry_after: Duration::from_secs(10),
            // More than Apache's 150 workers, so that it is never idle while somebody waits.
            requests: 256,
            queue: Duration::from_secs(10),
        }
    }
}

impl Raw {
    /// Reads the keys of a `[[site]]`; the caller closes the section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let site = section.place.clone();
        let upstream = section.get(reading, "upstream");
        let tls = section
            .section(reading, "upstream_tls")
            .map(|section| Box::new(tls_settings::Raw::read(section, reading)));
        let pool = section
            .section(reading, "upstream_pool")
            .map(|section| Box::new(RawPool::read(section, reading)));
        Self { site, upstream, tls, pool }
    }

    /// What it means: every file is read and every name checked here.
    pub fn compile(self, common: &mut Common, complaints: &mut Complaints) -> Policy {
        let endpoints = self.endpoints(complaints);
        let pool = self.pool.as_ref().map(|pool| pool.compile(complaints)).unwrap_or_default();
        let https = endpoints.iter().any(Endpoint::tls);
        if let (Some(tls), false) = (&self.tls, https || endpoints.is_empty()) {
            let message = "`upstream_tls` has no effect: no upstream of this site is `https://`";
            complaints.warning(Some(&tls.place), message, None);
        }
        let tls = https
            .then(|| tls_settings::compile(self.tls.as_deref(), common, &self.site, complaints))
            .flatten();
        let members = endpoints
            .into_iter()
            .map(|endpoint| {
                let tls = tls.as_ref().and_then(|tls| tls.to(&endpoint, &self.site, complaints));
                (endpoint, tls)
            })
            .collect();
        Policy { members, pool }
    }

    fn endpoints(&self, complaints: &mut Complaints) -> Vec<Endpoint> {
        let Some(upstream) = &self.upstream else {
            let hint = "write e.g. `upstream = \"http://127.0.0.1:8080\"`".to_owned();
            complaints.error(Some(&self.site), "this site has no `upstream`", Some(hint));
            return Vec::new();
        };
        if upstream.value.len() > MEMBERS_MAX {
            let message = format!("`upstream` has more than {MEMBERS_MAX} members");
            complaints.error(Some(&upstream.place), message, None);
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for Placed { value: Text(endpoint), place } in &upstream.value {
            if let Some(doubt) = endpoint.doubt() {
                complaints.warning(Some(place), doubt.message, doubt.hint);
            }
            if endpoints.contains(endpoint) {
                complaints.warning(Some(place), format!("`{endpoint}` is listed twice"), None);
                continue;
            }
            endpoints.push(endpoint.clone());
        }
        // Members that could not be read were complained about already.
        if endpoints.is_empty() && !complaints.has_errors() {
            complaints.error(Some(&upstream.place), "`upstream` is an empty list", None);
        }
        endpoints
    }
}

impl RawPool {
    fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let raw = Self {
            idle: section.get(reading, "idle"),
            idle_per_worker: section.get(reading, "idle_per_worker"),
            connect: section.get(reading, "connect"),
            fail_after: section.get(reading, "fail_after"),
            retry_after: section.get(reading, "retry_after"),
            requests: section.get(reading, "requests"),
            queue: section.get(reading, "queue"),
        };
        section.finish(reading);
        raw
    }

    fn compile(&self, complaints: &mut Complaints) -> PoolPolicy {
        let standard = PoolPolicy::default();
        let time = |raw: &Option<Placed<Text<Duration>>>, or| raw.as_ref().map_or(or, |p| p.value.0);
        let count = |raw: &Option<Placed<u64>>| raw.as_ref().map(|p| p.value);
        let pool = PoolPolicy {
            idle: time(&self.idle, standard.idle),
            connect: time(&self.connect, standard.connect),
            retry_after: time(&self.retry_after, standard.retry_after),
            requests: count(&self.requests)
                .map_or(standard.requests, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            queue: time(&self.queue, standard.queue),
            idle_per_worker: count(&self.idle_per_worker)
                .map_or(standard.idle_per_worker, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            fail_after: count(&self.fail_after)
                .map_or(standard.fail_after, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        };
        if let Some(requests) = self.requests.as_ref().filter(|p| p.value == 0) {
            let hint = "leave the key out for the default".to_owned();
            complaints.error(Some(&requests.place), "`requests` = 0 lets nobody through", Some(hint));
        }
        if let Some(connect) = self.connect.as_ref().filter(|p| p.value.0.is_zero()) {
            complaints.error(Some(&connect.place), "`connect` must be longer than nothing", None);
        }
        if let Some(idle) = self.idle.as_ref().filter(|p| p.value.0 >= APACHE_KEEP_ALIVE) {
            let message = "idle connections are kept for as long as Apache keeps them, or longer";
            let hint = "raise Apache's `KeepAliveTimeout` (5 s by default) above `idle`, or requests will \
                now and then meet a closed connection";
            complaints.warning(Some(&idle.place), message, Some(hint.to_owned()));
        }
        pool
    }
}

/// A file that an operator named, for messages.
pub(super) fn shown(path: &Placed<PathBuf>) -> String {
    path.value.display().to_string()
}
