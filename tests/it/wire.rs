//! The protocols themselves: framing both ways, keep-alive, TLS, HTTP/2, WebSocket, and bodies of any size
//! in flat memory.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::curl::Over;
use crate::harness::recorder::Next;
use crate::harness::strict;
use crate::harness::{HOST, Ravelin, Recorder, Wire, apache, certs, proxy, recorder, run, within};

const MIB: u64 = 1 << 20;

fn site() -> Ravelin {
    proxy().site(HOST, apache()).plain_serves().start()
}

#[test]
fn a_connection_is_kept_and_used_again() {
    let site = site();
    for mut wire in [site.wire(), site.wire_tls()] {
        for _ in 0..20 {
            wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"))
                .reply()
                .status(200)
                .hardened()
                .shows("Welcome");
        }
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\nConnection: close\n\n")).reply().status(200);
        let (rest, _) = wire.until_closed(Duration::from_secs(5));
        assert!(rest.is_empty(), "nothing after the last answer: {rest:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = site();
    let mut wire = site.wire();
    let ask = |path: &str| format!("GET {path} HTTP/1.1\nHost: {HOST}\n\n");
    wire.say(&[ask("/slow?ms=300"), ask("/echo?second"), ask("/nope"), ask("/echo?fourth")].concat());
    wire.reply().status(200).shows("at last");
    assert_eq!(wire.reply().status(200).json()["uri"], "/echo?second");
    wire.reply().status(404);
    assert_eq!(wire.reply().status(200).json()["uri"], "/echo?fourth");
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let site = site();
    let mut wire = site.wire();
    wire.say(&format!("GET /chunked HTTP/1.0\nHost: {HOST}\n\n"));
    let reply = wire.reply();
    reply.status(200).hardened().no_header("transfer-encoding").shows("one two three");
    wire.until_closed(Duration::from_secs(5));
}

/// To HTTP/1.0 the end of the connection is the end of the body: one that was cut short must not look like it.
#[test]
fn an_answer_cut_short_ends_with_a_reset_for_http_1_0() {
    let origin = Recorder::scripted(|_, head, socket| {
        let end = if head.starts_with(b"GET /whole") { "0\r\n\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{end}");
        let _ = std::io::Write::write_all(socket, answer.as_bytes());
        Next::Close
    });
    let site = proxy().bare_site(HOST, &origin).plain_serves().start();
    for (path, is_whole) in [("/whole", true), ("/cut", false)] {
        let mut wire = site.wire();
        wire.say(&format!("GET {path} HTTP/1.0\nHost: {HOST}\n\n"));
        let (bytes, farewell) = wire.until_the_end();
        assert_eq!(farewell, is_whole, "{path}: {}", bytes.escape_ascii());
        // A reset may overtake what came before it.
        assert!(!is_whole || bytes.ends_with(b"hello"), "{path}: {}", bytes.escape_ascii());
    }
}

#[test]
fn chunked_both_ways() {
    let site = site();
    for over in [Over::H1, Over::H2, Over::Plain] {
        site.ask_over(over, "/chunked").send().status(200).shows("one two three");
    }
    let mut wire = site.wire();
    wire.say(&format!("POST /echo HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\n\n"));
    wire.say("5\nhello\n6;ext=1\n world\n0\n\n");
    assert_eq!(wire.reply().status(200).json()["body_length"], 11);
    let reply = wire.say(&format!("GET /chunked HTTP/1.1\nHost: {HOST}\n\n")).reply();
    reply
        .status(200)
        .header_once("transfer-encoding", "chunked")
        .no_header("content-length")
        .shows("one two three");
}

#[test]
fn the_first_piece_of_a_slow_answer_comes_at_once() {
    // The origin goes on once its first piece has arrived, and gives up if it never does.
    let arrived = Arc::new(AtomicBool::new(false));
    let go_on = Arc::clone(&arrived);
    let origin = Recorder::scripted(move |_, _, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        let _ = within(Duration::from_secs(10), || go_on.load(Ordering::SeqCst).then_some(()))
            .map(|()| socket.write_all(b"later"));
        Next::Close
    });
    let site = proxy().site(HOST, &origin).start();
    let mut wire = site.wire_tls();
    wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).head().status(200);
    assert_eq!(wire.exactly(5), b"first");
    arrived.store(true, Ordering::SeqCst);
    assert_eq!(wire.exactly(5), b"later");
}

