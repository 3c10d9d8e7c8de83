//! Asks the origin: chooses a member, takes or opens a connection, sends, and repeats only what is
//! safe to repeat.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderValue, Method, StatusCode};

use super::balance::{Member, Seat, Tried, choose};
use super::block::{LARGE, SMALL};
use super::body::{self, Flow};
use super::connect::{connect, leads_to};
use super::error::{Blame, Facts, Kind, Retry, UpstreamError};
use super::exchange::{Exchange, Expect};
use super::health::Patience;
use super::http2::{self, Asked, Lanes, Parcel, Ride};
use super::settings::Policy;
use super::stream::Link;
use super::tunnel::Tunnel;
use super::upload::Upload;
use crate::body::Body;
use crate::clock;
use crate::fields::Fields;
use crate::http1::framing::{Framing, RequestFraming};
use crate::http1::response::ResponseHead;
use crate::load::Mark;
use crate::load::gate::Full;
use crate::reply::Reply;

/// How long before the origin's announced time-out a connection is no longer used.
const MARGIN: Duration = Duration::from_secs(1);

/// The origins of one site, shared by all workers of a generation.
pub struct Upstream {
    members: Vec<Arc<Member>>,
    turn: AtomicUsize,
    connect: Duration,
    idle: Duration,
    queue: Duration,
    limits: Limits,
}

/// Limits that hold for the whole process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a response head.
    pub response_head: usize,
    /// The longest pause between two bytes of a response body, unless `first_byte` is longer.
    pub body_idle: Duration,
    /// The longest silence of both sides of a tunnel; zero if there is no limit.
    pub tunnel_idle: Duration,
}

/// TYPO3's cache-tag lines make response heads of more than 64 KiB.
impl Default for Limits {
    fn default() -> Self {
        Self {
            response_head: 128 * 1024,
            body_idle: Duration::from_secs(30),
            tunnel_idle: Duration::from_hours(1),
        }
    }
}

/// One request, ready to go.
#[derive(Debug)]
pub struct Call {
    /// Who asks, where clients wait for their turn.
    pub client: Mark,
    /// Its method, which decides whether it may be repeated and whether an answer has a body.
    pub method: Method,
    /// The head that [`super::rewrite::head`] wrote.
    pub head: BytesMut,
    /// How the body is framed, the same as in `head`.
    pub framing: RequestFraming,
    /// The body.
    pub body: Body,
    /// Whether `head` asks for WebSocket.
    pub websocket: bool,
    /// How long the whole response head may take.
    pub first_byte: Duration,
    /// Whether the client's connection carries many answers at once (HTTP/2): each is then read in small
    /// pieces, because each may be held back by its own window.
    pub many_streams: bool,
}

/// What the origin said.
#[derive(Debug)]
pub struct Answer {
    /// Status, end-to-end fields and body. After a 101 the body is empty, and `Connection` and
    /// `Upgrade` are among the fields.
    pub reply: Reply,
    /// How it went.
    pub facts: Facts,
}

impl Upstream {
    /// The origins that `policy` names, with pools for `workers` workers.
    #[must_use]
    pub fn new(policy: &Policy, limits: Limits, workers: usize) -> Self {
        let pool = &policy.pool;
        // One member alone is always tried: there is nobody else to ask.
        let fail_after = if policy.members.len() > 1 { pool.fail_after } else { 0 };
        let patience = Patience { fail_after, retry_after: pool.retry_after };
        let member = |(endpoint, tls): &(_, Option<_>)| {
            let (endpoint, tls) = (Clone::clone(endpoint), tls.clone());
            Arc::new(Member::new(endpoint, tls, patience, workers, pool, clock::now()))
        };
        Self {
            members: policy.members.iter().map(member).collect(),
            turn: AtomicUsize::new(0),
            connect: pool.connect,
            idle: pool.idle,
            queue: pool.queue,
            limits,
        }
    }

