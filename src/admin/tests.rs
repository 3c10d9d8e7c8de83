//! Over a real loopback socket.

use std::time::UNIX_EPOCH;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::client::key::Prefix;
use crate::observe::settings::{Form, Policy};

/// A running listener: its address, its readiness, and what ends it.
fn start() -> (std::net::SocketAddr, Readiness, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let policy = Policy { access: Form::Off, ..Policy::default() };
    let observe = Observe::open(&policy, 1, UNIX_EPOCH).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let readiness = Readiness::default();
    let bans = Arc::new(|| bans::Counter {
        ledger: Arc::default(),
        sites: vec!["www.example.org".into()],
        prefix: Prefix::default(),
    });
    let desk = Desk { observe, readiness: readiness.clone(), bans };
    let (end, ended) = oneshot::channel::<()>();
    let stop = async {
        let _ = ended.await;
    };
    let task = tokio::spawn(serve(Bound { socket: Kind::Tcp(socket) }, desk, stop));
    (address, readiness, end, task)
}

async fn ask(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LIFE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn readiness_follows_the_process_and_never_turns_back() {
    let (address, readiness, _end, _) = start();
    let ready = || ask(address, "GET /-/readyz");
    assert!(ready().await.starts_with("HTTP/1.1 503 "));
    readiness.set(State::Ready);
    assert!(ready().await.starts_with("HTTP/1.1 200 "));
    readiness.set(State::Draining);
    readiness.set(State::Ready);
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("draining\n"), "{answer}");
    assert!(ask(address, "GET /-/healthz").await.starts_with("HTTP/1.1 200 "), "alive to the end");
}

#[tokio::test]
async fn metrics_are_open_metrics_and_every_answer_is_hardened() {
    let (address, _, _end, _) = start();
    let answer = ask(address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n"), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    for line in ["GET /metrics", "GET /else", "POST /metrics"] {
        let answer = ask(address, line).await;
        for want in ["x-content-type-options: nosniff", "x-frame-options: DENY", "cache-control: no-store"] {
            assert_eq!(answer.matches(want).count(), 1, "{line}: {answer}");
        }
    }
}

#[tokio::test]
async fn only_get_and_head_of_what_is_there() {
    let (address, _, _end, _) = start();
    let head = ask(address, "HEAD /-/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let post = ask(address, "POST /metrics").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
    for line in ["GET /", "GET /metrics/", "DELETE /-/other"] {
        assert!(ask(address, line).await.starts_with("HTTP/1.1 404 "), "{line}");
    }
}

#[tokio::test]
async fn silent_clients_keep_nobody_out_below_the_cap() {
    let (address, _, _end, _) = start();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS - 1 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(ask(address, "GET /-/healthz").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_that_never_ends_is_too_large() {
    let (address, _, _end, _) = start();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let junk = format!("GET /metrics HTTP/1.1\r\nX: {}", "a".repeat(4 * HEAD_MAX));
    let _ = stream.write_all(junk.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(LIFE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let (address, _, end, task) = start();
    let open = TcpStream::connect(address).await.unwrap();
    end.send(()).unwrap();
    timeout(LIFE, task).await.unwrap().unwrap();
    drop(open);
    assert!(TcpStream::connect(address).await.is_err(), "the socket is closed");
}
