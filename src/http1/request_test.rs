//! What the decoder of requests makes of the corpus, however the bytes are cut, and within which limits.

use std::collections::BTreeMap;

use bytes::BytesMut;
use http::Version;
use proptest::prelude::*;
use serde::Deserialize;

use super::framing::RequestFraming;
use super::grade::{Class, Fault, Mode};
use super::request::{Broken, Decoder, Limits, RequestHead};

const LIMITS: Limits = Limits { request_line: 8 << 10, fields: 100, fields_size: 64 << 10 };

type Outcome = Result<Option<RequestHead>, Box<Broken>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(rename = "why")]
    _why: Option<String>,
    send: String,
    verdict: String,
    reads: Option<(String, String, Body)>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    #[serde(default)]
    left: String,
    #[serde(default)]
    closes: bool,
    #[serde(default)]
    expects: bool,
    sees: Option<(String, String)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Bytes(u64),
    Word(String),
}

impl Body {
    fn framing(&self) -> RequestFraming {
        match self {
            Self::Bytes(length) => RequestFraming::Length(*length),
            Self::Word(word) if word == "none" => RequestFraming::None,
            Self::Word(word) => {
                assert_eq!(word, "chunked");
                RequestFraming::Chunked
            }
        }
    }
}

fn corpus() -> Vec<Case> {
    serde_norway::from_str(include_str!("../../tests/corpus/http1-requests.yaml")).unwrap()
}

/// The corpus writes a byte as the character of its number.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn decode(input: &[u8], mode: Mode) -> (Outcome, BytesMut) {
    let mut input = BytesMut::from(input);
    let outcome = Decoder::default().decode(&mut input, &LIMITS, mode);
    (outcome, input)
}

/// The same in pieces, each of a size that `sizes` names.
fn decode_cut(input: &[u8], limits: &Limits, sizes: impl IntoIterator<Item = usize>) -> (Outcome, BytesMut) {
    let (mut decoder, mut buffer, mut rest) = (Decoder::default(), BytesMut::new(), input);
    for size in sizes {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = behind;
        let outcome = decoder.decode(&mut buffer, limits, Mode::Defensive);
        if !matches!(outcome, Ok(None)) {
            buffer.extend_from_slice(rest);
            return (outcome, buffer);
        }
        if rest.is_empty() {
            break;
        }
    }
    (Ok(None), buffer)
}

/// Everything that can be seen of an outcome.
fn show(outcome: &Outcome) -> String {
    let head = |head: &RequestHead| {
        let fields: Vec<String> = head.iter().map(|(n, v)| format!("{n}: {}", v.escape_ascii())).collect();
        format!("{head:?} {fields:?}")
    };
    match outcome {
        Ok(None) => "waits".to_owned(),
        Ok(Some(accepted)) => head(accepted),
        Err(broken) => format!("{:?} {:?} {:?}", broken.fault, broken.head.method(), broken.head.target()),
    }
}

impl Case {
    fn fault(&self) -> Option<Fault> {
        let (class, label) = self.verdict.split_once(' ')?;
        let fault = Fault::ALL.into_iter().find(|fault| fault.label() == label);
        let fault = fault.unwrap_or_else(|| panic!("{}: no fault is called {label}", self.name));
        assert_eq!(fault.class().label(), class, "{}", self.name);
        Some(fault)
    }

    fn check(&self, mode: Mode) {
        let (outcome, left) = decode(&bytes(&self.send), mode);
        let what = format!("{} ({}): {}", self.name, mode.label(), show(&outcome));
        if self.verdict == "waits" {
            assert!(matches!(outcome, Ok(None)), "{what}");
            return;
        }
        let fault = self.fault();
        assert!(fault.is_some() || self.verdict == "compliant", "{what}: the verdict is no verdict");
        match outcome {
            Ok(None) => panic!("{what}"),
            Ok(Some(head)) => {
                assert!(mode.accepts(head.class()), "{what}");
                assert_eq!(head.fault(), fault, "{what}");
                self.understood(&head, &what);
                assert_eq!(&left[..], bytes(&self.left), "{what}");
            }
            Err(broken) => {
                let fault = fault.unwrap_or_else(|| panic!("{what}"));
                assert!(!mode.accepts(fault.class()), "{what}");
                assert_eq!(broken.fault, fault, "{what}");
                assert_eq!(broken.head.fault(), Some(fault), "{what}");
                let log = (broken.head.method().as_str(), broken.head.target());
                if let Some((method, target)) = &self.sees {
                    assert_eq!(log, (method.as_str(), target.as_str()), "{what}");
                }
            }
        }
    }

