//! What is written down: one line per request, nothing secret in it, nothing injected into it, and one id
//! that is the same on the page, in the header, at the origin and in the log.

use std::time::Duration;

use crate::harness::curl::Over;
use crate::harness::names::{REQUEST_ID, field, metric};
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, apache, log, proxy, ravelin, run, within};

#[test]
fn one_json_line_per_request_with_what_an_operator_needs() {
    let site = proxy().site(HOST, apache()).plain_serves().start();
    for (over, protocol) in [(Over::H1, "HTTP/1.1"), (Over::H2, "HTTP/2"), (Over::Plain, "HTTP/1.1")] {
        let marker = format!("/download?bytes=12345&{over:?}");
        site.ask_over(over, &marker)
            .header("User-Agent", "probe/1")
            .header("Referer", "https://a.example/")
            .send()
            .status(200);
        let line = site.logged(&marker);
        assert_eq!(log::text(&line, field::METHOD), "GET", "{line}");
        assert_eq!(log::text(&line, field::CLIENT), "127.0.0.1", "{line}");
        // As the client wrote it, port and all: what it asked for, not what we made of it.
        let port = if over == Over::Plain { site.http_port() } else { site.https_port() };
        assert_eq!(log::text(&line, field::HOST), format!("{HOST}:{port}"), "{line}");
        assert!(log::text(&line, field::PROTOCOL).starts_with(protocol), "{line}");
        assert_eq!(line[field::STATUS], 200, "{line}");
        assert_eq!(line[field::SENT], 12345, "{line}");
        assert!(log::text(&line, field::TIME).starts_with("20"), "RFC 3339: {line}");
        assert!(line.to_string().contains("probe/1"), "{line}");
        assert!(line[field::REASON].is_null(), "{line}");
    }
    let lines =
        site.log().iter().filter(|line| log::text(line, field::TARGET).contains("bytes=12345")).count();
    assert_eq!(lines, 3, "one line each");
}

#[test]
fn a_request_that_the_client_gives_up_is_logged_too() {
    let site = proxy().site(HOST, apache()).start();
    let mut wire = site.wire_tls();
    wire.say(&format!("GET /trickle?pieces=50&ms=200 HTTP/1.1\nHost: {HOST}\n\n")).head().status(200);
    drop(wire);
    site.logged("/trickle?pieces=50");
    let refused = site.wire_tls().say("GET / HTTP/1.1\nHost: nobody.example.net\n\n").reply();
    refused.status(421);
    let line = site.logged_as(refused.header(REQUEST_ID).unwrap_or_default());
    assert!(
        log::text(&line, field::REASON).contains("host") || log::text(&line, field::REASON) == "misdirected",
        "{line}"
    );
}

#[test]
fn the_id_is_one_everywhere() {
    let site = proxy().site(HOST, apache()).start();
    for over in [Over::H1, Over::H2] {
        let reply = site.ask_over(over, &format!("/echo?id-{over:?}")).send();
        let id = reply.status(200).header(REQUEST_ID).unwrap_or_default().to_owned();
        assert!(id.len() >= 16, "an id: {reply}");
        assert_eq!(reply.echoed(REQUEST_ID).as_ref(), Some(&id), "the origin sees it");
        assert_eq!(log::text(&site.logged_as(&id), field::TARGET), format!("/echo?id-{over:?}"));
        let refused = site.ask_over(over, "/").method("PUT").header("Accept", "text/html").send();
        let reference = refused.status(405).reference();
        assert_eq!(log::text(&site.logged_as(&reference), field::REASON), "method-not-allowed");
    }
    let (one, two) = (site.get("/"), site.get("/"));
    assert_ne!(one.header(REQUEST_ID), two.header(REQUEST_ID));
}

#[test]
fn an_id_of_a_stranger_is_not_believed() {
    let site = proxy().site(HOST, apache()).start();
    let reply = site.ask("/echo").header("X-Request-Id", "chosen-by-the-attacker").send();
    let own = reply.status(200).echoed(REQUEST_ID).expect("an id of our own");
    assert_ne!(own, "chosen-by-the-attacker");
    assert_eq!(reply.header(REQUEST_ID), Some(own.as_str()));
}