    /// Sends `call` on behalf of `worker` and waits for the response head.
    ///
    /// A member that cannot be reached is replaced by another, since nothing was sent yet. A kept
    /// connection that turns out dead is replaced by a fresh one, at most once, and only if no byte of
    /// the request went out, or the method is safe to repeat and there is no body (RFC 9110 section
    /// 9.2.2).
    pub fn send(
        &self,
        worker: usize,
        call: Call,
    ) -> impl Future<Output = Result<Answer, UpstreamError>> + Send + use<'_> {
        let client = call.client;
        let repeatable = is_idempotent(&call.method) && call.framing == RequestFraming::None;
        let mut order = Order {
            expect: Expect {
                first_byte: call.first_byte,
                head_max: self.limits.response_head,
                upgrade: call.websocket,
            },
            upload: Upload::new(call.head, call.body, call.framing),
            to_head: call.method == Method::HEAD,
            thorough: !repeatable,
            // Measured: 100 streams with closed windows held 23 MB with large pieces.
            piece: if call.many_streams { SMALL } else { LARGE },
        };
        // Not an async function, and none is called: each would hold the order once more, and be moved with it.
        async move {
            let mut tried = Tried::default();
            let mut facts = Facts::default();
            let mut fresh = false;
            let mut last = None;
            loop {
                let start = clock::now();
                let Some((index, seat)) = self.seat(worker, tried, start) else {
                    return Err(UpstreamError { facts, ..last.unwrap_or_else(all_down) });
                };
                facts.member = Some(Arc::clone(&seat.member.name));
                // Held until the answer begins, or until it is clear that none will come from this member.
                let turn = match seat.member.gate.enter_now(client) {
                    Some(turn) => Ok(turn),
                    None => Box::pin(seat.member.gate.enter(client, self.queue)).await,
                };
                let _turn = match turn {
                    Ok(turn) => turn,
                    Err(full) => return Err(UpstreamError { facts, ..busy(full) }),
                };
                facts.attempts += 1;
                let ride = seat.lanes().filter(|_| !fresh && !order.expect.upgrade);
                let ride = ride.and_then(Lanes::take);
                let kept = if fresh || ride.is_some() { None } else { seat.idle(start, order.thorough) };
                let way = ride.map(Way::Http2).or(kept.map(Way::Http1));
                facts.reused = way.is_some();
                let (way, start) = match way {
                    Some(way) => (way, start),
                    // Boxed: connecting is rare, and its state would be the largest part of every request's.
                    None => match Box::pin(self.open(&seat, order.expect.upgrade, start, &mut facts)).await {
                        Ok(opened) => opened,
                        // No other member could be reached either.
                        Err(error) if error.kind == Kind::Exhausted => {
                            return Err(UpstreamError { facts, ..error });
                        }
                        Err(error) => {
                            tried.add(index);
                            last = Some(error);
                            continue;
                        }
                    },
                };
                let mut link = match way {
                    Way::Http1(link) => link,
                    // Boxed: what is not asked for costs nothing.
                    Way::Http2(ride) => {
                        let asked = Box::pin(self.ask(&seat, ride, &mut order, start, &mut facts)).await;
                        match asked {
                            Ok(asked) => return self.hand_over(seat, asked, &order, facts),
                            Err(error)
                                if facts.reused
                                    && may_repeat(error.retry, repeatable)
                                    && order.upload.rewind() =>
                            {
                                fresh = true;
                                continue;
                            }
                            Err(error) => return Err(UpstreamError { facts, ..error }),
                        }
                    }
                };
                let mut exchange = Exchange::new(&mut link, &mut order.upload, order.expect, start);
                let result = exchange.head().await;
                let buffer = exchange.buffer;
                facts.sent = order.upload.sent();
                match result {
                    Ok(head) => {
                        let now = clock::now();
                        facts.first_byte = Some(now - start);
                        return self.answer(seat, link, order, (head, buffer), now, facts);
                    }
                    Err(error)
                        if facts.reused && may_repeat(error.retry, repeatable) && order.upload.rewind() =>
                    {
                        fresh = true;
                    }
                    Err(error) => return Err(UpstreamError { facts, ..error }),
                }
            }
        }
    }

    /// Closes idle connections of `worker` that nobody came back for, and those to addresses that a member's name has
    /// left. To be called about once a second
    /// by each worker; `send` works without it, but the sockets would stay half-closed for long.
    pub fn sweep(&self, worker: usize) {
        let now = clock::now();
        for member in &self.members {
            let Some(pool) = member.pool(worker) else { continue };
            let lanes = member.lanes(worker);
            let used = lanes.is_some_and(|lanes| lanes.sweep(now, self.idle));
            if !pool.sweep(now) && !used {
                continue;
            }
            let Some(addresses) = leads_to(member) else { continue };
            let closed = lanes.map_or(0, |lanes| lanes.lead_to(&addresses)) + pool.lead_to(addresses);
            if closed > 0 {
                tracing::info!(
                    member = &*member.name,
                    closed,
                    "an origin's name leads elsewhere; connections closed"
                );
            }
        }
    }

    /// The members, for metrics: name, whether it is up, and how many requests are under way.
    pub fn members(&self) -> impl Iterator<Item = (&str, bool, usize)> {
        self.members.iter().map(|m| (&*m.name, m.health.is_up(), m.outstanding()))
    }

    #[cfg(test)]
    pub(super) fn only_member(&self) -> &Member {
        self.members.first().unwrap()
    }

    fn seat(&self, worker: usize, tried: Tried, now: Instant) -> Option<(usize, Seat)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = choose(&self.members, tried, turn, now)?;
        Some((index, Seat::take(self.members.get(index)?, worker)))
    }

    /// A new connection, and what time it is then. HTTP/2 cannot carry an upgrade (RFC 9113 section 8.6).
    async fn open(
        &self,
        seat: &Seat,
        upgrade: bool,
        start: Instant,
        facts: &mut Facts,
    ) -> Result<(Way, Instant), UpstreamError> {
        let opened = connect(&seat.member, self.connect, upgrade).await;
        let now = clock::now();
        match opened {
            Ok(stream) => {
                seat.member.health.succeeded();
                facts.connect = Some(now - start);
                let link = Link::new(stream, now);
                let Some(lanes) = seat.lanes().filter(|_| !upgrade && seat.member.speaks_http2(&link.stream))
                else {
                    return Ok((Way::Http1(link), now));
                };
                let ride = lanes.open(link, self.limits.response_head).await?;
                Ok((Way::Http2(ride), now))
            }
            Err(error) => {
                if error.kind.blame() == Blame::Origin && seat.member.health.failed(now) {
                    tracing::warn!(member = &*seat.member.name, %error, "origin left alone for a while");
                }
                Err(error)
            }
        }
    }

    /// One request and its response head over HTTP/2.
    async fn ask(
        &self,
        seat: &Seat,
        ride: Ride,
        order: &mut Order,
        start: Instant,
        facts: &mut Facts,
    ) -> Result<Asked, UpstreamError> {
        let secure = seat.member.endpoint.tls();
        let (head, body, length) = order.upload.lend();
        let bytes = head.len() as u64;
        let parcel = Parcel::new(body, length, start);
        let asked = http2::ask(ride, head, secure, parcel.clone(), &order.expect, start).await;
        facts.sent = bytes + parcel.sent();
        if asked.is_ok() {
            facts.first_byte = Some(clock::now() - start);
        } else if parcel.is_untouched() {
            order.upload.take_back(parcel.unpack());
        } else {
            return asked.map_err(|error| error.retry(Retry::Never));
        }
        asked
    }

    /// What was answered over HTTP/2.
    fn hand_over(
        &self,
        seat: Seat,
        asked: Asked,
        order: &Order,
        facts: Facts,
    ) -> Result<Answer, UpstreamError> {
        let idle = self.limits.body_idle.max(order.expect.first_byte);
        match asked.open(seat, order.to_head, idle) {
            Ok((head, body)) => Ok(Answer { reply: reply(head, body), facts }),
            Err(error) => Err(UpstreamError { facts, ..error }),
        }
    }

    fn answer(
        &self,
        seat: Seat,
        link: Link,
        order: Order,
        (head, buffer): (ResponseHead, BytesMut),
        now: Instant,
        facts: Facts,
    ) -> Result<Answer, UpstreamError> {
        let keep = self.keep(&head);
        let status = head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let mut reply = reply(head, Body::empty());
            let tunnel = Tunnel::new(link.stream, buffer.freeze(), seat, self.limits.tunnel_idle);
            reply.tunnel = Some(Box::new(tunnel));
            return Ok(Answer { reply, facts });
        }
        let framing = head.declared.of_response(order.to_head, status);
        let keep = if framing == Framing::UntilClose { Duration::ZERO } else { keep };
        let idle = self.limits.body_idle.max(order.expect.first_byte);
        let flow = Flow::new(link, order.upload, seat, keep, idle);
        match body::open(framing, buffer.freeze(), flow, order.piece, now) {
            Ok(body) => Ok(Answer { reply: reply(head, body), facts }),
            Err(fault) => {
                let detail = format!("the body, before any data: {fault}");
                Err(UpstreamError { facts, ..UpstreamError::new(Kind::Protocol, detail) })
            }
        }
    }

    /// How long the connection may be kept: below our limit and below what the origin announced.
    fn keep(&self, head: &ResponseHead) -> Duration {
        if !head.options.persists(head.version) || head.keep_alive.max == Some(0) {
            return Duration::ZERO;
        }
        match head.keep_alive.timeout {
            Some(timeout) => self.idle.min(timeout.saturating_sub(MARGIN)),
            None => self.idle,
        }
    }
}

