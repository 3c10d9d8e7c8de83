//! The real `ravelin` binary as a process: its configuration, its ports, its logs, its end.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::apache::Apache;
use super::certs;
use super::curl::{Ask, Over};
use super::ports::Port;
use super::recorder::Recorder;
use super::reply::Reply;
use super::wire::Wire;
use super::{ravelin, within};

/// How long a debug build on a busy machine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Ravelin being described.
pub(crate) fn proxy() -> Builder {
    Builder::default()
}

/// What to write into the configuration, and how to start.
#[derive(Default)]
pub(crate) struct Builder {
    keys: String,
    tables: String,
    sites: Vec<(String, String)>,
    https: String,
    http: String,
    admin_socket: Option<PathBuf>,
    variables: Vec<(String, String)>,
    open_files: Option<u32>,
    address_space: Option<u64>,
    certificates: Option<String>,
    ports: Option<(Port, Port)>,
    hosts: Option<PathBuf>,
}

/// Where a site's requests go.
pub(crate) struct Origin(String);

impl From<&Apache> for Origin {
    fn from(apache: &Apache) -> Self {
        Self(apache.url.clone())
    }
}

impl From<&Recorder> for Origin {
    fn from(recorder: &Recorder) -> Self {
        Self(recorder.url())
    }
}

impl From<&str> for Origin {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl Builder {
    /// With a site of preset `typo3` for `host`.
    pub(crate) fn site(self, host: &str, origin: impl Into<Origin>) -> Self {
        let Origin(url) = origin.into();
        self.shared_site(host, &[&url]).with("preset = \"typo3\"")
    }

    /// With a site that has no preset.
    pub(crate) fn bare_site(self, host: &str, origin: impl Into<Origin>) -> Self {
        let Origin(url) = origin.into();
        self.shared_site(host, &[&url]).with("preset = \"none\"")
    }

    /// With a site that several origins serve.
    pub(crate) fn shared_site(mut self, host: &str, origins: &[&str]) -> Self {
        let text = format!("\n[[site]]\nhosts = [\"{host}\"]\nupstream = {origins:?}\n");
        self.sites.push((host.to_owned(), text));
        self
    }

    /// With the site named last serving this host, too.
    pub(crate) fn also(mut self, host: &str) -> Self {
        let (_, text) = self.sites.last_mut().expect("a site comes first");
        *text = text.replacen("\"]\nupstream", &format!("\", \"{host}\"]\nupstream"), 1);
        self
    }

    /// With these lines in the site named last: its keys first, then tables such as `[[site.path]]`.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        let (_, text) = self.sites.last_mut().expect("a site comes first");
        let _ = writeln!(text, "{lines}");
        self
    }

    /// With these keys at the top of the file.
    pub(crate) fn keys(mut self, lines: &str) -> Self {
        let _ = writeln!(self.keys, "{lines}");
        self
    }

    /// With this table, such as `[limits]` and its keys.
    pub(crate) fn table(mut self, lines: &str) -> Self {
        let _ = writeln!(self.tables, "{lines}");
        self
    }

    /// With the plain listener serving instead of redirecting.
    pub(crate) fn plain_serves(mut self) -> Self {
        self.http.push_str("plain = \"serve\"\n");
        self
    }

    /// With these lines in the https listener.
    pub(crate) fn https(mut self, lines: &str) -> Self {
        let _ = writeln!(self.https, "{lines}");
        self
    }

    /// With these lines in the http listener.
    pub(crate) fn http(mut self, lines: &str) -> Self {
        let _ = writeln!(self.http, "{lines}");
        self
    }

    /// With a unix socket beside the port of its admin listener.
    pub(crate) fn admin_socket(mut self, path: &Path) -> Self {
        self.admin_socket = Some(path.to_owned());
        self
    }

    /// With a variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With at most this many open files.
    pub(crate) fn open_files(mut self, count: u32) -> Self {
        self.open_files = Some(count);
        self
    }

    /// With at most so many bytes of address space.
    pub(crate) fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// With this in place of certificates of the tests' authority.
    pub(crate) fn certificates(mut self, value: &str) -> Self {
        self.certificates = Some(value.to_owned());
        self
    }

