//! Runs the YAML corpora of this room, and what is said about slips in a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::observatory::{Cors, Redirect, Scan, Scripts, score};
use super::{Applied, Facts, OriginAuthority, Policy, Raw, apply};
use crate::config::complaint::{Complaints, Source};
use crate::config::section::{Reading, Section};
use crate::fields::Fields;

/// Reads a layer without its other keys.
pub(super) fn raw(name: &str, toml: &str) -> (Raw, Complaints) {
    let source = Arc::new(Source { name: name.to_owned(), text: toml.to_owned() });
    let document = DeTable::parse(&source.text).unwrap();
    let mut reading = Reading { complaints: Complaints::default(), env: &|_| None, base: PathBuf::new() };
    let raw = Raw::read(&mut Section::root(document.get_ref(), &source), &mut reading);
    (raw, reading.complaints)
}

pub(super) fn policy(toml: &str) -> Policy {
    let (raw, mut complaints) = raw("case", toml);
    let policy = raw.compile(&mut complaints);
    assert!(!complaints.has_errors(), "{complaints}");
    policy
}

pub(super) fn headers(rule: &str) -> Policy {
    policy(&format!("[headers]\n{rule}\n"))
}

pub(super) fn facts(status: u16) -> Facts<'static> {
    Facts {
        status: StatusCode::from_u16(status).unwrap(),
        secure: true,
        dev_host: false,
        host: "www.example.org",
        port: None,
        origin_authorities: &[],
    }
}

pub(super) fn fields<S: AsRef<str>>(lines: &[S]) -> Fields {
    let line = |line: &S| {
        let (name, value) = line.as_ref().split_once(':').unwrap();
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value.trim()).unwrap())
    };
    lines.iter().map(line).collect()
}

fn corpus<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/corpus/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!cases.is_empty());
    cases
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderCase {
    name: String,
    #[serde(default)]
    rule: String,
    status: Option<u16>,
    origin: Vec<String>,
    leaves: Vec<String>,
    #[serde(default)]
    conflict: Vec<String>,
}

impl HeaderCase {
    fn run(&self) {
        let mut sent = fields(&self.origin);
        let Applied { conflicts } =
            apply(&headers(&self.rule), &facts(self.status.unwrap_or(200)), &mut sent);
        assert_eq!(sent, fields(&self.leaves), "{}", self.name);
        let conflicts: Vec<&str> = conflicts.iter().map(|conflict| conflict.name.as_str()).collect();
        assert_eq!(conflicts, self.conflict, "{}: conflicts", self.name);
    }
}

#[test]
fn header_operations() {
    corpus::<HeaderCase>("header-ops").iter().for_each(HeaderCase::run);
}

