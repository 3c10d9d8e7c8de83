//! HTTP/2 to origins that a test plays by hand: good ones, slow ones, and some that lie.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};

use super::*;
use crate::upstream::Retry;

/// An origin whose connections are played frame by frame.
struct H2 {
    origin: Origin,
}

/// One request, as the origin has it.
struct Got {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

/// A connection that is driven by a task of its own, which hands out its requests.
struct Line {
    requests: tokio::sync::mpsc::UnboundedReceiver<Got>,
    task: tokio::task::JoinHandle<()>,
}

impl H2 {
    async fn start() -> Self {
        Self { origin: Origin::start().await }
    }

    fn upstream(&self) -> Upstream {
        upstream(&[self.origin.url().replace("http://", "h2c://")], PoolPolicy::default())
    }

    async fn accept(&self) -> Line {
        self.accept_with(&h2::server::Builder::new()).await
    }

    async fn accept_with(&self, says: &h2::server::Builder) -> Line {
        let says = says.clone();
        let stream = self.origin.accept().await.stream;
        let (hand, requests) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut connection: Connection<_, Bytes> = says.handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                if hand.send(Got { request, respond }).is_err() {
                    break;
                }
            }
        });
        Line { requests, task }
    }
}

impl Line {
    async fn next(&mut self) -> Got {
        let next = tokio::time::timeout(LONG, self.requests.recv()).await;
        next.expect("a request in time").expect("a request")
    }

    /// Closes without a word.
    fn cut(self) {
        self.task.abort();
    }
}

impl Got {
    fn head(&mut self, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        self.begin(200, fields, false)
    }

    fn begin(&mut self, status: u16, fields: &[(&str, &str)], end: bool) -> SendStream<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        self.respond.send_response(response.body(()).unwrap(), end).unwrap()
    }

    fn ok(&mut self) {
        let mut stream = self.head(&[("content-length", "2")]);
        stream.send_data("ok".into(), true).unwrap();
    }

    /// The body; an error if it is reset.
    async fn body(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut all = Vec::new();
        while let Some(data) = self.request.body_mut().data().await {
            let data = data?;
            let _ = self.request.body_mut().flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

/// The answer to `call`, while the origin does `play` with the first request of a new connection.
async fn answered<F: Future<Output = ()>>(
    call: Call,
    play: impl FnOnce(Got) -> F,
) -> Result<Result<String, BodyError>, UpstreamError> {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let asked = async {
        let answer = upstream.send(0, call).await?;
        Ok(text(answer).await)
    };
    let played = async {
        let mut line = origin.accept().await;
        play(line.next().await).await;
        // The connection lives until the answer was judged.
        line
    };
    let (asked, _line) = tokio::join!(asked, played);
    asked
}

#[tokio::test]
async fn requests_share_a_connection_and_say_what_they_said_over_http1() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut line = origin.accept().await;
        for _ in 0..2 {
            let mut got = line.next().await;
            assert_eq!(got.request.method(), Method::GET);
            assert_eq!(got.request.uri(), "http://a.test/");
            assert!(got.request.headers().get("host").is_none());
            got.ok();
        }
        line
    };
    let ask = async {
        for reused in [false, true] {
            let answer = upstream.send(0, get()).await.unwrap();
            assert_eq!((answer.facts.reused, answer.facts.attempts), (reused, 1));
            assert_eq!(answer.reply.status, StatusCode::OK);
            assert_eq!(text(answer).await.unwrap(), "ok");
        }
    };
    let _ = tokio::join!(play, ask);
    let lanes = upstream.only_member().lanes(0).unwrap();
    assert_eq!((lanes.len(), kept(&upstream)), (1, 0));
    assert_eq!(upstream.only_member().outstanding(), 0);
    assert!(lanes.sweep(crate::clock::now(), LONG), "it is asked where its name leads");
    assert_eq!(lanes.len(), 1);
    lanes.sweep(crate::clock::now() + LONG, LONG);
    assert_eq!(lanes.len(), 0, "nobody came back for it");
}

