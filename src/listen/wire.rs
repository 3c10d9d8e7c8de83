//! The stream of an HTTP/1 connection and what was read ahead of it, shared by the driver of the
//! connection and by whoever reads a request's body.
//!
//! Both live in one task, so the lock is never contended; it is here because a body outlives the call
//! that made it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::socket;
use crate::body::Inflow;
use crate::http1::answer;
use crate::http1::chunked::{self, Piece};
use crate::http1::framing::RequestFraming;
use crate::tls::ReadInto;

/// What an HTTP/1 connection runs over.
pub(super) trait Stream: ReadInto + Read + Write + Unpin + Send + 'static {}

impl<T: ReadInto + Read + Write + Unpin + Send + 'static> Stream for T {}

/// The stream of one connection.
pub(super) struct Wire<T>(Mutex<Line<T>>);

/// What the lock holds.
pub(super) struct Line<T> {
    io: T,
    /// Received and not yet understood. It holds no memory while it is empty and nothing comes.
    pub(super) input: BytesMut,
    coding: Coding,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    awaits_continue: bool,
    /// What is left of a `100 Continue` on its way out.
    interim: &'static [u8],
    /// Whether the answer has begun: from then on nothing is said in between.
    answers: bool,
}

/// How far the body of the request under way has come.
enum Coding {
    Length(u64),
    Chunked(chunked::Decoder),
    End,
}

impl<T> Wire<T> {
    /// The wire over `io`.
    pub(super) fn new(io: T) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            io,
            input: BytesMut::new(),
            coding: Coding::End,
            awaits_continue: false,
            interim: &[],
            answers: false,
        })))
    }

    /// The stream, for as long as the guard lives.
    pub(super) fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Line<T> {
    /// A request with this body begins.
    pub(super) fn begin(&mut self, framing: RequestFraming, awaits_continue: bool) {
        self.coding = match framing {
            RequestFraming::None | RequestFraming::Length(0) => Coding::End,
            RequestFraming::Length(length) => Coding::Length(length),
            RequestFraming::Chunked => Coding::Chunked(chunked::Decoder::default()),
        };
        self.awaits_continue = awaits_continue && !self.is_end();
        self.answers = false;
    }

    /// The answer begins. What is left of a `100 Continue` goes before it; one of which nothing is out yet is not
    /// said any more, so the client waits on.
    pub(super) fn answer(&mut self) -> &'static [u8] {
        self.answers = true;
        let left = std::mem::take(&mut self.interim);
        if left.len() < answer::CONTINUE.len() {
            return left;
        }
        self.awaits_continue = true;
        &[]
    }

    /// Whether the body under way has been read to its end.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.coding, Coding::End)
    }

    /// Whether the client may never send the body: it waits to be asked.
    pub(super) fn is_unasked(&self) -> bool {
        self.awaits_continue
    }

    /// Bytes of the body still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match &self.coding {
            Coding::Length(left) => Some(*left),
            Coding::Chunked(_) => None,
            Coding::End => Some(0),
        }
    }
}

impl<T: Stream> Line<T> {
    /// Reads once to the end of `input`. Ready with 0 at the end of the stream.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = self.io.poll_read_into(cx, &mut self.input);
        if polled.is_pending() && self.input.is_empty() {
            self.input = BytesMut::new();
        }
        polled
    }

    /// Writes of the pieces, one after the other, as much as goes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, pieces: [&[u8]; 3]) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let written = match pieces {
            // A plain send costs the kernel less than a gathered one.
            [only, [], []] | [[], only, []] => ready!(io.poll_write(cx, only))?,
            _ => ready!(io.poll_write_vectored(cx, &pieces.map(IoSlice::new)))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(written))
    }

    /// Whether the connection ends with a reset if it is dropped from here on, and not with a farewell.
    pub(super) fn reset_on_drop(&self, yes: bool) {
        match self.io.socket() {
            Some(socket) if yes => socket::reset_on_close(socket),
            Some(socket) => socket::farewell_on_close(socket),
            None => {}
        }
    }

    /// Sends what was written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes our side, and waits with patience for the other.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Asks for the body, if the client waits for that.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.answers {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut self.awaits_continue) && self.input.is_empty() {
            self.interim = answer::CONTINUE;
        }
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim = self.interim.get(written..).unwrap_or_default();
        }
        self.poll_flush(cx)
    }

    /// The next piece of the body; none at its end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_end() {
            return Poll::Ready(None);
        }
        if let Err(error) = ready!(self.poll_continue(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.take_piece() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if self.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.poll_more(cx)) {
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// What `input` holds of the body. A body that broke once stays broken: its decoder remembers.
    fn take_piece(&mut self) -> io::Result<Option<Bytes>> {
        match &mut self.coding {
            Coding::End => Ok(None),
            Coding::Length(_) if self.input.is_empty() => Ok(None),
            Coding::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                *left -= most as u64;
                if *left == 0 {
                    self.coding = Coding::End;
                }
                Ok(Some(self.input.split_to(most).freeze()))
            }
            Coding::Chunked(decoder) => match decoder.decode(&mut self.input) {
                Ok(Piece::Data(data)) => {
                    if decoder.is_end() {
                        self.coding = Coding::End;
                    }
                    Ok(Some(data))
                }
                Ok(Piece::More) => Ok(None),
                Ok(Piece::End) => {
                    self.coding = Coding::End;
                    Ok(None)
                }
                Err(fault) => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
            },
        }
    }
}

impl<T: Stream> Inflow for Wire<T> {
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.line().poll_piece(cx)
    }

    fn remaining(&self) -> Option<u64> {
        self.line().remaining()
    }
}

/// The client's end of a connection that has left HTTP.
pub(super) struct ClientEnd<T>(pub(super) Arc<Wire<T>>);

impl<T: Stream> Read for ClientEnd<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.line().io).poll_read(cx, cursor)
    }
}

impl<T: Stream> Write for ClientEnd<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.line().io).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.line().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.line().poll_shutdown(cx)
    }
}
