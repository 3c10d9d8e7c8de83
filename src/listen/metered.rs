//! The stream under hyper: it tells the pulse what the socket does, closes with patience, and holds the
//! connection's places for as long as anybody holds it, tunnels included.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::net::TcpStream;

use super::pulse::Pulse;
use crate::tls::{ReadInto, Tapped};

/// Most bytes that are read and thrown away after our side is closed.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// A stream with its pulse; `G` is what is given back when it ends.
pub(super) struct Metered<T, G> {
    io: T,
    pulse: Arc<Pulse>,
    linger: usize,
    _held: G,
}

impl<T, G> Metered<T, G> {
    pub(super) fn new(io: T, pulse: Arc<Pulse>, held: G) -> Self {
        Self { io, pulse, linger: LINGER_BYTES, _held: held }
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

impl<T: Read + Unpin, G> Metered<T, G> {
    /// Reads to the client's end and throws it away. A close with unread bytes would make the kernel send
    /// a reset, which overtakes our last answer: a client that is refused in the middle of an upload would
    /// never read why (RFC 9112 section 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0u8; 4096];
        while self.linger > 0 {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()));
            let count = buffer.filled().len();
            if read.is_err() || count == 0 {
                break;
            }
            self.linger = self.linger.saturating_sub(count);
        }
        Poll::Ready(Ok(()))
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

impl<T: ReadInto, G> ReadInto for Metered<T, G> {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = ready!(self.io.poll_read_into(cx, into));
        self.pulse.read();
        Poll::Ready(read)
    }

    fn socket(&self) -> Option<&TcpStream> {
        self.io.socket()
    }
}

impl<T: Tapped + Unpin, G: Unpin> Tapped for Metered<T, G> {
    fn poll_read_tapped(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
        tap: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read_tapped(cx, buf, tap));
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
        // From here on the pulse gives the client a few seconds, for our last bytes and for its own.
        self.pulse.shut();
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        // A tunnel's other direction may still flow: its bytes are not ours to throw away.
        if self.pulse.is_tunnel() { Poll::Ready(Ok(())) } else { self.poll_linger(cx) }
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
