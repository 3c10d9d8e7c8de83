//! The client against small origins that a test plays by hand, byte by byte.

mod bulk;
mod evil;
mod http2;
mod reuse;
mod settings;
mod tls;
mod tunnel;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::Body as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::balance::Member;
use super::endpoint::Endpoint;
use super::settings::{Policy, PoolPolicy};
use super::{Answer, Call, Kind, Limits, Upstream, UpstreamError};
use crate::body::{Body, BodyError};
use crate::config::section::FromText;
use crate::http1::framing::RequestFraming;
use crate::load::Mark;

/// Long enough that no healthy test reaches it.
const LONG: Duration = Duration::from_secs(10);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(250);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A listening socket whose connections the test plays.
struct Origin {
    listener: TcpListener,
}

/// One connection, seen from the origin.
struct Peer {
    stream: TcpStream,
}

impl Origin {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    fn upstream(&self) -> Upstream {
        upstream(&[self.url()], PoolPolicy::default())
    }

    async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(LONG, self.listener.accept()).await;
        Peer { stream: accepted.expect("the proxy does not connect").unwrap().0 }
    }

    /// Accepts, reads one request head, answers; the connection stays open as long as the peer lives.
    async fn serve(&self, answer: impl AsRef<[u8]>) -> Peer {
        let mut peer = self.accept().await;
        peer.head().await;
        peer.say(answer).await;
        peer
    }
}

impl Peer {
    /// The next request head; empty if the proxy closed.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return String::new(),
            }
        }
        String::from_utf8(head).unwrap()
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have hung up, which is for the test to judge.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whether the proxy closed without saying any more.
    async fn hung_up(&mut self) -> bool {
        let read = tokio::time::timeout(LONG, self.stream.read(&mut [0; 16])).await;
        matches!(read.expect("the proxy keeps the connection"), Ok(0) | Err(_))
    }

    /// Closes with a reset.
    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn upstream(urls: &[String], pool: PoolPolicy) -> Upstream {
    let members = urls.iter().map(|url| (Endpoint::from_text(url).unwrap(), None)).collect();
    Upstream::new(&Policy { members, pool }, LIMITS, 1)
}

const LIMITS: Limits = Limits { response_head: 16 * 1024, body_idle: SHORT, tunnel_idle: LONG };

impl Upstream {
    /// The members of a simulation.
    pub(crate) fn simulated(urls: &[String], limits: Limits) -> Self {
        let members = urls.iter().map(|url| (Endpoint::from_text(url).unwrap(), None)).collect();
        Self::new(&Policy { members, pool: PoolPolicy::default() }, limits, 1)
    }
}

fn call(method: Method, framing: RequestFraming, body: Body) -> Call {
    let line = match framing {
        RequestFraming::None => String::new(),
        RequestFraming::Length(length) => format!("content-length: {length}\r\n"),
        RequestFraming::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
    };
    let head = BytesMut::from(format!("{method} / HTTP/1.1\r\nhost: a.test\r\n{line}\r\n").as_str());
    let client = Mark::default();
    Call { client, method, head, framing, body, websocket: false, first_byte: LONG, many_streams: false }
}

fn get() -> Call {
    call(Method::GET, RequestFraming::None, Body::empty())
}

fn post(body: &'static str) -> Call {
    call(Method::POST, RequestFraming::Length(body.len() as u64), Body::full(body))
}

/// A GET that does not wait long, neither for the head nor within the body.
fn hasty() -> Call {
    Call { first_byte: SHORT, ..get() }
}

async fn frame(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

async fn text(answer: Answer) -> Result<String, BodyError> {
    let mut body = answer.reply.body;
    let mut all = Vec::new();
    while let Some(data) = frame(&mut body).await {
        all.extend_from_slice(&data?);
    }
    Ok(String::from_utf8(all).unwrap())
}

/// How many idle connections are kept to the only member.
fn kept(upstream: &Upstream) -> usize {
    let only: &Member = upstream.only_member();
    only.pool(0).unwrap().len()
}

/// Plays one whole good request, on a new connection.
async fn is_healthy(origin: &Origin, upstream: &Upstream) {
    let (answer, _peer) = tokio::join!(upstream.send(0, get()), origin.serve(OK));
    let answer = answer.unwrap();
    assert!(!answer.facts.reused);
    assert_eq!(text(answer).await.unwrap(), "ok");
}

fn kind(result: Result<Answer, UpstreamError>) -> Kind {
    result.unwrap_err().kind
}
