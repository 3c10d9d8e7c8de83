//! Behind an ALB and `CloudFront`: who the origin is told to be asked by, which trace it is part of, and whose word goes on.

use std::fmt::Write as _;

use serde_json::Value;

use crate::harness::names::field;
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, apache, log, proxy, ravelin, run};

const FORGED: &str = "6.6.6.6, 203.0.113.9, 198.51.100.7";

/// Behind a balancer at 127.0.0.1, and a CDN at 198.51.100.0/24.
fn behind(more: &str) -> Ravelin {
    let client = format!("[client]\ntrusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]\n{more}");
    proxy().site(HOST, apache()).table(&client).start()
}

/// The fields that the origin saw, by their names in lower case.
fn seen(reply: &Reply) -> Value {
    let json = reply.status(200).json();
    let fields = json["headers"].as_object().expect("an object");
    fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn ask(site: &Ravelin, fields: &[(&str, &str)]) -> Reply {
    fields.iter().fold(site.ask("/echo"), |ask, (name, value)| ask.header(name, value)).send()
}

#[test]
fn the_origin_sees_as_much_of_the_chain_as_the_operator_wants() {
    for (mode, chain) in [
        ("", Some("203.0.113.9")),
        ("forwarded_for = \"append\"", Some("203.0.113.9, 198.51.100.7, 127.0.0.1")),
        ("forwarded_for = \"preserve\"", Some(FORGED)),
        ("forwarded_for = \"remove\"", None),
    ] {
        let site = behind(mode);
        let reply = ask(&site, &[("X-Forwarded-For", FORGED)]);
        assert_eq!(seen(&reply)["x-forwarded-for"].as_str(), chain, "{mode}");
        let line = site.logged_as(reply.header("x-request-id").expect("an id"));
        assert_eq!(log::text(&line, field::CLIENT), "203.0.113.9", "whatever the origin is told: {mode}");
    }
    // Nothing of a stranger goes on, in any mode.
    for mode in ["append", "preserve", "remove"] {
        let client = format!("[client]\ntrusted_proxies = []\nforwarded_for = \"{mode}\"");
        let site = proxy().site(HOST, apache()).table(&client).start();
        let reply = ask(&site, &[("X-Forwarded-For", FORGED)]);
        let told = (mode != "remove").then_some("127.0.0.1");
        assert_eq!(seen(&reply)["x-forwarded-for"].as_str(), told, "{mode}");
    }
}

#[test]
fn cloudfront_names_the_viewer_where_it_is_asked_to() {
    let fields = [
        ("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 192.0.2.1"),
        ("X-Forwarded-Proto", "http"),
        ("CloudFront-Viewer-Address", "203.0.113.9:46532"),
        ("CloudFront-Forwarded-Proto", "https"),
        ("CloudFront-Viewer-Country", "DE"),
    ];
    let site = behind("address_from = \"cloudfront-viewer-address\"");
    let told = seen(&ask(&site, &fields));
    assert_eq!(told["x-forwarded-for"], "203.0.113.9");
    assert_eq!(told["x-forwarded-proto"], "https");
    assert_eq!(told["cloudfront-viewer-country"], "DE");
    let told = seen(&ask(&behind(""), &fields));
    assert_eq!(told["x-forwarded-for"], "192.0.2.1", "nobody reads it unless asked to");
}

#[test]
fn what_a_balancer_vouches_for_goes_on_from_it_and_from_nobody_else() {
    let fields = [
        ("X-Amzn-Mtls-Clientcert-Subject", "CN=editor"),
        ("X-Amzn-Tls-Version", "TLSv1.3"),
        ("X-Amzn-Oidc-Identity", "editor"),
        ("X-Amzn-Waf-Label", "bot"),
        ("X-Amz-Cf-Id", "abc=="),
        ("X-SSL-Client-Verify", "SUCCESS"),
    ];
    let told = seen(&ask(&behind(""), &fields));
    for (name, value) in fields {
        assert_eq!(told[name.to_ascii_lowercase()], value, "{name}");
    }
    let stranger = proxy().site(HOST, apache()).table("[client]\ntrusted_proxies = []").start();
    let told = seen(&ask(&stranger, &fields));
    for (name, _) in fields {
        assert_eq!(told[name.to_ascii_lowercase()], Value::Null, "{name}");
    }
}

#[test]
fn a_trace_of_aws_and_one_of_the_w3c_are_one() {
    let site = behind("");
    let (root, trace) = ("Root=1-67891233-abcdef012345678912345678", "67891233abcdef012345678912345678");
    // An ALB alone: its trace is ours, and what it wrote finds its line in our log.
    let came = format!("Self=1-67891234-12456789abcdef0123456789;{root}");
    let reply = ask(&site, &[("X-Amzn-Trace-Id", &came), ("tracestate", "a=b")]);
    let (told, line) = (seen(&reply), site.logged_as(reply.header("x-request-id").expect("an id")));
    let span = log::text(&line, "span");
    assert_eq!(told["traceparent"], format!("00-{trace}-{span}-01"));
    assert_eq!(told["x-amzn-trace-id"], format!("{root};Parent={span};Sampled=1"));
    assert_eq!(told["tracestate"], Value::Null, "it belongs to a traceparent that did not come");
    assert_eq!((log::text(&line, field::TRACE), log::text(&line, "amzn_trace")), (trace, &*came));
    assert_eq!(line["parent"], Value::Null);
    // With a traceparent, each goes on in its own words.
    let w3c = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let reply = ask(&site, &[("X-Amzn-Trace-Id", root), ("traceparent", w3c), ("tracestate", "a=b")]);
    let (told, line) = (seen(&reply), site.logged_as(reply.header("x-request-id").expect("an id")));
    let span = log::text(&line, "span");
    assert_eq!(told["traceparent"], format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01"));
    assert_eq!(told["tracestate"], "a=b");
    assert_eq!(told["x-amzn-trace-id"], format!("{root};Parent={span};Sampled=1"));
    // What cannot be read becomes the request's own trace; without one, there is none of AWS.
    let reply = ask(&site, &[("X-Amzn-Trace-Id", "Root=1-x"), ("traceparent", w3c)]);
    let told = seen(&reply);
    let said = told["x-amzn-trace-id"].as_str().expect("one of ours");
    assert!(said.starts_with("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent="), "{said}");
    assert_eq!(seen(&ask(&site, &[]))["x-amzn-trace-id"], Value::Null);
}

#[test]
fn check_says_when_the_balancer_outlasts_our_connections() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |client: &str, limits: &str| {
        let mut text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:8080\"\nplain = \"serve\"\n[[site]]\nhosts = [\"{HOST}\"]\n\
             upstream = \"http://127.0.0.1:1\"\n"
        );
        write!(text, "[client]\n{client}\n[limits]\n{limits}\n").expect("a string");
        let file = folder.path().join("ravelin.toml");
        std::fs::write(&file, text).expect("it is written");
        run(ravelin().arg("check").arg("--config").arg(&file)).all()
    };
    let trusting = "trusted_proxies = [\"10.0.0.0/8\"]\n";
    assert!(!said(trusting, "").contains("balancer"));
    let short = said(trusting, "keep_alive = \"60 s\"");
    assert!(short.contains("502") && short.contains("keep_alive = \"75 s\""), "{short}");
    let longer = said(&format!("{trusting}balancer_idle = \"300 s\""), "");
    assert!(longer.contains("keep_alive = \"315 s\""), "{longer}");
    assert!(said(&format!("{trusting}forwarded_for = \"preserve\""), "").contains("strangers"));
}

#[test]
fn a_list_of_ranges_that_aws_publishes_takes_the_place_of_the_shipped_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ip-ranges.json");
    let range =
        "{\"ip_prefix\":\"198.51.100.0/24\",\"region\":\"GLOBAL\",\"service\":\"CLOUDFRONT_ORIGIN_FACING\"}";
    let text = format!(
        "{{\"syncToken\":\"1\",\"createDate\":\"2026-11-21-00-00-00\",\"prefixes\":[{range}],\"ipv6_prefixes\":[]}}"
    );
    std::fs::write(&file, text).expect("a list");
    for (named, client) in
        [(format!("file:{}", file.display()), "203.0.113.9"), ("cloudfront".to_owned(), "198.51.100.7")]
    {
        let trusted = format!("[client]\ntrusted_proxies = [\"127.0.0.1\", \"{named}\"]");
        let site = proxy().site(HOST, apache()).table(&trusted).start();
        let reply = ask(&site, &[("X-Forwarded-For", "203.0.113.9, 198.51.100.7")]);
        assert_eq!(seen(&reply)["x-forwarded-for"].as_str(), Some(client), "{named}");
    }
}
