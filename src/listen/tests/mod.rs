//! The door on loopback, with real sockets and clients.

mod http1;
mod http2;
mod simulation;
mod sniffing;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::census::Census;
use super::door::{Door, Terms};
use super::settings::tests::read_with;
use super::tally::{Event, Tally};
use super::{accept, limits, socket};
use crate::body::{Body, BodyError};
use crate::client::key::Key;
use crate::client::{self, Peer};
use crate::clock;
use crate::config::complaint::Complaints;
use crate::drain::{Drain, Phase};
use crate::http1::grade::Fault;
use crate::reply::Reply;
use crate::request::Request;
use crate::tls::store::UnknownName;
use crate::tls::{Policy as TlsPolicy, Store, throw_away};

/// A running door with one worker.
struct House {
    addr: SocketAddr,
    drain: Drain,
    tally: Arc<Tally>,
    census: Arc<Census<Key>>,
    peers: Arc<Mutex<Vec<Arc<Peer>>>>,
    accepting: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Limits with times short enough for a test.
fn quick() -> limits::Policy {
    limits::Policy {
        header_read: Duration::from_millis(200),
        handshake: Duration::from_millis(200),
        keep_alive: Duration::from_millis(600),
        write_idle: Duration::from_millis(300),
        ..limits::Policy::default()
    }
}

/// The road of these tests.
async fn road(request: Request) -> Reply {
    let Request { head, mut upload, .. } = request;
    let path = head.view().target().path.unwrap_or("(none)").to_owned();
    let ok = |body: Body| Reply::new(StatusCode::OK, body);
    match (head.view().fault(), &*path) {
        (Some(fault), _) => {
            let status = match fault {
                Fault::TooSlow => StatusCode::REQUEST_TIMEOUT,
                Fault::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            Reply { close: true, ..Reply::new(status, Body::full("broken")) }
        }
        (None, "/slow") => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ok(Body::full("slow"))
        }
        (None, "/big") => ok(Body::full(vec![b'x'; 8 * 1024 * 1024])),
        (None, "/never") => std::future::pending().await,
        // As the pipeline does it with a body that it refuses.
        (None, "/early") => {
            Reply { close: true, ..Reply::new(StatusCode::PAYLOAD_TOO_LARGE, Body::full("too large")) }
        }
        (None, "/echo") => ok(Body::scripted(move |cx| {
            let piece = ready!(upload.poll_piece(cx));
            Poll::Ready(piece.map(|piece| piece.map_err(BodyError::Client)))
        })),
        (None, "/whole") => {
            let mut whole = Vec::new();
            while let Some(piece) = poll_fn(|cx| upload.poll_piece(cx)).await {
                whole.extend_from_slice(&piece.unwrap());
            }
            ok(Body::full(whole))
        }
        (None, "/panic") => panic!("a defect"),
        (None, path) => ok(Body::full(format!("hi {path}"))),
    }
}

impl House {
    fn plain(limits: limits::Policy) -> Self {
        Self::open(limits, None, client::Policy::default())
    }

    fn tls(limits: limits::Policy) -> Self {
        let certificate = throw_away(&["localhost"], clock::wall()).unwrap();
        let mut complaints = Complaints::default();
        let store = Store::new(&[certificate], None, UnknownName::Default, None, &mut complaints).unwrap();
        let config = TlsPolicy::new()
            .unwrap()
            .server_config(
                Arc::new(store),
                &crate::tls::Profile::default(),
                &crate::tls::clients::Policy::off(),
            )
            .unwrap();
        Self::open(limits, Some(Arc::new(config.into())), client::Policy::default())
    }

    fn open(limits: limits::Policy, tls: Option<Arc<crate::tls::Offer>>, client: client::Policy) -> Self {
        let listener = socket::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let addr = listener.local_addr().unwrap();
        let drain = Drain::new();
        let tally = Arc::new(Tally::new(clock::now()));
        let census = Arc::new(Census::new());
        let peers = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&peers);
        let door = Door {
            listener: 7,
            terms: Arc::new(ArcSwap::from_pointee(Terms {
                limits,
                tls,
                client,
                sources: None,
                barred: None,
                proxies: None,
            })),
            census: Arc::clone(&census),
            tally: Arc::clone(&tally),
            drain: drain.watch(),
            serve: move |peer: Arc<Peer>, request| {
                let notes = Arc::clone(&notes);
                async move {
                    notes.lock().unwrap().push(peer);
                    road(request).await
                }
            },
        };
        let accepting = tokio::spawn(accept::run(listener, Arc::new(door)));
        Self { addr, drain, tally, census, peers, accepting }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// A TLS client that offers `alpn`.
    async fn connect_tls(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.connect().await).await.unwrap()
    }