    fn understood(&self, head: &RequestHead, what: &str) {
        let (method, target, body) = self.reads.as_ref().unwrap_or_else(|| panic!("{what}"));
        assert_eq!((head.method().as_str(), head.target()), (method.as_str(), target.as_str()), "{what}");
        assert_eq!(head.body(), body.framing(), "{what}");
        assert_eq!(head.persists(), !self.closes, "{what}");
        assert_eq!(head.expects_continue(), self.expects, "{what}");
        for (name, value) in &self.fields {
            assert_eq!(head.all(name).collect::<Vec<_>>(), [bytes(value)], "{what}: {name}");
        }
        let lengths = head.all("content-length").count();
        let encodings = head.all("transfer-encoding").count();
        let framed = match head.body() {
            RequestFraming::None => (0, 0),
            RequestFraming::Length(_) => (1, 0),
            RequestFraming::Chunked => (0, 1),
        };
        assert_eq!((lengths, encodings), framed, "{what}: the fields say what the framing says");
    }
}

/// What is no matter of the head's grammar: which host it is, and the chunks behind it.
const FOUND_LATER: [Fault; 9] = [
    Fault::BadHost,
    Fault::HostMismatch,
    Fault::BadChunkSize,
    Fault::ChunkTooLarge,
    Fault::ChunkExtensionTooLong,
    Fault::ChunkControlByte,
    Fault::BadChunkEnd,
    Fault::BadTrailer,
    Fault::TrailersTooLong,
];

#[test]
fn the_corpus() {
    let corpus = corpus();
    for case in &corpus {
        for (_, mode) in Mode::WORDS {
            case.check(mode);
        }
    }
    assert!(corpus.len() >= 120, "{} cases", corpus.len());
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.is_limit() && !FOUND_LATER.contains(fault)) {
        assert!(corpus.iter().any(|case| case.fault() == Some(fault)), "no case is {}", fault.label());
    }
}

#[test]
fn the_corpus_in_pieces() {
    for case in corpus() {
        let input = bytes(&case.send);
        let (whole, left) = decode(&input, Mode::Defensive);
        let mut cuts: Vec<Vec<usize>> = (0..=input.len()).map(|first| vec![first, input.len()]).collect();
        cuts.push(vec![1; input.len()]);
        for sizes in cuts {
            let (outcome, rest) = decode_cut(&input, &LIMITS, sizes.clone());
            assert_eq!(show(&outcome), show(&whole), "{} cut {sizes:?}", case.name);
            if let Ok(Some(_)) = outcome {
                assert_eq!(rest, left, "{} cut {sizes:?}", case.name);
            }
        }
    }
}

fn broken(input: &str, limits: &Limits) -> Broken {
    let mut whole = BytesMut::from(input);
    let at_once = Decoder::default().decode(&mut whole, limits, Mode::Strictest).unwrap_err();
    let (in_pieces, _) = decode_cut(input.as_bytes(), limits, vec![1; input.len()]);
    assert_eq!(format!("{at_once:?}"), format!("{:?}", in_pieces.unwrap_err()), "at once, and byte by byte");
    *at_once
}

#[test]
fn limits_are_inclusive() {
    let limits = Limits { request_line: 14, fields: 2, fields_size: 20 };
    let fits = |input: &str| {
        let whole = Decoder::default().decode(&mut BytesMut::from(input), &limits, Mode::Strictest);
        let (cut, _) = decode_cut(input.as_bytes(), &limits, vec![1; input.len()]);
        assert!(matches!(whole, Ok(Some(_))) && matches!(cut, Ok(Some(_))), "{input:?}");
    };
    fits("GET / HTTP/1.1\r\nHost: 12345678\r\nA:\r\n\r\n");
    fits("\r\nGET / HTTP/1.1\r\nHost: 123456789012\r\n\r\n");
    let fault = |input: &str| broken(input, &limits).fault;
    assert_eq!(fault("GET /a HTTP/1.1\r\n"), Fault::RequestLineTooLong);
    assert_eq!(broken(&format!("GET /{}", "a".repeat(99)), &limits).head.target(), "/aaaaaaaaa");
    assert_eq!(fault("GET / HTTP/1.1\r\nHost: 1234567890123\r\n\r\n"), Fault::FieldsTooLarge);
    assert_eq!(fault("GET / HTTP/1.1\r\nHost: 12345678\r\nA:b\r\n\r\n"), Fault::FieldsTooLarge);
    assert_eq!(fault("GET / HTTP/1.1\r\nA:\r\nB:\r\nC:\r\n\r\n"), Fault::TooManyFields);
    assert_eq!(fault("GET / HTTP/1.1\r\nA:1\r\n 2\r\n 3\r\n 4\r\n 5\r\n\r\n"), Fault::FieldsTooLarge);
}

