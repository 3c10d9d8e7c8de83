//! The sentences that the tests are written in.
//!
//! `proxy().site("www.example.org", apache()).start()` starts the real `ravelin` binary in front of the real
//! Apache; `.get("/").status(200).hardened()` asks it with a real client and says what must hold.

pub(crate) mod apache;
pub(crate) mod browser;
pub(crate) mod ca;
pub(crate) mod certs;
pub(crate) mod clients;
pub(crate) mod curl;
pub(crate) mod evil;
pub(crate) mod front;
pub(crate) mod h2;
pub(crate) mod judge;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod nginx;
pub(crate) mod outside;
pub(crate) mod pebble;
pub(crate) mod ports;
pub(crate) mod proxy;
pub(crate) mod raw_origin;
pub(crate) mod recorder;
pub(crate) mod reply;
pub(crate) mod scripted;
pub(crate) mod strict;
pub(crate) mod valkey;
pub(crate) mod waiting;
pub(crate) mod wire;

pub(crate) use apache::apache;
pub(crate) use proxy::{Ravelin, proxy};
pub(crate) use recorder::Recorder;
pub(crate) use wire::Wire;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The public host of most tests: not a development host, so that HSTS is sent.
pub(crate) const HOST: &str = "www.example.org";

/// Asks until `question` answers something, for at most `patience`; polling keeps tests fast without
/// a sleep that hides a race.
pub(crate) fn within<T>(patience: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A path below `tests/`.
pub(crate) fn test_file(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(relative)
}

/// Another binary than the one that was built for these tests, to measure a release: `RAVELIN_BINARY`.
pub(crate) fn other_binary() -> Option<std::ffi::OsString> {
    std::env::var_os("RAVELIN_BINARY")
}

/// The `ravelin` command with nothing of the caller's environment that could change what it does.
pub(crate) fn ravelin() -> Command {
    let mut command = Command::new(other_binary().unwrap_or_else(|| env!("CARGO_BIN_EXE_ravelin").into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RAVELIN_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// What a command printed and how it ended.
pub(crate) struct Said {
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

impl Said {
    /// Everything it said, for messages.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// The exit code must be `code`.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "exit code; it said:\n{}", self.all());
        self
    }

    /// It must have said `text`, on either stream.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.all().contains(text), "it should say {text:?}, but said:\n{}", self.all());
        self
    }
}
