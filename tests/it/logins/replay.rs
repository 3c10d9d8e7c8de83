//! Replays what a real browser and real TYPO3 said to each other through a real Ravelin, answer for answer.
//!
//! The recordings are not part of the repository: `RAVELIN_TRAFFIC` names their folder, or they lie in
//! `../shared/facts/traffic` beside the project.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::log::text;
use crate::harness::names::{REQUEST_ID, field};
use crate::harness::reply::Reply;
use crate::harness::scripted::Scripted;
use crate::harness::{Ravelin, Wire, proxy, within};

/// The recorded exchanges of one line of TYPO3, in the order of time; none where they are absent.
fn recorded(line: u32) -> Option<Vec<Value>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/facts/traffic");
    let folder = std::env::var_os("RAVELIN_TRAFFIC").map_or(beside, PathBuf::from);
    let file = folder.join(format!("typo3-{line}.jsonl"));
    let Ok(all) = std::fs::read_to_string(&file) else {
        println!("NOT REPLAYED: no recorded traffic at {}; RAVELIN_TRAFFIC names its folder", file.display());
        return None;
    };
    let exchanges: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(exchanges.len() > 100, "{} holds {} exchanges", file.display(), exchanges.len());
    Some(exchanges)
}

/// A Ravelin before an origin that answers what was recorded.
struct Stage {
    site: Ravelin,
    origin: Scripted,
    wire: Wire,
}

impl Stage {
    fn open(line: u32) -> Self {
        Self::guarded(line, super::OPEN)
    }

    fn guarded(line: u32, tables: &str) -> Self {
        let origin = Scripted::start();
        let host = format!("v{line}.example.test");
        let site = proxy().site(&host, origin.url().as_str()).plain_serves();
        let site = site.table("[client]\ntrusted_proxies = [\"127.0.0.0/8\"]").table(tables).start();
        let wire = site.wire();
        Self { site, origin, wire }
    }

    /// One exchange, as if the client had this address.
    fn exchange(&mut self, recorded: &Value, client: &str) -> Reply {
        let answer = recorded.clone();
        self.origin.answers(move |request| answer_of(&answer, request));
        self.wire.send(request_of(recorded, client));
        let reply = self.wire.reply_to(text(recorded, "method"));
        if reply.header("connection").is_some_and(|value| value.contains("close")) {
            self.wire = self.site.wire();
        }
        reply
    }

    /// What is wrong with how an exchange passed; nothing if it passed untouched.
    fn touched(&self, recorded: &Value, reply: &Reply) -> Vec<String> {
        let mut faults = Vec::new();
        let label = format!("{} {} {}", recorded["n"], text(recorded, "label"), text(recorded, "target"));
        if Some(u64::from(reply.status)) != recorded["status"].as_u64() {
            faults.push(format!("{label}: {} became {}", recorded["status"], reply.status));
        }
        for name in ["set-cookie", "location", "content-type"] {
            let sent: Vec<_> =
                fields(&recorded["sh"]).into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).collect();
            let came = reply.all(name);
            if sent.len() != came.len()
                || sent.iter().zip(&came).any(|((_, sent), came)| !came.starts_with(sent.as_str()))
            {
                faults.push(format!("{label}: {name} {sent:?} became {came:?}"));
            }
        }
        let request = self.origin.last();
        let line = format!("{} {} HTTP/1.1\r\n", text(recorded, "method"), text(recorded, "target"));
        if !request.starts_with(line.as_bytes()) || !request.ends_with(&body_of(recorded)) {
            faults.push(format!("{label}: the origin got something else"));
        }
        faults
    }

    /// What the log says of logins, by request id, once as many lines are written.
    fn verdicts(&self, count: usize) -> HashMap<String, (String, String)> {
        let lines =
            within(Duration::from_secs(20), || Some(self.site.log()).filter(|lines| lines.len() >= count));
        let lines =
            lines.unwrap_or_else(|| panic!("{count} lines of log, there are {}", self.site.log().len()));
        let word = |line: &Value, name| text(line, name).to_owned();
        lines
            .iter()
            .map(|line| (word(line, field::ID), (word(line, "login"), word(line, "login_verdict"))))
            .collect()
    }

    /// Bans that were made.
    fn bans(&self) -> usize {
        self.site.stderr().lines().filter(|line| line.contains("event=\"ban-made\"")).count()
    }
}