#[test]
fn what_is_too_long_is_noticed_before_it_is_all_there() {
    let limits = Limits { request_line: 100, fields: 10, fields_size: 1000 };
    for (start, endless, fault, most) in [
        ("", "A", Fault::RequestLineTooLong, 102),
        ("", "\0", Fault::RequestLineTooLong, 102),
        ("GET /", "a", Fault::RequestLineTooLong, 102),
        ("GET / ", "\r", Fault::RequestLineTooLong, 102),
        ("GET / HTTP/1.1\r\n", "a", Fault::FieldsTooLarge, 1019),
        ("GET / HTTP/1.1\r\n", "\0", Fault::FieldsTooLarge, 1019),
        ("GET / HTTP/1.1\r\nA: ", "\r", Fault::FieldsTooLarge, 1019),
        ("GET / HTTP/1.1\r\n", "A: b\r\n", Fault::TooManyFields, 100),
        ("GET / HTTP/1.1\r\nA: b\r\n", " b\r\n", Fault::FieldsTooLarge, 1019),
    ] {
        let input = format!("{start}{}", endless.repeat(2000));
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let mut seen = 0;
        let outcome = input.bytes().find_map(|byte| {
            seen += 1;
            buffer.extend_from_slice(&[byte]);
            decoder.decode(&mut buffer, &limits, Mode::Defensive).err()
        });
        assert_eq!(outcome.unwrap().fault, fault, "{start:?} {endless:?}");
        assert!(seen <= most, "{start:?} {endless:?}: only after {seen} bytes");
    }
}

#[test]
fn the_log_sees_what_could_be_read() {
    let broken = broken("POST /upload HTTP/1.1\r\nHost: a.test\r\nBad\r\n\r\n", &LIMITS);
    assert_eq!((broken.head.method().as_str(), broken.head.target()), ("POST", "/upload"));
    assert_eq!(broken.head.get("host"), Some(&b"a.test"[..]));
    assert!(!broken.head.persists());
    assert_eq!(broken.to_string(), Fault::NoColon.to_string());
}

#[test]
fn no_value_is_shown_for_debugging() {
    let (outcome, _) = decode(b"GET / HTTP/1.1\r\nHost: a.test\r\nCookie: secret\r\n\r\n", Mode::Strictest);
    let text = format!("{:?}", outcome.unwrap().unwrap());
    assert!(text.contains("cookie") && !text.contains("secret"), "{text}");
}

#[test]
fn the_memory_of_a_head_serves_the_next_one() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(4096);
    for _ in 0..3 {
        buffer.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let at = buffer.as_ptr();
        let head = decoder.decode(&mut buffer, &LIMITS, Mode::Strictest).unwrap().unwrap();
        assert_eq!(buffer.capacity(), 0, "the head took the whole buffer");
        assert_eq!(head.version(), Version::HTTP_11);
        buffer = decoder.reclaim(head);
        assert!(buffer.is_empty() && buffer.capacity() == 4096 && buffer.as_ptr() == at);
    }
}

#[test]
fn heads_follow_each_other() {
    let mut decoder = Decoder::default();
    let mut buffer =
        BytesMut::from("GET /1 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /3");
    let mut next = || decoder.decode(&mut buffer, &LIMITS, Mode::Strictest).unwrap();
    let first = next().unwrap();
    assert_eq!((first.target(), first.len(), first.is_empty()), ("/1", 2, false));
    let second = next().unwrap();
    assert_eq!((second.target(), second.len(), second.is_empty()), ("/2", 0, true));
    assert_eq!(second.fault(), Some(Fault::NoHostInHttp10));
    assert!(next().is_none());
    assert_eq!(&buffer[..], b"GET /3");
}

