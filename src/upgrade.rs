//! Another process takes this one's place, with the same listening sockets, and no connection is lost between them.
//!
//! ```text
//! this process                     the successor
//! SIGUSR2 ─ start it, with the sockets ─→ reads its configuration, opens its log …
//!                        ←─ prepared ───
//!           close the state file
//!                        ─── go ───────→ reads the state, starts its workers
//!                        ←─ serving ────
//! accept nobody more, finish what is under way, end
//! ```
//! The sockets are shared, not opened anew: what the kernel has queued in one is taken by whoever comes first, so
//! that closing our side resets nobody. If the successor ends or says nothing for too long, it is ended, and nothing
//! has changed. (With `SO_REUSEPORT` alone each socket has a queue of its own, which dies with it.)

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as Line;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::time::{interval, timeout};

use crate::admin::socket::Left;

/// `sd_listen_fds(3)`: the sockets begin here.
const FIRST: i32 = 3;
/// How long a successor may take to read its configuration and open what it needs.
const TO_PREPARE: Duration = Duration::from_mins(1);
/// How long it may then take to serve: it reads the state, and gives a store that is gone up after two seconds.
const TO_SERVE: Duration = Duration::from_secs(30);
/// How long our predecessor may take to close its state file; if it ends meanwhile, we serve all the same.
const TO_LET_GO: Duration = Duration::from_secs(5);
/// How long we may take for that: less than our successor waits.
const TO_RELEASE: Duration = Duration::from_secs(4);
/// How often it is looked whether the successor still lives.
const LOOK: Duration = Duration::from_millis(50);

const PREPARED: &[u8] = b"prepared";
const GO: &[u8] = b"go";
const SERVING: &[u8] = b"serving";

/// How this program was started, so that it can be again.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program as it was called, with its path from the root unless it is looked up in PATH: behind the name may
    /// stand another file by now.
    pub program: OsString,
    /// Everything after it.
    pub arguments: Vec<OsString>,
}

/// What a successor gets.
#[derive(Debug, Default)]
pub struct Estate {
    sockets: Vec<OwnedFd>,
    names: Vec<Left>,
}

/// A successor that is not in office yet: it is ended when this is dropped.
#[derive(Debug)]
pub struct Heir(Option<Child>);

/// Our end of the line to the process whose place we take.
#[derive(Debug)]
pub struct Predecessor(Line);

impl Estate {
    /// Adds a socket.
    pub fn add(&mut self, socket: OwnedFd) {
        self.sockets.push(socket);
    }

    /// Adds the name of a unix socket that was added.
    pub fn add_name(&mut self, name: Left) {
        self.names.push(name);
    }

    /// The successor serves: what stays is its own.
    pub fn is_handed_over(&self) {
        self.names.iter().for_each(|name| name.store(true, Relaxed));
    }
}

/// Starts a successor and waits until it has opened everything; then `release` closes what only one of the two can have
/// open. Comes back once the successor serves.
///
/// # Errors
/// A sentence, if it does not; it is ended then.
pub async fn hand_over(
    launch: &Launch,
    estate: &Estate,
    release: impl Future<Output = ()>,
) -> Result<Heir, String> {
    let (ours, theirs) = Line::pair().map_err(|error| cannot_start(launch, &error))?;
    let mut heir = start(launch, estate, theirs).map_err(|error| cannot_start(launch, &error))?;
    let line = ours.set_nonblocking(true).and_then(|()| UnixDatagram::from_std(ours));
    let line = line.map_err(|error| cannot_start(launch, &error))?;
    heir.says(&line, PREPARED, TO_PREPARE).await?;
    let released = timeout(TO_RELEASE, release).await;
    released.map_err(|_| "what bans are kept in could not be closed in time: its disk hangs".to_owned())?;
    line.send(GO).await.map_err(|error| format!("the new process has gone: {error}"))?;
    heir.says(&line, SERVING, TO_SERVE).await?;
    Ok(heir)
}

fn cannot_start(launch: &Launch, error: &io::Error) -> String {
    format!("{} cannot be started: {error}", launch.program.display())
}

fn start(launch: &Launch, estate: &Estate, line: Line) -> io::Result<Heir> {
    let sockets = estate.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
    let all = sockets.into_iter().chain([OwnedFd::from(line)]);
    let mappings: Vec<_> =
        (FIRST..).zip(all).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).stdin(Stdio::null());
    command.env("LISTEN_FDS", mappings.len().to_string());
    // They name this process: the sockets, and the service manager's watch, are for the new one.
    for name in ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    command.spawn().map(|child| Heir(Some(child)))
}

impl Heir {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Has it read its configuration again.
    ///
    /// # Errors
    /// When it has ended, or is no longer ours to tell.
    pub fn hang_up(&self) -> io::Result<()> {
        let id = self.0.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(id, Signal::HUP)?)
    }

    /// Lets it go its own way; its process id.
    #[must_use]
    pub fn enthrone(mut self) -> u32 {
        self.0.take().map_or(0, |child| child.id())
    }

    /// Waits until it says `word`.
    async fn says(&mut self, line: &UnixDatagram, word: &[u8], patience: Duration) -> Result<(), String> {
        let mut buffer = [0; 16];
        let heard = async {
            let mut look = interval(LOOK);
            loop {
                tokio::select! {
                    size = line.recv(&mut buffer) => {
                        let size = size.map_err(|error| format!("the new process cannot be heard: {error}"))?;
                        if buffer.get(..size) == Some(word) {
                            return Ok(());
                        }
                    }
                    _ = look.tick() => self.lives()?,
                }
            }
        };
        timeout(patience, heard).await.unwrap_or_else(|_| {
            Err(format!("the new process did not get ready within {} s", patience.as_secs()))
        })
    }

    fn lives(&mut self) -> Result<(), String> {
        match self.0.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(format!("the new process ended ({status}); it said why")),
            _ => Ok(()),
        }
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Predecessor {
    /// On this line.
    #[must_use]
    pub fn new(line: Line) -> Self {
        Self(line)
    }

    /// Everything is open that both can have open: waits until the other one has closed the rest.
    pub fn is_prepared(&self) {
        let mut word = [0; 16];
        let line = &self.0;
        let asked = line.set_read_timeout(Some(TO_LET_GO)).and_then(|()| line.send(PREPARED));
        if let Err(error) = asked.and_then(|_| line.recv(&mut word)) {
            tracing::warn!(%error, "the process whose place this one takes does not answer");
        }
    }

    /// Connections are taken.
    pub fn is_succeeded(&self) {
        // If it has gone, there is nobody to tell.
        let _ = self.0.send(SERVING);
    }
}
