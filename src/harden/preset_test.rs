//! The preset as data: free of complaints, and harmless to what TYPO3 sends.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::{CONTENT_SECURITY_POLICY, HeaderName};
use toml::de::DeTable;

use super::corpus_test::{facts, fields};
use super::observatory::{Cors, Redirect, Scan, Scripts, score};
use super::{Facts, Policy, Raw, apply};
use crate::config::complaint::{Complaints, Source};
use crate::config::section::{Reading, Section};
use crate::fields::Fields;

const SAFE: &str = include_str!("../../config/presets/typo3.toml");
const STRICT: &str = include_str!("../../config/presets/typo3-strict.toml");

struct Layer {
    site: Raw,
    paths: Vec<(String, Raw)>,
}

fn layer(name: &str, text: &str) -> Layer {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let document = DeTable::parse(&source.text).unwrap();
    let mut reading = Reading { complaints: Complaints::default(), env: &|_| None, base: PathBuf::new() };
    let mut root = Section::root(document.get_ref(), &source);
    let site = Raw::read(&mut root, &mut reading);
    let paths = root
        .sections(&mut reading, "path")
        .into_iter()
        .map(|mut path| {
            let prefix = path.get::<String>(&mut reading, "path").unwrap().value;
            let name = path.get::<String>(&mut reading, "name").map_or(String::new(), |name| name.value);
            (format!("{prefix} {name}").trim().to_owned(), Raw::read(&mut path, &mut reading))
        })
        .collect();
    assert!(reading.complaints.is_empty(), "{}", reading.complaints);
    Layer { site, paths }
}

/// The rules of a route: the site's, then each path in turn, every layer in its order.
fn merged(strict: bool, paths: &[&str]) -> Raw {
    let mut layers = vec![layer("safe", SAFE)];
    layers.extend(strict.then(|| layer("strict", STRICT)));
    let site = layers.iter().fold(Raw::default(), |raw, layer| raw.over(layer.site.clone()));
    paths.iter().fold(site, |raw, path| {
        let rules = layers.iter().flat_map(|layer| &layer.paths).filter(|(name, _)| name == path);
        rules.fold(raw, |raw, (_, rules)| raw.over(rules.clone()))
    })
}

fn policy(strict: bool, paths: &[&str]) -> Policy {
    let mut complaints = Complaints::default();
    let policy = merged(strict, paths).compile(&mut complaints);
    assert!(complaints.is_empty(), "{complaints}");
    policy
}

const LEVELS: [bool; 2] = [false, true];
const BACKEND: &[&str] = &["/typo3"];
const LOGIN: &[&str] = &["/typo3", "/typo3/login"];

const BACKEND_CSP: &str = "default-src 'self'; script-src 'self' 'nonce-abc' 'report-sample'; base-uri 'none'; \
    object-src 'none'; report-uri http://www.example.org/typo3/@http-reporting?csp=report&requestTime=1";

/// What TYPO3 13.4 sends for `/typo3/` without a session.
fn backend_head() -> Fields {
    let csp = format!("Content-Security-Policy: {BACKEND_CSP}");
    fields(&[
        "Date: Sun, 22 Nov 2026 13:39:48 GMT",
        "Server: Apache/2.4.71 (Debian)",
        "X-Frame-Options: SAMEORIGIN",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: strict-origin-when-cross-origin",
        &csp,
        "Set-Cookie: be_typo_user=deleted; expires=Sat, 22 Nov 2025 13:39:47 GMT; Max-Age=0; path=/; domain=127.0.0.1; httponly; samesite=lax",
        "Set-Cookie: typo3nonce_1=x; path=/; httponly; samesite=strict",
        "Expires: 0",
        "Last-Modified: Sun, 22 Nov 2026 13:39:48 GMT",
        "Cache-Control: no-cache, no-store",
        "Pragma: no-cache",
        "Vary: Accept-Encoding",
        "X-UA-Compatible: IE=edge",
        "Transfer-Encoding: chunked",
        "Content-Type: text/html; charset=utf-8",
    ])
}

