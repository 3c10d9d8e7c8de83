//! An origin that is down, slow, gone or mad: the client gets one clear, hardened answer with a reference,
//! and the log knows why.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::names::field;
use crate::harness::ports::Port;
use crate::harness::recorder::{Next, OK};
use crate::harness::{HOST, Ravelin, Recorder, apache, log, proxy, within};

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

#[test]
fn answers_that_are_not_one_clear_message_are_502() {
    const ANSWERS: [(&str, &[u8]); 14] = [
        ("garbage", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("http09", b"<html>hello</html>"),
        ("status", b"HTTP/1.1 999999 What\r\nContent-Length: 0\r\n\r\n"),
        ("version", b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("two-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        (
            "both",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("folded", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok"),
        ("nul", b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok"),
        ("bare-cr", b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: x=y\r\nContent-Length: 2\r\n\r\nok"),
        ("space-name", b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok"),
        ("length-sign", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
        ("unasked-101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n"),
        ("empty", b""),
    ];
    let origin = Recorder::scripted(|_, head, socket| {
        let asked = String::from_utf8_lossy(head).into_owned();
        let answer = ANSWERS.iter().find(|(name, _)| asked.starts_with(&format!("GET /{name} ")));
        let _ = socket.write_all(answer.map_or(OK.as_bytes(), |(_, bytes)| bytes));
        Next::Close
    });
    let site = proxy().site(HOST, &origin).with("[site.upstream_pool]\nfail_after = 1000").start();
    for (name, _) in ANSWERS {
        let began = Instant::now();
        let reply = site.get(&format!("/{name}"));
        assert_eq!(reply.status, 502, "{name}: {reply}");
        reply.hardened().no_header("set-cookie");
        assert!(began.elapsed() < Duration::from_secs(5), "{name} took {:?}", began.elapsed());
        site.get("/next").status(200).shows("ok");
    }
}

#[test]
fn endless_heads_and_endless_interim_answers_are_bounded() {
    let origin = Recorder::scripted(|_, head, socket| {
        let line: &[u8] = if head.starts_with(b"GET /interim") {
            b"HTTP/1.1 102 Processing\r\n\r\n"
        } else {
            b"X-More: 0123456789abcdef\r\n"
        };
        let _ =
            if head.starts_with(b"GET /interim") { Ok(()) } else { socket.write_all(b"HTTP/1.1 200 OK\r\n") };
        let block = line.repeat(500);
        for _ in 0..20_000 {
            if socket.write_all(&block).is_err() {
                break;
            }
        }
        Next::Close
    });
    let site = proxy().site(HOST, &origin).with("first_byte = \"3 s\"").start();
    let before = site.resident();
    for path in ["/interim", "/head"] {
        let began = Instant::now();
        site.get(path).status(502).hardened();
        assert!(began.elapsed() < Duration::from_secs(8), "{path} took {:?}", began.elapsed());
    }
    let grown = site.resident_peak().saturating_sub(before);
    assert!(grown < 16 << 20, "the process grew by {} KiB", grown / 1024);
}

#[test]
fn a_head_that_trickles_has_a_total_deadline() {
    let origin = Recorder::scripted(|_, _, socket| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\nok" {
            std::thread::sleep(Duration::from_millis(150));
            if socket.write_all(&[*byte]).is_err() {
                break;
            }
        }
        Next::Close
    });
    let site = proxy().site(HOST, &origin).with("first_byte = \"2 s\"").start();
    let began = Instant::now();
    site.get("/").status_in(&[502, 504]).hardened();
    assert!(began.elapsed() < Duration::from_secs(6), "after {:?}", began.elapsed());
}

#[test]
fn a_truncated_body_is_visible_to_the_client() {
    let origin = Recorder::scripted(|_, head, socket| {
        let answer: &[u8] = if head.starts_with(b"GET /chunked") {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"
        };
        let _ = socket.write_all(answer);
        Next::Close
    });
    let site = proxy().site(HOST, &origin).start();
    for path in ["/length", "/chunked"] {
        let answer = site.ask(path).try_send();
        assert!(answer.is_err(), "{path}: a cut answer must never look complete: {answer:?}");
        let h2 = site.ask_over(crate::harness::curl::Over::H2, path).try_send();
        assert!(h2.is_err(), "{path} over HTTP/2: {h2:?}");
    }
}

#[test]
fn bytes_behind_an_answer_never_become_the_next_one() {
    let origin = Recorder::scripted(|_, _, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned");
        Next::KeepAlive
    });
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let mut wire = site.wire();
    for _ in 0..10 {
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200).hides("poisoned");
    }
}

/// An origin that answers the first request of a connection and drops the connection when the second comes.
fn drops_the_second(seen: &Arc<AtomicUsize>) -> Recorder {
    let seen = Arc::clone(seen);
    let used: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
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
