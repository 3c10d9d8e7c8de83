//! After `101 Switching Protocols`: the raw connection, for the bytes of another protocol.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, Write};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy, split};
use tokio::time::timeout;

use super::balance::Seat;
use super::stream::Stream;

/// How long one direction may go on when the other has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A connection that has left HTTP. It counts as a request under way until it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// Bytes that came in the same read as the 101.
    early: BytesMut,
    stream: Stream,
    _seat: Seat,
}

impl Tunnel {
    pub(super) fn new(stream: Stream, early: BytesMut, seat: Seat) -> Self {
        Self { early, stream, _seat: seat }
    }

    /// Copies both ways until both sides have ended. Once one side has, the other has ten seconds to
    /// say its last words: an origin that ignores the end must not hold both connections for ever.
    pub async fn join<C>(self, client: C, early: Bytes) -> io::Result<()>
    where
        C: Read + Write + Unpin,
    {
        let (mut from_client, mut to_client) = split(Client(client));
        let (mut from_origin, mut to_origin) = split(self);
        to_origin.write_all(&early).await?;
        let mut up = pin!(forward(&mut from_client, &mut to_origin));
        let mut down = pin!(forward(&mut from_origin, &mut to_client));
        let ended = tokio::select! {
            ended = &mut up => ended.map(|()| true),
            ended = &mut down => ended.map(|()| false),
        };
        let last_words = async { if ended? { down.await } else { up.await } };
        timeout(LAST_WORDS, last_words).await.unwrap_or(Ok(()))
    }
}

/// One direction, to its end.
async fn forward(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    copy(from, to).await?;
    to.shutdown().await
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.early.len().min(buf.remaining());
        if most == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        buf.put_slice(self.early.get(..most).unwrap_or_default());
        self.early.advance(most);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The client's stream, in tokio's terms.
struct Client<C>(C);

impl<C: Read + Unpin> AsyncRead for Client<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut room = hyper::rt::ReadBuf::new(buf.initialize_unfilled());
        ready!(hyper::rt::Read::poll_read(Pin::new(&mut self.0), cx, room.unfilled()))?;
        let read = room.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<C: Write + Unpin> AsyncWrite for Client<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        hyper::rt::Write::poll_write(Pin::new(&mut self.0), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        hyper::rt::Write::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}
