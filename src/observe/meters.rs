//! What is counted: one set of plain atomic numbers per worker, summed when somebody asks.
//!
//! Every look-up is by the number of an enum's variant: nothing is hashed on the way of a request. A
//! worker adds to cache lines that only it writes, which costs next to nothing; a shared counter, or
//! one hash map of label sets behind a lock, would make every core wait for the others. Label sets are
//! closed: sites that are configured, and words from tables in the code. Nothing that a client sends
//! becomes a label.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode, Version};

use super::record::{Culprit, Record};
use crate::http1::grade::Fault;
use crate::login::{Kind, Verdict};
use crate::refusal::Reason;

/// As many sites have numbers of their own; the ones after them share `_other`.
pub(super) const SITES_MAX: usize = 1_000;
/// The methods that have a label; the rest share the last.
pub(super) const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "other"];
/// Status classes; the last is for requests whose client left before there was an answer.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// Protocol versions that clients speak.
pub(super) const VERSIONS: [&str; 3] = ["HTTP/1.0", "HTTP/1.1", "HTTP/2"];
/// Who may break an exchange off.
pub(super) const CULPRITS: [&str; 2] = ["client", "origin"];
/// Upper bounds of the duration histogram, in microseconds.
pub(super) const BOUNDS: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// A site's number in the metrics; see [`Observe::site`](super::Observe::site).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteId(u16);

impl SiteId {
    /// Requests that belong to no site, and sites beyond the first thousand.
    pub const OTHER: SiteId = SiteId(0);
}

/// The names of the sites that have a number. They keep it for as long as the process runs, so that
/// counters never change their meaning on a reload.
#[derive(Debug)]
pub(super) struct SiteNames {
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    list: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
}

/// Counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Meters {
    sites: Box<[OnceLock<Box<SiteMeters>>]>,
    /// By status code, 100 to 599.
    pub(super) codes: Row,
    pub(super) versions: Row,
    /// By what is wrong with the message; the first is for nothing.
    pub(super) faults: Row,
    pub(super) aborted: Row,
    pub(super) enforced: Row,
    pub(super) would_block: Row,
    /// By kind of login, and within a kind by what came of it.
    pub(super) logins: Row,
    /// Exchanges over a new connection, and over one from the pool.
    pub(super) origin_new: Count,
    pub(super) origin_reused: Count,
    pub(super) origin_retries: Count,
    pub(super) origin_first_byte: Histogram,
    pub(super) panics: Count,
}

/// Counters of one worker for one site.
#[derive(Debug)]
pub(super) struct SiteMeters {
    /// By method, and within a method by status class.
    requests: Row,
    pub(super) received: Count,
    pub(super) sent: Count,
    pub(super) duration: Histogram,
}

/// One number, written by one worker and read by whoever asks. An addition is a load and a store: the locked
/// instruction that threads would need among themselves costs more than all the rest of counting a
/// request. Whatever else writes to a worker's counters would lose counts, nothing worse.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// Counters side by side. The last one takes every number that is out of range, so that a count is
/// never lost.
#[derive(Debug)]
pub(super) struct Row(Box<[Count]>);

/// A histogram with the bounds above, and one bucket more.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Row,
    /// Microseconds.
    sum: Count,
}

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Row {
    pub(super) fn new(length: usize) -> Self {
        Self((0..length.max(1)).map(|_| Count::default()).collect())
    }

    pub(super) fn add(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index).or_else(|| self.0.last()) {
            cell.add(count);
        }
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, Count::get)
    }
}

impl Histogram {
    fn new() -> Self {
        Self { buckets: Row::new(BOUNDS.len() + 1), sum: Count::default() }
    }

    fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets.add(BOUNDS.partition_point(|bound| *bound < micros), 1);
        self.sum.add(micros);
    }

    /// The counts of each bucket, not cumulated, added to `counts`; and the sum in microseconds.
    pub(super) fn add_to(&self, counts: &mut [u64; BOUNDS.len() + 1]) -> u64 {
        for (index, count) in counts.iter_mut().enumerate() {
            *count += self.buckets.get(index);
        }
        self.sum.get()
    }
}

impl SiteNames {
    pub(super) fn new() -> Self {
        Self { names: Mutex::new(Names { list: vec!["_other".into()], numbers: HashMap::new() }) }
    }

    /// The number of a site; the same name has the same number for ever.
    pub(super) fn number(&self, name: &str) -> SiteId {
        let mut names = self.lock();
        if let Some(known) = names.numbers.get(name) {
            return SiteId(*known);
        }
        if names.list.len() > SITES_MAX {
            return SiteId::OTHER;
        }
        let number = u16::try_from(names.list.len()).unwrap_or_default();
        names.list.push(name.into());
        names.numbers.insert(name.into(), number);
        SiteId(number)
    }

