//! Nothing leaves unhardened, and nothing leaves twice: whatever the response is, over every protocol.

use std::io::Write;

use crate::harness::curl::Over;
use crate::harness::ports::Port;
use crate::harness::recorder::Next;
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, Recorder, apache, proxy};

const EVERY_WAY: [Over; 3] = [Over::H1, Over::H2, Over::Plain];
const OVER_TLS: [Over; 2] = [Over::H1, Over::H2];
const BASE_POLICY: &str = "frame-ancestors 'self'; base-uri 'self'";
const YEAR: &str = "max-age=31536000";

fn site() -> Ravelin {
    // What is closed is closed by rules of its own (tests/it/closed.rs); here the origin is to answer.
    let rules = "[site.rules]\ndeny = \"off\"\ninstall_tool = \"off\"";
    proxy().site(HOST, apache()).with(rules).plain_serves().start()
}

/// Asks the origin for an answer with exactly these fields.
fn reply_with(site: &Ravelin, fields: &[&str]) -> Reply {
    reply_at(site, "/reply", fields)
}

fn reply_at(site: &Ravelin, path: &str, fields: &[&str]) -> Reply {
    let query: Vec<String> = fields.iter().map(|field| format!("field[]={}", escaped(field))).collect();
    site.get(&format!("{path}?{}", query.join("&")))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
fn every_answer_of_the_origin_is_hardened() {
    let site = site();
    for over in EVERY_WAY {
        for (path, status) in [
            ("/", 200),
            ("/chunked", 200),
            ("/no-content", 204),
            ("/members", 403),
            ("/nope", 404),
            ("/broken", 500),
            ("/reply?status=503", 503),
            ("/redirect?to=/x", 302),
            ("/typo3", 301),
            ("/typo3/", 200),
            ("/typo3/?line=11.5", 200),
            ("/typo3/?line=12.4", 200),
            ("/typo3/?line=14.3", 200),
            ("/typo3/ajax/page/tree/fetchData", 302),
            ("/typo3/ajax/login/timedout", 200),
            ("/typo3/install.php", 200),
            ("/fileadmin/page.html", 200),
            ("/fileadmin/bare/page.html", 200),
            ("/_assets/0a1b2c3d/JavaScript/site.js", 200),
            ("/composer.json", 403),
            ("/leaks", 200),
            ("/cache-tags?lines=2", 200),
        ] {
            site.ask_over(over, path).send().status(status).hardened();
        }
        let unchanged = site.ask_over(over, "/cached").header("If-None-Match", "\"7c5e1f\"").send();
        unchanged.status(304).hardened().empty();
        // What is set whatever the origin says is set here too.
        unchanged.header_once("x-frame-options", "SAMEORIGIN");
        if over != Over::Plain {
            unchanged.header_once("strict-transport-security", YEAR);
        }
        site.ask_over(over, "/").method("HEAD").send().status(200).hardened().empty();
    }
}

#[test]
fn every_refusal_is_hardened() {
    let slow = "first_byte = \"1 s\"\nbody_size = \"1 KiB\"";
    let closed = Port::reserve();
    let site = proxy()
        .site(HOST, apache())
        .with(slow)
        .site("down.example.org", format!("http://127.0.0.1:{}", closed.number()).as_str())
        .plain_serves()
        .start();
    for over in EVERY_WAY {
        site.ask_over(over, "/").method("PUT").send().status(405).hardened();
        site.ask_over(over, "/slow?ms=4000").send().status(504).hardened();
        for size in [2_000, 60_000] {
            site.ask_over(over, "/echo").body(&"x".repeat(size)).send().status(413).hardened();
        }
        site.ask_over(over, "/a%2fb").send().status(400).hardened();
        site.ask_host(over, "down.example.org", "/").send().status(502).hardened();
        site.ask_host(over, "nobody.example.net", "/").arg("-k").send().status(421).hardened();
        let huge = "y".repeat(70 * 1024);
        if let Ok(reply) = site.ask_over(over, "/").header("X-Huge", &huge).try_send() {
            // Over HTTP/2 the stream may be reset instead: no response, nothing to harden.
            reply.status(431).hardened();
        }
    }
}

#[test]
fn the_redirect_to_https_is_hardened_and_never_sends_hsts() {
    let site = proxy().site(HOST, apache()).start();
    let to = format!("{}/page?x=1&y=%C3%A4", site.base());
    for method in ["GET", "HEAD"] {
        let reply = site.ask_over(Over::Plain, "/page?x=1&y=%C3%A4").method(method).send();
        reply.status(301).hardened().header_once("location", &to).no_header("strict-transport-security");
    }
    let post = site.ask_over(Over::Plain, "/page?x=1&y=%C3%A4").body("a=b").send();
    post.status(308).hardened().header_once("location", &to).no_header("strict-transport-security");
    assert_eq!(apache().saw("/page?x=1&y="), 0, "a redirect never reaches the origin");
}

#[test]
fn a_redirect_keeps_a_host_without_port_and_names_the_public_https_port() {
    let site = proxy().site(HOST, apache()).http("https_port = 443").start();
    let reply = site.ask_over(Over::Plain, "/x").header("Host", HOST).send();
    reply.status(301).header_once("location", &format!("https://{HOST}/x"));
}

#[test]
fn hsts_is_sent_once_over_tls_and_never_without() {
    let site = site();
    for over in OVER_TLS {
        site.ask_over(over, "/").send().status(200).header_once("strict-transport-security", YEAR);
        site.ask_over(over, "/nope").send().status(404).header_once("strict-transport-security", YEAR);
        let refused = site.ask_over(over, "/").method("PUT").send();
        refused.status(405).header_once("strict-transport-security", YEAR);
    }
    site.get_plain("/").status(200).no_header("strict-transport-security");
    let plain = site.ask_over(Over::Plain, "/reply?field[]=Strict-Transport-Security:%20max-age=1").send();
    plain.status(200).no_header("strict-transport-security");
}

#[test]
fn hsts_is_never_sent_for_development_hosts() {
    for host in ["localhost", "typo3.localhost", "mysite.ddev.site", "typo3.test"] {
        let site = proxy().site(host, apache()).start();
        site.get("/").status(200).hardened().no_header("strict-transport-security");
    }
}

#[test]
fn the_origins_own_hsts_passes_once_unless_overridden() {
    let own = "Strict-Transport-Security: max-age=63072000";
    let site = site();
    reply_with(&site, &[own]).header_once("strict-transport-security", "max-age=63072000");
    let twice = reply_with(&site, &[own, "Strict-Transport-Security: max-age=1"]);
    twice.hardened();
    assert_eq!(twice.all("strict-transport-security").len(), 1);

    let block = "[site.hsts]\nenabled = true\nmax_age = \"30 d\"\noverride = true";
    let strong = proxy().site(HOST, apache()).with(block).start();
    reply_with(&strong, &[own]).header_once("strict-transport-security", "max-age=2592000");

    let off = proxy().site(HOST, apache()).with("[site.hsts]\nenabled = false").start();
    off.get("/").status(200).no_header("strict-transport-security");
}

#[test]
fn what_the_origin_repeats_leaves_once() {
    let site = site();
    for (name, values, expected) in [
        ("X-Frame-Options", ["SAMEORIGIN", "SAMEORIGIN"], "SAMEORIGIN"),
        ("X-Frame-Options", ["DENY", "SAMEORIGIN"], "SAMEORIGIN"),
        ("X-Frame-Options", ["SAMEORIGIN, SAMEORIGIN", "SAMEORIGIN"], "SAMEORIGIN"),
        ("X-Content-Type-Options", ["nosniff", "nosniff"], "nosniff"),
        ("X-Content-Type-Options", ["nosniff, nosniff", "x"], "nosniff"),
    ] {
        let fields: Vec<String> = values.iter().map(|value| format!("{name}: {value}")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        reply_with(&site, &fields).status(200).hardened().header_once(&name.to_lowercase(), expected);
    }
    let coop = reply_with(
        &site,
        &["Cross-Origin-Opener-Policy: same-origin", "Cross-Origin-Opener-Policy: same-origin"],
    );
    coop.hardened().header_once("cross-origin-opener-policy", "same-origin");
    let referrer = reply_with(&site, &["Referrer-Policy: same-origin", "Referrer-Policy: no-referrer"]);
    assert_eq!(referrer.status(200).all("referrer-policy").len(), 1, "{referrer}");
}

#[test]
fn a_page_without_a_policy_gets_the_base_policy_and_nothing_more() {
    let site = site();
    site.get("/").header_once("content-security-policy", BASE_POLICY);
    site.get_h2("/").header_once("content-security-policy", BASE_POLICY);
    site.get("/nope").header_once("content-security-policy", BASE_POLICY);
}

#[test]
fn a_policy_of_the_origin_is_never_touched() {
    let site = site();
    let own = "default-src 'none'; script-src 'nonce-abc'";
    let reply = reply_with(&site, &[&format!("Content-Security-Policy: {own}")]);
    reply.header_once("content-security-policy", own);
    let two = reply_with(
        &site,
        &["Content-Security-Policy: default-src 'self'", "Content-Security-Policy: img-src *"],
    );
    assert_eq!(two.all("content-security-policy"), ["default-src 'self'", "img-src *"], "both are enforced");
    let not_modified = site.ask("/cached").header("If-None-Match", "\"7c5e1f\"").send();
    not_modified.status(304).header_once("content-security-policy", "default-src 'self'");
}

#[test]
fn the_backends_policy_keeps_its_nonce_on_every_line_of_typo3() {
    let site = site();
    for line in ["12.4", "13.4", "14.3"] {
        let page = site.get(&format!("/typo3/?line={line}"));
        let policy = page.header("content-security-policy").unwrap_or_default().to_owned();
        page.status(200).hardened().header_once("content-security-policy", &policy);
        let nonce =
            policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        assert!(!nonce.is_empty() && !policy.contains("frame-ancestors"), "{policy}");
        page.shows(&format!("nonce=\"{nonce}\""));
        assert!(policy.contains(&format!("report-uri {}/typo3/@http-reporting", site.base())), "{policy}");
    }
}

#[test]
fn uploaded_files_cannot_run_scripts_even_where_htaccess_is_ignored() {
    let site = site();
    for folder in ["/fileadmin", "/fileadmin/bare"] {
        let policy = |name: &str| {
            let reply = site.get(&format!("{folder}/{name}"));
            reply.status(200).hardened();
            assert_eq!(reply.all("content-security-policy").len(), 1, "{folder}/{name}: {reply}");
            reply.header("content-security-policy").unwrap_or_default().to_owned()
        };
        for name in ["page.html", "script.php.txt"] {
            let policy = policy(name);
            assert!(policy.contains("script-src 'none'") && policy.contains("sandbox"), "{name}: {policy}");
            assert!(policy.contains("style-src 'none'"), "{name}: {policy}");
        }
        let svg = policy("picture.svg");
        assert!(svg.contains("style-src 'unsafe-inline'") && svg.contains("sandbox"), "{svg}");
        let pdf = policy("paper.pdf");
        assert!(pdf.contains("script-src 'none'") && !pdf.contains("sandbox"), "{pdf}");
    }
}

#[test]
fn html_may_not_be_embedded_by_strangers_but_assets_may() {
    let site = site();
    site.get("/").header_once("cross-origin-resource-policy", "same-origin");
    site.get("/_assets/0a1b2c3d/JavaScript/site.js").status(200).no_header("cross-origin-resource-policy");
    site.get("/fileadmin/picture.svg").status(200).no_header("cross-origin-resource-policy");
}

#[test]
fn permissions_that_no_site_uses_are_off_and_the_origins_wishes_are_merged() {
    let site = site();
    let page = site.get("/");
    page.header_has("permissions-policy", "usb=()").header_has("permissions-policy", "browsing-topics=()");
    for used_by_embeds in ["fullscreen", "autoplay", "geolocation", "encrypted-media", "web-share"] {
        let policy = page.header("permissions-policy").unwrap_or_default();
        assert!(
            !policy.contains(used_by_embeds),
            "embedded players and maps need {used_by_embeds}: {policy}"
        );
    }
    let merged = reply_with(&site, &["Permissions-Policy: geolocation=(self), usb=(self)"]);
    merged.header_has("permissions-policy", "geolocation=(self)");
    assert_eq!(
        merged.header("permissions-policy").unwrap_or_default().matches("usb=").count(),
        1,
        "{merged}"
    );
}

#[test]
fn what_runs_here_is_nobodys_business() {
    let site = site();
    for path in ["/leaks", "/cache-tags?lines=3", "/redirect?to=/x", "/nope", "/composer.json"] {
        site.get(path).hardened();
        site.get_h2(path).hardened();
    }
    // A request field of the same family is TYPO3's login token: it must pass.
    let seen = site.ask("/echo").header("X-TYPO3-RequestToken", "eyJ0").send();
    assert_eq!(seen.echoed("X-TYPO3-RequestToken").as_deref(), Some("eyJ0"));
}

#[test]
fn cookies_are_secured_one_by_one_and_never_merged() {
    let site = site();
    for over in OVER_TLS {
        let reply = site.ask_over(over, "/session").send();
        assert_eq!(reply.status(200).all("set-cookie").len(), 3, "{reply}");
        let cookie = |name: &str| {
            let all = reply.cookies(name);
            assert_eq!(all.len(), 1, "{name}: {reply}");
            all[0].to_ascii_lowercase()
        };
        let has = |cookie: &str, attribute: &str| {
            cookie.split(';').skip(1).filter(|a| a.trim() == attribute).count()
        };
        for (name, http_only) in [("PHPSESSID", 1), ("fe_typo_user", 1), ("theme", 0)] {
            let cookie = cookie(name);
            assert_eq!((has(&cookie, "secure"), has(&cookie, "httponly")), (1, http_only), "{cookie}");
        }
        assert_eq!(has(&cookie("fe_typo_user"), "samesite=lax"), 1);
        assert_eq!(has(&cookie("PHPSESSID"), "samesite=lax"), 0, "SameSite is for the strict level");
        assert!(cookie("theme").contains("expires=sun, 22 nov 2037 13:39:47 gmt"), "a comma is no separator");
    }
    let plain = site.get_plain("/session");
    assert!(!plain.all("set-cookie").iter().any(|c| c.to_ascii_lowercase().contains("secure")), "{plain}");
}

#[test]
fn backend_cookies_stay_as_they_are_and_are_secured_once() {
    let site = site();
    let failed = site
        .ask("/typo3/login")
        .cookie("__Secure-typo3nonce_ab=x")
        .body("login_status=login&__RequestToken=t&userident=no")
        .send();
    assert_eq!(failed.status(200).hardened().all("set-cookie").len(), 3, "{failed}");
    for cookie in failed.all("set-cookie") {
        assert_eq!(
            cookie.to_ascii_lowercase().matches("secure").count() - usize::from(cookie.contains("__Secure-")),
            1,
            "{cookie}"
        );
    }
    let right =
        site.ask("/typo3/login").body("login_status=login&__RequestToken=t&userident=correct+horse").send();
    let session = right.status(303).cookies("be_typo_user");
    assert!(session[0].to_ascii_lowercase().contains("samesite=strict"), "{right}");
    right.header_has("location", "/typo3/main?token=");
}

#[test]
fn strict_adds_what_may_break_something_and_keeps_the_rest() {
    let site = proxy().site(HOST, apache()).with("level = \"strict\"").start();
    let page = site.get("/");
    page.status(200).hardened().header_has("content-security-policy", "object-src 'none'");
    page.header_has("content-security-policy", "form-action 'self'");
    assert_eq!(page.all("cross-origin-opener-policy").len(), 1, "{page}");
    let reply = site.get("/session");
    assert!(reply.cookies("PHPSESSID")[0].to_ascii_lowercase().contains("samesite=lax"), "{reply}");
    let backend = site.get("/typo3/");
    backend.status(200).hardened().header_has("content-security-policy", "'nonce-");
    assert!(
        !backend.header("content-security-policy").unwrap_or_default().contains("form-action"),
        "{backend}"
    );
    assert!(
        backend.cookies("be_typo_user")[0].to_ascii_lowercase().contains("samesite=lax"),
        "as it came: {backend}"
    );
}

#[test]
fn a_login_page_is_never_stored() {
    let origin =
        Recorder::answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok");
    let site = proxy().site(HOST, &origin).start();
    site.get("/typo3/login").status(200).header_has("cache-control", "no-store");
    site.get("/").status(200).no_header("cache-control");
}

#[test]
fn a_location_that_leaks_the_inside_is_mended() {
    let site = site();
    let origin_port = apache().url.rsplit(':').next().unwrap_or_default();
    let base = site.base();
    let authority = base.trim_start_matches("https://");
    for (sent, expected) in [
        (format!("http://{authority}/typo3/"), format!("{base}/typo3/")),
        (format!("http://{HOST}:{origin_port}/typo3/"), format!("{base}/typo3/")),
        ("/relative?x=1".to_owned(), "/relative?x=1".to_owned()),
        (format!("{base}/already"), format!("{base}/already")),
        ("http://elsewhere.example/".to_owned(), "http://elsewhere.example/".to_owned()),
        ("https://elsewhere.example:8443/".to_owned(), "https://elsewhere.example:8443/".to_owned()),
    ] {
        let reply = site.get(&format!("/redirect?to={}", escaped(&sent)));
        reply.status(302).header_once("location", &expected);
    }
    // Apache's own redirect, with a Host that names no port.
    let reply = site.ask("/typo3").header("Host", HOST).send();
    reply.status(301).header_once("location", &format!("https://{HOST}/typo3/"));
}

#[test]
fn the_most_specific_rule_wins_by_name_and_others_stay() {
    let rules = "[site.headers]\nX-Frame-Options = \"DENY\"\nX-Own = \"site\"\n\
                 [[site.path]]\npath = \"/fileadmin\"\n[site.path.headers]\nX-Own = \"path\"\nReferrer-Policy = { inherit = false }";
    let site = proxy().site(HOST, apache()).with(rules).start();
    site.get("/").header_once("x-frame-options", "DENY").header_once("x-own", "site");
    let file = site.get("/fileadmin/page.html");
    file.header_once("x-own", "path").header_once("x-frame-options", "DENY").no_header("referrer-policy");
    file.header_once("x-content-type-options", "nosniff");
}

#[test]
fn conditions_by_status_and_type_hold_for_our_own_pages_too() {
    let rules = "[site.headers]\nX-Failed = { set = \"1\", status = \"404,5xx\" }\nX-Page = { set = \"1\", type = \"text/html\" }";
    let site = proxy()
        .site(HOST, apache())
        .with(rules)
        .with("[[site.path]]\npath = \"/slow\"\nfirst_byte = \"1 s\"")
        .start();
    site.get("/").no_header("x-failed").header_once("x-page", "1");
    site.get("/nope").status(404).header_once("x-failed", "1");
    site.get("/slow?ms=3000").status(504).header_once("x-failed", "1");
    site.get("/chunked").status(200).no_header("x-page");
}

#[test]
fn an_early_hint_or_a_broken_answer_brings_nothing_unhardened() {
    let origin = Recorder::scripted(|_, head, socket| {
        let answer: &[u8] = if head.starts_with(b"GET /garbage") {
            b"SSH-2.0-OpenSSH_9.2\r\n"
        } else {
            b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\nHTTP/1.1 200 OK\r\nServer: a\r\nServer: b\r\nContent-Length: 2\r\n\r\nok"
        };
        let _ = socket.write_all(answer);
        Next::Close
    });
    let site = proxy().site(HOST, &origin).start();
    site.get("/").status(200).hardened().shows("ok");
    site.get("/garbage").status(502).hardened();
}

#[test]
fn without_a_preset_nothing_is_added_and_nothing_is_taken() {
    let site = proxy().bare_site(HOST, apache()).start();
    let page = site.get("/leaks");
    page.status(200).no_header("x-frame-options").header_once("x-generator", "TYPO3 CMS");
}
