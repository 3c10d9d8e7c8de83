//! A morning in one minute: an office of editors behind one address, and somebody who sprays passwords from two hundred.

use std::io::Write as _;
use std::time::Duration;

use crate::harness::names::field;
use crate::harness::recorder::Next;
use crate::harness::reply::Reply;
use crate::harness::valkey::Valkey;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, within};

const OFFICE: &str = "198.51.100.7";

/// The morning is pressed into seconds: how often one may ask is not what is looked at here.
const TABLES: &str = "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n[[rate]]\nname = \"login\"\nrate = \"1000000/s\"\nburst = 1000000\n";

/// Answers as TYPO3 13 does (to a password that a field repeats, since a script sees heads only): 303 and a session for the right password, else 200 and the end of a session, which
/// polls of a stale tab get, too.
fn typo3() -> Recorder {
    Recorder::scripted(|_, head, socket| {
        let head = String::from_utf8_lossy(head);
        let deleted =
            "be_typo_user=deleted; expires=Sat, 22 Nov 2025 13:39:48 GMT; Max-Age=0; path=/; httponly";
        let logged_in =
            head.contains("cookie: be_typo_user=eyJ") || head.contains("Cookie: be_typo_user=eyJ");
        let answer = if logged_in && !head.contains("x-password") {
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nwork".to_owned()
        } else if head.starts_with("POST /typo3/login") && head.contains("x-password: right") {
            "HTTP/1.1 303 See Other\r\nLocation: /typo3/main?token=1\r\nSet-Cookie: be_typo_user=eyJ0; path=/; httponly\r\nContent-Length: 0\r\n\r\n".to_owned()
        } else {
            format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: {deleted}\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin"
            )
        };
        if socket.write_all(answer.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

fn house(tables: &str) -> (Ravelin, Recorder) {
    let origin = typo3();
    let site = proxy().site(HOST, &origin).plain_serves().table(TABLES).table(tables).start();
    (site, origin)
}

fn log_in(wire: &mut Wire, from: &str, user: &str, password: &str) -> Reply {
    let body = format!("login_status=login&username={user}&userident={password}");
    let length = body.len();
    wire.say(&format!(
        "POST /typo3/login?loginProvider=1433416747 HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {from}\nX-Password: {password}\nContent-Type: application/x-www-form-urlencoded\nContent-Length: {length}\n\n{body}"
    ))
    .reply()
}

fn poll(wire: &mut Wire, from: &str) -> Reply {
    wire.say(&format!(
        "GET /typo3/ajax/login/timedout HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {from}\nCookie: be_typo_user=old\n\n"
    ))
    .reply()
}

#[test]
fn the_sprayer_is_locked_out_and_no_editor_is() {
    let (site, _origin) = house("");
    let (mut office, mut attacker) = (site.wire(), site.wire());
    let mut tried = [0_u32; 200];
    for editor in 0..20 {
        office = site.wire();
        // Stale tabs of everybody poll all the while.
        for _ in 0..20 {
            poll(&mut office, OFFICE).status(200);
        }
        // One in three mistypes, up to three times in a row.
        let wrong = if editor % 3 == 0 { 1 + editor / 3 % 3 } else { 0 };
        for _ in 0..wrong {
            log_in(&mut office, OFFICE, &format!("editor{editor}"), "mistyped").status(200);
        }
        log_in(&mut office, OFFICE, &format!("editor{editor}"), "right").status(303);
        // Meanwhile each of the two hundred tries a password on one user after the other.
        for (number, tried) in tried.iter_mut().enumerate() {
            if editor < 8 {
                let from = format!("203.0.113.{}", number % 100 + 1 + 100 * (number / 100));
                let reply = log_in(&mut attacker, &from, &format!("editor{editor}"), "Summer2026");
                match reply.status {
                    200 => *tried += 1,
                    403 => assert!(reply.header("retry-after").is_some(), "{reply}"),
                    other => panic!("{other}: {reply}"),
                }
                // A refusal ends the connection where the body was not read.
                if reply.status == 403 {
                    attacker = site.wire();
                }
            }
        }
    }
    assert!(tried.iter().all(|tried| *tried == 4), "fewer than five tries each: {tried:?}");
    let bans = site.counted(&["ravelin_bans_made_total", "jail=\"login\""]);
    assert!((bans - 200.0).abs() < 0.1, "{bans} bans");
    log_in(&mut office, OFFICE, "editor1", "right").status(303);
    // Each ban is told once, and stands on the exchange that made it.
    let told = || site.stderr().lines().filter(|line| line.contains("event=\"ban")).count();
    let logged = || site.log().iter().filter(|line| line["ban"] == "login").count();
    let both = || (told() >= 200 && logged() >= 200).then_some(());
    assert!(within(Duration::from_secs(10), both).is_some(), "{} told, {} logged", told(), logged());
    assert_eq!((told(), logged()), (200, 200));
}

#[test]
fn a_name_that_a_thousand_addresses_try_rests_for_a_while_and_others_do_not() {
    let (site, origin) = house("[bans]\nper_user = true\n");
    let mut wire = site.wire();
    for number in 0..20 {
        log_in(&mut wire, &format!("203.0.113.{number}"), "admin", "guess").status(200);
    }
    origin.forget();
    let reply = log_in(&mut site.wire(), "192.0.2.1", "ADMIN", "guess");
    assert!(reply.status(429).header("retry-after").is_some(), "{reply}");
    assert!(!origin.text().contains("ADMIN"), "no origin looks at the password: {}", origin.text());
    log_in(&mut site.wire(), "192.0.2.1", "editor", "right").status(303);
    log_in(&mut wire, "203.0.113.1", "editor", "right").status(303);
    poll(&mut wire, "192.0.2.1").status(200);
}

#[test]
fn a_name_that_would_rest_is_told_in_report_mode() {
    let (site, origin) = house("[bans]\nper_user = true\n[rules]\nban = \"report\"\n");
    let mut wire = site.wire();
    for number in 0..20 {
        log_in(&mut wire, &format!("203.0.113.{number}"), "admin", "guess").status(200);
    }
    origin.forget();
    log_in(&mut wire, "192.0.2.1", "ADMIN", "right").status(303);
    assert!(origin.text().contains("ADMIN"), "nothing is kept from the origin");
    let would = || {
        let lines = site.log();
        let line = lines.iter().find(|line| line["client"] == "192.0.2.1")?;
        line.get(field::WOULD_BLOCK).map(ToString::to_string)
    };
    let would = within(Duration::from_secs(10), would).expect("it is told");
    for part in ["login-rate-limited", "user:8c6976e5b5410415", "20 failures", "ravelin.toml:"] {
        assert!(would.contains(part), "{part}: {would}");
    }
    assert!(!would.contains("ADMIN") && !would.contains("admin"), "the name is not told: {would}");
}

#[test]
fn an_office_that_logs_in_all_at_once_gets_in_and_nobody_is_locked_out() {
    let (site, _origin) = house("");
    let editor = |number: u32| {
        let mut wire = site.wire();
        // A browser shows "try again in a second", and the editor does.
        for _ in 0..20 {
            let reply = log_in(&mut wire, OFFICE, &format!("editor{number}"), "right");
            if reply.status == 303 {
                return;
            }
            assert_eq!(reply.status(429).header("retry-after"), Some("1"));
            std::thread::sleep(Duration::from_millis(20));
            wire = site.wire();
        }
        panic!("editor {number} never got in");
    };
    std::thread::scope(|scope| {
        for number in 0..20 {
            scope.spawn(move || editor(number));
        }
    });
    assert!(site.counted(&["ravelin_bans_made_total"]).abs() < 0.1);
}

#[test]
fn an_account_of_ones_own_does_not_wash_off_guesses_at_others() {
    let (site, _origin) = house("");
    let mut wire = site.wire();
    for user in ["admin", "root", "chief"] {
        log_in(&mut wire, "203.0.113.1", user, "guess").status(200);
        log_in(&mut wire, "203.0.113.1", "own", "right").status(303);
    }
    log_in(&mut wire, "203.0.113.1", "admin", "guess").status(200);
    log_in(&mut wire, "203.0.113.1", "own", "right").status(403);
    // Who only mistypes is forgiven, however the name is written.
    let mut wire = site.wire();
    for _ in 0..5 {
        for _ in 0..3 {
            log_in(&mut wire, OFFICE, "Editor", "mistyped").status(200);
        }
        log_in(&mut wire, OFFICE, "editor", "right").status(303);
    }
}

#[test]
fn replicas_forgive_the_same_failures() {
    let valkey = Valkey::start();
    let store = format!("[state]\nstore = \"{}\"\n", valkey.url(""));
    let (one, _first) = house(&store);
    let (other, _second) = house(&store);
    let (mut here, mut there) = (one.wire(), other.wire());
    for user in ["editor", "admin", "editor"] {
        log_in(&mut here, OFFICE, user, "guess").status(200);
    }
    let failures = || -> Vec<String> {
        let keys = valkey.ask(&["KEYS", "{ravelin}:strikes:*"]);
        let members = valkey.ask(&["ZRANGE", keys.lines().last().unwrap_or_default(), "0", "-1"]);
        members.lines().filter(|member| member.contains(':')).map(str::to_owned).collect()
    };
    let three = || (failures().len() == 3).then_some(());
    assert!(within(Duration::from_secs(10), three).is_some(), "{:?}", failures());
    let forgiven = || {
        log_in(&mut there, OFFICE, "editor", "right").status(303);
        (failures().len() == 1).then_some(())
    };
    assert!(within(Duration::from_secs(10), forgiven).is_some(), "{:?}", failures());
    // SHA-256 of `admin`, cut.
    assert!(failures()[0].ends_with(":8c6976e5b5410415"), "{:?}", failures());
}

#[test]
fn a_page_of_another_site_that_sends_logins_from_the_office_locks_nobody_out() {
    let (site, origin) = house("");
    let post = |fetch: &str, body: &str, password: &str| {
        let head = format!(
            "POST /typo3/login?loginProvider=1&login_status=login HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}\n\
             X-Password: {password}\nSec-Fetch-Site: {fetch}\nContent-Type: application/x-www-form-urlencoded\n"
        );
        site.wire().say(&format!("{head}Content-Length: {}\n\n{body}", body.len())).reply()
    };
    let forged = "username=admin&userident=guess";
    for _ in 0..4 {
        post("cross-site", forged, "guess").status(200);
    }
    origin.forget();
    let reply = post("cross-site", forged, "right");
    assert!(reply.status(429).header("retry-after").is_some(), "{reply}");
    assert!(!origin.text().contains("userident"), "{}", origin.text());
    let line = site.logged_as(&reply.reference());
    assert_eq!(line["reason"], "login-rate-limited");
    assert!(line["detail"].as_str().unwrap().contains("jail `login-cross-site`"), "{line}");
    // The office works on, mistypes, and comes back from its identity provider.
    let mut office = site.wire();
    poll(&mut office, OFFICE).status(200);
    for _ in 0..3 {
        log_in(&mut office, OFFICE, "editor", "mistyped").status(200);
    }
    log_in(&mut office, OFFICE, "editor", "right").status(303);
    for body in ["SAMLResponse=PHNhbWw%2B&RelayState=x", "code=x&state=y&id_token=z"] {
        post("cross-site", body, "right").status(303);
        post("cross-site", body, "guess").status(200);
    }
    // Who says that it is one of his own has no tries more than others.
    for _ in 0..4 {
        post("same-origin", forged, "guess").status(200);
    }
    post("same-origin", forged, "right").status(403);
}

/// Whoever is at work behind the office's address: pages and records of the backend, and what everybody sees.
fn work(wire: &mut Wire, from: &str, session: &str) {
    for line in ["GET /typo3/main", "GET /typo3/module/web/layout", "POST /typo3/record/edit", "GET /"] {
        let head = format!("{line} HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {from}\n");
        let rest = "Content-Type: application/x-www-form-urlencoded\nContent-Length: 11\n\ndata[x]=y+z";
        let rest = if line.starts_with("POST") { rest } else { "\n" };
        let reply = wire.say(&format!("{head}Cookie: be_typo_user={session}\n{rest}")).reply();
        assert_eq!(reply.status, 200, "{line} of {session}: {reply}");
    }
}

#[test]
fn five_wrong_names_lock_nobody_out_who_is_at_work_behind_the_same_address() {
    let jail = "[[jail]]\nname = \"scanners\"\nmatch = { path = \"/.env\" }\nmax_retry = 1\n";
    let (site, origin) = house(jail);
    let mut editors: Vec<Wire> = (0..20).map(|_| site.wire()).collect();
    for (number, wire) in editors.iter_mut().enumerate() {
        log_in(wire, OFFICE, &format!("editor{number}"), "right").status(303);
        work(wire, OFFICE, &format!("eyJ{number}"));
    }
    origin.forget();
    let mut passed = 0;
    for user in ["j.deo", "jdoe", "j_doe", "doe.j", "j.doe"] {
        let reply = log_in(&mut site.wire(), OFFICE, user, "secret");
        passed += u32::from(reply.status == 200);
        assert_eq!(reply.status, if user == "j.doe" { 403 } else { 200 }, "{user}: {reply}");
    }
    assert_eq!(
        (passed, origin.text().matches("POST /typo3/login").count()),
        (4, 4),
        "fewer than five tries each"
    );
    for (number, wire) in editors.iter_mut().enumerate() {
        work(wire, OFFICE, &format!("eyJ{number}"));
    }
    // Who is not logged in meets it where he wants to log in, and nowhere else; a session of one's own buys no guess.
    poll(&mut site.wire(), OFFICE).status(200);
    origin.forget();
    for (path, fields) in [
        ("/typo3/login", "Cookie: a=b"),
        ("/typo3/login", "Cookie: be_typo_user=eyJ0"),
        ("/typo3/ajax/login", "Sec-Fetch-Mode: cors"),
        ("/typo3/module/web/layout", "Cookie: be_typo_user=eyJ1"),
        ("/typo3/main", "Content-Encoding: gzip"),
        ("/contact", "Content-Encoding: gzip"),
    ] {
        let body = "login_status=login&username=editor1&userident=guess";
        let head = format!("POST {path} HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}\n{fields}\n");
        let form = "Content-Type: application/x-www-form-urlencoded\n";
        let reply = site.wire().say(&format!("{head}{form}Content-Length: {}\n\n{body}", body.len())).reply();
        let left = reply.status(403).header("retry-after").and_then(|left| left.parse::<u32>().ok());
        assert!(left.is_some_and(|left| (500..=675).contains(&left)), "{path}, {fields}: {reply}");
        assert_eq!(site.logged_as(&reply.reference())["reason"], "banned");
    }
    let body = "logintype=login&user=a&pass=b";
    let visitor = format!("POST / HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}\n");
    let form = "Content-Type: application/x-www-form-urlencoded\n";
    site.wire().say(&format!("{visitor}{form}Content-Length: {}\n\n{body}", body.len())).reply().status(403);
    let basic =
        format!("GET / HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}\nAuthorization: Basic YTpi\n\n");
    site.wire().say(&basic).reply().status(403);
    assert!(!origin.text().contains("guess") && !origin.text().contains("YTpi"), "{}", origin.text());
    // An address where nobody is at work is refused whatever it asks for, and so is who looks for holes.
    for user in ["a", "b", "c", "d"] {
        log_in(&mut site.wire(), "203.0.113.9", user, "guess").status(200);
    }
    poll(&mut site.wire(), "203.0.113.9").status(403);
    let env = format!("GET /.env HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}\n\n");
    site.wire().say(&env).reply();
    poll(&mut site.wire(), OFFICE).status(403);
}

#[test]
fn who_would_be_refused_at_the_login_only_is_told_in_report_mode() {
    let (site, _origin) = house("[rules]\nban = \"report\"\n");
    let mut wire = site.wire();
    log_in(&mut wire, OFFICE, "editor", "right").status(303);
    work(&mut wire, OFFICE, "eyJ0");
    for user in ["a", "b", "c", "d", "e"] {
        log_in(&mut wire, OFFICE, user, "guess").status(200);
    }
    work(&mut wire, OFFICE, "eyJ0");
    let would = || {
        let lines = site.log();
        let done = lines.iter().filter(|line| line["target"] == "/").count() == 2;
        done.then(|| lines.iter().filter(|line| line.get(field::WOULD_BLOCK).is_some()).count())
    };
    assert_eq!(within(Duration::from_secs(10), would), Some(1), "the fifth try, and no page");
}

#[test]
fn a_ban_from_everything_lets_those_connect_who_are_at_work() {
    let origin = typo3();
    let rate = TABLES.split_once("[[rate]]").map_or("", |(_, rate)| rate);
    let tables = format!("[bans]\nscope = \"everything\"\naction = \"drop\"\n[[rate]]{rate}");
    let site = proxy().site(HOST, &origin).plain_serves().table(&tables).start();
    let mut wire = site.wire();
    log_in(&mut wire, "203.0.113.1", "editor", "right").status(303);
    work(&mut wire, "203.0.113.1", "eyJ0");
    for user in ["a", "b", "c", "d"] {
        log_in(&mut wire, "203.0.113.1", user, "guess").status(200);
    }
    work(&mut wire, "203.0.113.1", "eyJ0");
    work(&mut site.wire(), "203.0.113.1", "eyJ0");
    log_in(&mut site.wire(), "203.0.113.1", "editor", "right").status(403);
}

#[test]
fn who_logs_in_at_one_replica_and_works_at_another_is_known_to_both() {
    let valkey = Valkey::start();
    let store = format!("[state]\nstore = \"{}\"\n", valkey.url(""));
    let (one, first) = house(&store);
    let (other, _second) = house(&store);
    let line = format!("HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {OFFICE}");
    let tool = |at: &Ravelin| at.wire().say(&format!("GET /typo3/install.php {line}\n\n")).reply().status;
    log_in(&mut one.wire(), OFFICE, "editor", "right").status(303);
    assert_eq!((tool(&one), tool(&other)), (404, 404), "the password alone");
    let main = format!("GET /typo3/main {line}\nCookie: be_typo_user=eyJ0\n\n");
    let known = |at: &Ravelin| {
        other.wire().say(&main).reply().status(200);
        (tool(at) == 200).then_some(())
    };
    assert!(within(Duration::from_secs(10), || known(&other)).is_some());
    assert!(within(Duration::from_secs(10), || known(&one)).is_some());
    assert!(!first.text().contains("GET /typo3/main"), "the first has not seen it itself");
}

#[test]
fn who_has_sixty_five_thousand_networks_gets_forty_guesses() {
    let (site, origin) = house("");
    let mut wire = site.wire();
    log_in(&mut wire, "2001:db8:1:ffff::1", "editor", "right").status(303);
    origin.forget();
    let (mut passed, mut told) = (0, 0);
    for network in 0..60 {
        let from = format!("2001:db8:1:{network:x}::1");
        let reply = log_in(&mut wire, &from, &format!("user{network}"), "Summer2026");
        if reply.status == 200 {
            passed += 1;
        } else {
            assert!(reply.status(429).header("retry-after").is_some(), "{reply}");
            let line = site.logged_as(&reply.reference());
            assert!(line["detail"].as_str().unwrap().contains("jail `login-network`"), "{line}");
            told += 1;
            wire = site.wire();
        }
    }
    assert_eq!((passed, told), (40, 20));
    assert_eq!(origin.text().matches("POST /typo3/login").count(), 40);
    // No page is refused, nobody outside is, and nobody who is at work.
    poll(&mut wire, "2001:db8:1::1").status(200);
    work(&mut wire, "2001:db8:1:ffff::1", "eyJ0");
    log_in(&mut site.wire(), "2001:db8:1:ffff::1", "editor", "right").status(429);
    log_in(&mut wire, "2001:db8:2::1", "editor", "right").status(303);
    assert!((site.counted(&["ravelin_bans_made_total", "jail=\"login-network\""]) - 1.0).abs() < 0.1);
}
