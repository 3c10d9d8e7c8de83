//! The stream under hyper: it tells the pulse what the socket does, and holds the connection's places for as long as anybody holds it, tunnels included.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::pulse::Pulse;

/// A stream with its pulse; `G` is what is given back when it ends.
pub(super) struct Metered<T, G> {
    io: T,
    pulse: Arc<Pulse>,
    _held: G,
}

impl<T, G> Metered<T, G> {
    pub(super) fn new(io: T, pulse: Arc<Pulse>, held: G) -> Self {
        Self { io, pulse, _held: held }
    }

    /// Tells the pulse whether the socket took something.
    fn note<R>(&self, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match &written {
            Poll::Pending => self.pulse.blocked(),
            Poll::Ready(_) => self.pulse.flowing(),
        }
        written
    }
}

impl<T: Read + Unpin, G: Unpin> Read for Metered<T, G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        // The end of the stream counts as bytes too: whoever reads it ends the connection anyway.
        self.pulse.read();
        Poll::Ready(read)
    }
}

impl<T: Read + Write + Unpin, G: Unpin> Write for Metered<T, G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The stream reads on for a while, so that the client gets to read our last words.
        self.pulse.shut();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(written)
    }
}
