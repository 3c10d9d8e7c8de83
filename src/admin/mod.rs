//! The administrator's listener: metrics, whether this process is alive and ready, and who is banned.
//!
//! Apart from the public listeners, on an address of its own. This is where tower's layers earn their
//! place: what they do is the same for every answer, cannot refuse, and no request rate is at stake.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use self::socket::{Bound, Kind, Name, Who};
use self::stream::Stream;
use crate::observe::Observe;

mod answer;
pub mod bans;
pub mod settings;
pub mod socket;
pub(crate) mod stream;

/// Connections at once; the next ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// One request and its answer, from accept to close: longer than any scrape, and an end for clients
/// that send their head byte by byte.
const LIFE: Duration = Duration::from_secs(10);
/// The largest head that is read.
const HEAD_MAX: usize = 16 << 10;
/// How long accepting pauses when the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether balancers should send requests here; cheap to clone. Begins as not ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// How far the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Sockets are not open yet.
    #[default]
    Starting,
    /// Serving.
    Ready,
    /// Still serving, but going down: send requests elsewhere.
    Draining,
}

impl Readiness {
    /// Sets the state. What drains never gets ready again.
    pub fn set(&self, state: State) {
        self.0.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        let now = self.0.load(Ordering::Acquire);
        [State::Starting, State::Ready].into_iter().find(|s| *s as u8 == now).unwrap_or(State::Draining)
    }
}

/// What can be asked for here.
#[derive(Clone)]
pub struct Desk {
    /// The metrics.
    pub observe: Observe,
    /// Whether balancers may send requests.
    pub readiness: Readiness,
    /// Who is banned, as it is when somebody asks.
    pub bans: Arc<dyn Fn() -> bans::Counter + Send + Sync>,
}

/// Serves one socket until `stop` is done: `GET` and `HEAD` of `/metrics`, `/-/healthz` and `/-/readyz`, and over a
/// unix socket also `/-/bans` and `/-/install-tool`.
/// All of it runs within this future: it spawns nothing, so whatever is open ends with it.
pub async fn serve(bound: Bound, desk: Desk, stop: impl Future<Output = ()>) {
    let listener = match Listener::new(bound) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "admin: the listener cannot be used"),
    };
    let mut open = FuturesUnordered::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(()) = open.next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS => match accepted {
                Ok((stream, who)) => open.push(converse(stream, who, &desk)),
                Err(error) => rest(&error).await,
            },
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "its end takes the name away")] Name),
}

/// What carries a conversation.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        match bound.socket {
            Kind::Tcp(socket) => TcpListener::from_std(socket).map(Self::Tcp),
            Kind::Unix(socket, name) => UnixListener::from_std(socket).map(|socket| Self::Unix(socket, name)),
        }
    }

    async fn accept(&self) -> io::Result<(Stream<Box<dyn Carrier>>, Who)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(Box::new(stream)), Who::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let who = Who::User(stream.peer_cred().ok().map(|cred| cred.uid()));
                Ok((Stream(Box::new(stream)), who))
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: Stream<Box<dyn Carrier>>, who: Who, desk: &Desk) {
    let stack = answer::stack(desk.clone(), who);
    let service = service_fn(move |request| stack.clone().oneshot(request));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX)
        .serve_connection(stream, service);
    match timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin: a connection broke off"),
        Err(_) => tracing::debug!("admin: a connection took too long"),
    }
}

/// A client that was gone before it was accepted costs nothing; being out of file descriptors does.
async fn rest(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "admin: cannot accept a connection");
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
