//! Only HTTP and HTTPS go on: what opens with other bytes is recognised, counted, and answered only where a
//! proper answer exists. The openings are in `tests/corpus/foreign-openings.yaml`.

use std::time::Duration;

use serde::Deserialize;

use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, recorder, test_file, within};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    name: String,
    protocol: String,
    send: Option<String>,
    hex: Option<String>,
    #[serde(default)]
    port: Listener,
    #[serde(default)]
    answer: Answer,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Listener {
    #[default]
    Plain,
    Tls,
    Both,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Answer {
    #[default]
    Closed,
    Alert,
    Page,
}

impl Opening {
    fn bytes(&self) -> Vec<u8> {
        match (&self.send, &self.hex) {
            (Some(text), None) => text.chars().map(|c| u8::try_from(u32::from(c)).expect("bytes")).collect(),
            (None, Some(hex)) => unhex(hex),
            _ => panic!("{}: `send` or `hex`", self.name),
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

fn corpus() -> Vec<Opening> {
    let text = std::fs::read_to_string(test_file("corpus/foreign-openings.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

fn check(opening: &Opening, mut wire: Wire, where_to: &str) {
    wire.send(opening.bytes());
    let (answer, took) = wire.to_the_end(Duration::from_secs(12));
    let said = String::from_utf8_lossy(&answer);
    let what = format!("{} on the {where_to} port answered {said:?} after {took:?}", opening.name);
    match opening.answer {
        Answer::Closed => assert!(answer.is_empty(), "{what}"),
        Answer::Alert => assert!(answer.is_empty() || answer.first() == Some(&21), "{what}"),
        Answer::Page => assert!(said.starts_with("HTTP/1.1 400 "), "{what}"),
    }
    assert!(took < Duration::from_secs(3), "closed at once, not after a time-out: {what}");
}

#[test]
fn every_foreign_protocol_is_closed_counted_and_kept_from_the_origin() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for opening in corpus() {
        let before = counted(&site, &opening.protocol);
        let mut sent = 0.0;
        if opening.port != Listener::Tls {
            check(&opening, site.wire(), "plain");
            sent += 1.0;
        }
        if opening.port != Listener::Plain {
            check(&opening, site.wire_to_tls_port(), "TLS");
            sent += 1.0;
        }
        let grown = within(Duration::from_secs(5), || {
            (counted(&site, &opening.protocol) - before >= sent).then_some(())
        });
        assert!(
            grown.is_some(),
            "{}: protocol {:?} should be counted {sent} more times than {before}:\n{}",
            opening.name,
            opening.protocol,
            site.metrics()
        );
    }
    assert!(origin.seen().is_empty(), "nothing reaches the origin: {}", origin.text());
    site.get("/").status(200).hardened();
}

fn counted(site: &Ravelin, protocol: &str) -> f64 {
    site.counted(&["protocol", &format!("=\"{protocol}\"")])
}

#[test]
fn plain_http_on_the_tls_port_is_told_where_to_go() {
    let site = proxy().site(HOST, "http://127.0.0.1:1").start();
    let mut wire = site.wire_to_tls_port();
    wire.say(&format!("GET /typo3/?x=1 HTTP/1.1\nHost: {HOST}:{}\nAccept: text/html\n\n", site.https_port()));
    let reply = wire.reply();
    reply.status(400).hardened().no_header("strict-transport-security");
    reply.shows(&format!("{}/typo3/?x=1", site.base()));
    assert!(wire.to_the_end(Duration::from_secs(5)).0.is_empty());
}

#[test]
fn what_the_page_names_cannot_be_used_to_write_into_it() {
    let site = proxy().site(HOST, "http://127.0.0.1:1").start();
    for (path, host) in [
        ("/\"><script>alert(1)</script>", HOST),
        ("/", "x\"><script>alert(1)</script>"),
        ("/", "evil.example"),
    ] {
        let mut wire = site.wire_to_tls_port();
        wire.say(&format!("GET {path} HTTP/1.1\nHost: {host}\n\n"));
        let (bytes, _) = wire.to_the_end(Duration::from_secs(5));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("<script>"), "{text}");
        if let Some(head) = text.split("\r\n\r\n").next().and_then(Reply::from_head) {
            head.status(400);
        }
    }
}

#[test]
fn silence_is_ended_too() {
    let limits = "[limits]\nhandshake = \"1 s\"\nheader_read = \"1 s\"";
    let site = proxy().site(HOST, "http://127.0.0.1:1").table(limits).start();
    for mut wire in [site.wire(), site.wire_to_tls_port()] {
        let (_, took) = wire.to_the_end(Duration::from_secs(8));
        assert!(took >= Duration::from_millis(500), "not before its time: {took:?}");
    }
}