#[tokio::test]
async fn whoever_comes_when_the_origin_takes_no_more_gets_another_connection() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let mut two = h2::server::Builder::new();
    two.max_concurrent_streams(2);
    let play = async {
        let mut first = origin.accept_with(&two).await;
        first.next().await.ok();
        let slow = [first.next().await, first.next().await];
        let mut second = origin.accept_with(&two).await;
        second.next().await.ok();
        for mut got in slow {
            got.ok();
        }
        (first, second)
    };
    let ask = async {
        // Its answer comes behind what the origin says of itself.
        text(upstream.send(0, get()).await.unwrap()).await.unwrap();
        let ask = || async { text(upstream.send(0, get()).await.unwrap()).await.unwrap() };
        let (one, other, third) = tokio::join!(ask(), ask(), ask());
        assert_eq!([one, other, third], ["ok", "ok", "ok"]);
    };
    let _lines = tokio::time::timeout(LONG, async { tokio::join!(play, ask) }).await.expect("nobody waits");
    assert_eq!(upstream.only_member().lanes(0).unwrap().len(), 2);
}

#[tokio::test]
async fn a_hundred_at_once_share_one_connection_and_one_held_back_holds_back_none() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    // The first is never read: its window fills up.
    let play = async {
        let mut line = origin.accept().await;
        for number in 0..90 {
            let mut got = line.next().await;
            if number == 0 {
                let mut stream = got.head(&[]);
                tokio::spawn(async move {
                    let block = Bytes::from(vec![b'x'; 1 << 20]);
                    stream.reserve_capacity(block.len());
                    let _ = stream.send_data(block, true);
                    poll_fn(|cx| stream.poll_reset(cx)).await.map(drop)
                });
            } else {
                got.ok();
            }
        }
        line
    };
    let ask = async {
        let held = upstream.send(0, get()).await.unwrap();
        let others = (1..90).map(|_| async { text(upstream.send(0, get()).await.unwrap()).await.unwrap() });
        for ok in futures_util::future::join_all(others).await {
            assert_eq!(ok, "ok");
        }
        drop(held);
    };
    let _ = tokio::join!(play, ask);
    assert_eq!(upstream.only_member().lanes(0).unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_an_error_whatever_the_reset_says() {
    for length in [None, Some("10")] {
        for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM] {
            let fields: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
            let body = answered(get(), |mut got| async move {
                let mut stream = got.head(&fields);
                stream.send_data("half".into(), false).unwrap();
                tokio::time::sleep(SHORT / 10).await;
                stream.send_reset(reason);
            });
            let body = body.await.expect("a head");
            assert!(matches!(body, Err(BodyError::Origin(_))), "{length:?} {reason}: {body:?}");
        }
    }
    // The connection goes.
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut line = origin.accept().await;
        let mut got = line.next().await;
        let mut stream = got.head(&[]);
        stream.send_data("half".into(), false).unwrap();
        tokio::time::sleep(SHORT / 10).await;
        line.cut();
    };
    let (answer, ()) = tokio::join!(upstream.send(0, get()), play);
    assert!(matches!(text(answer.unwrap()).await, Err(BodyError::Origin(_))));
}

#[tokio::test]
async fn a_body_that_belies_its_length_is_an_error() {
    for (length, end) in [("10", true), ("3", true), ("3", false)] {
        let body = answered(get(), |mut got| async move {
            let mut stream = got.head(&[("content-length", length)]);
            let _ = stream.send_data("four".into(), end);
        });
        match body.await {
            Ok(body) => assert!(matches!(body, Err(BodyError::Origin(_))), "{length} {end}: {body:?}"),
            Err(error) => assert_eq!(error.kind, Kind::Protocol, "{length} {end}: {error}"),
        }
    }
    let lengths = [("content-length", "4"), ("content-length", "5")];
    let error = answered(get(), |mut got| async move {
        let _stream = got.begin(200, &lengths, false);
        tokio::time::sleep(SHORT / 10).await;
    });
    assert_eq!(error.await.unwrap_err().kind, Kind::Protocol);
}

