//! One request from its first byte to its last: filled in along the road, written when dropped.
//!
//! Because it is written when dropped, there is one line per request, whatever happens to it: also if
//! the client hangs up while the origin thinks, or in the middle of a download.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderName, Method, StatusCode, Version};

use super::id::RequestId;
use super::meters::SiteId;
use super::secrets;
use super::text::{Span, Texts};
use super::trace::{Parent, Traceparent};
use super::worker::Seen;
use crate::body::BodyError;
use crate::clock;
use crate::config::units::Draw;
use crate::head::Head;
use crate::http1::grade::Fault;
use crate::load::Place;
use crate::login::{Kind, Verdict};
use crate::refusal::{Reason, Refusal};

/// As many rules in report mode are noted for one request; there are fewer rules than that.
const WOULD_BLOCK_MAX: usize = 16;
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known about a request before its head is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// When its head was complete, for durations; when it began, if it did not end in time.
    pub now: Instant,
    /// The same moment on the wall.
    pub wall: SystemTime,
    /// Who opened the connection.
    pub peer: SocketAddr,
    /// The number of the listener.
    pub listener: usize,
    /// What was negotiated, if the connection is encrypted.
    pub tls: Option<Tls<'a>>,
    /// The id of the configuration that it is answered by.
    pub generation: &'a str,
}

/// What a TLS handshake agreed on, as far as it is logged.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
    /// The server name that the client asked for.
    pub sni: Option<&'a str>,
    /// Whom the client's verified certificate names.
    pub client: Option<&'a str>,
}

/// How the exchange with the origin went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The member that answered, or was asked last.
    pub member: &'a str,
    /// How long connecting took; none for a connection from the pool.
    pub connect: Option<Duration>,
    /// From the first byte sent to the first byte received; none if none came.
    pub first_byte: Option<Duration>,
    /// Whether the connection came from the pool.
    pub reused: bool,
    /// How often the request was sent again.
    pub retries: u32,
}

/// Who ended an exchange before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Culprit {
    Client,
    Origin,
}

/// A rule in report mode that would have refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct WouldBlock {
    pub(super) reason: Reason,
    pub(super) detail: Span,
}

/// The origin's part, as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upstream {
    pub(super) member: Span,
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) reused: bool,
    pub(super) retries: u32,
}

/// Counts the bytes of a request body while it streams to the origin; see [`Record::receiving`].
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// `bytes` of the request body came from the client.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One request. Its texts live in one buffer, each cut to its limit, and secrets are masked before they
/// are kept; cookies, `Authorization` and bodies are never looked at.
pub struct Record {
    seen: Seen,
    /// The request's place among those that are under way.
    place: Option<Place>,
    pub(super) texts: Texts,
    pub(super) id: RequestId,
    pub(super) trace: Traceparent,
    has_state: bool,
    pub(super) parent: Option<Parent>,
    /// `X-Amzn-Trace-Id` as it came, and what it says.
    pub(super) amzn: Span,
    amzn_root: Option<Parent>,
    pub(super) started: Instant,
    pub(super) wall: SystemTime,
    pub(super) peer: SocketAddr,
    pub(super) client: Option<IpAddr>,
    pub(super) listener: usize,
    pub(super) version: Version,
    pub(super) tls: Option<(&'static str, &'static str, Span, Span)>,
    pub(super) method: Span,
    pub(super) host: Span,
    pub(super) target: Span,
    pub(super) user_agent: Span,
    pub(super) referer: Span,
    pub(super) generation: Span,
    pub(super) site_name: Span,
    pub(super) area: &'static str,
    pub(super) status: Option<StatusCode>,
    pub(super) head_after: Option<Duration>,
    /// What is wrong with the message, if anything is.
    pub(super) fault: Option<Fault>,
    pub(super) refused: Option<Reason>,
    pub(super) detail: Span,
    /// The jail of the ban that it made.
    pub(super) ban: Span,
    pub(super) would_block: Vec<WouldBlock>,
    pub(super) upstream: Option<Upstream>,
    /// A try to log in, what came of it, and the user as the log may name him.
    pub(super) login: Option<(Kind, Verdict, Span)>,
    pub(super) sent: u64,
    received: Option<Received>,
    pub(super) verb: Method,
    pub(crate) draw: Draw,
    site: SiteId,
    complete: bool,
    broken: Option<Culprit>,
}

