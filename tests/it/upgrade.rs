//! One process takes another's place: nobody notices, and who fails to take it changes nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::harness::ports::Port;
use crate::harness::recorder::{Next, OK};
use crate::harness::{HOST, Ravelin, Recorder, Wire, apache, certs, clients, proxy, ravelin, run, within};

const PATIENCE: Duration = Duration::from_secs(20);
const AT_ONCE: &str = "[shutdown]\ndrain_delay = \"0 s\"\ngrace = \"15 s\"";

/// Processes that are no child of the test: ended with it.
#[derive(Default)]
pub(crate) struct Kin(Vec<String>);

impl Drop for Kin {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = Command::new("kill").args(["-s", "KILL", pid]).stderr(Stdio::null()).status();
        }
    }
}

impl Kin {
    /// The newest process; `first` if there is no other.
    fn newest(&self, first: &Ravelin) -> String {
        self.0.last().cloned().unwrap_or_else(|| first.pid().to_string())
    }

    /// Upgrades the newest process, and says which one serves now.
    #[track_caller]
    pub(crate) fn upgrade(&mut self, site: &Ravelin) -> String {
        let known = self.0.len();
        send("USR2", &self.newest(site));
        let heir = within(PATIENCE, || heirs(&site.stderr()).get(known).cloned());
        let heir = heir.unwrap_or_else(|| panic!("nobody took over:\n{}", site.stderr()));
        self.0.push(heir.clone());
        heir
    }
}

/// The processes that took over, in order.
fn heirs(said: &str) -> Vec<String> {
    let lines = said.lines().filter(|line| line.contains("upgraded: "));
    lines.filter_map(|line| Some(line.split("process=").nth(1)?.split(' ').next()?.to_owned())).collect()
}

#[track_caller]
fn send(signal: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", signal, pid]).status().unwrap().success(), "{signal} to {pid}");
}

fn is_gone(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.is_empty() || status.contains(") Z ")
}

/// A connection for each request, again and again; how many were answered, and what went wrong.
fn knock(port: u16, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    let request =
        format!("GET /_assets/0a1b2c3d/Css/site.css HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    while !stop.load(Relaxed) {
        let once = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            Ok(all)
        };
        match once() {
            Ok(all) if all.starts_with(b"HTTP/1.1 200 ") => drop(answered.fetch_add(1, Relaxed)),
            Ok(all) => wrong.push(String::from_utf8_lossy(&all).into_owned()),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    wrong
}

#[test]
fn no_connection_is_lost_over_three_upgrades() {
    let mut site = proxy().site(HOST, apache()).table(AT_ONCE).plain_serves().start();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let port = site.http_port();
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || knock(port, &stop, &answered))
        })
        .collect();
    // Kept connections, over both versions, by somebody else's program.
    let load = |version: &[&str], scheme: &str, port: u16| {
        let mut h2load = Command::new("h2load");
        let url = format!("{scheme}://{HOST}:{port}/_assets/0a1b2c3d/Css/site.css");
        h2load.args(version).args([
            "-t1",
            "-c8",
            "-m4",
            "-D4",
            &format!("--connect-to=127.0.0.1:{port}"),
            &url,
        ]);
        h2load.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let loads = [load(&["--h1"], "http", port), load(&[], "https", site.https_port())];
    let mut kin = Kin::default();
    for _ in 0..3 {
        let before = answered.load(Relaxed);
        let more = || (answered.load(Relaxed) > before + 20).then_some(());
        assert!(within(PATIENCE, more).is_some(), "there is load");
        kin.upgrade(&site);
    }
    for load in loads {
        let out = load.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(!said.contains("requests: 0 total"), "{said}");
    }
    stop.store(true, Relaxed);
    for client in clients {
        assert_eq!(client.join().unwrap(), Vec::<String>::new(), "{}", site.stderr());
    }
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    for older in &kin.0[..2] {
        assert!(within(PATIENCE, || is_gone(older).then_some(())).is_some(), "{older} should have ended");
    }
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn what_is_under_way_is_finished_by_the_old_one() {
    let open = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&open);
    let origin = Recorder::scripted(move |_, head, socket| {
        if head.starts_with(b"GET /slow") {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
            within(PATIENCE, || waits.load(Relaxed).then_some(()));
            let _ = socket.write_all(b"56789");
        } else {
            let _ = socket.write_all(OK.as_bytes());
        }
        Next::KeepAlive
    });
    let mut site = proxy().site(HOST, &origin).table(AT_ONCE).plain_serves().start();
    let mut kin = Kin::default();
    let mut download = site.wire_tls();
    download.say(&format!("GET /slow HTTP/1.1\nHost: {HOST}\n\n"));
    assert_eq!(download.head().status, 200);
    let mut upload = site.wire();
    upload.say(&format!("POST /upload HTTP/1.1\nHost: {HOST}\nContent-Length: 6\n\nabc"));
    assert!(within(PATIENCE, || origin.text().contains("POST /upload").then_some(())).is_some());
    let mut kept = site.wire();
    kept.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200).no_header("connection");
    kin.upgrade(&site);
    // Who has a connection is told to come back, and loses nothing.
    kept.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n"))
        .reply()
        .status(200)
        .header_once("connection", "close");
    site.get_plain("/").status(200).no_header("connection");
    upload.send("def").reply().status(200).shows("ok");
    open.store(true, Relaxed);
    assert_eq!(download.exactly(10), b"0123456789");
    drop((download, upload, kept));
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    site.get("/").status(200);
}

