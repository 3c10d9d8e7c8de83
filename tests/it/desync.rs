//! Where does a message end? Our own cases (`tests/corpus/framing.yaml`), the guardian's and gunicorn's, each
//! against the real binary, byte for byte, plain and over TLS; the judge of what reaches the origin is not ours.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;

use crate::harness::curl::Over;
use crate::harness::front::{Front, Outcome, Shot, at_once, refusal_faults, volley};
use crate::harness::log::text;
use crate::harness::names::{REQUEST_ID, field};
use crate::harness::reply::Reply;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Wire, outside, proxy, test_file, within};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    send: String,
    status: Vec<u16>,
    #[serde(default = "one")]
    messages: usize,
    forwarded: Option<usize>,
    body: Option<String>,
    desync: Option<String>,
    #[serde(default)]
    later: String,
    #[serde(default)]
    begun: bool,
    #[serde(default)]
    stays: bool,
}

fn one() -> usize {
    1
}

/// The bytes of a corpus line: `<<300 x>>` is three hundred times `x`, everything else a byte each.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        let (inner, after) = after.split_once(">>").expect("<<COUNT TEXT>> is closed");
        let (count, text) = inner.split_once(' ').expect("<<COUNT TEXT>>");
        out.extend(latin(before));
        out.extend(latin(text).repeat(count.parse().expect("a count")));
        rest = after;
    }
    out.extend(latin(rest));
    out
}

fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("the corpus is bytes")).collect()
}

/// Everything that is wrong with what became of a case.
fn faults(front: &Front, case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut faults = outcome.damage.clone();
    let status = outcome.status();
    if !case.status.contains(&status) {
        faults.push(format!("answered {status}, not one of {:?}", case.status));
    }
    let refused = status >= 400 || status == 0;
    if refused && !case.stays && !outcome.closed {
        faults.push("the connection is not closed after the refusal".to_owned());
    }
    if refused && !case.begun && !outcome.cut.is_empty() {
        faults.push("the origin saw the beginning of what was refused".to_owned());
    }
    if outcome.hanging > 0 {
        faults.push("the origin still waits for the end of a request".to_owned());
    }
    let forwarded = case.forwarded.unwrap_or(if refused { 0 } else { case.messages });
    // What waits behind a refusal, or behind an answer that closes, need not be answered.
    let fewer = case.stays && outcome.forwarded.len() < forwarded.max(case.messages);
    if outcome.forwarded.len() != forwarded && !fewer {
        faults.push(format!("{} requests reached the origin, not {forwarded}", outcome.forwarded.len()));
    }
    if let (Some(body), Some(request)) = (&case.body, outcome.requests().first())
        && request.body != latin(body)
    {
        faults.push(format!("the origin got the body {:?}", String::from_utf8_lossy(&request.body)));
    }
    for reply in outcome.answers.iter().filter(|reply| reply.status >= 400) {
        faults.extend(
            refusal_faults(&front.site, reply).into_iter().map(|fault| format!("{}: {fault}", reply.status)),
        );
        faults.extend(case.desync.as_ref().and_then(|reason| misgraded(front, reply, reason)));
    }
    for request in outcome.requests() {
        if request.all("x-forwarded-for") != ["127.0.0.1"] {
            faults.push(format!("the origin saw X-Forwarded-For {:?}", request.all("x-forwarded-for")));
        }
    }
    faults
}

/// What is wrong with the grade of a refused message in the access log.
fn misgraded(front: &Front, reply: &Reply, reason: &str) -> Option<String> {
    let id = reply.header(REQUEST_ID)?;
    let line = front.site.log().into_iter().find(|line| text(line, field::ID) == id)?;
    let fine = text(&line, "desync") == "severe" && text(&line, "desync_reason") == reason;
    (!fine).then(|| format!("not graded severe for {reason}: {line}"))
}

