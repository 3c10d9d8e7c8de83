//! HTTP/1.1 through the door.

use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::Context;

use bytes::{Bytes, BytesMut};
use hyper::rt;

use super::super::http1::serve;
use super::super::pulse::Pulse;
use super::*;
use crate::tls::ReadInto;

#[tokio::test]
async fn a_connection_is_kept_and_requests_may_be_pipelined() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut client, "hi /1").await;
    client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let both = until(&mut client, "hi /3").await;
    assert!(both.contains("hi /2") && both.matches("HTTP/1.1 200").count() == 2, "{both}");
    assert_eq!(both.to_ascii_lowercase().matches("\r\ndate: ").count(), 2, "{both}");
    assert_eq!(house.tally.count(Event::Accepted), 1);
    let peers = house.peers.lock().unwrap();
    assert!(Arc::ptr_eq(&peers[0], &peers[2]), "one peer per connection");
    assert_eq!(peers[0].addr, client.local_addr().unwrap());
    assert_eq!((peers[0].local, peers[0].listener), (house.addr, 7));
    assert!(peers[0].tls.is_none());
}

#[tokio::test]
async fn over_tls_the_peer_knows_what_was_agreed_on() {
    let house = House::tls(quick());
    let mut client = house.connect_tls(&[b"http/1.1"]).await;
    client.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.ends_with(b"hi /tls"));
    let peers = house.peers.lock().unwrap();
    let tls = peers[0].tls.as_ref().unwrap();
    assert_eq!((tls.sni.as_deref(), tls.version), (Some("localhost"), "TLSv1.3"));
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_time_and_ends_after_keep_alive() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut client, "hi /1").await;
    // Longer than the header time of 200 ms, shorter than the keep-alive of 600 ms.
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut client, "hi /2").await;
    let idle = clock::now();
    assert_eq!(rest(&mut client).await, b"", "an idle end says nothing");
    let waited = idle.elapsed().as_millis();
    assert!((550..1500).contains(&waited), "{waited} ms");
    house.counted(Event::IdleTimeout, 1).await;
    drop(client);
    house.deserted().await;
}

#[tokio::test]
async fn a_head_that_trickles_gets_a_408_in_time() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    let start = clock::now();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let (mut read, mut write) = client.split();
    let drip = async {
        while write.write_all(b"X-Drip: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let answer = tokio::select! {
        answer = rest(&mut read) => String::from_utf8(answer).unwrap(),
        () = drip => panic!("closed without an answer"),
    };
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.ends_with("broken"), "{answer}");
    house.counted(Event::HeaderTimeout, 1).await;
}

#[tokio::test]
async fn a_second_head_that_trickles_gets_a_408_too() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut client, "hi /1").await;
    client.write_all(b"GET /2 HTTP/1.1\r\n").await.unwrap();
    let start = clock::now();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "));
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "header time, not keep-alive: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_client_that_only_shakes_hands_is_closed_silently() {
    let house = House::tls(quick());
    let mut client = house.connect_tls(&[b"http/1.1"]).await;
    assert_eq!(rest(&mut client).await, b"");
    house.counted(Event::Silent, 1).await;
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_let_go() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    house.counted(Event::WriteStalled, 1).await;
    house.deserted().await;
}

