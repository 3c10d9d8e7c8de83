//! What is seen of every request: one record, the access log, metrics, and diagnostics.
//!
//! [`Observe`] is the process's handle, [`Seen`] a worker's, [`Record`] a request's:
//!
//! ```no_run
//! # use ravelin::{clock, head::Head, observe::{settings, Arrival, Observe}, reply::Reply};
//! # fn example(parts: &http::request::Parts, peer: std::net::SocketAddr, reply: Reply) -> std::io::Result<Reply> {
//! let observe = Observe::open(&settings::Policy::default(), 2, clock::wall())?;
//! let site = observe.site("www.example.org"); // at load: the site keeps its number
//! observe.generation("4f1d2c3b5a69", clock::wall());
//! let seen = observe.worker(0); // once per worker
//!
//! let head = Head::new(parts); // per request
//! let (now, wall) = (clock::now(), clock::wall());
//! let arrival = Arrival { now, wall, peer, listener: 0, tls: None, generation: "4f1d2c3b5a69" };
//! let mut record = seen.record(&arrival, &head);
//! record.client(peer.ip(), false, &head); // once known; true: the peer is a trusted proxy
//! record.site(site, "www.example.org");
//! record.area("frontend"); // then refused(…), would_block(…), origin(…) as it goes
//! record.answered(clock::now(), reply.status);
//! let reply = Reply { body: reply.body.recorded(record), ..reply }; // written when the body is dropped
//! # Ok(reply) }
//! ```

use std::fmt;
use std::hash::RandomState;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

mod access_log;
pub mod diagnostics;
pub mod emf;
pub mod escape;
pub mod id;
mod meters;
pub mod metrics;
mod page;
mod record;
mod render;
pub mod secrets;
pub mod settings;
pub mod spool;
pub mod stamp;
pub mod target;
mod text;
pub mod trace;
mod worker;

pub use meters::SiteId;
pub use record::{Arrival, Origin, Received, Record, Tls};
pub use worker::Seen;

use access_log::AccessLog;
use meters::{Meters, SiteNames};
use metrics::{Book, Named, Outside, Process};
use settings::Policy;

/// How long the calling thread waits for the log to be written, opened anew or turned.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that is seen in this process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Observe {
    log: Arc<AccessLog>,
    book: Arc<Book>,
    /// What `CloudWatch` was told last.
    told: Arc<Mutex<emf::Ledger>>,
    /// The first worker, so that there always is one.
    first: Seen,
    others: Arc<[Seen]>,
}

impl Observe {
    /// Opens the access log and begins to count, for that many workers.
    ///
    /// # Errors
    /// When the log file cannot be opened, or the thread that writes it cannot be made.
    pub fn open(policy: &Policy, workers: usize, wall: SystemTime) -> io::Result<Self> {
        let log = Arc::new(AccessLog::open(policy, workers)?);
        let key = Arc::new(RandomState::new());
        let seen = |index: usize| {
            let meters = Arc::new(Meters::new());
            let ids = id::Source::new(Arc::clone(&key), index);
            Seen::new(worker::Inner { index, meters, log: Arc::clone(&log), ids })
        };
        let first = seen(0);
        let others: Arc<[Seen]> = (1..workers).map(seen).collect();
        let meters = std::iter::once(&first).chain(others.iter()).map(Seen::meters).collect();
        let process = Process::default();
        process.started(wall);
        let book = Arc::new(Book {
            workers: meters,
            sites: SiteNames::new(),
            process,
            outside: Mutex::default(),
            named: Mutex::default(),
        });
        Ok(Self { log, book, told: Arc::default(), first, others })
    }

    /// The handle of a worker, counted from 0; a number that is too high gets the first one's.
    #[must_use]
    pub fn worker(&self, index: usize) -> Seen {
        index.checked_sub(1).and_then(|i| self.others.get(i)).unwrap_or(&self.first).clone()
    }

    /// The number of a site, for the metrics: look it up at load and keep it.
    #[must_use]
    pub fn site(&self, name: &str) -> SiteId {
        self.book.sites.number(name)
    }

    /// A configuration is in force now.
    pub fn generation(&self, id: &str, wall: SystemTime) {
        self.book.process.generation(id, wall);
    }

    /// A reload failed; the old configuration stays in force.
    pub fn reload_failed(&self) {
        self.book.process.reload_failed();
    }

    /// The certificates in use: a name for each, and when it ends to be valid. Of several with the same name, such as
    /// an RSA one beside an ECDSA one, the first to end is shown: a name is one line of the metrics.
    pub fn certificates<'a>(&self, list: impl IntoIterator<Item = (&'a str, SystemTime)>) {
        let mut first = std::collections::BTreeMap::<&str, u64>::new();
        for (name, expiry) in list {
            let expiry = metrics::seconds(expiry);
            first.entry(name).and_modify(|known| *known = expiry.min(*known)).or_insert(expiry);
        }
        self.book
            .process
            .certificates(first.into_iter().map(|(name, expiry)| (name.into(), expiry)).collect());
    }

    /// Shows numbers that another room counts, from now on.
    pub fn show(&self, family: Outside) {
        self.book.outside.lock().unwrap_or_else(PoisonError::into_inner).push(family);
    }

    /// Adds a family of counters with names of the operator's choosing.
    pub fn show_named(&self, family: Named) {
        self.book.named.lock().unwrap_or_else(PoisonError::into_inner).push(family);
    }

    /// Follows a changed `[log]`.
    ///
    /// # Errors
    /// When the new file cannot be opened; then the log goes on as it was.
    pub fn apply(&self, policy: &Policy) -> io::Result<()> {
        self.log.apply(policy, PATIENCE)
    }

    /// Opens the access log anew by its name: call on SIGUSR1, after the file was renamed.
    ///
    /// # Errors
    /// When it cannot be opened; then the old file stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        self.log.reopen(PATIENCE)
    }

    /// Writes every line that was accepted, waiting five seconds at most; whether all were written.
    /// Call when the last request is over.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.log.flush(PATIENCE)
    }

    /// Writes what was counted since the last call for `CloudWatch`, between the lines of the access log.
    pub fn tell_cloudwatch(&self, namespace: &str, wall: SystemTime) {
        self.book.process.log(self.log.tally());
        let lines =
            self.told.lock().unwrap_or_else(PoisonError::into_inner).lines(&self.book, namespace, wall);
        self.log.insert(&lines);
    }

    /// Everything that was counted, as `OpenMetrics` text; see [`metrics::CONTENT_TYPE`].
    ///
    /// # Errors
    /// When the text cannot be written, which memory never refuses.
    pub fn metrics(&self) -> Result<String, fmt::Error> {
        self.book.process.log(self.log.tally());
        self.book.text()
    }
}

#[cfg(test)]
mod tests;
