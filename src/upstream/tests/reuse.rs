//! Keeping connections, noticing dead ones, and what may be repeated.

use std::task::Poll;

use super::*;
use crate::upstream::Retry;

const POOL: PoolPolicy = PoolPolicy {
    idle: Duration::from_secs(4),
    idle_per_worker: 64,
    connect: Duration::from_secs(5),
    fail_after: 3,
    retry_after: Duration::from_secs(10),
    requests: 256,
    queue: Duration::from_secs(10),
};

/// Sends a GET that the peer answers with `answer` on the connection it has.
async fn again(upstream: &Upstream, peer: &mut Peer, answer: &str) -> Answer {
    let (result, ()) = tokio::join!(upstream.send(0, get()), async {
        peer.head().await;
        peer.say(answer).await;
    });
    result.unwrap()
}

/// An upstream that keeps one connection, and its far end.
async fn warmed(origin: &Origin) -> (Upstream, Peer) {
    let upstream = origin.upstream();
    let (answer, peer) = tokio::join!(upstream.send(0, get()), origin.serve(OK));
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
    assert_eq!(kept(&upstream), 1);
    (upstream, peer)
}

#[tokio::test]
async fn a_connection_is_used_again_after_every_kind_of_clean_end() {
    let origin = Origin::start().await;
    let (upstream, mut peer) = warmed(&origin).await;
    for (answer, body) in [
        (OK, "ok"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x\r\n!\r\n0\r\nA: b\r\n\r\n",
            "ok!",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", ""),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ] {
        let answer = again(&upstream, &mut peer, answer).await;
        assert!(answer.facts.reused && answer.facts.connect.is_none() && answer.facts.attempts == 1);
        assert_eq!(text(answer).await.unwrap(), body);
        assert_eq!(kept(&upstream), 1);
    }
}

#[tokio::test]
async fn it_goes_back_with_the_last_piece_even_if_nobody_polls_for_the_end() {
    let origin = Origin::start().await;
    let (upstream, mut peer) = warmed(&origin).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for answer in [OK, chunked] {
        let mut answer = again(&upstream, &mut peer, answer).await;
        assert_eq!(frame(&mut answer.reply.body).await.unwrap().unwrap(), "ok");
        drop(answer);
        assert_eq!(kept(&upstream), 1);
    }
}

#[tokio::test]
async fn a_body_that_was_not_read_to_its_end_closes_the_connection() {
    let origin = Origin::start().await;
    let (upstream, mut peer) = warmed(&origin).await;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
    drop(again(&upstream, &mut peer, half).await);
    assert!(peer.hung_up().await);
    assert_eq!(kept(&upstream), 0);
}

#[tokio::test]
async fn whoever_says_close_is_closed() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=0\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let origin = Origin::start().await;
        let upstream = origin.upstream();
        let (result, mut peer) = tokio::join!(upstream.send(0, get()), origin.serve(answer));
        assert_eq!(text(result.unwrap()).await.unwrap(), "ok");
        assert_eq!(kept(&upstream), 0, "{answer}");
        assert!(peer.hung_up().await);
    }
}

#[tokio::test]
async fn a_body_until_close_is_whole() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let (result, ()) = tokio::join!(upstream.send(0, get()), async {
        drop(origin.serve("HTTP/1.1 200 OK\r\n\r\nall of it").await);
    });
    assert_eq!(text(result.unwrap()).await.unwrap(), "all of it");
    assert_eq!(kept(&upstream), 0);
}

#[tokio::test]
async fn a_head_request_has_no_body_whatever_the_fields_say() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let head = call(Method::HEAD, RequestFraming::None, Body::empty());
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    let (result, _peer) = tokio::join!(upstream.send(0, head), origin.serve(answer));
    let answer = result.unwrap();
    assert_eq!(answer.reply.fields.get(&http::header::CONTENT_LENGTH).unwrap(), "99");
    assert!(answer.reply.body.is_end_stream());
    assert_eq!(kept(&upstream), 1);
}

