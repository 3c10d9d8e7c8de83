//! As a systemd service: it says when it is ready, reloading, stopping, and that it is alive.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::Duration;

use crate::harness::{ravelin, within};

/// A service that is ended with its test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_hears_of_every_turn() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut heard = Vec::new();
    let mut hears = |what: &str| {
        let mut buffer = [0; 4096];
        let found = within(Duration::from_secs(10), || {
            let size = manager.recv(&mut buffer).ok()?;
            heard.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
            heard.last().filter(|said| said.contains(what)).cloned()
        });
        found.unwrap_or_else(|| panic!("{what} was not said, but {heard:?}"))
    };
    let mut command = ravelin();
    command
        .args(["run", "--listen", "http://127.0.0.1:0", "--upstream", "http://127.0.0.1:9"])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "400000");
    let mut service = Service(command.spawn().unwrap());
    assert!(hears("READY=1").contains("STATUS=serving generation "));
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &service.0.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("HUP");
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    signal("TERM");
    hears("STOPPING=1");
    // It is still watched while it serves on.
    hears("WATCHDOG=1");
    signal("TERM");
    assert!(service.0.wait().unwrap().success());
}