#[test]
fn sessions_go_on_with_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("[state]\nstore = \"file:{}\"\n{AT_ONCE}", folder.path().join("bans.redb").display());
    let origin = Recorder::answering(OK);
    let mut site = proxy().site(HOST, &origin).table(&store).start();
    let (mut kin, client) = (Kin::default(), clients::nobody());
    let resumes = |port| {
        let mut wire = Wire::tls_as(port, HOST, &client);
        wire.say(&format!("GET / HTTP/1.1\nHost: {HOST}\nConnection: close\n\n")).reply().status(200);
        wire.resumed()
    };
    assert!(!resumes(site.https_port()) && resumes(site.https_port()));
    kin.upgrade(&site);
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    assert!(resumes(site.https_port()), "{}", site.stderr());
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("[state]\nstore = \"file:{}\"\n{AT_ONCE}", folder.path().join("bans.redb").display());
    let mut site = proxy().site(HOST, apache()).table(&store).start();
    let mut kin = Kin::default();
    let good = std::fs::read_to_string(site.config()).unwrap();
    // It cannot read its configuration; or it can, and not use it.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let busy =
        format!("[[listen]]\nurl = \"http://127.0.0.1:{}\"\n\n[admin]", taken.local_addr().unwrap().port());
    for (number, bad) in
        [good.replace("preset", "praeset"), good.replace("[admin]", &busy)].iter().enumerate()
    {
        std::fs::write(site.config(), bad).unwrap();
        site.signal("USR2");
        let failures =
            || (site.stderr().matches("upgrade failed, nothing has changed").count() > number).then_some(());
        assert!(within(PATIENCE, failures).is_some(), "{}", site.stderr());
        assert!(site.lives());
        site.get("/").status(200);
    }
    // A good one takes over, also with an address that the old one did not have, and another number of workers.
    let port = Port::reserve();
    let more = format!(
        "[limits]\nworkers = 5\n[[listen]]\nurl = \"http://127.0.0.1:{}\"\nplain = \"serve\"\n\n[admin]",
        port.number()
    );
    std::fs::write(site.config(), good.replace("[admin]", &more)).unwrap();
    kin.upgrade(&site);
    Wire::plain(port.number()).say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(200);
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    for _ in 0..20 {
        site.get("/").status(200);
    }
}

