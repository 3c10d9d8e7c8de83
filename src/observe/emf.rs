//! `[metrics]`: the counters in `CloudWatch`'s embedded metric format, lines of JSON that its log agents turn into metrics.
//!
//! `CloudWatch` adds up what it is sent, so each line holds what came since the one before it: one line for each site that
//! was asked for something, with its name as the only dimension, and one for the process. Names of sites come from the
//! configuration; nothing that a client sends becomes a dimension.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::meters::{BOUNDS, CLASSES, METHODS};
use super::metrics::{Book, seconds};
use super::settings::{self, Place};
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section, Text};
use crate::refusal::Reason;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    emf: Option<Placed<bool>>,
    namespace: Option<Placed<String>>,
    every: Option<Placed<Text<Duration>>>,
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether lines are written.
    pub emf: bool,
    /// Under which name `CloudWatch` keeps the metrics.
    pub namespace: Box<str>,
    /// How often lines are written.
    pub every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { emf: false, namespace: "Ravelin".into(), every: Duration::from_mins(1) }
    }
}

impl Raw {
    /// Reads `[metrics]`.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut section) = root.section(reading, "metrics") else { return Self::default() };
        let raw = Self {
            emf: section.get(reading, "emf"),
            namespace: section.get(reading, "emf_namespace"),
            every: section.get(reading, "emf_every"),
        };
        section.finish(reading);
        raw
    }

    /// What it means beside `log`, which has the same standard output.
    pub fn compile(self, log: &settings::Policy, complaints: &mut Complaints) -> Policy {
        let default = Policy::default();
        if let Some(written) = self.emf.as_ref().filter(|written| written.value && log.file != Place::Stdout)
        {
            let hint = "write `file = \"stdout\"` in `[log]`, or leave `emf` out";
            let message =
                "`metrics.emf` writes between the lines of the access log, which is not on standard output";
            complaints.error(Some(&written.place), message, Some(hint.to_owned()));
        }
        if let Some(written) = self.namespace.as_ref().filter(|written| !is_namespace(&written.value)) {
            let hint = "1 to 255 letters, digits and `.-_/#:`, and not beginning with `AWS/`";
            let message = format!("`{}` is no namespace of CloudWatch", written.value);
            complaints.error(Some(&written.place), message, Some(hint.to_owned()));
        }
        if let Some(written) = self.every.as_ref().filter(|written| written.value.0 < Duration::from_secs(1))
        {
            let hint = "one second is the finest that CloudWatch keeps; a minute costs least";
            complaints.error(
                Some(&written.place),
                "`metrics.emf_every` must be 1 s or more",
                Some(hint.to_owned()),
            );
        }
        Policy {
            emf: self.emf.map_or(default.emf, |written| written.value),
            namespace: self.namespace.map_or(default.namespace, |written| written.value.into()),
            every: self.every.map_or(default.every, |written| written.value.0),
        }
    }
}

/// What `CloudWatch` takes as the name of a namespace, and keeps for others than itself.
fn is_namespace(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_/#:".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with("AWS/")
}

/// A name, its unit, and a number.
type Metric = (&'static str, &'static str, u64);

/// The numbers of the lines before, so that only what came since is written.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sites: Vec<Vec<u64>>,
    process: Vec<u64>,
}

impl Ledger {
    /// The lines for what came since the last ones; `wall` is now.
    pub(super) fn lines(&mut self, book: &Book, namespace: &str, wall: SystemTime) -> String {
        let mut out = String::new();
        for (number, name) in book.sites.all().iter().enumerate() {
            let totals = of_site(book, number);
            if self.sites.len() <= number {
                self.sites.resize_with(number + 1, Vec::new);
            }
            let Some(before) = self.sites.get_mut(number) else { continue };
            let metrics = since(before, &totals);
            if metrics.iter().any(|(.., value)| *value > 0) {
                line(&mut out, namespace, wall, Some(name), &metrics);
            }
        }
        let mut metrics = since(&mut self.process, &of_process(book));
        metrics.extend(levels(book, wall));
        line(&mut out, namespace, wall, None, &metrics);
        out
    }
}

/// What was counted beyond `before`, which is brought up to date.
fn since(before: &mut Vec<u64>, totals: &[Metric]) -> Vec<Metric> {
    before.resize(totals.len(), 0);
    let step = |(old, (name, unit, total)): (&mut u64, &Metric)| {
        (*name, *unit, total.saturating_sub(std::mem::replace(old, *total)))
    };
    before.iter_mut().zip(totals).map(step).collect()
}

/// Everything that only rises, of one site.
fn of_site(book: &Book, number: usize) -> Vec<Metric> {
    let requests = |class: Option<&str>| {
        let fits = |c: &usize| class.is_none_or(|class| CLASSES.get(*c) == Some(&class));
        let cells = (0..METHODS.len()).flat_map(|m| (0..CLASSES.len()).filter(fits).map(move |c| (m, c)));
        cells.map(|(m, c)| book.site_sum(number, |meters| meters.requests(m, c))).sum()
    };
    let micros = book.site_sum(number, |meters| meters.duration.add_to(&mut [0; BOUNDS.len() + 1]));
    vec![
        ("Requests", "Count", requests(None)),
        ("Requests4xx", "Count", requests(Some("4xx"))),
        ("Requests5xx", "Count", requests(Some("5xx"))),
        ("ReceivedBytes", "Bytes", book.site_sum(number, |meters| meters.received.get())),
        ("SentBytes", "Bytes", book.site_sum(number, |meters| meters.sent.get())),
        ("RequestTime", "Microseconds", micros),
    ]
}