    /// Sends `bytes` on a new plain connection and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut client = self.connect().await;
        client.write_all(bytes).await.unwrap();
        rest(&mut client).await
    }

    /// Waits until `event` was counted `times`.
    async fn counted(&self, event: Event, times: u64) {
        let wait = async {
            while self.tally.count(event) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(wait).await;
        assert_eq!(self.tally.count(event), times, "{event:?}");
    }

    /// Waits until every place is given back.
    async fn deserted(&self) {
        soon(self.drain.empty()).await;
        assert_eq!((self.census.total(), self.census.clients()), (0, 0));
    }
}

/// What arrives until the end; a reset counts as one.
async fn rest(client: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = soon(client.read_to_end(&mut out)).await;
    out
}

/// What arrives until `out` ends with `end`.
async fn until(client: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut out = Vec::new();
    while !out.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let read = soon(client.read_exact(&mut byte)).await;
        assert!(read.is_ok(), "closed after {:?}", String::from_utf8_lossy(&out));
        out.push(byte[0]);
    }
    String::from_utf8(out).unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(5), future).await.expect("not within five seconds")
}

/// Trusts any certificate: these tests are about the connection around TLS.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn one_client_and_all_clients_have_their_caps() {
    let house = House::plain(limits::Policy { connections: 3, connections_per_client: 2, ..quick() });
    let one = house.connect().await;
    let _two = house.connect().await;
    house.counted(Event::Accepted, 2).await;
    assert_eq!(rest(&mut house.connect().await).await, b"", "closed at once");
    house.counted(Event::FullClient, 1).await;
    drop(one);
    house.counted(Event::Probe, 1).await;
    let answer = house.exchange(b"GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with(b"hi /again"), "the place was given back");
}

#[tokio::test]
async fn a_trusted_proxy_carries_many_clients() {
    let text = "[client]\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let (trusting, complaints) =
        read_with(text, |root, reading| client::Raw::read(root, reading).compile(&mut reading.complaints));
    assert!(complaints.is_empty(), "{complaints}");
    let house = House::open(limits::Policy { connections_per_client: 1, ..quick() }, None, trusting);
    let _one = house.connect().await;
    let answer = house.exchange(b"GET /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with(b"hi /two"));
}

#[tokio::test]
async fn the_total_cap_counts_everybody() {
    let house = House::plain(limits::Policy { connections: 1, ..quick() });
    let _one = house.connect().await;
    house.counted(Event::Accepted, 1).await;
    assert_eq!(rest(&mut house.connect().await).await, b"");
    house.counted(Event::FullTotal, 1).await;
}

#[tokio::test]
async fn queued_connections_are_served_when_the_door_closes() {
    let house = House::plain(quick());
    // Nothing runs between these lines and the closing: the connection waits in the kernel's queue.
    let mut client = std::net::TcpStream::connect(house.addr).unwrap();
    std::io::Write::write_all(&mut client, b"GET /queued HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    house.drain.advance(Phase::Closing);
    client.set_nonblocking(true).unwrap();
    let answer = rest(&mut TcpStream::from_std(client).unwrap()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.ends_with("hi /queued"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    soon(house.accepting).await.unwrap().unwrap();
    assert!(std::net::TcpStream::connect(house.addr).is_err(), "the socket is closed");
}

/// Run by the test below in a process of its own with few descriptors.
#[tokio::test]
#[ignore = "needs a process with few file descriptors; run by running_out_of_descriptors_is_survived"]
async fn child_without_descriptors() {
    let house = House::plain(limits::Policy::default());
    let mut clients = Vec::new();
    // Each connection takes two descriptors here: ours and the client's.
    while let Ok(Ok(client)) = timeout(Duration::from_millis(200), TcpStream::connect(house.addr)).await {
        clients.push(client);
    }
    house.counted_at_least(Event::Exhausted, 1).await;
    let before = house.tally.count(Event::Exhausted);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spins = house.tally.count(Event::Exhausted) - before;
    assert!((1..=60).contains(&spins), "{spins} tries in a second");
    clients.truncate(2);
    let start = clock::now();
    let answer = house.exchange(b"GET /room HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with(b"hi /room"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(start.elapsed() < Duration::from_secs(1));
}

impl House {
    async fn counted_at_least(&self, event: Event, times: u64) {
        soon(async {
            while self.tally.count(event) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let itself = std::fs::read_link("/proc/self/exe").unwrap();
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" --ignored --exact listen::tests::child_without_descriptors"])
        .arg(itself)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}
