//! Every limit: what is too slow, too large or too many is ended in time, and everybody else is served.

use std::time::{Duration, Instant};

use crate::harness::curl::Over;
use crate::harness::{HOST, Ravelin, Recorder, Wire, apache, proxy, recorder, within};

fn limited(limits: &str) -> Ravelin {
    proxy().site(HOST, apache()).table(&format!("[limits]\n{limits}")).plain_serves().start()
}

/// The status of the answer, 0 if there was none, and how long it took until the connection was closed.
fn end_of(wire: &mut Wire) -> (u16, Duration) {
    let (bytes, took) = wire.until_closed(Duration::from_secs(15));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, took)
}

#[test]
fn a_slow_head_is_answered_408_and_closed() {
    let site = limited("header_read = \"1 s\"");
    // Opened one after the other: the deadline runs from the moment a connection is there.
    for open in [Ravelin::wire, Ravelin::wire_tls] {
        let mut wire = open(&site);
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\nX-Slow: "));
        let (status, took) = end_of(&mut wire);
        assert!([408, 0].contains(&status), "answered {status}");
        assert!(took > Duration::from_millis(600) && took < Duration::from_secs(5), "after {took:?}");
    }
}

#[test]
fn a_head_that_trickles_has_a_total_deadline() {
    let site = limited("header_read = \"1 s\"");
    let mut wire = site.wire();
    wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\nX-Slow: "));
    let began = Instant::now();
    let mut closed = false;
    while began.elapsed() < Duration::from_secs(6) && !closed {
        wire.send("a");
        closed = wire.whatever(Duration::from_millis(100)).1;
    }
    assert!(
        closed && began.elapsed() < Duration::from_secs(4),
        "a byte now and then is no excuse: {:?}",
        began.elapsed()
    );
}

#[test]
fn the_default_header_deadline_is_ten_seconds_at_most() {
    let site = proxy().site(HOST, apache()).plain_serves().start();
    let mut wire = site.wire();
    wire.say("GET / HTTP/1.1\nHost: ");
    let (_, took) = end_of(&mut wire);
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(12), "after {took:?}");
}

#[test]
fn a_handshake_that_stalls_is_ended() {
    let site = limited("handshake = \"1 s\"");
    // The first half of a ClientHello.
    let mut wire = site.wire_to_tls_port();
    wire.send([0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3, 1, 2, 3]);
    let (_, took) = wire.until_closed(Duration::from_secs(8));
    assert!(took > Duration::from_millis(600), "after {took:?}");
}

#[test]
fn an_idle_connection_is_closed_quietly() {
    let site = limited("keep_alive = \"1 s\"");
    let mut wire = site.wire();
    wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    let (bytes, took) = wire.until_closed(Duration::from_secs(6));
    assert!(bytes.is_empty(), "an idle connection is owed no answer: {:?}", String::from_utf8_lossy(&bytes));
    assert!(took > Duration::from_millis(600), "after {took:?}");
}

#[test]
fn a_body_that_stops_is_ended() {
    let site = limited("body_idle = \"1 s\"");
    for mut wire in [site.wire(), site.wire_tls()] {
        wire.say(&format!("POST /upload HTTP/1.1\nHost: {HOST}\nContent-Length: 100\n\nonly this"));
        let (status, took) = end_of(&mut wire);
        assert!([408, 0].contains(&status), "answered {status}");
        assert!(took < Duration::from_secs(6), "after {took:?}");
    }
}

#[test]
fn a_body_that_trickles_below_the_rate_is_ended() {
    let site = limited("body_idle = \"5 s\"\nbody_rate = \"10 KiB\"");
    let mut wire = site.wire();
    wire.say(&format!("POST /upload HTTP/1.1\nHost: {HOST}\nContent-Length: 100000\n\n"));
    let began = Instant::now();
    let mut closed = false;
    while began.elapsed() < Duration::from_secs(20) && !closed {
        wire.send("x");
        closed = wire.whatever(Duration::from_millis(200)).1;
    }
    let took = began.elapsed();
    assert!(closed && took < Duration::from_secs(15), "the rate is looked at after ten seconds: {took:?}");
}

