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
//! No wake-up is lost: (1) what a flush cannot send at once leaves the waker of the driving task with
//! the socket; (2) a write that had to wait has left its waker there as well, and the socket wakes it
//! when it takes more, even if a flush in between has used that room; (3) a failed flush is met by the
//! connection at its next read or write, and the task is woken to do so; (4) from the start of the
//! shutdown on the inner stream flushes itself. Nothing is ever woken by hand because "there might be
//! room": over a stream whose flush does nothing, such as [`Plain`](super::Plain), that would spin.
//!
//! Back-pressure is the inner stream's: its `poll_write` waits when too much is pending, whether or
//! not anyone flushes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

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
    /// The shutdown has begun.
    closing: bool,
    /// How the last flush failed.
    failed: Option<io::ErrorKind>,
}

/// Splits a stream into what hyper gets and what its driver flushes.
pub fn lazy<T>(inner: T) -> (Lazy<T>, Flusher<T>) {
    let shared = Arc::new(Mutex::new(State { inner, dirty: false, closing: false, failed: None }));
    (Lazy(Arc::clone(&shared)), Flusher(shared))
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Flusher<T> {
    /// The stream, once the connection that had the other end is gone.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        let state = Arc::into_inner(self.0)?;
        Some(state.into_inner().unwrap_or_else(PoisonError::into_inner).inner)
    }
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
        if !self.dirty || self.closing {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        self.dirty = false;
        if let Err(error) = &flushed {
            self.failed = Some(error.kind());
        }
        Poll::Ready(flushed)
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
        state.dirty = true;
        Pin::new(&mut state.inner).poll_write(cx, data)
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
        state.closing = true;
        Pin::new(&mut state.inner).poll_shutdown(cx)
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
        state.dirty = true;
        Pin::new(&mut state.inner).poll_write_vectored(cx, pieces)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// A stream that gathers up to 8 bytes, and sends them when it may.
    #[derive(Default)]
    struct Inner {
        pending: usize,
        sent: usize,
        flushes: usize,
        shutdowns: usize,
        blocked: bool,
        broken: bool,
    }

    impl Write for Inner {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.pending == 8 {
                ready!(self.as_mut().poll_flush(cx))?;
            }
            let count = data.len().min(8 - self.pending);
            self.pending += count;
            Poll::Ready(Ok(count))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if self.blocked {
                return Poll::Pending;
            }
            self.sent += std::mem::take(&mut self.pending);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.shutdowns += 1;
            Poll::Pending
        }
    }

    impl Read for Inner {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drives a connection that flushes after each of `pieces`, then waits for ever.
    fn round(inner: Inner, pieces: &[&[u8]]) -> (Lazy<Inner>, Flusher<Inner>, usize) {
        let (mut stream, flusher) = lazy(inner);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        {
            let connection = std::future::poll_fn(|cx| -> Poll<()> {
                for piece in pieces {
                    if Pin::new(&mut stream).poll_write(cx, piece).is_pending() {
                        break;
                    }
                    assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
                }
                Poll::Pending
            });
            assert!(flusher.drive(pin!(connection), &mut cx).is_pending());
        }
        let woken = count.0.load(Ordering::Relaxed);
        (stream, flusher, woken)
    }

    #[test]
    fn many_flushes_become_one() {
        let (_, flusher, woken) = round(Inner::default(), &[b"a", b"b", b"c"]);
        let state = lock(&flusher.0);
        assert_eq!((state.inner.sent, state.inner.flushes, woken), (3, 1, 0));
    }

    #[test]
    fn nothing_written_means_nothing_flushed() {
        let (_, flusher, _) = round(Inner::default(), &[]);
        assert_eq!(lock(&flusher.0).inner.flushes, 0);
    }

    #[test]
    fn what_the_socket_does_not_take_is_flushed_later() {
        let (_, flusher, woken) = round(Inner { blocked: true, ..Inner::default() }, &[b"abc"]);
        assert_eq!((lock(&flusher.0).inner.sent, woken), (0, 0));
        lock(&flusher.0).inner.blocked = false;
        let flushed = flusher.flush_now(&mut Context::from_waker(Waker::noop()));
        assert!(flushed.is_ready());
        assert_eq!(lock(&flusher.0).inner.sent, 3);
    }

    #[test]
    fn a_blocked_writer_is_not_spun() {
        let (_, flusher, woken) = round(Inner { blocked: true, ..Inner::default() }, &[b"12345678", b"9"]);
        assert_eq!(woken, 0, "the socket wakes, nobody else");
        assert_eq!(lock(&flusher.0).inner.pending, 8);
    }

    #[test]
    fn a_failed_flush_is_met_by_the_next_read_and_write() {
        let (mut stream, _, woken) = round(Inner { broken: true, ..Inner::default() }, &[b"abc"]);
        assert_eq!(woken, 1, "so that the connection looks");
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = [0; 8];
        let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut stream).poll_read(&mut cx, buffer.unfilled());
        assert!(matches!(read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset));
        assert!(matches!(Pin::new(&mut stream).poll_write(&mut cx, b"x"), Poll::Ready(Err(_))));
    }

    #[test]
    fn the_shutdown_is_left_to_the_stream() {
        let (mut stream, flusher, _) = round(Inner::default(), &[b"abc"]);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut stream).poll_shutdown(&mut cx).is_pending());
        assert!(flusher.flush_now(&mut cx).is_ready());
        let state = lock(&flusher.0);
        assert_eq!((state.inner.shutdowns, state.inner.flushes), (1, 1));
    }
}
