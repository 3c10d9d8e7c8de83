//! Connections of one worker to one member that many requests share.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::rt::Executor as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::outgoing::Outgoing;
use super::socket::{Socket, Tasks};
use crate::clock;
use crate::upstream::error::{Kind, Retry, UpstreamError};
use crate::upstream::pool::leads_there;
use crate::upstream::stream::Link;

/// Requests at once on one connection, if the origin takes as many; nginx takes 128, Apache 100.
const STREAMS: usize = 100;
/// Requests in all on one connection. nginx ends it after 1,000 (`keepalive_requests`), and whatever is on its way then
/// comes to nothing: better to leave before.
const REQUESTS: u32 = 900;
/// Bytes of an answer that may wait for its client.
const WINDOW: u32 = 64 * 1024;
/// The same for all answers of a connection: one that is held back must not hold back the others.
const ALL_WINDOWS: u32 = WINDOW * 100;
/// Bytes of a request that may wait for the origin.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection that nobody needs may take to end.
const LINGER: Duration = Duration::from_secs(5);

/// The connections.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Lanes(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    open: Vec<Arc<Lane>>,
    /// Whether a request was sent since somebody last looked where the name leads.
    used: bool,
}

/// One connection.
struct Lane {
    sender: SendRequest<Outgoing>,
    /// Tells the connection's task when it goes.
    _held: oneshot::Sender<()>,
    address: Option<IpAddr>,
    streams: AtomicUsize,
    connection: Shared,
    requests: AtomicU32,
    retired: AtomicBool,
    /// When its last request was over.
    idle_since: Mutex<Instant>,
}

/// hyper's end of a connection until it ends: its task polls it, and whoever looks for a place asks it. Both are on one
/// thread.
type Shared = Arc<Mutex<Option<Connection<Socket, Outgoing, Tasks>>>>;

fn lock(connection: &Shared) -> MutexGuard<'_, Option<Connection<Socket, Outgoing, Tasks>>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request's place on a connection, until it is dropped.
#[derive(Debug)]
pub(in crate::upstream) struct Ride(Arc<Lane>);

impl Lanes {
    /// A place on the connection that carries most: so the others are closed when there is less to do.
    pub(in crate::upstream) fn take(&self) -> Option<Ride> {
        let mut kept = self.lock();
        kept.used = true;
        kept.open.retain(|lane| !lane.is_over());
        let free = kept.open.iter().filter(|lane| lane.streams() < lane.most());
        free.max_by_key(|lane| lane.streams()).map(Ride::on)
    }

    /// Makes a connection of `link`, and takes a place on it. `head_max` bounds the bytes of a response head.
    pub(in crate::upstream) async fn open(&self, link: Link, head_max: usize) -> Result<Ride, UpstreamError> {
        let mut builder = Builder::new(Tasks);
        builder
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(ALL_WINDOWS)
            .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER);
        let Link { stream, address, .. } = link;
        let made = builder.handshake(Socket(stream)).await;
        let (sender, connection) = made.map_err(|error| {
            UpstreamError::new(Kind::Closed, format!("HTTP/2: {error}")).retry(Retry::Anywhere)
        })?;
        let (held, let_go) = oneshot::channel();
        let connection = Arc::new(Mutex::new(Some(connection)));
        Tasks.execute(drive(Arc::clone(&connection), let_go));
        let lane = Arc::new(Lane {
            sender,
            _held: held,
            address,
            streams: AtomicUsize::new(0),
            connection,
            requests: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            idle_since: Mutex::new(clock::now()),
        });
        let ride = Ride::on(&lane);
        self.lock().open.push(lane);
        Ok(ride)
    }

    /// Lets go of connections that are over or had nothing to do for `idle`. Whether it is worth asking where the name
    /// leads.
    pub(in crate::upstream) fn sweep(&self, now: Instant, idle: Duration) -> bool {
        let mut kept = self.lock();
        kept.open.retain(|lane| !lane.is_over() && !lane.is_idle(now, idle));
        std::mem::take(&mut kept.used) || !kept.open.is_empty()
    }

    /// Lets go of connections to addresses that the name has left; answers how many. What is under way on them ends.
    pub(in crate::upstream) fn lead_to(&self, addresses: &[IpAddr]) -> usize {
        let mut kept = self.lock();
        let before = kept.open.len();
        kept.open.retain(|lane| leads_there(Some(addresses), lane.address));
        before - kept.open.len()
    }

    /// How many connections there are.
    #[cfg(test)]
    pub(in crate::upstream) fn len(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the connection ends, or a moment after the last request that needs it: an origin that reads no further could
/// keep a request that was given up for ever.
async fn drive(connection: Shared, let_go: oneshot::Receiver<()>) {
    let mut lasts = poll_fn(|cx| match &mut *lock(&connection) {
        Some(connection) => Pin::new(connection).poll(cx),
        None => Poll::Ready(Ok(())),
    });
    let ended = tokio::select! {
        ended = &mut lasts => Ok(ended),
        _ = let_go => timeout(LINGER, lasts).await,
    };
    *lock(&connection) = None;
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "a connection to an origin ended");
    }
}

impl Lane {
    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// How many requests at once the origin takes (`SETTINGS_MAX_CONCURRENT_STREAMS`, RFC 9113 section 6.5.2), [`STREAMS`] at
    /// most. One more would wait in hyper, for as long as the slowest of the others.
    fn most(&self) -> usize {
        lock(&self.connection).as_ref().map_or(0, |open| open.current_max_send_streams().min(STREAMS))
    }

    fn is_over(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
            || self.sender.is_closed()
            || self.requests.load(Ordering::Relaxed) >= REQUESTS
    }

    fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams() == 0 && now.saturating_duration_since(since) >= idle
    }
}

impl Ride {
    fn on(lane: &Arc<Lane>) -> Self {
        lane.streams.fetch_add(1, Ordering::Relaxed);
        lane.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lane))
    }

    /// What sends requests.
    pub(super) fn sender(&self) -> SendRequest<Outgoing> {
        self.0.sender.clone()
    }

    /// No other request takes this connection.
    pub(super) fn retire(&self) {
        self.0.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("streams", &self.streams()).finish_non_exhaustive()
    }
}