#[test]
fn a_slow_but_honest_upload_passes() {
    let site = limited("body_idle = \"2 s\"\nbody_rate = \"1 B\"");
    let mut wire = site.wire();
    wire.say(&format!("POST /upload HTTP/1.1\nHost: {HOST}\nContent-Length: 6\n\n"));
    for byte in ["a", "b", "c", "d", "e", "f"] {
        std::thread::sleep(Duration::from_millis(300));
        wire.send(byte);
    }
    assert_eq!(wire.reply().status(200).json()["bytes"], 6);
}

#[test]
fn a_head_that_is_too_large_is_431_and_a_long_address_414() {
    let site = limited("header_size = \"8 KiB\"\nheader_count = 20\nrequest_line = \"2 KiB\"");
    for over in [Over::H1, Over::H2, Over::Plain] {
        let large = site.ask_over(over, "/").header("X-Large", &"x".repeat(9000)).try_send();
        let many = (0..25)
            .fold(site.ask_over(over, "/"), |ask, n| ask.header(&format!("X-Many-{n}"), "1"))
            .try_send();
        let long = site.ask_over(over, &format!("/?{}", "y".repeat(3000))).try_send();
        for (what, reply, status) in [("large", large, 431), ("many", many, 431), ("long", long, 414)] {
            match reply {
                Ok(reply) => {
                    reply.status(status).hardened();
                }
                // Over HTTP/2 a field section beyond the announced size may end the stream.
                Err(said) => assert!(over == Over::H2, "{what} over {over:?}: {said}"),
            }
        }
        site.ask_over(over, &format!("/echo?{}", "z".repeat(1000))).send().status(200);
    }
}

#[test]
fn a_large_head_within_the_limits_passes() {
    let site = proxy().site(HOST, apache()).start();
    // Six nonces, two sessions, a token: what an editor's browser sends, with room to spare.
    let cookie = "n=".to_owned() + &"c".repeat(6000);
    for over in [Over::H1, Over::H2] {
        let seen = site.ask_over(over, "/echo").cookie(&cookie).send().status(200).json();
        assert_eq!(seen["server"]["HTTP_COOKIE"].as_str().map(str::len), Some(6002));
    }
}

#[test]
fn a_body_that_is_too_large_is_413_announced_or_not() {
    let site = proxy()
        .site(HOST, apache())
        .with("body_size = \"10 KiB\"\n[[site.path]]\npath = \"/upload\"\nbody_size = \"20 KiB\"")
        .plain_serves()
        .start();
    let (small, middle, large) = ("s".repeat(10_000), "m".repeat(15_000), "l".repeat(30_000));
    for over in [Over::H1, Over::H2, Over::Plain] {
        site.ask_over(over, "/echo").body(&small).send().status(200);
        site.ask_over(over, "/echo").body(&middle).send().status(413).hardened();
        site.ask_over(over, "/upload").body(&middle).send().status(200);
        site.ask_over(over, "/upload").body(&large).send().status(413).hardened();
    }
    let chunked =
        site.ask_over(Over::Plain, "/upload").header("Transfer-Encoding", "chunked").body(&large).send();
    chunked.status(413).hardened();
}

#[test]
fn a_long_response_head_passes_up_to_its_limit() {
    let site = proxy().bare_site(HOST, apache()).start();
    for over in [Over::H1, Over::H2] {
        let reply = site.ask_over(over, "/cache-tags?lines=8").send();
        assert_eq!(reply.status(200).all("x-typo3-cache-tags").len(), 8, "64 KiB of cache tags are ordinary");
    }
    site.get("/cache-tags?lines=20").status(502);
    let small = proxy().site(HOST, apache()).table("[limits]\nresponse_head = \"4 KiB\"").start();
    small.get("/cache-tags?lines=1").status(502).hardened();
    small.get("/").status(200);
}

