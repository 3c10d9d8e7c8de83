//! HTTP/2 messages that are none, or that become two when they are written as HTTP/1
//! (`tests/corpus/h2-semantics.yaml`): they end before an origin sees anything of them.

use std::time::Duration;

use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::front::{Front, at_once, refusal_faults};
use crate::harness::h2::{End, H2};
use crate::harness::waiting::Results;
use crate::harness::{HOST, judge, strict, test_file};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    fields: Vec<Field>,
    #[serde(default)]
    data: Vec<String>,
    #[serde(default)]
    trailers: Vec<(String, String)>,
    answer: Vec<Answer>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Short(String),
    Long(String, String),
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum Answer {
    Status(u16),
    Word(Word),
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Word {
    Reset,
}

fn usual(method: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    [(":method", method), (":scheme", "https"), (":path", "/"), (":authority", HOST)]
        .map(|(name, value)| (bytes(name), bytes(value)))
        .into()
}

fn play(front: &Front, case: &Case) -> Vec<String> {
    front.origin.forget();
    let mut fields = Vec::new();
    for field in &case.fields {
        match field {
            Field::Short(word) | Field::Long(word, _) if word == "..." => fields.extend(usual("GET")),
            Field::Short(word) | Field::Long(word, _) if word == "+++" => fields.extend(usual("POST")),
            Field::Short(other) => panic!("{}: {other:?} stands for nothing", case.name),
            Field::Long(name, value) => fields.push((bytes(name), bytes(value))),
        }
    }
    let mut client = H2::open(&front.site);
    let bodiless = case.data.is_empty() && case.trailers.is_empty();
    client.headers(1, &fields, bodiless);
    for (at, piece) in case.data.iter().enumerate() {
        client.data(1, &bytes(piece), at + 1 == case.data.len() && case.trailers.is_empty());
    }
    if !case.trailers.is_empty() {
        let trailers: Vec<_> =
            case.trailers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        client.headers(1, &trailers, true);
    }
    let end = client.end_of(1);
    drop(client);
    verdict(front, case, &end)
}

fn verdict(front: &Front, case: &Case, end: &End) -> Vec<String> {
    let mut faults = Vec::new();
    let fine = match end {
        End::Answer(reply) => case.answer.contains(&Answer::Status(reply.status)),
        End::Reset(_) | End::Goaway(_) | End::Closed => case.answer.contains(&Answer::Word(Word::Reset)),
        End::Silent => false,
    };
    if !fine {
        faults.push(format!("ended with {end:?}, not one of {:?}", case.answer));
    }
    let served = matches!(end, End::Answer(reply) if reply.status < 400);
    if let End::Answer(reply) = end
        && !served
    {
        faults.extend(refusal_faults(&front.site, reply));
    }
    let received = front.origin.received();
    // Trailers come when the body has gone on already: then, and only then, the origin may have seen it all.
    let late = !case.trailers.is_empty();
    if received.whole.len() != usize::from(served) && !(late && received.whole.len() <= 1) {
        faults.push(format!("{} whole requests reached the origin", received.whole.len()));
    }
    for (seen, verdict) in received.whole.iter().zip(judge::judge(&received.whole)) {
        let text = String::from_utf8_lossy(seen);
        if verdict.tier != "Compliant" {
            faults.push(format!("dirty: {verdict:?}: {text}"));
        }
        match strict::requests(seen).as_deref() {
            Ok([request]) => {
                if case.body.as_ref().is_some_and(|body| bytes(body) != request.body) {
                    faults.push(format!(
                        "the origin got the body {:?}",
                        String::from_utf8_lossy(&request.body)
                    ));
                }
                if request.all("x-forwarded-for") != ["127.0.0.1"] || request.target.contains("smuggled") {
                    faults.push(format!("the origin got {request:?}"));
                }
            }
            other => faults.push(format!("the origin got {other:?}: {text}")),
        }
    }
    // Of what was cut off, what came must be the clean beginning of one message.
    for cut in &received.cut {
        let text = String::from_utf8_lossy(cut);
        if text.matches("HTTP/1.1\r\n").count() > 1 || text.starts_with("GET /smuggled") {
            faults.push(format!("split: the origin got the beginning {text:?}"));
        }
    }
    // The next one is served.
    let mut next = H2::open(&front.site);
    next.headers(1, &usual("GET"), true);
    match next.end_of(1) {
        End::Answer(reply) if reply.status == 200 && reply.body == b"GET / HTTP/1.1" => {}
        other => faults.push(format!("poisoned: another client got {other:?}")),
    }
    faults
}

#[test]
fn h2_messages_are_one_clear_message_or_none() {
    let text = std::fs::read_to_string(test_file("corpus/h2-semantics.yaml")).expect("the corpus");
    let cases: Vec<Case> = serde_norway::from_str(&text).expect("the corpus is valid");
    assert!(cases.len() >= 60, "the corpus has {} cases", cases.len());
    let found = at_once(&cases, Front::open, play);
    let mut results = Results::of("h2");
    for (case, mut faults) in cases.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        results.add(&case.name, &faults);
    }
    results.hold();
}

/// A connection that agreed on HTTP/2 and speaks something else is closed, with GOAWAY or without.
#[test]
fn h2_connections_that_speak_something_else_are_closed() {
    let front = Front::open();
    for opening in [
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut wire = front.site.wire_named(HOST, &[b"h2"]);
        wire.send(opening);
        let (_, took) = wire.until_closed(Duration::from_secs(5));
        println!("{opening:?}: {took:?}");
    }
    // PUSH_PROMISE (type 5) is a server's to send (RFC 9113 section 8.4).
    let mut client = H2::open(&front.site);
    client.headers(1, &usual("POST"), false);
    client.frame(5, 4, 1, &[0, 0, 0, 2]);
    let end = client.end_of(1);
    assert!(matches!(end, End::Goaway(_) | End::Reset(_) | End::Closed), "PUSH_PROMISE: {end:?}");
    assert!(front.origin.received().whole.is_empty());
}
