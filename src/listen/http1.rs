//! Serving HTTP/1 on one connection: one request after the other, in order, each with one answer.
//!
//! ```text
//! Reading ── head ──→ Answering ── reply ──→ Sending ──→ Settling ──→ Reading …
//!    │  (a broken head takes the same road)     │            └ what is left of the body, if it is little
//!    └──────────────→ Closing ←─────────────────┘                         Tunnel (after a 101)
//! ```
//!
//! Nothing waits in here: each state is polled as far as it goes. The head and the first bytes of a body
//! leave in one send; while an answer is awaited, a client that hangs up is noticed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE};
use http::{Method, StatusCode, Version};
use http_body::Body as _;

use super::converse::{Conversation, Outcome, drive};
use super::date;
use super::limits;
use super::pulse::{Pulse, Ticket};
use super::tally::Event;
use super::wire::{ClientEnd, Stream, Wire};
use crate::body::{Body, Upload};
use crate::clock;
use crate::drain::DrainWatch;
use crate::fields::Fields;
use crate::http1::answer::{AnswerConnection, AnswerFraming, AnswerHead};
use crate::http1::chunked::{self, ChunkFault};
use crate::http1::framing::RequestFraming;
use crate::http1::grade::{Class, Fault};
use crate::http1::request::{Decoder, RequestHead};
use crate::reply::Reply;
use crate::request::{Held, Request};
use crate::upstream::Toll;

/// The most of an unread request body that is read on after the answer, in bytes, to keep the connection.
const READ_ON: u64 = 64 * 1024;

/// What follows the data of the last chunk.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// The room for a response head: TYPO3's pages stay below.
const HEAD_ROOM: usize = 1024;

/// Serves `wire` until the connection ends. Says what ended it, if that is worth a count.
pub(super) fn serve<'c, T, S, E, F>(
    wire: Arc<Wire<T>>,
    pulse: &'c Arc<Pulse>,
    limits: &'c limits::Policy,
    drain: &'c DrainWatch,
    on_event: E,
    service: S,
) -> impl Future<Output = ()> + use<'c, T, S, E, F>
where
    T: Stream,
    S: Fn(Request) -> F,
    E: Fn(Event) + Copy,
    F: Future<Output = Reply>,
{
    let decoder = Decoder::default();
    let state = State::Reading;
    let mut connection =
        Connection { wire, service, on_event, pulse, limits, decoder, state, is_last: false };
    // Not an async function, which would hold the connection twice.
    async move {
        loop {
            match drive(&mut connection, pulse, limits, drain, on_event).await {
                Outcome::Done(Ok(())) | Outcome::Killed | Outcome::Expired(None) => return,
                Outcome::Done(Err(error)) => {
                    tracing::debug!(%error, "HTTP/1 connection ended with an error");
                    return on_event(Event::ClientGone);
                }
                Outcome::Expired(Some(event)) => {
                    on_event(event);
                    if event != Event::HeaderTimeout || !connection.give_up() {
                        return;
                    }
                }
            }
        }
    }
}

/// One connection.
struct Connection<'c, T, S, E, F> {
    wire: Arc<Wire<T>>,
    service: S,
    on_event: E,
    pulse: &'c Arc<Pulse>,
    limits: &'c limits::Policy,
    decoder: Decoder,
    state: State<F>,
    /// Whether no further request is read: the server or the client wants to part.
    is_last: bool,
}

/// What the connection is doing.
enum State<F> {
    /// Waiting for a request head, or reading one.
    Reading,
    /// The road has the request.
    Answering(Pin<Box<F>>, Exchange),
    /// An answer is on its way. Boxed: it would be half of what an idle connection is made of.
    Sending(Box<Sending>),
    /// The answer is out; the client still sends the body that nobody wanted. So many bytes are left to it.
    Settling(u64),
    /// Another protocol flows both ways.
    Tunnel(Pin<Box<dyn Future<Output = io::Result<()>> + Send>>),
    /// Our side is being closed.
    Closing,
}

/// What an answer must know of its request.
struct Exchange {
    ticket: Ticket,
    version: Version,
    to_head: bool,
    /// Whether the connection may be kept, as far as the request says.
    keep: bool,
}

/// How the body of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// There is none.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection closes: to HTTP/1.0.
    UntilClose,
}

/// An answer on its way.
struct Sending {
    /// Bytes of our own: the head, or chunk framing.
    frame: BytesMut,
    /// Bytes of the body.
    data: Bytes,
    /// What ends a chunk, and perhaps the body.
    tail: &'static [u8],
    body: Option<Body>,
    coding: Coding,
    /// Why the body ended before its end, once it did.
    broken: Option<io::Error>,
    keep: bool,
    ticket: Ticket,
}

