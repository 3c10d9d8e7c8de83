//! Yesterday's log before today's rules: what would be blocked is said before anybody is.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::harness::curl::Over;
use crate::harness::{HOST, Said, apache, certs, proxy, ravelin, run};

const COMBINED: &str = r#"203.0.113.9 - - [21/Nov/2026:08:00:00 +0100] "GET / HTTP/1.1" 200 4711 "-" "Mozilla/5.0"
203.0.113.9 - - [21/Nov/2026:08:00:01 +0100] "GET /fileadmin/a%20b.pdf HTTP/1.1" 200 99 "https://www.example.org/" "Mozilla/5.0"
198.51.100.7 - - [21/Nov/2026:08:00:02 +0100] "PROPFIND /fileadmin/ HTTP/1.1" 207 99 "-" "Microsoft-WebDAV"
198.51.100.7 - - [21/Nov/2026:08:00:03 +0100] "PUT /fileadmin/x.php HTTP/1.1" 405 99 "-" "Microsoft-WebDAV"
2001:db8::5 - - [21/Nov/2026:08:00:04 +0100] "GET /%2e%2e%2fetc/passwd HTTP/1.1" 404 99 "-" "curl/8"
192.0.2.66 - - [21/Nov/2026:08:00:05 +0100] "\x16\x03\x01" 400 0 "-" "-"
"#;

fn rules(dir: &Path, more: &str) {
    certs::issue(dir, "www", &[HOST]);
    let text = format!(
        "[[listen]]\nurl = \"https://127.0.0.1:0\"\ncertificates = [{{ chain = \"www.pem\", key = \"www.key\" }}]\n\
         [[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:9\"\npreset = \"typo3\"\n{more}"
    );
    std::fs::write(dir.join("ravelin.toml"), text).unwrap();
}

fn replay(dir: &Path, arguments: &[&str]) -> Said {
    run(ravelin().current_dir(dir).args(["replay", "--config", "ravelin.toml"]).args(arguments))
}

