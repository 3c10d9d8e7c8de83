//! A connection is a conversation: what is asked in a row is answered in a row, a body is asked for only when it is
//! wanted, a tunnel begins only with 101, and after every refusal it is clear where the next message begins.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::front::{Front, refusal_faults};
use crate::harness::recorder::Next;
use crate::harness::reply::Reply;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, recorder, strict};

const PATIENCE: Duration = Duration::from_secs(5);

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\nHost: {HOST}\n\n")
}

/// The request line that `RawOrigin` says it saw.
#[track_caller]
fn echoes(reply: &Reply, line: &str) {
    assert_eq!(reply.status(200).text(), line, "the answer to another request");
}

/// What must hold for every refusal.
#[track_caller]
fn refused(site: &Ravelin, reply: &Reply, status: u16) {
    reply.status(status);
    let faults = refusal_faults(site, reply);
    assert!(faults.is_empty(), "{}: {reply}", faults.join("; "));
}

/// Runs a case over plain HTTP and over TLS.
fn both(front: &Front, case: impl Fn(&Front, Wire)) {
    for open in [Ravelin::wire, Ravelin::wire_tls] {
        front.origin.forget();
        case(front, open(&front.site));
    }
}

#[track_caller]
fn closes(wire: &mut Wire) {
    let (rest, _) = wire.until_closed(PATIENCE);
    assert!(rest.is_empty(), "more than the last answer: {:?}", String::from_utf8_lossy(&rest));
}

/// The request lines that the origin saw, in order of each connection.
fn lines(front: &Front) -> Vec<String> {
    let line = |bytes: &Vec<u8>| {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    };
    front.origin.received().whole.iter().map(line).collect()
}

#[test]
fn conversation_over_http_1_is_kept_in_order() {
    let front = Front::open();
    let mut results = Results::of("conversation");
    pipelining(&front, &mut results);
    expectations(&front, &mut results);
    unread_bodies(&front, &mut results);
    versions(&front, &mut results);
    uploads(&front, &mut results);
    interim(&mut results);
    upgrades(&mut results);
    results.hold();
}

