//! Clients that take their time (`tests/corpus/slow-clients.yaml`) are ended in time, all at once, and others are served.

use std::time::{Duration, Instant};

use rustls::ClientConnection;
use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::front::{refusal_faults, replies};
use crate::harness::log::text;
use crate::harness::names::{REQUEST_ID, field};
use crate::harness::reply::Reply;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, Recorder, Wire, certs, proxy, ravelin, recorder, run, test_file, wire};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    tcp: Listener,
    steps: Vec<String>,
    limit: Limit,
    answer: Vec<u16>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Listener {
    Plain,
    Tls,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Limit {
    Handshake,
    HeaderRead,
    BodyIdle,
    BodyRate,
}

/// How long a case may last, in seconds, and how long it must have been given.
struct Bounds {
    least: f64,
    most: f64,
}

/// Whether the shipped limits are measured instead of one second each.
fn shipped() -> bool {
    std::env::var("RAVELIN_TEST_SLOW").is_ok_and(|value| value == "default")
}

impl Limit {
    fn bounds(self) -> Bounds {
        // A busy machine may be late, never early. The shipped numbers are the bar: ten seconds for a handshake or a
        // head; a body has ten seconds before its rate counts, and thirty to stand still.
        let (least, most) = match (shipped(), self) {
            (true, Limit::Handshake | Limit::HeaderRead) => (5.0, 10.5),
            (true, Limit::BodyIdle | Limit::BodyRate) => (5.0, 31.0),
            (false, _) => (0.6, 8.0),
        };
        Bounds { least, most }
    }
}

/// What became of a client: the answers, what was left over, and the seconds from the last whole thing that it did.
struct Ended {
    answers: Vec<Reply>,
    closed: bool,
    after: f64,
}

/// A client at work.
struct Client {
    wire: Wire,
    began: Instant,
    got: Vec<u8>,
    closed: bool,
    secure: bool,
}

impl Client {
    fn connect(site: &Ravelin, listener: Listener) -> Self {
        let wire = if listener == Listener::Plain { site.wire() } else { site.wire_to_tls_port() };
        Self { wire, began: Instant::now(), got: Vec::new(), closed: false, secure: false }
    }

    fn step(&mut self, site: &Ravelin, step: &str) {
        match step {
            "hello" => drop(self.wire.send(hello())),
            "half-hello" => {
                let hello = hello();
                self.wire.send(&hello[..hello.len() / 2]);
            }
            "drip-hello" => self.drip(&hello(), Duration::from_millis(100)),
            "handshake" => {
                self.wire = site.wire_tls();
                self.secure = true;
                self.began = Instant::now();
            }
            "drip" => self.drip(&b"a".repeat(10_000), Duration::from_millis(100)),
            "slow-drip" => self.drip(&b"a".repeat(900), Duration::from_secs(2)),
            text => {
                self.wire.send(bytes(text));
            }
        }
    }

    fn drip(&mut self, bytes: &[u8], every: Duration) {
        for byte in bytes {
            self.wire.send([*byte]);
            let next = Instant::now() + every;
            while Instant::now() < next && !self.closed {
                self.listen(Duration::from_millis(20));
            }
            if self.closed || self.began.elapsed() > Duration::from_mins(1) {
                return;
            }
        }
    }

    fn listen(&mut self, silence: Duration) {
        let (bytes, closed) = self.wire.whatever(silence);
        self.got.extend(bytes);
        self.closed = closed;
    }

    fn end(mut self) -> Ended {
        while !self.closed && self.began.elapsed() < Duration::from_mins(1) {
            self.listen(Duration::from_millis(20));
        }
        let mut answers = Vec::new();
        replies(&self.got, false, &mut answers);
        for reply in &mut answers {
            reply.secure = self.secure;
        }
        Ended { answers, closed: self.closed, after: self.began.elapsed().as_secs_f64() }
    }
}

/// A whole `ClientHello`, as rustls writes it.
fn hello() -> Vec<u8> {
    let config = wire::client_config(&certs::authority_pem(), &[b"http/1.1"]);
    let name = HOST.try_into().expect("a host name");
    let mut client = ClientConnection::new(config, name).expect("a TLS client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("memory does not fail");
    bytes
}

fn faults(site: &Ravelin, case: &Case) -> Vec<String> {
    let mut client = Client::connect(site, case.tcp);
    for step in &case.steps {
        client.step(site, step);
    }
    let ended = client.end();
    let status = ended.answers.first().map_or(0, |reply| reply.status);
    println!("{:8.2} s  {status:3}  {:?}  {}", ended.after, case.limit, case.name);
    let mut faults = Vec::new();
    let bounds = case.limit.bounds();
    if !ended.closed || ended.after > bounds.most || ended.after < bounds.least {
        let (least, most) = (bounds.least, bounds.most);
        faults.push(format!(
            "closed: {} after {:.2} s, not between {least} and {most}",
            ended.closed, ended.after
        ));
    }
    if !case.answer.contains(&status) {
        faults.push(format!("answered {status}, not one of {:?}", case.answer));
    }
    for reply in ended.answers.iter().filter(|reply| reply.status >= 400) {
        faults.extend(refusal_faults(site, reply));
        faults.extend(misjudged(site, reply, &bounds));
    }
    faults
}

/// What is wrong with how long the access log says that it took: whoever looks for slow clients must find them.
fn misjudged(site: &Ravelin, reply: &Reply, bounds: &Bounds) -> Option<String> {
    let id = reply.header(REQUEST_ID)?;
    let line = site.log().into_iter().find(|line| text(line, field::ID) == id)?;
    let seconds = line["duration_us"].as_f64().map_or(0.0, |micros| micros / 1e6);
    let fine = (bounds.least / 2.0..=bounds.most).contains(&seconds);
    (!fine).then(|| format!("the access log says that it took {seconds} s: {line}"))
}

#[test]
fn slow_clients_are_ended_in_time_and_others_are_served() {
    let text = std::fs::read_to_string(test_file("corpus/slow-clients.yaml")).expect("the corpus");
    let cases: Vec<Case> = serde_norway::from_str(&text).expect("the corpus is valid");
    let origin = Recorder::answering(recorder::OK);
    let mut site = proxy().site(HOST, &origin).plain_serves();
    if !shipped() {
        let second =
            "[limits]\nheader_read = \"1 s\"\nhandshake = \"1 s\"\nkeep_alive = \"1 s\"\nbody_idle = \"1 s\"";
        site = site.table(second);
    }
    let site = site.start();
    let found: Vec<Vec<String>> = std::thread::scope(|scope| {
        let site = &site;
        let clients: Vec<_> = cases.iter().map(|case| scope.spawn(move || faults(site, case))).collect();
        // While they all hang there.
        for _ in 0..3 {
            site.get("/").status(200).hardened();
            site.get_plain("/").status(200).hardened();
        }
        clients.into_iter().map(|client| client.join().expect("a client ends")).collect()
    });
    let mut results = Results::of("slow-clients");
    for (case, mut faults) in cases.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        results.add(&case.name, &faults);
    }
    results.hold();
    site.get("/").status(200).hardened();
}

#[test]
fn slow_clients_meet_these_limits_as_shipped() {
    let said = run(ravelin().args(["config", "default"]));
    for line in [
        "header_read = \"10 s\"",
        "handshake = \"10 s\"",
        "body_idle = \"30 s\"",
        "body_rate = \"500 B\"",
        "keep_alive = \"75 s\"",
    ] {
        said.exits(0).says(line);
    }
}