/// Everything that only rises, of the process.
fn of_process(book: &Book) -> Vec<Metric> {
    let origin_errors = || Reason::ALL.into_iter().filter(|reason| reason.name().starts_with("origin-"));
    let lost = book.process.with(|state| state.log.dropped + state.log.failed);
    let refusals = |of: fn(&super::meters::Meters) -> &super::meters::Row,
                    reasons: &mut dyn Iterator<Item = Reason>| {
        reasons.map(|reason| book.sum(|meters| of(meters).get(reason as usize))).sum()
    };
    vec![
        ("Refusals", "Count", refusals(|m| &m.enforced, &mut Reason::ALL.into_iter())),
        ("WouldBlock", "Count", refusals(|m| &m.would_block, &mut Reason::ALL.into_iter())),
        ("UpstreamErrors", "Count", refusals(|m| &m.enforced, &mut origin_errors())),
        ("Panics", "Count", book.sum(|meters| meters.panics.get())),
        ("LogLinesLost", "Count", lost),
        ("ReloadsFailed", "Count", book.process.reloads_failed.load(Ordering::Relaxed)),
    ]
}

/// What rises and falls: as it is now.
fn levels(book: &Book, wall: SystemTime) -> Vec<Metric> {
    let outside = book.outside.lock().unwrap_or_else(PoisonError::into_inner);
    let level = |name: &str| {
        let family = outside.iter().find(|family| family.name == name);
        family.map(|family| (family.read)().iter().map(|(_, value)| value).sum::<u64>())
    };
    let first_to_end = book.process.with(|state| state.certificates.iter().map(|(_, expiry)| *expiry).min());
    let days = first_to_end.map(|expiry| expiry.saturating_sub(seconds(wall)) / (24 * 3600));
    [
        ("ConnectionsOpen", level("connections_open")),
        ("RequestsUnderWay", level("requests_under_way")),
        ("BansActive", level("bans_active")),
        ("CertificateDaysLeft", days),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, "Count", value?)))
    .collect()
}

/// One line, with its end.
fn line(out: &mut String, namespace: &str, wall: SystemTime, site: Option<&str>, metrics: &[Metric]) {
    let millis = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let dimensions = if site.is_some() { "\"Site\"" } else { "" };
    let _ = write!(
        out,
        "{{\"_aws\":{{\"Timestamp\":{millis},\"CloudWatchMetrics\":[{{\"Namespace\":\"{namespace}\",\
         \"Dimensions\":[[{dimensions}]],\"Metrics\":["
    );
    for (index, (name, unit, _)) in metrics.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{{\"Name\":\"{name}\",\"Unit\":\"{unit}\"}}");
    }
    out.push_str("]}]}");
    if let Some(site) = site {
        let site = serde_json::Value::from(site);
        let _ = write!(out, ",\"Site\":{site}");
    }
    for (name, _, value) in metrics {
        let _ = write!(out, ",\"{name}\":{value}");
    }
    out.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_says_what_it_holds_and_holds_it() {
        let mut out = String::new();
        let wall = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        line(&mut out, "Shop/Web", wall, Some("a \"b\""), &[("Requests", "Count", 3), ("Sent", "Bytes", 9)]);
        line(&mut out, "Shop/Web", wall, None, &[("Panics", "Count", 0)]);
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = &lines[0]["_aws"];
        assert_eq!(told["Timestamp"], 1_700_000_000_123_u64);
        assert_eq!(told["CloudWatchMetrics"][0]["Namespace"], "Shop/Web");
        assert_eq!(told["CloudWatchMetrics"][0]["Dimensions"][0][0], "Site");
        assert_eq!((&lines[0]["Site"], &lines[0]["Requests"]), (&"a \"b\"".into(), &3.into()));
        assert_eq!(lines[1]["_aws"]["CloudWatchMetrics"][0]["Dimensions"], serde_json::json!([[]]));
        assert_eq!(lines[1]["Panics"], 0);
    }

    #[test]
    fn only_what_came_since_is_told() {
        let mut before = Vec::new();
        assert_eq!(
            since(&mut before, &[("A", "Count", 5), ("B", "Count", 1)]),
            [("A", "Count", 5), ("B", "Count", 1)]
        );
        assert_eq!(
            since(&mut before, &[("A", "Count", 7), ("B", "Count", 1)]),
            [("A", "Count", 2), ("B", "Count", 0)]
        );
    }

    #[test]
    fn namespaces_are_those_of_cloudwatch() {
        for good in ["Ravelin", "Shop/Web", "a.b-c_d#e:f"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "AWS/ELB", "a b", "ä", "a\"b", &"x".repeat(256)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }
}
