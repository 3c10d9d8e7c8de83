//! The bytes of one origin connection, whatever carries them.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::block::Block;
use super::timer::Timer;
use super::tls::HTTP2;

/// A connected stream.
pub(super) enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A unix socket.
    Unix(UnixStream),
    /// A line of a simulation.
    #[cfg(test)]
    Simulated(Box<crate::tests::pipe::End>),
}

/// A connection with the timer of whoever waits on it. The timer stays with the connection: to make one and enter it
/// with the runtime for each request costs more than one that rings for nobody now and then.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: Stream,
    pub(super) timer: Timer,
    /// Where it leads, over IP.
    pub(super) address: Option<IpAddr>,
}

impl Link {
    /// A connection that was opened `now`.
    #[must_use]
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        let address = stream.address();
        Self { stream, timer: Timer::at(now), address }
    }
}

impl Stream {
    /// Whether HTTP/2 was agreed on in the handshake.
    pub(super) fn agreed_on_http2(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(HTTP2))
    }

    /// The address of the other end, over IP.
    fn address(&self) -> Option<IpAddr> {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Unix(_) => return None,
            #[cfg(test)]
            Self::Simulated(_) => return None,
        };
        tcp.peer_addr().ok().map(|address| address.ip().to_canonical())
    }

    /// Reads once into the spare room of `buffer`, which `grow` provides only when there is something
    /// to read: a connection that waits holds no buffer.
    pub(super) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        grow: impl FnOnce(&mut BytesMut),
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_readable(cx))?;
        grow(buffer);
        let read = std::pin::pin!(self.read_buf(buffer));
        read.poll(cx)
    }

    /// Reads at most `most` bytes into a block that is taken only when there is something to read; none
    /// at the end of the stream.
    pub(super) fn poll_read_block(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_readable(cx))?;
        let mut block = Block::take(most);
        let room = block.space();
        let most = most.min(room.len());
        let mut space = ReadBuf::new(room.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(self).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        Poll::Ready(Ok(if count == 0 { Bytes::new() } else { block.filled(count) }))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
            // TLS may hold decrypted bytes that the socket knows nothing of.
            Self::Tls(_) => Poll::Ready(Ok(())),
            #[cfg(test)]
            Self::Simulated(end) => end.poll_readable(cx).map(Ok),
        }
    }

    /// Whether an idle connection is still silent and open. One that has closed, or says something that
    /// nobody asked for, must not carry another request.
    ///
    /// `thorough` asks the kernel as well, which costs one system call: worth it before a request that
    /// cannot be sent again.
    pub(super) fn is_idle(&mut self, thorough: bool) -> bool {
        let mut byte = [0_u8; 1];
        // Asks the kernel only if the runtime knows that there is something.
        let silent = match self {
            Self::Tcp(tcp) => would_block(&tcp.try_read(&mut byte)),
            Self::Unix(unix) => would_block(&unix.try_read(&mut byte)),
            Self::Tls(tls) => {
                let mut cx = Context::from_waker(Waker::noop());
                Pin::new(tls).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
            #[cfg(test)]
            Self::Simulated(end) => end.poll_readable(&mut Context::from_waker(Waker::noop())).is_pending(),
        };
        silent && (!thorough || self.kernel_has_nothing())
    }

    /// What the runtime has not been told yet: a close or bytes that arrived a moment ago.
    fn kernel_has_nothing(&self) -> bool {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Tls(tls) => SockRef::from(tls.get_ref().0),
            Self::Unix(unix) => SockRef::from(unix),
            #[cfg(test)]
            Self::Simulated(_) => return true,
        };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        would_block(&socket.peek(&mut byte))
    }
}

/// Whether there is nothing to be read yet.
fn would_block(read: &io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
            #[cfg(test)]
            Self::Simulated(end) => Pin::new(&mut **end).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
            #[cfg(test)]
            Self::Simulated(end) => Pin::new(&mut **end).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            #[cfg(test)]
            Self::Simulated(end) => Pin::new(&mut **end).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
            #[cfg(test)]
            Self::Simulated(end) => Pin::new(&mut **end).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
            #[cfg(test)]
            Self::Simulated(end) => Pin::new(&mut **end).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Stream::Tcp",
            Self::Tls(_) => "Stream::Tls",
            Self::Unix(_) => "Stream::Unix",
            #[cfg(test)]
            Self::Simulated(_) => "Stream::Simulated",
        })
    }
}
