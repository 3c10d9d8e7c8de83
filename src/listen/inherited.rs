//! Sockets that were opened before this process began: by systemd (socket activation), or by the process whose place
//! it takes.
//!
//! Both say `LISTEN_FDS` (`sd_listen_fds(3)`). What belongs to which listener is told by its address.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use listenfd::ListenFd;

/// Sockets that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    line: Option<UnixDatagram>,
}

impl Inherited {
    /// Takes over what there is. To be called once, before there are threads: it also takes the variables out of the
    /// environment.
    #[must_use]
    pub fn take() -> Self {
        let mut given = ListenFd::from_env();
        let mut all = Self::default();
        for index in 0..given.len() {
            if let Ok(Some(socket)) = given.take_tcp_listener(index) {
                all.tcp.push(socket);
            } else if let Ok(Some(socket)) = given.take_unix_listener(index) {
                all.unix.push(socket);
            } else if let Ok(Some(line)) = given.take_unix_datagram(index) {
                all.line = Some(line);
            }
        }
        all
    }

    /// The sockets that listen on `address`.
    pub fn tcp(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let is_there = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|local| local == address);
        self.tcp.extract_if(.., is_there).collect()
    }

    /// The socket that listens under this name.
    pub fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let is_there =
            |socket: &UnixListener| socket.local_addr().is_ok_and(|local| local.as_pathname() == Some(path));
        let at = self.unix.iter().position(is_there)?;
        Some(self.unix.swap_remove(at))
    }

    /// The line to the process whose place this one takes, if that is so.
    pub fn line(&mut self) -> Option<UnixDatagram> {
        self.line.take()
    }

    /// Closes what nobody has claimed, and says so.
    pub fn close(self) {
        let tcp = self.tcp.iter().filter_map(|socket| socket.local_addr().ok());
        let names = tcp
            .map(|address| address.to_string())
            .chain(self.unix.iter().filter_map(|socket| Some(format!("{:?}", socket.local_addr().ok()?))));
        let mut names: Vec<String> = names.collect();
        names.dedup();
        if !names.is_empty() {
            tracing::warn!(
                sockets = names.join(", "),
                "these sockets were handed over, and no `[[listen]]` or `[admin]` has their address: closed"
            );
        }
    }
}