#[test]
fn a_lookup_finds_every_line_of_a_name_and_no_other() {
    let lines: Vec<String> = (0..90).map(|i| format!("X-{}: {i}\r\n", i % 45)).collect();
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
    let head = decode(input.as_bytes(), Mode::Strictest).0.unwrap().unwrap();
    for i in 0..45 {
        let values: Vec<&[u8]> = head.all(&format!("x-{i}")).collect();
        assert_eq!(values, [i.to_string().as_bytes(), (i + 45).to_string().as_bytes()]);
    }
    for absent in ["", "x", "x-45", "X-1", "hos", "host ", "cookie"] {
        assert_eq!(head.get(absent), None, "{absent}");
    }
    assert_eq!(head.lines().count(), head.iter().count());
}

/// Lines that are mostly field lines.
fn lines() -> impl Strategy<Value = String> {
    let line = "([A-Za-z_ \t:-]{0,6}|Content-Length|Transfer-Encoding|Host)(: ?[a-z0-9, \r\x01]{0,8})?(\r\n|\r\n|\r\n|\n)";
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn never_panics(head in prop::sample::select(vec!["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "]), tail: Vec<u8>) {
        for (_, mode) in Mode::WORDS {
            drop(decode(&[head.as_bytes(), &tail].concat(), mode));
        }
    }

    #[test]
    fn in_pieces_or_at_once_the_same(
        start in "(\r\n)?(GET|POST|P ST) /[a-z<]{0,9} {1,2}HTTP/1.[01](\r\n|\r\n|\r\n|\n)",
        lines in lines(),
        sizes in prop::collection::vec(0..40_usize, 80),
        limits in (10..40_usize, 0..6_usize, 0..80_usize),
    ) {
        let input = format!("{start}Host: a\r\n{lines}\r\nleft");
        let limits = Limits { request_line: limits.0, fields: limits.1, fields_size: limits.2 };
        for limits in [LIMITS, limits] {
            let mut left = BytesMut::from(input.as_str());
            let whole = Decoder::default().decode(&mut left, &limits, Mode::Defensive);
            for sizes in [sizes.clone(), vec![1; input.len()]] {
                let (outcome, rest) = decode_cut(input.as_bytes(), &limits, sizes);
                if matches!(outcome, Ok(None)) {
                    continue; // not all of it was given
                }
                prop_assert_eq!(fault_or(&outcome), fault_or(&whole));
                if let (Ok(Some(_)), Ok(Some(_))) = (&outcome, &whole) {
                    prop_assert_eq!(show(&outcome), show(&whole));
                    prop_assert_eq!(&rest, &left);
                }
            }
        }
    }

    #[test]
    fn a_clean_head_round_trips(
        fields in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,40}[!-~])?"), 0..30),
        target in "/[!-\"$-~]{0,40}",
    ) {
        let lines: Vec<String> = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let input = format!("POST {target} HTTP/1.1\r\n{}Host: a\r\n\r\n", lines.concat());
        let head = decode(input.as_bytes(), Mode::Strictest).0.unwrap().unwrap();
        let got: Vec<(String, String)> =
            head.iter().map(|(n, v)| (n.to_owned(), String::from_utf8(v.to_vec()).unwrap())).collect();
        prop_assert_eq!(head.target(), target);
        prop_assert_eq!(&got[..got.len() - 1], &fields[..]);
    }

    #[test]
    fn what_is_understood_holds_nothing_dangerous(start in "[A-Z]{1,4} /[ -~]{0,5} HTTP/1.1\r\n", tail: Vec<u8>, lines in lines()) {
        let input = [start.as_bytes(), b"Host: a\r\n", lines.as_bytes(), b"X: ", &tail, b"\r\n\r\n"].concat();
        if let (Ok(Some(head)), _) = decode(&input, Mode::Defensive) {
            prop_assert!(head.target().bytes().all(|b| (b'!'..=b'~').contains(&b) && b != b'#'));
            for (name, value) in head.iter() {
                prop_assert!(!name.is_empty() && http::HeaderName::from_bytes(name.as_bytes()).is_ok());
                prop_assert!(name.bytes().all(|b| !b.is_ascii_uppercase()));
                prop_assert!(http::HeaderValue::from_bytes(value).is_ok(), "{}", value.escape_ascii());
            }
            prop_assert!(head.class() < Class::Severe);
            prop_assert!(head.class() < Class::Ambiguous || !head.persists());
        }
    }
}

fn fault_or(outcome: &Outcome) -> Result<bool, Fault> {
    outcome.as_ref().map(Option::is_some).map_err(|broken| broken.fault)
}
