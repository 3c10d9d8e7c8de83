//! Asking the admin listener of a running Ravelin: one plain HTTP request with nothing but the standard library.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::admin::settings::Address;
use crate::clock;

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// Reads `HTTP/1.1 503 …`, fields, an empty line, and the rest.
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        Some(Self { status, body: body.trim().to_owned() })
    }

    /// The first line of the body, which is a word of ours, made safe for a terminal.
    pub(super) fn sentence(&self) -> String {
        let line = self.body.lines().next().unwrap_or_default();
        format!("{} ({})", line.escape_debug(), self.status)
    }
}

/// A connection that can be told how long to wait.
trait Line: Read + Write {
    fn wait(&self, at_most: Duration) -> io::Result<()>;
}

impl Line for TcpStream {
    fn wait(&self, at_most: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(at_most))?;
        self.set_write_timeout(Some(at_most))
    }
}

impl Line for UnixStream {
    fn wait(&self, at_most: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(at_most))?;
        self.set_write_timeout(Some(at_most))
    }
}

/// Asks for `target`, and reads at most `most` bytes of the answer.
///
/// # Errors
/// When nobody answers until `deadline`, or the answer is not HTTP.
pub(super) fn ask(
    admin: &Address,
    method: &str,
    target: &str,
    most: usize,
    deadline: Instant,
) -> io::Result<Answer> {
    let mut line: Box<dyn Line> = match admin {
        Address::Tcp(address) => Box::new(TcpStream::connect_timeout(&reachable(*address), left(deadline)?)?),
        Address::Unix(path) => Box::new(UnixStream::connect(path)?),
    };
    line.wait(left(deadline)?)?;
    line.write_all(
        format!(
            "{method} {target} HTTP/1.1\r\nHost: ravelin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < most {
        line.wait(left(deadline)?)?;
        let read = line.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let unclear =
        || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP: is this the admin listener?");
    Answer::parse(&String::from_utf8_lossy(&answer)).ok_or_else(unclear)
}

/// An address that means "every address" is asked on this machine: `run` and `health` may share one
/// setting.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

/// The time that is left; an error once there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one connection with `answer`, then leaves it open for `hold`.
    fn serve(answer: &'static str, hold: Duration) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            stream.write_all(answer.as_bytes()).unwrap();
            thread::sleep(hold);
        });
        Address::Tcp(address)
    }

    fn ready(admin: &Address, milliseconds: u64) -> io::Result<Answer> {
        let deadline = clock::now() + Duration::from_millis(milliseconds);
        ask(admin, "GET", "/-/readyz", 4096, deadline)
    }

    #[test]
    fn the_answer_is_understood() {
        let address = serve("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\ndraining\n", Duration::ZERO);
        assert_eq!(ready(&address, 5_000).unwrap().sentence(), "draining (503)");
    }

    #[test]
    fn a_unix_socket_is_asked_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let read = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nready\n").unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        assert_eq!(ready(&Address::Unix(path), 5_000).unwrap().status, 200);
        assert!(server.join().unwrap().starts_with("GET /-/readyz HTTP/1.1\r\nHost: "));
    }

    #[test]
    fn whatever_is_not_http_is_said_to_be_so() {
        let address = serve("SSH-2.0-OpenSSH_9.2\r\n", Duration::ZERO);
        assert_eq!(ready(&address, 5_000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let start = clock::now();
        let address = serve("HTTP/1.1 200 OK\r\n", Duration::from_secs(20));
        assert!(ready(&address, 200).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn every_address_means_this_machine() {
        for (admin, want) in
            [("0.0.0.0:9145", "127.0.0.1:9145"), ("[::]:9145", "[::1]:9145"), ("192.0.2.1:1", "192.0.2.1:1")]
        {
            assert_eq!(reachable(admin.parse().unwrap()), want.parse().unwrap());
        }
    }
}
