//! Health checks of a load balancer on the listeners that visitors use.

use std::time::Duration;

use crate::harness::curl::Over;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, proxy, within};

const ON: &str = "[health]\non_listeners = true";

/// Asks as an ALB does: by address, with its own name, over either listener.
#[track_caller]
fn checked(site: &Ravelin, path: &str) -> Vec<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\nHost: 10.0.3.9:8080\nConnection: close\nUser-Agent: ELB-HealthChecker/2.0\n\
         Accept-Encoding: gzip, compressed\n\n"
    );
    let plain = site.wire().say(&request).reply().hardened_shortly();
    let tls = site.wire_tls().say(&request).reply().hardened_shortly();
    vec![plain, tls]
}

trait Shortly {
    fn hardened_shortly(self) -> u16;
}

impl Shortly for crate::harness::reply::Reply {
    fn hardened_shortly(self) -> u16 {
        self.header_once("x-content-type-options", "nosniff").header_once("cache-control", "no-store");
        self.status
    }
}

#[test]
fn a_balancer_is_answered_whatever_the_host_and_without_a_line() {
    let origin = Recorder::answering(OK);
    // The plain listener redirects, `www` is the only host, and addresses belong to nobody.
    let mut site = proxy()
        .site(HOST, &origin)
        .table(ON)
        .table("[shutdown]\ndrain_delay = \"20 s\"")
        .keys("unknown_host = 421")
        .start();
    for _ in 0..20 {
        assert_eq!(checked(&site, "/-/readyz"), [200, 200]);
    }
    assert_eq!(checked(&site, "/-/healthz"), [200, 200]);
    site.ask_over(Over::H2, "/-/readyz").send().status(200).shows("ready");
    site.ask_over(Over::H2, "/-/readyz").method("HEAD").send().status(200);
    site.get("/afterwards").status(200);
    let logged = within(Duration::from_secs(5), || site.stdout().contains("/afterwards").then_some(()));
    assert!(logged.is_some(), "requests are logged: {}", site.stdout());
    assert!(!site.stdout().contains("/-/"), "health checks are not: {}", site.stdout());
    assert!(!origin.text().contains("/-/"), "the origin is not asked: {}", origin.text());
    site.signal("TERM");
    let unready =
        within(Duration::from_secs(5), || (checked(&site, "/-/readyz") == [503, 503]).then_some(()));
    assert!(unready.is_some(), "who goes down is not ready");
    assert_eq!(checked(&site, "/-/healthz"), [200, 200]);
    assert!(site.lives());
}

#[test]
fn nobody_else_learns_anything() {
    let origin = Recorder::answering(OK);
    let elsewhere = format!("{ON}\nsources = [\"192.0.2.0/24\"]");
    let cases = [(String::new(), ""), (elsewhere, ""), (ON.to_owned(), "X-Forwarded-For: 203.0.113.9\n")];
    for (table, fields) in cases {
        let site = proxy().site(HOST, &origin).table(&table).plain_serves().start();
        let ask = |host: &str, path: &str| {
            let text = format!("GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n{fields}\n");
            site.wire().say(&text).reply().status
        };
        assert_eq!(ask("10.0.3.9:8080", "/-/readyz"), 421, "{table:?} {fields:?}");
        // A site's own page of this name is the site's.
        assert_eq!(ask(HOST, "/-/readyz"), 200);
        assert!(origin.text().contains("GET /-/readyz"), "{table:?}: {}", origin.text());
    }
}

#[test]
fn what_is_no_clear_message_is_no_health_check() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).table(ON).plain_serves().start();
    for fields in ["Content-Length: 3\nContent-Length: 4\n\nabc", "Transfer-Encoding: chunked, x\n\n0\n\n"] {
        let status =
            site.wire().say(&format!("GET /-/readyz HTTP/1.1\nHost: {HOST}\n{fields}")).reply().status;
        assert_eq!(status, 400, "{fields:?}");
    }
    // The connection stays usable, and what follows takes the road.
    let mut wire = site.wire();
    let request = |path: &str| format!("GET {path} HTTP/1.1\nHost: {HOST}\n\n");
    wire.say(&request("/-/healthz")).reply().status(200).shows("alive");
    wire.say(&request("/")).reply().status(200).shows("ok");
}