#[tokio::test]
async fn a_slow_reader_is_served() {
    let house = House::plain(limits::Policy { write_idle: Duration::from_millis(300), ..quick() });
    let mut client = house.connect().await;
    client.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut total = 0;
    let mut space = vec![0; 1024 * 1024];
    loop {
        let count = soon(client.read(&mut space)).await.unwrap();
        if count == 0 {
            break;
        }
        total += count;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(total > 8 * 1024 * 1024, "{total}");
}

#[tokio::test]
async fn an_early_answer_survives_a_large_upload() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await.unwrap();
    let (mut read, mut write) = client.split();
    let (answer, sent) = tokio::join!(rest(&mut read), async {
        let piece = vec![b'x'; 100_000];
        for _ in 0..30 {
            write.write_all(&piece).await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        write.shutdown().await
    });
    assert!(answer.starts_with(b"HTTP/1.1 413 ") && answer.ends_with(b"too large"), "{}", answer.len());
    sent.expect("the upload was not reset");
}

#[tokio::test]
async fn continue_is_said_to_who_waits_for_it() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    let head = "POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"hello").await.unwrap();
    until(&mut client, "\r\n\r\nhello").await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    for word in ["hello", "again"] {
        client.write_all(format!("5\r\n{word}\r\n").as_bytes()).await.unwrap();
        until(&mut client, &format!("5\r\n{word}\r\n")).await;
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut client, "0\r\n\r\n").await;
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_no_other() {
    // Long enough for the backtrace to be printed.
    let house = House::plain(limits::Policy { header_read: Duration::from_secs(10), ..quick() });
    let mut other = house.connect().await;
    assert_eq!(house.exchange(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await, b"");
    other.write_all(b"GET /fine HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut other, "hi /fine").await;
    drop(other);
    house.deserted().await;
}

#[tokio::test]
async fn closing_finishes_what_is_in_flight() {
    let house = House::plain(quick());
    let (mut busy, mut idle) = (house.connect().await, house.connect().await);
    idle.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "hi /1").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.drain.advance(Phase::Draining);
    let during = house.exchange(b"GET /still HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(during.ends_with(b"hi /still"), "draining still serves");
    house.drain.advance(Phase::Closing);
    let start = clock::now();
    assert_eq!(rest(&mut idle).await, b"");
    assert!(start.elapsed() < Duration::from_millis(150), "idle ones end at once: {:?}", start.elapsed());
    let answer = String::from_utf8(rest(&mut busy).await).unwrap();
    assert!(answer.ends_with("slow"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    drop((busy, idle));
    house.deserted().await;
    assert_eq!(soon(house.accepting).await.unwrap().ok(), Some(()));
}

#[tokio::test]
async fn what_outlasts_the_grace_is_dropped() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let silent = house.connect().await;
    house.counted(Event::Accepted, 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.drain.advance(Phase::Closing);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(house.drain.live(), 2);
    house.drain.advance(Phase::Killed);
    assert_eq!(rest(&mut client).await, b"");
    house.deserted().await;
    drop(silent);
}

#[tokio::test]
async fn closing_waits_for_nobody_who_has_nothing_to_say() {
    let house = House::plain(limits::Policy { header_read: Duration::from_secs(10), ..quick() });
    // Neither of the two notices that the server has closed its side.
    let silent = house.connect().await;
    let mut idle = house.connect().await;
    idle.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "hi /1").await;
    house.counted(Event::Accepted, 2).await;
    let start = clock::now();
    house.drain.advance(Phase::Closing);
    house.deserted().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop((silent, idle));
}

#[tokio::test]
async fn a_share_of_requests_ends_a_connection_gracefully() {
    let house = House::plain(limits::Policy { requests_per_connection: NonZeroU64::new(2), ..quick() });
    let mut client = house.connect().await;
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let first = until(&mut client, "hi /1").await;
    assert!(!first.to_ascii_lowercase().contains("connection: close"), "{first}");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let second = String::from_utf8(rest(&mut client).await).unwrap();
    assert!(
        second.to_ascii_lowercase().contains("connection: close") && second.ends_with("slow"),
        "{second}"
    );
}

#[tokio::test]
async fn a_head_beyond_every_limit_is_refused() {
    let house = House::plain(limits::Policy { header_size: 4096, request_line: 4096, ..quick() });
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
    head.resize(20_000, b'x');
    let answer = house.exchange(&head).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{:?}", String::from_utf8_lossy(&answer));
    house.counted(Event::BadHttp1, 1).await;
}

/// A client that has sent `input`, and takes what it is sent in pieces of these sizes, over and over; at a 0 it
/// takes nothing for a moment.
struct Sipping {
    input: Bytes,
    sizes: Vec<usize>,
    turn: usize,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl ReadInto for Sipping {
    fn poll_read_into(&mut self, _: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let input = std::mem::take(&mut self.input);
        into.extend_from_slice(&input);
        if input.is_empty() { Poll::Pending } else { Poll::Ready(Ok(input.len())) }
    }
}

impl rt::Read for Sipping {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl rt::Write for Sipping {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let size = self.sizes[self.turn % self.sizes.len()].min(data.len());
        self.turn += 1;
        if size == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.taken.lock().unwrap().extend_from_slice(&data[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a client that sends `input` gets when it takes pieces of these sizes.
async fn sipped<F: Future<Output = Reply>>(
    input: &'static str,
    sizes: &[usize],
    drain: &Drain,
    road: impl Fn(Request) -> F,
) -> String {
    let taken = Arc::<Mutex<Vec<u8>>>::default();
    let client = Sipping { input: input.into(), sizes: sizes.to_vec(), turn: 0, taken: Arc::clone(&taken) };
    let pulse = Pulse::new(clock::now(), false, false);
    serve(crate::listen::wire::Wire::new(client), &pulse, &quick(), &drain.watch(), |_| (), road).await;
    let taken = taken.lock().unwrap().clone();
    String::from_utf8(taken).unwrap()
}

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// An answer of these pieces, whose length nobody knows.
fn in_pieces(pieces: &[Result<&'static str, ()>]) -> Reply {
    let mut pieces = std::collections::VecDeque::from(pieces.to_vec());
    let body = Body::scripted(move |_| {
        let piece = pieces.pop_front();
        Poll::Ready(piece.map(|piece| {
            piece.map(Bytes::from).map_err(|()| BodyError::Origin(io::ErrorKind::UnexpectedEof.into()))
        }))
    });
    Reply::new(StatusCode::OK, body)
}

#[tokio::test]
async fn chunks_stay_whole_wherever_a_client_stops_taking_them() {
    for sizes in [&[1, 0][..], &[2, 0], &[3, 0], &[5, 1, 0], &[7, 0], &[1000, 0]] {
        let answer =
            sipped(LAST, sizes, &Drain::new(), async |_| in_pieces(&[Ok("hello"), Ok("again")])).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "5\r\nhello\r\n5\r\nagain\r\n0\r\n\r\n", "{sizes:?}");
    }
}

#[tokio::test]
async fn a_body_that_broke_off_has_no_end_however_slowly_its_beginning_is_taken() {
    for sizes in [&[1, 0][..], &[3, 0], &[1000, 0]] {
        let answer = sipped(LAST, sizes, &Drain::new(), async |_| in_pieces(&[Err(())])).await;
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("0\r\n\r\n"), "{sizes:?}: {answer}");
        let answer = sipped(LAST, sizes, &Drain::new(), async |_| in_pieces(&[Ok("hello"), Err(())])).await;
        assert!(answer.ends_with("5\r\nhello\r\n"), "{sizes:?}: {answer}");
    }
}

#[tokio::test]
async fn a_body_read_after_the_answer_is_not_the_beginning_of_a_request() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    until(&mut client, "hi /1").await;
    client.write_all(b"hello").await.unwrap();
    // Longer than the header time of 200 ms, shorter than the keep-alive of 600 ms.
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = until(&mut client, "hi /2").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(rest(&mut client).await, b"", "an idle end says nothing");
    house.counted(Event::HeaderTimeout, 0).await;
}

#[tokio::test]
async fn an_empty_line_behind_a_body_is_not_the_beginning_of_a_request() {
    let house = House::plain(quick());
    let mut client = house.connect().await;
    client.write_all(b"POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\n").await.unwrap();
    until(&mut client, "\r\n\r\nhello").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    client.write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = until(&mut client, "hi /2").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    house.counted(Event::HeaderTimeout, 0).await;
}

#[tokio::test]
async fn a_request_that_has_arrived_is_answered_although_the_server_closes() {
    let drain = Drain::new();
    drain.advance(Phase::Closing);
    let input = "GET /late HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = sipped(input, &[1000], &drain, road).await;
    assert!(answer.contains("connection: close") && answer.ends_with("hi /late"), "{answer}");
}

#[tokio::test]
async fn an_answer_never_begins_in_the_middle_of_a_continue() {
    let input = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let early = async |request: Request| {
        let mut upload = request.upload;
        poll_fn(|cx| Poll::Ready(upload.poll_piece(cx).is_pending())).await;
        let mut asked = false;
        let body = Body::scripted(move |cx| {
            assert!(upload.poll_piece(cx).is_pending());
            let first = !std::mem::replace(&mut asked, true);
            Poll::Ready(first.then(|| Ok(Bytes::from_static(b"no"))))
        });
        Reply { close: true, ..Reply::new(StatusCode::OK, body) }
    };
    for (sizes, continued) in [(&[10, 0, 1000][..], true), (&[0, 1000], false)] {
        let answer = sipped(input, sizes, &Drain::new(), early).await;
        let answer = if continued {
            answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").expect("a whole one")
        } else {
            &answer
        };
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{sizes:?}: {answer}");
        assert!(answer.ends_with("\r\n\r\n2\r\nno\r\n0\r\n\r\n"), "{sizes:?}: {answer}");
    }
}
