//! Bans that outlive the process, and bans that replicas share: with a real file and a real Valkey or Redis.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::proxy::Builder;
use crate::harness::recorder::{Next, OK};
use crate::harness::valkey::Valkey;
use crate::harness::{HOST, Ravelin, Recorder, Said, Wire, proxy, ravelin, run, within};

/// How long anything may take on a busy machine. What is promised, below a second, is measured and printed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Ravelin with an admin socket.
struct Replica {
    site: Ravelin,
    socket: PathBuf,
    _folder: TempDir,
}

/// A site in front of `origin` with this `[state]`.
fn described(origin: &Recorder, state: &str) -> (Builder, PathBuf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let builder = proxy().site(HOST, origin).plain_serves().table(&format!("[state]\n{state}"));
    (builder.admin_socket(&socket), socket, folder)
}

fn replica(origin: &Recorder, state: &str) -> Replica {
    let (builder, socket, folder) = described(origin, state);
    Replica { site: builder.start(), socket, _folder: folder }
}

fn shared(origin: &Recorder, store: &str) -> Replica {
    replica(origin, &format!("store = \"{store}\""))
}

impl Replica {
    fn bans(&self, words: &[&str]) -> Said {
        let socket = format!("unix:{}", self.socket.display());
        run(ravelin().arg("bans").args(words).args(["--admin", &socket]))
    }

    fn has(&self, who: &str) -> bool {
        self.bans(&["list"]).out.contains(who)
    }

    /// Waits until it knows of the ban, and says how long that took.
    #[track_caller]
    fn hears(&self, who: &str) -> Duration {
        let begin = Instant::now();
        let heard = within(PATIENCE, || self.has(who).then_some(()));
        assert!(
            heard.is_some(),
            "{who} is not banned here:\n{}{}",
            self.bans(&["list"]).all(),
            self.site.stderr()
        );
        begin.elapsed()
    }

    #[track_caller]
    fn forgets(&self, who: &str) {
        let lifted = within(PATIENCE, || (!self.has(who)).then_some(()));
        assert!(lifted.is_some(), "{who} is still banned:\n{}", self.site.stderr());
    }

    #[track_caller]
    fn says(&self, text: &str) {
        let said = within(PATIENCE, || self.site.stderr().contains(text).then_some(()));
        assert!(said.is_some(), "it should say {text:?}:\n{}", self.site.stderr());
    }
}

