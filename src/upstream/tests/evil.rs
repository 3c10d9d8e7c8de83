//! An evil origin: each fault of the corpus ends in one clear error, in bounded memory and time, and
//! the next request is healthy.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::*;
use crate::body::{Inflow, Upload};
use crate::clock;
use crate::guard::pace::{self, Meter};
use crate::observe::Received;
use crate::refusal::{Reason, Refusal};

/// What the origin does after it has said its lines.
enum After {
    Close,
    Reset,
    /// Keeps the connection open and says nothing.
    Stall,
}

/// What becomes of one request to an origin that says `answer` and then does `after`.
async fn fault(answer: impl AsRef<[u8]>, after: After) -> Result<Result<String, BodyError>, UpstreamError> {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let start = clock::now();
    let (answer, stalled) = tokio::join!(
        async {
            match upstream.send(0, hasty()).await {
                Ok(answer) => Ok(text(answer).await),
                Err(error) => Err(error),
            }
        },
        async {
            let peer = origin.serve(answer).await;
            match after {
                After::Close => None,
                After::Reset => {
                    peer.reset();
                    None
                }
                After::Stall => Some(peer),
            }
        }
    );
    in_time(start);
    assert_eq!(kept(&upstream), 0, "a connection with a fault was kept");
    drop(stalled);
    is_healthy(&origin, &upstream).await;
    answer
}

fn in_time(start: Instant) {
    assert!(clock::now() - start < 8 * SHORT, "no bound on time");
}

async fn refused(answer: impl AsRef<[u8]>, after: After) -> Kind {
    fault(answer, after).await.unwrap_err().kind
}

#[tokio::test]
async fn heads_that_are_not_one_clear_message() {
    for answer in [
        "<html>HTTP/0.9</html>",
        "\x16\x03\x01\x02\0\x01",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\rc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\nX-B: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(refused(answer, After::Stall).await, Kind::Protocol, "{answer:?}");
    }
}

#[tokio::test]
async fn no_answer_at_all() {
    assert_eq!(refused("", After::Close).await, Kind::Closed);
    assert_eq!(refused("", After::Reset).await, Kind::Closed);
    assert_eq!(refused("", After::Stall).await, Kind::Timeout);
}

#[tokio::test]
async fn a_head_that_breaks_off() {
    assert_eq!(refused("HTTP/1.1 200 OK\r\nX-A", After::Close).await, Kind::Closed);
    assert_eq!(refused("HTTP/1.1 200 OK\r\nX-A", After::Reset).await, Kind::Closed);
    assert_eq!(refused("HTTP/1.1 200 OK\r\nX-A", After::Stall).await, Kind::Timeout);
}

#[tokio::test]
async fn a_large_head_and_many_fields() {
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20));
    assert_eq!(refused(long, After::Close).await, Kind::HeadTooLarge);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(1000));
    assert_eq!(refused(many, After::Close).await, Kind::HeadTooLarge);
}

/// Repeats `line` for ever; answers how many bytes the socket took.
async fn endless(start: &str, line: &str) -> (Kind, usize) {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let flood = line.repeat(1000);
    let (result, taken) = tokio::join!(upstream.send(0, hasty()), async {
        let mut peer = origin.serve(start).await;
        let mut taken = 0;
        while let Ok(wrote) = peer.stream.write(flood.as_bytes()).await {
            taken += wrote;
        }
        taken
    });
    is_healthy(&origin, &upstream).await;
    (kind(result), taken)
}

#[tokio::test]
async fn endless_heads_and_endless_interim_answers() {
    // What the kernel's buffers take is not ours; we read no more than the limit and one read.
    let (kind, taken) = endless("HTTP/1.1 200 OK\r\n", "X-A: b\r\n").await;
    assert_eq!(kind, Kind::HeadTooLarge);
    assert!(taken < 16 << 20, "{taken}");
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"] {
        let (kind, taken) = endless("", interim).await;
        assert_eq!(kind, Kind::Protocol);
        assert!(taken < 16 << 20, "{taken}");
    }
}

