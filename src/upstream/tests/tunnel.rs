//! After a 101: the bytes of both sides, early ones first, to the last one.

use super::*;
use crate::tls::Plain;
use crate::upstream::{Carried, Tunnel};

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Accept: x\r\n\r\n";

/// Both ends of a joined tunnel, as a test plays them.
struct Ends {
    upstream: Upstream,
    client: TcpStream,
    origin: TcpStream,
    joined: tokio::task::JoinHandle<Carried>,
}

async fn tunnel(upstream: &Upstream, origin: &Origin, answer: String) -> (Tunnel, TcpStream) {
    let call = Call { websocket: true, ..get() };
    let (result, peer) = tokio::join!(upstream.send(0, call), origin.serve(answer));
    let answer = result.unwrap();
    assert_eq!(answer.reply.status, 101);
    assert_eq!(answer.reply.fields.get(&http::header::UPGRADE).unwrap(), "websocket");
    (*answer.reply.tunnel.unwrap(), peer.stream)
}

/// A client's connection: the test's end, and the proxy's.
async fn connection() -> (TcpStream, Plain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), Plain::new(far.unwrap().0, Bytes::new()))
}

/// Joined; `from_origin` came with the 101, `from_client` right behind the handshake.
async fn joined(from_origin: &str, from_client: &'static str) -> Ends {
    let at = Origin::start().await;
    let upstream = at.upstream();
    let (tunnel, origin) = tunnel(&upstream, &at, format!("{SWITCHING}{from_origin}")).await;
    let (client, near) = connection().await;
    let joined = tokio::spawn(tunnel.join(near, Bytes::from_static(from_client.as_bytes())));
    Ends { upstream, client, origin, joined }
}

async fn text(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    tokio::time::timeout(LONG, stream.read_exact(&mut bytes)).await.expect("nothing comes").unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Ends {
    async fn carried(self) -> (u64, u64, std::io::Result<()>) {
        let carried = tokio::time::timeout(LONG * 2, self.joined).await.expect("it goes on").unwrap();
        assert!(self.upstream.members().all(|(_, _, under_way)| under_way == 0));
        (carried.from_client, carried.from_origin, carried.ended)
    }
}

#[tokio::test]
async fn early_bytes_go_first_and_both_ways_are_counted() {
    let mut ends = joined("hello", "first ").await;
    assert!(ends.upstream.members().all(|(_, _, under_way)| under_way == 1), "a tunnel is under way");
    assert_eq!(text(&mut ends.client, 5).await, "hello");
    assert_eq!(text(&mut ends.origin, 6).await, "first ");
    ends.client.write_all(b"ping").await.unwrap();
    assert_eq!(text(&mut ends.origin, 4).await, "ping");
    ends.origin.write_all(b"pong").await.unwrap();
    assert_eq!(text(&mut ends.client, 4).await, "pong");
    ends.client.shutdown().await.unwrap();
    assert_eq!(ends.origin.read(&mut [0; 8]).await.unwrap(), 0, "the end goes on");
    // The other direction is still open.
    ends.origin.write_all(b"bye").await.unwrap();
    ends.origin.shutdown().await.unwrap();
    assert_eq!(text(&mut ends.client, 3).await, "bye");
    let (from_client, from_origin, ended) = ends.carried().await;
    assert_eq!((from_client, from_origin), (10, 12));
    ended.unwrap();
}

#[tokio::test]
async fn large_streams_cross_each_other_unharmed() {
    const SIZE: usize = 3 << 20;
    let Ends { upstream, client, origin, joined } = joined("", "").await;
    let pattern =
        |start: usize| -> Vec<u8> { (start..start + SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect() };
    let both = |stream: TcpStream, say: Vec<u8>, hear: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let heard = async {
            let mut heard = Vec::new();
            // Slowly, so that the tunnel has to wait for its reader.
            let mut piece = vec![0; 20_000];
            loop {
                let count = read.read(&mut piece).await.unwrap();
                if count == 0 {
                    break heard;
                }
                heard.extend_from_slice(&piece[..count]);
                tokio::task::yield_now().await;
            }
        };
        let said = async {
            write.write_all(&say).await.unwrap();
            write.shutdown().await.unwrap();
        };
        assert!(tokio::join!(heard, said).0 == hear, "bytes were lost or changed");
    };
    tokio::join!(both(client, pattern(0), pattern(7)), both(origin, pattern(7), pattern(0)));
    let carried = joined.await.unwrap();
    assert_eq!((carried.from_client, carried.from_origin), (SIZE as u64, SIZE as u64));
    carried.ended.unwrap();
    assert!(upstream.members().all(|(_, _, under_way)| under_way == 0));
}

#[tokio::test]
async fn a_side_that_breaks_off_ends_both() {
    for origin_breaks in [true, false] {
        let mut ends = joined("", "").await;
        ends.client.write_all(b"x").await.unwrap();
        assert_eq!(text(&mut ends.origin, 1).await, "x");
        let (breaks, mut other) =
            if origin_breaks { (ends.origin, ends.client) } else { (ends.client, ends.origin) };
        SockRef::from(&breaks).set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaks);
        let read = tokio::time::timeout(LONG, other.read(&mut [0; 8])).await.expect("it goes on");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert!(ends.joined.await.unwrap().ended.is_err());
    }
}

