//! Clients that ask one request after the other while something happens to the server.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::harness::{HOST, Ravelin, Wire, certs, run, within};

/// What clients have in common.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    /// The longest time an answer took, in microseconds.
    slowest: AtomicUsize,
}

/// Clients at work; each that is not answered with 200 panics, and so does the test that ends them.
pub(super) struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

/// What became of it.
pub(super) struct Done {
    /// Answers, every one of them 200.
    pub(super) answered: usize,
    /// The slowest one.
    pub(super) slowest: Duration,
}

/// How a client uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    /// One for all requests.
    Kept,
    /// A new one for each request.
    New,
}

/// A GET with the headers `more`, each ended by a line break.
pub(super) fn get(target: &str, connections: Connections, more: &str) -> String {
    let option = if connections == Connections::Kept { "keep-alive" } else { "close" };
    format!("GET {target} HTTP/1.1\nHost: {HOST}\nConnection: {option}\n{more}\n")
}

impl Load {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self { counts: Arc::default(), clients: Vec::new() }
    }

    /// With a client over HTTP/1.1, on TLS or not, that asks for `target`.
    pub(super) fn http1(mut self, site: &Ravelin, tls: bool, connections: Connections, target: &str) -> Self {
        let port = if tls { site.https_port() } else { site.http_port() };
        let open = move || {
            if tls {
                Wire::tls(port, HOST, &certs::authority_pem(), &[b"http/1.1"])
            } else {
                Wire::plain(port)
            }
        };
        let request = get(target, connections, "");
        let counts = Arc::clone(&self.counts);
        self.clients.push(std::thread::spawn(move || {
            let mut wire = open();
            while !counts.stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                wire.say(&request).reply().status(200);
                counts.count(1, began);
                if connections == Connections::New {
                    wire = open();
                }
            }
        }));
        self
    }

    /// With h2load over HTTP/2: many requests on few connections, or one on each.
    pub(super) fn http2(mut self, site: &Ravelin, connections: Connections, target: &str) -> Self {
        let url = format!("https://{HOST}:{}{target}", site.https_port());
        let connect = format!("--connect-to=127.0.0.1:{}", site.https_port());
        let (requests, clients): (usize, _) = match connections {
            Connections::Kept => (1000, "2"),
            Connections::New => (8, "8"),
        };
        let counts = Arc::clone(&self.counts);
        self.clients.push(std::thread::spawn(move || {
            while !counts.stop.load(Ordering::Relaxed) {
                let mut h2load = Command::new("h2load");
                h2load.args(["-n", &requests.to_string(), "-c", clients, "-m", "4"]).args([&connect, &url]);
                let said = run(&mut h2load);
                said.exits(0).says(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout"));
                said.says(&format!("status codes: {requests} 2xx"));
                counts.answered.fetch_add(requests, Ordering::Relaxed);
            }
        }));
        self
    }

    /// How many were answered so far.
    pub(super) fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests more have been answered: then the clients are at work.
    #[track_caller]
    pub(super) fn goes_on(&self, more: usize) {
        let enough = self.answered() + more;
        let reached = within(PATIENCE, || (self.answered() >= enough).then_some(()));
        assert!(reached.is_some(), "the clients are stuck at {} of {enough}", self.answered());
    }

    /// Ends the clients; a failure of one of them is a failure here.
    #[track_caller]
    pub(super) fn end(self) -> Done {
        self.counts.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert!(client.join().is_ok(), "a client was not served: see above");
        }
        Done {
            answered: self.counts.answered.load(Ordering::Relaxed),
            slowest: Duration::from_micros(self.counts.slowest.load(Ordering::Relaxed) as u64),
        }
    }
}

impl Counts {
    fn count(&self, requests: usize, began: Instant) {
        self.answered.fetch_add(requests, Ordering::Relaxed);
        let took = usize::try_from(began.elapsed().as_micros()).unwrap_or(usize::MAX);
        self.slowest.fetch_max(took, Ordering::Relaxed);
    }
}
