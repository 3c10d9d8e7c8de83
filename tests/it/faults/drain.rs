//! The end: in order while there is time, by force when there is none, and by `kill -9`.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::h2::client::SendRequest;
use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::load::{Connections, Load};
use crate::harness::names::field;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, Wire, certs, log, proxy, ravelin, within};

/// Runs `test` to its end, or fails.
pub(super) fn patiently<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = async { tokio::time::timeout(PATIENCE, test).await };
    runtime.block_on(test).unwrap_or_else(|_| panic!("not over within {PATIENCE:?}"))
}

/// An HTTP/2 connection, and how it ended.
pub(super) async fn h2(
    site: &Ravelin,
) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), ::h2::Error>>) {
    let mut roots = rustls::RootCertStore::empty();
    let authority = certs::authority_pem();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a root");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", site.https_port())).await.expect("a connection");
    let name = ServerName::try_from(HOST).expect("a name");
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
    let (client, connection) = ::h2::client::handshake(tls).await.expect("HTTP/2");
    (client, tokio::spawn(connection))
}

/// One GET; its status, once the whole answer is here.
pub(super) async fn h2_get(
    client: SendRequest<Bytes>,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<u16, ::h2::Error> {
    let mut client = client.ready().await?;
    let mut request = http::Request::get(format!("https://{HOST}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (answer, _) = client.send_request(request.body(()).expect("a request"), true)?;
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(status)
}

const UPLOADS: usize = 50;

fn draining(grace: &str) -> (Recorder, Ravelin) {
    let origin = Recorder::answering(OK);
    let table = format!("[shutdown]\ndrain_delay = \"0 s\"\ngrace = \"{grace}\"");
    let site = proxy().site(HOST, &origin).table(&table).plain_serves().start();
    (origin, site)
}

/// Uploads of which the origin has seen the beginning.
fn uploads(site: &Ravelin, origin: &Recorder, count: usize) -> Vec<Wire> {
    let begin = |number: usize| {
        let mut wire = if number.is_multiple_of(2) { site.wire() } else { site.wire_tls() };
        wire.say(&format!("POST /upload-{number} HTTP/1.1\nHost: {HOST}\nContent-Length: 6\n\nabc"));
        wire
    };
    let wires: Vec<_> = (0..count).map(begin).collect();
    let seen = || (origin.text().matches("POST /upload-").count() == count).then_some(());
    assert!(within(PATIENCE, seen).is_some(), "the uploads are under way:\n{}", site.stderr());
    wires
}

#[test]
fn a_stop_finishes_fifty_uploads_and_says_goodbye_to_idle_http2() {
    let (origin, mut site) = draining("20 s");
    let mut busy = uploads(&site, &origin, UPLOADS);
    patiently(async {
        let (client, driver) = h2(&site).await;
        assert_eq!(h2_get(client.clone(), "/", &[]).await.unwrap(), 200);
        let began = Instant::now();
        site.signal("TERM");
        // Ends well only after a GOAWAY that says NO_ERROR.
        driver.await.unwrap().expect("a goodbye, not a cut");
        println!("measured: idle HTTP/2 is told and closed after {:?}", began.elapsed());
        let refused = client.ready().await.map(|_| ());
        assert!(refused.is_err(), "no further request is taken");
    });
    let closed = || TcpStream::connect(("127.0.0.1", site.http_port())).err();
    assert!(within(PATIENCE, closed).is_some(), "nobody else is let in");
    assert!(site.lives(), "uploads are waited for");
    for wire in &mut busy {
        wire.send("def").reply().status(200).hardened();
    }
    // Clients that are told `Connection: close` do so; for those that do not, it waits five seconds.
    drop(busy);
    let began = Instant::now();
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    println!("measured: gone {:?} after the last upload", began.elapsed());
    assert_eq!(origin.text().matches("abcdef").count(), UPLOADS, "every upload is whole");
    let logged = site.log().iter().filter(|line| log::text(line, field::METHOD) == "POST").count();
    assert_eq!(logged, UPLOADS, "the log is written to its end");
}

#[test]
fn the_listeners_close_at_once() {
    let (_origin, mut site) = draining("20 s");
    let _busy = site.wire().say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply();
    let ports = [site.http_port(), site.https_port()];
    let began = Instant::now();
    site.signal("TERM");
    let closed = || ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()).then_some(());
    assert!(within(PATIENCE, closed).is_some(), "closed");
    println!(
        "measured: listeners closed {:?} after SIGTERM, the signal's own process included",
        began.elapsed()
    );
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0));
}

