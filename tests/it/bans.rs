//! Who fails too often is locked out, and nobody else: bans by custom jails, limits on how often, and how both are said.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::thread::scope;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::curl::{Ask, Over};
use crate::harness::names::field;
use crate::harness::recorder::Next;
use crate::harness::reply::Reply;
use crate::harness::{HOST, Ravelin, Recorder, proxy, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// A jail that is full after three answers with 401 or 403.
const JAIL: &str = "[[jail]]\nname = \"door\"\nmatch = { status = [401, \"403\"] }\nmax_retry = 3\n";

/// An origin that answers `/NUMBER…` with that status, and everything else with 200.
fn origin() -> Recorder {
    Recorder::scripted(|_, head, socket| {
        let path = String::from_utf8_lossy(head).split(' ').nth(1).unwrap_or_default().to_owned();
        let status = path.get(1..4).and_then(|code| code.parse::<u16>().ok()).unwrap_or(200);
        let answer =
            format!("HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
        if socket.write_all(answer.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

/// A proxy that believes the tests about whom they ask for, with these tables.
fn house(tables: &str) -> (Ravelin, Recorder) {
    let origin = origin();
    let client = "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let site = proxy().site(HOST, &origin).site("other.test", &origin).plain_serves();
    (site.table(client).table(tables).start(), origin)
}

/// GET for a client somewhere else.
fn from(site: &Ravelin, client: &str, path: &str) -> Reply {
    asked(site, client, path).send()
}

fn asked(site: &Ravelin, client: &str, path: &str) -> Ask {
    site.ask(path).header("X-Forwarded-For", client)
}

/// Fails three times.
fn fail(site: &Ravelin, client: &str) {
    for _ in 0..3 {
        from(site, client, "/401").status(401);
    }
}

fn retry_after(reply: &Reply) -> u64 {
    reply.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{reply}"))
}

fn audit(site: &Ravelin, parts: &[&str]) -> String {
    let line = || {
        let text = site.stderr();
        text.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    };
    within(PATIENCE, line).unwrap_or_else(|| panic!("no line with {parts:?} in {}", site.stderr()))
}

#[test]
fn who_fails_too_often_is_refused_for_a_time_that_is_told_and_nobody_else_is() {
    let (site, origin) = house(JAIL);
    fail(&site, "192.0.2.1");
    origin.forget();
    let page = from(&site, "192.0.2.1", "/");
    page.status(403).hardened().shows("reference");
    let left = retry_after(&page);
    assert!((550..=675).contains(&left), "ten minutes and an eighth at most: {left}");
    assert!(!origin.text().contains("GET"), "the origin is not asked");
    let line = site.logged_as(&page.reference());
    assert_eq!(line[field::REASON], "banned");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("`door`") && detail.contains("ravelin.toml:"), "{detail}");
    from(&site, "192.0.2.2", "/").status(200);
    // The ban is for one site.
    let other = site.ask_host(Over::H1, "other.test", "/").header("X-Forwarded-For", "192.0.2.1").send();
    other.status(200);
    let made = audit(&site, &["ban-made", "192.0.2.1"]);
    assert!(made.contains("door") && made.contains(HOST) && made.contains("ravelin.toml:"), "{made}");
    assert!((site.counted(&["ravelin_bans_made_total", "jail=\"door\""]) - 1.0).abs() < 0.1);
    assert!((site.counted(&["ravelin_bans_active"]) - 1.0).abs() < 0.1);
    let making = site.log().into_iter().find(|line| line["ban"] == "door");
    assert!(making.is_some(), "the log says which exchange made the ban: {}", site.stdout());
}

#[test]
fn a_body_of_a_banned_client_is_not_read() {
    let (site, _origin) = house(JAIL);
    fail(&site, "192.0.2.1");
    let mut wire = site.wire();
    wire.say(&format!(
        "POST / HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 192.0.2.1\nContent-Length: 200000000\n\n"
    ));
    wire.reply().status(403);
}

#[test]
fn an_ipv6_network_is_one_client() {
    let (site, _origin) = house(JAIL);
    for last in 1..=3 {
        from(&site, &format!("2001:db8:0:1::{last}"), "/401").status(401);
    }
    from(&site, "2001:db8:0:1:ffff::9", "/").status(403);
    from(&site, "2001:db8:0:2::1", "/").status(200);
}

#[test]
fn ignored_clients_are_never_banned() {
    let (site, _origin) = house(&format!("[bans]\nignore = [\"192.0.2.0/28\", \"2001:db8::7\"]\n{JAIL}"));
    for client in ["192.0.2.1", "2001:db8::7"] {
        fail(&site, client);
        from(&site, client, "/").status(200);
    }
    fail(&site, "192.0.2.16");
    from(&site, "192.0.2.16", "/").status(403);
}

#[test]
fn in_report_mode_no_byte_changes_and_the_log_says_what_would_have() {
    let report = format!("[rules]\nmode = \"report\"\n{JAIL}");
    for tables in [report, format!("{JAIL}mode = \"report\"\n")] {
        let (site, _origin) = house(&tables);
        let before = from(&site, "192.0.2.1", "/same");
        fail(&site, "192.0.2.1");
        let after = from(&site, "192.0.2.1", "/same");
        let plain = |reply: &Reply| {
            let fields: Vec<_> = reply.fields.clone();
            let same = |(name, _): &(String, String)| !matches!(&**name, "x-request-id" | "date");
            (reply.status, reply.body.clone(), fields.into_iter().filter(same).collect::<Vec<_>>())
        };
        assert_eq!(plain(&before), plain(&after));
        let would = || site.log().into_iter().find_map(|line| line.get(field::WOULD_BLOCK).cloned());
        let would: Value = within(PATIENCE, would).expect("it is said");
        let said = would.to_string();
        assert!(said.contains("banned") && said.contains("door") && said.contains("ravelin.toml:"), "{said}");
    }
}

#[test]
fn a_share_of_the_clients_is_banned_the_others_are_reported() {
    let (site, _origin) = house(&format!("[rules]\nban = \"enforce 50%\"\n{JAIL}"));
    let refused = |client: &u8| {
        let client = format!("198.51.100.{client}");
        fail(&site, &client);
        let first = from(&site, &client, "/").status;
        assert_eq!(first, from(&site, &client, "/").status, "a client keeps its lot");
        first == 403
    };
    let banned = (1..=24).filter(refused).count();
    assert!((3..=21).contains(&banned), "{banned} of 24");
}

#[test]
fn everything_is_closed_at_the_door_where_the_jail_says_so() {
    let origin = origin();
    let jail = format!("{JAIL}scope = \"everything\"\n");
    let site = proxy().site(HOST, &origin).plain_serves().table(&jail).start();
    let mut wire = site.wire();
    let elsewhere = || site.ask("/").arg("--interface").arg("127.0.0.2");
    elsewhere().send().status(200);
    for _ in 0..3 {
        wire.say(&format!("GET /401 HTTP/1.1\nHost: {HOST}\n\n"));
        wire.reply().status(401);
    }
    // The connection that is open meets the page; a new one is closed before TLS.
    wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
    assert!(retry_after(wire.reply().status(403)) > 500);
    let said = site.ask("/").try_send().expect_err("no connection");
    assert!(said.contains("exit"), "{said}");
    assert!(site.ask_over(Over::Plain, "/").try_send().is_err());
    elsewhere().send().status(200);
    assert!(site.counted(&["door_events", "event=\"banned\""]) >= 2.0);
}

#[test]
fn drop_closes_without_an_answer_in_both_protocols() {
    let (site, origin) = house(&format!("{JAIL}action = \"drop\"\n"));
    fail(&site, "192.0.2.1");
    origin.forget();
    for over in [Over::H1, Over::H2] {
        let ask = site.ask_over(over, "/").header("X-Forwarded-For", "192.0.2.1");
        let said = ask.try_send().expect_err("no answer");
        assert!(said.contains("exit"), "{said}");
        site.ask_over(over, "/").header("X-Forwarded-For", "192.0.2.2").send().status(200);
    }
    assert!(!origin.text().contains("192.0.2.1"), "{}", origin.text());
}

#[test]
fn the_tarpit_holds_a_few_and_refuses_the_rest_at_once() {
    let tarpit = "[bans]\ntarpit = 2\ntarpit_time = \"3 s\"\n";
    let (site, _origin) = house(&format!("{tarpit}{JAIL}action = \"tarpit\"\n"));
    fail(&site, "192.0.2.1");
    let times: Vec<Duration> = scope(|scope| {
        let ask = || {
            let start = Instant::now();
            from(&site, "192.0.2.1", "/").status(403);
            start.elapsed()
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let held = times.iter().filter(|time| **time >= Duration::from_secs(3)).count();
    assert!((2..8).contains(&held), "{times:?}");
    assert!(site.counted(&["ravelin_tarpit_held"]).abs() < 0.1, "nobody is held any more");
}

#[test]
fn a_reload_keeps_bans_and_takes_new_rules() {
    let (site, _origin) = house(JAIL);
    fail(&site, "192.0.2.1");
    let text = fs::read_to_string(site.config()).unwrap();
    let reload = |text: &str, count: f64| {
        fs::write(site.config(), text).unwrap();
        site.signal("HUP");
        let done = || (site.counted(&["ravelin_config_reloads"]) >= count).then_some(());
        within(PATIENCE, done);
    };
    reload(&format!("{text}\n# changed"), 2.0);
    from(&site, "192.0.2.1", "/").status(403);
    reload(&text.replace("[[jail]]", "[bans]\nignore = [\"192.0.2.1\"]\n[[jail]]"), 3.0);
    let free = || (from(&site, "192.0.2.1", "/").status == 200).then_some(());
    assert!(within(PATIENCE, free).is_some(), "{}", site.stderr());
}

#[test]
fn jails_see_path_method_and_area_and_the_answers_of_ravelin_itself() {
    let jails = "[[jail]]\nname = \"wordpress\"\nmatch = { path = [\"/wp-*\", \"*.asp\"], method = \"GET\" }\nmax_retry = 1\n\
                 [[jail]]\nname = \"garbage\"\nmatch = { status = \"400\" }\nmax_retry = 2\n\
                 [[jail]]\nname = \"backend\"\nmatch = { area = \"backend\", status = \"5xx\" }\nmax_retry = 1\n";
    let (site, _origin) = house(jails);
    asked(&site, "192.0.2.1", "/wp-login.php").body("x").send().status(200);
    from(&site, "192.0.2.1", "/x/wp-login.php").status(200);
    from(&site, "192.0.2.1", "/%77p-login.php").status(200);
    from(&site, "192.0.2.1", "/").status(403);
    from(&site, "192.0.2.2", "/a.asp").status(200);
    from(&site, "192.0.2.2", "/").status(403);
    from(&site, "192.0.2.3", "/%00").status(400);
    from(&site, "192.0.2.3", "/%00").status(400);
    from(&site, "192.0.2.3", "/").status(403);
    from(&site, "192.0.2.4", "/500").status(500);
    from(&site, "192.0.2.4", "/").status(200);
}

#[test]
fn a_limit_says_429_and_when_to_come_back() {
    let rate = "[[rate]]\nname = \"api\"\npath = \"/api/*\"\nrate = \"1/min\"\nburst = 3\n";
    let (site, _origin) = house(rate);
    for _ in 0..3 {
        from(&site, "192.0.2.1", "/api/x").status(200);
    }
    let page = from(&site, "192.0.2.1", "/api/x");
    assert!((1..=60).contains(&retry_after(page.status(429))));
    page.hardened();
    let line = site.logged_as(&page.reference());
    assert_eq!(line[field::REASON], "rate-limited");
    assert!(line["detail"].as_str().unwrap().contains("ravelin.toml:"), "{line}");
    from(&site, "192.0.2.1", "/else").status(200);
    from(&site, "192.0.2.2", "/api/x").status(200);
    let other = site.ask_host(Over::H1, "other.test", "/api/x").header("X-Forwarded-For", "192.0.2.1").send();
    other.status(200);
    let (site, _origin) = house(&format!("{rate}mode = \"report\"\n"));
    for _ in 0..6 {
        from(&site, "192.0.2.1", "/api/x").status(200);
    }
    let would = || site.log().iter().any(|line| line.get(field::WOULD_BLOCK).is_some()).then_some(());
    assert!(within(PATIENCE, would).is_some());
}

#[test]
fn files_of_a_page_are_exempt_and_attempts_to_log_in_are_limited_as_they_come() {
    let (site, _origin) = house("[[rate]]\nname = \"all\"\nrate = \"1/h\"\nburst = 1\n");
    let mut wire = site.wire();
    let mut ask = |method: &str, path: &str| {
        wire.say(&format!(
            "{method} {path} HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 192.0.2.1\nContent-Length: 0\n\n"
        ));
        wire.reply().status
    };
    for number in 0..129 {
        assert_eq!(ask("GET", &format!("/_assets/{number}/icon.svg")), 200, "file {number}");
    }
    assert_eq!((ask("GET", "/"), ask("GET", "/")), (200, 429));
    let (site, _origin) = house("");
    let mut wire = site.wire();
    let mut login = || {
        wire.say(&format!(
            "POST /typo3/login HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 192.0.2.1\nContent-Length: 0\n\n"
        ));
        wire.reply()
    };
    let limited = (0..60).map(|_| login()).find(|reply| reply.status == 429).expect("the default limit");
    assert!(retry_after(&limited) >= 1);
    assert_eq!(site.logged_as(&limited.reference())[field::REASON], "login-rate-limited");
    from(&site, "192.0.2.1", "/typo3/login").status(200);
}

#[test]
fn an_army_of_clients_does_not_grow_the_ledger_without_bound() {
    let jail = "[[jail]]\nname = \"door\"\nmatch = { status = 401 }\nmax_retry = 1\n";
    let (site, _origin) = house(&format!("[bans]\nmemory = \"1 MiB\"\n{jail}"));
    let mut wire = site.wire();
    for number in 0..6_000_u32 {
        let client = Ipv4Addr::from_bits(0x0a00_0000 + number * 7);
        wire.say(&format!("GET /401 HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: {client}\n\n"));
        let status = wire.reply().status;
        assert_eq!(status, 401, "client {number}");
    }
    let active = site.counted(&["ravelin_bans_active"]);
    assert!((500.0..3_000.0).contains(&active), "{active}");
    assert!(site.counted(&["ravelin_bans_pushed_out_total", "what=\"bans\""]) > 1_000.0);
    fail_once_and_be_banned(&mut wire);
}

/// Who fails now is banned now, whoever else had to go for it.
fn fail_once_and_be_banned(wire: &mut crate::harness::Wire) {
    for status in [401, 403] {
        wire.say(&format!("GET /401 HTTP/1.1\nHost: {HOST}\nX-Forwarded-For: 203.0.113.77\n\n"));
        wire.reply().status(status);
    }
}
