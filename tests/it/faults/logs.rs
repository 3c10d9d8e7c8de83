//! A disk that is full, a reader that is stuck, a file that is moved away: requests go on, lines are
//! counted.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::PATIENCE;
use super::load::{Connections, Load, get};
use crate::harness::curl::{Ask, Over};
use crate::harness::ports::Port;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, ravelin, within};

/// A site whose access log is `file`. One worker, so that there is one lane of lines.
fn logging_to(file: &std::path::Path, origin: &Recorder) -> Ravelin {
    let tables = format!("[log]\nfile = \"{}\"\n[limits]\nworkers = 1", file.display());
    proxy().site(HOST, origin).table(&tables).plain_serves().start()
}

fn lines(site: &Ravelin, result: &str) -> usize {
    let sample = format!("result=\"{result}\"");
    let counted = site.counted(&["ravelin_access_log_lines_total", &sample]);
    counted.to_string().parse().expect("a whole number")
}

/// Diagnostics are written a moment after they are said.
#[track_caller]
fn warned_once(site: &Ravelin) {
    let warnings = || site.stderr().matches("access log: lines are lost").count();
    assert!(within(PATIENCE, || (warnings() > 0).then_some(())).is_some(), "a warning:\n{}", site.stderr());
    assert_eq!(warnings(), 1, "one a minute:\n{}", site.stderr());
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let origin = Recorder::answering(OK);
    // The kernel's own full disk: opening works, each write says ENOSPC.
    let site = logging_to(std::path::Path::new("/dev/full"), &origin);
    let load = Load::new().http1(&site, false, Connections::Kept, "/full");
    load.goes_on(500);
    let done = load.end();
    let all = within(PATIENCE, || (lines(&site, "failed") >= done.answered).then_some(()));
    assert!(all.is_some(), "{} of {} are counted", lines(&site, "failed"), done.answered);
    assert_eq!(lines(&site, "written"), 0);
    warned_once(&site);
    println!("measured: {} requests with a full disk, the slowest {:?}", done.answered, done.slowest);
}

#[test]
fn a_stuck_reader_costs_lines_and_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("log.fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Opened for both, so that opening does not wait for the other side.
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let origin = Recorder::answering(OK);
    let site = logging_to(&fifo, &origin);
    // Long lines, so that what is kept in memory is full after few thousand of them.
    let request = get("/stuck", Connections::Kept, &format!("User-Agent: {}\n", "u".repeat(4000)));
    let mut wire = site.wire();
    let mut asked = 0;
    while lines(&site, "dropped") == 0 {
        for _ in 0..500 {
            wire.say(&request).reply().status(200);
        }
        asked += 500;
        assert!(asked < 100_000, "never full: {}", site.metrics());
    }
    // The worker has written or dropped the line of a request before it answers the next one.
    wire.say(&request).reply().status(200);
    let held = site.resident();
    warned_once(&site);
    // The reader comes back: everything that was accepted arrives, and not one line is cut.
    let dropped = lines(&site, "dropped");
    let drain = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut rest = BufReader::new(reader);
        for _ in dropped..asked {
            rest.read_until(b'\n', &mut text).unwrap();
        }
        text
    });
    let text = String::from_utf8(drain.join().unwrap()).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    println!("measured: of {asked} lines {dropped} dropped, {} KiB resident meanwhile", held / 1024);
}

/// Standard output and standard error are pipes that nobody reads, as of a supervisor that hangs: requests, signals and
/// the end go on.
#[test]
fn streams_that_nobody_reads_hold_nobody_up() {
    let origin = Recorder::answering(OK);
    let port = Port::reserve();
    let dir = tempfile::tempdir().unwrap();
    let (config, admin) = (dir.path().join("ravelin.toml"), Port::reserve());
    let text = format!(
        "[[listen]]\nurl = \"http://127.0.0.1:{}\"\nplain = \"serve\"\n[[site]]\nhosts = [\"*\"]\nupstream = \"{}\"\n\
         preset = \"typo3\"\n[admin]\nlisten = [\"127.0.0.1:{}\"]\n[limits]\nworkers = 1\n[log]\nlevel = \"trace\"\n\
         [shutdown]\ndrain_delay = \"0 s\"\n",
        port.number(),
        origin.url(),
        admin.number()
    );
    fs::write(&config, &text).unwrap();
    let mut command = ravelin();
    command.args(["run", "--config"]).arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let asks = |path: &str| Ask::url(&format!("http://127.0.0.1:{}{path}", admin.number()), Over::Plain);
    let answers = |path: &str| asks(path).try_send().ok();
    assert!(within(PATIENCE, || answers("/-/readyz")).is_some(), "it starts");
    let dropped = || {
        let metrics = answers("/metrics").map(|reply| reply.text()).unwrap_or_default();
        let of = |line: &&str| line.starts_with("ravelin_access_log_lines_total") && line.contains("dropped");
        metrics.lines().find(of).is_some_and(|line| !line.ends_with(" 0"))
    };
    let request = get("/stuck", Connections::Kept, &format!("User-Agent: {}\n", "u".repeat(4000)));
    let mut wire = Wire::plain(port.number());
    while !dropped() {
        for _ in 0..500 {
            wire.say(&request).reply().status(200);
        }
    }
    let signal = |name: &str| {
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
    };
    // A log file to open again, and a reload, wait for nobody either.
    signal("USR1");
    fs::write(&config, text.replace("[shutdown]", "[site.headers]\nX-Generation = \"1\"\n[shutdown]"))
        .unwrap();
    signal("HUP");
    let reloaded = || (wire.say(&request).reply().header("x-generation") == Some("1")).then_some(());
    assert!(within(Duration::from_secs(4), reloaded).is_some(), "a reload waits for nobody");
    drop(wire);
    signal("TERM");
    let ended = within(PATIENCE, || child.try_wait().unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "the end waits for a while only");
}

#[test]
fn a_log_that_is_rotated_under_load_has_one_line_per_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Recorder::answering(OK);
    let tables = format!("[log]\nfile = \"{}\"", path.display());
    let site = proxy().site(HOST, &origin).table(&tables).plain_serves().start();
    let mut load = Load::new();
    for (tls, connections) in
        [(false, Connections::Kept), (false, Connections::New), (true, Connections::Kept)]
    {
        load = load.http1(&site, tls, connections, "/rotated");
    }
    for number in 1..=5 {
        load.goes_on(30);
        fs::rename(&path, dir.path().join(format!("access.log.{number}"))).unwrap();
        site.signal("USR1");
        let again = within(PATIENCE, || path.exists().then_some(()));
        assert!(again.is_some(), "opened again:\n{}", site.stderr());
    }
    load.goes_on(30);
    let asked = load.end().answered;
    let count = || -> usize {
        let files = fs::read_dir(dir.path()).unwrap().map(|file| fs::read_to_string(file.unwrap().path()));
        files.map(|text| text.unwrap().lines().filter(|line| line.contains("/rotated")).count()).sum()
    };
    let all = within(PATIENCE, || (count() == asked).then_some(()));
    assert!(all.is_some(), "{} lines for {asked} requests", count());
    assert_eq!((lines(&site, "dropped"), lines(&site, "failed")), (0, 0));
    assert!(fs::metadata(dir.path().join("access.log.5")).unwrap().len() > 0, "the old files were in use");
    println!("measured: {asked} requests, {asked} lines in 6 files");
}
