//! No way to write a path gets round a rule for it (`tests/corpus/path-acl.yaml`), with a real Apache that has the file.

use std::time::Duration;

use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::front::{at_once, refusal_faults};
use crate::harness::h2::{End, H2};
use crate::harness::raw_origin::RawOrigin;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, Wire, apache, judge, proxy, strict, test_file};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    path: String,
    why: String,
}

/// What the file holds.
const SECRET: &str = "What only the backend may read.";

/// GET is refused below /typo3/ by a rule for the path.
const RULE: &str = "[[site.path]]\npath = \"/typo3\"\nmethods = [\"PURGE\"]";

fn corpus() -> Vec<Way> {
    let text = std::fs::read_to_string(test_file("corpus/path-acl.yaml")).expect("the corpus");
    let ways: Vec<Way> = serde_norway::from_str(&text).expect("the corpus is valid");
    assert!(ways.len() >= 50, "the corpus has {} ways", ways.len());
    ways
}

fn request(path: &str) -> Vec<u8> {
    bytes(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"))
}

/// What comes back over each protocol, and what is wrong with it where it is a refusal; `logged`: also in the log.
fn answers(site: &Ravelin, path: &str, logged: bool) -> Vec<(&'static str, String, Vec<String>)> {
    let over_h1 = |mut wire: Wire| {
        wire.send(request(path));
        let Some(reply) = wire.try_reply() else { return (String::new(), Vec::new()) };
        // A 404 is Apache's; Ravelin's own refusals carry a reference on the page.
        let own = logged && [400, 405].contains(&reply.status);
        let faults = if own { refusal_faults(site, &reply) } else { Vec::new() };
        (format!("{} {}", reply.status, reply.text()), faults)
    };
    let (plain, plain_faults) = over_h1(site.wire());
    let (tls, tls_faults) = over_h1(site.wire_tls());
    let mut client = H2::open(site);
    let fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", HOST)];
    client.headers(1, &fields.map(|(name, value)| (bytes(name), bytes(value))), true);
    let h2 = match client.end_of(1) {
        End::Answer(reply) => format!("{} {}", reply.status, reply.text()),
        other => format!("{other:?}"),
    };
    vec![("plain", plain, plain_faults), ("TLS", tls, tls_faults), ("HTTP/2", h2, Vec::new())]
}

/// Whether a path is in the one form that rules see.
fn is_normal(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let escapes = path.split('%').skip(1).map(|rest| rest.get(..2).unwrap_or_default());
    let fine = |digits: &str| {
        let byte = u8::from_str_radix(digits, 16);
        // Unreserved characters stand for themselves; what separates, ends or breaks never stands escaped.
        byte.is_ok_and(|b| !(b.is_ascii_alphanumeric() || b"-._~/\\".contains(&b) || b < 0x20 || b == 0x7f))
    };
    let odd = |segment: &str| matches!(segment, "." | "..");
    path.starts_with('/')
        && !path.contains("//")
        && !path.split('/').any(odd)
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#')
        && { escapes }.all(fine)
}

/// The rule before Apache, and the rule before an origin that records.
struct Stage {
    guarded: Ravelin,
    recorded: Ravelin,
    origin: RawOrigin,
}

impl Stage {
    fn open() -> Self {
        let origin = RawOrigin::start();
        Self {
            guarded: proxy().site(HOST, apache()).with(RULE).plain_serves().start(),
            recorded: proxy().site(HOST, origin.url().as_str()).with(RULE).plain_serves().start(),
            origin,
        }
    }

    fn faults(&self, way: &Way) -> Vec<String> {
        let mut faults = Vec::new();
        for (over, text, wrong) in answers(&self.guarded, &way.path, true) {
            if text.contains(SECRET) {
                faults.push(format!("{over}: BYPASS: Apache gave the file away"));
            }
            if text.is_empty() {
                faults.push(format!("{over}: no answer"));
            }
            faults.extend(wrong.into_iter().map(|fault| format!("{over}: {fault}")));
        }
        self.origin.forget();
        answers(&self.recorded, &way.path, false);
        let received = self.origin.received().whole;
        for (bytes, verdict) in received.iter().zip(judge::judge(&received)) {
            match strict::requests(bytes).as_deref() {
                Ok([request]) if is_normal(&request.target) && verdict.tier == "Compliant" => {
                    if request.target.starts_with("/typo3/") {
                        faults.push(format!("BYPASS: {} was forwarded", request.target));
                    }
                }
                other => faults.push(format!("forwarded, but not in normal form: {verdict:?} {other:?}")),
            }
        }
        faults
    }
}

#[test]
fn path_rules_hold_for_every_way_to_write_a_path() {
    let ways = corpus();
    let found = at_once(&ways, Stage::open, Stage::faults);
    let mut results = Results::of("path-acl");
    for (way, mut faults) in ways.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, way.why.clone());
        }
        results.add(&way.path, &faults);
    }
    results.hold();
}

/// The measure has teeth: without the rule, and without Ravelin, the file is there for many of these ways.
#[test]
fn path_rules_are_needed_for_many_ways() {
    let port: u16 = apache().url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let reached = corpus()
        .iter()
        .filter(|way| {
            let mut wire = Wire::plain(port);
            wire.send(request(&way.path));
            let (bytes, _) = wire.whatever(Duration::from_secs(5));
            String::from_utf8_lossy(&bytes).contains(SECRET)
        })
        .count();
    println!("{reached} of {} ways lead to the file in Apache itself", corpus().len());
    assert!(reached >= 20, "only {reached} ways lead to the file in Apache itself");
    let open = proxy().site(HOST, apache()).start();
    open.get("/typo3/secret.txt").status(200).shows(SECRET);
}

#[test]
fn normal_form_is_told_from_others() {
    for normal in ["/", "/a/b", "/a%20b", "/a?x=//../%2e", "/a;b", "/...", "/%C3%A4"] {
        assert!(is_normal(normal), "{normal}");
    }
    for odd in [
        "", "a", "//a", "/a//b", "/./a", "/a/..", "/%74", "/%2e", "/a%2fb", "/a%5Cb", "/a%00", "/a\\b",
        "/a%zz", "/a%2",
    ] {
        assert!(!is_normal(odd), "{odd}");
    }
}