#[test]
fn a_trace_goes_on() {
    let site = proxy().site(HOST, apache()).start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let onward = site.ask("/echo?traced").header("traceparent", &parent).send().echoed("traceparent");
    let onward = onward.expect("the trace goes on");
    assert!(onward.starts_with(&format!("00-{trace}-")) && !onward.contains("00f067aa0ba902b7"), "{onward}");
    assert_eq!(log::text(&site.logged("traced"), field::TRACE), trace);
    let fresh = site.ask("/echo").header("traceparent", "00-zz-00f067aa0ba902b7-01").send().json();
    assert!(!fresh.to_string().contains("00-zz-"), "{fresh}");
}

#[test]
fn no_secret_is_ever_written_down() {
    let site = proxy().site(HOST, apache()).table("[log]\nlevel = \"debug\"").start();
    let secrets =
        ["cookie-secret-1", "bearer-secret-2", "basic-secret-3", "token-secret-4", "password-secret-5"];
    site.ask("/typo3/login?no-secrets")
        .cookie(&format!("be_typo_user={}; fe_typo_user={}", secrets[0], secrets[0]))
        .header("Authorization", &format!("Bearer {}", secrets[1]))
        .header("Proxy-Authorization", &format!("Basic {}", secrets[2]))
        .header("X-TYPO3-RequestToken", secrets[3])
        .body(&format!("login_status=login&__RequestToken=t&username=admin&userident={}", secrets[4]))
        .send()
        .status(200);
    let reply = site
        .ask("/typo3/login?with-session")
        .body("login_status=login&__RequestToken=t&userident=correct+horse")
        .send();
    let session =
        reply.status(303).cookies("be_typo_user")[0].split(';').next().unwrap_or_default().to_owned();
    site.get(&format!("/typo3/main?token={}&seen=1", secrets[3]));
    site.logged("no-secrets");
    site.logged("seen=1");
    let all = site.stdout() + &site.stderr();
    for secret in secrets {
        assert!(!all.contains(secret), "{secret} was written down");
    }
    assert!(!all.contains(session.trim_start_matches("be_typo_user=")), "a session was written down");
}

#[test]
fn nothing_can_be_injected_into_a_line() {
    let site = proxy().site(HOST, apache()).plain_serves().start();
    let agent = "probe\" , \"status\": 200, \"x\": \"\\ \u{7f} <script>";
    site.ask("/echo?injected=%0d%0a%22%7B")
        .header("User-Agent", agent)
        .header("Referer", "\u{1b}[31m")
        .try_send()
        .ok();
    site.wire()
        .send(format!(
            "GET /?raw=\u{e9}\u{202e}\"}} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: a\tb\u{85}c\r\n\r\n"
        ))
        .whatever(Duration::from_millis(500));
    site.ask("/echo?after-injection").send().status(200);
    site.logged("after-injection");
    let all = site.stdout();
    for line in all.lines() {
        let read: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(read.is_ok(), "not one JSON object: {line:?}");
        assert!(!line.chars().any(char::is_control), "a control character in {line:?}");
    }
    let huge = "u".repeat(20_000);
    site.ask("/echo?huge-agent").header("User-Agent", &huge).send();
    let line = site.logged("huge-agent").to_string();
    assert!(line.len() < 8 * 1024, "a line has a bound: {} bytes", line.len());
}

#[test]
fn the_combined_form_is_apaches() {
    let site = proxy().site(HOST, apache()).table("[log]\naccess = \"combined\"").start();
    let agent = "Mozilla \"quoted\" \\ back";
    site.ask("/download?bytes=77")
        .header("User-Agent", agent)
        .header("Referer", "https://a.example/x")
        .send()
        .status(200);
    let line = within(Duration::from_secs(5), || {
        site.stdout().lines().find(|line| line.contains("bytes=77")).map(str::to_owned)
    });
    let line = line.expect("a line");
    let form = regex::Regex::new(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /download\?bytes=77 HTTP/1\.1" 200 77 "https://a\.example/x" "Mozilla \\"quoted\\" \\\\ back""#,
    )
    .unwrap();
    assert!(form.is_match(&line), "{line}");
}

#[test]
fn the_log_can_be_a_file_or_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let site = proxy().site(HOST, apache()).table(&format!("[log]\nfile = \"{}\"", path.display())).start();
    site.get("/echo?to-a-file").status(200);
    let written = || std::fs::read_to_string(&path).ok().filter(|text| text.contains("to-a-file"));
    assert!(within(Duration::from_secs(5), written).is_some());
    assert!(!site.stdout().contains("to-a-file"));
    let mut off = proxy().site(HOST, apache()).table("[log]\naccess = \"off\"").start();
    off.get("/echo?unlogged").status(200);
    // Whatever there is to write is written before the end.
    off.signal("INT");
    off.ends_within(Duration::from_secs(10));
    assert!(!off.stdout().contains("unlogged"), "{}", off.stdout());
}