#[test]
fn apaches_log_of_yesterday_says_who_would_have_been_blocked() {
    let dir = tempfile::tempdir().unwrap();
    rules(dir.path(), "");
    std::fs::write(dir.path().join("access.log"), COMBINED).unwrap();
    let said = replay(dir.path(), &["access.log"]);
    assert!(said.code == Some(0), "{}", said.all());
    let told = said.all();
    for part in [
        "5 requests of 3 clients, 2026-11-21T07:00:00Z to 2026-11-21T07:00:04Z",
        "1 line could not be read; the first is access.log:6: the request line is not METHOD TARGET HTTP/…",
        "3 requests of 2 clients; 1 of them had been answered with success",
        "served: PROPFIND /fileadmin/ from 198.51.100.7",
        "e.g. PUT /fileadmin/x.php from 198.51.100.7",
        "method-not-allowed",
        "2001:db8::5",
    ] {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
    assert!(!told.contains("203.0.113.9"), "who did nothing is not listed:\n{told}");
    let strict = replay(dir.path(), &["--strict", "access.log"]);
    assert!(strict.code != Some(0), "a served request would be blocked: {}", strict.all());
}

#[test]
fn rules_that_only_report_are_told_as_such_and_name_their_line() {
    let dir = tempfile::tempdir().unwrap();
    rules(dir.path(), "methods = [\"GET\", \"POST\"]\n[site.rules]\nmethod = \"report\"\n");
    let mut piped = ravelin()
        .current_dir(dir.path())
        .args(["replay", "--config", "ravelin.toml", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(COMBINED.as_bytes()).unwrap();
    let told = String::from_utf8(piped.wait_with_output().unwrap().stdout).unwrap();
    let row = told.lines().find(|line| line.starts_with("method-not-allowed")).unwrap_or_default();
    assert!(row.ends_with("ravelin.toml:8 (only reported)"), "{told}");
}

#[test]
fn our_own_log_of_a_dry_run_is_replayed_with_its_hosts() {
    let site = proxy().site(HOST, apache()).table("[rules]\nmode = \"report\"").start();
    site.get("/").status(200);
    site.ask_over(Over::H2, "/echo?dry-run").method("PUT").send().status(200);
    let line = site.logged("/echo?dry-run");
    let dir = tempfile::tempdir().unwrap();
    rules(dir.path(), "");
    std::fs::write(dir.path().join("access.json"), site.stdout()).unwrap();
    let said = replay(dir.path(), &["access.json"]);
    let told = said.all();
    assert!(told.contains("served: PUT /echo?dry-run from 127.0.0.1"), "{line}\n{told}");
    assert!(told.contains("1 of them had been answered with success"), "{told}");
}

#[test]
fn a_log_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    rules(dir.path(), "");
    std::fs::write(dir.path().join("other.log"), "Nov 21 08:00:00 host sshd[1]: hello\n").unwrap();
    for (log, part) in [("other.log", "no line was a request"), ("missing.log", "cannot read missing.log")] {
        let said = replay(dir.path(), &[log]);
        assert!(said.code != Some(0) && said.all().contains(part), "{}", said.all());
    }
}

#[test]
fn jails_count_in_the_time_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    rules(
        dir.path(),
        "[[jail]]\nname = \"door\"\nmatch = { status = 401 }\nmax_retry = 3\nfind_time = \"1 min\"\n",
    );
    let line = |client: &str, minute: u32, status: u32| {
        format!(
            "{client} - - [21/Nov/2026:08:{minute:02}:00 +0100] \"GET / HTTP/1.1\" {status} 1 \"-\" \"-\"\n"
        )
    };
    let quick: String = (0..3).map(|_| line("192.0.2.1", 0, 401)).collect();
    let slow: String = (0..6).map(|minute| line("192.0.2.2", 2 * minute, 401)).collect();
    let log = quick + &line("192.0.2.1", 5, 200) + &slow + &line("192.0.2.1", 30, 200);
    std::fs::write(dir.path().join("access.log"), log).unwrap();
    let told = replay(dir.path(), &["access.log"]).all();
    assert!(told.contains("1 request of 1 client; 1 of them had been answered with success"), "{told}");
    assert!(told.contains("banned") && told.contains("served: GET / from 192.0.2.1"), "{told}");
}

/// Every reason that a log can show, in one night.
#[test]
fn every_rule_that_a_log_can_show_is_told_before_it_refuses_anybody() {
    let dir = tempfile::tempdir().unwrap();
    rules(
        dir.path(),
        "methods = [\"GET\", \"POST\"]\nbody_size = \"1 MiB\"\n[site.rules]\nmode = \"report\"\npath = \"report\"\n\
         [[site.access]]\npath = \"/intern\"\nallow = [\"192.0.2.0/24\"]\n\
         [rules]\nmode = \"report\"\n\
         [[rate]]\nname = \"search\"\npath = \"/search\"\nrate = \"1/h\"\nburst = 1\n\
         [[jail]]\nname = \"door\"\nmatch = { status = 401 }\nmax_retry = 2\n",
    );
    let line = |second: u32, request: &str, status: u32, bytes: &str| {
        format!(
            "203.0.113.9 - - [21/Nov/2026:08:00:{second:02} +0100] \"{request} HTTP/1.1\" {status} {bytes} \"-\" \"-\"\n"
        )
    };
    let mut log = String::new();
    for request in [
        "PUT /x",
        "GET /%2e%2e%2fetc",
        "GET /intern/a",
        "GET /composer.json",
        "GET /typo3/install.php",
        "GET /typo3/?login_status=login",
        "GET /search",
        "GET /search",
    ] {
        log += &line(1, request, 200, "9");
    }
    for _ in 0..40 {
        log += &line(2, "POST /typo3/login", 200, "9");
    }
    log += &line(3, "GET /door", 401, "9");
    log += &line(4, "GET /door", 401, "9");
    log += &line(5, "GET /after", 200, "9");
    std::fs::write(dir.path().join("access.log"), log).unwrap();
    let told = replay(dir.path(), &["access.log"]).all();
    for (reason, place) in [
        ("method-not-allowed", "ravelin.toml:"),
        ("bad-path", ""),
        ("source-denied", "ravelin.toml:"),
        ("closed", "ravelin.toml:"),
        ("install-tool-closed", ""),
        ("login-in-query", ""),
        ("rate-limited", "limit `search`"),
        ("login-rate-limited", "limit `login`"),
        ("banned", "jail `door`"),
    ] {
        let about = |line: &&str| line.split_whitespace().next() == Some(reason);
        let at = told
            .lines()
            .position(|line| about(&line))
            .unwrap_or_else(|| panic!("{reason} is missing:\n{told}"));
        let row: Vec<&str> = told.lines().skip(at).take(2).collect();
        assert!(row[0].ends_with("(only reported)"), "{reason}: {row:?}\n{told}");
        assert!(told.contains(place), "{reason} does not say {place}:\n{told}");
    }
}

/// What Apache's log does not tell, ours does: the host, and how much the client sent.
#[test]
fn hosts_and_bodies_are_judged_where_the_log_tells_of_them() {
    let dir = tempfile::tempdir().unwrap();
    rules(dir.path(), "body_size = \"1 MiB\"\n[site.rules]\nsize = \"report\"\n");
    let line = |host: &str, received: u64| {
        let asked = format!("\"method\":\"POST\",\"host\":\"{host}\",\"target\":\"/form\"");
        format!(
            "{{\"time\":\"2026-11-21T07:00:00Z\",\"client\":\"203.0.113.9\",{asked},\"status\":200,\"received\":{received}}}\n"
        )
    };
    let vhost = format!("old.example.org:443 {}", COMBINED.lines().next().unwrap());
    let text = line(HOST, 1 << 20) + &line(HOST, (1 << 20) + 1) + &line("gone.example.org", 1) + &vhost;
    std::fs::write(dir.path().join("access.log"), text).unwrap();
    let told = replay(dir.path(), &["access.log"]).all();
    let row = |reason: &str| {
        let row = told.lines().find(|line| line.split_whitespace().next() == Some(reason));
        row.unwrap_or_else(|| panic!("{reason} is missing:\n{told}")).to_owned()
    };
    let (size, host) = (row("body-too-large"), row("unknown-host"));
    assert_eq!(size.split_whitespace().nth(1), Some("1"), "one byte too many:\n{told}");
    assert!(size.ends_with("(only reported)"), "{told}");
    assert_eq!(host.split_whitespace().nth(1), Some("2"), "{told}");
}