#[test]
fn after_the_limit_the_rest_is_cut_with_a_line() {
    let (origin, mut site) = draining("1 s");
    let mut busy = uploads(&site, &origin, 3);
    site.signal("TERM");
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    assert!(site.stderr().contains("the grace is over; what is open is cut"), "{}", site.stderr());
    assert!(site.stderr().contains("connections=3"), "and how many: {}", site.stderr());
    for wire in &mut busy {
        let (rest, _) = wire.until_closed(PATIENCE);
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "no answer is made up");
    }
    let logged = site.log().iter().filter(|line| log::text(line, field::METHOD) == "POST").count();
    assert_eq!(logged, 3, "what was cut is logged:\n{}", site.stdout());
}

#[test]
fn kill_9_under_load_and_it_starts_again_on_the_same_ports() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Recorder::answering(OK);
    let table = format!("[log]\nfile = \"{}\"", path.display());
    let mut site = proxy().site(HOST, &origin).table(&table).plain_serves().start();
    let mut wire = site.wire();
    wire.say(&format!("GET /first HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    let written = || std::fs::read_to_string(&path).ok().filter(|text| text.contains("/first"));
    assert!(within(PATIENCE, written).is_some());
    site.signal("KILL");
    site.ends_within(PATIENCE);
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let began = Instant::now();
        let child = ravelin().args(["run", "--config"]).arg(site.config()).stderr(Stdio::null()).spawn();
        let mut again = Killed(child.expect("it starts"));
        let up = within(PATIENCE, || TcpStream::connect(("127.0.0.1", site.http_port())).ok());
        assert!(up.is_some(), "round {round}: it does not listen: {:?}", again.0.try_wait());
        slowest = slowest.max(began.elapsed());
        let load = Load::new().http1(&site, false, Connections::Kept, "/again");
        load.goes_on(20);
        // At the end, so that a client never sees the kill.
        load.end();
    }
    println!("measured: the slowest of 5 starts after kill -9 took {slowest:?} (debug build)");
    let text = std::fs::read_to_string(&path).unwrap();
    let whole = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(text.lines().all(whole), "a line is whole or not there");
}

/// Asks for `/bad` from one new address after the other, until the connection breaks.
fn misbehave(port: u16, made: &AtomicUsize) {
    let Ok(mut wire) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let _ = wire.set_read_timeout(Some(PATIENCE));
    for n in 0..u32::MAX {
        let client = std::net::Ipv4Addr::from(0xc633_0000 + n % 0xffff);
        let request = format!("GET /bad HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {client}\r\n\r\n");
        let mut answer = [0; 4096];
        if wire.write_all(request.as_bytes()).is_err() || !matches!(wire.read(&mut answer), Ok(1..)) {
            return;
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn bans_survive_kill_9_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Recorder::answering(OK);
    let tables = format!(
        "[state]\nstore = \"file:{}\"\n[client]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [[jail]]\nname = \"door\"\nmatch = {{ path = \"/bad\" }}\nmax_retry = 1\nban_time = \"1 h\"",
        dir.path().join("state.redb").display()
    );
    let status = |site: &Ravelin, client: &str, path: &str| {
        site.ask(path).header("X-Forwarded-For", client).send().status
    };
    let mut banned: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut site = proxy().site(HOST, &origin).plain_serves().table(&tables).start();
        for client in &banned {
            assert_eq!(status(&site, client, "/"), 403, "{client} in round {round}: {}", site.stderr());
        }
        assert!(!site.stderr().contains("damaged"), "{}", site.stderr());
        let before = site.counted(&["state_changes", "written"]);
        for n in 0..10 {
            let client = format!("192.0.2.{}", round * 10 + n);
            assert_eq!(status(&site, &client, "/bad"), 200);
            assert_eq!(status(&site, &client, "/"), 403);
            banned.push(client);
        }
        // From here on they are on the disk. Then bans come by the dozen, and the kill meets writes under way.
        let written = || (site.counted(&["state_changes", "written"]) >= before + 10.0).then_some(());
        assert!(within(PATIENCE, written).is_some(), "{}", site.stderr());
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (port, made) = (site.http_port(), &made);
            for _ in 0..2 {
                scope.spawn(move || misbehave(port, made));
            }
            let busy = within(PATIENCE, || (made.load(Ordering::Relaxed) > 200).then_some(()));
            assert!(busy.is_some(), "{}", site.stderr());
            site.signal("KILL");
            site.ends_within(PATIENCE);
        });
    }
    assert_eq!(banned.len(), 30);
}

/// A process that is killed with SIGKILL when this is dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "KILL", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
