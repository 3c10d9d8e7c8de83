//! Headless Chromium: a page as a visitor's browser makes it, printed as the document after its scripts ran.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{run, within};

/// Opens `url` and returns the document's HTML afterwards. Every host resolves to loopback, and any
/// certificate is believed: what is tested here is what the headers do.
#[track_caller]
pub(crate) fn visit(url: &str) -> String {
    open(url, None)
}

/// The same as somebody who believes the authorities of the system and this one, and no other certificate.
#[track_caller]
pub(crate) fn visit_trusting(url: &str, authority: &Path) -> String {
    open(url, Some(authority))
}

/// Makes `authority` known to the browser of the user whose home is `home`.
#[track_caller]
fn trust(home: &Path, authority: &Path) {
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).expect("a folder");
    let database = format!("sql:{}", database.display());
    let certutil =
        |args: &[&str]| run(Command::new("certutil").args(["-d", &database]).args(args)).exits(0).all();
    certutil(&["-N", "--empty-password"]);
    let authority = authority.to_str().expect("a path");
    certutil(&["-A", "-n", "tests", "-t", "C,,", "-i", authority]);
}

#[track_caller]
fn open(url: &str, authority: Option<&Path>) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    if let Some(authority) = authority {
        trust(profile.path(), authority);
    }
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
            "--host-resolver-rules=MAP * 127.0.0.1",
            "--virtual-time-budget=4000",
        ])
        .args(authority.is_none().then_some("--ignore-certificate-errors"))
        .envs(authority.map(|_| ("HOME", profile.path())))
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
