//! One flush per poll of an HTTP/2 connection, instead of one per DATA frame.
//!
//! hyper flushes after every frame that it writes. [`Lazy`] answers those flushes without doing
//! anything, and the driver of the connection flushes once after each poll, when all frames of that
//! round have been written:
//!
//! ```no_run
//! # async fn example<I, C>(io: I, connect: impl FnOnce(ravelin::tls::Lazy<I>) -> C)
//! # where I: hyper::rt::Read + hyper::rt::Write + Unpin, C: Future<Output = hyper::Result<()>> {
//! use std::pin::pin;
//!
//! let (io, flusher) = ravelin::tls::lazy(io);
//! let mut connection = pin!(connect(io)); // http2::Builder::…::serve_connection(io, service)
//! let ended = std::future::poll_fn(|cx| flusher.drive(connection.as_mut(), cx)).await;
//! # let _ = ended;
//! # }
//! ```
//!
//! In a `select!` with a shutdown signal the same `poll_fn` is the branch of the connection; after
//! `connection.as_mut().graceful_shutdown()` it simply goes on. **Never poll the connection in another
//! way**: what it wrote would stay where it is.
//!
//! No wake-up is lost, because: (1) what cannot be sent at once leaves the writer's waker with the
//! socket, by the same task that drives the connection; (2) if the connection was told to wait for room
//! and a flush then makes room, the task is woken by hand; (3) if a flush fails, the connection meets
//! the error at its next read or write and is woken to do so. Back-pressure is the inner stream's:
//! its `poll_write` waits when too much is pending, whether or not anyone flushes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

/// The stream that hyper gets.
pub struct Lazy<T>(Shared<T>);

/// The handle that the driver of the connection keeps.
pub struct Flusher<T>(Shared<T>);

/// Both live in one task, so the lock is never contended; it is here because hyper keeps its stream
/// to itself and the driver must reach it.
type Shared<T> = Arc<Mutex<State<T>>>;

struct State<T> {
    inner: T,
    /// Something was written, or a flush asked for, since the last complete flush.
    dirty: bool,
    /// The connection was told to wait before it writes more.
    waiting: bool,
    /// How the last flush failed.
    failed: Option<io::ErrorKind>,
}

/// Splits a stream into what hyper gets and what its driver flushes.
pub fn lazy<T>(inner: T) -> (Lazy<T>, Flusher<T>) {
    let shared = Arc::new(Mutex::new(State { inner, dirty: false, waiting: false, failed: None }));
    (Lazy(Arc::clone(&shared)), Flusher(shared))
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Write + Unpin> Flusher<T> {
    /// Sends what was written since the last time. Pending means that some of it has to wait for the
    /// socket, which wakes the task of `cx`.
    pub fn flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).flush(cx)
    }

    /// Polls the connection once and flushes what it wrote. Use it inside `poll_fn`.
    ///
    /// A failed flush is told to the connection, which then ends by itself. Once the connection has
    /// ended, what the socket does not take at once is dropped: hyper flushes before an orderly end.
    pub fn drive<C: Future>(&self, connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let polled = connection.poll(cx);
        if let Poll::Ready(Err(_)) = self.flush_now(cx)
            && polled.is_pending()
        {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

impl<T: Write + Unpin> State<T> {
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        match &flushed {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.failed = Some(error.kind()),
        }
        self.dirty = false;
        if std::mem::take(&mut self.waiting) {
            cx.waker().wake_by_ref();
        }
        flushed
    }

    /// Remembers what a write left behind.
    fn note<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.dirty = true;
        self.waiting = polled.is_pending();
        polled
    }

    fn healthy(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<T: Read + Unpin> Read for Lazy<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        Pin::new(&mut state.inner).poll_read(cx, cursor)
    }
}

impl<T: Write + Unpin> Write for Lazy<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        state.healthy()?;
        let polled = Pin::new(&mut state.inner).poll_write(cx, data);
        state.note(polled)
    }

    /// Does nothing: see the [module](self).
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.healthy()?;
        state.dirty = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.healthy()?;
        let polled = Pin::new(&mut state.inner).poll_shutdown(cx);
        state.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        state.healthy()?;
        let polled = Pin::new(&mut state.inner).poll_write_vectored(cx, pieces);
        state.note(polled)
    }
}