    pub(super) fn all(&self) -> Vec<Box<str>> {
        self.lock().list.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            sites: (0..=SITES_MAX).map(|_| OnceLock::new()).collect(),
            codes: Row::new(501),
            versions: Row::new(VERSIONS.len()),
            faults: Row::new(Fault::ALL.len() + 1),
            aborted: Row::new(CULPRITS.len()),
            enforced: Row::new(Reason::ALL.len()),
            would_block: Row::new(Reason::ALL.len()),
            logins: Row::new(Kind::ALL.len() * Verdict::ALL.len()),
            origin_new: Count::default(),
            origin_reused: Count::default(),
            origin_retries: Count::default(),
            origin_first_byte: Histogram::new(),
            panics: Count::default(),
        }
    }

    /// Counts a request that is over.
    pub(super) fn request(&self, record: &Record, took: Duration) {
        if let Some(site) = self.sites.get(usize::from(record.site_id().0)) {
            site.get_or_init(|| Box::new(SiteMeters::new())).request(record, took);
        }
        if let Some(status) = record.status {
            self.codes.add(usize::from(status.as_u16()).wrapping_sub(100), 1);
        }
        self.versions.add(version(record.version), 1);
        self.faults.add(record.fault.map_or(0, |fault| fault as usize + 1), 1);
        if let Some(culprit) = record.aborted() {
            self.aborted.add(usize::from(culprit == Culprit::Origin), 1);
        }
        if let Some(reason) = record.refused {
            self.enforced.add(reason as usize, 1);
        }
        if let Some((kind, verdict, _)) = record.login {
            self.logins.add(kind as usize * Verdict::ALL.len() + verdict as usize, 1);
        }
        for entry in &record.would_block {
            self.would_block.add(entry.reason as usize, 1);
        }
        if let Some(upstream) = &record.upstream {
            let connection = if upstream.reused { &self.origin_reused } else { &self.origin_new };
            connection.add(1);
            if upstream.retries > 0 {
                self.origin_retries.add(u64::from(upstream.retries));
            }
            if let Some(first_byte) = upstream.first_byte {
                self.origin_first_byte.add(first_byte);
            }
        }
    }

    /// The counters of a site, if it has been asked for anything here.
    pub(super) fn site(&self, number: usize) -> Option<&SiteMeters> {
        self.sites.get(number)?.get().map(Box::as_ref)
    }
}

impl SiteMeters {
    fn new() -> Self {
        Self {
            requests: Row::new(METHODS.len() * CLASSES.len()),
            received: Count::default(),
            sent: Count::default(),
            duration: Histogram::new(),
        }
    }

    fn request(&self, record: &Record, took: Duration) {
        self.requests.add(method(&record.verb) * CLASSES.len() + class(record.status), 1);
        self.received.add(record.received());
        self.sent.add(record.sent);
        self.duration.add(took);
    }

    pub(super) fn requests(&self, method: usize, class: usize) -> u64 {
        self.requests.get(method * CLASSES.len() + class)
    }
}

fn method(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::OPTIONS => 3,
        Method::PUT => 4,
        Method::PATCH => 5,
        Method::DELETE => 6,
        Method::TRACE => 7,
        Method::CONNECT => 8,
        _ => 9,
    }
}

fn class(status: Option<StatusCode>) -> usize {
    let hundreds = status.map_or(0, |status| usize::from(status.as_u16() / 100));
    if (1..=5).contains(&hundreds) { hundreds - 1 } else { 5 }
}

fn version(version: Version) -> usize {
    match version {
        Version::HTTP_10 | Version::HTTP_09 => 0,
        Version::HTTP_2 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_own_label() {
        for (index, name) in METHODS.iter().enumerate().take(METHODS.len() - 1) {
            assert_eq!(method(&Method::from_bytes(name.as_bytes()).unwrap()), index);
        }
        assert_eq!(METHODS[method(&Method::from_bytes(b"MKCOL").unwrap())], "other");
    }

    #[test]
    fn every_status_has_its_class() {
        for (status, want) in
            [(100, "1xx"), (204, "2xx"), (301, "3xx"), (499, "4xx"), (503, "5xx"), (999, "none")]
        {
            assert_eq!(CLASSES[class(Some(StatusCode::from_u16(status).unwrap()))], want);
        }
        assert_eq!(CLASSES[class(None)], "none");
    }

    #[test]
    fn reasons_are_numbered_as_they_stand_in_their_table() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn a_site_keeps_its_number_and_the_last_ones_share() {
        let names = SiteNames::new();
        let first = names.number("www.example.org");
        for i in 0..SITES_MAX + 10 {
            names.number(&format!("{i}.example.org"));
        }
        assert_eq!(names.number("www.example.org"), first);
        assert_ne!(first, SiteId::OTHER);
        assert_eq!(names.number("one.too.many"), SiteId::OTHER);
        assert_eq!(names.all().len(), SITES_MAX + 1);
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let histogram = Histogram::new();
        for micros in [0, 1_000, 1_001, 60_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let mut counts = [0; BOUNDS.len() + 1];
        let sum = histogram.add_to(&mut counts);
        assert_eq!((counts[0], counts[1], counts[15], sum), (2, 1, 1, 60_002_002));
    }

    #[test]
    fn a_number_out_of_range_is_counted_as_other() {
        let row = Row::new(3);
        row.add(7, 1);
        assert_eq!(row.get(2), 1);
    }
}
