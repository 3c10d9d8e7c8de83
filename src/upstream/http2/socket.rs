//! hyper's interfaces over a stream to an origin, and over tokio's tasks.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::stream::Stream;

/// As much is read at once: a frame of the usual largest size.
const READ: usize = 16 * 1024;

thread_local! {
    /// Where bytes land before hyper takes them.
    static LANDING: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A stream as hyper reads and writes it.
pub(super) struct Socket(pub(super) Stream);

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        LANDING.with_borrow_mut(|landing| {
            let most = cursor.remaining().min(landing.len());
            let mut space = ReadBuf::new(landing.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut space))?;
            cursor.put_slice(space.filled());
            Poll::Ready(Ok(()))
        })
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

/// Runs what drives a connection, on this worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}
