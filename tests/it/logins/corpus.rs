//! Runs `tests/corpus/logins.yaml`: before an origin that gives the answer that was seen, and before a real Apache.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;

use crate::harness::log::text;
use crate::harness::names::{REQUEST_ID, field};
use crate::harness::reply::Reply;
use crate::harness::scripted::Scripted;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, apache, proxy, test_file, within};

const LINES: [&str; 4] = ["11.5", "12.4", "13.4", "14.3"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    answers: BTreeMap<String, Vec<Seen>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    #[serde(default)]
    lines: Vec<String>,
    status: u16,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    cookies: BTreeMap<String, Fate>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    challenge: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Set,
    Deleted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    form: Option<BTreeMap<String, String>>,
    #[serde(default)]
    multipart: Option<BTreeMap<String, String>>,
    #[serde(default)]
    body: String,
    #[serde(default, rename = "type")]
    kind_of_body: Option<String>,
    #[serde(default)]
    pad: usize,
    #[serde(default)]
    extra: usize,
    #[serde(default)]
    cookie: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    answer: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    user: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

fn corpus() -> Corpus {
    let text = std::fs::read_to_string(test_file("corpus/logins.yaml")).expect("the corpus");
    let corpus: Corpus = serde_norway::from_str(&text).unwrap_or_else(|error| panic!("the corpus: {error}"));
    assert!(corpus.cases.len() >= 70, "the corpus has {} cases", corpus.cases.len());
    corpus
}

const BOUNDARY: &str = "----WebKitFormBoundaryAbCdEf0123456789";

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

impl Case {
    fn lines(&self) -> Vec<&str> {
        LINES
            .into_iter()
            .filter(|line| self.lines.is_empty() || self.lines.iter().any(|own| own == line))
            .collect()
    }

    /// The body and its type.
    fn content(&self) -> (String, Option<String>) {
        let padding = "x".repeat(self.pad);
        let more = (0..self.extra).map(|number| (format!("v{number}"), "x".to_owned()));
        let first = (self.pad > 0).then(|| ("pad".to_owned(), padding));
        let padded = |fields: &BTreeMap<String, String>| -> Vec<(String, String)> {
            first.clone().into_iter().chain(more.clone()).chain(fields.clone()).collect()
        };
        let own = |usual: &str| Some(self.kind_of_body.clone().unwrap_or_else(|| usual.to_owned()));
        if let Some(fields) = &self.form {
            let pairs: Vec<_> =
                padded(fields).iter().map(|(n, v)| format!("{}={}", escape(n), escape(v))).collect();
            return (pairs.join("&"), own("application/x-www-form-urlencoded"));
        }
        if let Some(fields) = &self.multipart {
            let part = |(name, value): &(String, String)| {
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            };
            let parts: String = padded(fields).iter().map(part).collect();
            return (
                format!("{parts}--{BOUNDARY}--\r\n"),
                own(&format!("multipart/form-data; boundary={BOUNDARY}")),
            );
        }
        (
            self.body.clone(),
            (self.method != "GET").then(|| own("application/x-www-form-urlencoded")).flatten(),
        )
    }

    fn request(&self, line: &str, client: usize) -> Vec<u8> {
        let (body, kind) = self.content();
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {HOST}\r\nX-Origin-Line: {line}\r\n", self.method, self.path);
        let _ = write!(head, "X-Forwarded-For: 198.18.{}.{}\r\n", client / 250, client % 250 + 1);
        let _ = write!(
            head,
            "Accept-Encoding: gzip, deflate, br\r\nCookie: typo3nonce_ab=x; {}\r\n",
            self.cookie
        );
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if let Some(kind) = kind {
            let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        format!("{head}\r\n{body}").into_bytes()
    }
}

impl Seen {
    fn answer(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Seen\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, fate) in &self.cookies {
            let name = if name == "typo3nonce_sent" { "typo3nonce_ab" } else { name };
            let value =
                if *fate == Fate::Set { "eyJnew; path=/; httponly" } else { "deleted; Max-Age=0; path=/" };
            let _ = write!(head, "Set-Cookie: {name}={value}\r\n");
        }
        if let Some(location) = &self.location {
            let _ = write!(head, "Location: {location}\r\n");
        }
        if self.challenge {
            head.push_str("WWW-Authenticate: Basic realm=\"staging\"\r\n");
        }
        format!("{head}\r\n{}", self.body).into_bytes()
    }

    /// In what an answer differs from what was seen.
    fn differs(&self, reply: &Reply) -> Vec<String> {
        let mut faults = Vec::new();
        let cookies: BTreeMap<String, Fate> =
            reply.all("set-cookie").iter().filter_map(|line| named(line)).collect();
        if reply.status != self.status {
            faults.push(format!("the status is {}, {} was seen", reply.status, self.status));
        }
        if cookies != self.cookies {
            faults.push(format!("the cookies are {cookies:?}, {:?} were seen", self.cookies));
        }
        let location = reply.header("location").unwrap_or_default();
        if !location.starts_with(self.location.as_deref().unwrap_or_default()) {
            faults.push(format!("it leads to {location:?}, not to {:?}", self.location));
        }
        if !reply.text().starts_with(&self.body) && reply.header("content-encoding").is_none() {
            faults.push(format!("the body is {:?}", reply.text()));
        }
        faults
    }
}

/// The name and the fate of a cookie; nonces have changing names.
fn named(line: &str) -> Option<(String, Fate)> {
    let (name, value) = line.split_once('=')?;
    let fate = if value.starts_with("deleted") { Fate::Deleted } else { Fate::Set };
    let name = match name.strip_prefix("typo3nonce_") {
        Some("ab") => "typo3nonce_sent",
        Some(_) => "typo3nonce",
        None => name,
    };
    Some((name.to_owned(), fate))
}

fn site(origin: impl Into<crate::harness::proxy::Origin>) -> Ravelin {
    let methods = "methods = [\"GET\", \"HEAD\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]";
    proxy()
        .site(HOST, origin)
        .with(methods)
        .with(&format!("[[site.path]]\npath = \"/typo3\"\n{methods}"))
        .table("[login]\nuser_names = \"plain\"")
        .table("[client]\ntrusted_proxies = [\"127.0.0.0/8\"]")
        .table(super::OPEN)
        .plain_serves()
        .start()
}

/// Every case for every line of TYPO3.
fn run(site: &Ravelin, origin: Option<&Scripted>) -> Vec<(String, Vec<String>)> {
    let Corpus { answers, cases } = corpus();
    let mut asked = Vec::new();
    for case in &cases {
        for line in case.lines() {
            let seen = answers.get(&case.answer).unwrap_or_else(|| panic!("no answer {:?}", case.answer));
            let seen =
                seen.iter().find(|seen| seen.lines.is_empty() || seen.lines.iter().any(|own| own == line));
            let seen = seen.unwrap_or_else(|| panic!("no answer {:?} for {line}", case.answer));
            if let Some(origin) = origin {
                let answer = seen.answer();
                origin.answers(move |_| answer.clone());
            }
            // Each from an address of its own: who fails five times would be locked out.
            let reply = site.wire().send(case.request(line, asked.len())).reply_to(&case.method);
            let id = reply.header(REQUEST_ID).unwrap_or_default().to_owned();
            asked.push((case, line, id, seen.differs(&reply)));
        }
    }
    let log = within(Duration::from_secs(20), || Some(site.log()).filter(|lines| lines.len() >= asked.len()));
    let log = log.expect("every request is logged");
    let judge = |(case, line, id, mut faults): (&Case, &str, String, Vec<String>)| {
        let entry = log.iter().find(|entry| text(entry, field::ID) == id).cloned().unwrap_or_default();
        // A rule of its own may refuse a login in the query of a GET: then nothing is tried.
        if text(&entry, "reason") == "login-in-query" {
            faults.clear();
        }
        let said = (text(&entry, "login"), text(&entry, "login_verdict"));
        if said != (case.kind.as_str(), case.verdict.as_str()) {
            faults.push(format!("the log says {said:?}, not {:?}", (&case.kind, &case.verdict)));
        }
        if case.user.as_ref().is_some_and(|user| text(&entry, "login_user") != user) {
            faults.push(format!("the log names {:?}", text(&entry, "login_user")));
        }
        if entry.to_string().contains("wrong\"") || entry.to_string().contains("correct horse") {
            faults.push(format!("a password is in the log: {entry}"));
        }
        (format!("{} ({line})", case.name), faults)
    };
    asked.into_iter().map(judge).collect()
}

#[test]
fn every_answer_that_was_seen_is_judged_rightly() {
    let origin = Scripted::start();
    let site = site(origin.url().as_str());
    let mut results = Results::of("logins");
    for (name, faults) in run(&site, Some(&origin)) {
        results.add(&name, &faults);
    }
    results.hold();
    assert!(!site.stderr().contains("correct horse"), "a password is in the diagnostics");
}

#[test]
fn a_real_apache_answers_as_it_was_seen_and_is_judged_rightly() {
    let site = site(apache());
    let mut results = Results::of("logins before Apache");
    for (name, faults) in run(&site, None) {
        results.add(&name, &faults);
    }
    results.hold();
}
