//! What may come in: methods, hosts, paths and fields. What the origin really saw is asked of the origin.

use crate::harness::curl::{Ask, Over};
use crate::harness::strict::{self, Request};
use crate::harness::{HOST, Ravelin, Recorder, apache, proxy, recorder};

fn site() -> Ravelin {
    proxy().site(HOST, apache()).plain_serves().start()
}

/// What PHP saw of a request.
#[track_caller]
fn seen(ask: Ask) -> serde_json::Value {
    ask.send().status(200).json()
}

/// The requests that a recorder received; all of it must be clean.
#[track_caller]
fn received(origin: &Recorder) -> Vec<Request> {
    let read = |bytes: &Vec<u8>| strict::requests(bytes).unwrap_or_else(|fault| panic!("dirty: {fault}"));
    origin.seen().iter().flat_map(read).collect()
}

#[test]
fn methods_are_limited_by_area_and_the_answer_says_which() {
    let site = site();
    for over in [Over::H1, Over::H2, Over::Plain] {
        for method in ["PUT", "PATCH", "DELETE", "PROPFIND", "PURGE", "FOO"] {
            let reply = site.ask_over(over, "/?not-allowed-here").method(method).send();
            reply.status(405).header_once("allow", "GET, HEAD, POST, OPTIONS");
        }
        let backend = site.ask_over(over, "/typo3/login").method("OPTIONS").send();
        backend.status(405).header_once("allow", "GET, HEAD, POST");
        site.ask_over(over, "/").method("OPTIONS").send().status(200);
        site.ask_over(over, "/echo").method("POST").send().status(200);
    }
    assert_eq!(apache().saw("not-allowed-here"), 0, "the origin never heard of them");
}

#[test]
fn a_path_may_allow_more_and_the_spelling_does_not_matter() {
    let site = proxy()
        .site(HOST, apache())
        .with("[[site.path]]\npath = \"/echo\"\nmethods = [\"GET\", \"PUT\", \"DELETE\"]")
        .start();
    site.ask("/echo").method("PUT").body("x").send().status(200);
    site.ask("/echo/below").method("PUT").send().status(404);
    site.ask("/echoes").method("PUT").send().status(405);
    site.ask("/echo").method("POST").send().status(405).header_once("allow", "GET, PUT, DELETE");
}

#[test]
fn trace_track_and_connect_never_pass_whatever_is_configured() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .bare_site(HOST, &origin)
        .with("methods = [\"GET\", \"HEAD\", \"POST\"]")
        .plain_serves()
        .start();
    for line in [
        "TRACE / HTTP/1.1",
        "TRACK / HTTP/1.1",
        "CONNECT internal.example:22 HTTP/1.1",
        "CONNECT www.example.org:443 HTTP/1.1",
    ] {
        let reply = site.wire().say(&format!("{line}\nHost: {HOST}\n\n")).reply();
        reply.status(405);
        assert_eq!(reply.all("allow").len(), 1, "{reply}");
    }
    site.ask_over(Over::H2, "/").method("TRACE").send().status(405);
    assert!(received(&origin).is_empty(), "{}", origin.text());
}

#[test]
fn only_known_hosts_are_served() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site("*.example.com", &origin).site(HOST, &origin).plain_serves().start();
    let status = |host: &str| site.wire().say(&format!("GET / HTTP/1.1\nHost: {host}\n\n")).reply().status;
    let known = [
        HOST,
        "WWW.Example.ORG",
        "www.example.org.",
        "www.example.org:8080",
        "a.example.com",
        "a.b.example.com",
    ];
    for host in known {
        assert_eq!(status(host), 200, "{host}");
    }
    for unknown in [
        "example.org",
        "other.example.net",
        "example.com",
        "127.0.0.1",
        "[::1]",
        "wwwXexample.org",
        "localhost",
    ] {
        assert_eq!(status(unknown), 421, "{unknown}");
    }
    for broken in [
        "www.example.org:443@evil.example",
        "www.example.org/x",
        "a,b",
        "www.example.org:99999",
        "www.example.org:",
        "",
        "a b",
        "user@www.example.org",
        "www..example.org",
        "[::1",
    ] {
        assert!([400, 421].contains(&status(broken)), "{broken}: {}", status(broken));
    }
    let spelled: Vec<Request> = received(&origin);
    // Two workers may have asked over two connections: the order says nothing.
    let mut hosts: Vec<&str> = spelled.iter().flat_map(|request| request.all("host")).collect();
    hosts.sort_unstable();
    let mut sent = known;
    sent.sort_unstable();
    assert_eq!(hosts, sent, "only the known ones reach the origin, and Host goes on unchanged");
}

