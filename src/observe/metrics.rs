//! The counters as text, for Prometheus and whoever reads OpenMetrics.
//!
//! `prometheus-client` writes the text; it does not count. Its own families find a label set in a hash
//! map behind a lock, per request; ours are summed here, when somebody scrapes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::meters::{
    BOUNDS, CLASSES, CULPRITS, METHODS, Meters, Row, SiteMeters, SiteNames, VERSIONS, Words,
};
use super::spool::Tally;
use crate::refusal::Reason;

/// The content type of the text (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted in this process.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) words: Words,
    pub(super) workers: Box<[Arc<Meters>]>,
    pub(super) sites: SiteNames,
    pub(super) process: Process,
}

/// What is counted outside of workers.
#[derive(Debug, Default)]
pub(super) struct Process {
    state: Mutex<State>,
    reloads: AtomicU64,
    reloads_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    generation: Box<str>,
    loaded: u64,
    started: u64,
    certificates: Vec<(Box<str>, u64)>,
    log: Tally,
}

impl Process {
    pub(super) fn started(&self, wall: SystemTime) {
        self.with(|state| state.started = seconds(wall));
    }

    pub(super) fn generation(&self, id: &str, wall: SystemTime) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        self.with(|state| {
            state.generation = id.into();
            state.loaded = seconds(wall);
        });
    }

    pub(super) fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn certificates(&self, list: Vec<(Box<str>, u64)>) {
        self.with(|state| state.certificates = list);
    }

    pub(super) fn log(&self, tally: Tally) {
        self.with(|state| state.log = tally);
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    /// The text, as of now.
    pub(super) fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("ravelin");
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut out = String::with_capacity(16 << 10);
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    fn sum(&self, of: impl Fn(&Meters) -> u64) -> u64 {
        self.workers.iter().map(|meters| of(meters)).sum()
    }

    fn site_sum(&self, number: usize, of: impl Fn(&SiteMeters) -> u64) -> u64 {
        self.workers.iter().filter_map(|meters| meters.site(number)).map(of).sum()
    }
}

impl Collector for Book {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { book: self, encoder };
        page.requests()?;
        page.refusals()?;
        page.connections()?;
        page.origin()?;
        page.process()
    }
}

type Label = (&'static str, &'static str);

/// The text while it is written.
struct Page<'b, 'e> {
    book: &'b Book,
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_, '_> {
    fn requests(&mut self) -> fmt::Result {
        let book = self.book;
        let sites: Vec<(usize, Box<str>)> = book.sites.all().into_iter().enumerate().collect();
        let mut cells = Vec::new();
        for (number, site) in &sites {
            for (m, method) in METHODS.iter().enumerate() {
                for (c, class) in CLASSES.iter().enumerate() {
                    let count = book.site_sum(*number, |meters| meters.requests(m, c));
                    // A site that is asked for three methods has three rows, not sixty.
                    if count > 0 {
                        cells.push(([("site", &**site), ("method", method), ("status", class)], count));
                    }
                }
            }
        }
        self.counters("requests", "Requests, by site, method and status class", cells)?;
        for (name, help, of) in [
            ("received_bytes", "Bytes of request bodies", (|m| &m.received) as fn(&SiteMeters) -> &AtomicU64),
            ("sent_bytes", "Bytes of response bodies", |m| &m.sent),
        ] {
            let cells = sites.iter().map(|(number, site)| {
                ([("site", &**site)], book.site_sum(*number, |meters| of(meters).load(Ordering::Relaxed)))
            });
            self.counters(name, help, cells)?;
        }
        self.durations(&sites)?;
        let codes: Vec<String> = (100..600).map(|code| code.to_string()).collect();
        let cells = codes.iter().enumerate().filter_map(|(i, code)| {
            let count = book.sum(|meters| meters.codes.get(i));
            (count > 0).then_some(([("code", code.as_str())], count))
        });
        self.counters("responses", "Responses, by status code", cells)?;
        self.row("protocol_requests", "Requests, by protocol version", "protocol", &VERSIONS, |m| {
            &m.versions
        })?;
        self.row(
            "aborted_requests",
            "Requests that ended before their end, by who ended them",
            "by",
            &CULPRITS,
            |m| &m.aborted,
        )
    }