/// The successor has read what was there before, and takes its time: its store of bans does not answer.
#[test]
fn a_reload_while_a_successor_is_on_its_way_reaches_it() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let store = format!("valkey://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let table = format!("[state]\nstore = \"{store}\"\n{AT_ONCE}\n[headers]\nX-Edition = \"first\"");
    let mut site = proxy().site(HOST, &Recorder::answering(OK)).table(&table).start();
    let in_force = |times| {
        let said = || (site.stderr().matches("configuration in force").count() >= times).then_some(());
        assert!(within(PATIENCE, said).is_some(), "{times} times:\n{}", site.stderr());
    };
    site.signal("USR2");
    in_force(2);
    assert_eq!(heirs(&site.stderr()).len(), 0, "it must not serve yet");
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), text.replace("\"first\"", "\"second\"")).unwrap();
    site.signal("HUP");
    in_force(4);
    let _kin = Kin(heirs(&site.stderr()));
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    assert_eq!(site.get("/").header("x-edition"), Some("second"), "{}", site.stderr());
}

#[test]
fn bans_and_the_admin_socket_go_over() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let store = format!("[state]\nstore = \"file:{}\"\n{AT_ONCE}", folder.path().join("bans.redb").display());
    let mut site = proxy().site(HOST, apache()).table(&store).admin_socket(&socket).start();
    let bans = |arguments: &[&str]| {
        let admin = format!("unix:{}", socket.display());
        run(ravelin().args(["bans", arguments[0], "--admin", &admin]).args(&arguments[1..]))
    };
    bans(&["add", "192.0.2.66"]).exits(0);
    let mut kin = Kin::default();
    kin.upgrade(&site);
    // At once: the new one knew them before its first request.
    bans(&["list"]).exits(0).says("192.0.2.66");
    bans(&["add", "192.0.2.67"]).exits(0);
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0), "{}", site.stderr());
    kin.upgrade(&site);
    bans(&["list"]).exits(0).says("192.0.2.66").says("192.0.2.67");
    assert!(!site.stderr().contains("WARN ravelin::state"), "{}", site.stderr());
    site.get("/").status(200);
    // The last one takes the name away.
    send("INT", &kin.newest(&site));
    assert!(within(PATIENCE, || (!socket.exists()).then_some(())).is_some());
}

#[test]
fn systemd_is_told_which_process_is_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let site = proxy()
        .site(HOST, apache())
        .table(AT_ONCE)
        .variable("NOTIFY_SOCKET", &notify.display().to_string())
        .start();
    let mut heard = Vec::new();
    let mut hears = |what: &str| -> String {
        while !heard.last().is_some_and(|said: &String| said.contains(what)) {
            let mut buffer = [0; 4096];
            let size =
                manager.recv(&mut buffer).unwrap_or_else(|_| panic!("{what} was not said, but {heard:?}"));
            heard.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
        heard.pop().unwrap_or_default()
    };
    hears("READY=1");
    let mut kin = Kin::default();
    let heir = kin.upgrade(&site);
    hears("RELOADING=1");
    let said = hears("MAINPID=");
    assert!(said.contains(&format!("MAINPID={heir}\n")) && said.contains("READY=1"), "{said}");
    // The successor is the service now: it alone speaks, and may hand over again.
    kin.upgrade(&site);
    assert!(hears("MAINPID=").contains(&format!("MAINPID={}", kin.newest(&site))));
    send("TERM", &kin.newest(&site));
    hears("STOPPING=1");
    assert!(!heard.iter().any(|said| said.contains("STOPPING=1")), "the old ones only leave: {heard:?}");
}

