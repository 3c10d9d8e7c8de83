//! Handshakes, alerts, closing and hostile bytes.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read as _, ReadBuf, Write as _};
use rustls::{AlertDescription, ClientConnection, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::{Stage, pattern};
use crate::client::TlsFacts;
use crate::tls::policy::proof_config;
use crate::tls::session::Session;
use crate::tls::{AcceptError, Alpn, Cause, Offer, Profile, TlsStream, UnknownName, accept};

/// Reads at most `most` bytes; empty at the end of the stream.
async fn read(stream: &mut TlsStream, most: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let count = poll_fn(|cx| {
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut *stream).poll_read(cx, buffer.unfilled());
        polled.map_ok(|()| buffer.filled().len())
    })
    .await?;
    bytes.truncate(count);
    Ok(bytes)
}

async fn write(stream: &mut TlsStream, mut data: &[u8]) {
    while !data.is_empty() {
        let count = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, data)).await.unwrap();
        data = &data[count..];
    }
    poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx)).await.unwrap();
}

/// The first flight of a client that asks for `name`.
fn client_hello(stage: &Stage, name: &str) -> Vec<u8> {
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(stage.client.clone()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// What our side says to raw bytes, and what the client then receives until the end.
async fn answer_to(stage: &Stage, bytes: &[u8]) -> (AcceptError, Vec<u8>) {
    let (address, accepted) = stage.listen_once().await;
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    let ended = timeout(Duration::from_secs(5), io.read_to_end(&mut received)).await.unwrap();
    ended.unwrap();
    drop(io);
    (accepted.await.unwrap().err().unwrap(), received)
}

#[tokio::test]
async fn the_facts_are_told() {
    let stage = Stage::new().offering(b"h2");
    let (mut client, mut server, facts) = stage.pair_and_facts().await;
    assert_eq!((facts.version, facts.cipher), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"));
    assert_eq!((facts.alpn, facts.sni.as_deref(), facts.resumed), (Alpn::Http2, Some("localhost"), false));
    assert_eq!(
        client.get_ref().1.negotiated_key_exchange_group().unwrap().name(),
        rustls::NamedGroup::X25519MLKEM768
    );
    // The tickets travel with the first answer, and bring the session back.
    write(&mut server, b"x").await;
    client.read_u8().await.unwrap();
    let (_client, _server, facts) = stage.pair_and_facts().await;
    assert!(facts.resumed);
}

#[tokio::test]
async fn what_is_for_a_ca_is_for_acme_alone() {
    let stage = Stage::new();
    let certificates = Arc::clone(&stage.server.cert_resolver);
    let proof = proof_config(certificates, &Profile::default()).unwrap();
    // As if the greeting that is answered offered less than the one that was looked at.
    let mut careless = ServerConfig::clone(&proof);
    careless.alpn_protocols.clear();
    let careless = Arc::new(careless);
    let cases: [(&[&[u8]], _, _); 6] = [
        (&[b"acme-tls/1"], &proof, Some(Alpn::Acme)),
        (&[b"acme-tls/1"], &careless, None),
        (&[b"acme-tls/1", b"h2"], &careless, Some(Alpn::Http2)),
        (&[b"h2", b"acme-tls/1"], &careless, Some(Alpn::Http2)),
        (&[b"http/1.1"], &careless, Some(Alpn::Http1)),
        (&[], &careless, Some(Alpn::Http1)),
    ];
    for (offered, proof, wanted) in cases {
        let offer = Arc::new(Offer::from(Arc::clone(&stage.server)).proving(Arc::clone(proof)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let io = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepting = tokio::spawn(async move { accept(accepted, offer, Bytes::new()).await });
        let mut client = stage.client.clone();
        client.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let client = TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), io).await;
        let found = accepting.await.unwrap().map(|(_, facts)| facts.alpn).ok();
        assert_eq!(found, wanted, "{offered:?}");
        drop(client);
    }
}

#[tokio::test]
async fn what_a_connection_holds_stays_small() {
    let stage = Stage::new();
    let (address, accepted) = stage.listen_once().await;
    let io = TcpStream::connect(address).await.unwrap();
    let shaking = accept(io, Arc::new(Arc::clone(&stage.server).into()), Bytes::new());
    // Of a handshake that has not begun, of a connection for its life, and of what is known about it.
    let sizes = [size_of_val(&shaking), size_of::<TlsStream>(), size_of::<Session>(), size_of::<TlsFacts>()];
    let most = [640, 96, 1408, 80];
    assert!(sizes.iter().zip(most).all(|(size, most)| *size <= most), "{sizes:?} bytes, at most {most:?}");
    drop((shaking, accepted));
}

#[tokio::test]
async fn a_silent_client_gets_its_tickets_after_a_moment() {
    let stage = Stage::new();
    let (mut client, mut server) = stage.pair().await;
    let reading = tokio::spawn(async move { read(&mut server, 10).await });
    let mut one = [0];
    let nothing = timeout(Duration::from_millis(600), client.read(&mut one)).await;
    assert!(nothing.is_err(), "tickets are no data");
    assert_eq!(client.get_ref().1.tls13_tickets_received(), 2);
    reading.abort();
}

#[tokio::test]
async fn sniffed_bytes_are_the_first_of_the_handshake() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::clone(&stage.server);
    let accepted = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut first = [0; 11];
        io.read_exact(&mut first).await.unwrap();
        accept(io, Arc::new(config.into()), Bytes::copy_from_slice(&first)).await
    });
    let io = TcpStream::connect(address).await.unwrap();
    let mut client = stage.connect(io, "localhost").await.unwrap();
    let (mut server, _) = accepted.await.unwrap().unwrap();
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut server, 10).await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_handshake_may_trickle_in_byte_by_byte() {
    let stage = Stage::new();
    let (address, accepted) = stage.listen_once().await;
    let (near, far) = tokio::io::duplex(1);
    // A wire that carries one byte at a time towards the server.
    let trickle = tokio::spawn(async move {
        let (mut down, mut up) = TcpStream::connect(address).await.unwrap().into_split();
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let back = tokio::spawn(async move { tokio::io::copy(&mut down, &mut to_client).await });
        while let Ok(byte) = from_client.read_u8().await {
            up.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        back.abort();
    });
    let connector = tokio_rustls::TlsConnector::from(Arc::new(stage.client.clone()));
    let mut client = connector.connect("localhost".try_into().unwrap(), near).await.unwrap();
    let (mut server, _) = accepted.await.unwrap().unwrap();
    client.write_all(b"slow").await.unwrap();
    client.flush().await.unwrap();
    let mut got = Vec::new();
    while got.len() < 4 {
        got.extend(read(&mut server, 10).await.unwrap());
    }
    assert_eq!(got, b"slow");
    drop(client);
    trickle.await.unwrap();
}

#[tokio::test]
async fn plain_http_is_not_tls() {
    let stage = Stage::new();
    let (error, received) = answer_to(&stage, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(matches!(error.cause, Cause::NotTls), "{error:?}");
    assert_eq!(error.to_string(), "what the client sent is not TLS");
    assert_eq!(received, [21, 3, 3, 0, 2, 2, 50], "decode_error");
    assert_eq!(error.alert, Some(AlertDescription::DecodeError));
}

#[tokio::test]
async fn a_garbled_client_hello_is_answered_by_an_alert() {
    let stage = Stage::new();
    let mut hello = client_hello(&stage, "localhost");
    let middle = hello.len() / 2;
    hello[5] = 77; // no handshake type
    hello[middle] ^= 0xff;
    let (error, received) = answer_to(&stage, &hello).await;
    assert_eq!(received.first(), Some(&21), "an alert");
    assert!(error.alert.is_some() && error.label() == "no_agreement", "{error:?}");
}

#[tokio::test]
async fn an_endless_handshake_message_is_refused() {
    let stage = Stage::new();
    // Records of a ClientHello that claims to be 16 MiB minus one byte.
    let mut bytes = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    bytes.resize(5 + 16_384, 0);
    bytes.extend([22, 3, 1, 0x40, 0]);
    bytes.resize(2 * (5 + 16_384), 0);
    let (error, received) = answer_to(&stage, &bytes).await;
    assert_eq!(error.label(), "no_agreement", "{error:?}");
    assert_eq!(received.first(), Some(&21));
}

#[tokio::test]
async fn half_a_handshake_is_a_hang_up() {
    let stage = Stage::new();
    let hello = client_hello(&stage, "localhost");
    let (address, accepted) = stage.listen_once().await;
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(&hello[..hello.len() - 9]).await.unwrap();
    io.shutdown().await.unwrap();
    let error = accepted.await.unwrap().err().unwrap();
    assert_eq!(error.label(), "hung_up");
}

#[tokio::test]
async fn an_unknown_name_is_named_and_refused() {
    let stage = Stage::with(UnknownName::Refuse);
    let (error, received) = answer_to(&stage, &client_hello(&stage, "shop.test")).await;
    assert_eq!(error.to_string(), "no certificate for `shop.test`, and unknown names are refused");
    assert_eq!(received, [21, 3, 3, 0, 2, 2, 112], "unrecognized_name");
    // An address as the name means that no SNI is sent.
    let (error, received) = answer_to(&stage, &client_hello(&stage, "127.0.0.1")).await;
    assert!(error.to_string().starts_with("the client named no server"), "{error}");
    assert_eq!(received, [21, 3, 3, 0, 2, 2, 109], "missing_extension");
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_understood() {
    let stage = Stage::new();
    let stranger = Stage::new();
    let (address, accepted) = stage.listen_once().await;
    let io = TcpStream::connect(address).await.unwrap();
    stranger.connect(io, "localhost").await.unwrap_err();
    let error = accepted.await.unwrap().err().unwrap();
    assert!(matches!(error.cause, Cause::Refused(_)), "{error:?}");
    assert_eq!(error.sni.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn keys_may_be_updated_by_the_client() {
    let stage = Stage::new();
    let (mut client, mut server) = stage.pair().await;
    for round in 0..5_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&vec![round; 40_000]).await.unwrap();
        client.flush().await.unwrap();
        let mut got = Vec::new();
        while got.len() < 40_000 {
            got.extend(read(&mut server, 9000).await.unwrap());
        }
        assert_eq!(got, vec![round; 40_000]);
        // The answer carries our own update, and is understood.
        write(&mut server, &vec![round; 20_000]).await;
        let mut back = vec![0; 20_000];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(back, vec![round; 20_000]);
    }
}

#[tokio::test]
async fn both_sides_close_with_a_word() {
    let stage = Stage::new();
    let (mut client, mut server) = stage.pair().await;
    client.write_all(b"bye").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut server, 10).await.unwrap(), b"bye");
    assert!(read(&mut server, 10).await.unwrap().is_empty());
    assert!(read(&mut server, 10).await.unwrap().is_empty(), "the end stays the end");
    // The other half is still open.
    let count = poll_fn(|cx| Pin::new(&mut server).poll_write(cx, b"and you")).await.unwrap();
    assert_eq!(count, 7);
    poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx)).await.unwrap();
    let mut rest = Vec::new();
    // tokio-rustls gives UnexpectedEof if close_notify is missing.
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"and you");
}

