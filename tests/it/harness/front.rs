//! One message against the front, byte for byte: what was answered, what the origin saw, and the four damages that
//! must never be: dirty bytes forwarded, one message split in two, a request without exactly one Host, a
//! connection poisoned for whoever uses it next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::curl::Over;
use super::judge::judge;
use super::log::text;
use super::names::{REQUEST_ID, field};
use super::raw_origin::RawOrigin;
use super::reply::Reply;
use super::{HOST, Ravelin, Wire, proxy, strict, within};

/// How long after the last expected answer another one could still come.
const AFTERWARDS: Duration = Duration::from_millis(25);

/// A Ravelin with a recording origin behind it.
pub(crate) struct Front {
    /// The proxy.
    pub(crate) site: Ravelin,
    /// What it forwards to.
    pub(crate) origin: RawOrigin,
}

/// What one case is, for the measure.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// How many messages they are by the strictest reading that takes them for messages at all.
    pub(crate) messages: usize,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The final answers, in order.
    pub(crate) answers: Vec<Reply>,
    /// Whether the front closed after them.
    pub(crate) closed: bool,
    /// What the origin got of it, whole requests only.
    pub(crate) forwarded: Vec<Vec<u8>>,
    /// The heads of requests that the origin never saw the end of.
    pub(crate) cut: Vec<Vec<u8>>,
    /// How many of them it still waits for.
    pub(crate) hanging: usize,
    /// What must never be; empty if all is well.
    pub(crate) damage: Vec<String>,
}

impl Outcome {
    /// The status of the first answer; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        self.answers.first().map_or(0, |reply| reply.status)
    }

    /// The forwarded requests, read by the strictest reading.
    pub(crate) fn requests(&self) -> Vec<strict::Request> {
        self.forwarded.iter().filter_map(|bytes| strict::requests(bytes).ok()).flatten().collect()
    }
}

impl Front {
    /// With every method that may be allowed at all, for every host.
    pub(crate) fn open() -> Self {
        Self::with("")
    }

    /// The same with a table more.
    pub(crate) fn with(table: &str) -> Self {
        let origin = RawOrigin::start();
        let methods = "methods = [\"GET\", \"HEAD\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\", \"OPTIONS\"]";
        let url = origin.url();
        let site =
            proxy().site(HOST, url.as_str()).also("*").with(methods).table(table).plain_serves().start();
        Self { site, origin }
    }

    /// A connection.
    #[track_caller]
    pub(crate) fn wire(&self, over: Over) -> Wire {
        if over == Over::Plain { self.site.wire() } else { self.site.wire_tls() }
    }

    /// Sends the bytes on a new connection and measures what came of it.
    pub(crate) fn shoot(&self, over: Over, shot: &Shot) -> Outcome {
        self.shoot_in_two(over, shot, &[])
    }

    /// The same; what is to come `later` is sent once the origin has the beginning of the request.
    pub(crate) fn shoot_in_two(&self, over: Over, shot: &Shot, later: &[u8]) -> Outcome {
        self.origin.forget();
        let mut wire = self.wire(over);
        wire.send(&shot.bytes);
        if !later.is_empty() {
            let begun = within(Duration::from_secs(5), || self.origin.begun("\r\n\r\n").then_some(()));
            assert!(begun.is_some(), "the origin never saw the beginning of {:?}", lossy(&shot.bytes));
            wire.send(later);
        }
        let mut outcome = Outcome::default();
        let head_only = shot.bytes.starts_with(b"HEAD ");
        let (complete, closed) = listen(&mut wire, shot, head_only, &mut outcome.answers);
        outcome.closed = closed;
        if complete && !closed {
            Self::probe(&mut wire, &mut outcome);
        }
        drop(wire);
        outcome.answers.iter_mut().for_each(|reply| reply.secure = over != Over::Plain);
        self.afterwards(&mut outcome);
        self.inspect(shot, &mut outcome);
        outcome
    }

