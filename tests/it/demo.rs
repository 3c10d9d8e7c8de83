//! `ravelin demo`: one command on a fresh machine, a site and the difference that Ravelin makes.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::browser::visit;
use crate::harness::curl::{Ask, Over};
use crate::harness::ports::Port;
use crate::harness::{ravelin, run, within};

/// A running demo, at ports of its own so that nothing else on the machine is in its way.
pub(crate) struct Demo {
    child: Child,
    said: Arc<Mutex<String>>,
    https: Port,
    http: Port,
    _data: tempfile::TempDir,
}

impl Demo {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (https, http) = (Port::reserve(), Port::reserve());
        let mut command = demo(&https, &http);
        command.env("RAVELIN_DATA", data.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (all, out) = (Arc::clone(&said), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        let demo = Self { child, said, https, http, _data: data };
        let shown = within(Duration::from_secs(20), || demo.said().contains("Ctrl-C ends it").then_some(()));
        assert!(shown.is_some(), "the demo did not come to its table; it said:\n{}", demo.said());
        demo
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where the site is with Ravelin in front.
    pub(crate) fn secure(&self) -> String {
        format!("https://localhost:{}", self.https.number())
    }

    /// The port of the site without Ravelin, as the demo tells it.
    #[track_caller]
    pub(crate) fn alone(&self) -> u16 {
        let said = self.said();
        let line = said.lines().find(|line| line.contains("the same site without Ravelin"));
        let url = line.and_then(|line| line.split_whitespace().next());
        let port = url.and_then(|url| url.rsplit(':').next()).and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("it does not say where the site alone is:\n{said}"))
    }

    fn ask(&self, path: &str) -> Ask {
        Ask::url(&format!("{}{path}", self.secure()), Over::H2).arg("-k")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn demo(https: &Port, http: &Port) -> Command {
    let mut command = ravelin();
    command.args(["demo", "--https", &https.number().to_string(), "--http", &http.number().to_string()]);
    command.stdin(Stdio::null());
    command
}

/// The two values of a row of the table.
#[track_caller]
fn values<'t>(table: &'t str, section: &str, name: &str) -> (&'t str, &'t str) {
    let mut lines = table.lines().skip_while(|line| !line.starts_with(section)).skip(1);
    let line = lines.find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no row {name:?} under {section:?} in\n{table}"));
    let before = line.get(32..60).unwrap_or_default().trim();
    (before, line.get(60..).unwrap_or_default().trim())
}

#[test]
fn it_shows_urls_and_the_difference_and_ends_cleanly() {
    let mut demo = Demo::start();
    let said = demo.said();
    for url in [demo.secure(), format!("http://localhost:{}", demo.http.number())] {
        assert!(said.contains(&url), "{url} is missing in:\n{said}");
    }
    demo.ask("/").send().status(200).hardened().no_header("strict-transport-security");
    demo.ask("/typo3/").send().status(200).hardened();
    demo.ask("/").method("PUT").send().status(405).hardened();
    let plain = Ask::url(&format!("http://localhost:{}/x?y=1", demo.http.number()), Over::Plain).send();
    plain
        .status(301)
        .header_once("location", &format!("{}/x?y=1", demo.secure()))
        .no_header("strict-transport-security");

    run(Command::new("kill").args(["-s", "INT", &demo.child.id().to_string()])).exits(0);
    let status = within(Duration::from_secs(10), || demo.child.try_wait().ok().flatten());
    assert_eq!(status.and_then(|status| status.code()), Some(0), "Ctrl-C ends it cleanly");
    assert!(TcpStream::connect(("127.0.0.1", demo.https.number())).is_err(), "and nothing is left behind");
}

#[test]
fn the_table_says_what_the_wire_says() {
    let demo = Demo::start();
    let table = demo.said();
    let alone = Ask::url(&format!("http://localhost:{}/", demo.alone()), Over::Plain).send();
    // A public name, as in the table: for localhost there is no HSTS.
    let guarded = demo.ask("/").header("Host", "www.example.org").send();
    for (row, field) in [
        ("X-Frame-Options", "x-frame-options"),
        ("X-Content-Type-Options", "x-content-type-options"),
        ("Referrer-Policy", "referrer-policy"),
        ("Strict-Transport-Security", "strict-transport-security"),
        ("Content-Security-Policy", "content-security-policy"),
        ("Cross-Origin-Resource-Policy", "cross-origin-resource-policy"),
    ] {
        assert_eq!(alone.header(field), None, "{alone}");
        let want = guarded.header(field).unwrap_or_else(|| panic!("no {field} on {guarded}"));
        assert_eq!(values(&table, "Headers", row), ("-", want), "{table}");
    }
    for (row, field) in
        [("Server", "server"), ("X-Powered-By", "x-powered-by"), ("X-TYPO3-Parsetime", "x-typo3-parsetime")]
    {
        guarded.no_header(field);
        assert_eq!(values(&table, "Leaks", row), (alone.header(field).unwrap(), "gone"), "{table}");
    }
    assert_eq!(values(&table, "Cookies", "PHPSESSID"), ("-", "Secure, HttpOnly"));
    assert_eq!(values(&table, "Requests", "http://"), ("200, in the clear", "301 to https"));
    assert_eq!(values(&table, "Requests", "/typo3"), ("301 to http", "301 to https"));
    assert_eq!(values(&table, "MDN", "Front page"), ("F   0", "B+  80"));
    assert!(table.lines().all(|line| line.chars().count() <= 100), "100 columns:\n{table}");
}

#[test]
fn once_ends_by_itself_and_leaves_nothing() {
    let (https, http) = (Port::reserve(), Port::reserve());
    // A home where nothing can be written: the certificate is a throw-away then.
    let said = run(demo(&https, &http).arg("--once").env("RAVELIN_DATA", "/proc/nowhere"));
    said.exits(0).says("throw-away").says("Observatory").says("B+");
    assert_eq!(said.err, "", "nothing spoils the table");
    assert!(TcpListener::bind(("127.0.0.1", https.number())).is_ok());
}

#[test]
fn a_busy_demo_port_is_named() {
    let data = tempfile::tempdir().unwrap();
    for flag in ["--https", "--http"] {
        let (https, http) = (Port::reserve(), Port::reserve());
        let busy = if flag == "--https" { https.number() } else { http.number() };
        let _taken = TcpListener::bind(("127.0.0.1", busy)).unwrap();
        let said = run(demo(&https, &http).arg("--once").env("RAVELIN_DATA", data.path()));
        said.exits(1)
            .says(&format!("port {busy} is in use by "))
            .says(&format!("process {}", std::process::id()));
        said.says(&format!("`{flag} "));
    }
}

#[test]
fn the_usual_ports_are_those_of_the_readme() {
    run(ravelin().args(["demo", "--help"])).exits(0).says("[default: 8443]").says("[default: 8080]");
}

#[test]
fn its_page_shows_what_reached_the_browser() {
    let demo = Demo::start();
    let page = visit(&format!("{}/", demo.secure()));
    assert!(page.contains("stands behind Ravelin</h1>"), "{page}");
    assert!(page.contains("data-headers=\"shown\""), "its script runs: {page}");
    assert!(page.contains("<li class=\"good\">") && !page.contains("<li class=\"bad\">"), "{page}");
    let alone = visit(&format!("http://localhost:{}/", demo.alone()));
    assert!(alone.contains("without Ravelin</h1>") && !alone.contains("<li class=\"good\">"), "{alone}");
}