#[test]
fn exactly_one_host_is_required() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for lines in
        ["", "Host: www.example.org\nHost: www.example.org\n", "Host: www.example.org\nHost: evil.example\n"]
    {
        site.wire().say(&format!("GET / HTTP/1.1\n{lines}\n")).reply().status(400).hardened();
    }
    assert!(received(&origin).is_empty(), "{}", origin.text());
}

#[test]
fn an_absolute_target_must_agree_with_host() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let status = |target: &str, host: &str| {
        site.wire().say(&format!("GET {target} HTTP/1.1\nHost: {host}\n\n")).reply().status
    };
    assert_eq!(status("http://www.example.org/x", HOST), 200);
    assert_eq!(received(&origin)[0].target, "/x", "the origin gets the origin-form");
    origin.forget();
    for (target, host) in [
        ("http://evil.example/", HOST),
        ("http://www.example.org/", "evil.example"),
        ("http://evil.example/", "evil.example"),
        ("ftp://www.example.org/", HOST),
        ("gopher://www.example.org:70/", HOST),
    ] {
        assert!([400, 421].contains(&status(target, host)), "{target} with {host}");
    }
    assert!(received(&origin).is_empty(), "{}", origin.text());
}

#[test]
fn unknown_hosts_can_be_told_404() {
    let site = proxy().keys("unknown_host = 404").site(HOST, apache()).start();
    site.ask_host(Over::H1, "nobody.example.net", "/").arg("-k").send().status(404).hardened();
}

#[test]
fn a_connection_for_one_site_does_not_serve_another() {
    let (one, two) = (Recorder::answering(recorder::OK), Recorder::answering(recorder::OK));
    let site = proxy().site(HOST, &one).site("intranet.example.org", &two).start();
    let mut wire = site.wire_tls();
    wire.say("GET / HTTP/1.1\nHost: intranet.example.org\n\n").reply().status(421).hardened();
    assert!(received(&two).is_empty());
    site.ask_host(Over::H2, "intranet.example.org", "/").send().status(200);
}

#[test]
fn a_rule_for_a_path_holds_for_every_spelling_of_it() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .site(HOST, &origin)
        .with("[[site.path]]\npath = \"/private\"\nmethods = [\"POST\"]")
        .plain_serves()
        .start();
    for spelling in [
        "/private",
        "/private/",
        "//private",
        "///private",
        "/./private",
        "/x/../private",
        "/%70rivate",
        "/%2e/private",
        "/x/%2e%2e/private",
        "/x/%2E%2E/private",
        "/priv%61te/x",
        "/private/./x",
        "/private//x",
        "/private;x=1/..;/private",
        "/x/..//private",
        "/%2e%2e/private",
        "/../private",
        "/private?x",
        "/private%3fx/../../private",
        "/a/b/../../private",
        "/private%2f",
        "/%5cprivate",
        "\\private",
        "/private%00",
        "/private%c0%af",
        "/%2570rivate/../private",
        "http://www.example.org/private",
        "http://www.example.org//private",
        "/private/%2e%2e/private",
    ] {
        let reply = site.wire().say(&format!("GET {spelling} HTTP/1.1\nHost: {HOST}\n\n")).reply();
        assert!([400, 405].contains(&reply.status), "{spelling:?} must not get round the rule: {reply}");
    }
    assert!(received(&origin).is_empty(), "{}", origin.text());
}

#[test]
fn the_origin_sees_the_path_that_the_rules_saw() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for (sent, expected) in [
        ("/", "/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a//b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/a%20b", "/a%20b"),
        ("/%C3%A4", "/%C3%A4"),
        ("/a/b/?x=1&y[]=2&z=%2F%2e%2e", "/a/b/?x=1&y[]=2&z=%2F%2e%2e"),
        ("/index.php?id=1&tx_news_pi1%5Bnews%5D=3", "/index.php?id=1&tx_news_pi1%5Bnews%5D=3"),
        ("/?", "/?"),
    ] {
        origin.forget();
        site.wire()
            .say(&format!("GET {sent} HTTP/1.1\nHost: {HOST}\nConnection: close\n\n"))
            .reply()
            .status(200);
        let all = received(&origin);
        assert_eq!(
            all.iter().map(|request| request.target.as_str()).collect::<Vec<_>>(),
            [expected],
            "{sent}"
        );
    }
}

