//! A real ACME server (pebble) with a DNS server of its own, that looks for proofs at the ports of a test.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::ca::Ca;
use super::curl::{Ask, Over};
use super::ports::Port;
use super::{certs, within};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; it ends when this is dropped.
pub(crate) struct Pebble {
    children: Vec<Child>,
    dir: TempDir,
    listen: Port,
    management: Port,
    names: Port,
    zone: Port,
    proofs: (u16, u16),
}

impl Pebble {
    /// One that is not started yet, and looks for proofs at these ports: TLS-ALPN-01, HTTP-01.
    pub(crate) fn at(https: &Port, http: &Port) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("authority.pem"), certs::authority_pem()).expect("written");
        certs::issue(dir.path(), "pebble", &["localhost"]);
        Self {
            children: Vec::new(),
            dir,
            listen: Port::reserve(),
            management: Port::reserve(),
            names: Port::reserve(),
            zone: Port::reserve(),
            proofs: (https.number(), http.number()),
        }
    }

    /// Starts it with more keys of its configuration (JSON, with a comma at the end), and waits until it listens.
    /// Nonces are refused so often, percent.
    #[track_caller]
    pub(crate) fn start(mut self, keys: &str, refused_nonces: u32) -> Self {
        self.run(keys, refused_nonces);
        self
    }

    #[track_caller]
    pub(crate) fn run(&mut self, keys: &str, refused_nonces: u32) {
        let path = self.dir.path().to_owned();
        let config = format!(
            "{{\"pebble\": {{ {keys} \"listenAddress\": \"127.0.0.1:{}\", \"managementListenAddress\": \"127.0.0.1:{}\",\
             \"certificate\": \"{p}/pebble.pem\", \"privateKey\": \"{p}/pebble.key\", \"httpPort\": {}, \"tlsPort\": {},\
             \"ocspResponderURL\": \"\" }} }}",
            self.listen.number(),
            self.management.number(),
            self.proofs.1,
            self.proofs.0,
            p = path.display()
        );
        std::fs::write(path.join("config.json"), config).expect("written");
        let log = || std::fs::File::create(path.join("log")).expect("a log file");
        let names = format!("127.0.0.1:{}", self.names.number());
        let mut zone = Command::new("pebble-challtestsrv");
        zone.args(["-dns01", &names, "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        zone.args(["-management", &format!("127.0.0.1:{}", self.zone.number())]);
        zone.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(zone.spawn().expect("pebble is installed (tests/run does it)"));
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(path.join("config.json")).args(["-dnsserver", &names]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", refused_nonces.to_string());
        let (out, err) = (log(), Stdio::null());
        pebble.stdin(Stdio::null()).stdout(out).stderr(err);
        self.children.push(pebble.spawn().expect("pebble is installed (tests/run does it)"));
        let up = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
        let listens = within(PATIENCE, || {
            (up(self.listen.number()) && up(self.management.number()) && up(self.zone.number())).then_some(())
        });
        assert!(listens.is_some(), "pebble does not listen:\n{}", self.log());
    }

    /// Its directory and its roots, as an issuer is written: `{ … }` without the braces.
    pub(crate) fn issuer(&self) -> String {
        let roots = self.dir.path().join("authority.pem");
        format!(
            "directory = \"https://localhost:{}/dir\", roots = \"{}\"",
            self.listen.number(),
            roots.display()
        )
    }

    /// The same CA, with renewal information, profiles and limits.
    pub(crate) fn with_renewal_info(&self) -> Ca {
        Ca::before(self.listen.number(), self.dir.path())
    }

    /// How that is written as an issuer.
    pub(crate) fn issuer_at(&self, ca: &Ca) -> String {
        let roots = self.dir.path().join("authority.pem");
        format!("directory = \"{}\", roots = \"{}\"", ca.directory(), roots.display())
    }

    /// A program that puts records into its zone, and takes them out again.
    pub(crate) fn hook(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join("hook");
        let at = format!("http://127.0.0.1:{}", self.zone.number());
        let log = self.dir.path().join("hook.log");
        let text = format!(
            "#!/bin/sh\necho \"$1 $2\" >> {}\nenv > {}\ncase \"$1\" in\n\
             add) curl -qsf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" {at}/set-txt ;;\n\
             remove) curl -qsf -d \"{{\\\"host\\\":\\\"$2.\\\"}}\" {at}/clear-txt ;;\nesac\n",
            log.display(),
            self.dir.path().join("hook.env").display()
        );
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permitted");
        path
    }

    /// What the program was called with.
    pub(crate) fn hook_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("hook.log")).unwrap_or_default()
    }

    /// The environment that the program found, a variable a line.
    pub(crate) fn hook_environment(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("hook.env")).unwrap_or_default()
    }

    /// The root of the certificates that it issues, in a file.
    #[track_caller]
    pub(crate) fn root(&self) -> PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management.number());
        let path = self.dir.path().join("root.pem");
        let authority = self.dir.path().join("authority.pem");
        let reply = Ask::url(&url, Over::H1).arg("--cacert").arg(authority.to_str().expect("UTF-8")).send();
        std::fs::write(&path, reply.body).expect("written");
        path
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many certificates it issued.
    pub(crate) fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- what pebble said last ---\n{}",
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
    }
}
