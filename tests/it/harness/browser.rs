//! Headless Chromium: a page as a visitor's browser makes it, printed as the document after its scripts ran.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::within;

/// Opens `url` and returns the document's HTML afterwards. Every host resolves to loopback, and any
/// certificate is believed: what is tested here is what the headers do.
#[track_caller]
pub(crate) fn visit(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let out = profile.path().join("dom");
    let mut chromium = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            "--host-resolver-rules=MAP * 127.0.0.1",
            "--virtual-time-budget=4000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
        .args(["--dump-dom", url])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium starts (tests/run installs it)");
    let ended = within(Duration::from_mins(1), || chromium.try_wait().ok().flatten());
    if ended.is_none() {
        let _ = chromium.kill();
        let _ = chromium.wait();
        panic!("chromium did not come to an end with {url}");
    }
    std::fs::read_to_string(out).unwrap_or_default()
}
