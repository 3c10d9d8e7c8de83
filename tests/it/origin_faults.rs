//! An origin that is down, slow, gone or mad: the client gets one clear, hardened answer with a reference,
//! and the log knows why.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::certs;
use crate::harness::curl::{Ask, Over};
use crate::harness::evil::{Act, At, Evil};
use crate::harness::names::field;
use crate::harness::ports::Port;
use crate::harness::recorder::{Next, OK};
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, Recorder, Wire, apache, log, proxy, test_file, within};

/// An origin that answers from now on at `port`.
fn rise(port: &Port) {
    let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 4096]);
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nrisen");
        }
    });
}

#[track_caller]
fn refused(site: &Ravelin, path: &str, status: u16, reason: &str) {
    let reply = site.ask(path).header("Accept", "text/html").send();
    reply.status(status).hardened();
    let id = reply.reference();
    let line = site.logged_as(&id);
    assert_eq!(log::text(&line, field::REASON), reason, "{line}");
    assert_eq!(line[field::STATUS], status, "{line}");
}

#[test]
fn an_origin_that_is_down_is_502_with_a_reference_that_is_in_the_log() {
    let closed = Port::reserve();
    let site = proxy().site(HOST, format!("http://127.0.0.1:{}", closed.number()).as_str()).start();
    refused(&site, "/", 502, "origin-unreachable");
    let page = site.ask("/").header("Accept", "text/html").send();
    page.hides("127.0.0.1").hides(&closed.number().to_string()).hides("refused");
}

#[test]
fn after_failures_a_member_is_left_alone() {
    // Reachable, so that it can count, and of no use: no TLS comes about.
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let ill = format!("https://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
            drop(socket);
        }
    });
    let good = Recorder::answering(OK);
    let site = proxy()
        .shared_site(HOST, &[&ill, &good.url()])
        .with("[site.upstream_pool]\nfail_after = 2\nretry_after = \"1 h\"")
        .start();
    for _ in 0..12 {
        // Nothing of the request went out, so the other member is asked instead.
        site.get("/").status(200).shows("ok");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "left alone after two failures");
}

#[test]
fn a_member_that_was_left_alone_is_found_again() {
    let port = Port::reserve();
    let good = Recorder::answering(OK);
    let site = proxy()
        .shared_site(HOST, &[&format!("http://127.0.0.1:{}", port.number()), &good.url()])
        .with("[site.upstream_pool]\nfail_after = 1\nretry_after = \"1 s\"")
        .start();
    for _ in 0..4 {
        site.get("/").status(200).shows("ok");
    }
    rise(&port);
    let risen = within(Duration::from_secs(10), || {
        Some(site.get("/")).filter(|reply| reply.status(200).text() == "risen")
    });
    assert!(risen.is_some(), "it is found again by itself");
}

#[test]
fn the_only_origin_is_asked_whatever_happened_before() {
    // There is nobody else to ask: leaving it alone would refuse what it may answer again by now.
    let port = Port::reserve();
    let url = format!("http://127.0.0.1:{}", port.number());
    let pool = "[site.upstream_pool]\nfail_after = 1\nretry_after = \"1 h\"";
    let site = proxy().site(HOST, url.as_str()).with(pool).start();
    for _ in 0..3 {
        refused(&site, "/", 502, "origin-unreachable");
    }
    rise(&port);
    site.get("/").status(200).shows("risen");
}

#[test]
fn a_slow_origin_is_504_after_the_configured_time() {
    let site = proxy()
        .site(HOST, apache())
        .with("first_byte = \"1 s\"\n[[site.path]]\npath = \"/slow\"\nname = \"patient\"\nfirst_byte = \"10 s\"")
        .start();
    let began = Instant::now();
    refused(&site, "/slow?ms=6000", 504, "origin-timeout");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "after {took:?}");
}

#[test]
fn the_backend_is_given_more_time_than_the_frontend() {
    let origin = Recorder::scripted(|_, head, socket| {
        if head.starts_with(b"GET /typo3/slow") {
            std::thread::sleep(Duration::from_secs(2));
        }
        let _ = socket.write_all(OK.as_bytes());
        Next::KeepAlive
    });
    let site = proxy().site(HOST, &origin).with("first_byte = \"1 s\"").start();
    // The preset says 240 s below /typo3, and a path beats what is said for the whole site.
    site.get("/typo3/slow").status(200);
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    #[serde(default)]
    at: At,
    post: Option<usize>,
    #[serde(default = "once")]
    times: usize,
    #[serde(default)]
    paced: bool,
    #[serde(with = "serde_norway::with::singleton_map_recursive")]
    does: Vec<Act>,
    #[serde(with = "serde_norway::with::singleton_map_recursive")]
    expect: Expect,
    #[serde(default = "once")]
    asked: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Refused(u16, String),
    Cut,
    Whole(u16, String),
}