impl Record {
    pub(super) fn begin(seen: Seen, arrival: &Arrival<'_>, head: &Head<'_>) -> Box<Self> {
        let mut texts = Texts::new();
        let amzn = sole(head, &X_AMZN_TRACE_ID);
        let amzn_root = amzn.and_then(Parent::parse_amzn);
        let caller = sole(head, &TRACEPARENT).and_then(Parent::parse);
        let parent = caller.or(amzn_root);
        let id = RequestId::new(arrival.wall, seen.draw());
        let trace = Traceparent::following(parent.as_ref(), || seen.draw());
        let target = head.target();
        let host = target.authority.map(str::as_bytes).or_else(|| head.get(&HOST)).map(without_user);
        Box::new(Self {
            place: None,
            id,
            // A `tracestate` belongs to a `traceparent`, and to nothing else.
            has_state: caller.is_some(),
            trace,
            parent,
            amzn: texts.keep_some(amzn),
            amzn_root,
            started: arrival.now,
            wall: arrival.wall,
            peer: arrival.peer,
            client: None,
            listener: arrival.listener,
            version: head.version(),
            tls: arrival.tls.map(|t| {
                let mut keep = |text: Option<&str>| texts.keep_some(text.map(str::as_bytes));
                (t.version, t.cipher, keep(t.sni), keep(t.client))
            }),
            method: texts.keep(head.method().as_str().as_bytes()),
            host: texts.keep_some(host),
            target: texts
                .keep_target(target.path.unwrap_or_default().as_bytes(), target.query.map(str::as_bytes)),
            user_agent: texts.keep_some(head.get(&USER_AGENT)),
            referer: head
                .get(&REFERER)
                .map_or(Span::NONE, |v| texts.keep_with(|out| secrets::referer(v, out))),
            generation: texts.keep(arrival.generation.as_bytes()),
            site_name: Span::NONE,
            area: "",
            status: None,
            head_after: None,
            // A limit is no doubt about the meaning.
            fault: head.fault().filter(|fault| !fault.is_limit()),
            refused: None,
            detail: Span::NONE,
            ban: Span::NONE,
            would_block: Vec::new(),
            upstream: None,
            login: None,
            sent: 0,
            received: None,
            verb: head.method().clone(),
            draw: Draw::NONE,
            site: SiteId::OTHER,
            complete: false,
            broken: None,
            texts,
            seen,
        })
    }

    /// The request id: in the log, in `X-Request-Id` to the origin, and on refusal pages.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The same in bytes, all of them ASCII.
    #[must_use]
    pub fn id_bytes(&self) -> &[u8] {
        self.id.as_bytes()
    }

    /// The value of `traceparent` for the origin: the client's trace goes on, or one starts here.
    #[must_use]
    pub fn traceparent(&self) -> &[u8] {
        self.trace.as_bytes()
    }

    /// Whether the trace is that of the client's `traceparent`, so that its `tracestate` belongs to it and goes on.
    #[must_use]
    pub fn continues_trace(&self) -> bool {
        self.has_state
    }

    /// The value of `X-Amzn-Trace-Id` for the origin, if one came.
    #[must_use]
    pub fn amzn_trace(&self) -> Option<impl AsRef<[u8]> + use<>> {
        (!self.amzn.is_none()).then(|| self.trace.amzn(self.amzn_root.as_ref()))
    }

    /// Who asks, once that is known. Behind a trusted proxy its `X-Request-Id` is taken over if it is
    /// sane, so that one id goes through the whole chain; from anybody else it is ignored.
    pub fn client(&mut self, client: IpAddr, trusted_peer: bool, head: &Head<'_>) {
        self.client = Some(client);
        if trusted_peer && let Some(id) = sole(head, &X_REQUEST_ID).and_then(RequestId::adopted) {
            self.id = id;
        }
    }

    /// Which site it is for: its number in the metrics and its name in the log.
    pub fn site(&mut self, id: SiteId, name: &str) {
        self.site = id;
        self.site_name = self.texts.keep(name.as_bytes());
    }