fn fields(list: &Value) -> Vec<(String, String)> {
    let pair = |pair: &Value| {
        (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].as_str().unwrap_or_default().to_owned())
    };
    list.as_array().into_iter().flatten().map(pair).collect()
}

/// The recorded body; what was cut off is made up of zeros.
fn body_of(recorded: &Value) -> Vec<u8> {
    let mut body = decode(text(recorded, "body"));
    let length = recorded["body_len"].as_u64().unwrap_or_default();
    body.resize(usize::try_from(length).expect("a length"), 0);
    body
}

fn decode(base64: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for value in base64.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte)) {
        bits = bits << 6 | u32::try_from(value).expect("six bits");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).expect("a byte"));
        }
    }
    out
}

fn request_of(recorded: &Value, client: &str) -> Vec<u8> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nX-Forwarded-For: {client}\r\n",
        text(recorded, "method"),
        text(recorded, "target")
    );
    for (name, value) in fields(&recorded["rh"]) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", &body_of(recorded)].concat()
}

/// The recorded answer. Its body was not recorded but for the beginning of JSON; Apache codes it where it may.
fn answer_of(recorded: &Value, request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request).to_ascii_lowercase();
    let beginning = text(recorded, "resp_head").as_bytes().to_vec();
    let uncoded = request.contains("\r\naccept-encoding: identity\r\n");
    let coded = fields(&recorded["sh"]).iter().any(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let length = usize::try_from(recorded["resp_len"].as_u64().unwrap_or_default()).expect("a length");
    let mut body = if coded && !uncoded { vec![0x1f; length] } else { beginning };
    if body.is_empty() {
        body = vec![b'x'; length];
    }
    let status = recorded["status"].as_u64().expect("a status");
    let bodiless = matches!(status, 204 | 304);
    let mut head = format!("HTTP/1.1 {status} Recorded\r\n");
    for (name, value) in fields(&recorded["sh"]) {
        let lower = name.to_ascii_lowercase();
        let ours =
            ["transfer-encoding", "content-length", "connection", "keep-alive"].contains(&lower.as_str());
        if !(ours || lower == "content-encoding" && uncoded) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    if !bodiless {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", if bodiless { &[] } else { body.as_slice() }].concat()
}

/// What the log must say of an exchange with this label.
fn expected(recorded: &Value) -> (&'static str, &'static str) {
    let label = text(recorded, "label");
    let kind = |other| if label.ends_with("/ajax-relogin") { "relogin" } else { other };
    match label.split('/').next().unwrap_or_default() {
        "login-fail" if label.ends_with("-core-limiter-403") => ("backend", "locked-by-core"),
        "login-fail" => (kind("backend"), "failure"),
        "login-ok" => (kind("backend"), "success"),
        "login-neutral" => ("backend", "neutral"),
        "mfa-fail" => ("mfa", "failure"),
        "mfa-ok" => ("mfa", "success"),
        "sudo-fail" => ("sudo", "failure"),
        "sudo-ok" => ("sudo", "success"),
        "felogin-fail" => ("frontend", "failure"),
        "felogin-ok" => ("frontend", "success"),
        "installtool-fail" => ("install-tool", "failure"),
        "installtool-ok" => ("install-tool", "success"),
        // Whether the address exists is never told: asking for a mail is what counts.
        "benign" if text(recorded, "target").contains("/password-reset/initiate-reset") => {
            ("password-reset", "failure")
        }
        "benign" => ("", ""),
        other => panic!("an unknown label: {other}"),
    }
}

fn every_verdict_equals_its_label(line: u32) {
    let Some(exchanges) = recorded(line) else { return };
    let mut stage = Stage::open(line);
    let (mut ids, mut faults) = (Vec::new(), Vec::new());
    for (index, recorded) in exchanges.iter().enumerate() {
        // Each from an address of its own: who fails five times would be locked out.
        let reply = stage.exchange(recorded, &format!("198.18.{}.{}", index / 250, index % 250 + 1));
        faults.extend(stage.touched(recorded, &reply));
        ids.push(reply.header(REQUEST_ID).unwrap_or_default().to_owned());
    }
    let verdicts = stage.verdicts(exchanges.len());
    let mut judged = 0;
    for (recorded, id) in exchanges.iter().zip(&ids) {
        let (kind, verdict) = expected(recorded);
        judged += usize::from(!kind.is_empty());
        let said = verdicts.get(id).cloned().unwrap_or_default();
        if said != (kind.to_owned(), verdict.to_owned()) {
            faults.push(format!(
                "{} {}: {kind} {verdict} expected, the log says {said:?}",
                recorded["n"],
                text(recorded, "label")
            ));
        }
    }
    println!("TYPO3 {line}: {} exchanges replayed, {judged} of them tries to log in", exchanges.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    let counted = stage.site.counted(&["ravelin_logins_total"]);
    assert!(
        (counted - f64::from(u32::try_from(judged).unwrap())).abs() < 0.5,
        "{counted} counted, {judged} judged"
    );
}

#[test]
fn every_recorded_verdict_of_11_equals_its_label() {
    every_verdict_equals_its_label(11);
}

#[test]
fn every_recorded_verdict_of_13_equals_its_label() {
    every_verdict_equals_its_label(13);
}

#[test]
fn an_editors_day_alone_never_bans() {
    for line in [11, 13] {
        let Some(exchanges) = recorded(line) else { return };
        let mut stage = Stage::open(line);
        let benign: Vec<_> = exchanges.iter().filter(|e| text(e, "label").starts_with("benign/")).collect();
        let mut faults = Vec::new();
        for recorded in &benign {
            let reply = stage.exchange(recorded, "198.18.0.1");
            faults.extend(stage.touched(recorded, &reply));
        }
        // 129 static files in one second, which is what a real editor's browser asked for at most.
        let fixed: Vec<_> = benign.iter().filter(|e| e["static"] == true).collect();
        for recorded in fixed.iter().cycle().take(129) {
            let reply = stage.exchange(recorded, "198.18.0.1");
            faults.extend(stage.touched(recorded, &reply));
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        stage.verdicts(benign.len() + 129);
        assert_eq!(stage.bans(), 0, "TYPO3 {line}: {}", stage.site.stderr());
    }
}

#[test]
fn four_recorded_failures_of_one_client_make_a_ban() {
    let Some(exchanges) = recorded(13) else { return };
    let mut stage = Stage::open(13);
    let failed: Vec<_> =
        exchanges.iter().filter(|e| text(e, "label") == "login-fail/backend").take(4).collect();
    for (index, recorded) in failed.iter().enumerate() {
        assert_eq!(stage.bans(), 0, "after {index} failures");
        stage.exchange(recorded, "198.18.0.1");
    }
    let banned = within(Duration::from_secs(5), || (stage.bans() == 1).then_some(()));
    assert!(banned.is_some(), "{}", stage.site.stderr());
}

#[test]
fn the_install_tool_opens_after_the_recorded_second_factor_and_not_before() {
    for line in [11, 13] {
        let Some(exchanges) = recorded(line) else { return };
        let mut stage = Stage::guarded(line, "");
        let label = |e: &Value| text(e, "label").to_owned();
        let begin =
            exchanges.iter().position(|e| label(e) == "login-ok/backend-mfa-step1").expect("recorded");
        let day: Vec<_> = exchanges[begin..]
            .iter()
            .filter(|e| e["static"] != true)
            .take_while(|e| label(e).contains("mfa"))
            .collect();
        let factor = day.iter().position(|e| label(e) == "mfa-ok").expect("recorded");
        let main = |e: &Value| text(e, "target").starts_with("/typo3/main") && e["status"] == 200;
        let work = factor + day[factor..].iter().position(|e| main(e)).expect("recorded");
        for (index, recorded) in day.iter().enumerate() {
            stage.exchange(recorded, "198.18.0.1");
            let host = format!("v{line}.example.test");
            let tool =
                format!("GET /typo3/install.php HTTP/1.1\nHost: {host}\nX-Forwarded-For: 198.18.0.1\n\n");
            let status = stage.site.wire().say(&tool).reply().status;
            assert_eq!(status != 404, index >= work, "TYPO3 {line}, after {}: {status}", recorded["n"]);
        }
    }
}