fn corpus() -> Vec<Case> {
    let text = std::fs::read_to_string(test_file("corpus/framing.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

/// Plays one case and says what is wrong with what became of it.
fn play(front: &Front, over: Over, case: &Case) -> Vec<String> {
    let shot = Shot { bytes: bytes(&case.send), messages: case.messages, patience: Duration::from_secs(3) };
    faults(front, case, &front.shoot_in_two(over, &shot, &bytes(&case.later)))
}

fn hold(name: &'static str, cases: &[Case], found: Vec<Vec<String>>) {
    let mut results = Results::of(name);
    for (case, mut faults) in cases.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        results.add(&case.name, &faults);
    }
    results.hold();
}

#[test]
fn framing_is_clear_or_refused() {
    let cases = corpus();
    assert!(cases.len() >= 120, "the corpus has {} cases", cases.len());
    let found = volley(&cases, play);
    hold("framing", &cases, found);
}

#[test]
fn what_has_no_clear_reading_is_refused_in_every_mode_and_counted() {
    let cases: Vec<Case> = corpus().into_iter().filter(|case| case.desync.is_some()).collect();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for mode in ["defensive", "monitor"] {
        let stage = || Front::with(&format!("[limits]\ndesync_mitigation = \"{mode}\""));
        let found = at_once(&cases, stage, |front, case| {
            let mut faults = play(front, Over::Plain, case);
            let reason = case.desync.as_deref().unwrap_or_default();
            let label = format!("reason=\"{reason}\"");
            let counted = ["ravelin_desync_requests_total", "class=\"severe\"", &label];
            if front.site.counted(&counted) < 1.0 {
                faults.push(format!("not counted as {reason}"));
            }
            faults
        });
        hold(mode, &cases, found);
    }
}

/// An origin may answer before it has the whole request; what then breaks is still the client's, and graded.
#[test]
fn chunks_that_break_under_an_early_answer_end_both_connections_and_are_graded() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let origin = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("Ravelin connects");
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.ends_with(b"\r\nabc\r\n") && !seen.ends_with(b"\r\nabc") {
            let count = socket.read(&mut buffer).expect("a request");
            seen.extend(&buffer[..count]);
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").expect("half an answer");
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        rest
    });
    let site = proxy().site(HOST, url.as_str()).plain_serves().start();
    let mut wire = site.wire();
    wire.say(&format!("POST /early HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\n\n3\nabc\n"));
    let mut got = Vec::new();
    within(Duration::from_secs(5), || {
        got.extend(wire.whatever(Duration::from_millis(20)).0);
        got.ends_with(b"hello").then_some(())
    })
    .expect("the beginning of the answer");
    wire.send("0x3\r\nabc\r\n0\r\n\r\n").until_closed(Duration::from_secs(5));
    let rest = origin.join().expect("the origin ends");
    assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "the request has no end: {rest:?}");
    let line = site.logged("/early");
    for (name, value) in
        [("desync", "severe"), ("desync_reason", "bad_chunk_size"), (field::ABORTED, "client")]
    {
        assert_eq!(text(&line, name), value, "{line}");
    }
}

/// A case of somebody else's.
struct Foreign {
    name: String,
    /// What its authors say of it: a guardian's tier, or `valid` and `invalid`.
    tier: String,
    shot: Shot,
}

/// What became of a case of somebody else's.
#[derive(Default)]
struct Fate {
    damage: Vec<String>,
    unhardened: Vec<String>,
    /// How many of the two connections, plain and TLS, brought it to the origin.
    forwarded: usize,
    /// How many of them were neither answered with a refusal nor closed.
    kept: usize,
}

/// Plays the cases plain and over TLS; what became of each.
fn fates(cases: &[Foreign]) -> Vec<Fate> {
    let all: Vec<Mutex<Fate>> = cases.iter().map(|_| Mutex::default()).collect();
    let numbered: Vec<(&Foreign, &Mutex<Fate>)> = cases.iter().zip(&all).collect();
    volley(&numbered, |front, over, (case, fate)| {
        let outcome = front.shoot(over, &case.shot);
        let mut fate = fate.lock().expect("no thread panics here");
        let refusal = outcome.answers.iter().find(|reply| reply.status >= 400);
        let unhardened = refusal.map(|reply| refusal_faults(&front.site, reply)).unwrap_or_default();
        if !unhardened.is_empty() {
            fate.unhardened.push(format!("{over:?}: {}", unhardened.join("; ")));
        }
        fate.damage.extend(outcome.damage.into_iter().map(|damage| format!("{over:?}: {damage}")));
        fate.forwarded += usize::from(!outcome.forwarded.is_empty());
        fate.kept += usize::from(refusal.is_none() && !outcome.closed);
        Vec::new()
    });
    drop(numbered);
    all.into_iter().map(|fate| fate.into_inner().expect("no thread panics here")).collect()
}

/// What holds for every corpus: no damage, and every refusal is hardened and logged.
fn common(results: &mut Results, cases: &[Foreign], fates: &[Fate]) {
    let name = |case: &Foreign, fault: &String| format!("{}: {fault}", case.name);
    let of = |faults: fn(&Fate) -> &Vec<String>| -> Vec<String> {
        cases
            .iter()
            .zip(fates)
            .flat_map(|(case, fate)| faults(fate).iter().map(move |f| name(case, f)))
            .collect()
    };
    results.add("dirty, split, bad host and poisoned are nought", &of(|fate| &fate.damage));
    results.add("every refusal is hardened and logged", &of(|fate| &fate.unhardened));
    for tier in ["Compliant", "Acceptable", "Ambiguous", "Severe", "valid", "invalid"] {
        let ours = || cases.iter().zip(fates).filter(|(case, _)| case.tier == tier);
        if ours().count() > 0 {
            let passed = ours().filter(|(_, fate)| fate.forwarded == 2).count();
            println!("{tier}: {passed} of {} reach the origin", ours().count());
        }
    }
}

