//! What the door says to those who do not speak HTTP, or not the right one.

use super::*;
use crate::listen::first_bytes::Protocol;

async fn answer(house: &House, bytes: &[u8], protocol: Protocol) -> Vec<u8> {
    let answer = house.exchange(bytes).await;
    assert_eq!(house.tally.foreign_count(protocol), 1, "{protocol:?}");
    assert!(house.peers.lock().unwrap().is_empty(), "nothing reached the road");
    answer
}

#[tokio::test]
async fn http_on_the_tls_port_gets_a_page_that_names_the_https_url() {
    let house = House::tls(quick());
    let request = b"GET /page HTTP/1.1\r\nHost: www.example.org:8443\r\nUser-Agent: test\r\n\r\n";
    let page = String::from_utf8(answer(&house, request, Protocol::Http1).await).unwrap();
    assert!(page.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{page}");
    assert!(page.contains("<a href=\"https://www.example.org:8443/\">"), "{page}");
    assert!(page.contains("X-Frame-Options: DENY\r\n") && page.contains("Connection: close\r\n"), "{page}");
    house.deserted().await;
}

#[tokio::test]
async fn a_slow_host_on_the_tls_port_is_waited_for_until_the_handshake_time() {
    let house = House::tls(quick());
    let start = clock::now();
    let page = house.exchange(b"GET /page HTTP/1.1\r\nHos").await;
    assert!(page.starts_with(b"HTTP/1.1 400 "));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn tls_on_the_plain_port_gets_an_alert() {
    let house = House::plain(quick());
    let alert = answer(&house, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Protocol::Tls).await;
    assert_eq!(alert, [0x15, 3, 1, 0, 2, 2, 40]);
}

#[tokio::test]
async fn http2_without_tls_is_sent_away_in_http2() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (house, reason) in [(House::plain(quick()), 0x0d), (House::tls(quick()), 0x0c)] {
        let frames = answer(&house, preface, Protocol::H2c).await;
        assert_eq!(frames.get(..9), Some([0, 0, 0, 4, 0, 0, 0, 0, 0].as_slice()), "SETTINGS");
        assert_eq!(frames.get(12), Some(&7), "GOAWAY");
        assert_eq!(frames.last(), Some(&reason));
    }
}

#[tokio::test]
async fn foreign_protocols_are_closed_at_once() {
    for house in [House::plain(quick()), House::tls(quick())] {
        let start = clock::now();
        assert_eq!(answer(&house, b"SSH-2.0-OpenSSH_9.9\r\n", Protocol::Ssh).await, b"");
        assert_eq!(answer(&house, b"EHLO mail.example.org\r\n", Protocol::Mail).await, b"");
        assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
        house.deserted().await;
    }
}

#[tokio::test]
async fn the_silent_are_closed_in_time_and_probes_are_no_news() {
    for house in [House::plain(quick()), House::tls(quick())] {
        drop(house.connect().await);
        house.counted(Event::Probe, 1).await;
        let start = clock::now();
        assert_eq!(house.exchange(b"").await, b"");
        assert!((150..1000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(house.exchange(b"GE").await, b"", "not enough to tell");
        house.counted(Event::Silent, 2).await;
        house.deserted().await;
    }
}

#[tokio::test]
async fn a_handshake_that_trickles_ends_in_time() {
    let house = House::tls(quick());
    let mut client = house.connect().await;
    let start = clock::now();
    client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let (mut read, mut write) = client.split();
    let drip = async {
        while write.write_all(b"\0").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = rest(&mut read) => assert_eq!(answer, b""),
        () = drip => {}
    }
    assert!((150..1000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    house.counted(Event::HandshakeTimeout, 1).await;
}

#[tokio::test]
async fn a_broken_handshake_is_counted_by_why() {
    let house = House::tls(quick());
    let mut hello = b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03".to_vec();
    hello.resize(37, 0xff);
    let answer = house.exchange(&hello).await;
    assert_eq!(answer.first(), Some(&0x15), "an alert");
    house.deserted().await;
    let why = house.tally.handshakes();
    assert_eq!(why.iter().map(|(_, count)| count).sum::<u64>(), 1, "{why:?}");
}
