//! What an operator can set, and what the corpus cannot say: the application's own word, the rule about 401, HTTP/2,
//! bodies without a length, and answers whose body tells.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::harness::curl::Over;
use crate::harness::log::text;
use crate::harness::names::REQUEST_ID;
use crate::harness::reply::Reply;
use crate::harness::scripted::Scripted;
use crate::harness::{HOST, Ravelin, apache, proxy, within};

const FORM: &str = "login_status=login&username=editor&userident=wrong&__RequestToken=t";

/// A Ravelin with this `[login]` before an origin that gives this answer.
fn stage(login: &str, answer: &'static str) -> (Ravelin, Scripted) {
    let origin = Scripted::start();
    origin.answers(move |_| answer.replace('\n', "\r\n").into_bytes());
    let site =
        proxy().site(HOST, origin.url().as_str()).table(&format!("[login]\n{login}")).table(super::OPEN);
    (site.plain_serves().start(), origin)
}

fn post(site: &Ravelin, path: &str, body: &str, fields: &[(&str, &str)]) -> Reply {
    let mut ask = site.ask_over(Over::Plain, path).body(body);
    for (name, value) in fields {
        ask = ask.header(name, value);
    }
    ask.send()
}

/// What the log says of an exchange.
fn said(site: &Ravelin, reply: &Reply) -> (String, String, String) {
    let line: Value = site.logged_as(reply.header(REQUEST_ID).unwrap_or_default());
    let word = |name| text(&line, name).to_owned();
    (word("login"), word("login_verdict"), word("login_user"))
}

fn words(kind: &str, verdict: &str, user: &str) -> (String, String, String) {
    (kind.to_owned(), verdict.to_owned(), user.to_owned())
}

#[test]
fn the_application_has_the_last_word_and_nobody_else_hears_it() {
    let answer = "HTTP/1.1 200 OK\nContent-Length: 2\nX-Login-Result: failure; kind=backend; user=j.+doe\n\
                  Set-Cookie: be_typo_user=eyJnew\n\nok";
    let (site, origin) = stage("signal_header = \"X-Login-Result\"\nuser_names = \"plain\"", answer);
    // The cookie alone would be a success.
    let reply =
        post(&site, "/typo3/login", FORM, &[("X-Login-Result", "success"), ("X_Login.Result", "success")]);
    reply.status(200).no_header("x-login-result");
    assert_eq!(said(&site, &reply), words("backend", "failure", "j. doe"));
    let request = String::from_utf8_lossy(&origin.last()).to_ascii_lowercase();
    assert!(!request.contains("login-result") && !request.contains("login.result"), "{request}");
    // Also where no try was seen.
    let reply = site.ask_over(Over::Plain, "/").send();
    assert_eq!(said(&site, &reply), words("backend", "failure", "j. doe"));
}

#[test]
fn a_signal_is_no_signal_unless_the_operator_says_so() {
    let (site, _origin) = stage("", "HTTP/1.1 200 OK\nContent-Length: 2\nX-Login-Result: failure\n\nok");
    let reply = site.ask_over(Over::Plain, "/").send();
    reply.header_once("x-login-result", "failure");
    assert_eq!(said(&site, &reply), words("", "", ""));
}

#[test]
fn user_names_are_hashed_unless_the_operator_says_otherwise() {
    let answer = "HTTP/1.1 200 OK\nContent-Length: 0\nSet-Cookie: be_typo_user=deleted\n\n";
    for (login, want) in
        [("", "1553cc62ff246044"), ("user_names = \"plain\"", "editor"), ("user_names = \"off\"", "")]
    {
        let (site, _origin) = stage(login, answer);
        let reply = post(&site, "/typo3/login", FORM, &[]);
        assert_eq!(said(&site, &reply), words("backend", "failure", want), "{login}");
        let audit = site.stderr();
        let line = audit.lines().find(|line| line.contains("event=\"login\"")).unwrap_or_default();
        assert!(
            line.contains("verdict=\"failure\"") && line.contains(&format!("user=\"{want}\"")),
            "{audit}"
        );
        assert!(!audit.contains("wrong") && !site.stdout().contains("wrong"), "the password is written down");
    }
}

#[test]
fn answers_401_count_by_the_rule() {
    let bare = "HTTP/1.1 401 Unauthorized\nContent-Length: 0\n\n";
    let redirect = "HTTP/1.1 401 Unauthorized\nContent-Length: 0\nLocation: /login\n\n";
    let challenge = "HTTP/1.1 401 Unauthorized\nContent-Length: 0\nWWW-Authenticate: Bearer\n\n";
    let bearer = [("Authorization", "Bearer x")];
    for (rule, answer, fields, counts) in [
        ("off", bare, &[][..], false),
        ("qualified", bare, &[], true),
        ("qualified", redirect, &[], false),
        ("qualified", challenge, &[], false),
        ("qualified", challenge, &bearer, true),
        ("all", redirect, &[], true),
    ] {
        let (site, _origin) = stage(&format!("count_401 = \"{rule}\""), answer);
        let reply = post(&site, "/api", "a=b", fields);
        let want = if counts { words("unauthorized", "failure", "") } else { words("", "", "") };
        assert_eq!(said(&site, &reply), want, "{rule}: {answer}");
    }
    let (site, _origin) = stage("count_401 = \"qualified\"", bare);
    let poll = site.ask_over(Over::Plain, "/api").send();
    assert_eq!(said(&site, &poll), words("", "", ""), "a GET without credentials");
}

