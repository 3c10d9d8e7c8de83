//! A line between two ends with the manners of TCP: it takes part of what it is given, hands over part of
//! what it has, is closed in one direction, and is reset when somebody does not read what came.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dice::Dice;
use crate::clock;
use crate::tls::ReadInto;

/// An end that is polled more often than this spins.
const MOST_POLLS: u32 = 3_000_000;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    bytes: VecDeque<u8>,
    room: usize,
    /// Nothing more is written (FIN).
    ended: bool,
    /// The connection is broken; what was not read is lost (RST).
    reset: bool,
    /// Nobody reads any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    carried: u64,
    ended_at: Option<Instant>,
    deaf_at: Option<Instant>,
}

/// One end of a line. Dropping it closes it; if bytes are left unread, with a reset.
#[derive(Debug)]
pub(crate) struct End {
    to: Arc<Mutex<Way>>,
    from: Arc<Mutex<Way>>,
    dice: Dice,
    polls: u32,
    most_held: usize,
    note: Notes,
}

/// What can be told of an end from outside, also after it is gone.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    to: Arc<Mutex<Way>>,
    from: Arc<Mutex<Way>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The most bytes in a buffer of the reader, the one just read included.
    held: usize,
}

/// Two ends, with room for so many bytes on the way from the first to the second, and back.
pub(crate) fn pair(there: usize, back: usize, dice: &mut Dice) -> (End, End) {
    let way = |room| Arc::new(Mutex::new(Way { room, ..Way::default() }));
    let (there, back) = (way(there), way(back));
    let first = End::new(Arc::clone(&there), Arc::clone(&back), dice.fork());
    (first, End::new(back, there, dice.fork()))
}

impl Way {
    fn wake(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }

    fn break_off(&mut self) {
        self.reset = true;
        self.bytes.clear();
        self.wake();
    }
}

impl Notes {
    /// Bytes that this end has written.
    pub(crate) fn written(&self) -> u64 {
        self.to.lock().unwrap().carried
    }

    /// The most bytes that the reader of this end held in one buffer.
    pub(crate) fn most_held(&self) -> usize {
        self.seen.lock().unwrap().held
    }

    /// Breaks the line: a reset in both directions.
    pub(crate) fn reset(&self) {
        self.to.lock().unwrap().break_off();
        self.from.lock().unwrap().break_off();
    }

    /// How long this end went on listening after it had said its last; none while either has not happened.
    pub(crate) fn listened_on(&self) -> Option<Duration> {
        let ended = self.to.lock().unwrap().ended_at?;
        Some(self.from.lock().unwrap().deaf_at?.saturating_duration_since(ended))
    }

    /// Whether this end is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.from.lock().unwrap().deaf
    }
}

impl End {
    fn new(to: Arc<Mutex<Way>>, from: Arc<Mutex<Way>>, dice: Dice) -> Self {
        let note = Notes { to: Arc::clone(&to), from: Arc::clone(&from), seen: Arc::default() };
        Self { to, from, dice, polls: 0, most_held: 0, note }
    }

    pub(crate) fn notes(&self) -> Notes {
        self.note.clone()
    }

    fn count(&mut self) {
        self.polls += 1;
        assert!(self.polls < MOST_POLLS, "this end of the line is polled without end");
    }

    /// Ready when there is something to read, be it the end.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut from = self.from.lock().unwrap();
        if from.bytes.is_empty() && !from.ended && !from.reset {
            from.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Part of what is there, at most `most`; nothing at the end.
    fn poll_take(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Vec<u8>>> {
        self.count();
        if self.poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        // Wakers may wake for nothing.
        if self.dice.once_in(20) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut from = self.from.lock().unwrap();
        if from.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let there = from.bytes.len().min(most);
        let count = if self.dice.once_in(2) { there } else { self.dice.within(there.min(1)..=there) };
        if let Some(writer) = from.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(from.bytes.drain(..count).collect()))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        self.count();
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut to = self.to.lock().unwrap();
        if to.reset || to.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if to.deaf {
            // The kernel takes it and learns only from the answer that nobody is there.
            to.reset = true;
            to.carried += all as u64;
            drop(to);
            self.from.lock().unwrap().break_off();
            return Poll::Ready(Ok(all));
        }
        let room = to.room.saturating_sub(to.bytes.len()).min(all);
        if room == 0 && all > 0 {
            to.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = if self.dice.once_in(3) { self.dice.within(room.min(1)..=room) } else { room };
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(count);
        to.bytes.extend(bytes);
        to.carried += count as u64;
        if let Some(reader) = to.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self) {
        let mut to = self.to.lock().unwrap();
        to.ended = true;
        to.ended_at.get_or_insert_with(clock::now);
        to.wake();
    }

    fn held(&mut self, bytes: usize) {
        self.most_held = self.most_held.max(bytes);
        self.note.seen.lock().unwrap().held = self.most_held;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.finish();
        let unread = {
            let mut from = self.from.lock().unwrap();
            from.deaf = true;
            from.deaf_at = Some(clock::now());
            from.wake();
            !from.bytes.is_empty()
        };
        if unread {
            self.to.lock().unwrap().break_off();
        }
    }
}

impl ReadInto for End {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.poll_take(cx, 8 * 1024).map_ok(|bytes| {
            into.extend_from_slice(&bytes);
            self.held(into.len());
            bytes.len()
        })
    }
}

impl Read for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(cx, cursor.remaining()).map_ok(|bytes| cursor.put_slice(&bytes))
    }
}

impl Write for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(cx, &[data])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(cx, &slices.iter().map(|slice| &**slice).collect::<Vec<_>>())
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(cx, buffer.remaining()).map_ok(|bytes| buffer.put_slice(&bytes))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Write::poll_write(self, cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(self, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(self, cx, slices)
    }
}
