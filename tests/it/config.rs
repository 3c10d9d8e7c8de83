//! The configuration as its writer meets it: complaints with place and hint, flags instead of a file, the
//! annotated default, and an explanation of what would happen.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::curl::{Ask, Over};
use crate::harness::ports::Port;
use crate::harness::{HOST, Said, apache, certs, ravelin, run, test_file, within};

const MARK: &str = "\n----\n";

/// `ravelin check` on a text, in a folder with a certificate `www.pem`, its key `www.key` and a key that
/// does not fit, `other.key`.
fn check(dir: &Path, text: &str) -> Said {
    certs::issue(dir, "www", &[HOST]);
    certs::issue(dir, "other", &["other.example.org"]);
    std::fs::write(dir.join("ravelin.toml"), text).unwrap();
    run(ravelin().current_dir(dir).args(["check", "--config", "ravelin.toml"]))
}

/// Every file of `tests/golden/config` is an input, a line `----`, and exactly what `ravelin check` says.
/// With `UPDATE_GOLDEN=1` the files are written anew: read the difference before it is committed.
#[test]
fn every_complaint_has_its_place_and_its_hint() {
    let mut wrong = Vec::new();
    let mut files: Vec<_> =
        std::fs::read_dir(test_file("golden/config")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 12, "{} golden files", files.len());
    for file in files {
        let golden = std::fs::read_to_string(&file).unwrap();
        let (input, expected) = golden.split_once(MARK).unwrap_or((golden.trim_end(), ""));
        let dir = tempfile::tempdir().unwrap();
        let said = check(dir.path(), input);
        let said = steady(&said.all(), dir.path());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, format!("{input}{MARK}{said}")).unwrap();
        } else if said != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- said\n{said}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What differs between two runs on two machines is named instead.
fn steady(said: &str, dir: &Path) -> String {
    let here = dir.display().to_string();
    let said = said.replace(&format!("{here}/"), "").replace(&here, ".");
    let generation = regex::Regex::new("generation [0-9a-f]{12}").unwrap();
    let id = generation.replace_all(&said, "generation ID").into_owned();
    let hashes = regex::Regex::new("[0-9a-f]{64}").unwrap();
    let id = hashes.replace_all(&id, "HASH").into_owned();
    let dates = regex::Regex::new(r"\d{4}-\d\d-\d\d").unwrap();
    dates.replace_all(&id, "DATE").into_owned()
}

#[test]
fn all_complaints_come_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[listen]]\nurl = \"gopher://x\"\n[limits]\nheader_size = \"64 KB\"\nbody_idle = 30\n[[site]]\nhosts = []\nupstraem = \"x\"\n";
    let said = check(dir.path(), text);
    said.exits(1);
    for part in ["gopher", "64 KB", "KiB", "body_idle", "did you mean `upstream`?"] {
        said.says(part);
    }
    let errors = said.all().matches("error: ").count();
    assert!(errors >= 4, "{errors} errors:\n{}", said.all());
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let dir = tempfile::tempdir().unwrap();
    let said = check(dir.path(), &whole("http://127.0.0.1:8080"));
    said.exits(0).says("ok");
}

fn whole(upstream: &str) -> String {
    format!(
        "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = [{{ chain = \"www.pem\", key = \"www.key\" }}]\n\
         [[listen]]\nurl = \"http://127.0.0.1:8079\"\n\
         [[site]]\nhosts = [\"{HOST}\"]\nupstream = \"{upstream}\"\npreset = \"typo3\"\n"
    )
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &[HOST]);
    std::fs::write(dir.path().join("secret"), "http://127.0.0.1:8080\n").unwrap();
    for upstream in ["${TEST_UPSTREAM}", "file:secret"] {
        std::fs::write(dir.path().join("ravelin.toml"), whole(upstream)).unwrap();
        let mut command = ravelin();
        command.current_dir(dir.path()).args(["check", "--config", "ravelin.toml"]);
        run(command.env("TEST_UPSTREAM", "http://127.0.0.1:8080")).exits(0);
    }
    std::fs::write(dir.path().join("ravelin.toml"), whole("${TEST_NOT_SET}")).unwrap();
    let said = run(ravelin().current_dir(dir.path()).args(["check", "--config", "ravelin.toml"]));
    said.exits(1).says("TEST_NOT_SET").says("not set");
}

