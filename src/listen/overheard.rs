//! The stream under an HTTP/2 parser: it listens to the frames of both sides, and stops reading once the client's
//! conduct has been judged.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::conduct::Conduct;
use super::frames::Frames;
use super::pulse::Pulse;
use crate::clock;
use crate::tls::Tapped;

/// A stream whose frames are counted.
pub(super) struct Overheard<T> {
    io: T,
    pulse: Arc<Pulse>,
    client: Frames,
    ours: Frames,
    conduct: Conduct,
}

impl<T> Overheard<T> {
    /// Listens from the client's preface on.
    pub(super) fn new(io: T, pulse: Arc<Pulse>) -> Self {
        let conduct = Conduct::new(pulse.start());
        Self { io, pulse, client: Frames::of_client(), ours: Frames::of_server(), conduct }
    }

    /// The stream; and the newest stream of the client, if we are between two frames of our own, so that a last one
    /// may follow.
    pub(super) fn into_parts(self) -> (T, Option<u32>) {
        let newest = self.ours.is_between().then(|| self.conduct.newest());
        (self.io, newest)
    }

    /// Counts what we said.
    fn said<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, mut count: usize) {
        let Self { ours, conduct, .. } = self;
        for piece in pieces {
            let sent = piece.get(..count).unwrap_or(piece);
            count -= sent.len();
            ours.feed(sent, |head| conduct.said(head));
            if count == 0 {
                return;
            }
        }
    }
}

impl<T: Tapped + Unpin> Read for Overheard<T> {
    /// Pending for ever after the judgement: whoever drives the connection looks for it after each poll.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, pulse, client, conduct, .. } = self.get_mut();
        if pulse.is_judged() {
            return Poll::Pending;
        }
        let read = Pin::new(io).poll_read_tapped(cx, cursor, &mut |bytes| {
            client.feed(bytes, |head| conduct.hear(head, clock::now));
        });
        if read.is_ready() {
            pulse.heard(conduct.heard(), client.is_in_block());
        }
        read
    }
}

impl<T: Write + Unpin> Write for Overheard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        if let Poll::Ready(Ok(count)) = written {
            this.said(std::iter::once(data), count);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        if let Poll::Ready(Ok(count)) = written {
            this.said(pieces.iter().map(|piece| &**piece), count);
        }
        written
    }
}