#[test]
fn another_entry_point_and_another_cookie() {
    let answer = "HTTP/1.1 200 OK\nContent-Length: 0\nSet-Cookie: be_admin=deleted\n\n";
    let (site, _origin) = stage("entry_point = \"/admin\"\ncookie = \"be_admin\"", answer);
    assert_eq!(said(&site, &post(&site, "/admin/login", FORM, &[])).1, "failure");
    assert_eq!(said(&site, &post(&site, "/typo3/login", FORM, &[])).1, "");
    assert_eq!(said(&site, &post(&site, "/administration/login", FORM, &[])).1, "");
}

#[test]
fn an_answer_that_is_coded_all_the_same_tells_by_its_length() {
    let tool = "install[action]=login&install[password]=wrong";
    for (length, verdict) in [(36, "success"), (241, "failure")] {
        let origin = Scripted::start();
        origin.answers(move |_| {
            let mut answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n".to_owned();
            let _ = write!(answer, "Content-Length: {length}\r\n\r\n{}", "\u{1f}".repeat(length));
            answer.into_bytes()
        });
        let site = proxy().site(HOST, origin.url().as_str()).table(super::OPEN).plain_serves().start();
        let reply = post(&site, "/typo3/install.php", tool, &[("Accept-Encoding", "gzip")]);
        assert_eq!(said(&site, &reply), words("install-tool", verdict, ""));
        assert!(String::from_utf8_lossy(&origin.last()).contains("accept-encoding: identity"));
        let page = site.ask_over(Over::Plain, "/typo3/install.php").header("Accept-Encoding", "gzip").send();
        page.status(200);
        assert!(
            String::from_utf8_lossy(&origin.last()).contains("accept-encoding: gzip"),
            "only tries are asked so"
        );
    }
}

#[test]
fn bodies_of_http_2_and_without_a_length_are_read_too() {
    let site = proxy().site(HOST, apache()).table(super::OPEN).start();
    let padded = format!("pad={}&{FORM}", "x".repeat(100_000));
    for over in [Over::H1, Over::H2] {
        let reply = site.ask_over(over, "/typo3/login").cookie("typo3nonce_ab=x").body(&padded).send();
        assert_eq!(said(&site, &reply), words("backend", "failure", "1553cc62ff246044"), "{over:?}");
    }
    let chunked = site.ask("/typo3/login").header("Transfer-Encoding", "chunked").body(FORM).send();
    assert_eq!(said(&site, &chunked), words("backend", "failure", "1553cc62ff246044"));
}

#[test]
fn tries_are_limited_on_whatever_page_they_are_made_and_other_forms_are_not() {
    let answer =
        "HTTP/1.1 200 OK\nContent-Length: 0\nSet-Cookie: fe_typo_user=new\nSet-Cookie: be_typo_user=new\n\n";
    for (path, login) in [("/members", "logintype=login&user=a&pass=b"), ("/typo3/module/web/layout", FORM)] {
        let (site, _origin) = stage("", answer);
        let mut wire = site.wire();
        let mut posts = |body: &str| -> u16 {
            let head = format!("POST {path} HTTP/1.1\nHost: {HOST}\nContent-Length: {}\n", body.len());
            let form = "Content-Type: application/x-www-form-urlencoded\n\n";
            let reply = wire.say(&format!("{head}{form}{body}")).reply();
            if reply.status != 200 {
                wire = site.wire();
            }
            reply.status
        };
        let forms = (0..40).map(|_| posts("message=x")).filter(|status| *status != 200);
        assert_eq!(forms.count(), 0, "{path}: other forms");
        let tries: Vec<u16> = (0..40).map(|_| posts(login)).collect();
        assert_eq!(tries.get(..30), Some(&[200; 30][..]), "{path}: {tries:?}");
        assert!(tries.contains(&429), "{path}: {tries:?}");
    }
}

#[test]
fn what_php_reads_is_read_behind_a_long_boundary_and_by_the_last_route() {
    let answer = "HTTP/1.1 200 OK\nContent-Length: 0\nSet-Cookie: fe_typo_user=deleted\nSet-Cookie: be_typo_user=deleted\n\n";
    let (site, _origin) = stage("", answer);
    let boundary = "b".repeat(6_000);
    let part = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = [
        part("logintype", "login"),
        part("user", "editor"),
        part("pass", "x"),
        format!("--{boundary}--\r\n"),
    ]
    .concat();
    let kind = format!("multipart/form-data; boundary={boundary}");
    let reply = post(&site, "/members", &body, &[("Content-Type", &kind)]);
    assert_eq!(said(&site, &reply), words("frontend", "failure", "1553cc62ff246044"));
    let reply = post(&site, "/typo3/?route=/main&route=/ajax/login&otp=4711", FORM, &[]);
    assert_eq!(said(&site, &reply).0, "relogin");
    assert!(!site.stdout().contains("4711"), "the code is written down");
}