    /// The next request of the same client gets its own answer.
    fn probe(wire: &mut Wire, outcome: &mut Outcome) {
        wire.say(&format!("GET /probe HTTP/1.1\nHost: {HOST}\nConnection: close\n\n"));
        let (bytes, _) = wire.whatever(Duration::from_secs(5));
        let mut answers = Vec::new();
        let rest = replies(&bytes, false, &mut answers);
        let fine = answers.len() == 1
            && answers.iter().all(|reply| reply.status == 200 && reply.body == b"GET /probe HTTP/1.1");
        // Closed without a word is safe, too.
        if !bytes.is_empty() && (!fine || !rest.is_empty()) {
            outcome.damage.push(format!("poisoned: the next request got {:?}", lossy(&bytes)));
        }
    }

    /// Another client gets its own answer, whatever connection to the origin it is asked over.
    fn afterwards(&self, outcome: &mut Outcome) {
        let mut wire = self.site.wire();
        wire.say(&format!("GET /after HTTP/1.1\nHost: {HOST}\nConnection: close\n\n"));
        let (bytes, _) = wire.whatever(Duration::from_secs(5));
        if !bytes.starts_with(b"HTTP/1.1 200 ") || !bytes.ends_with(b"\r\n\r\nGET /after HTTP/1.1") {
            outcome.damage.push(format!("poisoned: another client got {:?}", lossy(&bytes)));
        }
    }

    /// Looks for damage in what the origin got.
    pub(crate) fn inspect(&self, shot: &Shot, outcome: &mut Outcome) {
        let received = self.origin.received();
        let ours = |bytes: &[u8]| bytes.starts_with(b"GET /probe ") || bytes.starts_with(b"GET /after ");
        let (own, forwarded): (Vec<_>, Vec<_>) = received.whole.into_iter().partition(|bytes| ours(bytes));
        if own.iter().filter(|bytes| bytes.starts_with(b"GET /after ")).count() != 1 {
            outcome
                .damage
                .push("poisoned: another client's request did not reach the origin once".to_owned());
        }
        outcome.forwarded = forwarded;
        outcome.cut = received.cut;
        outcome.hanging = received.hanging;
        let damage = &mut outcome.damage;
        let count = outcome.forwarded.len() + outcome.cut.len();
        if count > shot.messages {
            damage.push(format!("split: {} message(s) became {count}", shot.messages));
        }
        let heads = outcome.cut.iter().filter_map(|bytes| head(bytes));
        let heads: Vec<Vec<u8>> =
            heads.chain(outcome.forwarded.iter().filter_map(|bytes| head(bytes))).collect();
        for (bytes, verdict) in heads.iter().zip(judge(&heads)) {
            if verdict.tier != "Compliant" {
                damage.push(format!("dirty: {} ({}): {:?}", verdict.tier, verdict.reason, lossy(bytes)));
            }
            if hosts(bytes) != 1 {
                damage.push(format!("bad host: {:?}", lossy(bytes)));
            }
        }
        for bytes in &outcome.forwarded {
            match strict::requests(bytes) {
                Ok(all) if all.len() == 1 => {}
                Ok(all) => damage.push(format!("split: read as {}: {:?}", all.len(), lossy(bytes))),
                Err(fault) => damage.push(format!("dirty: {fault} in {:?}", lossy(bytes))),
            }
        }
        let smuggled = |bytes: &Vec<u8>| {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            String::from_utf8_lossy(line).contains("smuggled")
        };
        if outcome.forwarded.iter().chain(&outcome.cut).any(smuggled) {
            damage.push("split: what was smuggled reached the origin as a request".to_owned());
        }
    }
}

