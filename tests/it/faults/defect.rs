//! A defect in Ravelin itself: a panic in one request is that request's 500, and nobody else's.

use std::time::Duration;

use super::PATIENCE;
use super::drain::{h2, h2_get, patiently};
use crate::harness::names::{REQUEST_ID, field};
use crate::harness::recorder::{Next, OK};
use crate::harness::{HOST, Recorder, log, proxy, within};

/// Only a debug build knows it.
const DEFECT: &str = "x-ravelin-defect";

#[cfg(debug_assertions)]
#[test]
fn a_panic_is_a_500_to_one_request_and_counted() {
    let origin = Recorder::answering(OK);
    let mut site = proxy().site(HOST, &origin).plain_serves().start();
    let mut bystander = site.wire_tls();
    let ask = format!("GET / HTTP/1.1\nHost: {HOST}\n\n");
    bystander.say(&ask).reply().status(200);
    for mut wire in [site.wire(), site.wire_tls()] {
        let reply = wire
            .say(&format!("GET /broken HTTP/1.1\nHost: {HOST}\nAccept: text/html\n{DEFECT}: 1\n\n"))
            .reply();
        reply.status(500).hardened().hides("asked for by a test");
        let id = reply.header(REQUEST_ID).unwrap().to_owned();
        assert_eq!(reply.reference(), id);
        let line = site.logged_as(&id);
        assert_eq!((line[field::STATUS].as_u64(), log::text(&line, field::REASON)), (Some(500), "internal"));
    }
    assert!(!origin.text().contains("/broken"), "the origin never sees it");
    bystander.say(&ask).reply().status(200).hardened();
    let counted = within(PATIENCE, || (site.counted(&["ravelin_panics_total"]) >= 2.0).then_some(()));
    assert!(counted.is_some(), "{}", site.metrics());
    assert!(site.stderr().contains("asked for by a test"), "standard error says what and where");
    assert!(site.lives());
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_while_an_answer_is_hardened_is_a_500_too() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).start();
    let reply = site
        .wire_tls()
        .say(&format!("GET /hardly HTTP/1.1\nHost: {HOST}\nAccept: text/html\n{DEFECT}: leave\n\n"))
        .reply();
    reply.status(500).hides("asked for by a test").header_once("x-content-type-options", "nosniff");
    reply.header_once("x-frame-options", "DENY").header_once("referrer-policy", "no-referrer");
    assert_eq!(reply.reference(), reply.header(REQUEST_ID).unwrap());
    let line = site.logged_as(&reply.reference());
    assert_eq!((line[field::STATUS].as_u64(), log::text(&line, field::REASON)), (Some(500), "internal"));
    patiently(async {
        let (client, _driver) = h2(&site).await;
        assert_eq!(h2_get(client.clone(), "/", &[(DEFECT, "leave")]).await.unwrap(), 500);
        assert_eq!(h2_get(client, "/after", &[]).await.unwrap(), 200, "the connection goes on");
    });
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_leaves_the_other_streams_of_its_connection_alone() {
    let origin = Recorder::scripted(|_, head, socket| {
        if head.starts_with(b"GET /slow") {
            std::thread::sleep(Duration::from_millis(300));
        }
        let sent = std::io::Write::write_all(socket, OK.as_bytes());
        if sent.is_ok() { Next::KeepAlive } else { Next::Close }
    });
    let site = proxy().site(HOST, &origin).start();
    patiently(async {
        let (client, _driver) = h2(&site).await;
        let slow = h2_get(client.clone(), "/slow", &[]);
        let broken = h2_get(client.clone(), "/broken", &[(DEFECT, "1")]);
        let quick = h2_get(client.clone(), "/quick", &[]);
        let (slow, broken, quick) = tokio::join!(slow, broken, quick);
        assert_eq!((slow.unwrap(), broken.unwrap(), quick.unwrap()), (200, 500, 200));
        assert_eq!(h2_get(client, "/after", &[]).await.unwrap(), 200, "the connection goes on");
    });
}

#[cfg(not(debug_assertions))]
#[test]
fn a_release_has_no_defect_to_order() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).start();
    site.ask("/").header(DEFECT, "1").send().status(200);
}