    fn durations(&mut self, sites: &[(usize, Box<str>)]) -> fmt::Result {
        let help = "From a request's head to its answer's last byte";
        let mut family =
            self.encoder.encode_descriptor("request_duration_seconds", help, None, MetricType::Histogram)?;
        for (number, site) in sites {
            let mut counts = [0; BOUNDS.len() + 1];
            let meters = self.book.workers.iter().filter_map(|meters| meters.site(*number));
            let micros: u64 = meters.map(|meters| meters.duration.add_to(&mut counts)).sum();
            let buckets = buckets(&counts);
            let labels = [("site", &**site)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(as_seconds(micros), counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }

    fn refusals(&mut self) -> fmt::Result {
        let book = self.book;
        let row = |mode: &'static str, of: fn(&Meters) -> &Row| {
            Reason::ALL.into_iter().map(move |reason| {
                let labels: [Label; 3] =
                    [("step", reason.row().step.name()), ("reason", reason.name()), ("mode", mode)];
                (labels, book.sum(|meters| of(meters).get(reason as usize)))
            })
        };
        let cells = row("enforced", |m| &m.enforced).chain(row("would_block", |m| &m.would_block));
        self.counters("refusals", "Requests that were refused, or would have been", cells)
    }

    fn connections(&mut self) -> fmt::Result {
        let book = self.book;
        let load = |of: fn(&Meters) -> &AtomicU64| book.sum(|meters| of(meters).load(Ordering::Relaxed));
        // Closed first: a connection that opens in between is open then, and never one fewer than none.
        let closed = load(|m| &m.connections_closed);
        let opened = load(|m| &m.connections_opened);
        self.counter("connections", "Connections from clients", opened)?;
        self.gauge(
            "connections_open",
            "Connections from clients that are open",
            opened.saturating_sub(closed),
        )?;
        let words = book.words;
        self.row(
            "connections_refused",
            "Connections that were not taken, by cause",
            "cause",
            words.refused,
            |m| &m.connections_refused,
        )?;
        self.row(
            "foreign_protocols",
            "Connections that spoke something other than HTTP",
            "protocol",
            words.foreign,
            |m| &m.foreign,
        )?;
        self.counter("tls_handshakes", "TLS handshakes that succeeded", load(|m| &m.handshakes))?;
        self.row(
            "tls_handshakes_failed",
            "TLS handshakes that failed, by cause",
            "cause",
            words.handshake,
            |m| &m.handshakes_failed,
        )
    }

    fn origin(&mut self) -> fmt::Result {
        let book = self.book;
        let load = |of: fn(&Meters) -> &AtomicU64| book.sum(|meters| of(meters).load(Ordering::Relaxed));
        let cells = [
            ([("connection", "new")], load(|m| &m.origin_new)),
            ([("connection", "reused")], load(|m| &m.origin_reused)),
        ];
        self.counters("upstream_requests", "Requests to origins, by connection", cells)?;
        self.counter(
            "upstream_retries",
            "Requests to origins that were sent again",
            load(|m| &m.origin_retries),
        )?;
        self.row(
            "upstream_errors",
            "Exchanges with origins that failed, by kind; a retry may have mended them",
            "kind",
            book.words.origin,
            |m| &m.origin_errors,
        )?;
        let mut counts = [0; BOUNDS.len() + 1];
        let micros: u64 = book.workers.iter().map(|m| m.origin_first_byte.add_to(&mut counts)).sum();
        let help = "From a request's first byte to an origin until its answer's first";
        let name = "upstream_first_byte_seconds";
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(
            as_seconds(micros),
            counts.iter().sum(),
            &buckets(&counts),
            None,
        )
    }

    fn process(&mut self) -> fmt::Result {
        let process = &self.book.process;
        let (generation, loaded, started, certificates, log) =
            process.with(|s| (s.generation.clone(), s.loaded, s.started, s.certificates.clone(), s.log));
        let cells = [
            ([("result", "written")], log.written),
            ([("result", "dropped")], log.dropped),
            ([("result", "failed")], log.failed),
        ];
        self.counters("access_log_lines", "Lines of the access log, by what became of them", cells)?;
        self.counter(
            "panics",
            "Defects that were caught",
            self.book.sum(|m| m.panics.load(Ordering::Relaxed)),
        )?;
        let cells = [
            ([("result", "ok")], process.reloads.load(Ordering::Relaxed)),
            ([("result", "failed")], process.reloads_failed.load(Ordering::Relaxed)),
        ];
        self.counters("loads", "Configurations that were loaded, the first one included", cells)?;
        self.gauge("loaded_timestamp_seconds", "When the configuration in force was loaded", loaded)?;
        self.gauge("start_timestamp_seconds", "When the process started", started)?;
        let labels = [("generation", &*generation), ("version", env!("CARGO_PKG_VERSION"))];
        self.gauges("generation_info", "The configuration in force, and Ravelin's version", [(labels, 1)])?;
        let cells = certificates.iter().map(|(name, expiry)| ([("certificate", &**name)], *expiry));
        self.gauges("certificate_expiry_timestamp_seconds", "When a certificate ends to be valid", cells)
    }

    /// One counter for each word, and `other` for what is outside of the list.
    fn row(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        words: &'static [&'static str],
        of: fn(&Meters) -> &Row,
    ) -> fmt::Result {
        let book = self.book;
        let cells = words.iter().copied().chain(["other"]).enumerate().filter_map(|(i, word)| {
            let count = book.sum(|meters| of(meters).get(i));
            (count > 0 || i < words.len()).then_some(([(label, word)], count))
        });
        self.counters(name, help, cells)
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        cells: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in cells {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        cells: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in cells {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn buckets(counts: &[u64; BOUNDS.len() + 1]) -> Vec<(f64, u64)> {
    let bounds = BOUNDS.iter().map(|micros| as_seconds(*micros)).chain([f64::INFINITY]);
    bounds.zip(counts.iter().copied()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a sum of 285 years loses microseconds")]
fn as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Seconds since 1970.
pub(super) fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
