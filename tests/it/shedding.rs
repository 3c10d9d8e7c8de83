//! When places are short: who has to go, who is served, and that it is over as soon as it is over.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::harness::curl::Over;
use crate::harness::recorder::{self, Next, OK};
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy with these limits in front of an origin that answers everything.
fn limited(limits: &str) -> (Ravelin, Recorder) {
    let origin = Recorder::answering(recorder::OK);
    let table = format!("[limits]\n{limits}");
    let site = proxy().bare_site(HOST, &origin).table(&table).plain_serves().start();
    (site, origin)
}

/// Asks once; whether the answer is 200 and the connection stays open.
fn is_served(wire: &mut Wire) -> bool {
    wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
    let mut bytes = Vec::new();
    within(PATIENCE, || {
        let (more, closed) = wire.whatever(Duration::from_millis(2));
        bytes.extend(more);
        (bytes.ends_with(b"ok") || closed).then_some(())
    });
    bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"ok")
}

fn is_closed(wire: &mut Wire) -> bool {
    wire.whatever(Duration::from_millis(1)).1
}

/// How many of `wires` are closed, once at least `most` are.
fn closed(wires: &mut [Wire], most: usize) -> usize {
    let mut gone = vec![false; wires.len()];
    within(PATIENCE, || {
        for (gone, wire) in gone.iter_mut().zip(wires.iter_mut()) {
            *gone = *gone || is_closed(wire);
        }
        (gone.iter().filter(|gone| **gone).count() >= most).then_some(())
    });
    gone.iter().filter(|gone| **gone).count()
}

/// What the door has counted of `event`.
fn counted(site: &Ravelin, event: &str) -> u64 {
    let page = site.admin("/metrics").text();
    let wanted = format!("ravelin_door_events_total{{event=\"{event}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&wanted));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no {event} in\n{page}"))
}

#[test]
fn idle_connections_make_room_for_new_clients_the_oldest_first() {
    let (site, _origin) = limited("connections = 40\nconnections_per_client = 1000");
    let arrive = |count: usize| -> Vec<Wire> {
        (0..count)
            .map(|number| {
                let mut wire = site.wire();
                assert!(is_served(&mut wire), "client {number} of {count}");
                wire
            })
            .collect()
    };
    let mut first = arrive(40);
    let _later = arrive(30);
    assert!(closed(&mut first, 30) >= 30);
    assert!(counted(&site, "made-room") >= 30);
    assert_eq!(counted(&site, "full-total"), 0);
}

#[test]
fn busy_connections_do_not_make_room() {
    let origin = Recorder::scripted(|_, _, socket| {
        sleep(Duration::from_secs(4));
        let _ = socket.write_all(OK.as_bytes());
        Next::KeepAlive
    });
    let table = "[limits]\nconnections = 10\nconnections_per_client = 1000";
    let site = proxy().bare_site(HOST, &origin).table(table).plain_serves().start();
    let is_empty = || metric(&site, "connections_open").filter(|open| *open == 0);
    assert!(within(PATIENCE, is_empty).is_some(), "whoever waited for the port is gone");
    let open = |_| {
        let mut wire = site.wire();
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
        wire
    };
    let mut busy: Vec<Wire> = (0..10).map(open).collect();
    let under_way = || metric(&site, "requests_under_way").filter(|count| *count == 10);
    assert!(within(PATIENCE, under_way).is_some(), "all of them are let in");
    let full = within(PATIENCE, || site.wire().whatever(Duration::from_millis(300)).1.then_some(()));
    assert!(full.is_some(), "there is no place");
    for wire in &mut busy {
        wire.reply().status(200);
    }
}

#[test]
fn whoever_has_not_spoken_for_longest_makes_room_for_new_handshakes() {
    let (site, _origin) = limited("handshakes = 20\nconnections_per_client = 1000");
    let mut silent: Vec<Wire> = (0..60).map(|_| site.wire_to_tls_port()).collect();
    // They may have been slowed down by us, for a second.
    sleep(Duration::from_millis(1200));
    for _ in 0..10 {
        site.get("/").status(200);
    }
    assert!(closed(&mut silent, 10) >= 10);
    assert!((10..=40).contains(&counted(&site, "shed-opening")));
}

