//! The access log and the metrics of a running Ravelin.

use std::time::Duration;

use serde_json::Value;

use super::names::field;
use super::{Ravelin, within};

/// The log is written off the hot path: how long a line may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Ravelin {
    /// Every JSON line of the access log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The line whose target contains `marker`, as soon as it is written.
    #[track_caller]
    pub(crate) fn logged(&self, marker: &str) -> Value {
        let holds = |line: &Value| text(line, field::TARGET).contains(marker);
        let found = within(PATIENCE, || self.log().into_iter().find(holds));
        found.unwrap_or_else(|| panic!("no log line for {marker:?} in:\n{}", self.stdout()))
    }

    /// The line with this request id, as soon as it is written.
    #[track_caller]
    pub(crate) fn logged_as(&self, id: &str) -> Value {
        let found = within(PATIENCE, || self.log().into_iter().find(|line| text(line, field::ID) == id));
        found.unwrap_or_else(|| panic!("no log line with id {id:?} in:\n{}", self.stdout()))
    }

    /// The metrics, as text.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        self.admin("/metrics").status(200).text()
    }

    /// The sum of every sample whose line contains all of `parts`.
    #[track_caller]
    pub(crate) fn counted(&self, parts: &[&str]) -> f64 {
        let metrics = self.metrics();
        let samples = metrics.lines().filter(|line| !line.starts_with('#'));
        let ours = samples.filter(|line| parts.iter().all(|part| line.contains(part)));
        ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// A field of a log line as text; empty if it is absent.
pub(crate) fn text<'l>(line: &'l Value, name: &str) -> &'l str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}