#[test]
fn a_path_that_origins_read_differently_is_refused() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for path in [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a%00b",
        "/%zz",
        "/a%2",
        "/%c0%ae%c0%ae/x",
        "/a%0d%0ab",
        "/a\u{7f}b",
    ] {
        let reply = site.wire().say(&format!("GET {path} HTTP/1.1\nHost: {HOST}\n\n")).reply();
        assert_eq!(reply.status, 400, "{path:?}: {reply}");
    }
    assert!(received(&origin).is_empty(), "{}", origin.text());
}

#[test]
fn names_with_underscores_never_stand_in_for_real_ones() {
    let probes = [("X_Forwarded_For", "6.6.6.6"), ("X_Probe", "1"), ("X-Forwarded_Proto", "http")];
    let origin = Recorder::answering(recorder::OK);
    let ask = |site: &Ravelin| {
        probes
            .iter()
            .fold(site.ask("/"), |ask, (name, value)| ask.header(name, value))
            .send()
            .status(200)
            .clone()
    };
    ask(&proxy().site(HOST, &origin).start());
    assert!(!origin.text().contains('_'), "{}", origin.text());
    origin.forget();
    ask(&proxy().site(HOST, &origin).with("underscore_headers = \"keep\"").start());
    assert!(origin.text().to_ascii_lowercase().contains("x_probe"), "{}", origin.text());
    // One that would be the length of the body if somebody tidied it up is not even dropped.
    origin.forget();
    proxy().site(HOST, &origin).start().ask("/").header("Content_Length", "9").send().status(400);
    assert!(origin.text().is_empty(), "{}", origin.text());
}

/// An application with a REST extension behind `/api`, and a part of it that is read only.
fn rest(origin: &Recorder) -> Ravelin {
    let rules = "[[site.path]]\npath = \"/api\"\nmethods = [\"GET\", \"POST\", \"PUT\", \"DELETE\"]\n\
                 override_headers = [\"X-HTTP-Method-Override\", \"X-Original-URL\"]\n\
                 [site.path.deny]\ndrafts = [\"/api/drafts/**\"]\n\
                 [[site.path]]\npath = \"/api/read\"\nmethods = [\"GET\", \"POST\"]\n";
    proxy().site(HOST, origin).with(rules).plain_serves().start()
}

#[test]
fn overrides_of_method_and_url_go_on_only_where_a_path_says_so() {
    let origin = Recorder::answering(recorder::OK);
    let site = rest(&origin);
    let ask = |over: Over, path: &str, method: &str, fields: &[(&str, &str)]| {
        origin.forget();
        let ask = site.ask_over(over, path).method(method);
        let reply = fields.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send();
        (reply.status, received(&origin))
    };
    let delete = [("X-HTTP-Method-Override", "DELETE")];
    for over in [Over::H1, Over::H2, Over::Plain] {
        let (status, seen) = ask(over, "/api/1", "POST", &delete);
        assert_eq!((status, seen[0].all("x-http-method-override")), (200, vec!["DELETE"]));
        // Elsewhere, in another spelling, and with a method that may be repeated, it is taken out.
        for (path, method, fields) in [
            ("/", "POST", delete.as_slice()),
            ("/api/1", "GET", &delete),
            ("/api/1", "POST", &[("X-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE")]),
            ("/api/1", "POST", &[("X_HTTP_Method_Override", "DELETE")]),
            ("/", "GET", &[("X-Original-URL", "/typo3/"), ("X-Rewrite-URL", "/"), ("X-Original-URI", "/")]),
        ] {
            let (status, seen) = ask(over, path, method, fields);
            assert_eq!((status, seen.len()), (200, 1), "{method} {path}");
            let left: Vec<_> =
                fields.iter().flat_map(|(name, _)| seen[0].all(&name.to_lowercase())).collect();
            assert!(left.is_empty(), "{method} {path}: {left:?}");
        }
    }
}