/// One step of a login: what is asked, and what TYPO3 answered.
fn step(site: &Ravelin, origin: &Scripted, (from, request): (&str, &str), answer: &str) -> Reply {
    let answer = format!("{answer}\nContent-Length: 0\n\n").replace('\n', "\r\n");
    origin.answers(move |_| answer.clone().into_bytes());
    let (line, body) = request.split_once(" | ").unwrap_or((request, ""));
    let form = "Content-Type: application/x-www-form-urlencoded\n";
    let head =
        format!("{line} HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {from}\nCookie: be_typo_user=eyJa.b\n");
    site.wire().say(&format!("{head}{form}Content-Length: {}\n\n{body}", body.len())).reply()
}

#[test]
fn a_password_alone_makes_nobody_known_where_a_second_factor_follows() {
    const ME: &str = "198.51.100.1";
    const LOGIN: &str = "POST /typo3/login | login_status=login&username=editor&userident=right";
    const VERIFY: &str = "POST /typo3/auth/mfa?action=verify | identifier=totp&totp=000000";
    let session = "Set-Cookie: be_typo_user=eyJa.b; path=/; httponly";
    let ok = "HTTP/1.1 200 OK";
    let to = |place: &str| format!("HTTP/1.1 302 Found\nLocation: {place}");
    let to_factor = to("/typo3/auth/mfa?token=1&identifier=totp");
    let trusted = "[client]\ntrusted_proxies = [\"127.0.0.1\"]";
    // TYPO3 11, and 12 to 14.
    for first in [to_factor.clone(), "HTTP/1.1 303 See Other\nLocation: /typo3/main?token=1".to_owned()] {
        let origin = Scripted::start();
        let site = proxy().site(HOST, origin.url().as_str()).table(trusted).plain_serves().start();
        let tool = |from| step(&site, &origin, (from, "GET /typo3/install.php"), ok).status;
        let first = format!("{first}\n{session}");
        for (request, answer) in [
            ("GET /typo3/main", ok),
            (LOGIN, &*first),
            ("GET /typo3/main?token=1", &*to_factor),
            ("GET /typo3/auth/mfa?token=1", ok),
            (VERIFY, &*to("/typo3/auth/mfa?failure=1")),
            (VERIFY, "HTTP/1.1 500 Internal Server Error"),
            (VERIFY, &*to("/typo3/login")),
            ("GET /typo3/login", "HTTP/1.1 303 See Other\nLocation: /typo3/main?token=1"),
            ("HEAD /typo3/main", "HTTP/1.1 404 Not Found"),
        ] {
            let reply = step(&site, &origin, (ME, request), answer);
            assert!(answer.contains(&format!(" {} ", reply.status)), "{request}: {reply}");
            assert_eq!(tool(ME), 404, "after {request}: {answer}");
        }
        // Whoever sends the cookie of another client along is still nobody.
        step(&site, &origin, ("198.51.100.2", "GET /typo3/main?token=1"), ok).status(200);
        assert_eq!(tool("198.51.100.2"), 404);
        step(&site, &origin, (ME, "GET /typo3/main?token=1"), ok).status(200);
        assert_eq!(tool(ME), 200);
    }
}

#[test]
fn a_backend_that_moved_is_told_once_with_the_lines_that_find_it() {
    let answer = "HTTP/1.1 200 OK\nContent-Length: 0\nSet-Cookie: be_typo_user=deleted; Max-Age=0\n\n";
    let told = |site: &Ravelin| site.stderr().matches("the backend answers at").count();
    let (site, origin) = stage("", answer);
    site.ask_over(Over::Plain, "/typo3/login").send().status(200);
    assert_eq!(told(&site), 0, "it is where it is looked for");
    for _ in 0..3 {
        site.ask_over(Over::Plain, "/admin/login").send().status(200);
        site.ask_over(Over::Plain, "/admin/ajax/login/preflight").send().status(200);
    }
    let line =
        within(Duration::from_secs(5), || (told(&site) > 0).then(|| site.stderr())).expect("it is told");
    assert_eq!(told(&site), 1, "{line}");
    for part in ["login = { entry_point = \"/admin\" }", "path = \"/admin\"", "area = \"backend\"", HOST] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(said(&site, &post(&site, "/admin/login", FORM, &[])).1, "", "that is why");
    // Who writes what it says is heard.
    let keys = "login = { entry_point = \"/admin\" }\n[[site.path]]\npath = \"/admin\"\narea = \"backend\"";
    let site = proxy().site(HOST, origin.url().as_str()).with(keys).plain_serves().start();
    assert_eq!(said(&site, &post(&site, "/admin/login", FORM, &[])).1, "failure");
    assert_eq!(told(&site), 0, "{}", site.stderr());
}