#[test]
fn the_annotated_default_is_the_file_in_the_repository_and_is_valid() {
    let said = run(ravelin().args(["config", "default"]));
    said.exits(0);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ravelin.toml");
    assert_eq!(
        said.out,
        std::fs::read_to_string(file).unwrap(),
        "run `ravelin config default > config/ravelin.toml`"
    );
    let dir = tempfile::tempdir().unwrap();
    check(dir.path(), &said.out).exits(0);
}

struct Running {
    child: std::process::Child,
    dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command in a folder with a certificate and waits until `port` listens.
#[track_caller]
fn start(dir: tempfile::TempDir, command: &mut std::process::Command, port: u16) -> Running {
    let out = std::fs::File::create(dir.path().join("out")).unwrap();
    let err = std::fs::File::create(dir.path().join("err")).unwrap();
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(out).stderr(err);
    let running = Running { child: command.spawn().unwrap(), dir };
    let up = within(Duration::from_secs(20), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let said = std::fs::read_to_string(running.dir.path().join("err")).unwrap_or_default();
    assert!(up.is_some(), "it does not listen:\n{said}");
    running
}

#[test]
fn flags_alone_are_enough_for_a_sidecar() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &[HOST]);
    let (https, http) = (Port::reserve(), Port::reserve());
    let mut command = ravelin();
    command.args(["run", "--upstream", &apache().url, "--cert", "www.pem", "--key", "www.key"]);
    command.args(["--listen", &format!("https://127.0.0.1:{}", https.number())]);
    command.args(["--listen", &format!("http://127.0.0.1:{}", http.number())]);
    let running = start(dir, &mut command, https.number());
    let ask = |host: &str| {
        Ask::url(&format!("https://127.0.0.1:{}/echo?by-flags", https.number()), Over::H1)
            .arg("-k")
            .header("Host", host)
            .send()
    };
    ask("any.example.org").status(200).hardened();
    ask("other.example.net").status(200).hardened();
    let plain = Ask::url(&format!("http://127.0.0.1:{}/", http.number()), Over::Plain).send();
    plain.status(301).header_once("location", &format!("https://127.0.0.1:{}/", https.number()));
    let log = || {
        std::fs::read_to_string(running.dir.path().join("out")).ok().filter(|text| text.contains("by-flags"))
    };
    assert!(within(Duration::from_secs(5), log).is_some(), "the access log goes to standard output");
}

#[test]
fn a_host_flag_limits_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::reserve();
    let mut command = ravelin();
    command.args([
        "run",
        "--upstream",
        &apache().url,
        "--host",
        HOST,
        "--listen",
        &format!("http://127.0.0.1:{}", port.number()),
    ]);
    let _running = start(dir, &mut command, port.number());
    let ask = |host: &str| {
        Ask::url(&format!("http://127.0.0.1:{}/", port.number()), Over::Plain).header("Host", host).send()
    };
    ask(HOST).status(200);
    ask("other.example.net").status(421);
}

#[test]
fn each_flag_is_an_environment_variable_too() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &[HOST]);
    let (https, http) = (Port::reserve(), Port::reserve());
    let mut command = ravelin();
    command.arg("run");
    command.env(
        "RAVELIN_LISTEN",
        format!("https://127.0.0.1:{},http://127.0.0.1:{}", https.number(), http.number()),
    );
    command
        .env("RAVELIN_UPSTREAM", &apache().url)
        .env("RAVELIN_CERT", "www.pem")
        .env("RAVELIN_KEY", "www.key");
    command.env("RAVELIN_HOST", HOST);
    let _running = start(dir, &mut command, https.number());
    let ask = |host: &str| {
        Ask::url(&format!("https://127.0.0.1:{}/", https.number()), Over::H1)
            .arg("-k")
            .header("Host", host)
            .send()
    };
    ask(HOST).status(200).hardened();
    ask("other.example.net").status(421).hardened();
}

