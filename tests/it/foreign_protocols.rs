//! Only HTTP and HTTPS go on: what opens with other bytes is recognised, counted, and answered only where a
//! proper answer exists. The openings, and what each is owed, are in `tests/corpus/first-bytes.yaml`.

use std::time::Duration;

use serde::Deserialize;

use crate::harness::names::metric;
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, Recorder, proxy, recorder, test_file, within};

/// The times of the listeners in these tests.
const LIMITS: &str = "[limits]\nhandshake = \"1 s\"\nheader_read = \"1 s\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    name: String,
    bytes: String,
    listener: Listener,
    protocol: String,
    answer: Answer,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Listener {
    Plain,
    Tls,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Serve,
    #[serde(rename = "page-400")]
    Page,
    Alert,
    Goaway,
    Close,
    Timeout,
}

fn corpus() -> Vec<Opening> {
    let text = std::fs::read_to_string(test_file("corpus/first-bytes.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

/// `\r`, `\n`, `\t`, `\\` and `\xNN`, everything else as it stands.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = (byte == b'\\').then(|| rest.next().expect("an escape"));
        out.push(match escaped {
            None => byte,
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            Some(other) => other,
        });
    }
    out
}

/// Sends one opening; what is wrong with the answer, if anything.
fn fault(site: &Ravelin, opening: &Opening) -> Option<String> {
    let mut wire = if opening.listener == Listener::Plain { site.wire() } else { site.wire_to_tls_port() };
    wire.send(unescape(&opening.bytes));
    let (answer, took) = wire.until_closed(Duration::from_secs(12));
    let said = String::from_utf8_lossy(&answer).into_owned();
    let at_once = took < Duration::from_millis(900);
    let right = match opening.answer {
        Answer::Serve if opening.listener == Listener::Tls => !said.starts_with("HTTP"),
        // HTTP/1.0 is answered in HTTP/1.0, which RFC 9110 section 6.2 leaves to us.
        Answer::Serve => said.starts_with("HTTP/1.1 ") || said.starts_with("HTTP/1.0 "),
        Answer::Page => said.starts_with("HTTP/1.1 400 ") && at_once,
        // TLS record type 21, then the level and description: fatal handshake_failure.
        Answer::Alert => answer.first() == Some(&21) && answer.ends_with(&[2, 40]) && at_once,
        // HTTP/2 frames: SETTINGS is type 4, GOAWAY type 7.
        Answer::Goaway => answer.get(3) == Some(&4) && answer.contains(&7) && at_once,
        Answer::Close => answer.is_empty() && at_once,
        Answer::Timeout => answer.is_empty() && took > Duration::from_millis(600),
    };
    (!right).then(|| format!("{}: answered {said:?} after {took:?}", opening.name))
}

#[test]
fn every_opening_gets_what_it_is_owed_and_nothing_foreign_reaches_the_origin() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).table(LIMITS).plain_serves().start();
    let mut wrong = Vec::new();
    for opening in corpus() {
        origin.forget();
        let before = counted(&site, &opening.protocol);
        wrong.extend(fault(&site, &opening));
        if matches!(opening.answer, Answer::Serve | Answer::Timeout) {
            continue;
        }
        let grows = || (counted(&site, &opening.protocol) > before).then_some(());
        if within(Duration::from_secs(3), grows).is_none() {
            wrong.push(format!("{}: protocol {:?} was not counted", opening.name, opening.protocol));
        }
        if !origin.seen().is_empty() {
            wrong.push(format!("{}: reached the origin: {}", opening.name, origin.text()));
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n  {}\n{}", wrong.len(), wrong.join("\n  "), site.metrics());
    site.get("/").status(200).hardened();
}

fn counted(site: &Ravelin, protocol: &str) -> f64 {
    site.counted(&[metric::FOREIGN, &format!("protocol=\"{protocol}\"")])
}

#[test]
fn plain_http_on_the_tls_port_is_told_where_to_go() {
    let site = proxy().site(HOST, "http://127.0.0.1:1").start();
    let mut wire = site.wire_to_tls_port();
    wire.say(&format!("GET /typo3/?x=1 HTTP/1.1\nHost: {HOST}:{}\nAccept: text/html\n\n", site.https_port()));
    let reply = wire.reply();
    reply.status(400).hardened().no_header("strict-transport-security");
    reply.shows(&site.base());
    assert!(wire.until_closed(Duration::from_secs(5)).0.is_empty());
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
        let (bytes, _) = wire.until_closed(Duration::from_secs(5));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("<script>"), "{text}");
        let head = text.split("\r\n\r\n").next().and_then(Reply::from_head);
        head.unwrap_or_else(|| panic!("no answer: {text:?}")).status(400);
    }
}