#[tokio::test]
async fn what_ends_well_is_whole() {
    // Trailers are dropped; an empty piece is none; END_STREAM may come alone.
    let body = answered(get(), |mut got| async move {
        let mut stream = got.head(&[]);
        stream.send_data("one ".into(), false).unwrap();
        stream.send_data("".into(), false).unwrap();
        stream.send_data("two".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-evil", "1".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    });
    assert_eq!(body.await.unwrap().unwrap(), "one two");
    // A whole answer stays whole if the origin wants no more of the request.
    let call = call(Method::POST, RequestFraming::Chunked, Body::scripted(|_| Poll::Pending));
    let body = answered(call, |mut got| async move {
        let mut stream = got.begin(413, &[], false);
        stream.send_data("too large".into(), true).unwrap();
        tokio::time::sleep(SHORT / 10).await;
        stream.send_reset(Reason::NO_ERROR);
    });
    assert_eq!(body.await.unwrap().unwrap(), "too large");
    // No body where there is none by definition.
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        let head = BytesMut::from(format!("{method} / HTTP/1.1\r\nhost: a.test\r\n\r\n").as_str());
        let body = answered(Call { method, head, ..get() }, |mut got| async move {
            drop(got.begin(status, &[], true));
        });
        assert_eq!(body.await.unwrap().unwrap(), "", "{status}");
    }
}

#[tokio::test]
async fn what_is_silent_is_given_up_and_its_connection_left_alone() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut first = origin.accept().await;
        let silent = first.next().await;
        let mut second = origin.accept().await;
        second.next().await.ok();
        let mut stalls = second.next().await;
        let mut stream = stalls.head(&[]);
        stream.send_data("half".into(), false).unwrap();
        (first, second, silent, stream)
    };
    let ask = async {
        let error = upstream.send(0, hasty()).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (Kind::Timeout, Retry::Never), "{error}");
        let answer = upstream.send(0, get()).await.unwrap();
        assert!(!answer.facts.reused, "a connection that may be dead is not used again");
        assert_eq!(text(answer).await.unwrap(), "ok");
        let body = text(upstream.send(0, hasty()).await.unwrap()).await;
        assert!(
            matches!(&body, Err(BodyError::Origin(e)) if e.kind() == io::ErrorKind::TimedOut),
            "{body:?}"
        );
        assert_eq!(upstream.only_member().outstanding(), 0);
    };
    let _ = tokio::join!(play, ask);
}

#[tokio::test]
async fn only_what_may_be_is_sent_again() {
    for (method, reason, again) in [
        (Method::GET, Reason::REFUSED_STREAM, true),
        (Method::GET, Reason::INTERNAL_ERROR, false),
        (Method::GET, Reason::NO_ERROR, false),
        (Method::POST, Reason::REFUSED_STREAM, false),
    ] {
        let origin = H2::start().await;
        let upstream = origin.upstream();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let play = async {
            let mut first = origin.accept().await;
            first.next().await.ok();
            let mut got = first.next().await;
            if got.request.method() == Method::POST {
                let _ = got.body().await;
            }
            got.respond.send_reset(reason);
            if again {
                let mut second = origin.accept().await;
                second.next().await.ok();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SHORT).await;
            }
            first
        };
        let ask = async {
            let warm = upstream.send(0, get()).await.unwrap();
            assert_eq!(text(warm).await.unwrap(), "ok");
            let call = if method == Method::POST { post("x") } else { get() };
            upstream.send(0, call).await
        };
        let (_line, answer) = tokio::join!(play, ask);
        match answer {
            Ok(answer) => assert!(again && answer.facts.attempts == 2, "{method} {reason}"),
            Err(error) => assert!(!again && error.kind == Kind::Closed, "{method} {reason}: {error}"),
        }
        assert_eq!(asked.load(Ordering::Relaxed), usize::from(again));
    }
}

#[tokio::test]
async fn a_connection_that_closed_meanwhile_costs_no_request() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    for _ in 0..3 {
        let play = async {
            let mut line = origin.accept().await;
            line.next().await.ok();
            line
        };
        let (line, answer) = tokio::join!(play, upstream.send(0, post("x")));
        assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
        line.cut();
        // The runtime hears of it.
        tokio::time::sleep(SHORT / 10).await;
    }
}