/// Joined with a limit on silence; what the client says first arrives.
async fn impatient(idle: Duration) -> Ends {
    let at = Origin::start().await;
    let limits = Limits { tunnel_idle: idle, ..LIMITS };
    let members = vec![(Endpoint::from_text(&at.url()).unwrap(), None)];
    let upstream = Upstream::new(&Policy { members, pool: PoolPolicy::default() }, limits, 1);
    let (tunnel, origin) = tunnel(&upstream, &at, SWITCHING.to_owned()).await;
    let (client, near) = connection().await;
    let joined = tokio::spawn(tunnel.join(near, Bytes::from_static(b"first")));
    let mut ends = Ends { upstream, client, origin, joined };
    assert_eq!(text(&mut ends.origin, 5).await, "first");
    ends
}

#[tokio::test]
async fn silence_has_a_limit_and_talk_has_none() {
    let mut ends = impatient(SHORT).await;
    // Three times as long as the limit, in either direction.
    for turn in 0..6 {
        tokio::time::sleep(SHORT / 2).await;
        let (says, hears) = if turn % 2 == 0 {
            (&mut ends.client, &mut ends.origin)
        } else {
            (&mut ends.origin, &mut ends.client)
        };
        says.write_all(b"x").await.unwrap();
        assert_eq!(text(hears, 1).await, "x");
    }
    let (from_client, from_origin, ended) = ends.carried().await;
    assert_eq!((from_client, from_origin), (8, 3));
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn whoever_ignores_the_end_is_not_waited_for_without_end() {
    let mut ends = impatient(SHORT).await;
    ends.client.shutdown().await.unwrap();
    assert_eq!(ends.origin.read(&mut [0; 8]).await.unwrap(), 0);
    let (from_client, _, ended) = ends.carried().await;
    assert_eq!(from_client, 5);
    ended.unwrap();
}

#[tokio::test]
async fn what_a_tunnel_carried_is_known_although_it_was_cut_off() {
    let at = Origin::start().await;
    let upstream = at.upstream();
    let (tunnel, mut origin) = tunnel(&upstream, &at, format!("{SWITCHING}hello")).await;
    let (mut client, near) = connection().await;
    let toll = tunnel.toll();
    let joined = tokio::spawn(tunnel.join(near, Bytes::from_static(b"abc")));
    assert_eq!((text(&mut client, 5).await, text(&mut origin, 3).await), ("hello".into(), "abc".into()));
    // A byte to and fro: what came before it is counted.
    client.write_all(b"d").await.unwrap();
    assert_eq!(text(&mut origin, 1).await, "d");
    origin.write_all(b"!").await.unwrap();
    assert_eq!(text(&mut client, 1).await, "!");
    joined.abort();
    assert!(joined.await.unwrap_err().is_cancelled());
    assert_eq!((toll.from_client(), toll.from_origin()), (4, 6));
}