#[test]
fn expect_100_continue_is_served_and_refused_early() {
    let site = proxy().site(HOST, apache()).with("body_size = \"1 KiB\"").plain_serves().start();
    let mut wire = site.wire();
    wire.say(&format!("POST /echo HTTP/1.1\nHost: {HOST}\nContent-Length: 5\nExpect: 100-continue\n\n"));
    wire.head().status(100);
    assert_eq!(wire.send("hello").reply().status(200).json()["body_length"], 5);

    let mut wire = site.wire();
    wire.say(&format!("POST /echo HTTP/1.1\nHost: {HOST}\nContent-Length: 5000\nExpect: 100-continue\n\n"));
    let refused = wire.reply();
    refused.status(413).hardened();
    assert_eq!(refused.interim, [0; 0], "nobody is asked to send what is refused anyway");

    site.wire()
        .say(&format!("GET / HTTP/1.1\nHost: {HOST}\nExpect: 200-maybe\n\n"))
        .reply()
        .status(417)
        .hardened();
}

#[test]
fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let site = site();
    let mut wire = site.wire();
    let length = site.get_plain("/").body.len().to_string();
    let head = wire.say(&format!("HEAD / HTTP/1.1\nHost: {HOST}\n\n")).reply_to("HEAD");
    head.status(200).hardened();
    assert!(
        head.all("content-length").is_empty() || head.header("content-length") == Some(&length),
        "{head}"
    );
    wire.say(&format!("GET /no-content HTTP/1.1\nHost: {HOST}\n\n"))
        .reply()
        .status(204)
        .no_header("transfer-encoding");
    wire.say(&format!("GET /cached HTTP/1.1\nHost: {HOST}\nIf-None-Match: \"7c5e1f\"\n\n"))
        .reply()
        .status(304)
        .empty();
    wire.say(&format!("HEAD /nope HTTP/1.1\nHost: {HOST}\n\n")).reply_to("HEAD").status(404);
    wire.say(&format!("HEAD /a%2fb HTTP/1.1\nHost: {HOST}\n\n")).reply_to("HEAD").status(400).hardened();
    wire.say(&format!("GET /echo?still-there HTTP/1.1\nHost: {HOST}\n\n"))
        .reply()
        .status(200)
        .shows("still-there");
}

#[test]
fn trailers_end_here_both_ways() {
    let origin = Recorder::scripted(|_, _, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: leaked\r\nSet-Cookie: a=b\r\n\r\n");
        Next::KeepAlive
    });
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let mut wire = site.wire();
    wire.say(&format!("POST / HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\nTrailer: X-Forwarded-For\n\n2\nhi\n0\nX-Forwarded-For: 6.6.6.6\nHost: evil.example\n\n"));
    // The reader asserts that no trailer follows the last chunk.
    wire.reply().status(200).hardened().shows("ok");
    assert!(!origin.text().contains("6.6.6.6") && !origin.text().contains("evil"), "{}", origin.text());
    for bytes in origin.seen() {
        strict::requests(&bytes).unwrap();
    }
    site.ask_over(Over::H2, "/").send().status(200).shows("ok");
}

/// An origin that accepts a WebSocket and echoes bytes. Key and answer are the sample of RFC 6455 section 1.3.
fn websocket_echo() -> Recorder {
    Recorder::scripted(|_, _, socket| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLBmiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let _ = socket.write_all(head.as_bytes());
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            let _ = socket.write_all(&buffer[..count]);
        }
        Next::Close
    })
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\nHost: {HOST}\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: https://{HOST}\n\n"
    )
}

#[test]
fn websocket_passes_where_a_path_allows_it() {
    let origin = websocket_echo();
    let site = proxy()
        .site(HOST, &origin)
        .with("[[site.path]]\npath = \"/live\"\nwebsocket = true")
        .plain_serves()
        .start();
    for mut wire in [site.wire(), site.wire_tls()] {
        wire.say(&handshake("/live")).head().status(101).header_once("upgrade", "websocket");
        for size in [1, 125, 5000] {
            let frame = vec![0x81; size];
            assert_eq!(wire.send(&frame).exactly(size), frame, "bytes pass unchanged");
        }
    }
}