fn pipelining(front: &Front, results: &mut Results) {
    results.run("ten pipelined GETs are answered in order", || {
        both(front, |_, mut wire| {
            wire.say(&(0..10).map(|n| get(&format!("/{n}"))).collect::<String>());
            for n in 0..10 {
                echoes(&wire.reply(), &format!("GET /{n} HTTP/1.1"));
            }
        });
    });
    results.run("two hundred pipelined GETs are answered in order", || {
        both(front, |_, mut wire| {
            wire.say(&(0..200).map(|n| get(&format!("/{n}"))).collect::<String>());
            for n in 0..200 {
                echoes(&wire.reply(), &format!("GET /{n} HTTP/1.1"));
            }
        });
    });
    results.run("pipelined requests may arrive byte by byte", || {
        let mut wire = front.site.wire();
        let body = format!("POST /1 HTTP/1.1\nHost: {HOST}\nContent-Length: 5\n\nhello");
        for byte in [get("/0"), body, get("/2")].concat().replace('\n', "\r\n").bytes() {
            wire.send([byte]);
        }
        for line in ["GET /0 HTTP/1.1", "POST /1 HTTP/1.1", "GET /2 HTTP/1.1"] {
            echoes(&wire.reply(), line);
        }
    });
    results.run("HEAD among pipelined GETs has no body", || {
        both(front, |_, mut wire| {
            wire.say(&[get("/0"), format!("HEAD /1 HTTP/1.1\nHost: {HOST}\n\n"), get("/2")].concat());
            echoes(&wire.reply(), "GET /0 HTTP/1.1");
            wire.reply_to("HEAD").status(200).empty();
            echoes(&wire.reply(), "GET /2 HTTP/1.1");
        });
    });
    results.run("a refusal in the middle has its place, and nothing is lost before it", || {
        both(front, |front, mut wire| {
            wire.say(&[get("/0"), get("/a%2fb"), get("/2")].concat());
            echoes(&wire.reply(), "GET /0 HTTP/1.1");
            let refusal = wire.reply();
            refused(&front.site, &refusal, 400);
            // It may close, or go on; what it must not do is answer out of order.
            if let Some(reply) = wire.try_reply() {
                echoes(&reply, "GET /2 HTTP/1.1");
            }
        });
    });
    results.run(
        "a refusal of framing in the middle ends the connection, and nothing behind it is served",
        || {
            both(front, |front, mut wire| {
                let bad = format!(
                    "POST /1 HTTP/1.1\nHost: {HOST}\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n"
                );
                wire.say(&[get("/0"), bad, get("/2")].concat());
                echoes(&wire.reply(), "GET /0 HTTP/1.1");
                let refusal = wire.reply();
                refused(&front.site, &refusal, 400);
                closes(&mut wire);
                assert_eq!(lines(front), ["GET /0 HTTP/1.1"]);
            });
        },
    );
    results.run("a slow answer holds the next one back, not the other way round", || {
        let origin = Recorder::scripted(|_, head, socket| {
            let first = head.starts_with(b"GET /first ");
            std::thread::sleep(Duration::from_millis(if first { 300 } else { 0 }));
            let word = if first { "first!" } else { "second" };
            let sent = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{word}");
            if sent.is_ok() { Next::KeepAlive } else { Next::Close }
        });
        let site = proxy().site(HOST, &origin).plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            wire.say(&[get("/first"), get("/second")].concat());
            wire.reply().status(200).hardened().shows("first!");
            wire.reply().status(200).hardened().shows("second");
        }
    });
    results.run("one connection carries a hundred requests in a row", || {
        both(front, |_, mut wire| {
            for n in 0..100 {
                echoes(&wire.say(&get(&format!("/{n}"))).reply(), &format!("GET /{n} HTTP/1.1"));
            }
        });
    });
}

fn expectations(front: &Front, results: &mut Results) {
    let post = |target: &str| {
        format!("POST {target} HTTP/1.1\nHost: {HOST}\nContent-Length: 5\nExpect: 100-continue\n\n")
    };
    results.run("100 is sent once, and only to whom waits for it", || {
        both(front, |front, mut wire| {
            wire.say(&post("/wanted")).head().status(100);
            let reply = wire.send("hello").reply();
            echoes(&reply, "POST /wanted HTTP/1.1");
            assert_eq!(reply.interim, [0; 0], "a second 100");
            let received = front.origin.received().whole;
            let seen = strict::requests(&received[0]).unwrap();
            assert_eq!((seen[0].body.as_slice(), seen[0].all("expect").len()), (b"hello".as_slice(), 0));
            let plain = format!("POST /plain HTTP/1.1\nHost: {HOST}\nContent-Length: 5\n\nhello");
            let reply = wire.say(&plain).reply();
            echoes(&reply, "POST /plain HTTP/1.1");
            assert_eq!(reply.interim, [0; 0], "100 to one who did not ask");
        });
    });
    results.run("an expectation whose body is there already is no matter", || {
        both(front, |_, mut wire| {
            wire.say(&(post("/eager") + "hello" + &get("/next")));
            echoes(&wire.reply(), "POST /eager HTTP/1.1");
            echoes(&wire.reply(), "GET /next HTTP/1.1");
        });
    });
    results.run("a refusal comes instead of 100, and closes: nobody knows whether the body comes", || {
        both(front, |front, mut wire| {
            wire.say(&post("/a%2fb"));
            let reply = wire.reply();
            refused(&front.site, &reply, 400);
            assert_eq!(reply.interim, [0; 0], "nobody is asked to send what is refused anyway");
            // The client sends the body all the same, and it looks like a request.
            wire.say(&get("/smuggled"));
            closes(&mut wire);
            assert_eq!(lines(front), [""; 0]);
        });
    });
    results.run("HTTP/1.0 knows no 100", || {
        both(front, |_, mut wire| {
            wire.say(&format!(
                "POST /old HTTP/1.0\nHost: {HOST}\nContent-Length: 5\nExpect: 100-continue\n\nhello"
            ));
            let reply = wire.reply();
            reply.status(200);
            assert_eq!(reply.interim, [0; 0], "RFC 9110 section 10.1.1");
        });
    });
    results.run("an unknown expectation is 417, and closes", || {
        both(front, |front, mut wire| {
            wire.say(&format!("POST / HTTP/1.1\nHost: {HOST}\nContent-Length: 5\nExpect: x\n\n"));
            let reply = wire.reply();
            refused(&front.site, &reply, 417);
            wire.say(&get("/smuggled"));
            closes(&mut wire);
            assert_eq!(lines(front), [""; 0]);
        });
    });
}