#[tokio::test]
async fn a_connection_that_closed_or_spoke_while_idle_is_not_used() {
    for talkative in [false, true] {
        let origin = Origin::start().await;
        let (upstream, mut peer) = warmed(&origin).await;
        let _open = if talkative {
            peer.say("HTTP/1.1 408 Request Timeout\r\n\r\n").await;
            Some(peer)
        } else {
            drop(peer);
            None
        };
        // A POST cannot be repeated, so the kernel is asked before it is sent.
        let (result, _peer) = tokio::join!(upstream.send(0, post("x")), origin.serve(OK));
        let answer = result.unwrap();
        assert!(!answer.facts.reused);
        assert_eq!(answer.facts.attempts, 1);
    }
}

/// The second request of a kept connection, which the origin reads and then breaks off with `last`.
async fn broken(request: Call, last: &str) -> (Result<Answer, UpstreamError>, bool) {
    let origin = Origin::start().await;
    let (upstream, mut peer) = warmed(&origin).await;
    let again = async {
        peer.head().await;
        peer.say(last).await;
        peer.stream.shutdown().await.unwrap();
        let mut second = origin.accept().await;
        second.head().await;
        second.say(OK).await;
        second
    };
    tokio::select! {
        biased;
        result = upstream.send(0, request) => (result, false),
        second = again => { drop(second); unreachable!("the answer comes first") }
    }
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_once_on_a_fresh_connection() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let origin = Origin::start().await;
        let (upstream, mut peer) = warmed(&origin).await;
        let request = call(method.clone(), RequestFraming::None, Body::empty());
        let (result, _second) = tokio::join!(upstream.send(0, request), async {
            assert!(peer.head().await.starts_with(method.as_str()));
            drop(peer);
            let mut second = origin.accept().await;
            assert!(second.head().await.starts_with(method.as_str()));
            second.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            second
        });
        let answer = result.unwrap();
        assert_eq!(answer.reply.status, 204);
        assert_eq!((answer.facts.attempts, answer.facts.reused), (2, false));
    }
}

#[tokio::test]
async fn twice_is_never() {
    let origin = Origin::start().await;
    let (upstream, mut peer) = warmed(&origin).await;
    let (result, ()) = tokio::join!(upstream.send(0, get()), async {
        peer.head().await;
        drop(peer);
        let mut second = origin.accept().await;
        second.head().await;
        drop(second);
    });
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.facts.attempts), (Kind::Closed, 2));
}

#[tokio::test]
async fn what_is_not_safe_to_repeat_is_not() {
    let put = call(Method::PUT, RequestFraming::Length(1), Body::full("x"));
    let patch = call(Method::PATCH, RequestFraming::None, Body::empty());
    for request in [post("x"), post(""), put, patch] {
        let (result, _) = broken(request, "").await;
        let error = result.unwrap_err();
        assert_eq!((error.kind, error.facts.attempts), (Kind::Closed, 1));
        assert_eq!(error.retry, Retry::IfIdempotent);
    }
    // Nor anything once a byte of the answer is there.
    let (result, _) = broken(get(), "H").await;
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.retry, error.facts.attempts), (Kind::Closed, Retry::Never, 1));
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_repeated() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let (result, ()) = tokio::join!(upstream.send(0, get()), async {
        origin.accept().await.head().await;
    });
    let error = result.unwrap_err();
    assert_eq!((error.kind, error.facts.attempts), (Kind::Closed, 1));
}

#[tokio::test]
async fn sweeping_closes_what_is_too_old() {
    let origin = Origin::start().await;
    let upstream = upstream(&[origin.url()], PoolPolicy { idle: SHORT, ..POOL });
    let (answer, mut peer) = tokio::join!(upstream.send(0, get()), origin.serve(OK));
    drop(answer);
    upstream.sweep(0);
    assert_eq!(kept(&upstream), 1);
    tokio::time::sleep(SHORT).await;
    upstream.sweep(0);
    assert_eq!(kept(&upstream), 0);
    assert!(peer.hung_up().await);
}

#[tokio::test]
async fn an_unknown_worker_works_without_a_pool() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let (answer, _peer) = tokio::join!(upstream.send(7, get()), origin.serve(OK));
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
    assert_eq!(kept(&upstream), 0);
}