    /// With these ports, for https and http.
    pub(crate) fn ports(mut self, https: Port, http: Port) -> Self {
        self.ports = Some((https, http));
        self
    }

    /// With this file as its `/etc/hosts`, in a mount namespace of its own.
    pub(crate) fn hosts(mut self, path: &Path) -> Self {
        self.hosts = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(mut self) -> Ravelin {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (https, http) = self.ports.take().unwrap_or_else(|| (Port::reserve(), Port::reserve()));
        let admin = Port::reserve();
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, certs::authority_pem()).expect("the authority is written");
        let mut pairs = String::new();
        for (number, (host, _)) in self.sites.iter().enumerate() {
            let pair = certs::issue(dir.path(), &format!("site{number}"), &[host]);
            let (chain, key) = (pair.chain.display(), pair.key.display());
            let _ = writeln!(pairs, "  {{ chain = \"{chain}\", key = \"{key}\" }},");
        }
        let text = format!(
            "{}\n[[listen]]\nurl = \"https://127.0.0.1:{}\"\ncertificates = {}\n{}\n\
             [[listen]]\nurl = \"http://127.0.0.1:{}\"\n{}\n[admin]\nlisten = [\"127.0.0.1:{}\"{}]\n\n{}{}",
            self.keys,
            https.number(),
            self.certificates.clone().unwrap_or_else(|| format!("[\n{pairs}]")),
            self.https,
            http.number(),
            self.http,
            admin.number(),
            self.admin_socket
                .as_ref()
                .map(|path| format!(", \"unix:{}\"", path.display()))
                .unwrap_or_default(),
            self.tables,
            self.sites.iter().map(|(_, text)| text.as_str()).collect::<String>(),
        );
        let config = dir.path().join("ravelin.toml");
        std::fs::write(&config, text).expect("the configuration is written");
        let host = self.sites.first().map_or("localhost", |(host, _)| host).to_owned();
        let mut command = self.command(&config);
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).expect("a log file");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().expect("ravelin starts");
        let mut site = Ravelin { child, dir, host, https, http, admin, ended: None };
        site.wait_until_listening();
        site
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = ravelin();
        if self.open_files.is_some() || self.address_space.is_some() {
            let binary = command.get_program().to_owned();
            command = Command::new("prlimit");
            command.args(self.open_files.map(|count| format!("--nofile={count}:{count}")));
            command.args(self.address_space.map(|bytes| format!("--as={bytes}:{bytes}")));
            command.arg("--").arg(binary);
        }
        if let Some(hosts) = &self.hosts {
            let binary = command.get_program().to_owned();
            command = Command::new("unshare");
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(hosts).arg(binary);
        }
        command.args(["run", "--config"]).arg(config);
        command.env("NO_COLOR", "1");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running Ravelin; it ends when this is dropped.
pub(crate) struct Ravelin {
    child: Child,
    dir: TempDir,
    host: String,
    https: Port,
    http: Port,
    admin: Port,
    ended: Option<ExitStatus>,
}

impl Ravelin {
    /// GET over HTTP/1.1 and TLS.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(path).send()
    }

    /// GET over HTTP/2.
    #[track_caller]
    pub(crate) fn get_h2(&self, path: &str) -> Reply {
        self.ask_over(Over::H2, path).send().spoken("HTTP/2").clone()
    }

    /// GET over plain HTTP.
    #[track_caller]
    pub(crate) fn get_plain(&self, path: &str) -> Reply {
        self.ask_over(Over::Plain, path).send()
    }

    /// A request over HTTP/1.1 and TLS, to be completed.
    pub(crate) fn ask(&self, path: &str) -> Ask {
        self.ask_over(Over::H1, path)
    }

    /// A request to be completed.
    pub(crate) fn ask_over(&self, over: Over, path: &str) -> Ask {
        Ask::proxy(self, over, &self.host, path)
    }

    /// A request to another host, to be completed.
    pub(crate) fn ask_host(&self, over: Over, host: &str, path: &str) -> Ask {
        Ask::proxy(self, over, host, path)
    }

