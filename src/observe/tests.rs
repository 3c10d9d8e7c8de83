//! Whole records, from a head to the line that is read back.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Request, StatusCode, Version};
use proptest::prelude::*;
use serde_json::Value;

use super::settings::{Form, Place};
use super::*;
use crate::body::Body;
use crate::clock;
use crate::head::Head;
use crate::refusal::{Reason, Refusal};

fn observe(path: &Path, access: Form) -> Observe {
    let policy = Policy { access, file: Place::File(path.to_owned()), ..Policy::default() };
    Observe::open(&policy, 2, UNIX_EPOCH).unwrap()
}

/// What the log holds after `requests` was done.
fn logged(access: Form, requests: impl FnOnce(&Observe)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let observe = observe(&path, access);
    requests(&observe);
    assert!(observe.flush());
    std::fs::read_to_string(&path).unwrap()
}

fn json(requests: impl FnOnce(&Observe)) -> Value {
    let text = logged(Form::Json, requests);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn peer() -> SocketAddr {
    "192.0.2.7:40001".parse().unwrap()
}

fn request(uri: &str, fields: &[(&'static str, &[u8])]) -> http::request::Parts {
    let mut request = Request::builder().uri(uri).body(()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    request.into_parts().0
}

fn begin(observe: &Observe, parts: &http::request::Parts) -> Box<Record> {
    let tls = Some(Tls {
        version: "TLSv1.3",
        cipher: "TLS13_AES_128_GCM_SHA256",
        sni: Some("www.example.org"),
        client: None,
    });
    let wall = UNIX_EPOCH + Duration::from_secs(971_186_136);
    let arrival =
        Arrival { now: clock::now(), wall, peer: peer(), listener: 1, tls, generation: "4f1d2c3b5a69" };
    observe.worker(0).record(&arrival, &Head::new(parts))
}

/// Sends `body` to its end, as a connection would.
fn send(body: Body) {
    let mut body = Box::pin(body);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    while !http_body::Body::is_end_stream(&*body) {
        let _ = http_body::Body::poll_frame(body.as_mut(), &mut cx);
    }
}

#[test]
fn one_request_is_one_line_with_everything_about_it() {
    let line = json(|observe| {
        let mut parts = request(
            "/typo3/main?token=abc&id=7",
            &[
                ("host", b"www.example.org"),
                ("user-agent", b"curl/8 \"x\""),
                ("referer", b"https://www.example.org/a?token=abc"),
                ("cookie", b"be_typo_user=COOKIE"),
                ("authorization", b"Basic CREDENTIAL"),
                ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ],
        );
        parts.version = Version::HTTP_2;
        let mut record = begin(observe, &parts);
        record.client("203.0.113.9".parse().unwrap(), true, &Head::new(&parts));
        record.site(observe.site("www.example.org"), "www.example.org");
        record.area("backend");
        record.would_block(&Refusal::new(Reason::BadPath, "%2e in \"it\""));
        record.receiving().add(11);
        record.origin(&Origin {
            member: "http://127.0.0.1:8080",
            connect: Some(Duration::from_micros(120)),
            first_byte: Some(Duration::from_micros(900)),
            reused: false,
            retries: 1,
        });
        record.answered(clock::now(), StatusCode::OK);
        send(Body::full("hello").recorded(record));
    });
    for (key, want) in [
        ("time", "2000-10-10T13:55:36.000Z"),
        ("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("parent", "00f067aa0ba902b7"),
        ("client", "203.0.113.9"),
        ("peer", "192.0.2.7:40001"),
        ("protocol", "HTTP/2"),
        ("tls", "TLSv1.3"),
        ("cipher", "TLS13_AES_128_GCM_SHA256"),
        ("sni", "www.example.org"),
        ("method", "GET"),
        ("host", "www.example.org"),
        ("target", "/typo3/main?token=***&id=7"),
        ("site", "www.example.org"),
        ("area", "backend"),
        ("upstream", "http://127.0.0.1:8080"),
        ("user_agent", "curl/8 \"x\""),
        ("referer", "https://www.example.org/a"),
        ("generation", "4f1d2c3b5a69"),
    ] {
        assert_eq!(line[key], want, "{key}: {line}");
    }
    for (key, want) in [
        ("listener", 1),
        ("status", 200),
        ("received", 11),
        ("sent", 5),
        ("connect_us", 120),
        ("first_byte_us", 900),
        ("retries", 1),
    ] {
        assert_eq!(line[key], want, "{key}: {line}");
    }
    assert_eq!(line["would_block"][0]["step"], "path");
    assert_eq!(line["would_block"][0]["reason"], "bad-path");
    assert_eq!(line["would_block"][0]["detail"], "%2e in \"it\"");
    assert_eq!(line["reused"], false);
    assert!(line["id"].as_str().unwrap().len() == id::LENGTH && line["duration_us"].is_u64());
    for absent in ["aborted", "reason", "detail"] {
        assert!(line.get(absent).is_none(), "{absent}: {line}");
    }
    let text = line.to_string();
    assert!(!text.contains("COOKIE") && !text.contains("CREDENTIAL"), "{text}");
}

#[test]
fn a_refusal_says_where_and_why() {
    let line = json(|observe| {
        let mut record = begin(observe, &request("/", &[]));
        let refusal = Refusal::new(Reason::UnknownHost, "no site has it");
        record.refused(&refusal);
        record.answered(clock::now(), refusal.reason.status());
        send(Body::full("no").recorded(record));
    });
    assert_eq!(
        (&line["status"], &line["step"], &line["reason"]),
        (&421.into(), &"host".into(), &"unknown-host".into())
    );
    assert_eq!(line["detail"], "no site has it");
}

#[test]
fn who_hangs_up_is_said() {
    let before_the_answer = json(|observe| drop(begin(observe, &request("/", &[]))));
    assert_eq!(before_the_answer["aborted"], "client");
    assert!(before_the_answer.get("status").is_none());

    let within_the_answer = json(|observe| {
        let mut record = begin(observe, &request("/", &[]));
        record.answered(clock::now(), StatusCode::OK);
        drop(Body::full("never read").recorded(record));
    });
    assert_eq!((&within_the_answer["aborted"], &within_the_answer["sent"]), (&"client".into(), &0.into()));

    let by_the_origin = json(|observe| {
        let mut record = begin(observe, &request("/", &[]));
        record.answered(clock::now(), StatusCode::OK);
        let error = std::io::Error::other("closed too early");
        record.broke_off(&crate::body::BodyError::Origin(error));
    });
    assert_eq!(by_the_origin["aborted"], "origin");
    assert_eq!(by_the_origin["detail"], "the origin's body broke off: closed too early");
}

#[test]
fn an_answer_without_a_body_is_whole() {
    for (method, status, body) in [
        ("HEAD", 200, Body::full("not sent")),
        ("GET", 304, Body::full("not sent")),
        ("GET", 200, Body::empty()),
    ] {
        let line = json(|observe| {
            let mut parts = request("/", &[]);
            parts.method = method.parse().unwrap();
            let mut record = begin(observe, &parts);
            record.answered(clock::now(), StatusCode::from_u16(status).unwrap());
            drop(body.recorded(record));
        });
        assert!(line.get("aborted").is_none(), "{method} {status}: {line}");
    }
}

#[test]
fn a_request_id_is_taken_over_only_from_a_trusted_proxy_and_only_if_sane() {
    for (sent, trusted, kept) in [
        (&[&b"chain-id-0001"[..]][..], true, true),
        (&[b"chain-id-0001"], false, false),
        (&[b"chain id \"0001\""], true, false),
        (&[b"chain-id-0001", b"chain-id-0002"], true, false),
    ] {
        let fields: Vec<_> = sent.iter().map(|value| ("x-request-id", *value)).collect();
        let line = json(|observe| {
            let parts = request("/", &fields);
            begin(observe, &parts).client(peer().ip(), trusted, &Head::new(&parts));
        });
        assert_eq!(line["id"] == "chain-id-0001", kept, "{line}");
    }
}

#[test]
fn combined_is_what_apache_writes() {
    let text = logged(Form::Combined, |observe| {
        let mut record = begin(
            observe,
            &request(
                "/a?b=%22",
                &[("referer", b"https://example.org/\xc3\xbc"), ("user-agent", b"a \"quoted\" \\ agent\t")],
            ),
        );
        record.answered(clock::now(), StatusCode::OK);
        send(Body::full("hello").recorded(record));
        drop(begin(observe, &request("/", &[])));
    });
    let want = concat!(
        r#"192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] "GET /a?b=%22 HTTP/1.1" 200 5 "https://example.org/\xc3\xbc" "a \"quoted\" \\ agent\t""#,
        "\n",
        r#"192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" - - "-" "-""#,
        "\n",
    );
    assert_eq!(text, want);
}

#[test]
fn off_writes_nothing_and_creates_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let observe = observe(&path, Form::Off);
    drop(begin(&observe, &request("/", &[])));
    assert!(observe.flush());
    assert!(!path.exists());
    assert!(observe.metrics().unwrap().contains("ravelin_aborted_requests_total{by=\"client\"} 1"));
}

#[test]
fn a_changed_log_is_followed_and_one_that_cannot_be_opened_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let observe = observe(&first, Form::Json);
    drop(begin(&observe, &request("/1", &[])));
    let impossible = Policy { file: Place::File(folder.path().join("no/such/folder")), ..Policy::default() };
    assert!(observe.apply(&impossible).is_err());
    drop(begin(&observe, &request("/2", &[])));
    let policy = Policy { access: Form::Combined, file: Place::File(second.clone()), ..Policy::default() };
    observe.apply(&policy).unwrap();
    drop(begin(&observe, &request("/3", &[])));
    assert!(observe.flush());
    assert_eq!(std::fs::read_to_string(first).unwrap().lines().count(), 2);
    assert!(std::fs::read_to_string(second).unwrap().contains("\"GET /3 HTTP/1.1\""));
}

#[test]
fn metrics_count_what_happened_on_every_worker() {
    let folder = tempfile::tempdir().unwrap();
    let observe = observe(&folder.path().join("access.log"), Form::Json);
    let site = observe.site("www.example.org");
    for worker in [0, 1, 0] {
        let parts = request("/", &[]);
        let now = clock::now();
        let arrival =
            Arrival { now, wall: UNIX_EPOCH, peer: peer(), listener: 0, tls: None, generation: "g" };
        let mut record = observe.worker(worker).record(&arrival, &Head::new(&parts));
        record.site(site, "www.example.org");
        record.would_block(&Refusal::new(Reason::BadPath, ""));
        record.origin(&Origin {
            reused: worker == 0,
            first_byte: Some(Duration::from_millis(3)),
            ..Origin::default()
        });
        record.answered(now, StatusCode::OK);
        send(Body::full("hello").recorded(record));
    }
    drop(begin(&observe, &request("/", &[])));
    let mut record = begin(&observe, &request("/", &[]));
    record.refused(&Refusal::new(Reason::OriginTimeout, ""));
    record.answered(clock::now(), StatusCode::GATEWAY_TIMEOUT);
    drop(Body::empty().recorded(record));
    observe.worker(1).panicked();
    observe.show(metrics::Outside {
        name: "foreign_protocols",
        help: "Connections that spoke something other than HTTP",
        kind: metrics::Kind::Counter,
        label: "protocol",
        read: Box::new(|| vec![("ssh", 1), ("noise", 0)]),
    });
    observe.show(metrics::Outside {
        name: "connections_open",
        help: "Connections that are open",
        kind: metrics::Kind::Gauge,
        label: "",
        read: Box::new(|| vec![("", 2)]),
    });
    observe.generation("4f1d2c3b5a69", UNIX_EPOCH + Duration::from_secs(7));
    observe.reload_failed();
    observe.certificates([("www.example.org", UNIX_EPOCH + Duration::from_secs(9))]);
    assert!(observe.flush());
    let text = observe.metrics().unwrap();
    for want in [
        "requests_total{site=\"www.example.org\",method=\"GET\",status=\"2xx\"} 3",
        "responses_total{code=\"200\"} 3",
        "protocol_requests_total{protocol=\"HTTP/1.1\"} 5",
        "sent_bytes_total{site=\"www.example.org\"} 15",
        "request_duration_seconds_count{site=\"www.example.org\"} 3",
        "refusals_total{step=\"path\",reason=\"bad-path\",mode=\"would_block\"} 3",
        "refusals_total{step=\"path\",reason=\"bad-path\",mode=\"enforced\"} 0",
        "foreign_protocols_total{protocol=\"ssh\"} 1",
        "upstream_requests_total{connection=\"reused\"} 2",
        "upstream_errors_total{kind=\"origin-timeout\"} 1",
        "aborted_requests_total{by=\"client\"} 1",
        "connections_open 2",
        "upstream_first_byte_seconds_bucket{le=\"0.005\"} 3",
        "access_log_lines_total{result=\"written\"} 5",
        "panics_total 1",
        "loads_total{result=\"failed\"} 1",
        "loaded_timestamp_seconds 7",
        "generation_info{generation=\"4f1d2c3b5a69\"",
        "certificate_expiry_timestamp_seconds{certificate=\"www.example.org\"} 9",
    ] {
        assert!(text.contains(&format!("ravelin_{want}")), "{want} is missing in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_client_sends_is_one_harmless_line(
        path in "/[!-~]{0,40}",
        agent in proptest::collection::vec(any::<u8>(), 0..3_000),
        referer in proptest::collection::vec(any::<u8>(), 0..100),
        detail in any::<String>(),
    ) {
        let fields: Vec<(&'static str, &[u8])> = [("user-agent", &agent[..]), ("referer", &referer[..])]
            .into_iter()
            .filter(|(_, value)| HeaderValue::from_bytes(value).is_ok())
            .collect();
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let requests = |observe: &Observe| {
            let mut record = begin(observe, &request(&uri.to_string(), &fields));
            record.refused(&Refusal::new(Reason::BadPath, detail.clone()));
        };
        for form in [Form::Json, Form::Combined] {
            let text = logged(form, requests);
            prop_assert!(text.ends_with('\n') && text.lines().count() == 1);
            prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control), "{text:?}");
            prop_assert!(text.len() < 40_000);
            if form == Form::Json {
                let line: Value = serde_json::from_str(&text).unwrap();
                prop_assert!(line["target"].as_str().unwrap().starts_with('/'));
            }
        }
    }
}

#[test]
fn a_password_in_front_of_a_host_is_not_kept() {
    for (uri, host) in [("http://user:s3cret@a.test/", "a.test"), ("/", "user:s3cret@a.test")] {
        let line = json(|observe| drop(begin(observe, &request(uri, &[("host", host.as_bytes())]))));
        assert_eq!(line["host"], "a.test", "{line}");
        assert!(!line.to_string().contains("s3cret"), "{line}");
    }
}