#[test]
fn a_reader_that_is_stuck_does_not_hold_requests_up() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("log.fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Opened for both, so that nobody waits for a reader; nobody ever reads.
    let _held = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let site = proxy()
        .site(HOST, apache())
        .table(&format!("[log]\nfile = \"{}\"", fifo.display()))
        .plain_serves()
        .start();
    let mut wire = site.wire();
    for _ in 0..1000 {
        wire.say(&format!("GET /_assets/0a1b2c3d/Css/site.css HTTP/1.1\nHost: {HOST}\n\n"))
            .reply()
            .status(200);
    }
}

#[test]
fn metrics_count_requests_and_stay_small() {
    let site = proxy().site(HOST, apache()).start();
    for n in 0..20 {
        site.ask(&format!("/path-{n}")).method("PUT").send().status(405);
        let host = format!("host-{n}.example.net");
        site.ask_host(Over::H1, &host, "/").arg("-k").send().status(421);
    }
    let refused = |reason: &str| site.counted(&[metric::REFUSALS, reason, "mode=\"enforced\""]);
    let grown = within(Duration::from_secs(5), || (refused("method-not-allowed") >= 20.0).then_some(()));
    assert!(grown.is_some(), "refusals are counted by reason:\n{}", site.metrics());
    let metrics = site.metrics();
    for unbounded in ["path-7", "host-7", "127.0.0.1"] {
        assert!(!metrics.contains(unbounded), "{unbounded} must not become a label:\n{metrics}");
    }
    assert!(metrics.trim_end().ends_with("# EOF"), "OpenMetrics");
    assert!(metrics.lines().count() < 2000);
}

#[test]
fn the_admin_listener_serves_nothing_else() {
    let site = proxy().site(HOST, apache()).start();
    site.admin("/-/healthz").status(200);
    site.admin("/-/readyz").status(200);
    site.admin("/").status(404);
    site.get("/-/healthz").status(404).hides("ok");
    site.get("/metrics").status(404);
}

/// `[metrics] emf`: what was counted since the last line, among those of the requests; `replay` passes over it.
#[test]
fn cloudwatch_is_told_what_was_counted_between_the_lines_of_the_log() {
    let origin = Recorder::answering(OK);
    let mut site = proxy()
        .site(HOST, &origin)
        .table("[metrics]\nemf = true\nemf_namespace = \"Shop\"\nemf_every = \"1 s\"")
        .start();
    for _ in 0..3 {
        site.get("/").status(200);
    }
    site.ask("/typo3conf/LocalConfiguration.php").send().status(404);
    let told = |site: &Ravelin| -> Vec<serde_json::Value> {
        let lines = site.stdout();
        let emf = lines.lines().filter(|line| line.starts_with("{\"_aws\":"));
        emf.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let sum = |lines: &[serde_json::Value], name: &str| -> u64 {
        lines.iter().filter_map(|line| line[name].as_u64()).sum()
    };
    let found = within(Duration::from_secs(10), || (sum(&told(&site), "Requests") >= 4).then(|| told(&site)));
    let lines = found.unwrap_or_else(|| panic!("{}", site.stdout()));
    assert_eq!((sum(&lines, "Requests"), sum(&lines, "Requests4xx"), sum(&lines, "Refusals")), (4, 1, 1));
    for line in &lines {
        let metrics = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(metrics["Namespace"], "Shop");
        for metric in metrics["Metrics"].as_array().expect("a list") {
            let name = metric["Name"].as_str().expect("a name");
            assert!(line[name].is_u64(), "{name} has no value in {line}");
        }
        for dimension in metrics["Dimensions"][0].as_array().expect("a list") {
            assert!(line[dimension.as_str().expect("a name")].is_string(), "{line}");
        }
    }
    assert!(lines.iter().any(|line| line["Site"] == HOST), "{lines:?}");
    let (log, config) = (site.dir().join("whole.log"), site.config());
    site.signal("TERM");
    assert!(site.ends_within(Duration::from_secs(20)).success());
    std::fs::write(&log, site.stdout()).expect("a file");
    let said = run(ravelin().arg("replay").arg("--config").arg(&config).arg(&log));
    assert!(said.code == Some(0) && said.out.contains("4 requests"), "{}", said.all());
    let skipped = said.all();
    assert!(!skipped.contains("not read") && !skipped.contains("not understood"), "{skipped}");
}
