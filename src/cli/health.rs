//! `ravelin health`: asks a running Ravelin whether it is ready, for container health checks.
//!
//! One plain HTTP request with nothing but the standard library, so that an image needs no curl.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::clock;
use crate::config::{self, Admin};

/// As much of an answer as is read.
const ANSWER_MAX: u64 = 4 << 10;
/// An hour is as good as for ever, and no sum of times can overflow.
const TIMEOUT_MAX: u64 = 3_600;
/// Where the documentation puts the admin listener.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9145);

/// Where to ask.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The admin listener, as in `[admin] listen`. Goes before `--config`; 127.0.0.1:9145 without both.
    #[arg(long, env = "RAVELIN_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,

    /// The configuration file whose `[admin] listen` is asked.
    #[arg(long, short, env = "RAVELIN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// How many seconds to wait for the whole answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX))]
    timeout: u64,
}

/// Exit code 0 and `ready`, or 1 and why not.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let deadline = clock::now() + Duration::from_secs(arguments.timeout);
    let admin = match admin(arguments) {
        Ok(admin) => admin,
        Err(why) => return fail(&why),
    };
    match ask(reachable(admin), deadline) {
        Ok(answer) if answer.status == 200 => {
            say!("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => fail(&format!("not ready: {}", answer.sentence())),
        Err(error) => fail(&format!("cannot ask {admin}: {error}")),
    }
}

/// Who is asked.
fn admin(arguments: &Arguments) -> Result<SocketAddr, String> {
    match (arguments.admin, &arguments.config) {
        (Some(admin), _) => Ok(admin),
        (None, Some(file)) => written(file),
        (None, None) => Ok(USUAL),
    }
}

/// The admin listener of a configuration. Whether the rest of it is usable does not matter here.
fn written(file: &Path) -> Result<SocketAddr, String> {
    match config::admin(file) {
        Admin::At(address) => Ok(address),
        Admin::Nowhere => Err(format!(
            "{} opens no admin listener, so nobody answers: add `[admin]` with e.g. `listen = \"{USUAL}\"`",
            file.display()
        )),
        Admin::Unclear(complaints) => Err(complaints.to_string().trim_end().to_owned()),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("ravelin: {why}");
    ExitCode::FAILURE
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    /// Reads `HTTP/1.1 503 …`, fields, an empty line, and the rest.
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        Some(Self { status, body: body.trim().to_owned() })
    }

    /// The first line of the body, which is a word of ours, made safe for a terminal.
    fn sentence(&self) -> String {
        let line = self.body.lines().next().unwrap_or_default();
        format!("{} ({})", line.escape_debug(), self.status)
    }
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

fn ask(admin: SocketAddr, deadline: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&admin, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(
        format!("GET /-/readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while (answer.len() as u64) < ANSWER_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let unclear =
        || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP: is this the admin port?");
    Answer::parse(&String::from_utf8_lossy(&answer)).ok_or_else(unclear)
}

/// The time that is left; an error once there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one connection with `answer`, then leaves it open for `hold`.
    fn serve(answer: &'static str, hold: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            stream.write_all(answer.as_bytes()).unwrap();
            thread::sleep(hold);
        });
        address
    }

    fn within(milliseconds: u64) -> Instant {
        clock::now() + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_answer_is_understood() {
        let address = serve("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\ndraining\n", Duration::ZERO);
        let answer = ask(address, within(5_000)).unwrap();
        assert_eq!(answer.sentence(), "draining (503)");
    }

    #[test]
    fn whatever_is_not_http_is_said_to_be_so() {
        let address = serve("SSH-2.0-OpenSSH_9.2\r\n", Duration::ZERO);
        assert_eq!(ask(address, within(5_000)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let start = clock::now();
        let address = serve("HTTP/1.1 200 OK\r\n", Duration::from_secs(20));
        assert!(ask(address, within(200)).is_err());
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
