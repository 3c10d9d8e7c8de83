//! Start, reload, stop: nothing is lost on the way, and every failure names itself.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::ports::Port;
use crate::harness::recorder::{Next, OK};
use crate::harness::{HOST, Ravelin, Recorder, Wire, apache, certs, proxy, ravelin, run, within};

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// An origin whose `/slow` answers once `open` is set, and at the latest after half a minute.
fn patient(open: &Arc<AtomicBool>) -> Recorder {
    let open = Arc::clone(open);
    Recorder::scripted(move |_, head, socket| {
        if head.starts_with(b"GET /slow") {
            within(Duration::from_secs(30), || open.load(Ordering::Relaxed).then_some(()));
        }
        let _ = socket.write_all(OK.as_bytes());
        Next::KeepAlive
    })
}

/// Waits until the origin has been sent `text`: then the request is under way.
#[track_caller]
fn under_way(origin: &Recorder, text: &str) {
    let seen = within(PATIENCE, || origin.text().contains(text).then_some(()));
    assert!(seen.is_some(), "the origin never saw {text:?}: {}", origin.text());
}

/// Replaces `from` by `to` in the configuration file.
#[track_caller]
fn edit(site: &Ravelin, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "nothing to replace: {from:?} in\n{text}");
    std::fs::write(site.config(), text.replace(from, to)).unwrap();
}

fn generation(value: &str) -> String {
    format!("[site.headers]\nX-Generation = \"{value}\"")
}

#[track_caller]
fn serves(site: &Ravelin, value: &str) {
    let seen = || site.ask("/").try_send().ok().filter(|reply| reply.header("x-generation") == Some(value));
    assert!(
        within(Duration::from_secs(10), seen).is_some(),
        "generation {value} is not served:\n{}",
        site.stderr()
    );
}