#[test]
fn slow_heads_above_the_limit_are_answered_early_the_oldest_first() {
    let (site, _origin) = limited("slow_heads = 5\nconnections_per_client = 1000\nheader_read = \"60 s\"");
    let mut slow: Vec<Wire> = (0..20).map(|_| site.wire()).collect();
    for wire in &mut slow {
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\nX-Slow: "));
    }
    let mut answered = vec![false; slow.len()];
    let began = Instant::now();
    within(Duration::from_secs(20), || {
        for (answered, wire) in answered.iter_mut().zip(slow.iter_mut()) {
            if !*answered {
                let (bytes, closed) = wire.whatever(Duration::from_millis(1));
                *answered = closed;
                assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "), "{bytes:?}");
            }
        }
        (answered.iter().filter(|answered| **answered).count() >= 15).then_some(())
    });
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 15, "after {:?}", began.elapsed());
    assert_eq!(counted(&site, "shed-head"), 15);
    site.ask_over(Over::Plain, "/").send().status(200);
}

/// The value of a metric.
fn metric(site: &Ravelin, name: &str) -> Option<u64> {
    let page = site.admin("/metrics").text();
    let wanted = format!("ravelin_{name} ");
    page.lines().find_map(|line| line.strip_prefix(&wanted)).and_then(|number| number.trim().parse().ok())
}

/// An origin that takes `time` for whatever is below `/slow`, and says how many requests it had at once at most.
fn slow_origin(time: Duration) -> (Recorder, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let origin = Recorder::scripted(move |_, head, socket| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if head.starts_with(b"GET /slow") {
            sleep(time);
        }
        now.fetch_sub(1, Ordering::SeqCst);
        let sent = socket.write_all(OK.as_bytes());
        if sent.is_ok() { Next::KeepAlive } else { Next::Close }
    });
    (origin, most)
}

/// Sends a request on behalf of a client behind a trusted proxy.
fn ask_for(wire: &mut Wire, client: &str, path: &str) {
    wire.say(&format!("GET {path} HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {client}\n\n"));
}

const TRUSTED: &str = "[client]\ntrusted_proxies = [\"127.0.0.1\"]";

#[test]
fn more_requests_than_one_client_may_have_get_503_and_others_are_served() {
    let (origin, _) = slow_origin(Duration::from_secs(2));
    let table = format!("[limits]\nrequests_per_client = 10\n{TRUSTED}");
    let site = proxy().site(HOST, &origin).table(&table).plain_serves().start();
    let mut wires: Vec<Wire> = (0..30).map(|_| site.wire()).collect();
    for wire in &mut wires {
        ask_for(wire, "192.0.2.1", "/slow");
    }
    let mut other = site.wire();
    ask_for(&mut other, "192.0.2.2", "/");
    other.reply().status(200);
    let replies: Vec<_> = wires.iter_mut().map(Wire::reply).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert_eq!(refused.len(), 20);
    assert!(refused.iter().all(|reply| reply.header("retry-after") == Some("2")));
    for reply in &refused {
        reply.hardened();
    }
    assert_eq!(metric(&site, "overload_refusals_total{limit=\"client\"}"), Some(20));
    assert_eq!(metric(&site, "requests_under_way"), Some(0));
    ask_for(&mut other, "192.0.2.1", "/");
    other.reply().status(200);
}

#[test]
fn more_requests_than_the_process_may_have_get_503() {
    let (origin, _) = slow_origin(Duration::from_secs(2));
    let site = proxy().bare_site(HOST, &origin).table("[limits]\nrequests = 5").plain_serves().start();
    let mut wires: Vec<Wire> = (0..12).map(|_| site.wire()).collect();
    for wire in &mut wires {
        ask_for(wire, "-", "/slow");
    }
    let refused = wires.iter_mut().filter_map(|wire| (wire.reply().status == 503).then_some(())).count();
    assert_eq!(refused, 7);
    site.get("/").status(200);
}

/// A page that asks for a hundred files at once, in front of an origin that takes eight.
#[test]
fn what_an_origin_cannot_take_waits_and_is_served() {
    let (origin, most) = slow_origin(Duration::from_millis(20));
    let pool = "[site.upstream_pool]\nrequests = 8";
    let site = proxy().bare_site(HOST, &origin).with(pool).table(TRUSTED).plain_serves().start();
    let mut wires: Vec<Wire> = (0..100).map(|_| site.wire()).collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        ask_for(wire, &format!("192.0.2.{}", number % 2 + 1), "/slow");
    }
    for wire in &mut wires {
        wire.reply().status(200);
    }
    let most = most.load(Ordering::SeqCst);
    assert!((5..=8).contains(&most), "{most} at once");
}