fn unread_bodies(front: &Front, results: &mut Results) {
    results.run("a refused body of 40 KiB is drained or the connection closed", || {
        both(front, |front, mut wire| {
            let smuggled = get("/smuggled").repeat(2).replace('\n', "\r\n");
            let body = format!("{smuggled}{}", "x".repeat(40_000 - smuggled.len()));
            wire.send(format!("POST /a%2fb HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 40000\r\n\r\n{body}"));
            wire.say(&get("/next"));
            let reply = wire.reply();
            refused(&front.site, &reply, 400);
            if let Some(reply) = wire.try_reply() {
                echoes(&reply, "GET /next HTTP/1.1");
            }
            assert!(!lines(front).iter().any(|line| line.contains("smuggled")), "{:?}", lines(front));
        });
    });
    results.run("the refusal of an upload of 8 MiB reaches the client, who sends on", || {
        both(front, |front, mut wire| {
            wire.say(&format!("POST /a%2fb HTTP/1.1\nHost: {HOST}\nContent-Length: 8388608\n\n"));
            for _ in 0..128 {
                wire.send("x".repeat(65_536));
            }
            let reply = wire.reply();
            refused(&front.site, &reply, 400);
            closes(&mut wire);
        });
    });
    results.run("a client that closes its half is taken for gone", || {
        // It cannot be told from one that is; the origin should not work for nobody.
        let origin = Recorder::scripted(|_, _, socket| {
            std::thread::sleep(Duration::from_millis(300));
            let sent = socket.write_all(recorder::OK.as_bytes());
            if sent.is_ok() { Next::KeepAlive } else { Next::Close }
        });
        let site = proxy().site(HOST, &origin).plain_serves().start();
        let mut wire = site.wire();
        wire.say(&get("/half")).finish();
        closes(&mut wire);
    });
    results.run("a client that closes within a body leaves nothing behind", || {
        both(front, |front, mut wire| {
            wire.say(&format!("POST /cut HTTP/1.1\nHost: {HOST}\nContent-Length: 100\n\n"));
            wire.say(&get("/smuggled"));
            drop(wire);
            let mut next = front.site.wire();
            echoes(&next.say(&get("/next")).reply(), "GET /next HTTP/1.1");
            assert_eq!(lines(front), ["GET /next HTTP/1.1"]);
        });
    });
}

