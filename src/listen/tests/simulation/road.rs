//! The road of the simulation: it does with each request what its lesson says.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::{Sleep, sleep, timeout};

use super::ask::{Act, Ask, Reads, Says, filler};
use super::origin;
use crate::body::{Body, BodyError, Upload};
use crate::guard::pace::{self, Meter};
use crate::http1::framing::RequestFraming;
use crate::http1::grade::Fault;
use crate::load::Mark;
use crate::observe::Received;
use crate::reply::Reply;
use crate::request::Request;
use crate::tests::Trace;
use crate::tests::pipe::Notes;
use crate::upstream::{Blame, Call, Upstream, rewrite};

/// How long the road waits for a piece of a body.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The mark of an answer to what was no request.
pub(super) const NOBODY: &str = "nobody";

/// The body of an answer that the origin did not give.
pub(super) const REFUSED: &str = "refused";

/// What the road of one connection knows, and what it saw.
pub(super) struct Road {
    pub(super) name: String,
    pub(super) asks: HashMap<String, Arc<Ask>>,
    pub(super) seen: Mutex<Vec<Sight>>,
    pub(super) alive: Arc<Alive>,
    pub(super) server: Notes,
    /// Who is asked, if the road asks anybody.
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) trace: Trace,
}

/// One request as the road saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    pub(super) mark: String,
    pub(super) body: Vec<u8>,
    /// Whether the body was read to its end.
    pub(super) ended: bool,
}

/// How many calls and bodies are alive.
#[derive(Debug, Default)]
pub(super) struct Alive(pub(super) AtomicUsize);

struct Life(Arc<Alive>);