#[test]
fn a_ban_reaches_every_replica_and_so_does_its_end() {
    let (valkey, origin) = (Valkey::start(), Recorder::answering(OK));
    let one = shared(&origin, &valkey.url(""));
    let other = shared(&origin, &valkey.url(""));
    one.bans(&["add", "192.0.2.1", "--for", "30m", "--why", "too loud"]).exits(0).says("30 min");
    println!("heard after {:?}", other.hears("192.0.2.1"));
    other.bans(&["list"]).says("too loud").says("by-hand").says("uid ");
    let json = other.bans(&["list", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(rows[0]["who"], "192.0.2.1", "{rows}");
    other.bans(&["remove", "192.0.2.1"]).exits(0).says("no longer banned");
    one.forgets("192.0.2.1");
    one.bans(&["add", "2001:db8::1"]).exits(0);
    other.hears("2001:db8::");
    one.bans(&["flush"]).exits(0);
    other.forgets("2001:db8::");
    let late = shared(&origin, &valkey.url(""));
    assert!(!late.has("2001:db8::"), "what was flushed stays so");
    for line in ["event=\"bans-add\"", "event=\"bans-flush\"", "by=\"uid "] {
        one.says(line);
    }
}

/// An origin that answers `/401` with that status, and everything else with 200.
fn strict() -> Recorder {
    Recorder::scripted(|_, head, socket| {
        let refuse = head.starts_with(b"GET /401");
        let answer = if refuse { OK.replace("200 OK", "401 No") } else { OK.to_owned() };
        if socket.write_all(answer.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

/// A replica that believes the tests about whom they ask for, and bans after four answers with 401.
fn guarded(origin: &Recorder, store: &str) -> Replica {
    let (builder, socket, folder) = described(origin, &format!("store = \"{store}\""));
    let tables = "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n\
                  [[jail]]\nname = \"door\"\nmatch = { status = [401] }\nmax_retry = 4\n";
    Replica { site: builder.table(tables).start(), socket, _folder: folder }
}

impl Replica {
    /// The status for a client somewhere else.
    fn asked(&self, client: &str, path: &str) -> u16 {
        self.site.ask(path).header("X-Forwarded-For", client).send().status
    }

    /// Waits until a client gets this status, and says how long that took.
    #[track_caller]
    fn comes_to(&self, client: &str, path: &str, status: u16) -> Duration {
        let begin = Instant::now();
        let came = within(PATIENCE, || (self.asked(client, path) == status).then_some(()));
        assert!(came.is_some(), "{client} {path} never gets {status}:\n{}", self.site.stderr());
        begin.elapsed()
    }
}

#[test]
fn who_is_banned_by_one_is_refused_by_the_other() {
    let (valkey, origin) = (Valkey::start(), strict());
    let (one, other) = (guarded(&origin, &valkey.url("")), guarded(&origin, &valkey.url("")));
    one.bans(&["add", "192.0.2.1"]).exits(0);
    println!("refused by the other after {:?}", other.comes_to("192.0.2.1", "/", 403));
    assert_eq!(other.asked("192.0.2.2", "/"), 200);
    other.bans(&["remove", "192.0.2.1"]).exits(0);
    one.comes_to("192.0.2.1", "/", 200);
}

/// Each of them alone has seen too little for a ban.
#[test]
fn failures_spread_over_replicas_make_one_ban_and_the_next_is_longer() {
    let (valkey, origin) = (Valkey::start(), strict());
    let (one, other) = (guarded(&origin, &valkey.url("")), guarded(&origin, &valkey.url("")));
    let fail = |client: &str| {
        for replica in [&one, &other, &one, &other] {
            assert_eq!(replica.asked(client, "/401"), 401);
        }
        let times = (one.comes_to(client, "/", 403), other.comes_to(client, "/", 403));
        println!("{client} is refused by both after {times:?}");
    };
    fail("192.0.2.1");
    assert_eq!(one.asked("192.0.2.2", "/"), 200);
    let level = |replica: &Replica| {
        let rows: serde_json::Value = serde_json::from_str(&replica.bans(&["list", "--json"]).out).unwrap();
        (rows[0]["level"].clone(), rows[0]["seconds_left"].as_u64().unwrap(), rows[0]["jail"].clone())
    };
    let (first, seconds, jail) = level(&other);
    assert_eq!((first.as_u64(), jail.as_str()), (Some(0), Some("door")));
    assert!((590..=675).contains(&seconds), "{seconds}");
    // As if it had ended: its end is put into the past in the store, and both start anew.
    drop((one, other));
    let line = valkey.ask(&["HGET", "{ravelin}:bans", "192.0.2.1"]);
    let line = line.lines().nth(1).unwrap();
    let fields: Vec<&str> = line.split('\t').collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let over = line.replace(fields[4], &(now - 1000).to_string());
    valkey.ask(&["HSET", "{ravelin}:bans", "192.0.2.1", &over]);
    let (one, other) = (guarded(&origin, &valkey.url("")), guarded(&origin, &valkey.url("")));
    assert_eq!(one.asked("192.0.2.1", "/"), 200);
    for replica in [&one, &other, &one, &other] {
        assert_eq!(replica.asked("192.0.2.1", "/401"), 401);
    }
    one.comes_to("192.0.2.1", "/", 403);
    let (second, seconds, _) = level(&one);
    assert_eq!(second.as_u64(), Some(1));
    assert!((1_190..=1_350).contains(&seconds), "twice as long: {seconds}");
}

#[test]
fn a_failure_that_counted_is_forgotten_by_nobody_after_kill_9() {
    let origin = strict();
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file:{}", folder.path().join("state.redb").display());
    let mut one = guarded(&origin, &store);
    for _ in 0..4 {
        one.asked("192.0.2.1", "/401");
    }
    one.comes_to("192.0.2.1", "/", 403);
    std::thread::sleep(Duration::from_secs(1));
    one.site.signal("KILL");
    one.site.ends_within(PATIENCE);
    let again = guarded(&origin, &store);
    assert_eq!(again.asked("192.0.2.1", "/"), 403, "the first request already");
    assert_eq!(again.asked("192.0.2.2", "/"), 200);
}

#[test]
fn the_install_tool_opens_at_every_replica_and_for_nobody_else() {
    let (valkey, origin) = (Valkey::start(), strict());
    let (one, other) = (guarded(&origin, &valkey.url("")), guarded(&origin, &valkey.url("")));
    let path = "/typo3/install.php";
    assert_eq!((one.asked("192.0.2.1", path), other.asked("192.0.2.1", path)), (404, 404));
    let socket = format!("unix:{}", one.socket.display());
    let tool = |words: &[&str]| run(ravelin().arg("install-tool").args(words).args(["--admin", &socket]));
    tool(&["open", "--for", "30m", "--from", "192.0.2.1"]).exits(0);
    assert_eq!(one.asked("192.0.2.1", path), 200);
    other.comes_to("192.0.2.1", path, 200);
    assert_eq!(other.asked("192.0.2.2", path), 404);
    tool(&["close"]).exits(0);
    other.comes_to("192.0.2.1", path, 404);
}

#[test]
fn a_replica_that_comes_later_knows_before_its_first_request() {
    let (valkey, origin) = (Valkey::start(), Recorder::answering(OK));
    let one = shared(&origin, &valkey.url(""));
    one.bans(&["add", "192.0.2.1"]).exits(0);
    let kept =
        within(PATIENCE, || valkey.ask(&["HGETALL", "{ravelin}:bans"]).contains("192.0.2.1").then_some(()));
    assert!(kept.is_some());
    assert!(shared(&origin, &valkey.url("")).has("192.0.2.1"));
    // Every key has an end of its own.
    for key in ["{ravelin}:bans", "{ravelin}:ends"] {
        let answer = valkey.ask(&["PTTL", key]);
        let left: i64 = answer.trim_start_matches(':').trim().parse().unwrap();
        assert!((1..=2 * 86_400_000).contains(&left), "{key}: {answer}");
    }
}

#[test]
fn the_store_dies_under_load_and_comes_back() {
    let origin = Recorder::answering(OK);
    let mut valkey = Valkey::start();
    let one = shared(&origin, &valkey.url(""));
    let other = shared(&origin, &valkey.url(""));
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (stop, answered, failed) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
        let port = one.site.http_port();
        std::thread::spawn(move || {
            let mut wire = Wire::plain(port);
            while !stop.load(Ordering::Relaxed) {
                wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"));
                let count = if wire.reply().status == 200 { &answered } else { &failed };
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    one.bans(&["add", "192.0.2.1"]).exits(0);
    one.bans(&["add", "192.0.2.2"]).exits(0);
    other.hears("192.0.2.2");
    valkey.kill();
    one.says("the store cannot be used");
    // Meanwhile each decides for itself.
    one.bans(&["add", "192.0.2.3"]).exits(0);
    one.bans(&["remove", "192.0.2.1"]).exits(0);
    other.bans(&["add", "192.0.2.4"]).exits(0);
    assert!(one.has("192.0.2.3") && !one.has("192.0.2.1") && !other.has("192.0.2.3"));
    let before = answered.load(Ordering::Relaxed);
    within(PATIENCE, || (answered.load(Ordering::Relaxed) > before + 20).then_some(()))
        .expect("requests go on");
    // It comes back empty: the replicas tell it what they know.
    valkey.run();
    println!("reconciled after {:?} and {:?}", other.hears("192.0.2.3"), one.hears("192.0.2.4"));
    one.hears("192.0.2.2");
    other.forgets("192.0.2.1");
    one.forgets("192.0.2.1");
    stop.store(true, Ordering::Relaxed);
    load.join().expect("no connection was lost");
    assert_eq!(failed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_store_that_hangs_slows_nobody() {
    let (valkey, origin) = (Valkey::start(), Recorder::answering(OK));
    let one = shared(&origin, &valkey.url(""));
    one.bans(&["add", "192.0.2.1"]).exits(0);
    valkey.signal("STOP");
    let began = Instant::now();
    for _ in 0..50 {
        one.site.get_plain("/").status(200);
    }
    println!("50 connections while the store hangs: {:?}", began.elapsed());
    one.bans(&["add", "192.0.2.2"]).exits(0);
    assert!(one.has("192.0.2.2"), "the ledger decides");
    one.says("does not answer");
    // A start does not wait for it either, but for a moment.
    let late = shared(&origin, &valkey.url(""));
    late.site.get_plain("/").status(200);
    assert!(!late.has("192.0.2.1"));
    valkey.signal("CONT");
    late.hears("192.0.2.1");
    late.hears("192.0.2.2");
}

/// The user of docs/state.md, and nobody else.
const FEW_RIGHTS: &str = "user default off\nuser ravelin on >hunter2%two ~{ravelin}:* &{ravelin}:* -@all +hello +ping +select \
         +subscribe +publish +evalsha +eval +script|load +multi +exec +hget +hset +hdel +hscan +zadd +zrem +zscore +zcard \
         +zrange +zrevrange +zrangebyscore +zremrangebyscore +zremrangebyrank +del +pexpire +pexpireat +get +set";

#[test]
fn the_same_user_suffices_over_tls() {
    let (valkey, origin) = (Valkey::tls_with(FEW_RIGHTS), Recorder::answering(OK));
    let state =
        |user: &str| format!("store = \"{}\"\nroots = \"{}\"", valkey.url(user), valkey.roots().display());
    let (one, other) = (
        replica(&origin, &state("ravelin:hunter2%25two")),
        replica(&origin, &state("ravelin:hunter2%25two")),
    );
    one.bans(&["add", "192.0.2.1"]).exits(0);
    other.hears("192.0.2.1");
    let nobody = replica(&origin, &state(""));
    nobody.says("the store cannot be used");
    assert!(!nobody.has("192.0.2.1"), "who has no password is told nothing");
}

#[test]
fn a_user_with_few_rights_and_a_password_suffices_and_no_log_knows_it() {
    let valkey = Valkey::with(FEW_RIGHTS);
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2%two\n").unwrap();
    let address = valkey.url("ravelin:hunter2%25two");
    let one = shared(&origin, &address);
    let state = format!(
        "store = \"{}\"\npassword = \"file:{}\"",
        valkey.url("ravelin"),
        folder.path().join("password").display()
    );
    let other = replica(&origin, &state);
    one.says("bans are kept in this store");
    one.says("the keys of session tickets are kept in this store");
    one.bans(&["add", "192.0.2.1"]).exits(0);
    other.hears("192.0.2.1");
    other.bans(&["remove", "192.0.2.1"]).exits(0);
    one.forgets("192.0.2.1");
    let wrong = shared(&origin, &valkey.url("ravelin:hunter3two"));
    wrong.says("the store cannot be used");
    for said in [one.site.stderr(), other.site.stderr(), wrong.site.stderr(), one.site.stdout()] {
        assert!(!said.contains("hunter"), "{said}");
    }
    assert!(!one.site.stderr().contains("cannot be used"), "nothing was refused:\n{}", one.site.stderr());
}

#[test]
fn what_the_store_refuses_keeps_nothing_else() {
    let valkey = Valkey::with("user default on nopass ~* &* +@all -zrange");
    let origin = Recorder::answering(OK);
    let (one, other) = (shared(&origin, &valkey.url("")), shared(&origin, &valkey.url("")));
    let socket = format!("unix:{}", one.socket.display());
    run(ravelin().args(["install-tool", "open", "--from", "192.0.2.9", "--admin", &socket])).exits(0);
    one.says("does not keep everything");
    one.bans(&["add", "192.0.2.1"]).exits(0);
    other.hears("192.0.2.1");
    let page = one.site.admin("/metrics").text();
    assert!(page.contains("ravelin_state_up 1"), "{page}");
    assert!(page.contains("ravelin_state_changes_total{what=\"refused\"} 1"), "{page}");
}

#[test]
fn the_store_is_reached_over_tls_with_roots_of_ones_own() {
    let (valkey, origin) = (Valkey::tls(), Recorder::answering(OK));
    let state = format!("store = \"{}\"\nroots = \"{}\"", valkey.url(""), valkey.roots().display());
    let (one, other) = (replica(&origin, &state), replica(&origin, &state));
    one.bans(&["add", "192.0.2.1"]).exits(0);
    other.hears("192.0.2.1");
    let strange = shared(&origin, &valkey.url(""));
    strange.says("the store cannot be used");
    assert!(!strange.has("192.0.2.1"), "a certificate of nobody we know is no store");
    // A pipe that nobody writes to would hold signals and metrics up for ever.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("roots.pem");
    run(Command::new("mkfifo").arg(&pipe)).exits(0);
    let deaf = replica(&origin, &format!("store = \"{}\"\nroots = \"{}\"", valkey.url(""), pipe.display()));
    deaf.says("roots.pem: it is a pipe");
    deaf.bans(&["add", "192.0.2.2"]).exits(0);
    deaf.site.get_plain("/").status(200);
}

#[test]
fn bans_survive_kill_9() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file:{}", folder.path().join("state.redb").display());
    let mut one = shared(&origin, &store);
    one.bans(&["add", "192.0.2.1", "--why", "before the fall"]).exits(0);
    std::thread::sleep(Duration::from_secs(1));
    one.site.signal("KILL");
    one.site.ends_within(PATIENCE);
    let again = shared(&origin, &store);
    again.bans(&["list"]).says("192.0.2.1").says("before the fall");
    assert!(one.socket.exists(), "killed as it was, it left its socket behind");
}

#[test]
fn an_orderly_end_loses_nothing_at_all() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.redb");
    let store = format!("file:{}", file.display());
    let mut one = shared(&origin, &store);
    for n in 1..=20 {
        one.bans(&["add", &format!("192.0.2.{n}")]).exits(0);
    }
    one.site.signal("INT");
    one.site.ends_within(PATIENCE);
    assert!(!one.socket.exists(), "it took its socket away");
    // Now nobody has the file, and it can be asked itself.
    let offline = |words: &[&str]| run(ravelin().arg("bans").args(words).args(["--state", &store]));
    assert_eq!(offline(&["list"]).exits(0).out.lines().count(), 21);
    offline(&["remove", "192.0.2.7"]).exits(0);
    offline(&["add", "192.0.2.99", "--for", "1h"]).exits(0);
    let again = shared(&origin, &store);
    let list = again.bans(&["list"]).out;
    assert!(list.contains("192.0.2.99") && !list.contains("192.0.2.7 "), "{list}");
    offline(&["list"]).exits(1).says("another process").says("admin");
    let mode =
        |path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!((mode(&file) & 0o777, mode(&again.socket) & 0o777), (0o600, 0o600));
}

#[test]
fn a_damaged_file_is_set_aside_and_service_goes_on() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.redb");
    std::fs::write(&file, "no database").unwrap();
    let one = shared(&origin, &format!("file:{}", file.display()));
    one.site.get_plain("/").status(200);
    one.says("is damaged and was set aside");
    let aside = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains(".corrupt-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), "no database");
    one.bans(&["add", "192.0.2.1"]).exits(0);
    assert!(one.has("192.0.2.1"));
}

#[test]
fn two_on_one_file_the_second_waits_for_it_and_serves_meanwhile() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file:{}", folder.path().join("state.redb").display());
    let mut one = shared(&origin, &store);
    one.bans(&["add", "192.0.2.1"]).exits(0);
    let next = shared(&origin, &store);
    next.says("in use by another process");
    next.site.get_plain("/").status(200);
    one.site.signal("INT");
    one.site.ends_within(PATIENCE);
    next.hears("192.0.2.1");
}

#[test]
fn only_the_socket_changes_anything() {
    let origin = Recorder::answering(OK);
    let one = shared(&origin, "memory");
    for path in ["/-/bans", "/-/install-tool"] {
        one.site.admin(path).status(403).shows("unix socket alone");
    }
    let curl = |method: &str, target: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-X", method, "--unix-socket"])
            .arg(&one.socket)
            .arg(format!("http://ravelin{target}"));
        run(&mut curl)
    };
    curl("POST", "/-/bans?client=192.0.2.1&for=30m").says("is banned for 30 min");
    curl("GET", "/-/bans").says("\"who\":\"192.0.2.1\"");
    curl("DELETE", "/-/bans?client=192.0.2.1").says("no longer banned");
    curl("GET", "/-/readyz").says("ready");
    let socket = format!("unix:{}", one.socket.display());
    let tool = |words: &[&str]| run(ravelin().arg("install-tool").args(words).args(["--admin", &socket]));
    tool(&["open", "--for", "30m", "--from", "192.0.2.0/24"]).exits(0).says("for 30 min");
    tool(&["list"]).exits(0).says("192.0.2.0/24");
    tool(&["close"]).exits(0);
    tool(&["open", "--from", "0.0.0.0/0"]).exits(1).says("nearly everybody");
    run(ravelin().args(["health", "--admin", &socket])).exits(0).says("ready");
    one.says("install-tool-open");
}

#[test]
fn without_a_word_bans_are_kept_in_the_services_state_directory() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let site = proxy()
        .site(HOST, &origin)
        .admin_socket(&socket)
        .variable("STATE_DIRECTORY", &folder.path().display().to_string())
        .start();
    let one = Replica { site, socket, _folder: folder };
    one.says("bans are kept in this store");
    let file = one.socket.with_file_name("ravelin.redb");
    assert!(file.exists(), "{}", one.site.stderr());
}

/// How many lines of `log` match, according to the real fail2ban.
#[track_caller]
fn fail2ban(log: &std::path::Path, filter: &str) -> usize {
    let said = run(Command::new("fail2ban-regex").arg(log).arg(filter));
    let summary =
        said.out.lines().find(|line| line.starts_with("Lines:")).unwrap_or_else(|| panic!("{}", said.all()));
    // "Lines: 5 lines, 0 ignored, 3 matched, 2 missed"
    let matched = summary.split(',').find_map(|part| part.trim().strip_suffix(" matched"));
    matched.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{summary}"))
}

#[test]
fn fail2ban_reads_our_log() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    site.get_plain("/").status(200);
    site.get_plain("/typo3/login").status(200);
    // Whoever writes what the filter looks for into an address finds it escaped.
    site.get_plain("/?x=%22,%22client%22:%22192.0.2.9%22,%22login_verdict%22:%22failure%22").status(200);
    let mut wire = site.wire();
    wire.say(&format!(
        "GET /?\",\"client\":\"192.0.2.9\",\"step\":\"ban\",\"reason\":\" HTTP/1.1\nHost: {HOST}\n\n"
    ));
    for path in ["/%00", "/a%2fb", "/%zz"] {
        let mut wire = site.wire();
        wire.say(&format!("GET {path} HTTP/1.1\nHost: {HOST}\n\n"));
        assert!(wire.reply().status >= 400, "{path}");
    }
    let lines = || site.stdout().lines().map(str::to_owned).collect::<Vec<_>>();
    within(PATIENCE, || (lines().len() >= 7).then_some(())).expect("seven lines");
    let filter = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/fail2ban/filter.d/");
        format!("{path}{name}.conf")
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut text = site.stdout();
    std::fs::write(&log, &text).unwrap();
    let refused = lines()
        .iter()
        .filter(|line| line.contains("\"step\":\"path\"") || line.contains("\"step\":\"framing\""))
        .count();
    assert!(refused >= 3, "{text}");
    assert_eq!(fail2ban(&log, &filter("ravelin-refused")), refused);
    assert_eq!(fail2ban(&log, &filter("ravelin-login")), 0);
    // A login that failed is a member more, behind the status.
    let line = lines().into_iter().find(|line| line.contains("/typo3/login")).unwrap();
    for verdict in ["failure", "locked-by-core", "success", "neutral"] {
        let member = format!(",\"login\":\"backend\",\"login_verdict\":\"{verdict}\",\"received\":");
        text.push_str(&line.replace(",\"received\":", &member));
        text.push('\n');
    }
    std::fs::write(&log, &text).unwrap();
    assert_eq!(fail2ban(&log, &filter("ravelin-login")), 2);
}

#[test]
fn recipes_for_apaches_log_read_ours() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).plain_serves().table("[log]\naccess = \"combined\"").start();
    for path in ["/typo3/index.php", "/typo3/login?loginProvider=1433416747", "/"] {
        let port = site.http_port();
        let mut wire = Wire::plain(port);
        wire.say(&format!("POST {path} HTTP/1.1\nHost: {HOST}\nContent-Length: 0\n\n"));
        assert_eq!(wire.reply().status, 200);
    }
    within(PATIENCE, || (site.stdout().lines().count() >= 3).then_some(())).expect("three lines");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    std::fs::write(&log, site.stdout()).unwrap();
    // In the shapes that recipes for TYPO3 on Apache have.
    assert_eq!(fail2ban(&log, r"^<HOST> -.*POST.*/typo3/index\.php"), 1);
    assert_eq!(
        fail2ban(&log, r#"^<HOST> \S+ \S+ \[\] "POST /typo3/(index\.php|login)\S* HTTP/[\d.]+" (200|403) "#),
        2
    );
}

#[test]
fn what_is_no_store_is_said_without_its_password() {
    let said = run(ravelin().args([
        "run",
        "--listen",
        "http://127.0.0.1:1",
        "--upstream",
        "http://127.0.0.1:2",
        "--state",
        "valkey://u:hunter2@:x",
    ]));
    said.exits(1).says("store").says("valkeys://");
    assert!(!said.all().contains("hunter2"), "{}", said.all());
}
