//! The counters as text, for Prometheus and whoever reads `OpenMetrics`.
//!
//! `prometheus-client` writes the text; it does not count. Its own families find a label set in a hash
//! map behind a lock, per request; ours are summed here, when somebody scrapes.

use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::meters::{BOUNDS, CLASSES, CULPRITS, Count, METHODS, Meters, Row, SiteMeters, VERSIONS};
use super::metrics::{Book, Kind};
use crate::http1::grade::{Class, Fault};
use crate::login::{Kind as Login, Verdict};
use crate::refusal::Reason;

impl Collector for Book {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { book: self, encoder };
        page.requests()?;
        page.refusals()?;
        page.logins()?;
        page.outside()?;
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
            ("received_bytes", "Bytes of request bodies", (|m| &m.received) as fn(&SiteMeters) -> &Count),
            ("sent_bytes", "Bytes of response bodies", |m| &m.sent),
        ] {
            let cells = sites.iter().map(|(number, site)| {
                ([("site", &**site)], book.site_sum(*number, |meters| of(meters).get()))
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
        self.desync()?;
        self.row(
            "aborted_requests",
            "Requests that ended before their end, by who ended them",
            "by",
            &CULPRITS,
            |m| &m.aborted,
        )
    }

    /// Whether two readers could understand a request differently, and why.
    fn desync(&mut self) -> fmt::Result {
        let book = self.book;
        let clear = ([("class", Class::Compliant.label()), ("reason", "")], book.sum(|m| m.faults.get(0)));
        let faults = Fault::ALL.into_iter().map(|fault| {
            let labels: [Label; 2] = [("class", fault.class().label()), ("reason", fault.label())];
            (labels, book.sum(|meters| meters.faults.get(fault as usize + 1)))
        });
        let help = "Requests, by how far two readers could understand them differently";
        self.counters("desync_requests", help, std::iter::once(clear).chain(faults))
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

    fn logins(&mut self) -> fmt::Result {
        let book = self.book;
        let cells = Login::ALL.into_iter().flat_map(|kind| {
            Verdict::ALL.into_iter().map(move |verdict| {
                let labels: [Label; 2] = [("kind", kind.name()), ("verdict", verdict.name())];
                (labels, kind as usize * Verdict::ALL.len() + verdict as usize)
            })
        });
        let cells = cells.map(|(labels, cell)| (labels, book.sum(|meters| meters.logins.get(cell))));
        self.counters("logins", "Tries to log in, by kind and what came of them", cells)
    }

    fn outside(&mut self) -> fmt::Result {
        for family in self.book.outside.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let numbers = (family.read)();
            if family.label.is_empty() {
                let value = numbers.iter().map(|(_, value)| value).sum();
                self.single(family.name, family.help, kind, value)?;
            } else {
                let cells = numbers.into_iter().map(|(word, value)| ([(family.label, word)], value));
                self.family(family.name, family.help, kind, cells)?;
            }
        }
        for family in self.book.named.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let numbers = (family.read)();
            let cells = numbers.iter().map(|(word, value)| ([(family.label, &**word)], *value));
            self.family(family.name, family.help, MetricType::Counter, cells)?;
        }
        Ok(())
    }

    fn origin(&mut self) -> fmt::Result {
        let book = self.book;
        let load = |of: fn(&Meters) -> &Count| book.sum(|meters| of(meters).get());
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
        let kinds = Reason::ALL.into_iter().filter(|reason| reason.name().starts_with("origin-"));
        let cells =
            kinds.map(|reason| ([("kind", reason.name())], book.sum(|m| m.enforced.get(reason as usize))));
        self.counters("upstream_errors", "Exchanges with origins that failed for good, by kind", cells)?;
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
        self.counter("panics", "Defects that were caught", self.book.sum(|m| m.panics.get()))?;
        let cells = [
            ([("result", "ok")], process.reloads.load(Ordering::Relaxed)),
            ([("result", "failed")], process.reloads_failed.load(Ordering::Relaxed)),
        ];
        self.counters("loads", "Configurations that were loaded, the first one included", cells)?;
        self.gauge("loaded_timestamp_seconds", "When the configuration in force was loaded", loaded)?;
        self.gauge("start_timestamp_seconds", "When the process started", started)?;
        let labels = [("generation", &*generation), ("version", env!("CARGO_PKG_VERSION"))];
        let help = "The configuration in force, and Ravelin's version";
        self.family("generation_info", help, MetricType::Gauge, [(labels, 1)])?;
        let cells = certificates.iter().map(|(name, expiry)| ([("certificate", &**name)], *expiry));
        let now = super::metrics::seconds(crate::clock::wall());
        let left = certificates
            .iter()
            .map(|(name, expiry)| ([("certificate", &**name)], expiry.saturating_sub(now)));
        let help = "How long a certificate is still valid; 0 once it has expired";
        self.family("certificate_expiry_seconds", help, MetricType::Gauge, left)?;
        let help = "When a certificate ends to be valid";
        self.family("certificate_expiry_timestamp_seconds", help, MetricType::Gauge, cells)
    }

    /// One counter for each word.
    fn row(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        words: &'static [&'static str],
        of: fn(&Meters) -> &Row,
    ) -> fmt::Result {
        let book = self.book;
        let cells = words.iter().enumerate().map(|(i, word)| ([(label, *word)], book.sum(|m| of(m).get(i))));
        self.counters(name, help, cells)
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        self.single(name, help, MetricType::Counter, count)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        cells: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, cells)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.single(name, help, MetricType::Gauge, value)
    }

    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        cells: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        cells.into_iter().try_for_each(|(labels, value)| number(family.encode_family(&labels)?, kind, value))
    }

    /// A number without labels.
    fn single(&mut self, name: &str, help: &str, kind: MetricType, value: u64) -> fmt::Result {
        number(self.encoder.encode_descriptor(name, help, None, kind)?, kind, value)
    }
}

fn number(mut metric: MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Gauge => metric.encode_gauge(&value),
        _ => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
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
