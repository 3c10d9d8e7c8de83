//! HTTP/2 through the door.

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::Request as HttpRequest;

use super::*;

type Client = SendRequest<Bytes>;
type Driver = tokio::task::JoinHandle<Result<(), h2::Error>>;

async fn client(house: &House) -> (Client, Driver) {
    client_with(house, &mut h2::client::Builder::new()).await
}

async fn client_with(house: &House, builder: &mut h2::client::Builder) -> (Client, Driver) {
    let io = house.connect_tls(&[b"h2"]).await;
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (client, connection): (Client, Connection<_, Bytes>) = builder.handshake(io).await.unwrap();
    (client, tokio::spawn(connection))
}

fn get(path: &str) -> HttpRequest<()> {
    HttpRequest::get(format!("https://localhost{path}")).body(()).unwrap()
}

async fn fetch(client: &mut Client, path: &str) -> Result<Vec<u8>, h2::Error> {
    futures_util::future::poll_fn(|cx| client.poll_ready(cx)).await?;
    let (answer, _) = client.send_request(get(path), true)?;
    collect(answer.await?.into_body()).await
}

async fn collect(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut out = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        out.extend_from_slice(&data);
    }
    Ok(out)
}

#[tokio::test]
async fn requests_share_a_connection() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    let (mut a, mut b) = (client.clone(), client.clone());
    let (slow, fast) = soon(async { tokio::join!(fetch(&mut a, "/slow"), fetch(&mut b, "/fast")) }).await;
    assert_eq!((slow.unwrap(), fast.unwrap()), (b"slow".to_vec(), b"hi /fast".to_vec()));
    let big = soon(fetch(&mut client, "/big")).await.unwrap();
    assert_eq!(big.len(), 8 * 1024 * 1024);
    assert_eq!(house.tally.count(Event::Accepted), 1);
    let peers = house.peers.lock().unwrap();
    assert_eq!(peers[0].tls.as_ref().unwrap().sni.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn an_upload_streams_back() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    let request = HttpRequest::post("https://localhost/echo").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let send = async {
        for _ in 0..64 {
            upload.reserve_capacity(16 * 1024);
            while upload.capacity() < 16 * 1024 {
                futures_util::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
            }
            upload.send_data(Bytes::from(vec![b'u'; 16 * 1024]), false).unwrap();
        }
        upload.send_data(Bytes::new(), true).unwrap();
    };
    let receive = async { collect(answer.await.unwrap().into_body()).await.unwrap() };
    let ((), back) = soon(async { tokio::join!(send, receive) }).await;
    assert_eq!(back.len(), 1024 * 1024);
}

/// An upload that was answered with 413 while it was under way.
async fn refused(client: &mut Client) -> h2::SendStream<Bytes> {
    let request = HttpRequest::post("https://localhost/early").body(()).unwrap();
    let (answer, upload) = client.send_request(request, false).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(soon(collect(answer.into_body())).await.unwrap(), b"too large");
    upload
}

#[tokio::test]
async fn the_small_rest_of_a_refused_upload_is_taken() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    let mut upload = refused(&mut client).await;
    for _ in 0..4 {
        upload.send_data(Bytes::from(vec![b'u'; 8 * 1024]), false).unwrap();
        let reset = futures_util::future::poll_fn(|cx| upload.poll_reset(cx));
        assert!(timeout(Duration::from_millis(30), reset).await.is_err(), "the stream goes on");
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon(fetch(&mut client, "/next")).await.unwrap(), b"hi /next");
}

#[tokio::test]
async fn a_large_rest_of_a_refused_upload_is_reset_without_blame() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    let mut upload = refused(&mut client).await;
    upload.send_data(Bytes::from(vec![b'u'; 200 * 1024]), false).unwrap();
    let early = futures_util::future::poll_fn(|cx| upload.poll_reset(cx));
    assert!(timeout(Duration::from_millis(300), early).await.is_err(), "it has time to see its answer");
    assert_eq!(soon(fetch(&mut client, "/next")).await.unwrap(), b"hi /next");
    let reset = soon(futures_util::future::poll_fn(|cx| upload.poll_reset(cx))).await.unwrap();
    assert_eq!(reset, h2::Reason::NO_ERROR);
}

