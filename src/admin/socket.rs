//! The sockets of the admin listener: TCP for metrics and readiness, a unix socket for everything.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::{Domain, SockAddr, Socket, Type};

use super::settings::Address;
use crate::listen::inherited::Inherited;
use crate::listen::socket;

/// Who waits to be accepted; one person at a time administers.
const BACKLOG: i32 = 32;

/// A bound socket, not yet served.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: Kind,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Kind {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, Name),
}

/// The name of a unix socket; it is taken away when the socket is not served any more.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    left: Left,
}

/// Whether the name of a unix socket stays, because another process serves it.
pub type Left = Arc<AtomicBool>;

impl Name {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), left: Left::default() }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.left.load(Relaxed) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// The same socket for another process, and what is to be set once that serves it.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn heir(&self) -> io::Result<(OwnedFd, Option<Left>)> {
        match &self.socket {
            Kind::Tcp(socket) => Ok((socket.try_clone()?.into(), None)),
            Kind::Unix(socket, name) => Ok((socket.try_clone()?.into(), Some(Arc::clone(&name.left)))),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody over TCP: may read numbers, and change nothing.
    Tcp(SocketAddr),
    /// A user of this machine, whom the kernel vouches for; none if it does not tell.
    User(Option<u32>),
}

impl Who {
    /// Whether it came over the unix socket, whose permissions say who may.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        matches!(self, Self::User(_))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::User(Some(uid)) => write!(f, "uid {uid}"),
            Self::User(None) => f.write_str("the admin socket"),
        }
    }
}

/// Opens the socket of one address, or takes the one that was handed over. `mode` is that of a unix socket.
///
/// # Errors
/// A sentence, when it is in use or the system refuses it.
pub fn bind(address: &Address, mode: u32, inherited: &mut Inherited) -> Result<Bound, String> {
    let socket = match address {
        Address::Tcp(address) => {
            if let Some(socket) = inherited.tcp(*address).pop() {
                socket.set_nonblocking(true).map_err(|error| error.to_string())?;
                return Ok(Bound { socket: Kind::Tcp(socket) });
            }
            let mut sockets = socket::bind(*address, 1).map_err(|error| error.to_string())?;
            Kind::Tcp(sockets.pop().ok_or("no socket was opened")?)
        }
        Address::Unix(path) => match inherited.unix(path) {
            Some(socket) => adopt(socket, path, mode),
            None => unix(path, mode),
        }
        .map_err(|error| explain(path, &error))?,
    };
    Ok(Bound { socket })
}

fn adopt(socket: UnixListener, path: &Path, mode: u32) -> io::Result<Kind> {
    socket.set_nonblocking(true)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(Kind::Unix(socket, Name::new(path)))
}

/// The permissions are set before anybody can connect: until `listen` the kernel refuses everybody.
fn unix(path: &Path, mode: u32) -> io::Result<Kind> {
    sweep(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let name = Name::new(path);
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(Kind::Unix(socket.into(), name))
}

/// Takes away the socket that a process left behind when it was killed. One that answers is in use, and
/// what is no socket is not ours.
fn sweep(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another path",
        io::ErrorKind::AlreadyExists => "something that is no socket stands there: move it away",
        io::ErrorKind::NotFound => {
            "the folder must exist: `RuntimeDirectory=ravelin` in a systemd unit makes /run/ravelin"
        }
        io::ErrorKind::PermissionDenied => {
            "the folder must be writable for this user: `RuntimeDirectory=ravelin` in a systemd unit makes one"
        }
        _ => "choose another path in `[admin] listen`",
    };
    format!("cannot listen on unix:{}: {error}\n  help: {help}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, mode: u32) -> Result<Bound, String> {
        bind(&Address::Unix(path.to_owned()), mode, &mut Inherited::default())
    }

    #[test]
    fn a_socket_has_its_mode_and_leaves_no_name_behind() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660] {
            let path = folder.path().join("admin.sock");
            let bound = open(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop(bound);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_name_that_was_left_behind_is_swept_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as after kill -9");
        let bound = open(&path, 0o600).unwrap();
        assert!(open(&path, 0o600).unwrap_err().contains("another process listens there"));
        UnixStream::connect(&path).expect("the first still listens");
        drop(bound);
        fs::write(&path, "a note").unwrap();
        assert!(open(&path, 0o600).unwrap_err().contains("no socket stands there"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a note");
        assert!(open(&folder.path().join("none/x"), 0o600).unwrap_err().contains("RuntimeDirectory"));
    }
}