#[derive(Deserialize)]
struct GuardianCase {
    name: String,
    uri: Option<String>,
    method: Option<String>,
    version: Option<String>,
    headers: Option<Vec<GuardianField>>,
    expected: GuardianVerdict,
}

#[derive(Deserialize)]
struct GuardianField {
    name: Option<serde_norway::Value>,
    value: Option<serde_norway::Value>,
}

#[derive(Deserialize)]
struct GuardianVerdict {
    tier: String,
}

impl GuardianCase {
    /// The case as bytes. Its authors give no body and mostly no Host: both are added, so that what is refused is
    /// refused for what the case is about.
    fn shot(&self) -> Shot {
        let text = |value: &Option<serde_norway::Value>| match value {
            Some(serde_norway::Value::String(text)) => text.clone(),
            Some(serde_norway::Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let fields: Vec<(String, String)> =
            self.headers.iter().flatten().map(|field| (text(&field.name), text(&field.value))).collect();
        let start = [&self.method, &self.uri, &self.version].map(|part| part.clone().unwrap_or_default());
        let mut head = start.join(" ").trim_end_matches(' ').to_owned() + "\r\n";
        if self.version.as_ref().is_some_and(|version| version.ends_with(' ')) {
            head = start.join(" ") + "\r\n";
        }
        if !fields.iter().any(|(name, _)| name.trim().eq_ignore_ascii_case("host")) {
            let _ = write!(head, "Host: {HOST}\r\n");
        }
        for (name, value) in &fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut bytes =
            if head.chars().all(|c| u32::from(c) < 256) { latin(&head) } else { head.clone().into_bytes() };
        let values = |wanted: &str| {
            let wanted = wanted.to_owned();
            fields
                .iter()
                .filter(move |(name, _)| name.trim().eq_ignore_ascii_case(&wanted))
                .map(|(_, value)| value)
        };
        if values("transfer-encoding").any(|value| value.contains("chunked")) {
            bytes.extend(b"0\r\n\r\n");
        } else if let Some(length) =
            values("content-length").find_map(|value| value.trim().parse::<usize>().ok())
        {
            bytes.extend(b"x".repeat(length.min(5_000_000)));
        }
        Shot { bytes, messages: 1, patience: Duration::from_millis(800) }
    }
}

#[test]
fn the_guardians_cases_do_no_damage_and_its_severe_ones_end_here() {
    let Some(files) = outside::corpus("guardian", ".yaml") else { return };
    let mut cases = Vec::new();
    for (file, text) in files {
        let text = String::from_utf8(text).expect("YAML is text");
        let all: Vec<GuardianCase> = serde_norway::from_str(&text)
            .unwrap_or_else(|error| panic!("{file} is not what we know: {error}"));
        for case in all {
            let name = format!("{file}: {}", case.name);
            cases.push(Foreign { name, tier: case.expected.tier.clone(), shot: case.shot() });
        }
    }
    let compliant = cases.iter().filter(|case| case.tier == "Compliant").count();
    assert_eq!((cases.len(), compliant), (159, 28), "the guardian's package has other cases now");
    let fates = fates(&cases);
    let mut results = Results::of("guardian");
    common(&mut results, &cases, &fates);
    let tier = |tier: &'static str| cases.iter().zip(&fates).filter(move |(case, _)| case.tier == tier);
    let passed = |(case, fate): (&Foreign, &Fate), what: usize| {
        (fate.forwarded > 0 || what > 0)
            .then(|| format!("{}: {} forwarded, {what} kept", case.name, fate.forwarded))
    };
    let severe: Vec<String> =
        tier("Severe").filter_map(|(case, fate)| passed((case, fate), fate.kept)).collect();
    results.add("every Severe one is refused or closed", &severe);
    let refused: Vec<String> =
        tier("Compliant").filter(|(_, fate)| fate.forwarded < 2).map(|(case, _)| case.name.clone()).collect();
    println!("Compliant, but refused: {refused:#?}");
    let few = compliant - refused.len() < 17;
    results.add("17 of the 28 Compliant ones reach the origin", if few { &refused } else { &[] });
    results.hold();
}

/// gunicorn's notation: lines are joined, then `\r\n`, `\n`, `\t`, `\0` and `\xNN` stand for their bytes.
fn gunicorn(file: &[u8]) -> Vec<u8> {
    let joined: Vec<u8> = file.iter().copied().filter(|byte| *byte != b'\n').collect();
    let mut out = Vec::new();
    let mut rest = joined.as_slice();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (code, after) = rest.split_first().expect("an escape");
        rest = after;
        out.push(match code {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(&String::from_utf8_lossy(digits), 16).expect("two hexadecimal digits")
            }
            other => panic!("gunicorn's files have an escape that we do not know: {other}"),
        });
    }
    out
}