    /// A raw connection to the plain listener.
    #[track_caller]
    pub(crate) fn wire(&self) -> Wire {
        Wire::plain(self.http.number())
    }

    /// A raw connection to the TLS listener that has not said anything yet.
    #[track_caller]
    pub(crate) fn wire_to_tls_port(&self) -> Wire {
        Wire::plain(self.https.number())
    }

    /// A TLS connection on which HTTP/1.1 was negotiated.
    #[track_caller]
    pub(crate) fn wire_tls(&self) -> Wire {
        self.wire_named(&self.host, &[b"http/1.1"])
    }

    /// A TLS connection with this server name and this offer of protocols.
    #[track_caller]
    pub(crate) fn wire_named(&self, host: &str, alpn: &[&[u8]]) -> Wire {
        Wire::tls(self.https.number(), host, &certs::authority_pem(), alpn)
    }

    /// A TLS connection on which HTTP/2 was negotiated, and nothing said yet.
    #[track_caller]
    pub(crate) fn wire_h2(&self) -> Wire {
        Wire::tls(self.https.number(), &self.host, &certs::authority_pem(), &[b"h2"])
    }

    /// The host of its first site.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// `https://HOST:PORT`.
    pub(crate) fn base(&self) -> String {
        format!("https://{}:{}", self.host, self.https.number())
    }

    /// The port of the https listener.
    pub(crate) fn https_port(&self) -> u16 {
        self.https.number()
    }

    /// The port of the http listener.
    pub(crate) fn http_port(&self) -> u16 {
        self.http.number()
    }

    /// The port of the admin listener.
    pub(crate) fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    /// The file of the certificate authority that its certificates are from.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("ravelin.toml")
    }

    /// The directory that its files are in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far: the access log.
    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }

    /// What it wrote to standard error so far: diagnostics.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// GET on the admin listener.
    #[track_caller]
    pub(crate) fn admin(&self, path: &str) -> Reply {
        Ask::url(&format!("http://127.0.0.1:{}{path}", self.admin.number()), Over::Plain).send()
    }

    /// The status of GET on the admin listener; none if it is not answered.
    pub(crate) fn admin_status(&self, path: &str) -> Option<u16> {
        let url = format!("http://127.0.0.1:{}{path}", self.admin.number());
        Ask::url(&url, Over::Plain).try_send().ok().map(|reply| reply.status)
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.ended.is_none() && self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Sends a signal by name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "cannot send {name} to {pid}");
    }

    /// Waits for its end; it must come within `patience`.
    #[track_caller]
    pub(crate) fn ends_within(&mut self, patience: Duration) -> ExitStatus {
        let status = within(patience, || self.child.try_wait().ok().flatten());
        let status = status.unwrap_or_else(|| panic!("it should have ended within {patience:?}"));
        self.ended = Some(status);
        status
    }

    /// Resident memory now, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub(crate) fn resident_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Forgets the peak so far: from now on it counts anew.
    pub(crate) fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    /// CPU seconds of the process so far, by the scheduler's own nanoseconds (proc(5), schedstat).
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        let nanos = |task: std::fs::DirEntry| -> Option<f64> {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        tasks.into_iter().flatten().flatten().filter_map(nanos).sum::<f64>() / 1e9
    }

    #[track_caller]
    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("/proc tells");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kib * 1024
    }

    #[track_caller]
    fn wait_until_listening(&mut self) {
        let ports = [self.https.number(), self.http.number(), self.admin.number()];
        let listening = within(PATIENCE, || {
            let up = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
            let gone = self.child.try_wait().ok().flatten();
            gone.map(|_| false).or_else(|| ports.iter().all(up).then_some(true))
        });
        if listening != Some(true) {
            let config = std::fs::read_to_string(self.config()).unwrap_or_default();
            panic!("ravelin does not listen.\n{}{}\nconfiguration:\n{config}", self.stdout(), self.stderr());
        }
    }
}

impl Drop for Ravelin {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- what ravelin said last ---\n{}", last(&self.stderr(), 30));
            eprintln!("--- what it logged last ---\n{}", last(&self.stdout(), 5));
        }
    }
}

/// The last `count` lines.
fn last(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
