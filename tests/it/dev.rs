//! `ravelin dev`: https in front of a local web server, with an authority that can vouch for nothing else.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::curl::{Ask, Over};
use crate::harness::ports::Port;
use crate::harness::{apache, ravelin, run, within};

struct Dev {
    child: Child,
    data: tempfile::TempDir,
    https: Port,
    _http: Port,
}

impl Dev {
    #[track_caller]
    fn start(host: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (https, http) = (Port::reserve(), Port::reserve());
        let log = std::fs::File::create(data.path().join("said")).unwrap();
        let mut command = dev(data.path());
        command.args(["--to", &apache().url, host]);
        command.args(["--listen", &format!("https://127.0.0.1:{}", https.number())]);
        command.args(["--listen", &format!("http://127.0.0.1:{}", http.number())]);
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let dev = Self { child, data, https, _http: http };
        let up = within(Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", dev.https.number())).ok()
        });
        assert!(up.is_some(), "it does not listen; it said:\n{}", dev.said());
        dev
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.data.path().join("said")).unwrap_or_default()
    }

    /// The root certificate and its key.
    #[track_caller]
    fn root(&self) -> (PathBuf, PathBuf) {
        let files = files(self.data.path());
        let holds = |word: &str| {
            let found =
                files.iter().find(|f| std::fs::read_to_string(f).is_ok_and(|text| text.contains(word)));
            found.unwrap_or_else(|| panic!("no file with {word:?} among {files:?}")).clone()
        };
        (holds("BEGIN CERTIFICATE"), holds("PRIVATE KEY"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dev(data: &Path) -> Command {
    let mut command = ravelin();
    command.arg("dev").env("HOME", data).env("XDG_DATA_HOME", data.join("data"));
    command
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(below).unwrap().map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn a_local_site_gets_https_that_verifies_against_the_development_root() {
    let dev = Dev::start("mysite.localhost");
    let (root, key) = dev.root();
    let mode = std::fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{} is for its owner only", key.display());
    let port = dev.https.number();
    let host = "mysite.localhost";
    let ask = Ask::url(&format!("https://{host}:{port}/"), Over::H2);
    let ask = ask.arg("--resolve").arg(&format!("{host}:{port}:127.0.0.1"));
    let reply = ask.arg("--cacert").arg(&root.display().to_string()).send();
    reply.status(200).hardened().no_header("strict-transport-security");
    assert!(dev.said().contains(&format!("https://mysite.localhost:{port}")), "{}", dev.said());
    assert!(dev.said().contains(&root.display().to_string()), "it says which file to trust:\n{}", dev.said());
}

#[test]
fn the_root_can_vouch_for_development_hosts_only() {
    let dev = Dev::start("mysite.localhost");
    let (root, _) = dev.root();
    let text = run(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&root)).out;
    assert!(text.contains("Name Constraints: critical"), "{text}");
    for name in ["DNS:localhost", "test", "ddev.site"] {
        assert!(text.contains(name), "{name} in\n{text}");
    }
    assert!(text.contains("CA:TRUE"), "{text}");
}

#[test]
fn a_public_name_is_refused_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let said =
        run(dev(data.path()).args(["--to", "http://127.0.0.1:1", "www.example.org"]).stdin(Stdio::null()));
    assert_ne!(said.code, Some(0));
    said.says("www.example.org").says("localhost");
}