/// Adds the Host that gunicorn's files mostly lack, so that what is refused is refused for what the case is about.
fn with_host(bytes: Vec<u8>) -> Vec<u8> {
    let end = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let head = end(b"\r\n\r\n").unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let Some(line) = end(b"\r\n").filter(|_| !text.contains("\nhost:")) else { return bytes };
    let mut out = bytes[..line + 2].to_vec();
    out.extend(format!("Host: {HOST}\r\n").bytes());
    out.extend(&bytes[line + 2..]);
    out
}

/// Invalid to gunicorn alone: by the limits that its tests set, or by what it does with a field where we drop it.
const INVALID_BY_CHOICE: [&str; 13] = [
    "invalid-006.http",        // a request line of 4,094 bytes is its limit, 16 KiB ours
    "invalid-007.http",        // 8 KiB a field is its limit, 64 KiB for all of them ours
    "invalid-008.http",        // the same
    "invalid-010.http",        // 10 bytes a field
    "invalid-017.http",        // 8 KiB a field
    "invalid-019.http",        // X-Forwarded-Proto and X-Forwarded-Ssl differ: both are dropped
    "invalid-041.http",        // two Content-Types: no matter of framing
    "invalid-chunked_07.http", // Transfer_Encoding, which is dropped
    "invalid-limit_header_default_01.http", // the limit of a field
    "invalid-rfc9112_target_non_ascii_02.http", // UTF-8, which curl sends too: escaped before an origin sees it
    "invalid-rfc9110_trailer_forbidden_cl_01.http", // trailers, which end here
    "invalid-rfc9110_trailer_forbidden_host_01.http",
    "invalid-rfc9110_trailer_forbidden_te_01.http",
];

#[test]
fn gunicorns_requests_do_no_damage_and_its_invalid_ones_end_here() {
    let Some(files) = outside::corpus("gunicorn", ".http") else { return };
    let cases: Vec<Foreign> = files
        .into_iter()
        .map(|(name, file)| {
            let bytes = with_host(gunicorn(&file));
            let starts = String::from_utf8_lossy(&bytes).matches(" HTTP/1.").count().max(1);
            let tier = if name.starts_with("valid") { "valid" } else { "invalid" }.to_owned();
            Foreign {
                name,
                tier,
                shot: Shot { bytes, messages: starts, patience: Duration::from_millis(800) },
            }
        })
        .collect();
    assert!(cases.len() > 100, "{} cases", cases.len());
    let fates = fates(&cases);
    let mut results = Results::of("gunicorn");
    common(&mut results, &cases, &fates);
    let invalid: Vec<String> = cases
        .iter()
        .zip(&fates)
        .filter(|(case, fate)| case.tier == "invalid" && fate.forwarded > 0)
        .map(|(case, _)| case.name.clone())
        .filter(|name| !INVALID_BY_CHOICE.contains(&name.as_str()))
        .collect();
    results.add("every invalid one is refused", &invalid);
    let refused: Vec<String> = cases
        .iter()
        .zip(&fates)
        .filter(|(case, fate)| case.tier == "valid" && fate.forwarded < 2)
        .map(|(case, _)| case.name.clone())
        .collect();
    println!("valid, but refused: {refused:#?}");
    let few = refused.len() > 30;
    results.add("most valid ones reach the origin", if few { &refused } else { &[] });
    results.hold();
}

/// The measure has teeth: what no front may send is sent to the origin as if one had.
#[test]
fn desync_measure_sees_every_damage() {
    let front = Front::open();
    let port = front.origin.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    for (sent, damage) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "bad host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "bad host"),
        ("GET / HTTP/1.1\r\nX: y\r\n\r\n", "bad host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "dirty"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", "dirty"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n", "dirty"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "dirty"),
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "split"),
        ("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "split"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "poisoned"),
    ] {
        front.origin.forget();
        let mut wire = Wire::plain(port);
        wire.send(sent).whatever(Duration::from_millis(100));
        drop(wire);
        let shot = Shot { bytes: sent.into(), messages: 1, patience: Duration::from_secs(1) };
        let mut outcome = Outcome::default();
        front.inspect(&shot, &mut outcome);
        // Nobody asked for /after: that is what a poisoned connection looks like.
        let found = outcome.damage.iter().any(|found| found.starts_with(damage));
        assert!(found, "{damage} in {sent:?}: {:?}", outcome.damage);
        let clean = outcome.damage.iter().all(|found| found.starts_with("poisoned"));
        assert_eq!(clean, damage == "poisoned", "{sent:?}: {:?}", outcome.damage);
    }
}