#[test]
fn a_client_that_floods_a_slow_page_waits_for_itself() {
    let (origin, most) = slow_origin(Duration::from_secs(3));
    let pool = "[site.upstream_pool]\nrequests = 8\nqueue = \"1 s\"";
    let site = proxy().bare_site(HOST, &origin).with(pool).table(TRUSTED).plain_serves().start();
    let mut flood: Vec<Wire> = (0..60).map(|_| site.wire()).collect();
    for wire in &mut flood {
        ask_for(wire, "192.0.2.1", "/slow");
    }
    let mut other = site.wire();
    for _ in 0..20 {
        ask_for(&mut other, "192.0.2.2", "/");
        other.reply().status(200);
    }
    let replies: Vec<_> = flood.iter_mut().map(Wire::reply).collect();
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert_eq!((served, refused.len()), (4, 56), "it has half of the places");
    assert!(refused.iter().all(|reply| reply.header("retry-after") == Some("2")));
    assert!(most.load(Ordering::SeqCst) <= 8);
}

#[test]
fn a_long_answer_holds_no_place_of_its_origin() {
    let origin = Recorder::scripted(|_, head, socket| {
        let sent = if head.starts_with(b"GET /stream") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
            let sent = socket.write_all(head.as_bytes());
            sleep(Duration::from_secs(4));
            sent
        } else {
            socket.write_all(OK.as_bytes())
        };
        if sent.is_ok() { Next::KeepAlive } else { Next::Close }
    });
    let pool = "[site.upstream_pool]\nrequests = 2\nqueue = \"1 s\"";
    let site = proxy().bare_site(HOST, &origin).with(pool).plain_serves().start();
    let mut streams: Vec<Wire> = (0..10).map(|_| site.wire()).collect();
    for wire in &mut streams {
        ask_for(wire, "-", "/stream");
        wire.head().status(200);
    }
    site.get("/").status(200);
}

/// The fault of the facts: 128 files, 500 connections that say nothing.
#[test]
fn with_few_files_silent_connections_lock_nobody_out() {
    let origin = Recorder::answering(recorder::OK);
    let limits = "[limits]\nconnections_per_client = 10000";
    let mut site = proxy().bare_site(HOST, &origin).table(limits).plain_serves().open_files(128).start();
    let wires: Vec<Wire> = (0..500).map(|_| site.wire()).collect();
    let before = site.cpu_seconds();
    sleep(Duration::from_secs(2));
    let spent = site.cpu_seconds() - before;
    println!("500 connections with 128 files: {:.1} % of a core while they wait", spent * 50.0);
    assert!(spent < 0.1, "{spent} CPU seconds in two seconds: it spins");
    for _ in 0..20 {
        site.get("/").status(200);
    }
    assert!(site.lives());
    drop(wires);
    let began = Instant::now();
    let again = within(PATIENCE, || site.ask("/").try_send().ok().filter(|reply| reply.status == 200));
    println!("served again after {} ms", began.elapsed().as_millis());
    assert!(again.is_some(), "{}", site.stderr());
}

/// Sixty requests at once need sixty connections to the origin, for which there are no files.
#[test]
fn without_files_for_the_origin_requests_get_503_and_the_origin_is_not_blamed() {
    let (origin, _) = slow_origin(Duration::from_secs(3));
    let (other, _) = slow_origin(Duration::from_secs(3));
    let pool = "preset = \"none\"\n[site.upstream_pool]\nfail_after = 1\nretry_after = \"1 h\"";
    let limits = "[limits]\nconnections_per_client = 10000";
    let mut site = proxy()
        .shared_site(HOST, &[&origin.url(), &other.url()])
        .with(pool)
        .table(limits)
        .plain_serves()
        .open_files(128)
        .start();
    let open = |_| {
        let mut wire = site.wire();
        assert!(is_served(&mut wire));
        wire
    };
    let mut wires: Vec<Wire> = (0..60).map(open).collect();
    for wire in &mut wires {
        ask_for(wire, "-", "/slow");
    }
    let statuses: Vec<u16> = wires.iter_mut().map(|wire| wire.reply().status).collect();
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert!(count(200) > 0 && count(503) > 0 && count(200) + count(503) == 60, "{statuses:?}");
    drop(wires);
    assert!(site.lives());
    for _ in 0..10 {
        site.get("/").status(200);
    }
    assert!(!site.stderr().contains("left alone"), "{}", site.stderr());
}