/// An origin that ignores the end of its client must not keep both connections for ever.
#[test]
fn a_tunnel_ends_soon_after_its_client() {
    let (gone, when) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let origin = Recorder::scripted(move |_, _, socket| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLBmiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let _ = socket.write_all(head.as_bytes());
        // Deaf to the end of the client: reads to it, and stays. A reset is what ends this.
        let mut buffer = [0; 1024];
        while let Ok(1..) = socket.read(&mut buffer) {}
        while socket.write_all(b"still here").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = gone.lock().unwrap().send(());
        Next::Close
    });
    let site = proxy().site(HOST, &origin).with("websocket = true").plain_serves().start();
    let mut wire = site.wire();
    wire.say(&handshake("/")).head().status(101);
    drop(wire);
    when.recv_timeout(Duration::from_secs(20)).expect("the origin's connection is closed");
}

#[test]
fn websocket_is_refused_elsewhere() {
    let origin = websocket_echo();
    let site = proxy()
        .site(HOST, &origin)
        .with("[[site.path]]\npath = \"/live\"\nwebsocket = true")
        .plain_serves()
        .start();
    for path in ["/", "/lively", "/live/../x"] {
        site.wire().say(&handshake(path)).reply().status(403).hardened();
    }
    assert!(origin.seen().is_empty(), "{}", origin.text());
}

#[test]
fn there_is_no_tunnel_unless_the_origin_says_101() {
    let origin = Recorder::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let site = proxy().site(HOST, &origin).with("websocket = true").plain_serves().start();
    let mut wire = site.wire();
    let smuggled = format!("GET /smuggled HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 6.6.6.6\n\n");
    wire.say(&(handshake("/") + &smuggled)).reply().status(200);
    let (_, _) = wire.whatever(Duration::from_millis(500));
    for bytes in origin.seen() {
        for request in strict::requests(&bytes).unwrap() {
            assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"], "nothing passes unread: {request:?}");
        }
    }
}

/// What `openssl s_client` says when it talks to a TLS listener.
fn s_client(site: &Ravelin, args: &[&str]) -> String {
    let target = format!("127.0.0.1:{}", site.https_port());
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &target, "-servername", site.host(), "-CAfile"])
        .arg(site.authority());
    command
        .args(["-verify_return_error", "-verify_hostname", site.host()])
        .args(args)
        .stdin(std::process::Stdio::null());
    run(&mut command).all()
}

