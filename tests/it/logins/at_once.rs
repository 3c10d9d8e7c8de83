//! Tries that are under way at the same time: nobody gets more guesses by it, and nobody is locked out by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::harness::names::field;
use crate::harness::recorder::Next;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, within};

const PATIENCE: Duration = Duration::from_secs(20);

/// How often one may ask is not what is looked at.
const TABLES: &str = "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n[[rate]]\nname = \"login\"\nrate = \"1000000/s\"\nburst = 1000000\n\
                      [install_tool]\nopen_to = \"everybody\"\n";

/// An origin that counts what reaches it whole, and answers as the field `X-Answer` wants once it may.
struct Stage {
    site: Ravelin,
    _origin: Recorder,
    guesses: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

fn stage(tables: &str) -> Stage {
    let (guesses, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, may) = (Arc::clone(&guesses), Arc::clone(&open));
    let origin = Recorder::scripted(move |_, head, socket| {
        let head = String::from_utf8_lossy(head);
        if !head.contains("x-answer:") {
            return answer(socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        count.fetch_add(1, SeqCst);
        within(PATIENCE, || may.load(SeqCst).then_some(()));
        let wants = |word: &str| head.contains(&format!("x-answer: {word}"));
        if wants("closed") {
            return Next::Close;
        }
        answer(
            socket,
            match () {
                () if wants("right") => {
                    "HTTP/1.1 303 See Other\r\nLocation: /typo3/main\r\nSet-Cookie: be_typo_user=eyJ0; path=/\r\nContent-Length: 0\r\n\r\n"
                }
                () if wants("neutral") => {
                    "HTTP/1.1 303 See Other\r\nLocation: /typo3/main\r\nContent-Length: 0\r\n\r\n"
                }
                () if wants("tool") => "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"success\":true}",
                () if wants("no-code") => {
                    "HTTP/1.1 302 Found\r\nLocation: /typo3/auth/mfa?failure=1\r\nContent-Length: 0\r\n\r\n"
                }
                () => {
                    "HTTP/1.1 200 OK\r\nSet-Cookie: be_typo_user=deleted; Max-Age=0\r\nSet-Cookie: fe_typo_user=deleted; Max-Age=0\r\nContent-Length: 5\r\n\r\nlogin"
                }
            },
        )
    });
    let site = proxy().site(HOST, &origin).plain_serves().table(TABLES).table(tables).start();
    Stage { site, _origin: origin, guesses, open }
}

fn answer(socket: &mut impl std::io::Write, bytes: &str) -> Next {
    if socket.write_all(bytes.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
}

/// A request of a client that wants this answer, without its last byte, and that byte.
fn guess(from: &str, wants: &str, start: &str, body: &str) -> (String, &'static str) {
    let head =
        format!("{start} HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: {from}\r\nX-Answer: {wants}\r\n");
    if body.is_empty() {
        return (head + "\r", "\n");
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let body = body.trim_end_matches('!');
    (format!("{head}{form}Content-Length: {}\r\n\r\n{body}", body.len() + 1), "!")
}

const LOGIN: (&str, &str) = ("POST /typo3/login", "login_status=login&username=editor&userident=x!");

impl Stage {
    fn send(&self, from: &str, wants: &str) -> Wire {
        let (most, last) = guess(from, wants, LOGIN.0, LOGIN.1);
        let mut wire = self.site.wire();
        wire.send(most).send(last);
        wire
    }

    /// So many tries of one client at once; the statuses of the answers.
    fn at_once(&self, count: usize, from: &str, (start, body): (&str, &str)) -> Vec<u16> {
        let refused = || self.site.counted(&["ravelin_refusals_total", "reason=\"login-rate-limited\""]);
        let (before, reached) = (refused(), self.guesses.load(SeqCst));
        self.open.store(false, SeqCst);
        let mut wires: Vec<Wire> = (0..count)
            .map(|_| {
                let (most, last) =
                    guess(from, if start.contains("mfa") { "no-code" } else { "wrong" }, start, body);
                let mut wire = self.site.wire();
                wire.send(most).send(last);
                wire
            })
            .collect();
        let all = || {
            let refused = (refused() - before).round();
            (count_of(self.guesses.load(SeqCst) - reached) + refused >= count_of(count)).then_some(())
        };
        assert!(within(PATIENCE, all).is_some(), "{start}: {}", self.site.stderr());
        self.open.store(true, SeqCst);
        wires.iter_mut().map(|wire| wire.reply().status).collect()
    }
}

#[test]
fn many_guesses_at_once_are_no_more_than_one_after_the_other() {
    let stage = stage("");
    let login = LOGIN.1;
    for (number, (start, body, banned)) in [
        (LOGIN.0, login, true),
        ("POST /typo3/module/web/layout", login, true),
        ("POST /typo3/ajax/login", login, true),
        ("POST /members", "logintype=login&user=visitor&pass=x!", true),
        ("GET /typo3/auth/mfa?action=verify&totp=123456", "", true),
        ("POST /typo3/auth/mfa?action=verify", "totp=123456!", true),
        ("POST /contact", "message=x!", false),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("203.0.113.{number}");
        let reached = stage.guesses.load(SeqCst);
        let statuses = stage.at_once(20, &from, (start, body));
        let reached = stage.guesses.load(SeqCst) - reached;
        let refused = statuses.iter().filter(|status| **status == 429).count();
        let want = if banned { (4, 16) } else { (20, 0) };
        assert_eq!((reached, refused), want, "{start}: {statuses:?}");
        let next = stage.send(&from, "right").reply().status;
        assert_eq!(next, if banned { 403 } else { 303 }, "{start}");
    }
}

#[test]
fn a_body_that_ends_after_the_ban_was_made_is_no_guess_more() {
    let stage = stage("");
    stage.open.store(true, SeqCst);
    let mut slow: Vec<(Wire, &str)> = (0..12)
        .map(|_| {
            let (most, last) = guess("203.0.113.1", "wrong", LOGIN.0, LOGIN.1);
            let mut wire = stage.site.wire();
            wire.send(most);
            (wire, last)
        })
        .collect();
    // All of them are past the beginning of the road.
    let begun = || (stage.site.counted(&["ravelin_requests_under_way"]) >= 12.0).then_some(());
    within(Duration::from_secs(2), begun);
    for _ in 0..4 {
        stage.send("203.0.113.1", "wrong").reply().status(200);
    }
    for (wire, last) in &mut slow {
        wire.send(*last).reply().status(403);
    }
    assert_eq!(stage.guesses.load(SeqCst), 4);
}

#[test]
fn a_place_is_given_back_whatever_comes_of_the_try() {
    let stage = stage("");
    stage.open.store(true, SeqCst);
    for (number, (wants, status)) in
        [("right", 303), ("neutral", 303), ("closed", 502), ("tool", 200)].into_iter().enumerate()
    {
        let from = format!("203.0.113.{number}");
        for _ in 0..6 {
            let (most, last) = match wants {
                "tool" => guess(&from, wants, "POST /typo3/install.php", "install[action]=login&x=!"),
                _ => guess(&from, wants, LOGIN.0, LOGIN.1),
            };
            stage.site.wire().send(most).send(last).reply().status(status);
        }
    }
    // Who leaves before the last byte has guessed nothing.
    for _ in 0..8 {
        let (most, _) = guess("198.51.100.7", "wrong", LOGIN.0, LOGIN.1);
        stage.site.wire().send(most);
    }
    let statuses = stage.at_once(6, "198.51.100.7", LOGIN);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 4, "{statuses:?}");
}

#[test]
fn who_leaves_before_the_answer_waits_a_little_and_is_not_locked_out() {
    let stage = stage("");
    for left in 1..=4 {
        let wire = stage.send("203.0.113.1", "wrong");
        let reached = || (stage.guesses.load(SeqCst) >= left).then_some(());
        assert!(within(PATIENCE, reached).is_some());
        drop(wire);
    }
    let gone = || stage.site.log().len() >= 4;
    assert!(within(PATIENCE, || gone().then_some(())).is_some(), "{:?}", stage.site.log());
    stage.open.store(true, SeqCst);
    let reply = stage.send("203.0.113.1", "right").reply();
    assert_eq!(reply.status(429).header("retry-after"), Some("1"));
    let line = stage.site.logged_as(&reply.reference());
    assert_eq!(line[field::REASON], "login-rate-limited");
    assert!(
        line["detail"].as_str().unwrap().contains("4 tries under way, 0 failures, 4 make a ban"),
        "{line}"
    );
    stage.send("203.0.113.2", "right").reply().status(303);
    assert!(stage.site.counted(&["ravelin_bans_made_total"]).abs() < 0.1, "nobody is banned");
}

#[test]
fn in_report_mode_all_of_them_pass_and_the_log_says_which_would_not_have() {
    let stage = stage("[rules]\nban = \"report\"\n");
    let statuses = stage.at_once(8, "203.0.113.1", LOGIN);
    assert_eq!(statuses, [200; 8]);
    let would = || {
        let lines = stage.site.log();
        let would = lines.iter().filter_map(|line| line.get(field::WOULD_BLOCK)).map(ToString::to_string);
        let would: Vec<String> = would.filter(|line| line.contains("login-rate-limited")).collect();
        (would.len() == 4).then_some(would)
    };
    let would = within(PATIENCE, would).expect("four of them");
    assert!(would.iter().all(|line| line.contains("jail `login` (default)")), "{would:?}");
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn count_of(count: usize) -> f64 {
    count as f64
}
