//! A real nginx for a folder: the origin that reads no `.htaccess`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::Port;
use super::within;

/// A running nginx; it ends when this is dropped, and when this process does.
pub(crate) struct Nginx {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    _dir: TempDir,
    _port: Port,
    // A shell that ends nginx as soon as its standard input closes.
    serve: Child,
}

impl Nginx {
    /// Serves the folder; none where nginx is not installed.
    pub(crate) fn of(site: &Path) -> Option<Self> {
        let known = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            println!("SKIPPED: nginx is not installed; tests/run installs it");
            return None;
        }
        let rest = format!("root {}; index index.html;", site.display());
        Some(Self::start("", &rest))
    }

    /// Serves what the lines of a `server` say; `listen` follows the address, such as `ssl http2`.
    pub(crate) fn start(listen: &str, server: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a temporary directory"), Port::reserve());
        let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temps = temps.map(|name| format!("{name}_temp_path {}/{name};", dir.path().display())).join("\n");
        let text = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\n\
             http {{ access_log off; {temps}\nserver {{ listen 127.0.0.1:{port} {listen}; {server} }} }}\n",
            root = dir.path().display(),
            port = port.number(),
        );
        let config = dir.path().join("nginx.conf");
        std::fs::write(&config, text).expect("the configuration is written");
        let serve = Command::new("sh")
            .args([
                "-c",
                "nginx -c \"$0\" -e \"$0.log\" </dev/null & pid=$!; cat >/dev/null; kill $pid; wait $pid",
            ])
            .arg(&config)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let number = port.number();
        let up = within(Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", number)).ok());
        assert!(up.is_some(), "nginx does not start");
        Self { url: format!("http://127.0.0.1:{number}"), _dir: dir, _port: port, serve }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.serve.stdin.take());
        let _ = self.serve.wait();
    }
}
