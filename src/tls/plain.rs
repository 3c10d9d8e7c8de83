//! A TCP connection as hyper reads and writes it, beginning with the bytes that sniffing has taken.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::block::{Block, Class, Lead};
use super::read_into::ReadInto;

/// How much is read at once when the client sends faster than it is read.
const BULK_READ: usize = 128 * 1024;
/// How much otherwise: a request head with all that browsers send.
const FIRST_READ: usize = 8 * 1024;

/// A connection without TLS. It holds no buffer: what is written goes to the socket at once.
pub struct Plain {
    io: TcpStream,
    first: Bytes,
    bulk: bool,
}

impl Plain {
    /// `first` are bytes that were read from `io` already; they are the first to be read again.
    #[must_use]
    pub fn new(io: TcpStream, first: Bytes) -> Self {
        Self { io, first, bulk: false }
    }

    /// The socket, for its addresses and options.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.io
    }

    /// Waits until something can be read, without holding a buffer meanwhile.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() { self.io.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Reads into `space`; 0 is the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(space.len());
            if let Some(to) = space.get_mut(..count) {
                self.first.copy_to_slice(to);
            }
            if self.first.is_empty() {
                // Empty as it is it would hold on to its 4 KiB for as long as the connection lives.
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(count));
        }
        let mut buffer = ReadBuf::new(space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Sends as much of `data` as the socket takes.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    /// Says that nothing more will be sent (FIN).
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Reads into nothing; 0 is the end of the stream.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        let mut block = Block::take(Class::Large, Lead::Source);
        self.poll_fill(cx, block.spare_mut())
    }
}

/// What is read goes straight from the kernel into the buffer.
impl ReadInto for Plain {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            into.extend_from_slice(&first);
            return Poll::Ready(Ok(first.len()));
        }
        ready!(self.io.poll_read_ready(cx))?;
        let want = if self.bulk { BULK_READ } else { FIRST_READ };
        into.reserve(want);
        // Not `try_read_buf`, which does not note that a short read has emptied the socket, and would ask again.
        let read = std::pin::pin!(self.io.read_buf(into));
        let count = ready!(read.poll(cx))?;
        self.bulk = count >= want;
        Poll::Ready(Ok(count))
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(&self.io)
    }
}

impl Read for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_readable(cx))?;
        let class = if this.bulk { Class::Large } else { Class::Small };
        let mut block = Block::take(class, Lead::Source);
        let most = cursor.remaining().min(block.room()).min(BULK_READ);
        let space = block.spare_mut().get_mut(..most).unwrap_or_default();
        let count = ready!(this.poll_fill(cx, space))?;
        this.bulk = count == most;
        block.commit(count);
        cursor.put_slice(block.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, pieces)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What was read to tell the protocol is 4 KiB, which an idle connection held on to.
    #[tokio::test]
    async fn what_was_read_first_is_given_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let first = Bytes::from(vec![1; 100]);
        let mut plain = Plain::new(io, first.clone());
        let mut space = [0; 60];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (count, is_given_back) in [(60, false), (40, true)] {
            assert!(matches!(plain.poll_fill(&mut cx, &mut space), Poll::Ready(Ok(n)) if n == count));
            assert_eq!(first.is_unique(), is_given_back);
        }
    }
}