fn once() -> usize {
    1
}

fn corpus() -> Vec<Case> {
    let text = std::fs::read_to_string(test_file("corpus/evil-origin.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

/// One case in front of its own origin, at its own host.
struct Trial {
    case: Case,
    host: String,
    origin: Evil,
}

impl Trial {
    fn new(number: usize, case: Case) -> Self {
        let origin = Evil::doing(case.at, &case.does);
        Self { host: format!("case-{number}.example.org"), origin, case }
    }

    fn run(&self, site: &Ravelin) {
        for over in [Over::H1, Over::H2] {
            self.origin.mend(false);
            let sent = self.meet(site, over);
            let asked = self.origin.asked();
            let most = sent * self.case.asked;
            assert!(asked <= most, "{over:?}: asked {asked} times for {sent} requests");
            if self.case.at != At::Nobody {
                self.origin.mend(true);
                self.ask(site, over, "/healthy").send().status(200).hardened().shows("ok");
            }
        }
    }

    /// Asks as often as the case says; how often that was.
    fn meet(&self, site: &Ravelin, over: Over) -> usize {
        let path = format!("/{}", self.case.name);
        if self.case.times > 1 && over == Over::H1 {
            let authority = certs::authority_pem();
            let mut wire = Wire::tls(site.https_port(), &self.host, &authority, &[b"http/1.1"]);
            for turn in 1..=self.case.times {
                let reply = wire.say(&format!("GET {path} HTTP/1.1\nHost: {}\n\n", self.host)).reply();
                self.judge(site, &path, over, Ok(reply));
                if self.case.paced {
                    let acted =
                        within(Duration::from_secs(10), || (self.origin.acted() >= turn).then_some(()));
                    assert!(acted.is_some(), "the origin has not done its part");
                }
            }
            return self.case.times;
        }
        let times = self.case.times.div_ceil(10);
        for _ in 0..times {
            self.judge(site, &path, over, self.ask(site, over, &path).try_send());
        }
        times
    }

    fn ask(&self, site: &Ravelin, over: Over, path: &str) -> Ask {
        let ask = site.ask_host(over, &self.host, path).header("Accept", "text/html");
        match self.case.post {
            Some(length) if path != "/healthy" => {
                let file = site.dir().join(format!("{}.body", self.case.name));
                std::fs::write(&file, vec![b'x'; length]).expect("the body is written");
                // Without `Expect`, so that the body is on its way when the answer comes.
                ask.header("Expect", "").arg("--data-binary").arg(&format!("@{}", file.display()))
            }
            _ => ask,
        }
    }

    fn judge(&self, site: &Ravelin, path: &str, over: Over, got: Result<Reply, String>) {
        match (&self.case.expect, got) {
            (Expect::Refused(status, reason), Ok(reply)) => {
                reply.status(*status).hardened().no_header("set-cookie");
                let line = site.logged_as(&reply.reference());
                let said = log::text(&line, field::REASON);
                assert!(reason.split(" or ").any(|reason| reason == said), "{over:?}: {said:?} in {line}");
            }
            (Expect::Whole(status, body), Ok(reply)) => {
                assert_eq!((reply.status(*status).hardened().text(), over), (body.clone(), over));
            }
            (Expect::Cut, Err(said)) => {
                assert!(!said.starts_with("exit Some(28)"), "{over:?}: the client was left waiting: {said}");
                let version = if over == Over::H2 { "HTTP/2" } else { "HTTP/1.1" };
                let ours = |line: &Value| {
                    log::text(line, field::TARGET) == path
                        && log::text(line, field::PROTOCOL).starts_with(version)
                        && log::text(line, field::ABORTED) == "origin"
                };
                let logged = within(Duration::from_secs(5), || site.log().into_iter().find(ours));
                assert!(logged.is_some(), "{over:?}: the log does not say that the origin broke off");
            }
            (expected, got) => panic!("{over:?}: expected {expected:?}, got {got:?}"),
        }
    }
}

#[test]
fn whatever_an_origin_does_the_client_gets_one_clear_answer() {
    let trials: Vec<Trial> = corpus().into_iter().enumerate().map(|(n, case)| Trial::new(n, case)).collect();
    assert!(trials.len() >= 50, "the corpus has {} cases", trials.len());
    let site = trials.iter().fold(proxy(), |proxy, trial| {
        proxy.site(&trial.host, trial.origin.url().as_str()).with("first_byte = \"1 s\"")
    });
    let site = site.table("[limits]\nworkers = 2\nbody_idle = \"1 s\"").start();
    // What is read in from the binary is no memory that an origin costs.
    let first = trials.iter().find(|trial| trial.case.at == At::Request).expect("a case");
    first.origin.mend(true);
    for over in [Over::H1, Over::H2] {
        first.ask(&site, over, "/healthy").send().status(200);
    }
    let before = site.resident();
    let wrong = Mutex::new(Vec::new());
    let queue = Mutex::new(trials.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(trial) = queue.lock().unwrap().next() else { break };
                    let run = catch_unwind(AssertUnwindSafe(|| trial.run(&site)));
                    if run.is_err() {
                        wrong.lock().unwrap().push(format!("{} [{}]", trial.case.name, trial.case.why));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} faults, each told above:\n  {}", wrong.len(), wrong.join("\n  "));
    let grown = site.resident_peak().saturating_sub(before);
    assert!(grown < 32 << 20, "the process grew by {} KiB", grown / 1024);
}

/// An origin that answers the first request of a connection and drops the connection when the second comes.
fn drops_the_second(seen: &Arc<AtomicUsize>) -> Recorder {
    let seen = Arc::clone(seen);
    let used: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    Recorder::scripted(move |connection, _, socket| {
        seen.fetch_add(1, Ordering::SeqCst);
        let mut used = used.lock().unwrap();
        if used.contains(&connection) {
            return Next::Close;
        }
        used.push(connection);
        let _ = socket.write_all(OK.as_bytes());
        Next::KeepAlive
    })
}

#[test]
fn a_get_on_a_dead_connection_is_retried_once() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origin = drops_the_second(&seen);
    let site = proxy().site(HOST, &origin).table("[limits]\nworkers = 1").plain_serves().start();
    let mut wire = site.wire();
    for _ in 0..6 {
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200).shows("ok");
    }
}

#[test]
fn a_post_whose_bytes_went_out_is_never_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let origin = drops_the_second(&seen);
    let site = proxy().site(HOST, &origin).table("[limits]\nworkers = 1").plain_serves().start();
    let mut wire = site.wire();
    wire.say(&format!("GET /first HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    let reply = wire.say(&format!("POST /order HTTP/1.1\nHost: {HOST}\nContent-Length: 5\n\nmoney")).reply();
    reply.status(502).hardened();
    assert_eq!(
        origin.text().matches("POST /order").count(),
        1,
        "a purchase is not repeated: {}",
        origin.text()
    );
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn a_pooled_connection_that_apache_closed_is_noticed_before_it_is_used() {
    let site = proxy().site(HOST, apache()).table("[limits]\nworkers = 1").start();
    site.ask("/echo?idle-first").body("a").send().status(200);
    // Apache's KeepAliveTimeout is 5 s.
    std::thread::sleep(Duration::from_millis(5600));
    site.ask("/echo?idle-second").body("b").send().status(200);
    let seen =
        within(Duration::from_secs(5), || Some(apache().saw("idle-second")).filter(|count| *count > 0));
    assert_eq!(seen, Some(1));
}

#[test]
fn several_origins_share_the_work_and_one_may_be_down() {
    let (one, two) = (Recorder::answering(OK), Recorder::answering(OK));
    let down = Port::reserve();
    let site = proxy().shared_site(HOST, &[&one.url(), &two.url()]).start();
    for _ in 0..20 {
        site.get("/").status(200);
    }
    assert!(!one.seen().is_empty() && !two.seen().is_empty(), "both are asked");
    let dead = format!("http://127.0.0.1:{}", down.number());
    let site = proxy().shared_site(HOST, &[&dead, &one.url()]).start();
    let failed = (0..20).filter(|_| site.get("/").status != 200).count();
    assert!(failed <= 6, "{failed} of 20 failed although one origin is well");
}

#[test]
fn an_https_origin_must_prove_who_it_is() {
    let inner = proxy().bare_site("origin.internal", apache()).start();
    let url = format!("https://127.0.0.1:{}", inner.https_port());
    let roots = format!("roots = \"{}\"\nserver_name = \"origin.internal\"", inner.authority().display());
    let with = |lines: &str| {
        let tls = format!("[site.upstream_tls]\n{lines}");
        proxy().bare_site("origin.internal", url.as_str()).with(&tls).start()
    };
    with(&roots).get("/echo").status(200);
    let stranger = with("server_name = \"origin.internal\"");
    stranger.get("/echo").status(502).hides("certificate");
    let wrong_name = roots.replace("server_name = \"origin.internal\"", "server_name = \"other.internal\"");
    with(&wrong_name).get("/echo").status(502);
    with("danger_accept_any_certificate = true\nserver_name = \"origin.internal\"").get("/echo").status(200);
    let wrong_pin = format!("{roots}\npin_sha256 = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]");
    with(&wrong_pin).get("/echo").status(502);
}

#[test]
fn an_origin_on_a_unix_socket_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("origin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 4096]);
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nunix");
        }
    });
    let site = proxy().site(HOST, format!("unix:{}", path.display()).as_str()).start();
    site.get("/").status(200).hardened().shows("unix");
}