impl Life {
    fn new(alive: &Arc<Alive>) -> Self {
        alive.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(alive))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Road {
    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Reply {
        let _life = Life::new(&self.alive);
        let Request { head, mut upload, .. } = request;
        let (fault, mark) = {
            let view = head.view();
            let mark = view.get(&HeaderName::from_static("x-mark"));
            (view.fault(), String::from_utf8(mark.unwrap_or_default().to_vec()).unwrap())
        };
        self.trace.note(format_args!("{} the road sees {mark:?} {fault:?}", self.name));
        let number = self.see(fault.map_or(mark.clone(), |_| NOBODY.to_owned()));
        if let Some(fault) = fault {
            let status = if fault == Fault::TooSlow { 408 } else { 400 };
            return reply(status, NOBODY, Body::full("broken"), true);
        }
        let ask = Arc::clone(&self.asks[&mark]);
        if let Some(upstream) = &self.upstream {
            return self.forward(upstream, &ask, upload).await;
        }
        let lesson = &ask.lesson;
        sleep(lesson.thinks).await;
        let pieces = match lesson.reads {
            Reads::Nothing => 0,
            Reads::Glance => {
                let piece = poll_fn(|cx| Poll::Ready(upload.poll_piece(cx))).await;
                if let Poll::Ready(piece @ (None | Some(Ok(_)))) = piece {
                    self.came(number, piece.map(Result::unwrap));
                }
                0
            }
            Reads::Pieces(pieces) => pieces,
            Reads::All => usize::MAX,
        };
        for _ in 0..pieces {
            match timeout(PATIENCE, poll_fn(|cx| upload.poll_piece(cx))).await {
                Err(_) => return reply(408, &mark, Body::full("slow"), true),
                Ok(Some(Err(_))) => return reply(400, &mark, Body::full("bad"), true),
                Ok(piece) => {
                    if !self.came(number, piece.map(Result::unwrap)) {
                        break;
                    }
                }
            }
        }
        sleep(lesson.hesitates).await;
        self.trace.note(format_args!("{} the road answers {mark}", self.name));
        match &lesson.says {
            Says::Full(status, length) => {
                reply(*status, &mark, Body::full(filler(&mark, *length)), lesson.closes)
            }
            // What a body there is must not be sent.
            Says::Bare(status) => reply(*status, &mark, Body::full("never"), lesson.closes),
            Says::Stream(acts) => reply(200, &mark, self.stream(&ask, acts), lesson.closes),
            Says::Echo => reply(200, &mark, self.echo(number, upload), lesson.closes),
            Says::Panic => std::panic::resume_unwind(Box::new("a defect")),
        }
    }

    /// Asks the origin, as the pipeline does it.
    async fn forward(&self, upstream: &Upstream, ask: &Ask, upload: Upload) -> Reply {
        let method = Method::from_bytes(ask.method.as_bytes()).unwrap();
        let framing = rewrite::framing(&method, upload.size_hint().exact());
        let line = match framing {
            RequestFraming::None => String::new(),
            RequestFraming::Length(length) => format!("content-length: {length}\r\n"),
            RequestFraming::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let mark = &ask.mark;
        let head = format!("{method} /{mark} HTTP/1.1\r\nhost: o\r\nx-mark: {mark}\r\n{line}\r\n");
        let body = match framing {
            RequestFraming::None => Body::empty(),
            _ => Body::client(upload, Meter::new(pace::Policy::default(), u64::MAX), Received::default()),
        };
        let call = Call {
            client: Mark::default(),
            method,
            head: head.as_str().into(),
            framing,
            body,
            websocket: false,
            first_byte: origin::PATIENCE,
            many_streams: false,
        };
        match upstream.send(0, call).await {
            Ok(answer) => {
                self.trace.note(format_args!("{} the origin answers {mark}", self.name));
                answer.reply
            }
            Err(error) => {
                self.trace.note(format_args!("{} no answer to {mark}: {error}", self.name));
                reply(502, mark, Body::full(REFUSED), error.kind.blame() == Blame::Client)
            }
        }
    }

    fn see(&self, mark: String) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(Sight { mark, ..Sight::default() });
        seen.len() - 1
    }

    /// Notes a piece of a body. Whether more may come.
    fn came(&self, number: usize, piece: Option<Bytes>) -> bool {
        let sight = &mut self.seen.lock().unwrap()[number];
        match piece {
            Some(piece) => sight.body.extend_from_slice(&piece),
            None => sight.ended = true,
        }
        !sight.ended
    }

    fn stream(self: &Arc<Self>, ask: &Ask, acts: &[Act]) -> Body {
        let mut acts: VecDeque<Act> = acts.iter().copied().collect();
        let total = acts.iter().map(|act| if let Act::Piece(length) = act { *length } else { 0 }).sum();
        let mut bytes = Bytes::from(filler(&ask.mark, total));
        let mut nap = Nap::default();
        let (life, server) = (Life::new(&self.alive), self.server.clone());
        let (before, mut told) = (server.written(), 0);
        Body::scripted(move |cx| {
            let _ = &life;
            // A driver that asks for more has got rid of what it had: one piece is held at most.
            assert!(server.written() - before >= told, "a piece is asked for before the last one is out");
            loop {
                match acts.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Act::Break) => {
                        let broken = io::ErrorKind::UnexpectedEof.into();
                        return Poll::Ready(Some(Err(BodyError::Origin(broken))));
                    }
                    Some(Act::Pause(time)) => {
                        if nap.poll(cx, time).is_pending() {
                            acts.push_front(Act::Pause(time));
                            return Poll::Pending;
                        }
                    }
                    Some(Act::Piece(length)) => {
                        told += length as u64;
                        return Poll::Ready(Some(Ok(bytes.split_to(length))));
                    }
                }
            }
        })
    }

    fn echo(self: &Arc<Self>, number: usize, mut upload: Upload) -> Body {
        let (life, road) = (Life::new(&self.alive), Arc::clone(self));
        let mut nap = Nap::default();
        Body::scripted(move |cx| {
            let _ = &life;
            match upload.poll_piece(cx) {
                Poll::Pending => {
                    let late = nap.poll(cx, PATIENCE);
                    late.map(|()| Some(Err(BodyError::Client(io::ErrorKind::TimedOut.into()))))
                }
                Poll::Ready(piece) => {
                    nap = Nap::default();
                    if let Some(Err(error)) = piece {
                        return Poll::Ready(Some(Err(BodyError::Client(error))));
                    }
                    let piece = piece.map(Result::unwrap);
                    road.came(number, piece.clone());
                    Poll::Ready(piece.map(Ok))
                }
            }
        })
    }
}

/// A pause inside of a body.
#[derive(Default)]
struct Nap(Option<Pin<Box<Sleep>>>);

impl Nap {
    fn poll(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let polled = self.0.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

fn reply(status: u16, mark: &str, body: Body, close: bool) -> Reply {
    let mut reply = Reply { close, ..Reply::new(StatusCode::from_u16(status).unwrap(), body) };
    reply.fields.push(HeaderName::from_static("x-mark"), HeaderValue::from_str(mark).unwrap());
    reply
}