#[tokio::test]
async fn an_idle_connection_says_goodbye() {
    let house = House::tls(quick());
    let (mut client, driver) = client(&house).await;
    soon(fetch(&mut client, "/1")).await.unwrap();
    let start = clock::now();
    soon(driver).await.unwrap().expect("GOAWAY without an error");
    assert!((500..1500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    house.counted(Event::IdleTimeout, 1).await;
    drop(client);
    house.deserted().await;
}

#[tokio::test]
async fn pings_do_not_prolong_an_idle_connection() {
    let house = House::tls(quick());
    let io = house.connect_tls(&[b"h2"]).await;
    let (client, mut connection): (Client, Connection<_, Bytes>) = h2::client::handshake(io).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    let start = clock::now();
    let ping = async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(ping).await;
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    let _ = soon(driver).await;
    drop(client);
    house.counted(Event::IdleTimeout, 1).await;
}

#[tokio::test]
async fn closing_finishes_streams_in_flight() {
    let house = House::tls(quick());
    let (mut client, driver) = client(&house).await;
    let (answer, _) = client.send_request(get("/slow"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.drain.advance(Phase::Closing);
    let body = soon(async { collect(answer.await.unwrap().into_body()).await }).await.unwrap();
    assert_eq!(body, b"slow");
    soon(driver).await.unwrap().expect("GOAWAY without an error");
    assert!(fetch(&mut client, "/late").await.is_err(), "no new stream");
    house.deserted().await;
}

#[tokio::test]
async fn killed_means_at_once() {
    let house = House::tls(quick());
    let (mut client, driver) = client(&house).await;
    let (answer, _) = client.send_request(get("/never"), true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.drain.advance(Phase::Killed);
    assert!(soon(answer).await.is_err());
    let _ = soon(driver).await;
    house.deserted().await;
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_and_others_go_on() {
    let house = House::tls(quick());
    let (client, _driver) =
        client_with(&house, h2::client::Builder::new().initial_connection_window_size(1 << 20)).await;
    let request = HttpRequest::post("https://localhost/echo").body(()).unwrap();
    let (answer, mut upload) = client.clone().send_request(request, false).unwrap();
    upload.reserve_capacity(256 * 1024);
    upload.send_data(Bytes::from(vec![b'u'; 256 * 1024]), false).unwrap();
    // The window of 64 KiB is never opened again.
    let mut stalled = soon(answer).await.unwrap().into_body();
    let start = clock::now();
    while house.tally.count(Event::StreamStalled) == 0 {
        assert!(start.elapsed() < Duration::from_secs(3), "never reset");
        let mut other = client.clone();
        assert_eq!(soon(fetch(&mut other, "/other")).await.unwrap(), b"hi /other");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(250), "{:?}", start.elapsed());
    let end = soon(async {
        loop {
            match stalled.data().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    })
    .await;
    assert!(end.is_some_and(|end| end.is_err_and(|error| error.is_reset())), "reset, not a clean end");
}

#[tokio::test]
async fn a_stream_whose_origin_is_slow_is_not_reset() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    let request = HttpRequest::post("https://localhost/echo").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"one "), false).unwrap();
    let body = soon(answer).await.unwrap().into_body();
    // Longer than the time a client may take nothing: here it is the other side that is slow.
    tokio::time::sleep(Duration::from_millis(700)).await;
    upload.send_data(Bytes::from_static(b"two"), true).unwrap();
    assert_eq!(soon(collect(body)).await.unwrap(), b"one two");
    assert_eq!(house.tally.count(Event::StreamStalled), 0);
}

#[tokio::test]
async fn no_more_than_a_hundred_streams() {
    let house = House::tls(quick());
    let (mut client, _driver) = client(&house).await;
    soon(fetch(&mut client, "/settings-have-come")).await.unwrap();
    assert_eq!(client.current_max_send_streams(), 100);
}

/// A frame as it crosses the wire (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// GET of the root of localhost over https, by HPACK's static table.
const FIELDS: &[u8] = b"\x82\x87\x84\x41\x09localhost";

/// Sends the preface and what `attack` makes for each stream number, and says how it ended: the reason of
/// the server's GOAWAY, or none if the server put up with all of it.
async fn attack(house: &House, rounds: u32, attack: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let io = house.connect_tls(&[b"h2"]).await;
    let (mut read, mut write) = tokio::io::split(io);
    let send = async {
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        for round in 0..rounds {
            write.write_all(&attack(2 * round + 1)).await?;
            if round % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        std::io::Result::Ok(())
    };
    let receive = async {
        let mut head = [0; 9];
        loop {
            read.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            read.read_exact(&mut payload).await.ok()?;
            if let (7, Some(code)) = (head[3], payload.get(4..8)) {
                return Some(u32::from_be_bytes(code.try_into().unwrap()));
            }
        }
    };
    let (_, reason) = soon(async { tokio::join!(send, timeout(Duration::from_secs(1), receive)) }).await;
    reason.ok().flatten()
}

/// The code of `ENHANCE_YOUR_CALM`.
const CALM: Option<u32> = Some(11);

fn asked(house: &House) -> usize {
    house.peers.lock().unwrap().len()
}

#[tokio::test]
async fn rapid_reset_ends_with_calm_and_spares_the_origin() {
    let house = House::tls(quick());
    let reason = attack(&house, 1000, |stream| {
        let mut out = frame(HEADERS, 5, stream, FIELDS);
        out.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        out
    })
    .await;
    assert_eq!(reason, CALM);
    assert!(asked(&house) <= 10, "{} reached the road", asked(&house));
    house.counted(Event::BadHttp2, 1).await;
    house.deserted().await;
}

#[tokio::test]
async fn made_you_reset_ends_with_calm() {
    let house = House::tls(quick());
    let reason = attack(&house, 1000, |stream| {
        let mut out = frame(HEADERS, 5, stream, FIELDS);
        out.extend(frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes()));
        out
    })
    .await;
    assert!(reason == CALM || reason == Some(1), "{reason:?}");
    assert!(asked(&house) <= 10, "{} reached the road", asked(&house));
    house.deserted().await;
}

#[tokio::test]
async fn continuation_floods_end_with_calm() {
    for payload in [b"".as_slice(), &[0x00, 1, b'a', 1, b'b']] {
        let house = House::tls(quick());
        let reason = attack(&house, 5000, |stream| match stream {
            1 => frame(HEADERS, 1, 1, FIELDS),
            _ => frame(CONTINUATION, 0, 1, payload),
        })
        .await;
        assert!(reason.is_some(), "tolerated");
        assert_eq!(asked(&house), 0);
        house.deserted().await;
    }
}

#[tokio::test]
async fn empty_data_ends_with_calm() {
    let house = House::tls(quick());
    let reason = attack(&house, 5000, |stream| match stream {
        1 => frame(HEADERS, 4, 1, FIELDS),
        _ => frame(DATA, 0, 1, &[]),
    })
    .await;
    assert_eq!(reason, CALM);
    house.deserted().await;
}

#[tokio::test]
async fn settings_and_ping_floods_do_not_reach_the_road_nor_last() {
    for (kind, payload) in [(SETTINGS, b"".as_slice()), (PING, b"12345678".as_slice())] {
        let house = House::tls(quick());
        attack(&house, 5000, |_| frame(kind, 0, 0, payload)).await;
        assert_eq!(asked(&house), 0);
        house.deserted().await;
    }
}

#[tokio::test]
async fn volleys_of_resets_end_too() {
    let house = House::tls(quick());
    let (mut client, driver) = client(&house).await;
    for _ in 0..1000 {
        if futures_util::future::poll_fn(|cx| client.poll_ready(cx)).await.is_err() {
            break;
        }
        let Ok((_, mut stream)) = client.send_request(get("/never"), true) else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    let error = soon(driver).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(asked(&house) <= 10, "{} reached the road", asked(&house));
    house.deserted().await;
}

#[tokio::test]
async fn patient_cancelling_ends_the_connection_too() {
    let house = House::tls(limits::Policy { keep_alive: Duration::from_secs(10), ..quick() });
    let (client, driver) = client(&house).await;
    let nag = async {
        let mut client = client;
        for _ in 0..2000 {
            if futures_util::future::poll_fn(|cx| client.poll_ready(cx)).await.is_err() {
                break;
            }
            let Ok((_, mut stream)) = client.send_request(get("/never"), true) else { break };
            tokio::time::sleep(Duration::from_millis(2)).await;
            stream.send_reset(h2::Reason::CANCEL);
        }
    };
    soon(nag).await;
    let _ = soon(driver).await;
    house.counted(Event::TooManyCancelled, 1).await;
    let asked = house.peers.lock().unwrap().len();
    assert!((1..=10).contains(&asked), "{asked} requests");
}

#[tokio::test]
async fn a_fickle_client_that_ignores_the_farewell_asks_for_nothing_more() {
    let house = House::tls(limits::Policy { keep_alive: Duration::from_secs(10), ..quick() });
    let io = house.connect_tls(&[b"h2"]).await;
    let (mut read, mut write) = tokio::io::split(io);
    // It takes what it is sent and answers nothing: neither GOAWAY nor the PING behind it are heeded.
    let deaf = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let never = [b"\x82\x87\x04\x06/never\x41\x09localhost".as_slice()].concat();
    let nag = async {
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        for round in 0..2000u32 {
            let stream = 2 * round + 1;
            write.write_all(&frame(HEADERS, 5, stream, &never)).await?;
            write.flush().await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
            write.write_all(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())).await?;
        }
        std::io::Result::Ok(())
    };
    let _ = soon(nag).await;
    let _ = soon(deaf).await;
    // On a machine that is busy, a reset may catch up with its request, which is another reason to end.
    let reasons = [Event::TooManyCancelled, Event::Flood, Event::BadHttp2];
    let ended = async {
        while reasons.iter().all(|reason| house.tally.count(*reason) == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(ended).await;
    assert!(asked(&house) <= 10, "{} reached the road", asked(&house));
    house.deserted().await;
}

#[tokio::test]
async fn a_head_list_beyond_every_limit_is_refused() {
    let house =
        House::tls(limits::Policy { header_size: 8192, request_line: 8192, header_count: 10, ..quick() });
    let (mut client, _driver) = client(&house).await;
    let mut request = get("/long");
    for i in 0..20 {
        let name: http::HeaderName = format!("x-{i}").parse().unwrap();
        request.headers_mut().insert(name, "v".repeat(1024).parse().unwrap());
    }
    let (answer, _) = client.send_request(request, true).unwrap();
    let refused = match soon(answer).await {
        Ok(answer) => answer.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Err(error) => error.is_reset() || error.is_go_away(),
    };
    assert!(refused);
    assert!(house.peers.lock().unwrap().is_empty());
}