#[test]
fn singletons() {
    corpus::<HeaderCase>("singletons").iter().for_each(HeaderCase::run);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CookieCase {
    name: String,
    secure: Option<bool>,
    #[serde(default)]
    strict: bool,
    sent: String,
    leaves: Option<String>,
}

#[test]
fn cookies() {
    for case in corpus::<CookieCase>("cookies") {
        let same_site = if case.strict { "lax" } else { "off" };
        let policy = policy(&format!(
            "[cookies]\nsecure = true\nhttp_only = [\"PHPSESSID\", \"fe_typo_user\", \"be_typo_user\"]\n\
             same_site = \"{same_site}\"\n"
        ));
        let mut sent: Fields =
            [(http::header::SET_COOKIE, HeaderValue::from_str(&case.sent).unwrap())].into_iter().collect();
        apply(&policy, &Facts { secure: case.secure.unwrap_or(true), ..facts(200) }, &mut sent);
        let leaves = sent.get(&http::header::SET_COOKIE).unwrap().to_str().unwrap();
        assert_eq!(leaves, case.leaves.as_ref().unwrap_or(&case.sent), "{}", case.name);
        assert_eq!(sent.len(), 1, "{}", case.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LocationCase {
    name: String,
    public: Option<String>,
    origin: Option<String>,
    sent: String,
    becomes: Option<String>,
}

#[test]
fn location() {
    for case in corpus::<LocationCase>("location") {
        let public =
            case.public.as_deref().unwrap_or("https://www.example.org").parse::<http::Uri>().unwrap();
        let origin =
            case.origin.as_deref().unwrap_or("127.0.0.1:8081").parse::<http::uri::Authority>().unwrap();
        let origins = [OriginAuthority { host: origin.host().into(), port: origin.port_u16().unwrap() }];
        let facts = Facts {
            secure: public.scheme_str() == Some("https"),
            host: public.host().unwrap(),
            port: public.port_u16(),
            origin_authorities: &origins,
            ..facts(301)
        };
        for name in [http::header::LOCATION, http::header::CONTENT_LOCATION] {
            let mut sent: Fields =
                [(name.clone(), HeaderValue::from_str(&case.sent).unwrap())].into_iter().collect();
            apply(&policy(""), &facts, &mut sent);
            let becomes = sent.get(&name).unwrap().to_str().unwrap();
            assert_eq!(becomes, case.becomes.as_ref().unwrap_or(&case.sent), "{}", case.name);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreCase {
    name: String,
    #[serde(default)]
    base: bool,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    twice: Vec<String>,
    scripts: Option<String>,
    score: u32,
    grade: String,
}

const BASE: [&str; 4] = [
    "X-Frame-Options: SAMEORIGIN",
    "Strict-Transport-Security: max-age=31536000",
    "X-Content-Type-Options: nosniff",
    "Referrer-Policy: strict-origin-when-cross-origin",
];

#[test]
fn observatory() {
    for case in corpus::<ScoreCase>("observatory") {
        let mut all = fields(if case.base { &BASE } else { &[] });
        let own = fields(&case.fields);
        own.iter().for_each(|(name, _)| {
            all.remove(name);
        });
        let twice = fields(&case.twice);
        own.iter().chain(twice.iter()).for_each(|(name, value)| all.push(name.clone(), value.clone()));
        let scripts = match case.scripts.as_deref() {
            None => Scripts::NoneOrOwn,
            Some("external") => Scripts::ExternalWithoutIntegrity,
            Some(other) => panic!("{other}"),
        };
        let scan =
            Scan { fields: &all, https: true, redirect: Redirect::ToHttps, scripts, cors: Cors::Harmless };
        let report = score(&scan);
        assert_eq!(
            (report.score, report.grade),
            (case.score, case.grade.as_str()),
            "{}: {report:#?}",
            case.name
        );
    }
}

#[test]
fn transport_security_keeps_to_its_places() {
    let policy = policy("[hsts]\nenabled = true\n");
    let name = http::header::STRICT_TRANSPORT_SECURITY;
    let leaves = |facts: Facts<'_>, origin: &[&str]| {
        let mut sent = fields(origin);
        apply(&policy, &facts, &mut sent);
        sent.get(&name).map(|value| value.to_str().unwrap().to_owned())
    };
    let theirs = ["Strict-Transport-Security: max-age=1"];
    assert_eq!(leaves(facts(200), &[]).unwrap(), "max-age=31536000");
    assert_eq!(leaves(facts(200), &theirs).unwrap(), "max-age=1");
    assert_eq!(leaves(Facts { secure: false, ..facts(200) }, &theirs), None);
    assert_eq!(leaves(Facts { dev_host: true, ..facts(200) }, &theirs), None);
    assert_eq!(leaves(Facts { dev_host: true, ..facts(200) }, &[]), None);
}

#[test]
fn transport_security_is_overridden_only_when_asked() {
    let mut sent = fields(&["Strict-Transport-Security: max-age=1"]);
    let kill = policy("[hsts]\nenabled = true\nmax_age = \"0 s\"\noverride = true\n");
    let applied = apply(&kill, &facts(200), &mut sent);
    assert_eq!(sent, fields(&["Strict-Transport-Security: max-age=0"]));
    assert_eq!(applied.conflicts.len(), 1);
    let mut sent = fields(&["Strict-Transport-Security: max-age=1"]);
    apply(&policy("[hsts]\nenabled = false\n"), &facts(200), &mut sent);
    assert_eq!(sent, fields(&["Strict-Transport-Security: max-age=1"]));
}

#[test]
fn layers_merge_by_name_and_key() {
    let (base, _) =
        raw("base", "[headers]\nX-A = \"1\"\nX-B = \"1\"\n[hsts]\nenabled = true\nmax_age = \"2 d\"\n");
    let (site, _) = raw(
        "site",
        "[headers]\nx-b = { append = \"2\" }\nX-C = false\n[hsts]\nenabled = true\ninclude_subdomains = true\n",
    );
    let (path, _) = raw("path", "[headers]\nX-A = { inherit = false }\n");
    let merged = base.over(site).over(path);
    let said: Vec<String> =
        merged.describe().iter().map(|s| format!("{}: {} ({})", s.header, s.rule, s.place.label())).collect();
    assert_eq!(
        said,
        [
            "X-A: no rule; the origin's own value passes (path:2)",
            "x-b: append \"2\" (site:2)",
            "X-C: unset (site:3)",
            "Strict-Transport-Security: setifempty \"max-age=172800; includeSubDomains\" on TLS, not for development hosts (base:6)",
        ]
    );
    let mut sent = fields(&["X-A: theirs", "X-B: theirs", "X-C: theirs"]);
    apply(&merged.compile(&mut Complaints::default()), &facts(200), &mut sent);
    let leaves = fields(&[
        "X-A: theirs",
        "X-B: theirs, 2",
        "Strict-Transport-Security: max-age=172800; includeSubDomains",
    ]);
    assert_eq!(sent, leaves);
}

#[test]
fn a_thousand_names_have_rules_and_each_does_what_it_says() {
    let names = || (0..1_000_usize).map(|i| format!("x-rule-{i:03}"));
    let rule = |(i, name): (usize, String)| match i % 5 {
        0 => format!("{name} = \"v{i}\"\n"),
        1 => format!("{name} = false\n"),
        2 => format!("{name} = {{ append = \"v{i}\" }}\n"),
        3 => format!("{name} = {{ set = \"v{i}\", status = \"404\" }}\n"),
        _ => format!("{name} = [{{ add = \"v{i}\" }}, {{ set = \"w{i}\", status = \"404\" }}]\n"),
    };
    let policy = headers(&names().enumerate().map(rule).collect::<String>());
    let after = |i: usize, sent: bool, status: u16| match (i % 5, sent, status) {
        (0, ..) | (3, _, 404) | (2, false, _) => vec![format!("v{i}")],
        (1, ..) | (3, false, _) => Vec::new(),
        (2, true, _) => vec![format!("theirs, v{i}")],
        (3, true, _) => vec!["theirs".to_owned()],
        (_, _, 404) => vec![format!("w{i}")],
        (_, true, _) => vec!["theirs".to_owned(), format!("v{i}")],
        (_, false, _) => vec![format!("v{i}")],
    };
    for (sent, status) in [(false, 200), (false, 404), (true, 200), (true, 404)] {
        let lines: Vec<String> = names().map(|name| format!("{name}: theirs")).collect();
        let lines: Vec<&str> = lines.iter().filter(|_| sent).map(String::as_str).collect();
        let mut answer = fields(&lines);
        apply(&policy, &facts(status), &mut answer);
        let mut left: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
        for (name, value) in answer.iter() {
            left.entry(name.as_str()).or_default().push(value.to_str().unwrap().to_owned());
        }
        for (i, name) in names().enumerate() {
            let found = left.get(name.as_str()).cloned().unwrap_or_default();
            assert_eq!(found, after(i, sent, status), "{name}, sent {sent}, status {status}");
        }
    }
}

#[test]
fn more_names_than_fit_are_an_error_and_not_a_surprise() {
    let rules: String = (0..2_100).map(|i| format!("X-R{i} = \"1\"")).collect::<Vec<_>>().join("\n");
    assert!(complaints(&format!("[headers]\n{rules}")).contains("more than 2048 header names"));
}

/// What is wrong with a layer, as it is printed.
fn complaints(toml: &str) -> String {
    let (raw, mut complaints) = raw("case", toml);
    raw.compile(&mut complaints);
    complaints.to_string()
}

#[test]
fn slips_are_named() {
    for (toml, words) in [
        (
            "[headers]\nX-Frame-Options = \"ALLOW-FROM https://a.example\"",
            &["error", "ALLOW-FROM", "frame-ancestors 'self' https://a.example"][..],
        ),
        ("[headers]\nX-Frame-Options = \"SAMEORIGN\"", &["error", "did you mean `SAMEORIGIN`?"]),
        ("[headers]\nX-Frame-Options = { append = \"SAMEORIGIN\" }", &["warning", "SAMEORIGIN, SAMEORIGIN"]),
        ("[headers]\nX-XSS-Protection = \"1; mode=block\"", &["warning", "X-XSS-Protection = false"]),
        ("[headers]\nExpect-CT = \"max-age=1\"", &["warning", "obsolete"]),
        ("[headers]\nPublic-Key-Pins = \"x\"", &["warning", "pinning"]),
        ("[headers]\nFeature-Policy = \"camera 'none'\"", &["warning", "Permissions-Policy = 'camera=()'"]),
        ("[headers]\nStrict-Transport-Security = \"max-age=1\"", &["error", "[hsts]"]),
        ("[headers]\nX-Foo = \"a\\nb\"", &["error", "line break"]),
        ("[headers]\nX-Foo = \"a\\u0000b\"", &["error", "control character"]),
        ("[headers]\nX-Foo = \"\"", &["error", "empty", "false"]),
        ("[headers]\nX-Foo = true", &["error", "`true`"]),
        ("[headers]\nX-Foo = { sett = \"a\" }", &["error", "unknown key `sett`", "did you mean `set`?"]),
        ("[headers]\nX-Foo = { set = \"a\", append = \"b\" }", &["error", "exactly one operation"]),
        ("[headers]\nX-Foo = { edit = \"(\", with = \"b\" }", &["error", "unclosed group"]),
        ("[headers]\nX-Foo = { edit = \"a\" }", &["error", "needs `with`"]),
        ("[headers]\nX-Foo = { set = \"a\", status = \"6xx\" }", &["error", "not a status"]),
        ("[headers]\n\"X Foo\" = \"a\"", &["error", "not a header name"]),
        ("[headers]\n\"X-*-Y\" = false", &["error", "not a header name"]),
        ("[headers]\n\"X-*\" = \"a\"", &["error", "can only be removed"]),
        ("[headers]\n\"*\" = false", &["error", "not a header name"]),
        ("[headers]\nX-Foo = \"a\"\nx-foo = \"b\"", &["error", "written twice"]),
        ("[headers]\nContent-Length = \"3\"", &["error", "frames the message"]),
        ("[headers]\nSet-Cookie = { append = \"a=b\" }", &["error", "cookies"]),
        ("[headers]\nPermissions-Policy = \"camera 'none'\"", &["error", "structured field"]),
        ("[headers]\nContent-Security-Policy = \"default-src self\"", &["warning", "'self'"]),
        (
            "[headers]\nContent-Security-Policy = \"default-src 'self' img-src *\"",
            &["warning", "`;` is missing before `img-src`"],
        ),
        (
            "[headers]\nContent-Security-Policy = \"block-all-mixed-content\"",
            &["warning", "upgrade-insecure-requests"],
        ),
        (
            "[headers]\nContent-Security-Policy = \"defualt-src 'self'\"",
            &["warning", "did you mean `default-src`?"],
        ),
        ("[headers]\nContent-Security-Policy = { set = \"default-src 'self'\" }", &["warning", "nonces"]),
        ("[hsts]\nmax_age = \"1 d\"", &["error", "enabled"]),
        ("[hsts]\nenabled = true\nmax_age = \"1 h\"", &["warning", "one day"]),
        ("[hsts]\nenabled = true\npreload = true", &["warning", "include_subdomains"]),
        ("[cookies]\nhttp_only = [\"a b\"]", &["error", "not a cookie name"]),
        ("[cookies]\nsame_site = \"strict\"", &["error", "`lax`"]),
    ] {
        let text = complaints(toml);
        for word in words {
            assert!(text.contains(word), "{toml}\nlacks {word}:\n{text}");
        }
    }
}

#[test]
fn what_is_right_is_not_complained_about() {
    for toml in [
        "[headers]\nX-Frame-Options = \"DENY\"\nX-XSS-Protection = \"0\"\nExpect-CT = false",
        "[headers]\nContent-Security-Policy = \"default-src 'self'; script-src 'self' 'nonce-x'; sandbox allow-forms; report-to csp\"",
        "[headers]\nReferrer-Policy = \"no-referrer, same-origin\"\nCross-Origin-Opener-Policy = \"same-origin; report-to=\\\"a\\\"\"",
        "[hsts]\nenabled = true\nmax_age = \"0 s\"",
        "[hsts]\nenabled = true\nmax_age = \"730 d\"\ninclude_subdomains = true\npreload = true",
    ] {
        assert_eq!(complaints(toml), "", "{toml}");
    }
}