/// An origin with answers of 50 MB.
fn large_origin() -> Recorder {
    Recorder::scripted(|_, head, socket| {
        if !head.starts_with(b"GET /large") {
            let sent = socket.write_all(OK.as_bytes());
            return if sent.is_ok() { Next::KeepAlive } else { Next::Close };
        }
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n");
        let piece = vec![b'x'; 100_000];
        for _ in 0..500 {
            if socket.write_all(&piece).is_err() {
                return Next::Close;
            }
        }
        Next::KeepAlive
    })
}

const ENOUGH: &str = "memory is no longer short";

/// Clients that take nothing of large answers, until memory is short; then what others see; then the end of it.
///
/// `over`: what is said when it is served again.
fn memory_runs_short(mut site: Ravelin, over: &[&str]) {
    // A head that is begun before, and ended while memory is short.
    let mut late = site.wire();
    late.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n"));
    let is_short = |site: &Ravelin| metric(site, "memory_short") == Some(1);
    let mut greedy = Vec::new();
    let short = within(Duration::from_mins(1), || {
        for _ in 0..10 {
            let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| site.wire_tls()));
            let Ok(mut wire) = opened else { break };
            wire.say(&format!("GET /large HTTP/1.1\nHost: {HOST}\n\n"));
            greedy.push(wire);
        }
        (is_short(&site) || !site.lives()).then_some(())
    });
    assert!(short.is_some() && site.lives(), "{} connections: {}", greedy.len(), site.stderr());
    let reply = late.say("\n").reply();
    let (bytes, _) = late.until_closed(PATIENCE);
    println!(
        "short after {} connections; a late request: {}; resident {} MB at most",
        greedy.len(),
        reply.status,
        site.resident_peak() / 1_000_000
    );
    reply.status(503).hardened();
    assert_eq!((reply.header("retry-after"), bytes.len()), (Some("2"), 0));
    let mut refused = site.wire();
    refused.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
    assert!(within(PATIENCE, || is_closed(&mut refused).then_some(())).is_some(), "nobody comes in");
    drop(greedy);
    let began = Instant::now();
    let again = within(Duration::from_secs(30), || {
        site.ask_over(Over::Plain, "/").try_send().ok().filter(|reply| reply.status == 200)
    });
    println!("served again after {} ms", began.elapsed().as_millis());
    assert!(again.is_some() && site.lives(), "{}", site.stderr());
    let said = site.stderr();
    assert!(said.contains("memory is short") && over.iter().any(|words| said.contains(words)), "{said}");
}

#[test]
fn a_process_that_may_take_little_memory_sheds_and_recovers() {
    let origin = large_origin();
    let limits = "[limits]\nmemory = \"96 MiB\"\nconnections_per_client = 10000\nheader_read = \"60 s\"";
    memory_runs_short(proxy().site(HOST, &origin).table(limits).plain_serves().start(), &[ENOUGH]);
}

#[test]
fn a_limit_of_address_space_is_not_met() {
    let origin = large_origin();
    let limits = "[limits]\nconnections_per_client = 10000\nheader_read = \"60 s\"";
    let site = proxy().site(HOST, &origin).table(limits).plain_serves();
    // What the allocator gives back is memory. Addresses it keeps, more or less of them: then they are lived with.
    memory_runs_short(site.address_space(256 << 20).start(), &[ENOUGH, "Serving goes on"]);
}

/// Everything at its limit at once, and one honest client.
#[test]
fn limits_do_not_stand_in_the_way_of_an_ordinary_load() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().bare_site(HOST, &origin).plain_serves().start();
    scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut wire = site.wire();
                for _ in 0..100 {
                    ask_for(&mut wire, "-", "/");
                    wire.reply().status(200);
                }
            });
        }
    });
    assert_eq!(metric(&site, "requests_under_way"), Some(0));
    assert_eq!(metric(&site, "overload_refusals_total{limit=\"client\"}"), Some(0));
}
