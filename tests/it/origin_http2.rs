//! HTTP/2 to a real nginx, which hands on to the real Apache: the same site as over HTTP/1.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::harness::curl::Over;
use crate::harness::nginx::Nginx;
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, apache, certs, proxy, run};

/// An nginx that says how it was asked.
fn nginx(listen: &str, more: &str) -> Nginx {
    let server = format!(
        "{more} client_max_body_size 0; proxy_buffer_size 64k; proxy_buffers 8 64k; add_header X-Protocol $server_protocol always; add_header X-Connection $connection always; \
         location / {{ proxy_pass {}; proxy_set_header Host $http_host; proxy_http_version 1.1; }}",
        apache().url
    );
    Nginx::start(listen, &server)
}

/// In front of an nginx that speaks nothing but HTTP/2.
fn in_front_of(origin: &Nginx) -> Ravelin {
    let url = origin.url.replace("http://", "h2c://");
    proxy().site(HOST, url.as_str()).table("[limits]\nworkers = 1").start()
}

fn over_h2(reply: &Reply) -> &Reply {
    reply.header_once("x-protocol", "HTTP/2.0")
}

#[test]
fn the_site_is_the_same_over_http2_and_requests_share_a_connection() {
    let origin = nginx("http2", "");
    let site = in_front_of(&origin);
    let mut connections = BTreeSet::new();
    for over in [Over::H1, Over::H2] {
        let ask = |path: &str| site.ask_over(over, path);
        let page = ask("/").send();
        over_h2(page.status(200)).hardened();
        connections.insert(page.header("x-connection").expect("its number").to_owned());
        let echo = ask("/echo?x=1").header("Cookie", "a=1").header("X-Forwarded-For", "6.6.6.6").send();
        let seen: Value = over_h2(echo.status(200)).json();
        assert_eq!(seen["uri"], "/echo?x=1");
        assert_eq!(
            (&seen["headers"]["x-forwarded-for"], &seen["headers"]["cookie"]),
            (&"127.0.0.1".into(), &"a=1".into())
        );
        let host =
            seen["headers"]["Host"].as_str().or(seen["headers"]["host"].as_str()).expect("a host").to_owned();
        assert!(host.starts_with(HOST), "{host}");
        assert_eq!(ask("/download?bytes=3000001").send().status(200).body.len(), 3_000_001);
        over_h2(ask("/chunked").send().status(200)).shows("one two three");
        over_h2(ask("/").method("HEAD").send().status(200)).empty();
        over_h2(ask("/no-content").send().status(204)).empty();
        ask("/cached").header("If-None-Match", "\"7c5e1f\"").send().status(304).empty();
        for chunked in [false, true] {
            let upload = ask("/upload").method("POST").body(&"0123456789".repeat(9_000));
            let upload = if chunked { upload.header("Transfer-Encoding", "chunked") } else { upload };
            if chunked && over == Over::H2 {
                continue;
            }
            assert_eq!(upload.send().status(200).json()["bytes"], 90_000, "{over:?} {chunked}");
        }
        // Lines of 8,000 characters each.
        over_h2(ask("/cache-tags?lines=3").send().status(200));
    }
    assert_eq!(connections.len(), 1, "one worker, one connection: {connections:?}");
}

#[test]
fn no_request_is_lost_where_nginx_ends_its_connections() {
    let origin = nginx("http2", "location = /quick { return 200 ok; }");
    let site = in_front_of(&origin);
    let folder = tempfile::tempdir().expect("a folder");
    let body = folder.path().join("body");
    std::fs::write(&body, "x=1").expect("it is written");
    // nginx ends a connection after 1,000 requests. A POST that is on its way then could not be sent again.
    let url = format!("{}/quick", site.base());
    let mut load = Command::new("h2load");
    load.args(["-n", "2500", "-c", "4", "-m", "8", "-d"]).arg(&body);
    load.arg(format!("--connect-to=127.0.0.1:{}", site.https_port())).arg(&url);
    let said = run(&mut load).all();
    assert!(said.contains("2500 2xx") || said.contains("status codes: 2500 2xx"), "{said}");
}

#[test]
fn over_tls_the_origin_chooses() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = certs::issue(folder.path(), "origin", &["origin.test"]);
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, certs::authority_pem()).expect("it is written");
    let keys =
        format!("ssl_certificate {}; ssl_certificate_key {};", pair.chain.display(), pair.key.display());
    for (listen, wanted, spoken) in [
        ("ssl http2", "http2 = true", "HTTP/2.0"),
        ("ssl", "http2 = true", "HTTP/1.1"),
        ("ssl http2", "", "HTTP/1.1"),
    ] {
        let origin = nginx(listen, &keys);
        let url = origin.url.replace("http://", "https://");
        let tls = format!(
            "[site.upstream_tls]\nserver_name = \"origin.test\"\nroots = \"{}\"\n{wanted}\n",
            authority.display()
        );
        let site = proxy().site(HOST, url.as_str()).with(&tls).start();
        for _ in 0..3 {
            site.get("/").status(200).header_once("x-protocol", spoken).hardened();
        }
    }
}