    /// The number of its client among a hundred.
    pub fn drawn(&mut self, draw: Draw) {
        self.draw = draw;
    }

    /// When its head was complete: on the wall, and for durations.
    #[must_use]
    pub fn arrived(&self) -> (SystemTime, Instant) {
        (self.wall, self.started)
    }

    /// Which part of the site it is for.
    pub fn area(&mut self, area: &'static str) {
        self.area = area;
    }

    /// It is refused. The detail goes to the log, never to the client.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.refused = Some(refusal.reason);
        self.detail = self.texts.keep(refusal.detail.as_bytes());
        self.doubt(refusal.fault);
    }

    /// This was found wrong with it as a message.
    fn doubt(&mut self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            fault.note(&mut self.fault);
        }
    }

    /// Its answer was the failure that made a ban, by this jail.
    pub fn banned(&mut self, jail: &str) {
        self.ban = self.texts.keep(jail.as_bytes());
    }

    /// A rule in report mode would have refused it.
    pub fn would_block(&mut self, refusal: &Refusal) {
        if self.would_block.len() < WOULD_BLOCK_MAX {
            let detail = self.texts.keep(refusal.detail.as_bytes());
            self.would_block.push(WouldBlock { reason: refusal.reason, detail });
        }
    }

    /// Its place among the requests that are under way, which is given back when it is over.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// How the exchange with the origin went.
    pub fn origin(&mut self, origin: &Origin<'_>) {
        self.upstream = Some(Upstream {
            member: self.texts.keep(origin.member.as_bytes()),
            connect: origin.connect,
            first_byte: origin.first_byte,
            reused: origin.reused,
            retries: origin.retries,
        });
    }

    /// It was a try to log in; `user` is empty if there is no name, or none to be told.
    pub fn login(&mut self, kind: Kind, verdict: Verdict, user: &str) {
        let user = if user.is_empty() { Span::NONE } else { self.texts.keep(user.as_bytes()) };
        self.login = Some((kind, verdict, user));
    }

    /// The head of the answer is ready to leave.
    pub fn answered(&mut self, now: Instant, status: StatusCode) {
        self.status = Some(status);
        self.head_after = Some(now.saturating_duration_since(self.started));
    }

    /// A counter for the request body, to ride with it to the origin
    /// ([`Body::client`](crate::body::Body::client)).
    pub fn receiving(&mut self) -> Received {
        self.received.get_or_insert_with(|| Received(Arc::new(AtomicU64::new(0)))).clone()
    }

    /// `bytes` of the response body went towards the client.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The response body broke off.
    pub fn broke_off(&mut self, error: &BodyError) {
        self.broken = Some(match error {
            BodyError::Client(_) => Culprit::Client,
            BodyError::Refused(refusal) => {
                self.doubt(refusal.fault);
                Culprit::Client
            }
            BodyError::Origin(_) => Culprit::Origin,
        });
        if self.detail.is_none() {
            self.detail = self.texts.keep(error.to_string().as_bytes());
        }
    }

    /// A defect ended the response body.
    pub fn panicked(&mut self) {
        self.seen.panicked();
        self.complete = false;
    }

    /// The response body reached its end.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Bytes of the request body so far.
    pub(super) fn received(&self) -> u64 {
        self.received.as_ref().map_or(0, |received| received.0.load(Ordering::Relaxed))
    }

    pub(super) fn site_id(&self) -> SiteId {
        self.site
    }

    /// Who ended it before its end, if anybody did. An answer without a body is complete when its head
    /// has left (RFC 9110 section 6.4.1).
    pub(super) fn aborted(&self) -> Option<Culprit> {
        if self.broken.is_some() {
            return self.broken;
        }
        let bodiless = self.status.is_some_and(|status| {
            status.is_informational()
                || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
                || self.verb == Method::HEAD
        });
        (!self.complete && !bodiless).then_some(Culprit::Client)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ended = clock::now();
        self.seen.written(self, ended.saturating_duration_since(self.started));
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// The value of a field that must not occur twice.
fn sole<'a>(head: &Head<'a>, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = head.all(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// An authority without `user:password@` (RFC 3986 section 3.2.1).
fn without_user(authority: &[u8]) -> &[u8] {
    authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default()
}