fn versions(front: &Front, results: &mut Results) {
    results.run("HTTP/1.0 closes unless it asks to be kept", || {
        both(front, |_, mut wire| {
            wire.say(&format!("GET /old HTTP/1.0\nHost: {HOST}\n\n"));
            let reply = wire.reply();
            echoes(&reply, "GET /old HTTP/1.1");
            reply.hardened().no_header("transfer-encoding");
            closes(&mut wire);
        });
    });
    results.run("HTTP/1.0 that asks to be kept is kept and told so, or closed", || {
        both(front, |_, mut wire| {
            wire.say(&format!("GET /old HTTP/1.0\nHost: {HOST}\nConnection: keep-alive\n\n"));
            let reply = wire.reply();
            echoes(&reply, "GET /old HTTP/1.1");
            if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")) {
                echoes(&wire.say(&get("/next")).reply(), "GET /next HTTP/1.1");
            } else {
                closes(&mut wire);
            }
        });
    });
    results.run("Connection close is kept and said", || {
        both(front, |_, mut wire| {
            wire.say(&format!("GET /last HTTP/1.1\nHost: {HOST}\nConnection: close\n\n{}", get("/smuggled")));
            let reply = wire.reply();
            echoes(&reply, "GET /last HTTP/1.1");
            reply.header_once("connection", "close");
            closes(&mut wire);
        });
    });
    results.run("HEAD, 204 and 304 have no body, whatever the origin says of it", || {
        let origin = Recorder::scripted(|_, head, socket| {
            let answer: &[u8] = match head {
                _ if head.starts_with(b"HEAD ") => b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
                _ if head.starts_with(b"GET /204 ") => b"HTTP/1.1 204 No Content\r\n\r\n",
                _ if head.starts_with(b"GET /304 ") => {
                    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"
                }
                _ => recorder::OK.as_bytes(),
            };
            if socket.write_all(answer).is_ok() { Next::KeepAlive } else { Next::Close }
        });
        let site = proxy().site(HOST, &origin).plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            for _ in 0..2 {
                wire.say(&format!("HEAD / HTTP/1.1\nHost: {HOST}\n\n"));
                wire.reply_to("HEAD").status(200).hardened().header_once("content-length", "500");
                wire.say(&get("/204")).reply().status(204).hardened().no_header("transfer-encoding");
                wire.say(&get("/304")).reply().status(304).hardened();
                wire.say(&get("/")).reply().status(200).shows("ok");
            }
        }
    });
}

fn uploads(front: &Front, results: &mut Results) {
    results.run("chunks of every size arrive as one body", || {
        both(front, |front, mut wire| {
            let mut body = Vec::new();
            wire.say(&format!("POST /up HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\n\n"));
            for size in [1, 2, 15, 16, 255, 256, 4095, 65_536, 100_000, 7] {
                let piece = vec![b'a' + u8::try_from(size % 26).unwrap(); size];
                wire.send(format!("{size:x}\r\n")).send(&piece).send("\r\n");
                body.extend(piece);
            }
            echoes(&wire.say("0\n\n").reply(), "POST /up HTTP/1.1");
            let received = front.origin.received().whole;
            let seen = strict::requests(&received[0]).unwrap();
            assert_eq!(seen[0].body, body, "{} bytes arrived", seen[0].body.len());
        });
    });
    results.run("chunks may arrive byte by byte, with extensions and trailers", || {
        both(front, |front, mut wire| {
            let text = format!(
                "POST /up HTTP/1.1\nHost: {HOST}\nTransfer-Encoding: chunked\n\n5;a=b\nhello\n6;c=\"d;e\"\n world\n0\nX-T: 1\n\n"
            );
            for byte in text.replace('\n', "\r\n").bytes() {
                wire.send([byte]);
            }
            echoes(&wire.reply(), "POST /up HTTP/1.1");
            let received = front.origin.received().whole;
            let seen = strict::requests(&received[0]).unwrap();
            assert_eq!(seen[0].body, b"hello world");
            assert!(seen[0].all("x-t").is_empty());
        });
    });
}

