//! Malformed HTTP/1: what is answered, and what the origin saw. The messages are in
//! `tests/corpus/malformed-http1.yaml`; the judge of what reached the origin is `harness::strict`.

use std::time::Duration;

use serde::Deserialize;

use crate::harness::reply::Reply;
use crate::harness::strict::{self, Request};
use crate::harness::{HOST, Recorder, Wire, proxy, recorder, test_file};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    send: String,
    status: Vec<u16>,
    #[serde(default)]
    forwarded: usize,
}

fn corpus() -> Vec<Case> {
    let text = std::fs::read_to_string(test_file("corpus/malformed-http1.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("the corpus is bytes")).collect()
}

/// Sends one case and says everything that is wrong with what happened.
fn faults(case: &Case, mut wire: Wire, origin: &Recorder) -> Vec<String> {
    origin.forget();
    wire.send(bytes(&case.send));
    let (answer, closed) = wire.whatever(Duration::from_millis(400));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let first = text.split("\r\n\r\n").next().and_then(Reply::from_head);
    let status = first.as_ref().map_or(0, |reply| reply.status);
    let mut faults = Vec::new();
    if !case.status.contains(&status) {
        faults.push(format!("answered {status}, not one of {:?}", case.status));
    }
    if status == 0 && !closed {
        faults.push("neither answered nor closed".to_owned());
    }
    if let Some(reply) = first.filter(|reply| reply.status >= 400 && reply.all("x-frame-options").len() != 1)
    {
        faults.push(format!("not hardened: {reply}"));
    }
    let mut seen = Vec::new();
    for bytes in origin.seen() {
        match strict::requests(&bytes) {
            Ok(requests) => seen.extend(requests),
            Err(fault) => {
                faults.push(format!("the origin saw {fault} in {:?}", String::from_utf8_lossy(&bytes)));
            }
        }
    }
    if seen.len() > case.forwarded {
        faults.push(format!("the origin saw {} requests, not {}: {seen:?}", seen.len(), case.forwarded));
    }
    if seen.iter().any(|request| request.target.contains("smuggled")) {
        faults.push(format!("a smuggled request reached the origin: {seen:?}"));
    }
    faults
}

#[test]
fn nothing_malformed_becomes_two_messages_or_reaches_the_origin_dirty() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let cases = corpus();
    assert!(cases.len() >= 50, "the corpus has {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        for fault in faults(case, site.wire(), &origin) {
            wrong.push(format!("{} [{}]: {fault}", case.name, case.why));
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n  {}", wrong.len(), wrong.join("\n  "));
    site.get("/").status(200).hardened();
}

#[test]
fn what_is_ambiguous_is_refused_or_repaired_as_the_operator_says_and_logged_either_way() {
    let twice = format!(
        "POST /twice HTTP/1.1\nHost: {HOST}\nContent-Length: 4\nContent-Length: 4\nX-Folded: a\n b\n\nabcd"
    );
    for (mode, status) in [("strictest", 400), ("defensive", 200), ("monitor", 200)] {
        let origin = Recorder::answering(recorder::OK);
        let limits = format!("[limits]\ndesync_mitigation = \"{mode}\"");
        let site = proxy().site(HOST, &origin).plain_serves().table(&limits).start();
        let mut wire = site.wire();
        wire.say(&twice).reply().status(status);
        wire.until_closed(Duration::from_secs(5));
        let line = site.logged("/twice");
        assert_eq!(line["desync"], "ambiguous", "{mode}: {line}");
        assert_eq!(line["status"], status, "{mode}: {line}");
        let counted = ["ravelin_desync_requests_total", "ambiguous"];
        assert!((site.counted(&counted) - 1.0).abs() < f64::EPSILON, "{mode}:\n{}", site.metrics());
        let seen: Vec<Request> =
            origin.seen().iter().flat_map(|bytes| strict::requests(bytes).expect("clear messages")).collect();
        assert_eq!(seen.len(), usize::from(status == 200), "{mode}: {seen:?}");
        for request in seen {
            assert_eq!(request.body, b"abcd");
            let lengths =
                request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            assert_eq!(lengths.count(), 1, "{mode}: {:?}", request.fields);
        }
        // What is severe is refused whatever the mode.
        site.wire().say(&format!("GET / HTTP/1.1\nHost: {HOST}\nHost: {HOST}\n\n")).reply().status(400);
    }
}

#[test]
fn it_makes_no_difference_how_the_bytes_arrive() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let whole = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 11\r\n\r\nhello world");
    for piece in [1, 2, 3, 7, 40] {
        origin.forget();
        let mut wire = site.wire();
        for part in whole.as_bytes().chunks(piece) {
            wire.send(part);
        }
        wire.reply().status(200);
        let seen = origin.seen();
        let all = seen.iter().flat_map(|bytes| strict::requests(bytes).unwrap()).collect::<Vec<_>>();
        assert_eq!(all.len(), 1, "in pieces of {piece}");
        assert_eq!(all[0].body, b"hello world", "in pieces of {piece}");
    }
}

#[test]
fn a_connection_that_was_refused_for_its_framing_is_closed() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for head in [
        "GET / HTTP/1.1\nContent-Length: x\n\n",
        "POST / HTTP/1.0\nHost: www.example.org\nTransfer-Encoding: chunked\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
    ] {
        let mut wire = site.wire();
        wire.say(head).say(&format!("GET /second HTTP/1.1\nHost: {HOST}\n\n"));
        wire.until_closed(Duration::from_secs(5));
    }
    assert!(!origin.text().contains("/second"), "{}", origin.text());
}
