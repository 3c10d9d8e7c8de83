//! A TLS connection as hyper reads and writes it: a `Session` on a socket.
//!
//! What is written gathers until hyper flushes, and then leaves in one send. Buffers are held only
//! while bytes are in them, so that an idle connection holds none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::accept::explain;
use super::plain::Plain;
use super::read_into::ReadInto;
use super::session::{Fault, Session};

/// How long session tickets wait for a response to travel with. A client that connects ahead of
/// time and stays silent gets them then.
const TICKET_DELAY: Duration = Duration::from_millis(100);

/// A TLS connection with a client, after the handshake.
pub struct TlsStream {
    socket: Plain,
    /// Boxed whole: with what rustls keeps it fills one block of the allocator.
    session: Box<Session>,
    /// Runs while tickets are the only thing to be sent.
    tickets: Option<Pin<Box<Sleep>>>,
}

impl TlsStream {
    pub(super) fn new(socket: Plain, session: Box<Session>) -> Self {
        let waiting = !session.output().is_empty();
        let tickets = waiting.then(|| Box::pin(sleep(TICKET_DELAY)));
        Self { socket, session, tickets }
    }

    /// The socket below, for its addresses and options.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.socket.tcp()
    }

    /// Sends everything that is encrypted.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.output().is_empty() {
            let count = ready!(self.socket.poll_send(cx, self.session.output()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.sent(count);
        }
        self.tickets = None;
        Poll::Ready(Ok(()))
    }

    /// What is to be sent although nobody flushes: tickets after their delay, alerts and the like at
    /// once. An error here is not lost: the next read or write meets it too.
    fn send_unasked(&mut self, cx: &mut Context<'_>) {
        if self.session.output().is_empty() {
            return;
        }
        if let Some(delay) = &mut self.tickets
            && delay.as_mut().poll(cx).is_pending()
        {
            return;
        }
        let _ = self.poll_drain(cx);
    }

    /// Tells the peer by an alert, as far as the socket takes it right now, and the caller by an error.
    fn broken(&mut self, cx: &mut Context<'_>, fault: &Fault) -> io::Error {
        let _ = self.poll_drain(cx);
        io::Error::new(io::ErrorKind::InvalidData, explain(fault))
    }

    /// Receives once. Ready with `false` at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.socket.poll_readable(cx))?;
        let space = match self.session.input_space() {
            Ok(space) => space,
            Err(fault) => return Poll::Ready(Err(self.broken(cx, &fault))),
        };
        let polled = self.socket.poll_fill(cx, space);
        let count = if let Poll::Ready(Ok(count)) = &polled { *count } else { 0 };
        self.session.received(count);
        polled.map_ok(|count| count > 0)
    }

    /// The socket ended without `close_notify`. HTTP marks the ends of its messages itself, so this is
    /// an ordinary end for it, unless it cuts a record in two.
    fn end(&self) -> io::Result<()> {
        if self.session.is_inside_record() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn poll_pieces<'a>(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.offer(pieces.clone()) {
                Ok(0) if pieces.clone().any(|piece| !piece.is_empty()) => ready!(self.poll_drain(cx))?,
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(fault) => return Poll::Ready(Err(self.broken(cx, &fault))),
            }
        }
    }

    fn offer<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<usize, Fault> {
        let mut total = 0;
        for piece in pieces {
            let count = self.session.write(piece)?;
            total += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(total)
    }
}

/// What is decrypted goes straight from the record into the buffer.
impl ReadInto for TlsStream {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        loop {
            self.session.take_plain_into(into);
            if into.len() > before || self.session.peer_has_closed() {
                return Poll::Ready(Ok(into.len() - before));
            }
            if self.session.has_failed() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(self.end().map(|()| 0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.send_unasked(cx);
                    return Poll::Pending;
                }
            }
            if let Err(fault) = self.session.decrypt_into(into) {
                return Poll::Ready(Err(self.broken(cx, &fault)));
            }
        }
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self.tcp())
    }
}

/// A stream that shows what is read from it. hyper's cursor shows nothing of what was put into it.
pub trait Tapped: Read {
    /// Reads as [`Read::poll_read`] does; `tap` sees the bytes that are read.
    ///
    /// # Errors
    /// Those of the stream.
    fn poll_read_tapped(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
        tap: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>>;
}

impl Read for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_tapped(cx, cursor, &mut |_| ())
    }
}

impl Tapped for TlsStream {
    fn poll_read_tapped(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
        tap: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = cursor.remaining();
        while cursor.remaining() == before && before > 0 {
            if this.session.take_plain(&mut cursor, tap) || this.session.peer_has_closed() {
                break;
            }
            if this.session.has_failed() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            match this.poll_receive(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(this.end()),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.send_unasked(cx);
                    return Poll::Pending;
                }
            }
            if let Err(fault) = this.session.decrypt(&mut cursor, tap) {
                return Poll::Ready(Err(this.broken(cx, &fault)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_pieces(cx, &std::iter::once(data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Err(fault) = this.session.seal() {
            return Poll::Ready(Err(this.broken(cx, &fault)));
        }
        this.poll_drain(cx)
    }

    /// `close_notify` leaves in the same send as the last data, then the socket's sending half closes.
    /// Whoever closes while the client still sends must read on for a while before dropping this, or
    /// a reset overtakes the last answer (RFC 9112 section 9.6): `listen` does.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Err(fault) = this.session.close() {
            return Poll::Ready(Err(this.broken(cx, &fault)));
        }
        ready!(this.poll_drain(cx))?;
        this.socket.poll_finish(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_pieces(cx, &pieces.iter().map(|piece| &**piece))
    }
}