fn value<'a>(fields: &'a Fields, name: &'static str) -> Option<&'a str> {
    fields.get(&HeaderName::from_static(name)).map(|value| value.to_str().unwrap())
}

#[test]
fn the_backend_keeps_its_policy_byte_for_byte() {
    for strict in LEVELS {
        for paths in [BACKEND, LOGIN] {
            let mut sent = backend_head();
            let applied = apply(&policy(strict, paths), &facts(200), &mut sent);
            assert_eq!(applied.conflicts, []);
            let policies: Vec<_> = sent.all(&CONTENT_SECURITY_POLICY).collect();
            assert_eq!(policies, [BACKEND_CSP]);
            assert_eq!(value(&sent, "x-frame-options"), Some("SAMEORIGIN"));
            assert_eq!(value(&sent, "referrer-policy"), Some("strict-origin-when-cross-origin"));
            assert_eq!(value(&sent, "cache-control"), Some("no-cache, no-store"));
            assert_eq!((value(&sent, "server"), value(&sent, "x-ua-compatible")), (None, None));
        }
    }
}

#[test]
fn the_backend_without_a_policy_gets_none() {
    for strict in LEVELS {
        let mut sent = fields(&["Content-Type: text/html"]);
        apply(&policy(strict, BACKEND), &facts(200), &mut sent);
        assert!(!sent.contains(&CONTENT_SECURITY_POLICY));
        assert_eq!(value(&sent, "cache-control"), Some("no-store"));
    }
}

#[test]
fn the_backend_is_checked() {
    for strict in LEVELS {
        let mut complaints = Complaints::default();
        merged(strict, LOGIN).check_backend(&mut complaints);
        assert!(complaints.is_empty(), "{complaints}");
    }
    let (wrong, _) = super::corpus_test::raw(
        "site",
        "[headers]\nContent-Security-Policy = { set = \"default-src 'self'\" }\nReferrer-Policy = \"no-referrer\"\n",
    );
    let mut complaints = Complaints::default();
    merged(false, BACKEND).over(wrong).check_backend(&mut complaints);
    let text = complaints.to_string();
    assert!(complaints.has_errors() && text.contains("nonce") && text.contains("Referer"), "{text}");
}

#[test]
fn the_website_in_safe() {
    let mut sent = fields(&[
        "Date: x",
        "Server: Apache/2.4.71 (Debian)",
        "Content-Language: en-US",
        "Cache-Control: private, no-store",
        "X-UA-Compatible: IE=edge",
        "X-Powered-By: PHP/8.3",
        "X-TYPO3-Parsetime: 12ms",
        "X-Content-Type-Options: nosniff",
        "Content-Type: text/html; charset=utf-8",
    ]);
    apply(&policy(false, &[]), &facts(200), &mut sent);
    let leaves = fields(&[
        "Date: x",
        "Content-Language: en-US",
        "Cache-Control: private, no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Type: text/html; charset=utf-8",
        "Content-Security-Policy: frame-ancestors 'self'; base-uri 'self'",
        "Cross-Origin-Resource-Policy: same-origin",
        "Permissions-Policy: bluetooth=(), browsing-topics=(), hid=(), idle-detection=(), midi=(), serial=(), usb=()",
        "Referrer-Policy: strict-origin-when-cross-origin",
        "Strict-Transport-Security: max-age=31536000",
        "X-Frame-Options: SAMEORIGIN",
    ]);
    assert_eq!(sent, leaves);
}