#[test]
fn systemd_may_open_the_sockets() {
    let (port, folder) = (Port::reserve(), tempfile::tempdir().unwrap());
    let config = folder.path().join("ravelin.toml");
    certs::issue(folder.path(), "www", &[HOST]);
    let text = format!(
        "[[listen]]\nurl = \"http://127.0.0.1:{}\"\nplain = \"serve\"\n[[site]]\nhosts = [\"*\"]\nupstream = \"{}\"\n\
         preset = \"typo3\"\n",
        port.number(),
        apache().url
    );
    std::fs::write(&config, text).unwrap();
    let errors = std::fs::File::create(folder.path().join("stderr")).unwrap();
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &format!("127.0.0.1:{}", port.number()), env!("CARGO_BIN_EXE_ravelin")]);
    activate.args(["run", "--config"]).arg(&config).stdout(Stdio::null()).stderr(errors);
    let mut activated = activate.spawn().unwrap();
    let _kin = Kin(vec![activated.id().to_string()]);
    // The first connection starts it, and is not lost.
    let listening = || TcpStream::connect(("127.0.0.1", port.number())).ok();
    let mut first = within(PATIENCE, listening).expect("it listens");
    first
        .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut all = String::new();
    first.read_to_string(&mut all).unwrap();
    let said = std::fs::read_to_string(folder.path().join("stderr")).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 "), "{all}\n{said}");
    assert!(said.contains("sockets were handed over"), "{said}");
    send("INT", &activated.id().to_string());
    assert!(activated.wait().unwrap().success());
}

/// The name leads to another program by now: one that gets as far as to have the state file, and ends. Then to the real
/// one again.
#[test]
fn a_successor_that_dies_with_the_state_in_its_hands_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (port, store, socket) =
        (Port::reserve(), dir.path().join("bans.redb"), dir.path().join("admin.sock"));
    let (program, config) = (dir.path().join("ravelin"), dir.path().join("ravelin.toml"));
    let leads_to = |target: &Path| {
        let _ = std::fs::remove_file(&program);
        std::os::unix::fs::symlink(target, &program).unwrap();
    };
    let real = Path::new(env!("CARGO_BIN_EXE_ravelin"));
    let impostor = dir.path().join("impostor");
    // The line is the last descriptor that it gets.
    let script = "#!/usr/bin/env python3\nimport os, socket\n\
        line = socket.socket(fileno=2 + int(os.environ['LISTEN_FDS']))\nline.send(b'prepared')\nline.recv(16)\n";
    std::fs::write(&impostor, script).unwrap();
    std::fs::set_permissions(&impostor, std::fs::Permissions::from_mode(0o755)).unwrap();
    leads_to(real);
    let text = format!(
        "[[listen]]\nurl = \"http://127.0.0.1:{}\"\nplain = \"serve\"\n[[site]]\nhosts = [\"*\"]\nupstream = \"{}\"\n\
         preset = \"typo3\"\n[admin]\nlisten = [\"unix:{}\"]\n[state]\nstore = \"file:{}\"\n{AT_ONCE}\n",
        port.number(),
        apache().url,
        socket.display(),
        store.display()
    );
    std::fs::write(&config, text).unwrap();
    let errors = dir.path().join("stderr");
    let mut command = Command::new(&program);
    command.args(["run", "--config"]).arg(&config).stdout(Stdio::null());
    let mut first = command.stderr(std::fs::File::create(&errors).unwrap()).spawn().unwrap();
    let mut kin = Kin(vec![first.id().to_string()]);
    let said = || std::fs::read_to_string(&errors).unwrap_or_default();
    let count = |what: &str| said().matches(what).count();
    let happens = |what: &str, times: usize| {
        assert!(within(PATIENCE, || (count(what) >= times).then_some(())).is_some(), "{what}:\n{}", said());
    };
    let bans = |arguments: &[&str]| {
        let admin = format!("unix:{}", socket.display());
        run(ravelin().args(["bans", arguments[0], "--admin", &admin]).args(&arguments[1..]))
    };
    happens("listening on", 1);
    leads_to(&impostor);
    send("USR2", &first.id().to_string());
    happens("upgrade failed, nothing has changed: the new process ended", 1);
    happens("bans are kept in this store", 2);
    bans(&["add", "192.0.2.68"]).exits(0);
    leads_to(real);
    send("USR2", &first.id().to_string());
    happens("upgraded: ", 1);
    kin.0.push(heirs(&said()).remove(0));
    bans(&["list"]).exits(0).says("192.0.2.68");
    assert!(first.wait().unwrap().success(), "{}", said());
}