#[test]
fn a_bad_flag_names_itself() {
    for (args, names) in [
        (vec!["run", "--listen", "gopher://x", "--upstream", "http://127.0.0.1:1"], "gopher://x"),
        (
            vec!["run", "--listen", "http://127.0.0.1:1", "--upstream", "ftp://127.0.0.1:1"],
            "ftp://127.0.0.1:1",
        ),
        (
            vec![
                "run",
                "--listen",
                "https://127.0.0.1:1",
                "--upstream",
                "http://127.0.0.1:1",
                "--cert",
                "nowhere.pem",
                "--key",
                "nowhere.key",
            ],
            "nowhere.pem",
        ),
        (vec!["run", "--lisen", "http://127.0.0.1:1"], "--lisen"),
        (vec!["run", "--upstream", "http://127.0.0.1:1"], "listen"),
    ] {
        let said = run(ravelin().args(&args).stdin(Stdio::null()));
        assert!(said.code.is_some_and(|code| code != 0), "{args:?}: {}", said.all());
        said.says(names);
    }
}

#[test]
fn explain_knows_what_happens_before_the_first_step_and_who_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &[HOST]);
    std::fs::write(dir.path().join("clients.pem"), certs::authority_pem()).unwrap();
    let asks = |wish: &str| format!("client_certificates = \"{wish}\"\nclient_ca = \"clients.pem\"\n");
    let sites = |first: &str, listener: &str| {
        whole("http://127.0.0.1:1").replacen("[[listen]]\n", &format!("[[listen]]\n{listener}"), 1)
            + first
            + "[[site]]\nhosts = [\"open.example.org\"]\nupstream = \"http://127.0.0.1:1\"\n"
            + "[health]\non_listeners = true\n[bans]\nignore = [\"192.0.2.7\"]\n"
    };
    let explain = |text: &str, args: &[&str]| {
        std::fs::write(dir.path().join("ravelin.toml"), text).unwrap();
        run(ravelin().current_dir(dir.path()).arg("explain").args(args).args(["--config", "ravelin.toml"]))
    };
    let (page, open) = (format!("https://{HOST}/"), "https://open.example.org/");
    let closed = sites(&asks("require"), "");
    let said = explain(&closed, &["GET", &page]);
    said.exits(0).says("a client certificate is required: without a valid one there is no connection");
    said.says(&format!("by `client_certificates` of site {HOST} (ravelin.toml:6)")).says("origin");
    assert!(
        !explain(&closed, &["GET", open]).exits(0).all().contains("client certificate is"),
        "that site is open"
    );
    let said = explain(&sites("", &asks("request")), &["GET", open]);
    said.exits(0).says("is asked for, and may be missing").says("of the listener (ravelin.toml:");

    let plain = sites("", "");
    let check = "http://10.0.3.9:8079/-/healthz";
    let said = explain(&plain, &["GET", check, "--from", "10.0.3.9"]);
    said.exits(0).says("200 before anything else is asked: `[health] on_listeners`");
    assert!(!said.all().contains("unknown-host"), "{}", said.all());
    let said = explain(&plain, &["GET", check, "--from", "203.0.113.9"]);
    said.exits(0).says("no health check: those are GET or HEAD from `[health] sources`").says("host");
    let said = explain(&plain.replace("on_listeners = true", "on_listeners = false"), &["GET", check]);
    assert!(!said.exits(0).all().contains("health check"), "{}", said.all());

    let spared = "never locked out: it stands in `ignore` of `[bans]`";
    explain(&plain, &["GET", &page, "--from", "192.0.2.7"]).exits(0).says(spared);
    let said = explain(&plain, &["GET", &page, "--from", "192.0.2.8"]);
    assert!(!said.exits(0).says("not locked out").all().contains(spared), "{}", said.all());
}