impl<T, S, E, F> Conversation for Connection<'_, T, S, E, F>
where
    T: Stream,
    S: Fn(Request) -> F,
    E: Fn(Event),
    F: Future<Output = Reply>,
{
    type Error = io::Error;

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let next = match &mut self.state {
                State::Reading => ready!(self.poll_head(cx))?,
                State::Answering(..) => ready!(self.poll_road(cx))?,
                State::Sending(_) => ready!(self.poll_send(cx))?,
                State::Settling(_) => ready!(self.poll_settle(cx)),
                State::Tunnel(tunnel) => return tunnel.as_mut().poll(cx),
                State::Closing => {
                    // A client that is gone already hears nothing: any error is the end.
                    let _ = ready!(self.wire.line().poll_shutdown(cx));
                    return Poll::Ready(Ok(()));
                }
            };
            self.state = next;
        }
    }

    fn part(&mut self) {
        self.is_last = true;
    }
}

impl<T, S, E, F> Connection<'_, T, S, E, F>
where
    T: Stream,
    S: Fn(Request) -> F,
    E: Fn(Event),
    F: Future<Output = Reply>,
{
    /// Reads a request head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<State<F>>> {
        let wire = Arc::clone(&self.wire);
        let mut line = wire.line();
        loop {
            if !line.input.is_empty() {
                match self.decoder.decode(&mut line.input, &self.limits.request(), self.limits.desync) {
                    Ok(Some(mut head)) => {
                        let broken = broken_chunk(&head, &line.input);
                        drop(line);
                        if let Some(fault) = broken {
                            (self.on_event)(Event::BadHttp1);
                            head.refuse(fault);
                        }
                        return Poll::Ready(Ok(self.begin(head, broken.is_some(), None)));
                    }
                    // An empty line behind a body, as old clients send it, is no beginning of a head.
                    Ok(None) if line.input.is_empty() => self.pulse.settled(),
                    Ok(None) => {}
                    Err(broken) => {
                        drop(line);
                        (self.on_event)(Event::BadHttp1);
                        return Poll::Ready(Ok(self.begin(broken.head, true, None)));
                    }
                }
            }
            let polled = match line.poll_more(cx) {
                // Only now: a request that has arrived is answered, although nobody has read it yet.
                Poll::Pending if self.is_last && line.input.is_empty() => {
                    return Poll::Ready(Ok(State::Closing));
                }
                polled => ready!(polled),
            };
            match polled {
                Ok(0) if line.input.is_empty() => return Poll::Ready(Ok(State::Closing)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Hands a request to the road. After a broken one nothing on the connection can be told apart any more.
    fn begin(&mut self, head: RequestHead, is_broken: bool, slow_since: Option<Instant>) -> State<F> {
        let exchange = Exchange {
            ticket: self.pulse.request(),
            version: head.version(),
            to_head: *head.method() == Method::HEAD,
            // Whoever sends what can be read in two ways says one more word, and no second request.
            keep: head.persists() && !is_broken && head.fault().is_none_or(|f| f.class() < Class::Ambiguous),
        };
        let upload = {
            let mut line = self.wire.line();
            if !is_broken {
                line.begin(head.body(), head.expects_continue());
            }
            if line.is_end() { Upload::nothing() } else { Upload::http1(self.wire.clone()) }
        };
        let request = Request { head: Held::Received(head), upload, slow_since };
        State::Answering(Box::pin((self.service)(request)), exchange)
    }

    /// The head did not end in time: what came of it is answered like any other broken one. Says whether
    /// there is anything to answer.
    fn give_up(&mut self) -> bool {
        if !matches!(self.state, State::Reading) {
            return false;
        }
        let since = self.pulse.reads_head_since();
        let broken = {
            let mut line = self.wire.line();
            self.decoder.give_up(&mut line.input, &self.limits.request())
        };
        self.state = self.begin(broken.head, true, since);
        true
    }

    /// Waits for the reply, and for the client to hang up.
    fn poll_road(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<State<F>>> {
        let State::Answering(road, _) = &mut self.state else { return Poll::Ready(Ok(State::Closing)) };
        match road.as_mut().poll(cx) {
            Poll::Pending => {
                self.poll_hang_up(cx)?;
                Poll::Pending
            }
            Poll::Ready(reply) => Poll::Ready(Ok(self.reply(reply))),
        }
    }

    /// Looks for the client's end while we are not reading for another reason. A client that closes its side
    /// while it waits has gone away; going on would keep the origin busy for nobody. (A half-closing client
    /// is indistinguishable, and not a browser.)
    fn poll_hang_up(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut line = self.wire.line();
        // What comes now is the next request: no more of it is read ahead than a head may have.
        while line.is_end() && line.input.len() < self.limits.head() {
            match line.poll_more(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Begins to send `reply`.
    fn reply(&mut self, reply: Reply) -> State<F> {
        let State::Answering(_, exchange) = std::mem::replace(&mut self.state, State::Closing) else {
            return State::Closing;
        };
        let Exchange { mut ticket, version, to_head, keep } = exchange;
        if reply.silent {
            (self.on_event)(Event::Banned);
            return State::Closing;
        }
        let Reply { status, fields, body, close, tunnel, .. } = reply;
        let coding = coding(status, version, to_head, &body);
        let interim = self.wire.line().answer();
        let keep = keep && !close && coding != Coding::UntilClose && !self.must_part() && self.may_read_on();
        let connection = match (status, version, keep) {
            (StatusCode::SWITCHING_PROTOCOLS, ..) => AnswerConnection::Upgrade,
            (_, _, false) => AnswerConnection::Close,
            (_, Version::HTTP_10, true) => AnswerConnection::KeepAlive,
            _ => AnswerConnection::Unsaid,
        };
        let mut frame = BytesMut::with_capacity(HEAD_ROOM);
        frame.extend_from_slice(interim);
        // The origin's own stays.
        let date = (!fields.contains(&DATE)).then(|| date::of(clock::wall()));
        let framing = coding.announced(to_head, status, &fields);
        AnswerHead { status, framing, connection, date: date.as_ref() }.write(fields.iter(), &mut frame);
        if let Some(tunnel) = tunnel {
            ticket.switches();
            return self.tunnel(tunnel, frame, body, ticket);
        }
        if coding == Coding::UntilClose {
            // The end of the connection is the end of the body, so whatever ends it before must look otherwise.
            self.wire.line().reset_on_drop(true);
        }
        let empty = matches!(coding, Coding::Nothing | Coding::Length(0));
        if empty {
            ticket.complete();
        }
        let body = (!empty).then_some(body);
        let (data, tail, broken) = (Bytes::new(), &[][..], None);
        State::Sending(Box::new(Sending { frame, data, tail, body, coding, broken, keep, ticket }))
    }

    /// Whether this answer is to be the last.
    fn must_part(&self) -> bool {
        self.is_last || self.pulse.is_draining() || self.pulse.must_part(self.limits)
    }

    /// Whether what the client still sends of its body is worth waiting for. One that waits to be asked may
    /// send it, or not: nobody could tell which.
    fn may_read_on(&self) -> bool {
        let line = self.wire.line();
        !line.is_unasked() && line.remaining().is_none_or(|left| left <= READ_ON)
    }

    /// Sends on.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<State<F>>> {
        let State::Sending(sending) = &mut self.state else { return Poll::Ready(Ok(State::Closing)) };
        match sending.poll(cx, &self.wire) {
            Poll::Pending => {
                self.poll_hang_up(cx)?;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if !sending.keep => Poll::Ready(Ok(State::Closing)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(State::Settling(READ_ON))),
        }
    }

    /// Reads what is left of the request's body, if it is little.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<State<F>> {
        let State::Settling(allowance) = &mut self.state else { return Poll::Ready(State::Closing) };
        let wire = Arc::clone(&self.wire);
        let mut line = wire.line();
        loop {
            if line.is_end() {
                // What was read was no head. The next request may be here already; its time begins now.
                self.pulse.settled();
                if !line.input.is_empty() {
                    self.pulse.read();
                }
                return Poll::Ready(State::Reading);
            }
            match ready!(line.poll_piece(cx)) {
                None => {}
                Some(Ok(data)) => match allowance.checked_sub(data.len() as u64) {
                    Some(left) => *allowance = left,
                    None => return Poll::Ready(State::Closing),
                },
                Some(Err(_)) => return Poll::Ready(State::Closing),
            }
        }
    }

    /// Joins the two connections once the 101 is out. The record rides along, and is written at the end.
    fn tunnel(
        &mut self,
        tunnel: Box<crate::upstream::Tunnel>,
        mut head: BytesMut,
        body: Body,
        ticket: Ticket,
    ) -> State<F> {
        let wire = Arc::clone(&self.wire);
        let accounts = Accounts { toll: tunnel.toll(), body };
        State::Tunnel(Box::pin(async move {
            let _held = (accounts, ticket);
            std::future::poll_fn(|cx| {
                let mut line = wire.line();
                while !head.is_empty() {
                    let written = ready!(line.poll_write(cx, [&head, &[], &[]]))?;
                    head.advance(written);
                }
                line.poll_flush(cx)
            })
            .await?;
            let early = std::mem::take(&mut wire.line().input).freeze();
            tunnel.join(ClientEnd(wire), early).await.ended
        }))
    }
}

/// The record of a tunnel, which gets its numbers however the tunnel ends: it may be dropped at any time.
struct Accounts {
    toll: Arc<Toll>,
    body: Body,
}

impl Drop for Accounts {
    fn drop(&mut self) {
        self.body.carried(self.toll.from_client(), self.toll.from_origin());
    }
}

impl Sending {
    /// Writes head and body. Ready when all of it is out.
    fn poll<T: Stream>(&mut self, cx: &mut Context<'_>, wire: &Wire<T>) -> Poll<io::Result<()>> {
        loop {
            let next = match &mut self.body {
                // A piece is asked for when the one before it is out, with all that belongs to it.
                Some(body) if self.data.is_empty() && self.tail.is_empty() => {
                    Some(Pin::new(body).poll_frame(cx))
                }
                _ => None,
            };
            let staged = match next {
                None => Ok(()),
                Some(Poll::Pending) => {
                    ready!(self.poll_write(cx, wire))?;
                    ready!(wire.line().poll_flush(cx))?;
                    return Poll::Pending;
                }
                Some(Poll::Ready(Some(Ok(frame)))) => self.stage(frame.into_data().unwrap_or_default()),
                Some(Poll::Ready(None)) => self.end(),
                Some(Poll::Ready(Some(Err(error)))) => {
                    self.ticket.complete();
                    Err(io::Error::other(error))
                }
            };
            if let Err(error) = staged {
                // Asked again, it might say that it has ended.
                self.body = None;
                self.broken = Some(error);
            }
            // What came before the break is the client's to see; the missing end tells it the rest.
            ready!(self.poll_write(cx, wire))?;
            if let Some(error) = self.broken.take() {
                let _ = wire.line().poll_flush(cx);
                return Poll::Ready(Err(error));
            }
            if self.body.is_none() {
                ready!(wire.line().poll_flush(cx))?;
                if self.coding == Coding::UntilClose {
                    wire.line().reset_on_drop(false);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes a piece of the body. More than was announced would be read as the next answer.
    fn stage(&mut self, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.coding {
            Coding::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                if *left == 0 {
                    self.body = None;
                    self.ticket.complete();
                }
            }
            Coding::Chunked => {
                chunked::encode_size(true, data.len(), &mut self.frame);
                let ends = self.body.as_ref().is_none_or(Body::is_end_stream);
                self.tail = if ends { LAST_CHUNK } else { b"\r\n" };
                if ends {
                    self.body = None;
                    self.ticket.complete();
                }
            }
            Coding::UntilClose | Coding::Nothing => {}
        }
        self.data = data;
        Ok(())
    }

    /// The body has ended. Less than was announced is no end.
    fn end(&mut self) -> io::Result<()> {
        self.body = None;
        self.ticket.complete();
        match self.coding {
            Coding::Length(left) if left > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Coding::Chunked => {
                chunked::encode_end(true, &mut self.frame);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes what is staged.
    fn poll_write<T: Stream>(&mut self, cx: &mut Context<'_>, wire: &Wire<T>) -> Poll<io::Result<()>> {
        let mut line = wire.line();
        while !self.frame.is_empty() || !self.data.is_empty() || !self.tail.is_empty() {
            let written = ready!(line.poll_write(cx, [&self.frame, &self.data, self.tail]))?;
            let left = take(&mut self.frame, written);
            let left = take(&mut self.data, left);
            take(&mut self.tail, left);
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes up to `count` bytes off `buffer`; answers how many are still to be taken.
fn take(buffer: &mut impl Buf, count: usize) -> usize {
    let most = count.min(buffer.remaining());
    buffer.advance(most);
    count - most
}

/// What is wrong with the chunks that came together with their head: nobody need be asked for an answer then.
fn broken_chunk(head: &RequestHead, input: &[u8]) -> Option<Fault> {
    let is_chunked = head.body() == RequestFraming::Chunked;
    is_chunked.then(|| chunked::Decoder::default().judge(input).err())?.map(ChunkFault::grade)
}

/// How the body of an answer is sent (RFC 9112 section 6.3).
fn coding(status: StatusCode, version: Version, to_head: bool, body: &Body) -> Coding {
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || to_head;
    match body.size_hint().exact() {
        _ if bodiless => Coding::Nothing,
        Some(length) => Coding::Length(length),
        None if version == Version::HTTP_10 => Coding::UntilClose,
        None => Coding::Chunked,
    }
}

impl Coding {
    /// What the head says. HEAD and 304 tell the length of a body that is not sent.
    fn announced(self, to_head: bool, status: StatusCode, fields: &Fields) -> AnswerFraming {
        match self {
            Self::Nothing if to_head || status == StatusCode::NOT_MODIFIED => {
                let length = fields.get(&CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
                length.map_or(AnswerFraming::Unsaid, AnswerFraming::Length)
            }
            Self::Nothing | Self::UntilClose => AnswerFraming::Unsaid,
            Self::Length(length) => AnswerFraming::Length(length),
            Self::Chunked => AnswerFraming::Chunked,
        }
    }
}