#[test]
fn one_client_cannot_take_every_connection() {
    let site = limited("connections_per_client = 8");
    let mut wires: Vec<Wire> = (0..30).map(|_| site.wire()).collect();
    let served = wires
        .iter_mut()
        .filter_map(|wire| {
            wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
            let (bytes, _) = wire.whatever(Duration::from_millis(500));
            bytes.starts_with(b"HTTP/1.1 200").then_some(())
        })
        .count();
    assert!((1..=8).contains(&served), "{served} of 30 connections were served");
    drop(wires);
    let again = within(Duration::from_secs(5), || {
        site.ask_over(Over::Plain, "/").try_send().ok().filter(|r| r.status == 200)
    });
    assert!(again.is_some(), "once they are gone, the client is served again");
}

#[test]
fn there_is_a_limit_in_total() {
    let site = limited("connections = 10");
    let wires: Vec<Wire> = (0..40).map(|_| site.wire()).collect();
    drop(wires);
    let again = within(Duration::from_secs(5), || {
        site.ask_over(Over::Plain, "/").try_send().ok().filter(|r| r.status == 200)
    });
    assert!(again.is_some(), "the limit is no grave");
}

#[test]
fn running_out_of_files_is_survived_without_spinning() {
    let mut site = proxy().site(HOST, apache()).plain_serves().open_files(96).start();
    site.get("/").status(200);
    let said = site.stderr();
    assert!(said.contains("`limits.connections` = 10000 needs 13376 open files"), "{said}");
    let wires: Vec<Wire> = (0..300).map(|_| site.wire()).collect();
    let before = cpu_seconds(&site);
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_seconds(&site) - before;
    println!("measured: {spent} CPU seconds in two seconds of waiting for files");
    assert!(spent <= 0.1, "{spent} CPU seconds in two seconds of waiting for files: it spins");
    assert!(site.lives());
    // The oldest of the silent ones go for whoever comes.
    let served = (0..10).filter(|_| site.ask("/").try_send().is_ok_and(|reply| reply.status == 200)).count();
    assert_eq!(served, 10, "others are served meanwhile\n{}", site.stderr());
    let said = site.stderr();
    assert!(said.contains("open files (LimitNOFILE=)"), "the limit is called what it is:\n{said}");
    assert!(!said.contains("limit=\"limits.connections\""), "nor what it is not:\n{said}");
    drop(wires);
    let again =
        within(Duration::from_secs(10), || site.ask("/").try_send().ok().filter(|reply| reply.status == 200));
    assert!(again.is_some(), "it recovers once files are free again\n{}", site.stderr());
}

/// User and system time of the process so far (proc(5), fields 14 and 15, in ticks of 10 ms).
fn cpu_seconds(site: &Ravelin) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", site.pid())).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default().to_owned();
    let ticks: f64 =
        after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

#[test]
fn many_slow_clients_do_not_slow_an_honest_one() {
    let site = limited("header_read = \"5 s\"\nconnections_per_client = 1000");
    let mut wires: Vec<Wire> = (0..400).map(|_| site.wire()).collect();
    for wire in &mut wires {
        wire.say(&format!("POST / HTTP/1.1\nHost: {HOST}\nX-Slow: "));
    }
    for _ in 0..5 {
        let began = Instant::now();
        site.get("/").status(200);
        assert!(began.elapsed() < Duration::from_secs(2), "an honest client waited {:?}", began.elapsed());
    }
}

#[test]
fn requests_of_one_connection_do_not_mix_with_anothers() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let mut wire = site.wire();
            std::thread::spawn(move || {
                for n in 0..50 {
                    let path = format!("/thread{thread}/{n}");
                    wire.say(&format!("GET {path} HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(origin.text().matches("GET /thread").count(), 200);
}