#[test]
fn a_file_without_its_flag_is_told_the_flag() {
    for args in [
        &["check", "other.toml"][..],
        &["run", "other.toml"],
        &["explain", "GET", "https://a/", "other.toml"],
    ] {
        let said = run(ravelin().args(args).stdin(Stdio::null()));
        said.exits(2).says("unexpected argument 'other.toml'");
        said.says("tip: a configuration file is named with `--config other.toml`");
    }
    let said = run(ravelin().args(["check", "--confg", "other.toml"]));
    said.exits(2).says("--config");
    assert!(!said.err.contains("is named with"), "{}", said.err);
    let said = run(ravelin().args(["config", "default", "other.toml"]));
    assert!(!said.err.contains("is named with"), "{}", said.err);
}

#[test]
fn explain_walks_the_steps_and_names_the_line_that_decides() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &[HOST]);
    let text = whole("http://127.0.0.1:1")
        + "[[site.path]]\npath = \"/api\"\nmethods = [\"GET\", \"PUT\"]\nbody_size = \"1 KiB\"\nwebsocket = false\n\
           [[site.path]]\npath = \"/rest\"\noverride_headers = [\"X-HTTP-Method-Override\"]\n\
           methods = [\"POST\", \"DELETE\"]\n[[site.path]]\npath = \"/rest/read\"\nmethods = [\"POST\"]\n\
           [[site.path]]\npath = \"/shy\"\n[site.path.rules]\nmethod = \"report\"\n";
    let place = |key: &str| {
        let line = text.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        format!("decided by ravelin.toml:{line}\n")
    };
    let [methods, body_size, websocket] = ["methods", "body_size", "websocket"].map(place);
    let reported = text.lines().position(|line| line.starts_with("method =")).unwrap() + 1;
    std::fs::write(dir.path().join("ravelin.toml"), &text).unwrap();
    let explain = |args: &[&str]| {
        run(ravelin().current_dir(dir.path()).arg("explain").args(args).args(["--config", "ravelin.toml"]))
    };

    let passed = explain(&["PUT", &format!("https://{HOST}/api/x/../y")]);
    passed.exits(0).says("/api/y").says("framing").says("host").says("path").says("method").says(&methods);
    let refused = explain(&["DELETE", &format!("https://{HOST}/api/x")]);
    refused.says("405").says("method-not-allowed").says(&methods);
    let api = format!("https://{HOST}/api/x");
    let large = ["PUT", &api, "--header", "Content-Length: 2000"];
    explain(&large).says("413").says("body-too-large").says(&body_size);
    let switching = ["GET", &api, "--header", "Connection: upgrade", "--header", "Upgrade: websocket"];
    explain(&switching).says("upgrade-not-allowed").says(&websocket);
    let line = text.lines().position(|line| line.starts_with("override_headers")).unwrap() + 1;
    let field = "X-HTTP-Method-Override: DELETE";
    let overriding = |path: &str| explain(&["POST", &format!("https://{HOST}{path}"), "--header", field]);
    let goes_on = format!("overrides go on by ravelin.toml:{line}\n");
    overriding("/rest")
        .says("x-http-method-override goes on")
        .says(&goes_on)
        .says("http://127.0.0.1:1 for /rest");
    overriding("/rest/read").says("405").says("DELETE, by `x-http-method-override`");
    overriding("/").says("x-http-method-override is taken out (`override_headers`)");
    let elsewhere = explain(&["DELETE", &format!("https://{HOST}/")]);
    elsewhere.says("method-not-allowed").says("the default of `methods`");
    let shy = explain(&["DELETE", &format!("https://{HOST}/shy")]);
    shy.says("would block").says(&format!("only reported, by ravelin.toml:{reported}\n")).says("origin");
    explain(&["GET", "https://nobody.example.net/"]).says("421").says("unknown-host");
    explain(&["GET", &format!("https://{HOST}/a%2fb")]).says("400").says("bad-path");
    explain(&["GET", &format!("http://{HOST}/")]).says(&format!("https://{HOST}"));
    explain(&["GET", "not a url"]).says("not a url");
}
