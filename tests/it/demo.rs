//! `ravelin demo`: one command on a fresh machine, a site and the difference that Ravelin makes.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::harness::browser::visit;
use crate::harness::curl::{Ask, Over};
use crate::harness::{ravelin, run, within};

/// The ports are fixed, so there is one demo at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Demo {
    child: Child,
    said: std::sync::Arc<Mutex<String>>,
    home: tempfile::TempDir,
}

impl Demo {
    #[track_caller]
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = ravelin();
        command.arg("demo").env("HOME", home.path()).env("XDG_DATA_HOME", home.path().join("data"));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = std::sync::Arc::new(Mutex::new(String::new()));
        let (all, out) = (std::sync::Arc::clone(&said), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        let demo = Self { child, said, home };
        let up = within(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", 8443)).ok());
        assert!(up.is_some(), "the demo does not listen on 8443; it said:\n{}", demo.said());
        demo
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn https(path: &str) -> Ask {
    Ask::url(&format!("https://localhost:8443{path}"), Over::H2).arg("-k")
}

#[test]
fn it_shows_urls_and_the_difference_and_ends_cleanly() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut demo = Demo::start();
    for word in
        ["https://localhost:8443", "http://localhost:8080", "X-Frame-Options", "Server", "Observatory"]
    {
        let shown = within(Duration::from_secs(10), || {
            demo.said().to_lowercase().contains(&word.to_lowercase()).then_some(())
        });
        assert!(shown.is_some(), "{word:?} is missing in:\n{}", demo.said());
    }
    https("/").send().status(200).hardened();
    https("/typo3/").send().status(200).hardened();
    https("/").method("PUT").send().status(405).hardened();
    let plain = Ask::url("http://localhost:8080/x?y=1", Over::Plain).send();
    plain
        .status(301)
        .header_once("location", "https://localhost:8443/x?y=1")
        .no_header("strict-transport-security");
    let document = visit("https://localhost:8443/");
    assert!(document.contains("<h1"), "the page renders: {document}");

    run(Command::new("kill").args(["-s", "INT", &demo.child.id().to_string()])).exits(0);
    let status = within(Duration::from_secs(10), || demo.child.try_wait().ok().flatten());
    assert_eq!(status.and_then(|status| status.code()), Some(0), "Ctrl-C ends it cleanly");
    assert!(TcpStream::connect(("127.0.0.1", 8443)).is_err(), "and nothing is left behind");
    assert!(demo.home.path().exists());
}

#[test]
fn a_busy_demo_port_is_named() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Ok(_taken) = std::net::TcpListener::bind(("127.0.0.1", 8443)) else {
        panic!("port 8443 is used by something else on this machine");
    };
    let said = run(ravelin().arg("demo").stdin(Stdio::null()));
    said.exits(1).says("8443");
}