/// Whether a request that came to nothing on a kept connection is sent again.
fn may_repeat(retry: Retry, repeatable: bool) -> bool {
    match retry {
        Retry::Anywhere => true,
        Retry::IfIdempotent => repeatable,
        Retry::Never => false,
    }
}

fn all_down() -> UpstreamError {
    UpstreamError::new(Kind::Down, "every member failed lately and is left alone")
}

fn busy(full: Full) -> UpstreamError {
    let detail = match full {
        Full::Waited => {
            "`requests` of `[site.upstream_pool]` are waiting for their answers, and none came within `queue`"
        }
        Full::Crowded => "too many requests wait for their turn, and this client has most of them",
    };
    UpstreamError::new(Kind::Busy, detail)
}

/// What a request goes out on.
enum Way {
    /// A connection of its own.
    Http1(Link),
    /// A stream among others.
    Http2(Ride),
}

/// What stays the same over every attempt.
struct Order {
    expect: Expect,
    upload: Upload,
    to_head: bool,
    thorough: bool,
    piece: usize,
}

fn reply(head: ResponseHead, body: Body) -> Reply {
    let mut reply = Reply::new(head.status, body);
    reply.fields = head.fields.into_iter().collect::<Fields>();
    match head.status {
        StatusCode::SWITCHING_PROTOCOLS => {
            reply.fields.push(CONNECTION, HeaderValue::from_static("upgrade"));
            reply.fields.push(UPGRADE, HeaderValue::from_static("websocket"));
        }
        // RFC 9110 section 8.6: never in a 204.
        StatusCode::NO_CONTENT => {
            reply.fields.remove(&CONTENT_LENGTH);
        }
        _ => {}
    }
    reply
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|m| &m.name)).finish()
    }
}