#[tokio::test]
async fn the_member_with_the_fewest_requests_under_way_is_asked() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let upstream = upstream(&[one.url(), two.url()], POOL);
    let unfinished = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let (first, _a) = tokio::join!(upstream.send(0, get()), one.serve(unfinished));
    let first = first.unwrap();
    for _ in 0..3 {
        let (next, _b) = tokio::join!(upstream.send(0, get()), async {
            two.serve("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await
        });
        assert_eq!(next.unwrap().facts.member.as_deref(), Some(two.url().as_str()));
    }
    assert_eq!(first.facts.member.as_deref(), Some(one.url().as_str()));
    let busy: Vec<usize> = upstream.members().map(|(_, _, under_way)| under_way).collect();
    assert_eq!(busy, [1, 0]);
    drop(first);
    assert!(upstream.members().all(|(_, _, under_way)| under_way == 0));
}

/// The url of a port where nobody listens.
async fn nobody() -> String {
    Origin::start().await.url()
}

#[tokio::test]
async fn a_dead_member_is_passed_over_and_comes_back() {
    let (dead, alive) = (nobody().await, Origin::start().await);
    let pool = PoolPolicy { fail_after: 2, retry_after: SHORT, ..POOL };
    let upstream = upstream(&[dead.clone(), alive.url()], pool);
    let mut tries = 0;
    while upstream.members().all(|(_, up, _)| up) {
        // A POST as well: nothing of it went out to the dead one.
        let (answer, _peer) = tokio::join!(upstream.send(0, post("x")), async {
            alive.serve("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await
        });
        assert_eq!(answer.unwrap().reply.status, 200);
        tries += 1;
        assert!(tries < 10, "never left alone");
    }
    let (answer, _peer) = tokio::join!(upstream.send(0, get()), alive.serve(OK));
    assert_eq!(answer.unwrap().facts.attempts, 1, "left alone");
    let address = dead.strip_prefix("http://").unwrap();
    let back = Origin { listener: TcpListener::bind(address).await.unwrap() };
    tokio::time::sleep(SHORT).await;
    let (answer, _peer) = tokio::join!(upstream.send(0, get()), back.serve(OK));
    assert_eq!(answer.unwrap().facts.member.as_deref(), Some(dead.as_str()));
    assert!(upstream.members().all(|(_, up, _)| up));
}

#[tokio::test]
async fn all_down_is_said_and_one_alone_is_always_tried() {
    let pool = PoolPolicy { fail_after: 1, ..POOL };
    let both = upstream(&[nobody().await, nobody().await], pool);
    let error = both.send(0, get()).await.unwrap_err();
    assert_eq!((error.kind, error.facts.attempts), (Kind::Unreachable, 2));
    let error = both.send(0, get()).await.unwrap_err();
    assert_eq!((error.kind, error.facts.attempts), (Kind::Down, 0));
    let alone = upstream(&[nobody().await], pool);
    for _ in 0..5 {
        assert_eq!(kind(alone.send(0, get()).await), Kind::Unreachable);
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_is_an_ordinary_answer() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let call = Call { websocket: true, ..get() };
    let (result, _peer) = tokio::join!(upstream.send(0, call), origin.serve(OK));
    let answer = result.unwrap();
    assert!(answer.reply.tunnel.is_none());
    assert_eq!(text(answer).await.unwrap(), "ok");
}

#[tokio::test]
async fn head_and_small_body_go_out_in_one_write() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let (result, ()) = tokio::join!(upstream.send(0, post("hello")), async {
        let mut peer = origin.accept().await;
        let mut bytes = [0; 512];
        let read = peer.stream.read(&mut bytes).await.unwrap();
        assert!(bytes[..read].ends_with(b"\r\n\r\nhello"), "one segment");
        peer.say(OK).await;
    });
    assert_eq!(result.unwrap().reply.status, 200);
}

#[tokio::test]
async fn a_chunked_upload_is_framed_and_the_connection_is_kept() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let mut pieces = vec!["!", "", "world", "hello "];
    let body =
        Body::scripted(move |_| Poll::Ready(pieces.pop().map(|p| Ok(Bytes::from_static(p.as_bytes())))));
    let upload = call(Method::POST, RequestFraming::Chunked, body);
    let want = "6\r\nhello \r\n5\r\nworld\r\n1\r\n!\r\n0\r\n\r\n";
    let (result, _peer) = tokio::join!(upstream.send(0, upload), async {
        let mut peer = origin.accept().await;
        peer.head().await;
        assert_eq!(peer.read(want.len()).await, want.as_bytes());
        peer.say(OK).await;
        peer
    });
    assert_eq!(text(result.unwrap()).await.unwrap(), "ok");
    assert_eq!(kept(&upstream), 1);
}