#[tokio::test]
async fn a_few_interim_answers_are_swallowed() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(4);
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let (answer, _peer) = tokio::join!(upstream.send(0, get()), origin.serve(format!("{interim}{OK}")));
    let answer = answer.unwrap();
    assert_eq!(answer.reply.status, 200);
    assert!(!answer.reply.fields.contains(&http::header::LINK));
    assert_eq!(text(answer).await.unwrap(), "ok");
    let nine = "HTTP/1.1 102 Processing\r\n\r\n".repeat(9);
    assert_eq!(refused(format!("{nine}{OK}"), After::Stall).await, Kind::Protocol);
}

#[tokio::test]
async fn a_trickled_head_meets_a_total_deadline() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let start = clock::now();
    let (result, ()) = tokio::join!(upstream.send(0, hasty()), async {
        let mut peer = origin.serve("HTTP/1.1 200 OK\r\n").await;
        // Three times as long as the deadline, unless the proxy ends it.
        for _ in 0..30 {
            peer.say("X").await;
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    assert_eq!(kind(result), Kind::Timeout);
    in_time(start);
}

#[tokio::test]
async fn a_trickle_of_interim_answers_does_not_move_the_deadline() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let start = clock::now();
    let (result, _peer) = tokio::join!(upstream.send(0, hasty()), async {
        let mut peer = origin.serve("").await;
        for _ in 0..4 {
            peer.say("HTTP/1.1 102 Processing\r\n\r\n").await;
            tokio::time::sleep(SHORT / 3).await;
        }
        peer
    });
    assert_eq!(kind(result), Kind::Timeout);
    in_time(start);
}

#[tokio::test]
async fn truncated_bodies_are_never_a_clean_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ] {
        for after in [After::Close, After::Reset, After::Stall] {
            let body = fault(answer, after).await.unwrap();
            assert!(matches!(body, Err(BodyError::Origin(_))), "{answer:?}: {body:?}");
        }
    }
    let body = fault("HTTP/1.1 200 OK\r\n\r\nab", After::Reset).await.unwrap();
    assert!(body.is_err(), "a reset is no end: {body:?}");
}

#[tokio::test]
async fn bad_chunks() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // Before any data the head is withheld: the client gets one clear error.
    for chunks in ["zz\r\n", "2\nok\r\n", "ffffffffffffffffff\r\n", "-2\r\nok\r\n", "0\r\nA\0: b\r\n\r\n"] {
        assert_eq!(refused(format!("{HEAD}{chunks}"), After::Stall).await, Kind::Protocol, "{chunks:?}");
    }
    for chunks in ["2\r\nok!!", "2\r\nok\r\nx", "2\r\nok\r\n0\r\nA\0: b\r\n\r\n"] {
        let body = fault(format!("{HEAD}{chunks}"), After::Stall).await.unwrap();
        assert!(matches!(body, Err(BodyError::Origin(_))), "{chunks:?}: {body:?}");
    }
}

#[tokio::test]
async fn good_data_before_a_bad_chunk_goes_on() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n";
    let (answer, _peer) = tokio::join!(upstream.send(0, get()), origin.serve(answer));
    let mut body = answer.unwrap().reply.body;
    assert_eq!(frame(&mut body).await.unwrap().unwrap(), "ok");
    assert!(frame(&mut body).await.unwrap().is_err());
    assert!(frame(&mut body).await.is_none(), "after an error there is nothing more");
}

#[tokio::test]
async fn extra_bytes_poison_the_connection_and_not_the_answer() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nX",
    ] {
        assert_eq!(fault(answer, After::Stall).await.unwrap().unwrap(), "ok");
    }
    for answer in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        assert_eq!(fault(answer, After::Stall).await.unwrap().unwrap(), "");
    }
}

