//! A real Valkey or Redis of its own: port, password, ACL user or TLS as a test wants them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::Port;
use super::{certs, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running server; it ends when this is dropped.
pub(crate) struct Valkey {
    child: Option<Child>,
    port: Port,
    dir: TempDir,
    tls: bool,
    lines: String,
    program: &'static str,
}

/// The next of those that are installed: where both are, the tests take turns.
fn program() -> &'static str {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let runs = |program: &&str| {
        let version =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let installed: Vec<&str> = ["valkey-server", "redis-server"].into_iter().filter(runs).collect();
    assert!(!installed.is_empty(), "neither valkey-server nor redis-server is installed (tests/run does it)");
    installed[NEXT.fetch_add(1, Ordering::Relaxed) % installed.len()]
}

impl Valkey {
    /// One without a password.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// One with more lines in its configuration.
    pub(crate) fn with(lines: &str) -> Self {
        Self::begin(lines.to_owned(), false)
    }

    /// One that speaks TLS alone, with a certificate for `localhost` of the tests' authority.
    pub(crate) fn tls() -> Self {
        Self::begin(String::new(), true)
    }

    /// The same, with more lines in its configuration.
    pub(crate) fn tls_with(lines: &str) -> Self {
        Self::begin(lines.to_owned(), true)
    }

    fn begin(lines: String, tls: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut valkey = Self { child: None, port: Port::reserve(), dir, tls, lines, program: program() };
        valkey.run();
        valkey
    }

    /// Starts it, or starts it again after [`Valkey::kill`]: as empty as ever.
    pub(crate) fn run(&mut self) {
        let port = self.port.number();
        let path = self.dir.path();
        let mut text = format!(
            "bind 127.0.0.1\nsave \"\"\nappendonly no\ndir {}\nlogfile {}\n{}\n",
            path.display(),
            path.join("log").display(),
            self.lines
        );
        if self.tls {
            let pair = certs::issue(path, "server", &["localhost"]);
            std::fs::write(self.roots(), certs::authority_pem()).expect("the authority is written");
            let _ = writeln!(
                text,
                "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no",
                pair.chain.display(),
                pair.key.display(),
                self.roots().display()
            );
        } else {
            let _ = writeln!(text, "port {port}");
        }
        let config = path.join("server.conf");
        std::fs::write(&config, text).expect("the configuration is written");
        let child = Command::new(self.program)
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("it starts"));
        let up = within(PATIENCE, || {
            if self.tls {
                TcpStream::connect(("127.0.0.1", port)).ok().map(|_| ())
            } else {
                self.pongs().then_some(())
            }
        });
        let log = || std::fs::read_to_string(path.join("log")).unwrap_or_default();
        assert!(up.is_some(), "the store does not start: {}", log());
    }

    fn pongs(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port.number())) else { return false };
        let _ = socket.set_read_timeout(Some(Duration::from_secs(1)));
        let mut answer = [0; 64];
        socket.write_all(b"PING\r\n").is_ok() && socket.read(&mut answer).is_ok_and(|read| read > 0)
    }

    /// `valkey://127.0.0.1:PORT`, or with credentials.
    pub(crate) fn url(&self, credentials: &str) -> String {
        let at = if credentials.is_empty() { String::new() } else { format!("{credentials}@") };
        let (scheme, host) = if self.tls { ("valkeys", "localhost") } else { ("valkey", "127.0.0.1") };
        format!("{scheme}://{at}{host}:{}", self.port.number())
    }

    /// The file of the authority that its certificate is from.
    pub(crate) fn roots(&self) -> std::path::PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It goes on taking connections and answers nothing (`STOP`), until it may (`CONT`).
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "cannot send {name}");
    }

    /// What it answers to a command in words, as text.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port.number())).expect("it is there");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(command, "${}\r\n{word}\r\n", word.len());
        }
        socket.write_all(command.as_bytes()).expect("it listens");
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = socket.read(&mut piece) {
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.kill();
    }
}