fn interim(results: &mut Results) {
    results.run("interim answers of the origin confuse nobody", || {
        let origin = Recorder::scripted(|_, _, socket| {
            let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
            let sent = socket.write_all(early.as_bytes()).and_then(|()| socket.write_all(recorder::OK.as_bytes()));
            if sent.is_ok() { Next::KeepAlive } else { Next::Close }
        });
        let site = proxy().site(HOST, &origin).plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            for _ in 0..3 {
                wire.say(&get("/")).reply().status(200).hardened().shows("ok");
            }
            wire.say(&format!("GET / HTTP/1.0\nHost: {HOST}\n\n"));
            let reply = wire.reply();
            reply.status(200).hardened();
            assert_eq!(reply.interim, [0; 0], "HTTP/1.0 knows no interim answers");
        }
    });
    results.run("a 101 that nobody asked for is 502", || {
        let origin = Recorder::answering(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        );
        let site = proxy().site(HOST, &origin).with("websocket = true").plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            let reply = wire.say(&get("/")).reply();
            refused(&site, &reply, 502);
        }
    });
}

/// Key and answer are the sample of RFC 6455 section 1.3.
fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\nHost: {HOST}\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: https://{HOST}\n\n"
    )
}

fn upgrades(results: &mut Results) {
    results.run("a GET behind an upgrade that is answered 200 is an ordinary GET", || {
        let origin = Recorder::answering(recorder::OK);
        let site = proxy().site(HOST, &origin).with("websocket = true").plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            origin.forget();
            let behind = format!("GET /behind HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 6.6.6.6\n\n");
            wire.say(&(handshake("/ws") + &behind));
            wire.reply().status(200).hardened().shows("ok");
            let (bytes, closed) = wire.whatever(Duration::from_millis(500));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.starts_with("HTTP/1.1 200 ") || (closed && text.is_empty()), "{text:?}");
            for bytes in origin.seen() {
                for request in strict::requests(&bytes).unwrap() {
                    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"], "unread: {request:?}");
                }
            }
        }
    });
    results.run(
        "an upgrade that a path does not allow is refused, and nothing behind it is served unread",
        || {
            let origin = Recorder::answering(recorder::OK);
            let site = proxy()
                .site(HOST, &origin)
                .with("[[site.path]]\npath = \"/live\"\nwebsocket = true")
                .plain_serves()
                .start();
            for path in ["/", "/lively", "/live/../x", "/Live"] {
                let mut wire = site.wire();
                let reply = wire.say(&handshake(path)).reply();
                refused(&site, &reply, 403);
            }
            assert!(origin.seen().is_empty(), "{}", origin.text());
        },
    );
    results.run("nothing enters the tunnel before 101", || {
        let (origin, early) = patient_websocket();
        let site = proxy().site(HOST, origin.as_str()).with("websocket = true").plain_serves().start();
        for mut wire in [site.wire(), site.wire_tls()] {
            early.lock().unwrap().clear();
            wire.say(&handshake("/ws")).send("EARLY");
            wire.head().status(101);
            assert_eq!(wire.exactly(5), b"EARLY", "what was sent early arrives, once the tunnel is open");
            assert_eq!(wire.send("LATE").exactly(4), b"LATE");
            assert!(
                early.lock().unwrap().is_empty(),
                "before 101 the origin got {:?}",
                early.lock().unwrap()
            );
        }
    });
}

/// An origin that looks for a while at what comes behind the head of a handshake, then accepts it and echoes.
fn patient_websocket() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let early = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&early);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            while !got.windows(4).any(|window| window == b"\r\n\r\n") {
                match socket.read(&mut buffer) {
                    Ok(count @ 1..) => got.extend(&buffer[..count]),
                    _ => break,
                }
            }
            let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
            if let Ok(count) = socket.read(&mut buffer) {
                got.extend(&buffer[..count]);
            }
            let end = got.windows(4).position(|window| window == b"\r\n\r\n").map_or(got.len(), |at| at + 4);
            book.lock().expect("no panic here").extend(&got[end..]);
            let _ = socket.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLBmiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
            let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
            while let Ok(count @ 1..) = socket.read(&mut buffer) {
                let _ = socket.write_all(&buffer[..count]);
            }
        }
    });
    (url, early)
}