#[tokio::test]
async fn an_end_between_records_is_an_end_and_one_inside_is_an_error() {
    let stage = Stage::new();
    let (client, mut server) = stage.pair().await;
    drop(client.into_inner().0);
    assert!(read(&mut server, 10).await.unwrap().is_empty());

    let (client, mut server) = stage.pair().await;
    let mut io = client.into_inner().0;
    io.write_all(&[23, 3, 3, 0, 200, 1, 2, 3]).await.unwrap();
    drop(io);
    let error = read(&mut server, 10).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_forged_record_ends_the_connection_with_an_alert() {
    let stage = Stage::new();
    let (client, mut server) = stage.pair().await;
    let (mut io, mut tls) = client.into_inner();
    io.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
    io.write_all(&[9; 20]).await.unwrap();
    let error = read(&mut server, 10).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(read(&mut server, 10).await.is_err(), "it stays broken");
    poll_fn(|cx| Pin::new(&mut server).poll_write(cx, b"more")).await.unwrap_err();
    drop(server);
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    let mut bytes = &bytes[..];
    let mut alert = None;
    while !bytes.is_empty() && alert.is_none() {
        tls.read_tls(&mut bytes).unwrap();
        alert = tls.process_new_packets().err();
    }
    assert_eq!(alert, Some(rustls::Error::AlertReceived(AlertDescription::BadRecordMac)));
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
    let stage = Stage::new();
    let (mut client, mut server) = stage.pair().await;
    socket2::SockRef::from(server.tcp()).set_send_buffer_size(64 * 1024).unwrap();
    let data = pattern(64 << 20);
    let mut taken = 0;
    let full = poll_fn(|cx| {
        while taken < data.len() {
            match Pin::new(&mut server).poll_write(cx, &data[taken..]) {
                Poll::Ready(count) => taken += count.unwrap(),
                Poll::Pending => return Poll::Ready(true),
            }
        }
        Poll::Ready(false)
    })
    .await;
    assert!(full && taken < 16 << 20, "{taken} bytes were taken although nobody reads");
    let reader = tokio::spawn(async move {
        sleep(Duration::from_millis(50)).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    });
    write(&mut server, &data[taken..]).await;
    poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx)).await.unwrap();
    assert!(reader.await.unwrap() == data);
}