#[test]
fn a_reload_under_load_loses_nothing() {
    let site = proxy().site(HOST, apache()).with(&generation("0")).plain_serves().start();
    serves(&site, "0");
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = [true, false]
        .into_iter()
        .map(|keep| {
            let (stop, answered, failed) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
            let port = site.http_port();
            std::thread::spawn(move || {
                let mut wire = Wire::plain(port);
                while !stop.load(Ordering::Relaxed) {
                    let connection = if keep { "keep-alive" } else { "close" };
                    wire.say(&format!("GET /_assets/0a1b2c3d/Css/site.css HTTP/1.1\nHost: {HOST}\nConnection: {connection}\n\n"));
                    let count = if wire.reply().status == 200 { &answered } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    if !keep {
                        wire = Wire::plain(port);
                    }
                }
            })
        })
        .collect();
    for n in 1..=10 {
        edit(&site, &format!("X-Generation = \"{}\"", n - 1), &format!("X-Generation = \"{n}\""));
        site.signal("HUP");
        serves(&site, &n.to_string());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client lost its connection during a reload");
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(answered.load(Ordering::Relaxed) > 50, "there was load: {answered:?}");
}

#[test]
fn a_bad_reload_changes_nothing_and_says_why() {
    let mut site = proxy().site(HOST, apache()).with(&generation("good")).start();
    for (from, to, says) in [
        ("X-Generation", "[broken", "ravelin.toml"),
        ("upstream =", "upstraem =", "upstream"),
        ("http://127.0.0.1", "ftp://127.0.0.1", "ftp"),
        ("site0.pem", "missing.pem", "missing.pem"),
    ] {
        let before = std::fs::read_to_string(site.config()).unwrap();
        edit(&site, from, to);
        site.signal("HUP");
        let said = within(Duration::from_secs(10), || site.stderr().contains(says).then_some(()));
        assert!(said.is_some(), "a complaint about {says:?} in:\n{}", site.stderr());
        assert!(site.lives());
        site.get("/").status(200).header_once("x-generation", "good");
        std::fs::write(site.config(), before).unwrap();
    }
    edit(&site, "\"good\"", "\"better\"");
    site.signal("HUP");
    serves(&site, "better");
}

#[test]
fn a_new_certificate_is_shown_after_a_reload() {
    let site = proxy().site(HOST, apache()).start();
    let shown = || {
        let target = format!("127.0.0.1:{}", site.https_port());
        let mut s_client = Command::new("openssl");
        s_client
            .args(["s_client", "-connect", &target, "-servername", HOST])
            .stdin(std::process::Stdio::null());
        let all = run(&mut s_client).out;
        all.split("-----BEGIN CERTIFICATE-----")
            .nth(1)
            .map(|rest| rest.split("-----END").next().unwrap_or_default().to_owned())
    };
    let before = shown().expect("a certificate");
    certs::issue(site.dir(), "site0", &[HOST]);
    assert_eq!(shown().as_ref(), Some(&before), "not before it is told to");
    site.signal("HUP");
    let changed = within(Duration::from_secs(5), || shown().filter(|now| *now != before));
    assert!(changed.is_some(), "the new certificate is not shown:\n{}", site.stderr());

    // A key that does not fit is refused, and the certificate in use stays.
    let now = shown();
    let other = certs::issue(site.dir(), "other", &["other.example.org"]);
    std::fs::copy(other.key, site.dir().join("site0.key")).unwrap();
    site.signal("HUP");
    assert!(
        within(Duration::from_secs(5), || site.stderr().contains("site0.key").then_some(())).is_some(),
        "{}",
        site.stderr()
    );
    assert_eq!(shown(), now);
}

#[test]
fn a_stop_finishes_what_is_under_way() {
    let shutdown = "[shutdown]\ndrain_delay = \"3 s\"\ngrace = \"20 s\"";
    let open = Arc::new(AtomicBool::new(false));
    let origin = patient(&open);
    let mut site = proxy().site(HOST, &origin).table(shutdown).plain_serves().start();
    site.admin("/-/readyz").status(200);
    let mut busy = site.wire_tls();
    busy.say(&format!("GET /slow HTTP/1.1\nHost: {HOST}\n\n"));
    under_way(&origin, "GET /slow");
    let mut sending = site.wire();
    sending.say(&format!("POST /upload HTTP/1.1\nHost: {HOST}\nContent-Length: 6\n\nabc"));
    under_way(&origin, "POST /upload");
    site.signal("TERM");
    let unready =
        within(Duration::from_secs(2), || site.admin_status("/-/readyz").filter(|status| *status == 503));
    assert!(unready.is_some(), "readiness goes first");
    assert_eq!(site.admin_status("/-/healthz"), Some(200), "it is alive all the same");
    site.get("/").status(200);
    let closed = || TcpStream::connect(("127.0.0.1", site.http_port())).err();
    assert!(within(PATIENCE, closed).is_some(), "then nobody else is let in");
    sending.send("def");
    sending.reply().status(200).hardened().shows("ok");
    assert!(origin.text().contains("abcdef"), "an upload is finished: {}", origin.text());
    open.store(true, Ordering::Relaxed);
    busy.reply().status(200).hardened().shows("ok");
    let status = site.ends_within(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", site.stderr());
}

/// An origin that sends half of a page and the rest once `open` is set, and takes uploads.
fn halting(open: &Arc<AtomicBool>) -> Recorder {
    let open = Arc::clone(open);
    Recorder::scripted(move |_, head, socket| {
        if head.starts_with(b"GET /download") {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789");
            within(Duration::from_secs(30), || open.load(Ordering::Relaxed).then_some(()));
            let _ = socket.write_all(b"abcdefghij");
        } else {
            let _ = socket.write_all(OK.as_bytes());
        }
        Next::KeepAlive
    })
}

#[test]
fn fifty_slow_uploads_and_fifty_slow_downloads_outlive_a_sigterm() {
    let open = Arc::new(AtomicBool::new(false));
    let origin = halting(&open);
    let stop = "[shutdown]\ndrain_delay = \"0 s\"\ngrace = \"20 s\"\nstop_timeout = \"30 s\"";
    let mut site = proxy().site(HOST, &origin).table(stop).plain_serves().start();
    let connect = |number: usize| if number.is_multiple_of(2) { site.wire() } else { site.wire_tls() };
    let mut downloads: Vec<Wire> = (0..50).map(connect).collect();
    for (number, wire) in downloads.iter_mut().enumerate() {
        wire.say(&format!("GET /download/{number}/ HTTP/1.1\nHost: {HOST}\n\n"));
        assert_eq!(wire.head().status, 200);
    }
    let mut uploads: Vec<Wire> = (0..50).map(connect).collect();
    for (number, wire) in uploads.iter_mut().enumerate() {
        wire.say(&format!("POST /upload/{number}/ HTTP/1.1\nHost: {HOST}\nContent-Length: 6\n\nabc"));
        under_way(&origin, &format!("POST /upload/{number}/"));
    }
    site.signal("TERM");
    let refused = || TcpStream::connect(("127.0.0.1", site.http_port())).err();
    assert!(within(PATIENCE, refused).is_some(), "nobody else is let in");
    for wire in &mut uploads {
        wire.send("def");
    }
    open.store(true, Ordering::Relaxed);
    for wire in &mut uploads {
        wire.reply().status(200).header_once("connection", "close").shows("ok");
    }
    for wire in &mut downloads {
        assert_eq!(wire.exactly(20), b"0123456789abcdefghij");
    }
    drop((uploads, downloads));
    assert_eq!(origin.text().matches("abcdef").count(), 50, "every upload is whole");
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    assert!(!site.stderr().contains("the grace is over"), "{}", site.stderr());
}

#[test]
fn idle_connections_do_not_hold_a_stop_up() {
    let mut site = proxy()
        .site(HOST, apache())
        .table("[shutdown]\ndrain_delay = \"0 s\"\ngrace = \"20 s\"")
        .plain_serves()
        .start();
    let mut idle = site.wire_tls();
    idle.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    let _silent = site.wire();
    let began = Instant::now();
    site.signal("TERM");
    assert_eq!(site.ends_within(Duration::from_secs(8)).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "after {:?}", began.elapsed());
}

#[test]
fn the_grace_period_ends() {
    let origin = patient(&Arc::default());
    let mut site =
        proxy().site(HOST, &origin).table("[shutdown]\ndrain_delay = \"0 s\"\ngrace = \"1 s\"").start();
    let mut busy = site.wire_tls();
    busy.say(&format!("GET /slow HTTP/1.1\nHost: {HOST}\n\n"));
    under_way(&origin, "GET /slow");
    site.signal("TERM");
    assert_eq!(site.ends_within(Duration::from_secs(6)).code(), Some(0), "{}", site.stderr());
}

#[test]
fn a_second_signal_ends_it_fast() {
    for name in ["TERM", "INT"] {
        let origin = patient(&Arc::default());
        let mut site =
            proxy().site(HOST, &origin).table("[shutdown]\ndrain_delay = \"20 s\"\ngrace = \"30 s\"").start();
        // SIGINT does not wait for balancers, only for what is under way.
        let mut busy = site.wire_tls();
        busy.say(&format!("GET /slow HTTP/1.1\nHost: {HOST}\n\n"));
        under_way(&origin, "GET /slow");
        site.signal(name);
        let stopping = || site.stderr().contains("stopping").then_some(());
        assert!(within(Duration::from_secs(5), stopping).is_some(), "{}", site.stderr());
        assert!(site.lives(), "the first one lets requests finish");
        site.signal(name);
        site.ends_within(Duration::from_secs(3));
    }
}

#[test]
fn a_busy_port_is_named_with_what_to_do() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ravelin.toml");
    let text = format!(
        "[[listen]]\nurl = \"http://127.0.0.1:{port}\"\nplain = \"serve\"\n[[site]]\nhosts = [\"*\"]\nupstream = \"http://127.0.0.1:1\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let said = run(ravelin().args(["run", "--config"]).arg(&config));
    said.exits(1).says(&port.to_string());
    assert!(said.all().contains("in use"), "{}", said.all());
}

#[test]
fn a_configuration_that_cannot_be_used_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ravelin.toml");
    std::fs::write(&config, "[[listen]]\nurl = \"http://127.0.0.1:0\"\nwhat = 1\n").unwrap();
    run(ravelin().args(["run", "--config"]).arg(&config)).exits(1).says("unknown key `what`");
    run(ravelin().args(["run", "--config", "/nowhere/ravelin.toml"])).exits(1).says("/nowhere/ravelin.toml");
    run(ravelin().args(["run", "--what"])).exits(2).says("--what");
    run(ravelin().arg("--version")).exits(0).says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn health_tells_a_container_whether_it_is_ready() {
    let site = proxy().site(HOST, apache()).table("[shutdown]\ndrain_delay = \"10 s\"").start();
    let health = || run(ravelin().args(["health", "--config"]).arg(site.config()));
    health().exits(0);
    site.signal("TERM");
    let unready = within(Duration::from_secs(5), || Some(health()).filter(|said| said.code == Some(1)));
    assert!(unready.is_some(), "a draining Ravelin is not ready: {}", health().all());
    let nobody = Port::reserve();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let elsewhere = text.replace(&format!(":{}", site.admin_port()), &format!(":{}", nobody.number()));
    let file = site.dir().join("elsewhere.toml");
    std::fs::File::create(&file).unwrap().write_all(elsewhere.as_bytes()).unwrap();
    let gone = run(ravelin().args(["health", "--config"]).arg(&file));
    gone.exits(1).says(&nobody.number().to_string());
    let without = site.dir().join("without.toml");
    std::fs::write(&without, text.replace("[admin]\nlisten", "[x]\nlisten")).unwrap();
    let unasked = run(ravelin().args(["health", "--config"]).arg(&without));
    unasked.exits(1).says("without.toml").says("[admin]");
    run(ravelin().args(["health", "--config", "/nowhere.toml"])).exits(1).says("/nowhere.toml");
}

#[test]
fn it_starts_fast_and_small() {
    let began = Instant::now();
    let site = proxy().site(HOST, apache()).start();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "even a debug build listens soon: {:?}",
        began.elapsed()
    );
    assert!(site.resident() < 64 << 20, "{} KiB at rest", site.resident() / 1024);
}
