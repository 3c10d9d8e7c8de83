//! What AWS's desync guardian says about what we read, and about what we would send on.
//!
//! - We are never milder: a message that it calls ambiguous or severe is not accepted in the strictest mode,
//!   and a severe one in no mode.
//! - What we accept and write anew is compliant.

use bytes::BytesMut;
use http_desync_guardian::RequestSafetyTier as Tier;
use http_desync_guardian::request_analyzer::HttpRequestData;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use ravelin_guardian::http1::framing::RequestFraming;
use ravelin_guardian::http1::grade::{Class, Fault, Mode};
use ravelin_guardian::http1::request::{Broken, Decoder, Limits, RequestHead};
use serde::Deserialize;

#[path = "../../fuzz/requests.rs"]
mod requests;

const LIMITS: Limits = Limits { request_line: 8 << 10, fields: 100, fields_size: 64 << 10 };
const CASES: u32 = 6000;

/// Our outcome, and the head's bytes as they came.
fn decode(input: &[u8], mode: Mode) -> Option<(Result<RequestHead, Box<Broken>>, Vec<u8>)> {
    let mut left = BytesMut::from(input);
    match Decoder::default().decode(&mut left, &LIMITS, mode) {
        Ok(None) => None,
        Ok(Some(head)) => Some((Ok(head), input[..input.len() - left.len()].to_vec())),
        Err(broken) => Some((Err(broken), Vec::new())),
    }
}

/// Its tier of a head. An empty line before it is passed over by both.
fn tier(head: &[u8]) -> (Tier, String) {
    let head = head.strip_prefix(b"\r\n").or_else(|| head.strip_prefix(b"\n")).unwrap_or(head);
    let verdict = HttpRequestData::analyze_raw_request(head);
    (verdict.tier, format!("{:?}: {:?} {:?}", verdict.tier, verdict.reason, verdict.message))
}

fn class(tier: Tier) -> Class {
    match tier {
        Tier::Compliant => Class::Compliant,
        Tier::Acceptable => Class::Acceptable,
        Tier::Ambiguous => Class::Ambiguous,
        Tier::Severe => Class::Severe,
    }
}

/// The head as the origin gets it: hop-by-hop fields out, one framing, origin-form.
fn onward(head: &RequestHead) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.1\r\n", head.method(), path(head.target())).into_bytes();
    for (name, value) in head.iter() {
        let dropped = [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-connection",
            "transfer-encoding",
            "content-length",
        ];
        if !dropped.contains(&name) {
            out.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
    }
    match head.body() {
        RequestFraming::None => {}
        RequestFraming::Length(0) if matches!(head.method().as_str(), "GET" | "HEAD") => {}
        RequestFraming::Length(length) => {
            out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes())
        }
        RequestFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn path(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    }
}

/// Holds one input against both promises, in every mode. A body with GET, which only the lenient modes accept,
/// stays one on its way to the origin and is not compliant.
fn check(input: &[u8]) -> Result<(), TestCaseError> {
    for (_, mode) in Mode::WORDS {
        let Some((Ok(head), bytes)) = decode(input, mode) else { continue };
        let (theirs, words) = tier(&bytes);
        let text = bytes.escape_ascii().to_string();
        prop_assert!(
            head.class() >= class(theirs),
            "we say {:?}, the guardian {words} of {text}",
            head.fault()
        );
        let onward = onward(&head);
        let (theirs, words) = tier(&onward);
        let pointless = head.fault() == Some(Fault::BodyWithGet)
            || matches!(head.method().as_str(), "GET" | "HEAD") && head.class() == Class::Ambiguous;
        prop_assert!(
            theirs == Tier::Compliant || pointless,
            "the guardian says {words} of {}, made of {text}",
            onward.escape_ascii()
        );
    }
    Ok(())
}

#[test]
fn we_are_never_milder_and_what_we_send_on_is_compliant() {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    if let Err(error) = TestRunner::new(config).run(&requests::stream(), |input| check(&input)) {
        panic!("{error}");
    }
}

/// A test that only sees refused messages, or only clean ones, proves nothing.
#[test]
fn the_samples_are_of_all_classes() {
    let mut runner = TestRunner::deterministic();
    let (mut ours, mut theirs) = ([0; 4], [0; 4]);
    for _ in 0..4000 {
        let input = requests::stream().new_tree(&mut runner).unwrap().current();
        let Some((outcome, bytes)) = decode(&input, Mode::Defensive) else { continue };
        let class_of = |class: Class| Class::ALL.iter().position(|known| *known == class).unwrap();
        match outcome {
            Ok(head) => {
                ours[class_of(head.class())] += 1;
                theirs[class_of(class(tier(&bytes).0))] += 1;
            }
            Err(broken) => ours[class_of(broken.fault.class())] += 1,
        }
    }
    println!("ours: {ours:?}, the guardian's of those that we accept: {theirs:?}");
    assert!(ours.iter().all(|count| *count >= 20), "{ours:?}");
    assert!(theirs[..3].iter().all(|count| *count >= 10), "{theirs:?}");
}

#[derive(Deserialize)]
struct Case {
    name: String,
    send: String,
    verdict: String,
}

/// The corpus of the decoder: where the guardian and we differ, and only there.
#[test]
fn the_corpus() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/http1-requests.yaml"))
        .unwrap();
    let corpus: Vec<Case> = serde_norway::from_str(&text).unwrap();
    assert!(corpus.len() >= 120);
    for case in corpus.iter().filter(|case| case.verdict != "waits") {
        let send: Vec<u8> = case.send.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        let ours = case.verdict.split(' ').next().unwrap();
        let ours = Class::ALL.into_iter().find(|class| class.label() == ours).unwrap();
        if let Some(end) = send.windows(4).position(|four| four == b"\r\n\r\n") {
            let start = if send.starts_with(b"\r\n\r\n") { 4 } else { 0 };
            let head = &send[start..(end + 4).max(start)];
            let (theirs, words) = tier(head);
            assert!(
                head.is_empty() || ours >= class(theirs),
                "{}: {} here, {words} there",
                case.name,
                case.verdict
            );
        }
        prop_assert_ok(check(&send), &case.name);
    }
}

fn prop_assert_ok(outcome: Result<(), TestCaseError>, name: &str) {
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
}
