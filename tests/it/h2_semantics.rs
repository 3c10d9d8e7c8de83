//! HTTP/2 messages that are none, or that become two when they are written as HTTP/1
//! (`tests/corpus/h2-semantics.yaml`): they end before an origin sees anything of them.

use std::time::Duration;

use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::curl::Over;
use crate::harness::front::{Front, at_once, refusal_faults};
use crate::harness::h2::{End, H2};
use crate::harness::waiting::Results;
use crate::harness::{HOST, apache, judge, proxy, strict, test_file, within};

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
    target: Option<String>,
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

/// How the frames of a case come: in one go, or one by one, so that each is looked at before the next is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    AtOnce,
    OneByOne,
}

impl Pace {
    /// Long enough for whatever the frame before this one sets going to have reached the origin.
    fn pause(self) {
        if self == Self::OneByOne {
            std::thread::sleep(Duration::from_millis(60));
        }
    }
}

fn play(front: &Front, case: &Case, pace: Pace) -> Vec<String> {
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
        pace.pause();
        client.data(1, &bytes(piece), at + 1 == case.data.len() && case.trailers.is_empty());
    }
    if !case.trailers.is_empty() {
        pace.pause();
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
                if case.target.as_ref().is_some_and(|target| *target != request.target) {
                    faults.push(format!("the origin got the target {:?}", request.target));
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
    let takes_time = |case: &Case| !case.data.is_empty() || !case.trailers.is_empty();
    let mut plays: Vec<_> = cases.iter().map(|case| (case, Pace::AtOnce)).collect();
    plays.extend(cases.iter().filter(|case| takes_time(case)).map(|case| (case, Pace::OneByOne)));
    let found = at_once(&plays, Front::open, |front, (case, pace)| play(front, case, *pace));
    let mut results = Results::of("h2");
    for ((case, pace), mut faults) in plays.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        let name = match pace {
            Pace::AtOnce => case.name.clone(),
            Pace::OneByOne => format!("{}, one frame at a time", case.name),
        };
        results.add(&name, &faults);
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

/// A client that takes its upload back has not ended it: with `CANCEL` and `NO_ERROR` as well, which hyper reads as
/// an end.
#[test]
fn h2_bodies_that_are_taken_back_are_not_whole() {
    let front = Front::open();
    for code in [0_u8, 8] {
        let mut client = H2::open(&front.site);
        client.headers(1, &usual("POST"), false);
        client.data(1, b"half of it", false);
        assert!(within(Duration::from_secs(10), || front.origin.begun("half of it").then_some(())).is_some());
        client.frame(3, 0, 1, &[0, 0, 0, code]);
        let received = front.origin.received();
        assert!(received.whole.is_empty(), "after code {code} the origin got {received:?}");
        assert_eq!(received.cut.len(), 1, "{received:?}");
        front.origin.forget();
    }
}

/// hyper sends a body with the answer to HEAD unless it says that it has ended.
#[test]
fn a_refusal_of_head_has_no_body() {
    let site = proxy().site(HOST, apache()).start();
    site.ask_over(Over::H2, "/.git/config").method("HEAD").send().status(404).hardened();
}