/// A body that sends these pieces, then does nothing or breaks off.
fn pieces(pieces: &'static [&'static str], breaks: bool) -> Body {
    let mut left = pieces.iter();
    Body::scripted(move |cx| match left.next() {
        Some(piece) => Poll::Ready(Some(Ok(Bytes::from_static(piece.as_bytes())))),
        None if breaks => {
            Poll::Ready(Some(Err(BodyError::Client(io::Error::from(io::ErrorKind::ConnectionReset)))))
        }
        None => {
            let _ = cx;
            Poll::Pending
        }
    })
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_never_whole_to_the_origin() {
    for framing in [RequestFraming::Length(4), RequestFraming::Length(9), RequestFraming::Chunked] {
        let origin = H2::start().await;
        let upstream = origin.upstream();
        let play = async {
            let mut line = origin.accept().await;
            let mut got = line.next().await;
            let body = got.body().await;
            assert!(body.is_err(), "{framing:?}: {body:?}");
            line
        };
        let ask = upstream.send(0, call(Method::POST, framing, pieces(&["fo", "ur"], true)));
        let (_line, answer) = tokio::join!(play, ask);
        let error = answer.unwrap_err();
        assert_eq!(error.kind, Kind::ClientBody, "{framing:?}: {error}");
    }
}

#[tokio::test]
async fn the_last_byte_waits_for_the_clients_end_and_a_client_that_stalls_is_told_so() {
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut line = origin.accept().await;
        let mut got = line.next().await;
        let first = got.request.body_mut().data().await.unwrap().unwrap();
        assert_eq!(first, "fo");
        let rest = got.request.body_mut().data().await;
        assert!(matches!(rest, Some(Err(_))), "what completes it does not come: {rest:?}");
        line
    };
    let call = Call {
        first_byte: SHORT,
        ..call(Method::POST, RequestFraming::Length(4), pieces(&["fo", "ur"], false))
    };
    let (_line, answer) = tokio::join!(play, upstream.send(0, call));
    assert_eq!(kind(answer), Kind::ClientStalled);
    // Not even the head, where nothing was announced and more may follow.
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut line = origin.accept().await;
        tokio::time::timeout(SHORT * 2, line.requests.recv()).await.ok().flatten().is_none()
    };
    let empty = Call { first_byte: SHORT, ..call_of_nothing() };
    let (nothing, answer) = tokio::join!(play, upstream.send(0, empty));
    assert!(nothing, "the origin got a request");
    assert_eq!(kind(answer), Kind::ClientStalled);
}

fn call_of_nothing() -> Call {
    call(Method::POST, RequestFraming::Length(0), pieces(&[], false))
}

#[tokio::test]
async fn a_large_upload_goes_out_as_the_origin_takes_it() {
    const SIZE: usize = 1 << 20;
    let body = answered(
        call(Method::POST, RequestFraming::Length(SIZE as u64), Body::full(vec![b'x'; SIZE])),
        |mut got| async move {
            assert_eq!(got.request.headers()["content-length"], "1048576");
            assert_eq!(got.body().await.unwrap().len(), SIZE);
            got.ok();
        },
    );
    assert_eq!(body.await.unwrap().unwrap(), "ok");
}

#[tokio::test]
async fn an_origin_that_speaks_something_else_or_too_much() {
    // HTTP/1 in place of HTTP/2.
    let origin = H2::start().await;
    let upstream = origin.upstream();
    let play = async {
        let mut peer = origin.origin.accept().await;
        peer.say(super::OK).await;
        peer
    };
    let (answer, _peer) = tokio::join!(upstream.send(0, hasty()), play);
    let error = answer.unwrap_err();
    assert!(matches!(error.kind, Kind::Protocol | Kind::Closed), "{error}");
    // A head that is larger than allowed.
    let large = "x".repeat(LIMITS.response_head);
    let error = answered(get(), |mut got| async move {
        drop(got.head(&[("x-large", &large)]));
        tokio::time::sleep(SHORT / 10).await;
    });
    assert!(matches!(error.await.unwrap_err().kind, Kind::Protocol | Kind::HeadTooLarge));
    // Interim answers that never end.
    let call = Call { first_byte: SHORT, ..get() };
    let error = answered(call, |mut got| async move {
        for _ in 0..1000 {
            let interim = Response::builder().status(103).body(()).unwrap();
            if got.respond.send_informational(interim).is_err() {
                break;
            }
            tokio::time::sleep(SHORT / 100).await;
        }
    });
    assert_eq!(error.await.unwrap_err().kind, Kind::Timeout);
}

#[tokio::test]
async fn an_upgrade_goes_over_http1() {
    let origin = Origin::start().await;
    let upstream = upstream(&[origin.url().replace("http://", "h2c://")], PoolPolicy::default());
    let call = Call { websocket: true, ..get() };
    let (answer, _peer) = tokio::join!(upstream.send(0, call), origin.serve(super::OK));
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
}