#[test]
fn tls_1_2_and_1_3_with_modern_suites_only() {
    let site = site();
    // The client is allowed everything, so that a refusal is the server's.
    let weak = "DEFAULT:@SECLEVEL=0";
    for (args, agreed) in [
        (vec!["-tls1_3"], Some("TLSv1.3")),
        (vec!["-tls1_2"], Some("TLSv1.2")),
        (vec!["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], Some("TLS_AES_128_GCM_SHA256")),
        (
            vec!["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            Some("TLS_CHACHA20_POLY1305_SHA256"),
        ),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], Some("ECDHE-ECDSA-AES256-GCM-SHA384")),
        (vec!["-tls1_1", "-cipher", weak], None),
        (vec!["-tls1", "-cipher", weak], None),
        (vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], None),
        (vec!["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], None),
        (vec!["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"], None),
    ] {
        let said = s_client(&site, &args);
        let verified = said.contains("Verify return code: 0 (ok)") && !said.contains("Cipher is (NONE)");
        match agreed {
            Some(word) => assert!(verified && said.contains(word), "{args:?}:\n{said}"),
            None => {
                assert!(!verified && said.contains("Cipher is (NONE)"), "{args:?} must be refused:\n{said}");
            }
        }
    }
}

#[test]
fn the_application_protocol_is_negotiated() {
    let site = site();
    let agreed = |offer: &[&[u8]]| Wire::tls(site.https_port(), HOST, &certs::authority_pem(), offer).alpn();
    assert_eq!(agreed(&[b"h2", b"http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&[b"http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&[]), None);
    let mut silent = Wire::tls(site.https_port(), HOST, &certs::authority_pem(), &[]);
    silent.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    assert!(s_client(&site, &["-alpn", "smtp"]).contains("alert no application protocol"));
}

#[test]
fn the_key_exchange_is_post_quantum_where_the_client_can() {
    let site = site();
    assert_eq!(site.wire_tls().key_exchange().as_deref(), Some("X25519MLKEM768"));
    assert!(s_client(&site, &["-groups", "X25519"]).contains("X25519"));
}

#[test]
fn the_certificate_is_chosen_by_server_name() {
    let site = proxy().site(HOST, apache()).site("shop.example.com", apache()).start();
    for host in [HOST, "shop.example.com"] {
        // curl checks the certificate against the name.
        site.ask_host(Over::H1, host, "/").send().status(200);
    }
    let strange = |site: &Ravelin| {
        let target = format!("127.0.0.1:{}", site.https_port());
        run(Command::new("openssl")
            .args(["s_client", "-connect", &target, "-servername", "nobody.example.net"])
            .stdin(std::process::Stdio::null()))
        .all()
    };
    assert!(
        strange(&site).contains(&format!("subject=CN = {HOST}")),
        "the default certificate:\n{}",
        strange(&site)
    );
    let strict = proxy().https("unknown_sni = \"refuse\"").site(HOST, apache()).start();
    assert!(strange(&strict).contains("alert"), "refused:\n{}", strange(&strict));
    let second = proxy()
        .https("default_certificate = \"shop.example.com\"")
        .site(HOST, apache())
        .site("shop.example.com", apache())
        .start();
    assert!(strange(&second).contains("subject=CN = shop.example.com"), "{}", strange(&second));
}

#[test]
fn keys_in_every_common_form_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (name, make) in [
        ("ec-sec1", "openssl ecparam -name prime256v1 -genkey -noout -out KEY"),
        ("ec-p384-pkcs8", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out KEY"),
        ("rsa-pkcs1", "openssl genrsa -traditional -out KEY 2048"),
        ("rsa-pkcs8", "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out KEY"),
        ("ed25519", "openssl genpkey -algorithm ed25519 -out KEY"),
    ] {
        let (key, chain) = (path(&format!("{name}.key")), path(&format!("{name}.pem")));
        let sign = format!(
            "openssl req -x509 -new -key {key} -days 30 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -out {chain}"
        );
        for line in [make.replace("KEY", &key), sign] {
            run(Command::new("sh").args(["-c", &line])).exits(0);
        }
        let pair = format!("certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]");
        let config = dir.path().join(format!("{name}.toml"));
        let text = format!(
            "[[listen]]\nurl = \"https://127.0.0.1:8443\"\n{pair}\n[[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:1\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let said = run(crate::harness::ravelin().args(["check", "--config"]).arg(&config));
        assert_eq!(said.code, Some(0), "{name}: {}", said.all());
    }
}

#[test]
fn h2load_finds_no_failure() {
    let site = site();
    let url = format!("https://{HOST}:{}/_assets/0a1b2c3d/Css/site.css", site.https_port());
    let connect = format!("--connect-to=127.0.0.1:{}", site.https_port());
    for args in [vec!["-n", "3000", "-c", "8", "-m", "16"], vec!["-n", "2000", "-c", "8", "--h1"]] {
        let requests = args[1];
        let said = run(Command::new("h2load").args(&args).args([&connect, &url]));
        said.exits(0).says(&format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout"));
        said.says(&format!("status codes: {requests} 2xx"));
    }
}

#[test]
fn nghttp_reads_every_kind_of_answer() {
    let site = site();
    let authority = format!(":authority: {HOST}:{}", site.https_port());
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", site.https_port());
    for (path, status) in
        [("/", 200), ("/nope", 404), ("/no-content", 204), ("/chunked", 200), ("/download?bytes=300000", 200)]
    {
        let said = run(Command::new("nghttp").args(["-nv", "--no-dep", "-H", &authority, &url(path)]));
        said.exits(0).says(&format!(":status: {status}")).says("x-frame-options: SAMEORIGIN");
    }
}

#[test]
fn h2_streams_do_not_wait_for_each_other() {
    // No page is answered before all three were asked for.
    let asked = AtomicUsize::new(0);
    let origin = Recorder::scripted(move |_, _, socket| {
        asked.fetch_add(1, Ordering::SeqCst);
        let met =
            within(Duration::from_secs(10), || (asked.load(Ordering::SeqCst) == 3).then_some(recorder::OK));
        let _ = socket.write_all(met.unwrap_or("HTTP/1.1 500 Alone\r\nContent-Length: 0\r\n\r\n").as_bytes());
        Next::KeepAlive
    });
    let site = proxy().site(HOST, &origin).start();
    let authority = format!(":authority: {HOST}:{}", site.https_port());
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", site.https_port());
    let said = run(Command::new("nghttp").args([
        "-nv",
        "--no-dep",
        "-H",
        &authority,
        &url("/a"),
        &url("/b"),
        &url("/c"),
    ]));
    said.exits(0);
    assert_eq!(said.all().matches(":status: 200").count(), 3, "{}", said.all());
}

#[test]
fn a_large_upload_passes_in_flat_memory() {
    let site = proxy().site(HOST, apache()).with("body_size = \"1 GiB\"").start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let size = 256 * MIB;
    file.as_file().set_len(size).unwrap();
    let sum = run(Command::new("sha256sum").arg(file.path()));
    let expected = sum.out.split(' ').next().unwrap_or_default();
    site.get("/");
    let before = site.resident();
    for over in [Over::H1, Over::H2] {
        let ask =
            site.ask_over(over, "/upload").method("POST").arg("-T").arg(&file.path().display().to_string());
        let seen = ask.send().status(200).hardened().json();
        assert_eq!(seen["bytes"], size);
        assert_eq!(seen["sha256"], expected);
    }
    let grown = site.resident_peak().saturating_sub(before);
    assert!(grown < 32 * MIB, "256 MiB of upload grew the process by {} KiB", grown / 1024);
}

#[test]
fn a_large_download_passes_in_flat_memory() {
    let site = site();
    site.get("/");
    let before = site.resident();
    for (over, size) in [(Over::H1, 512 * MIB), (Over::H2, 256 * MIB)] {
        assert_eq!(site.ask_over(over, &format!("/download?bytes={size}")).measure(), size);
    }
    let grown = site.resident_peak().saturating_sub(before);
    assert!(grown < 32 * MIB, "512 MiB of download grew the process by {} KiB", grown / 1024);
}

#[test]
fn a_reader_that_stops_holds_the_origin_back_not_the_memory() {
    let site = site();
    site.get("/");
    let before = site.resident();
    let mut wires: Vec<Wire> = (0..8).map(|_| site.wire_tls()).collect();
    for wire in &mut wires {
        wire.say(&format!("GET /download?bytes={} HTTP/1.1\nHost: {HOST}\n\n", 64 * MIB)).head().status(200);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = site.resident_peak().saturating_sub(before);
    assert!(grown < 32 * MIB, "eight stopped readers of 64 MiB grew the process by {} KiB", grown / 1024);
    site.get("/").status(200);
}

#[test]
fn an_early_answer_to_an_upload_reaches_the_client() {
    let early = early_answer();
    let site = proxy().site(HOST, early.as_str()).start();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(3 * MIB).unwrap();
    let ask = site
        .ask("/upload")
        .method("POST")
        .header("Expect", "")
        .arg("-T")
        .arg(&file.path().display().to_string());
    ask.send().status(403).hardened().shows("early");
}

/// An origin that answers as soon as it has the head, and reads no further.
fn early_answer() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 2048];
            let _ = socket.read(&mut buffer);
            let _ = socket
                .write_all(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly");
            let _ = socket.shutdown(std::net::Shutdown::Write);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    url
}

#[test]
fn the_origin_is_asked_over_connections_that_are_kept() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).start();
    let mut wire = site.wire_tls();
    for _ in 0..30 {
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    }
    assert_eq!(origin.seen().len(), 1, "one connection carries them all");
    let all = strict::requests(&origin.seen()[0]).unwrap();
    assert_eq!(all.len(), 30);
    assert!(all.iter().all(|request| request.all("x-request-id").len() == 1), "each has its id");
}
