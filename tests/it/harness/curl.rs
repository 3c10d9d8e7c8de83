//! curl as the client: HTTP/1.1 and HTTP/2, over TLS or plain, exactly the fields that were asked for.

use std::path::Path;
use std::process::{Command, Stdio};

use super::reply::Reply;
use super::{Ravelin, run};

/// How to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// HTTP/1.1 over TLS.
    H1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/1.1 without TLS, to the plain listener.
    Plain,
}

/// A request being written.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    url: String,
    over: Over,
    args: Vec<String>,
    head_only: bool,
}

impl Ask {
    /// A request to a running Ravelin.
    pub(crate) fn proxy(site: &Ravelin, over: Over, host: &str, path: &str) -> Self {
        let port = if over == Over::Plain { site.http_port() } else { site.https_port() };
        let scheme = if over == Over::Plain { "http" } else { "https" };
        let mut ask = Self::url(&format!("{scheme}://{host}:{port}{path}"), over);
        ask.args.extend(["--resolve".to_owned(), format!("{host}:{port}:127.0.0.1")]);
        if over != Over::Plain {
            ask.args.extend(["--cacert".to_owned(), site.authority().display().to_string()]);
        }
        ask
    }

    /// A request to any URL.
    pub(crate) fn url(url: &str, over: Over) -> Self {
        let version = if over == Over::H2 { "--http2" } else { "--http1.1" };
        let fixed = ["-q", "-sS", "-g", "--path-as-is", "--noproxy", "*", "--max-time", "60", version];
        Self {
            url: url.to_owned(),
            over,
            args: fixed.iter().map(|arg| (*arg).to_owned()).collect(),
            head_only: false,
        }
    }

    /// With another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        if method == "HEAD" {
            self.head_only = true;
            return self.arg("--head");
        }
        self.arg("-X").arg(method)
    }

    /// With one more field line; a name that curl sends itself is replaced.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.arg("-H").arg(&format!("{name}: {value}"))
    }

    /// With a cookie line.
    pub(crate) fn cookie(self, value: &str) -> Self {
        self.header("Cookie", value)
    }

    /// With a body; the method becomes POST unless another is named.
    pub(crate) fn body(self, body: &str) -> Self {
        self.arg("--data-binary").arg(body)
    }

    /// With any other option of curl.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Sends it; it must be answered.
    #[track_caller]
    pub(crate) fn send(self) -> Reply {
        let url = self.url.clone();
        self.try_send().unwrap_or_else(|said| panic!("{url} was not answered: {said}"))
    }

    /// Sends it; what curl said if it was not answered.
    pub(crate) fn try_send(self) -> Result<Reply, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (head, body) = (dir.path().join("head"), dir.path().join("body"));
        let said = run(&mut self.command(&head, &body));
        let mut reply = read(&head).ok_or_else(|| format!("exit {:?}: {}", said.code, said.err))?;
        if said.code != Some(0) {
            return Err(format!("exit {:?}: {} after {reply}", said.code, said.err));
        }
        reply.body = if self.head_only { Vec::new() } else { std::fs::read(&body).unwrap_or_default() };
        reply.secure = self.over != Over::Plain && self.url.starts_with("https");
        Ok(reply)
    }

    /// Sends it and throws the body away; its size. The transfer must be complete.
    #[track_caller]
    pub(crate) fn measure(self) -> u64 {
        let mut command = Command::new("curl");
        command.args(&self.args).args(["-o", "/dev/null", "-w", "%{size_download}"]).arg(&self.url);
        let said = run(command.stdin(Stdio::null()));
        assert_eq!(said.code, Some(0), "{}: {}", self.url, said.all());
        said.out.trim().parse().unwrap_or_else(|_| panic!("curl says {:?}", said.out))
    }

    fn command(&self, head: &Path, body: &Path) -> Command {
        let mut command = Command::new("curl");
        command.args(&self.args).arg("-D").arg(head).arg("-o").arg(body).arg(&self.url);
        command.stdin(Stdio::null());
        command
    }
}

/// The last response head of a file that curl dumped, the earlier 1xx ones noted in it.
fn read(dumped: &Path) -> Option<Reply> {
    let text = String::from_utf8_lossy(&std::fs::read(dumped).ok()?).into_owned();
    let mut heads = text.split("\r\n\r\n").filter_map(Reply::from_head);
    let mut last = heads.next()?;
    for head in heads {
        let mut interim = std::mem::take(&mut last.interim);
        interim.push(last.status);
        last = Reply { interim, ..head };
    }
    Some(last)
}
