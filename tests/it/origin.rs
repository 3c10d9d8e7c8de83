//! The origin itself: the test site must behave on the wire as TYPO3 does, or every other test proves
//! nothing. Asked directly, without Ravelin.

use crate::harness::browser::visit;
use crate::harness::curl::{Ask, Over};
use crate::harness::reply::Reply;
use crate::harness::{Wire, apache};

fn get(path: &str) -> Reply {
    ask(path).send()
}

fn ask(path: &str) -> Ask {
    Ask::url(&format!("{}{path}", apache().url), Over::Plain)
}

#[test]
fn a_frontend_page_has_none_of_the_security_fields_but_nosniff() {
    let page = get("/");
    page.status(200)
        .header_once("content-language", "en-US")
        .header_once("cache-control", "private, no-store");
    page.header_once("x-content-type-options", "nosniff")
        .header_once("content-type", "text/html; charset=utf-8");
    page.header_has("server", "Apache").no_header("x-frame-options").no_header("content-security-policy");
}

#[test]
fn the_backend_sends_its_own_fields_by_line() {
    let modern = get("/typo3/?line=13.4");
    modern
        .status(200)
        .header_once("x-frame-options", "SAMEORIGIN")
        .header_once("x-content-type-options", "nosniff");
    modern.header_once("referrer-policy", "strict-origin-when-cross-origin");
    modern
        .header_has("content-security-policy", "'nonce-")
        .header_once("cache-control", "no-cache, no-store");
    assert_eq!(modern.all("set-cookie").len(), 2, "{modern}");
    let nonce = |reply: &Reply| reply.header("content-security-policy").unwrap_or_default().to_owned();
    assert_ne!(nonce(&modern), nonce(&get("/typo3/")), "a nonce is new for each request");

    let old = get("/typo3/?line=11.5");
    old.status(200).header_once("x-frame-options", "SAMEORIGIN").no_header("content-security-policy");
    assert_eq!(old.all("set-cookie").len(), 1, "{old}");
}

#[test]
fn a_failed_login_is_200_and_a_right_one_303() {
    let failed = ask("/typo3/login")
        .cookie("typo3nonce_ab=x")
        .body("login_status=login&__RequestToken=t&userident=wrong")
        .send();
    failed.status(200).shows("did not succeed");
    assert!(failed.cookies("be_typo_user")[0].contains("be_typo_user=deleted"), "{failed}");
    assert!(failed.cookies("typo3nonce_ab")[0].contains("=deleted"), "{failed}");
    let right =
        ask("/typo3/login").body("login_status=login&__RequestToken=t&userident=correct+horse").send();
    right.status(303).header_has("location", "/typo3/main?token=");
    assert!(right.cookies("be_typo_user")[0].contains("be_typo_user=eyJ"), "{right}");
}

#[test]
fn an_unauthenticated_route_redirects_without_any_security_field() {
    let reply = get("/typo3/ajax/page/tree/fetchData");
    reply.status(302).header_once("location", "/typo3/login").no_header("x-frame-options");
}

#[test]
fn apaches_own_redirect_names_http_and_its_port() {
    let location = get("/typo3").status(301).header("location").unwrap_or_default().to_owned();
    assert_eq!(location, format!("{}/typo3/", apache().url));
}

#[test]
fn uploaded_files_come_with_typo3s_policies_or_bare() {
    get("/fileadmin/picture.svg")
        .status(200)
        .header_has("content-security-policy", "style-src 'unsafe-inline'");
    get("/fileadmin/page.html").status(200).header_has("content-security-policy", "sandbox");
    get("/fileadmin/paper.pdf").status(200).header_has("content-security-policy", "plugin-types");
    get("/fileadmin/script.php.txt").status(200).header_has("content-type", "text/plain").shows("<?php");
    get("/fileadmin/bare/page.html").status(200).no_header("content-security-policy");
    get("/fileadmin/bare/page.html").no_header("x-content-type-options");
}

#[test]
fn the_echo_tells_exactly_what_arrived() {
    let reply = ask("/echo?x=1").method("PUT").header("X-Probe", "yes").body("abc").send();
    let seen = reply.status(200).json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["uri"], "/echo?x=1");
    assert_eq!(seen["headers"]["X-Probe"], "yes");
    assert_eq!(seen["server"]["HTTP_X_PROBE"], "yes");
    assert_eq!(seen["body_length"], 3);
}

#[test]
fn bodies_of_any_framing_and_size() {
    get("/chunked").status(200).header_once("transfer-encoding", "chunked").shows("one two three");
    assert_eq!(get("/download?bytes=1000001").status(200).body.len(), 1_000_001);
    let upload =
        ask("/upload").method("POST").header("Transfer-Encoding", "chunked").body("0123456789").send();
    assert_eq!(upload.status(200).json()["bytes"], 10);
    ask("/").method("HEAD").send().status(200).empty();
    get("/no-content").status(204).empty();
    ask("/cached").header("If-None-Match", "\"7c5e1f\"").send().status(304).empty();
    assert_eq!(get("/cache-tags?lines=3").status(200).all("x-typo3-cache-tags").len(), 3);
}

#[test]
fn statuses_and_fields_as_asked_for() {
    get("/nope").status(404);
    get("/members").status(403);
    get("/broken").status(500);
    let twice =
        get("/reply?status=503&field[]=X-Frame-Options:%20DENY&field[]=X-Frame-Options:%20SAMEORIGIN");
    assert_eq!(twice.status(503).all("x-frame-options"), ["DENY", "SAMEORIGIN"]);
}

#[test]
fn apache_answers_methods_that_no_visitor_needs() {
    // Which is why the proxy has to say no.
    ask("/").method("TRACE").send().status(200);
    ask("/").method("PROPFIND").send().status(200);
}

#[test]
fn the_raw_client_reads_what_curl_reads() {
    let port = apache().url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    let mut wire = Wire::plain(port);
    wire.say(
        "GET /chunked HTTP/1.1\nHost: a\n\nHEAD / HTTP/1.1\nHost: a\n\nGET /echo?third HTTP/1.1\nHost: a\n\n",
    );
    wire.reply().status(200).shows("one two three");
    wire.reply_to("HEAD").status(200).empty();
    assert_eq!(wire.reply().status(200).json()["uri"], "/echo?third");
    wire.say("POST /upload HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue\n\n")
        .head()
        .status(100);
    assert_eq!(wire.send("12345").reply().status(200).json()["bytes"], 5);
}

#[test]
fn the_backend_works_in_a_browser_without_any_proxy() {
    let document = visit(&format!("{}/typo3/main", apache().url));
    assert!(
        document.contains("data-main=\"ready\"") && document.contains("data-module=\"loaded\""),
        "{document}"
    );
    let stranger = apache().url.replace("127.0.0.1", "attacker.example.net");
    let document = visit(&format!("{stranger}/framing?src={}/framed", apache().url));
    assert!(
        document.contains("data-frame=\"framed\""),
        "TYPO3's frontend alone can be framed by anybody: {document}"
    );
}
