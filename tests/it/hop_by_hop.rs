//! Fields that end here, and fields that are ours to write (`tests/corpus/hop-by-hop.yaml`), over HTTP/1 and HTTP/2.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::curl::Over;
use crate::harness::front::{Front, Shot, at_once, refusal_faults};
use crate::harness::h2::{End, H2};
use crate::harness::waiting::Results;
use crate::harness::{HOST, judge, strict, test_file};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    lines: Vec<String>,
    method: Option<String>,
    #[serde(default = "yes")]
    h2: bool,
    answer: Vec<u16>,
    #[serde(default)]
    gone: Vec<String>,
    #[serde(default)]
    nowhere: Vec<String>,
    #[serde(default)]
    sees: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

impl Case {
    /// What is wrong with what the origin got.
    fn faults(&self, status: u16, forwarded: &[Vec<u8>]) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.answer.contains(&status) {
            faults.push(format!("answered {status}, not one of {:?}", self.answer));
        }
        let served = status < 400 && status != 0;
        if forwarded.len() != usize::from(served) {
            faults.push(format!("answered {status}, and {} requests reached the origin", forwarded.len()));
        }
        for bytes in forwarded {
            let text = String::from_utf8_lossy(bytes);
            let asked = |word: &&String| text.contains(word.as_str());
            faults.extend(
                self.nowhere.iter().filter(asked).map(|word| format!("the origin saw {word:?}: {text}")),
            );
            match strict::requests(bytes).as_deref() {
                Ok([request]) => {
                    for (name, value) in &request.fields {
                        if self.gone.contains(&folded(name)) {
                            faults.push(format!("the origin saw `{name}: {value}`"));
                        }
                    }
                    for (name, value) in &self.sees {
                        if request.all(name) != [value.as_str()] {
                            faults.push(format!("the origin saw `{name}` as {:?}", request.all(name)));
                        }
                    }
                }
                other => faults.push(format!("the origin got {other:?}")),
            }
        }
        faults
    }

    fn over_h1(&self, front: &Front, over: Over) -> Vec<String> {
        let mut text = format!("{} / HTTP/1.1\r\nHost: {HOST}\r\n", self.method.as_deref().unwrap_or("GET"));
        for line in &self.lines {
            text += line;
            text += "\r\n";
        }
        text += if self.method.is_some() { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
        let shot = Shot { bytes: bytes(&text), messages: 1, patience: Duration::from_secs(5) };
        let outcome = front.shoot(over, &shot);
        let mut faults = outcome.damage.clone();
        faults.extend(self.faults(outcome.status(), &outcome.forwarded));
        for reply in outcome.answers.iter().filter(|reply| reply.status >= 400) {
            faults.extend(refusal_faults(&front.site, reply));
        }
        faults.into_iter().map(|fault| format!("{over:?}: {fault}")).collect()
    }

    fn over_h2(&self, front: &Front) -> Vec<String> {
        front.origin.forget();
        let method = self.method.as_deref().unwrap_or("GET");
        let mut fields: Vec<(String, String)> =
            [(":method", method), (":scheme", "https"), (":path", "/"), (":authority", HOST)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        for line in &self.lines {
            let (name, value) = line.split_once(':').expect("a field line");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if self.method.is_some() {
            fields.push(("content-length".to_owned(), "2".to_owned()));
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let mut client = H2::open(&front.site);
        client.headers(1, &fields, self.method.is_none());
        if self.method.is_some() {
            client.data(1, b"hi", true);
        }
        let end = client.end_of(1);
        let forwarded = front.origin.received().whole;
        let mut faults = match &end {
            End::Answer(reply) => {
                let mut faults = self.faults(reply.status, &forwarded);
                if reply.status >= 400 {
                    faults.extend(refusal_faults(&front.site, reply));
                }
                faults
            }
            other => vec![format!("ended with {other:?}")],
        };
        faults.extend(
            judge::judge(&forwarded)
                .iter()
                .filter(|v| v.tier != "Compliant")
                .map(|v| format!("dirty: {v:?}")),
        );
        faults.into_iter().map(|fault| format!("HTTP/2: {fault}")).collect()
    }
}

/// A name as CGI and PHP see it.
fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[test]
fn hop_by_hop_fields_end_here_and_ours_are_ours() {
    let text = std::fs::read_to_string(test_file("corpus/hop-by-hop.yaml")).expect("the corpus");
    let cases: Vec<Case> = serde_norway::from_str(&text).expect("the corpus is valid");
    assert!(cases.len() >= 35, "the corpus has {} cases", cases.len());
    let found = at_once(&cases, Front::open, |front, case| {
        let mut faults = case.over_h1(front, Over::Plain);
        faults.extend(case.over_h1(front, Over::H1));
        if case.h2 {
            faults.extend(case.over_h2(front));
        }
        faults
    });
    let mut results = Results::of("hop-by-hop");
    for (case, mut faults) in cases.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        results.add(&case.name, &faults);
    }
    results.hold();
}
