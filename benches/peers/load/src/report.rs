//! What a generator prints at its end: one line of JSON, written by hand because it is five numbers.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// What went well and what did not.
#[derive(Default)]
pub struct Report {
    /// Answers received in full.
    pub done: u64,
    /// Answers with another status than 200.
    pub refused: u64,
    /// Body bytes, both ways.
    pub bytes: u64,
    /// Nanoseconds from the moment a request was due to its last byte; empty where nobody asked.
    pub latencies: Vec<u64>,
    faults: BTreeMap<String, u64>,
}

impl Report {
    /// A report that the tasks of one thread share.
    pub fn shared() -> std::rc::Rc<RefCell<Self>> {
        std::rc::Rc::default()
    }

    /// Counts a failed request under its cause.
    pub fn fault(&mut self, cause: &std::io::Error) {
        *self.faults.entry(cause.to_string()).or_default() += 1;
    }

    /// Counts an answer.
    pub fn answer(&mut self, status: u16, bytes: u64) {
        self.done += 1;
        self.refused += u64::from(status != 200);
        self.bytes += bytes;
    }

    /// The line.
    pub fn line(&mut self) -> String {
        self.latencies.sort_unstable();
        let faults: u64 = self.faults.values().sum();
        let worst = self.faults.iter().max_by_key(|(_, n)| **n).map_or("", |(cause, _)| cause.as_str());
        let quoted = worst.replace(['"', '\\', '\n'], " ");
        format!(
            "{{\"done\":{},\"refused\":{},\"bytes\":{},\"faults\":{faults},\"fault\":\"{quoted}\",\
             \"p50_us\":{:.1},\"p99_us\":{:.1}}}",
            self.done,
            self.refused,
            self.bytes,
            self.quantile(0.50),
            self.quantile(0.99),
        )
    }

    /// A quantile of the latencies in microseconds, 0 without any.
    fn quantile(&self, q: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let at = (self.latencies.len() as f64 * q) as usize;
        #[expect(clippy::cast_precision_loss, reason = "microseconds for a table")]
        self.latencies.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    }
}