#[test]
fn what_an_override_names_is_held_against_the_same_rules() {
    let origin = Recorder::answering(recorder::OK);
    let site = rest(&origin);
    let method = |path: &str, value: &str| {
        site.ask(path).method("POST").header("X-HTTP-Method-Override", value).send().clone()
    };
    method("/api/1", "PATCH").status(405).header_once("allow", "GET, POST, PUT, DELETE");
    method("/api/1", "trace").status(405);
    method("/api/read/1", "delete").status(405).header_once("allow", "GET, POST");
    method("/api/1", "DELETE, GET").status(400);
    for (url, status) in [
        ("/typo3/", 400),                      // other rules than those of /api
        ("/api/read/1", 400),                  // the same
        ("/api/../typo3/", 400),               // where it really leads
        ("/api/%2e%2e/typo3/", 400),           // in another spelling
        ("/api/1%2f..", 400),                  // no clear path
        ("/api/drafts/1", 404),                // closed here
        ("/api/1?__typo3_install", 400),       // the Install Tool
        ("/api/1?login_status=login", 400),    // locks out an office
        ("http://www.example.org/api/1", 400), // no path
    ] {
        let reply = site.ask("/api/1").header("X-Original-URL", url).send();
        assert_eq!(reply.status, status, "{url}: {reply}");
    }
    assert!(received(&origin).is_empty(), "{}", origin.text());
    site.ask("/api/1").header("X-Original-URL", "/api/2?a=b").send().status(200);
    assert_eq!(received(&origin)[0].all("x-original-url"), ["/api/2?a=b"]);
    // What is not closed to a request is not closed to an override of it.
    let rules = "override_headers = [\"X-Original-URL\"]\n[site.rules]\ndeny = \"report\"";
    let site = proxy().site(HOST, &origin).with(rules).start();
    for (path, url) in [("/vendor/a", "/"), ("/", "/vendor/a")] {
        site.ask(path).header("X-Original-URL", url).send().status(200);
    }
}

#[test]
fn hop_by_hop_fields_end_here() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let lines = "Connection: keep-alive, X-Secret-Hop\nX-Secret-Hop: 1\nKeep-Alive: timeout=9\nProxy-Connection: keep-alive\n\
                 TE: trailers\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\nProxy-Authorization: Basic eDp5\nX-Stays: 1\n";
    site.wire().say(&format!("GET / HTTP/1.1\nHost: {HOST}\n{lines}\n")).reply().status(200);
    let request = &received(&origin)[0];
    for gone in [
        "x-secret-hop",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert!(request.all(gone).is_empty(), "{gone}: {request:?}");
    }
    assert_eq!(request.all("x-stays"), ["1"]);
}

#[test]
fn connection_cannot_name_away_what_the_origin_relies_on() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for named in [
        "Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "Authorization",
    ] {
        origin.forget();
        let lines = format!(
            "POST / HTTP/1.1\nHost: {HOST}\nConnection: close, {named}\nCookie: a=b\nAuthorization: x\nContent-Length: 2\n\nok"
        );
        let reply = site.wire().say(&lines).reply();
        assert!([200, 400].contains(&reply.status), "{named}: {reply}");
        for request in received(&origin) {
            assert_eq!(request.all("host"), [HOST], "{named}");
            assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"], "{named}");
            assert_eq!(request.all("x-forwarded-proto"), ["http"], "{named}");
            assert_eq!(request.body, b"ok", "{named}");
        }
    }
}

#[test]
fn php_sees_who_really_asked() {
    let site = site();
    for over in [Over::H1, Over::H2] {
        let ask = site
            .ask_over(over, "/echo")
            .header("X-Forwarded-For", "6.6.6.6")
            .header("X-Forwarded-Host", "evil.example")
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Port", "1")
            .header("Forwarded", "for=6.6.6.6;host=evil.example")
            .header("X-Real-IP", "6.6.6.6")
            .header("X-Client-IP", "6.6.6.6");
        let seen = seen(ask);
        let server = &seen["server"];
        let authority = format!("{HOST}:{}", site.https_port());
        assert_eq!(server["HTTP_X_FORWARDED_FOR"], "127.0.0.1");
        assert_eq!(server["HTTP_X_FORWARDED_HOST"], authority.as_str());
        assert_eq!(server["HTTP_X_FORWARDED_PROTO"], "https");
        assert_eq!(server["HTTP_X_FORWARDED_PORT"], site.https_port().to_string().as_str());
        assert_eq!(server["HTTP_HOST"], authority.as_str(), "Host goes on unchanged");
        assert_eq!(server["HTTPS"], "on", "the documented SetEnvIf line works");
        assert!(server["HTTP_FORWARDED"].is_null() && server["HTTP_X_REAL_IP"].is_null(), "{server}");
    }
    let plain = seen(site.ask_over(Over::Plain, "/echo").header("X-Forwarded-Proto", "https"));
    assert_eq!(plain["server"]["HTTP_X_FORWARDED_PROTO"], "http");
    assert!(plain["server"]["HTTPS"].is_null());
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    let trusting =
        proxy().site(HOST, apache()).table("[client]\ntrusted_proxies = [\"127.0.0.0/8\"]").start();
    let ask = |value: &str| {
        seen(trusting.ask("/echo").header("X-Forwarded-For", value))["server"]["HTTP_X_FORWARDED_FOR"].clone()
    };
    assert_eq!(ask("203.0.113.9"), "203.0.113.9");
    assert_eq!(ask("6.6.6.6, 203.0.113.9"), "203.0.113.9", "the rightmost that is not trusted itself");
    assert_eq!(ask("203.0.113.9, 127.0.0.1"), "203.0.113.9");
    assert_eq!(ask("nonsense"), "127.0.0.1");
    let distrusting =
        proxy().site(HOST, apache()).table("[client]\ntrusted_proxies = [\"192.0.2.0/24\"]").start();
    let seen = seen(distrusting.ask("/echo").header("X-Forwarded-For", "203.0.113.9"));
    assert_eq!(seen["server"]["HTTP_X_FORWARDED_FOR"], "127.0.0.1");
}

