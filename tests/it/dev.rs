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
    http: Port,
}

impl Dev {
    #[track_caller]
    fn start(host: &str) -> Self {
        Self::to(&apache().url, host)
    }

    #[track_caller]
    fn to(origin: &str, host: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (https, http) = (Port::reserve(), Port::reserve());
        let log = std::fs::File::create(data.path().join("said")).unwrap();
        let mut command = dev(data.path());
        command.args(["--to", origin, host]);
        command.args(["--https", &https.number().to_string(), "--http", &http.number().to_string()]);
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let dev = Self { child, data, https, http };
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
        let holds =
            |file: &PathBuf, word: &str| std::fs::read_to_string(file).is_ok_and(|text| text.contains(word));
        let find = |key: bool| {
            files.iter().find(|file| holds(file, "BEGIN CERTIFICATE") && holds(file, "PRIVATE KEY") == key)
        };
        let root = find(false).unwrap_or_else(|| panic!("no certificate to be trusted among {files:?}"));
        let key = find(true).unwrap_or_else(|| panic!("no key among {files:?}"));
        (root.clone(), key.clone())
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
fn openssl_verifies_every_name_on_the_wire() {
    let dev = Dev::start("mysite.localhost");
    let (root, _) = dev.root();
    for name in ["mysite.localhost", "localhost"] {
        let address = format!("127.0.0.1:{}", dev.https.number());
        let said = run(Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", name, "-verify_hostname", name])
            .args(["-verify_return_error", "-x509_strict", "-CAfile"])
            .arg(&root)
            .stdin(Stdio::null()));
        said.exits(0).says("Verification: OK").says(&format!("Verified peername: {name}"));
    }
    let address = format!("127.0.0.1:{}", dev.https.number());
    let said = run(Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address,
            "-verify_hostname",
            "other.localhost",
            "-verify_return_error",
        ])
        .arg("-CAfile")
        .arg(&root)
        .stdin(Stdio::null()));
    assert_ne!(said.code, Some(0), "the check can fail:\n{}", said.all());
}

/// The certificate that is served, PEM.
fn served(dev: &Dev) -> String {
    let address = format!("127.0.0.1:{}", dev.https.number());
    let said = run(Command::new("openssl").args(["s_client", "-connect", &address]).stdin(Stdio::null()));
    let begin = said.out.find("-----BEGIN CERTIFICATE").expect("a certificate");
    said.out.get(begin..).and_then(|pem| pem.split_once("-----END")).expect("its end").0.to_owned()
}

#[test]
fn a_reload_makes_the_certificate_again() {
    let dev = Dev::start("mysite.localhost");
    let first = served(&dev);
    assert_eq!(served(&dev), first, "one certificate for all connections");
    run(Command::new("kill").args(["-s", "HUP", &dev.child.id().to_string()])).exits(0);
    let another = within(Duration::from_secs(10), || (served(&dev) != first).then_some(()));
    assert!(another.is_some(), "it is still the first one; it said:\n{}", dev.said());
}

#[test]
fn a_second_start_keeps_the_root_and_http_leads_to_https() {
    let mut dev = Dev::start("mysite.test");
    let plain = Ask::url(&format!("http://localhost:{}/a?b", dev.http.number()), Over::Plain).send();
    plain.status(301).header_once("location", &format!("https://localhost:{}/a?b", dev.https.number()));
    let (root, _) = dev.root();
    let before = std::fs::read(&root).unwrap();
    run(Command::new("kill").args(["-s", "INT", &dev.child.id().to_string()])).exits(0);
    let status = within(Duration::from_secs(10), || dev.child.try_wait().ok().flatten());
    assert_eq!(status.and_then(|status| status.code()), Some(0), "Ctrl-C ends it cleanly: {}", dev.said());
    run(self::dev(dev.data.path()).arg("--how-to-trust"))
        .exits(0)
        .says(&root.display().to_string())
        .says("update-ca-certificates");
    assert_eq!(std::fs::read(&root).unwrap(), before);
}

#[test]
fn an_origin_that_sleeps_is_a_warning_and_a_wrong_one_an_error() {
    let sleeping = Port::reserve();
    let dev = Dev::to(&format!("http://127.0.0.1:{}", sleeping.number()), "mysite.localhost");
    let said = within(Duration::from_secs(10), || dev.said().contains("Nothing answers at").then_some(()));
    assert!(said.is_some(), "{}", dev.said());
    let data = tempfile::tempdir().unwrap();
    let wrong = |to: &str| run(self::dev(data.path()).args(["--to", to]).stdin(Stdio::null()));
    let said = wrong("127.0.0.1:8080");
    assert_ne!(said.code, Some(0));
    said.says("--to").says("has no scheme").says("did you mean `http://127.0.0.1:8080`?");
    wrong("http://localhost:8443").exits(1).says("where Ravelin itself would listen").says("--https");
    run(self::dev(data.path()).stdin(Stdio::null())).says("--to");
}

#[test]
fn a_public_name_is_refused_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let said =
        run(dev(data.path()).args(["--to", "http://127.0.0.1:1", "www.example.org"]).stdin(Stdio::null()));
    assert_ne!(said.code, Some(0));
    said.says("the development CA does not vouch for `www.example.org`").says("localhost, test, ddev.site");
}