#[tokio::test]
async fn an_early_answer_to_a_large_upload_is_not_lost() {
    const SIZE: usize = 8 << 20;
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    for close in [true, false] {
        let origin = Origin::start().await;
        let upstream = origin.upstream();
        let mut left = SIZE;
        let body = Body::scripted(move |_| {
            let piece = left.min(64 << 10);
            left -= piece;
            Poll::Ready((piece > 0).then(|| Ok(Bytes::from(vec![0; piece]))))
        });
        let upload = call(Method::POST, RequestFraming::Length(SIZE as u64), body);
        let (result, _peer) = tokio::join!(upstream.send(0, upload), async {
            let peer = origin.serve(answer).await;
            // Closing with unread data makes the kernel send a reset.
            (!close).then_some(peer)
        });
        let answer = result.unwrap();
        assert_eq!(answer.reply.status, 413);
        assert!(answer.facts.sent < SIZE as u64);
        assert_eq!(text(answer).await.unwrap(), "big");
        assert_eq!(kept(&upstream), 0);
        is_healthy(&origin, &upstream).await;
    }
}

/// A client that sends nothing of its body.
struct Silent;

impl Inflow for Silent {
    fn poll_piece(&self, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        Poll::Pending
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

#[tokio::test]
async fn who_reads_an_early_answer_slowly_is_not_taken_for_a_slow_sender() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let meter = Meter::new(pace::Policy { idle: SHORT * 2, rate: 0 }, u64::MAX);
    let body = Body::client(Upload::http1(Arc::new(Silent)), meter, Received::default());
    let (result, mut peer) = tokio::join!(
        upstream.send(0, call(Method::POST, RequestFraming::Chunked, body)),
        origin.serve("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nfirst"),
    );
    let mut body = result.unwrap().reply.body;
    assert_eq!(frame(&mut body).await.unwrap().unwrap(), "first");
    peer.say("later").await;
    // Nobody asks for the next piece, whatever the protocol of the client: it still takes the one before it.
    tokio::time::sleep(SHORT * 4).await;
    assert_eq!(frame(&mut body).await.unwrap().unwrap(), "later");
    // Whoever is asked, and sends nothing, still comes to an end.
    let error = frame(&mut body).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("0 bytes of body"), "{error}");
}

#[tokio::test]
async fn the_client_s_faults_are_not_the_origin_s() {
    let gone =
        || Body::scripted(|_| Poll::Ready(Some(Err(BodyError::Origin(std::io::Error::other("gone"))))));
    let large = || {
        let refusal = || Refusal::new(Reason::BodyTooLarge, "more than 1 MiB");
        Body::scripted(move |_| Poll::Ready(Some(Err(BodyError::Refused(refusal())))))
    };
    let short = || Body::full("ab");
    let silent = || Body::scripted(|_| Poll::Pending);
    let long = || Body::full("abcdefgh");
    let five = RequestFraming::Length(5);
    for (framing, body, want) in [
        (five, gone(), Kind::ClientBody),
        (RequestFraming::Chunked, gone(), Kind::ClientBody),
        (five, large(), Kind::ClientRefused(Reason::BodyTooLarge)),
        (five, short(), Kind::ClientBody),
        (five, long(), Kind::ClientBody),
        (five, silent(), Kind::ClientStalled),
        (RequestFraming::Chunked, silent(), Kind::ClientStalled),
    ] {
        let origin = Origin::start().await;
        let upstream = origin.upstream();
        let upload = Call { first_byte: SHORT, ..call(Method::POST, framing, body) };
        let (result, closed) = tokio::join!(
            async {
                let result = upstream.send(0, upload).await;
                (kind(result), upstream.members().all(|(_, up, under_way)| up && under_way == 0))
            },
            async { origin.accept().await.stream.read_to_end(&mut Vec::new()).await.is_ok() }
        );
        assert_eq!(result, (want, true));
        assert!(closed, "the origin must see the request break off");
    }
}