/// What is wrong with a refusal: every one of them is hardened, has its id on the page and a line in the log.
pub(crate) fn refusal_faults(site: &Ravelin, reply: &Reply) -> Vec<String> {
    let flaws = reply.flaws();
    let mut faults = Vec::new();
    if !flaws.is_empty() {
        faults.push(format!("not hardened: {}", flaws.join(", ")));
    }
    let Some(id) = reply.header(REQUEST_ID) else {
        faults.push("it has no reference id".to_owned());
        return faults;
    };
    if !reply.body.is_empty() && !reply.text().contains(id) {
        faults.push(format!("the page does not show its reference {id}"));
    }
    let line =
        within(Duration::from_secs(5), || site.log().into_iter().find(|line| text(line, field::ID) == id));
    let graded = |line: &serde_json::Value| !text(line, "desync").is_empty();
    match line {
        None => faults.push(format!("no line of the access log has the id {id}")),
        Some(line) if matches!(text(&line, field::REASON), "bad-host" | "bad-chunk") && !graded(&line) => {
            faults.push(format!("its line in the access log has no grade: {line}"));
        }
        Some(line) if text(&line, field::REASON).is_empty() => {
            faults.push(format!("its line in the access log has no reason: {line}"));
        }
        Some(_) => {}
    }
    faults
}

/// Plays cases on several fronts at once, plain and over TLS; what is wrong with each, in their order.
pub(crate) fn volley<T: Sync>(
    shots: &[T],
    play: impl Fn(&Front, Over, &T) -> Vec<String> + Sync,
) -> Vec<Vec<String>> {
    at_once(shots, Front::open, |front, shot| {
        let mut faults = Vec::new();
        for (over, word) in [(Over::Plain, "plain"), (Over::H1, "TLS")] {
            faults.extend(play(front, over, shot).into_iter().map(|fault| format!("{word}: {fault}")));
        }
        faults
    })
}

/// Plays cases on several stages at once, each on one; what is wrong with each, in their order.
pub(crate) fn at_once<T: Sync, S>(
    cases: &[T],
    stage: impl Fn() -> S + Sync,
    play: impl Fn(&S, &T) -> Vec<String> + Sync,
) -> Vec<Vec<String>> {
    const STAGES: usize = 4;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![Vec::new(); cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..STAGES {
            scope.spawn(|| {
                let stage = stage();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { break };
                    let faults = play(&stage, case);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[at] = faults;
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what is answered: whether every expected answer came, and whether the front closed.
fn listen(wire: &mut Wire, shot: &Shot, head_only: bool, answers: &mut Vec<Reply>) -> (bool, bool) {
    let mut bytes = Vec::new();
    let deadline = Instant::now() + shot.patience;
    loop {
        let (more, closed) = wire.whatever(AFTERWARDS);
        let silent = more.is_empty();
        bytes.extend(more);
        let mut all = Vec::new();
        let rest = replies(&bytes, head_only, &mut all);
        let complete = all.len() >= shot.messages && rest.is_empty();
        let refused = rest.is_empty() && all.last().is_some_and(|reply| reply.status >= 400);
        if closed || (silent && (complete || refused)) || Instant::now() >= deadline {
            *answers = all;
            return (complete || refused, closed);
        }
    }
}

/// Splits bytes into final answers; what is left over.
pub(crate) fn replies<'b>(mut bytes: &'b [u8], head_only: bool, all: &mut Vec<Reply>) -> &'b [u8] {
    loop {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
            return bytes;
        };
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Some(mut reply) = Reply::from_head(&text) else { return bytes };
        let rest = &bytes[end..];
        if (100..200).contains(&reply.status) {
            bytes = rest;
            continue;
        }
        let bodiless = head_only || reply.status == 204 || reply.status == 304;
        let length =
            if bodiless { Some(0) } else { reply.header("content-length").and_then(|l| l.parse().ok()) };
        // Without a length it ends where the connection does.
        let length = length.unwrap_or(rest.len());
        if rest.len() < length {
            return bytes;
        }
        reply.body = rest[..length].to_vec();
        all.push(reply);
        bytes = &rest[length..];
    }
}

fn head(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    bytes.get(..end + 4).map(<[u8]>::to_vec)
}

/// How many Host lines a head has whose value is a host and nothing else; a bad one counts for ten.
fn hosts(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let values = text.split("\r\n").filter_map(|line| line.strip_prefix("host:"));
    let clean = |value: &str| {
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_~%".contains(&b))
    };
    values.map(|value| if clean(value.trim()) { 1 } else { 10 }).sum()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(400).collect()
}
