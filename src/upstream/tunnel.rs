//! After `101 Switching Protocols`: the raw connection, for the bytes of another protocol.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::balance::Seat;
use super::stream::Stream;
use super::timer::Timer;

/// How long one direction may go on when the other has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How much is read at once. It is read onto the stack: only what the other side does not take at once
/// is kept, so that a tunnel in which nothing happens holds no buffer.
const PIECE: usize = 16 * 1024;
/// After so many pieces in a row other tasks have their turn.
const PIECES_IN_A_ROW: usize = 16;

/// A connection that has left HTTP. It counts as a request under way until it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    /// Bytes that came in the same read as the 101.
    early: Bytes,
    stream: Stream,
    seat: Seat,
    /// The longest silence of both sides; zero if there is no limit.
    idle: Duration,
    toll: Arc<Toll>,
}

/// What a tunnel has carried so far, for whoever must know although it was cut off.
#[derive(Debug, Default)]
pub struct Toll {
    from_client: AtomicU64,
    from_origin: AtomicU64,
}

impl Toll {
    /// Bytes that the origin took from the client.
    #[must_use]
    pub fn from_client(&self) -> u64 {
        self.from_client.load(Relaxed)
    }

    /// Bytes that the client took from the origin.
    #[must_use]
    pub fn from_origin(&self) -> u64 {
        self.from_origin.load(Relaxed)
    }
}

/// What went through a tunnel, and how it ended.
#[derive(Debug)]
pub struct Carried {
    /// Bytes that the origin took from the client.
    pub from_client: u64,
    /// Bytes that the client took from the origin.
    pub from_origin: u64,
    /// An error if one side broke off or both were silent for too long; an orderly end is none, nor is
    /// one that was cut short after the other side's.
    pub ended: io::Result<()>,
}

impl Tunnel {
    pub(super) fn new(stream: Stream, early: Bytes, seat: Seat, idle: Duration) -> Self {
        Self { early, stream, seat, idle, toll: Arc::default() }
    }

    /// What it carries, counted while it does.
    #[must_use]
    pub fn toll(&self) -> Arc<Toll> {
        Arc::clone(&self.toll)
    }

    /// Copies both ways until both sides have ended. Once one side has, the other has ten seconds to
    /// say its last words: an origin that ignores the end must not hold both connections for ever.
    ///
    /// `early` are bytes that the client sent right behind its handshake; they go to the origin first.
    /// If the future is dropped, so are both connections.
    pub async fn join<C>(self, client: C, early: Bytes) -> Carried
    where
        C: rt::Read + rt::Write + Unpin,
    {
        let Self { early: answer, stream, seat, idle, toll } = self;
        let mut pair = Pair {
            client: Client(client),
            origin: stream,
            up: Direction::beginning_with(early),
            down: Direction::beginning_with(answer),
            idle: Idle { limit: idle, timer: None, carried: 0 },
            last_words: None,
        };
        let ended = poll_fn(|cx| {
            let polled = pair.poll(cx);
            toll.from_client.store(pair.up.carried, Relaxed);
            toll.from_origin.store(pair.down.carried, Relaxed);
            polled
        });
        let ended = ended.await;
        drop(seat);
        Carried { from_client: pair.up.carried, from_origin: pair.down.carried, ended }
    }
}

/// One side of a tunnel, in terms that a client's stream and an origin's have in common.
trait Side {
    /// Reads into `room`; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The client's stream.
struct Client<C>(C);

struct Pair<C> {
    client: Client<C>,
    origin: Stream,
    up: Direction,
    down: Direction,
    idle: Idle,
    /// Runs from the end of one direction.
    last_words: Option<Timer>,
}

/// How long both sides have been silent.
struct Idle {
    limit: Duration,
    timer: Option<Timer>,
    /// Bytes of both directions when it was last looked at.
    carried: u64,
}

impl<C: rt::Read + rt::Write + Unpin> Pair<C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; PIECE];
        let up = self.up.poll(cx, &mut room, &mut self.client, &mut self.origin)?;
        let down = self.down.poll(cx, &mut room, &mut self.origin, &mut self.client)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if up.is_ready() || down.is_ready() {
            let limit = if self.idle.limit.is_zero() { LAST_WORDS } else { LAST_WORDS.min(self.idle.limit) };
            return self.last_words.get_or_insert_with(|| Timer::after(limit)).poll(cx).map(Ok);
        }
        self.idle.poll(cx, self.up.carried + self.down.carried).map(Err)
    }
}

impl Idle {
    /// Ready when nothing more was carried for too long.
    fn poll(&mut self, cx: &mut Context<'_>, carried: u64) -> Poll<io::Error> {
        if self.limit.is_zero() {
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Timer::after(self.limit));
        if self.carried != carried {
            self.carried = carried;
            timer.push(self.limit);
        }
        ready!(timer.poll(cx));
        let silent = format!("both sides of a tunnel were silent for {:?}", self.limit);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, silent))
    }
}

/// The bytes that go one way.
struct Direction {
    /// Read and not yet taken by the other side.
    held: Bytes,
    carried: u64,
    /// Something was written since the last flush.
    dirty: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source has ended; the other side is to be told.
    Ending,
    Ended,
}

impl Direction {
    fn beginning_with(held: Bytes) -> Self {
        Self { held, carried: 0, dirty: false, state: State::Open }
    }

    /// Ready at the end of this direction.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        from: &mut impl Side,
        to: &mut impl Side,
    ) -> Poll<io::Result<()>> {
        for _ in 0..PIECES_IN_A_ROW {
            ready!(self.poll_held(cx, to))?;
            match self.state {
                State::Open => ready!(self.poll_piece(cx, room, from, to))?,
                State::Ending => {
                    ready!(to.poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends on what an earlier piece left behind.
    fn poll_held(&mut self, cx: &mut Context<'_>, to: &mut impl Side) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = self.wrote(ready!(to.poll_write(cx, &self.held))?)?;
            self.held.advance(count.min(self.held.len()));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and sends at once. When nothing more is there, what was sent is flushed.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        from: &mut impl Side,
        to: &mut impl Side,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(read) = from.poll_read(cx, room) else {
            if self.dirty {
                ready!(to.poll_flush(cx))?;
                self.dirty = false;
            }
            return Poll::Pending;
        };
        let mut data = room.get(..read?).unwrap_or_default();
        if data.is_empty() {
            self.state = State::Ending;
        }
        while !data.is_empty() {
            let Poll::Ready(wrote) = to.poll_write(cx, data) else {
                self.held = Bytes::copy_from_slice(data);
                return Poll::Pending;
            };
            let count = self.wrote(wrote?)?;
            data = data.get(count..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, count: usize) -> io::Result<usize> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.carried += count as u64;
        self.dirty = true;
        Ok(count)
    }
}

impl Side for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(self).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, data)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

impl<C: rt::Read + rt::Write + Unpin> Side for Client<C> {
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = rt::ReadBuf::new(room);
        ready!(Pin::new(&mut self.0).poll_read(cx, room.unfilled()))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