#[test]
fn fields_that_change_what_is_asked_are_dropped() {
    let site = site();
    let names = [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Proxy",
    ];
    let ask = names.iter().fold(site.ask("/echo"), |ask, name| ask.header(name, "DELETE"));
    let reply = ask.header("Referer", "https://www.example.org/typo3/").cookie("a=b; c=d").send();
    let seen = reply.status(200).json();
    for name in names {
        assert_eq!(reply.echoed(name), None, "{name}: {seen}");
    }
    assert_eq!(seen["server"]["HTTP_REFERER"], "https://www.example.org/typo3/", "the backend needs it");
    assert_eq!(seen["server"]["HTTP_COOKIE"], "a=b; c=d");
}

#[test]
fn a_foreign_upgrade_never_reaches_the_origin() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    for protocol in ["h2c", "TLS/1.3", "websocket, h2c", "foo"] {
        origin.forget();
        let lines = format!(
            "GET / HTTP/1.1\nHost: {HOST}\nConnection: Upgrade, HTTP2-Settings\nUpgrade: {protocol}\nHTTP2-Settings: AAMAAABk\n\n"
        );
        let reply = site.wire().say(&lines).reply();
        assert!([200, 400, 403].contains(&reply.status), "{protocol}: {reply}");
        for request in received(&origin) {
            assert!(
                request.all("upgrade").is_empty() && request.all("http2-settings").is_empty(),
                "{request:?}"
            );
        }
    }
}

#[test]
fn a_rule_in_report_mode_changes_nothing_but_says_so() {
    let site = proxy().site(HOST, apache()).with("[site.rules]\nmethod = \"report\"").start();
    site.ask("/echo?report-only").method("PUT").body("x").send().status(200);
    let line = site.logged("report-only");
    let said = line[crate::harness::names::field::WOULD_BLOCK].to_string();
    assert!(said.contains("method-not-allowed"), "{line}");
    let off = proxy().site(HOST, apache()).with("[site.rules]\nmethod = \"off\"").start();
    off.ask("/echo?rule-off").method("PUT").body("x").send().status(200);
    assert!(off.logged("rule-off")[crate::harness::names::field::WOULD_BLOCK].is_null());
}

#[test]
fn the_dry_run_lets_large_bodies_and_websockets_through_too() {
    let rules = "body_size = \"16 B\"\n[site.rules]\nmode = \"report\"";
    let site = proxy().site(HOST, apache()).with(rules).start();
    site.ask("/echo?dry-size").method("POST").body(&"x".repeat(4000)).send().status(200);
    let line = site.logged("dry-size");
    assert!(line[crate::harness::names::field::WOULD_BLOCK].to_string().contains("body-too-large"), "{line}");
    let upgrade = site
        .ask_over(crate::harness::curl::Over::H1, "/echo?dry-ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    let upgrade =
        upgrade.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    upgrade.send().status(200);
    let line = site.logged("dry-ws");
    assert!(
        line[crate::harness::names::field::WOULD_BLOCK].to_string().contains("upgrade-not-allowed"),
        "{line}"
    );
}

#[test]
fn a_refusal_speaks_the_clients_language_and_is_accessible() {
    let site = site();
    let page = site.ask("/").method("PUT").header("Accept", "text/html,*/*;q=0.8").send();
    page.status(405).header_has("content-type", "text/html").shows("lang=\"").shows("<title>").shows("<h1");
    page.reference();
    let json = site.ask("/").method("PUT").header("Accept", "application/json").send();
    json.status(405).header_has("content-type", "application/json");
    assert!(json.json().is_object());
    json.reference();
    let plain = site.ask("/").method("PUT").header("Accept", "text/plain").send();
    plain.status(405).header_has("content-type", "text/plain").hides("<");
    plain.reference();
}
