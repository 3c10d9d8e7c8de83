//! Yesterday's requests, judged by today's rules: what would have been blocked, before anybody is.
//!
//! A log tells neither of `Connection` nor of `Upgrade`, nor of framing, TLS and the fields that nobody logs: what is
//! refused because of those (`bad-header`, `upgrade-not-allowed`, `misdirected` and the grades of HTTP/1) is seen by the
//! mode `report` only. Apache's log tells of no request's body, so that `body-too-large` needs a log of ours.

pub mod line;
pub mod tally;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use http::{StatusCode, Uri};

use crate::bans::{Ledger, Memory, Meters};
use crate::client::{Peer, TlsFacts};
use crate::clock::{self, Millis};
use crate::config::rules;
use crate::gate::Witness;
use crate::generation::Generation;
use crate::head::Head;
use crate::http1::request::{Decoder, RequestHead};
use crate::pipeline::{self, Found};
use crate::refusal::{Reason, Refusal};
use crate::site::{Route, Site};
use line::Entry;

/// What the rules say about one request of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Why it would have been refused.
    pub reason: Reason,
    /// The private detail, as the log would have shown it.
    pub detail: String,
    /// The line of the configuration that decides; none where no key has a say.
    pub decided: Option<String>,
    /// Whether the rule only reports: then nobody would have been blocked yet.
    pub reported: bool,
}

/// Puts requests of a log before a configuration.
#[derive(Debug)]
pub struct Judge<'g> {
    generation: &'g Generation,
    /// The host of lines that name none, as in Apache's `combined`.
    host: Box<str>,
    /// What is remembered of the log so far.
    ledger: Ledger,
    meters: Meters,
    /// The time of this process that stands for 1970, of which all lines of the log are told.
    start: Instant,
    /// The listener by which requests come: the first that speaks TLS, or the first.
    listener: usize,
}

/// What is written down while a request goes down the road.
struct Notes {
    blocks: Vec<Block>,
    written: rules::Raw,
}

impl Notes {
    fn note(&mut self, refusal: &Refusal, reported: bool) {
        let decided = self.written.decides(refusal.reason);
        self.blocks.push(Block {
            reason: refusal.reason,
            detail: refusal.detail.to_string(),
            decided: decided.map(crate::config::complaint::Place::label),
            reported,
        });
    }
}

impl Witness for Notes {
    fn would_block(&mut self, refusal: &Refusal) {
        self.note(refusal, true);
    }

    fn found_site(&mut self, site: &Site) {
        if let Some(root) = site.root() {
            self.written = root.rules.written.clone();
        }
    }

    fn found_route(&mut self, route: &Route) {
        self.written = route.rules.written.clone();
    }
}

impl<'g> Judge<'g> {
    /// A judge by `generation`. Lines without a host are for `host`; if none is named, for the first host of the
    /// first site that is no pattern.
    #[must_use]
    pub fn new(generation: &'g Generation, host: Option<&str>) -> Self {
        let first = generation.sites.first().map_or("localhost", |site| &*site.name);
        // `*.example.org` stands for any name below, and `*` for any at all.
        let first = first.strip_prefix('*').map_or(first.to_owned(), |rest| format!("www{rest}"));
        let listener = generation.listeners.iter().position(|listener| listener.store.is_some());
        let start = clock::now();
        Self {
            generation,
            host: host.map_or(first, str::to_owned).into(),
            listener: listener.unwrap_or(0),
            ledger: Ledger::new(generation.bans.bounds),
            meters: Meters::new(start),
            start,
        }
    }

    /// Everything that the rules have against `entry`: what they would report, and at last what they refuse.
    #[must_use]
    pub fn judge(&self, entry: &Entry<'_>) -> Vec<Block> {
        let mut notes = Notes { blocks: Vec::new(), written: self.generation.outside.rules.written.clone() };
        let Some(head) = self.decode(entry) else { return notes.blocks };
        let peer = self.peer(entry.client, entry.host.as_deref().unwrap_or(&self.host));
        let mut found = Found::nothing(self.generation, &peer);
        let memory = self.memory(entry);
        let head = Head::received(&head);
        let decided = pipeline::decide(self.generation, &memory, &peer, head, &mut found, &mut notes);
        let refused = decided.err();
        // What was answered then counts now, so that a jail bans whom it would have banned.
        let status = refused.as_ref().map(Refusal::status).or(entry.status);
        if let Some(status) = status {
            let reason = refused.as_ref().map(|refusal| refusal.reason);
            let _ = found.count(self.generation, &memory, &head, reason, status);
        }
        if let Some(refusal) = refused {
            notes.note(&refusal, false);
        }
        notes.blocks
    }

    fn memory(&self, entry: &Entry<'_>) -> Memory<'_> {
        let now = Millis::from(SystemTime::from(entry.at));
        let instant = self.start.checked_add(Duration::from_millis(now.0)).unwrap_or(self.start);
        Memory { ledger: &self.ledger, meters: &self.meters, now, instant }
    }

    /// The head as the client may have sent it. A log keeps only a part of it, so that what the rules say about
    /// other fields cannot be known.
    fn decode(&self, entry: &Entry<'_>) -> Option<RequestHead> {
        let mut out = BytesMut::new();
        let host = entry.host.as_deref().unwrap_or(&self.host);
        // Writing into a `BytesMut` grows it and cannot fail.
        let _ = write!(out, "{} {} HTTP/1.1\r\nhost: {host}\r\n", entry.method, entry.target);
        let fields = [("user-agent", &entry.user_agent), ("referer", &entry.referer)];
        for (name, value) in fields {
            if let Some(value) = value {
                let clean = value.chars().filter(|c| !c.is_control());
                let _ = write!(out, "{name}: {}\r\n", clean.collect::<String>());
            }
        }
        if entry.received > 0 {
            let _ = write!(out, "content-length: {}\r\n", entry.received);
        }
        out.extend_from_slice(b"\r\n");
        let limits = &self.generation.limits;
        match Decoder::default().decode(&mut out, &limits.request(), limits.desync) {
            Ok(head) => head,
            Err(broken) => Some(broken.head),
        }
    }

    fn peer(&self, client: IpAddr, host: &str) -> Peer {
        let listener = self.generation.listeners.get(self.listener);
        let local =
            listener.map_or(SocketAddr::from(([127, 0, 0, 1], 443)), |chosen| chosen.settings.address);
        let name = host.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
        let tls = listener.filter(|chosen| chosen.store.is_some()).map(|_| TlsFacts {
            clients: (self.generation.asked(self.listener, name.as_deref()).cloned())
                .unwrap_or_else(crate::tls::clients::Policy::off),
            identity: None,
            sni: name.map(Box::from),
            version: "TLSv1.3",
            cipher: "",
            resumed: false,
        });
        Peer { addr: SocketAddr::new(client, 50_000), local, tls, listener: self.listener }
    }
}

/// Whether an answer with this status was what the client had come for.
#[must_use]
pub fn served(status: Option<StatusCode>) -> bool {
    status.is_some_and(|status| status.is_success() || status.is_redirection())
}
