//! Listening sockets: one per worker on the same address, or a sentence that says why not.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::holder;

/// Connections that the kernel completes and keeps for us per socket; it lowers this to
/// `net.core.somaxconn` (4096 on current kernels).
const BACKLOG: i32 = 4096;

/// After this long without a byte the kernel asks whether the client is still there. It matters for
/// connections without a deadline of their own, which are upgraded ones (WebSocket).
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);

const PRIVILEGED: &str = "ports below 1024 need a right that this process lacks. Give it with \
    `setcap cap_net_bind_service=+ep $(command -v ravelin)`, with \
    `AmbientCapabilities=CAP_NET_BIND_SERVICE` in a systemd unit, or choose a port of 1024 or above, such \
    as 8443";

/// After this long without an acknowledgement, or with a closed window, the kernel gives a connection up
/// with what it holds of it. Without this, the send buffers of stalled clients outlive our close by many
/// minutes.
const GIVE_UP_AFTER: Duration = Duration::from_mins(1);

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What stands in the way, with the remedy.
    pub why: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.why)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Opens `workers` sockets on `address`, among which the kernel spreads connections
/// (`SO_REUSEPORT`). With port 0 the first decides the port of the others. `[::]` takes IPv4 clients
/// too. The sockets are non-blocking; what they accept has `TCP_NODELAY`, keep-alive and
/// a user time-out set (Linux hands them down from the listener).
///
/// Another process that listens there is an error even if it would share the port: two servers that
/// each get half of the visitors are never what was meant.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, BindError> {
    let explain = |source: io::Error| BindError { address, why: why(address, &source), source };
    if address.port() != 0 {
        alone(address).map_err(explain)?;
    }
    let first = open(address).map_err(explain)?;
    let actual = first.local_addr().map_err(explain)?;
    let mut all = vec![first];
    for _ in 1..workers {
        all.push(open(actual).map_err(explain)?);
    }
    Ok(all)
}

/// Spreads `inherited` sockets, of which there is at least one, over `workers`: each gets at least one, and none is
/// left out, for the kernel goes on to queue connections in every one of them. Where there are too few, workers share:
/// a socket opened now, and closed again because the start fails, would take connections with it.
///
/// # Errors
/// When the system refuses what a listener needs.
pub fn adopt(inherited: Vec<TcpListener>, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    for listener in &inherited {
        let socket = SockRef::from(listener);
        socket.set_nonblocking(true)?;
        prepare(&socket)?;
    }
    let mut by_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let count = inherited.len();
    let more = (count..workers).zip(inherited.iter().cycle()).map(|(_, socket)| socket.try_clone());
    let more: Vec<TcpListener> = more.collect::<io::Result<_>>()?;
    for (number, socket) in inherited.into_iter().chain(more).enumerate() {
        if let Some(sockets) = by_worker.get_mut(number % workers.max(1)) {
            sockets.push(socket);
        }
    }
    Ok(by_worker)
}

/// What accepted connections inherit.
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    socket.set_tcp_user_timeout(Some(GIVE_UP_AFTER))
}

/// Fails if anybody else listens on the address: without `SO_REUSEPORT` the kernel says so.
fn alone(address: SocketAddr) -> io::Result<()> {
    let probe = plain(address)?;
    probe.bind(&address.into())
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = plain(address)?;
    socket.set_reuse_port(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn plain(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of an earlier run that linger in TIME_WAIT do not keep us out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Closes with a reset instead of a farewell, for a client that gets nothing at all: no state stays
/// behind in the kernel.
pub(super) fn reset_on_close(socket: &impl std::os::fd::AsFd) {
    // A socket that cannot be told is closed the slow way, which is right too.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Takes that back: a close is a farewell again.
pub(super) fn farewell_on_close(socket: &impl std::os::fd::AsFd) {
    let _ = SockRef::from(socket).set_linger(None);
}

fn why(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder::of_port(port) {
            Some(holder) => format!(
                "port {port} is in use by {holder}. Stop it (`systemctl stop …`, or give Apache another port in \
                 ports.conf), or choose another port"
            ),
            None => format!(
                "port {port} is in use by another process. `ss -ltnp 'sport = :{port}'`, run as root, names it; stop \
                 it or choose another port"
            ),
        },
        io::ErrorKind::PermissionDenied if port < 1024 => PRIVILEGED.to_owned(),
        io::ErrorKind::AddrNotAvailable => format!(
            "{} is no address of this machine. `ip address` lists those that are; 0.0.0.0 or [::] stands for all",
            address.ip()
        ),
        io::ErrorKind::Unsupported => format!(
            "this system has no {}",
            if address.is_ipv6() { "IPv6: write 0.0.0.0 for every IPv4 address" } else { "IPv4" }
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    #[test]
    fn workers_share_the_port_that_the_first_got() {
        let all = bind(loopback(0), 3).unwrap();
        let ports: Vec<u16> = all.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|p| *p == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_busy_port_names_its_holder_even_if_it_would_share() {
        let all = bind(loopback(0), 1).unwrap();
        let address = all[0].local_addr().unwrap();
        let error = bind(address, 1).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address}: port {} is in use by ", address.port()))
        );
        let itself = std::process::id();
        assert!(error.contains(&format!("process {itself}")), "{error}");
    }

    #[test]
    fn a_foreign_address_says_so() {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
        let error = bind(address, 1).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 is no address of this machine"), "{error}");
    }

    #[test]
    fn a_privileged_port_names_the_capability() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let sentence = why(loopback(443), &denied);
        assert!(sentence.contains("setcap") && sentence.contains("CAP_NET_BIND_SERVICE"), "{sentence}");
        assert!(sentence.contains("8443"), "{sentence}");
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_clients() {
        let all = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        let Ok(listeners) = bind(all, 1) else { return }; // a machine without IPv6
        let port = listeners[0].local_addr().unwrap().port();
        TcpStream::connect(loopback(port)).unwrap();
    }

    #[test]
    fn inherited_sockets_are_spread_and_none_is_left_out() {
        for (given, workers, each) in [(1, 3, vec![1, 1, 1]), (4, 2, vec![2, 2]), (3, 2, vec![2, 1])] {
            let sockets = bind(loopback(0), given).unwrap();
            let by_worker = adopt(sockets, workers).unwrap();
            assert_eq!(by_worker.iter().map(Vec::len).collect::<Vec<_>>(), each);
        }
    }

    /// What the kernel has queued is lost with the last process that has the socket, not with the first.
    #[test]
    fn a_queue_outlives_the_one_who_opened_it() {
        for (handed_over, served) in [(true, 64), (false, 0)] {
            let opened = bind(loopback(0), 2).unwrap();
            let address = opened[0].local_addr().unwrap();
            let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
            let heirs = if handed_over {
                adopt(opened.iter().map(|socket| socket.try_clone().unwrap()).collect(), 3).unwrap()
            } else {
                Vec::new()
            };
            drop(opened);
            for (client, _) in
                heirs.iter().flatten().flat_map(|socket| std::iter::from_fn(|| socket.accept().ok()))
            {
                (&client).write_all(b"!").unwrap();
            }
            let mut byte = [0];
            let answered =
                clients.iter().filter(|client| (&mut &**client).read(&mut byte).is_ok_and(|n| n == 1));
            assert_eq!(answered.count(), served);
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let listeners = bind(loopback(0), 1).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = listeners[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(GIVE_UP_AFTER));
    }
}