#[tokio::test]
async fn small_writes_leave_together() {
    let stage = Stage::new();
    let (mut client, mut server) = stage.pair().await;
    for byte in 0..100_u8 {
        let count = poll_fn(|cx| Pin::new(&mut server).poll_write(cx, &[byte])).await.unwrap();
        assert_eq!(count, 1);
    }
    let early = timeout(Duration::from_millis(50), client.read_u8()).await;
    assert!(early.is_err(), "nothing leaves before the flush");
    poll_fn(|cx| Pin::new(&mut server).poll_flush(cx)).await.unwrap();
    let mut got = [0; 200];
    let count = client.read(&mut got).await.unwrap();
    assert_eq!(count, 100, "one record");
}

#[tokio::test]
async fn reading_goes_on_after_our_close_so_that_the_last_answer_arrives() {
    let stage = Stage::new();
    let (client, mut server) = stage.pair().await;
    let (mut from, mut to) = tokio::io::split(client);
    let uploading = tokio::spawn(async move {
        for _ in 0..40 {
            if to.write_all(&vec![1; 50_000]).await.is_err() {
                return;
            }
        }
    });
    sleep(Duration::from_millis(50)).await;
    write(&mut server, b"413").await;
    let closing = tokio::spawn(async move {
        poll_fn(|cx| Pin::new(&mut server).poll_shutdown(cx)).await.unwrap();
        // Reading goes on after our close.
        let mut uploaded = 0;
        while let Ok(bytes) = read(&mut server, 65_536).await
            && !bytes.is_empty()
        {
            uploaded += bytes.len();
        }
        assert_eq!(uploaded, 40 * 50_000);
    });
    sleep(Duration::from_millis(50)).await;
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"413");
    uploading.await.unwrap();
    drop(from);
    timeout(Duration::from_secs(5), closing).await.unwrap().unwrap();
}
