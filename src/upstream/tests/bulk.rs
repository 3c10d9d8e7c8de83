//! Large bodies both ways: whole, in bounded pieces, and with back-pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, ready};

use super::*;

const SIZE: usize = 50 << 20;
/// No more than this may be under way when one side does not read: mostly the kernel's buffers.
const UNDER_WAY: usize = 24 << 20;
/// The largest piece that is ever handed on.
const PIECE: usize = crate::upstream::block::LARGE;

/// The pattern repeats after this many bytes: a prime, so that no buffer size divides it.
const PERIOD: usize = 61_457;

/// One period of bytes that depend on their position, so that a lost or doubled piece shows.
fn pattern() -> Bytes {
    (0..PERIOD).map(|i| (i.wrapping_mul(31) >> 5).to_le_bytes()[0]).collect()
}

/// Whether `data` is what stands at `position`.
fn fits(pattern: &Bytes, mut position: usize, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let start = position % PERIOD;
        let most = data.len().min(PERIOD - start);
        if data[..most] != pattern[start..start + most] {
            return false;
        }
        (position, data) = (position + most, &data[most..]);
    }
    true
}

/// The first `SIZE` bytes, in pieces of odd sizes.
fn pieces() -> impl Iterator<Item = Bytes> {
    let pattern = pattern();
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from % PERIOD;
        let most = (SIZE - from).min(PERIOD - start).min(40_009);
        from += most;
        (most > 0).then(|| pattern.slice(start..start + most))
    })
}

async fn stops_growing(count: &AtomicUsize) -> usize {
    loop {
        let before = count.load(Ordering::Relaxed);
        tokio::time::sleep(SHORT).await;
        if count.load(Ordering::Relaxed) == before && before > 0 {
            return before;
        }
    }
}

async fn download(chunked: bool) {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writer = tokio::spawn(async move {
        let framing =
            if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {SIZE}") };
        let mut peer = origin.serve(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
        for piece in pieces() {
            if chunked {
                peer.say(format!("{:x}\r\n", piece.len())).await;
            }
            peer.say(&piece).await;
            if chunked {
                peer.say("\r\n").await;
            }
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
        if chunked {
            peer.say("0\r\n\r\n").await;
        }
        peer
    });
    let mut body = upstream.send(0, get()).await.unwrap().reply.body;
    let under_way = stops_growing(&written).await;
    assert!(under_way < UNDER_WAY, "no back-pressure: {under_way}");
    let (pattern, mut position) = (pattern(), 0);
    while let Some(data) = frame(&mut body).await {
        let data = data.unwrap();
        assert!(data.len() <= PIECE, "{}", data.len());
        assert!(fits(&pattern, position, &data), "at {position}");
        position += data.len();
    }
    assert_eq!(position, SIZE);
    assert_eq!(kept(&upstream), 1);
    writer.await.unwrap();
}

async fn upload(framing: RequestFraming) {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let produced = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&produced);
    let mut source = pieces();
    let body = Body::scripted(move |_| {
        let piece = source.next();
        count.fetch_add(piece.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
        Poll::Ready(piece.map(Ok))
    });
    let (result, _peer) = tokio::join!(upstream.send(0, call(Method::POST, framing, body)), async {
        let mut peer = origin.accept().await;
        peer.head().await;
        let under_way = stops_growing(&produced).await;
        assert!(under_way < UNDER_WAY, "no back-pressure: {under_way}");
        let (pattern, mut got) = (pattern(), 0);
        while got < SIZE {
            let length =
                if framing == RequestFraming::Chunked { chunk_size(&mut peer).await } else { 1 << 16 };
            let data = peer.read(length.min(SIZE - got)).await;
            assert!(fits(&pattern, got, &data), "at {got}");
            got += data.len();
            if framing == RequestFraming::Chunked {
                assert_eq!(peer.read(2).await, b"\r\n");
            }
        }
        if framing == RequestFraming::Chunked {
            assert_eq!(peer.read(5).await, b"0\r\n\r\n");
        }
        peer.say(OK).await;
        peer
    });
    let answer = result.unwrap();
    assert!(answer.facts.sent > SIZE as u64);
    assert_eq!(text(answer).await.unwrap(), "ok");
    assert_eq!(kept(&upstream), 1);
}

async fn chunk_size(peer: &mut Peer) -> usize {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(peer.stream.read_u8().await.unwrap());
    }
    usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap()
}

#[tokio::test]
async fn a_large_download_by_length() {
    download(false).await;
}

#[tokio::test]
async fn a_large_download_in_chunks() {
    download(true).await;
}

#[tokio::test]
async fn a_large_upload_by_length() {
    upload(RequestFraming::Length(SIZE as u64)).await;
}

#[tokio::test]
async fn a_large_upload_in_chunks() {
    upload(RequestFraming::Chunked).await;
}

#[tokio::test]
async fn an_answer_may_begin_while_the_upload_goes_on() {
    let origin = Origin::start().await;
    let upstream = origin.upstream();
    let gate = Arc::new(tokio::sync::Notify::new());
    let mut wait = Some(Box::pin(Arc::clone(&gate).notified_owned()));
    let mut step = 0;
    let body = Body::scripted(move |cx| {
        step += 1;
        match &mut wait {
            _ if step == 1 => Poll::Ready(Some(Ok(Bytes::from_static(b"one")))),
            Some(until) => {
                ready!(until.as_mut().poll(cx));
                wait = None;
                Poll::Ready(Some(Ok(Bytes::from_static(b"two"))))
            }
            None => Poll::Ready(None),
        }
    });
    let upload = call(Method::POST, RequestFraming::Length(6), body);
    let (result, mut peer) = tokio::join!(upstream.send(0, upload), async {
        let mut peer = origin.accept().await;
        peer.head().await;
        assert_eq!(peer.read(3).await, b"one");
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none").await;
        peer
    });
    let mut body = result.unwrap().reply.body;
    assert_eq!(frame(&mut body).await.unwrap().unwrap(), "one");
    let (last, ()) = tokio::join!(frame(&mut body), async {
        gate.notify_one();
        assert_eq!(peer.read(3).await, b"two");
        peer.say("two").await;
    });
    assert_eq!(last.unwrap().unwrap(), "two");
    assert_eq!(kept(&upstream), 1, "both went through, so it may be used again");
}