#[test]
fn safe_leaves_the_site_its_own_choices() {
    let own = [
        "Content-Type: text/html",
        "Content-Security-Policy: default-src 'self'; frame-ancestors https://partner.example",
        "Referrer-Policy: unsafe-url",
        "Permissions-Policy: usb=(self)",
        "Cross-Origin-Resource-Policy: cross-origin",
        "Strict-Transport-Security: max-age=63072000; includeSubDomains",
    ];
    let mut sent = fields(&own);
    apply(&policy(false, &[]), &facts(200), &mut sent);
    for line in fields(&own).iter().filter(|(name, _)| name.as_str() != "permissions-policy") {
        assert_eq!(sent.all(line.0).collect::<Vec<_>>(), [line.1]);
    }
    assert!(value(&sent, "permissions-policy").unwrap().starts_with("usb=(self), bluetooth=()"));
}

#[test]
fn safe_delegates_what_players_and_maps_need() {
    let mut sent = Fields::default();
    apply(&policy(false, &[]), &facts(200), &mut sent);
    let features = value(&sent, "permissions-policy").unwrap();
    for needed in [
        "accelerometer",
        "autoplay",
        "clipboard-write",
        "encrypted-media",
        "fullscreen",
        "gyroscope",
        "picture-in-picture",
        "web-share",
        "geolocation",
        "camera",
        "microphone",
        "payment",
        "storage-access",
    ] {
        assert!(!features.contains(needed), "{needed}");
    }
}

#[test]
fn uploads_get_the_policies_of_typo3() {
    for folder in ["/fileadmin", "/uploads"] {
        let leaves = |name: &str| {
            let named = format!("{folder} {name}");
            let mut sent = fields(&["Content-Type: application/octet-stream"]);
            apply(&policy(false, &[folder, &named]), &facts(200), &mut sent);
            value(&sent, "content-security-policy").unwrap().to_owned()
        };
        let rest = "default-src 'self'; script-src 'none'; style-src 'none'; object-src 'none'; sandbox";
        assert_eq!(leaves("nothing"), rest);
        assert_eq!(leaves("*.svg*"), rest.replace("style-src 'none'", "style-src 'unsafe-inline'"));
        for pdf in ["*.pdf", "*.PDF"] {
            assert!(!leaves(pdf).contains("sandbox") && leaves(pdf).contains("object-src 'self'"));
        }
    }
}

#[test]
fn grades() {
    let grade = |sent: &Fields| {
        let scan = Scan {
            fields: sent,
            https: true,
            redirect: Redirect::ToHttps,
            scripts: Scripts::NoneOrOwn,
            cors: Cors::Harmless,
        };
        let report = score(&scan);
        (report.score, report.grade)
    };
    let page = fields(&["Content-Type: text/html", "Set-Cookie: PHPSESSID=x; path=/"]);
    assert_eq!(grade(&page), (0, "F"));
    for strict in LEVELS {
        let mut sent = page.clone();
        apply(&policy(strict, &[]), &facts(200), &mut sent);
        assert_eq!(grade(&sent), (80, "B+"));
    }
}

#[test]
fn plain_http_and_development_hosts_get_no_hsts() {
    let policy = policy(false, &[]);
    for facts in [Facts { secure: false, ..facts(200) }, Facts { dev_host: true, ..facts(200) }] {
        let mut sent = fields(&["Strict-Transport-Security: max-age=1"]);
        apply(&policy, &facts, &mut sent);
        assert_eq!(value(&sent, "strict-transport-security"), None);
        assert_eq!(value(&sent, "x-frame-options"), Some("SAMEORIGIN"));
    }
}

#[test]
fn a_304_gets_what_is_set_and_hsts_and_nothing_that_is_filled_in() {
    let mut sent = fields(&["ETag: \"x\""]);
    apply(&policy(false, &[]), &facts(304), &mut sent);
    assert_eq!(value(&sent, "x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(value(&sent, "x-content-type-options"), Some("nosniff"));
    assert_eq!(value(&sent, "strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(value(&sent, "content-security-policy"), None);
    assert_eq!(value(&sent, "referrer-policy"), None);
}
