//! HTTP/1.1 and HTTP/2 through the stream: what is sent arrives, bit by bit.

use ::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};

use super::{Io, Spawn, Stage, pattern};

const MIB: usize = 1 << 20;

fn request(path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Full::new(body))
        .unwrap()
}

/// One connection, the given requests one after the other; the bodies of the answers.
async fn over_h1(stage: &Stage, requests: Vec<Request<Full<Bytes>>>) -> Vec<Bytes> {
    let (mut sender, connection) = http1::handshake(Io(stage.served().await)).await.unwrap();
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for request in requests {
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        bodies.push(response.into_body().collect().await.unwrap().to_bytes());
    }
    bodies
}

/// One connection, all requests at once; the bodies of the answers.
async fn over_h2(stage: &Stage, requests: Vec<Request<Full<Bytes>>>) -> Vec<Bytes> {
    let (sender, connection) = http2::handshake(Spawn, Io(stage.served().await)).await.unwrap();
    tokio::spawn(connection);
    let answers: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let response = sender.send_request(request).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    let mut bodies = Vec::new();
    for answer in answers {
        bodies.push(answer.await.unwrap());
    }
    bodies
}

fn requests() -> Vec<Request<Full<Bytes>>> {
    vec![
        request("/echo", pattern(10)),
        request("/bytes/16384", Bytes::new()),
        request("/bytes/16385", Bytes::new()),
        request("/echo", Bytes::new()),
        request("/pieces/5000", Bytes::new()),
        request("/bytes/10485760", Bytes::new()),
        request("/echo", pattern(10 * MIB)),
        request("/echo", pattern(3)),
    ]
}

fn check(bodies: &[Bytes]) {
    let lengths = [10, 16_384, 16_385, 0, 35_000, 10 * MIB, 10 * MIB, 3];
    assert_eq!(bodies.iter().map(Bytes::len).collect::<Vec<_>>(), lengths);
    for body in bodies {
        assert!(*body == pattern(body.len()), "a body of {} bytes was changed on its way", body.len());
    }
}

#[tokio::test]
async fn h1_bodies_arrive_unchanged() {
    let stage = Stage::new().offering(b"http/1.1");
    check(&over_h1(&stage, requests()).await);
}

#[tokio::test]
async fn h2_bodies_arrive_unchanged() {
    let stage = Stage::new().offering(b"h2");
    check(&over_h2(&stage, requests()).await);
}

#[tokio::test]
async fn tls12_bodies_arrive_unchanged() {
    let mut stage = Stage::new().offering(b"http/1.1");
    let provider = std::sync::Arc::clone(stage.client.crypto_provider());
    let roots = stage.roots();
    stage.client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    check(&over_h1(&stage, requests()).await);
    let (_client, _server, facts) = stage.pair_and_facts().await;
    assert_eq!(facts.version, "TLSv1.2");
    assert_eq!(facts.cipher, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
}
