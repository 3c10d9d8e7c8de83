//! Opens a connection to a member, within one deadline for the name, TCP and TLS.

mod lookup;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use lookup::Names;

use super::balance::Member;
use super::endpoint::Endpoint;
use super::error::{Kind, Retry, UpstreamError};
use super::stream::Stream;

/// What names lead to. One for the process, as the system's resolver is: a reload must not forget the last
/// good answer, and sites with the same origin put one question.
static NAMES: LazyLock<Names> = LazyLock::new(Names::of_system);

/// Where the name of `member` leads by now, if it has one and the resolver answers; nobody is waited for.
pub(super) fn leads_to(member: &Member) -> Option<Arc<[IpAddr]>> {
    match &member.endpoint {
        Endpoint::Net { host, .. } if host.parse::<IpAddr>().is_err() => NAMES.glance(host),
        _ => None,
    }
}

/// Connects to `member` in at most `limit`; with `http1`, for HTTP/1 and nothing else.
pub(super) async fn connect(member: &Member, limit: Duration, http1: bool) -> Result<Stream, UpstreamError> {
    let opened = match timeout(limit, open(member, limit, http1)).await {
        Ok(opened) => opened,
        Err(_) => Err(UpstreamError::new(Kind::Unreachable, format!("no connection within {limit:?}"))),
    };
    // Nothing of a request went out before there was a connection.
    opened.map_err(|error| error.retry(Retry::Anywhere))
}

async fn open(member: &Member, limit: Duration, http1: bool) -> Result<Stream, UpstreamError> {
    #[cfg(test)]
    if let Some(dialled) = crate::tests::net::dial(&member.name).await {
        return dialled.map(|end| Stream::Simulated(Box::new(end))).map_err(|error| unreachable(&error));
    }
    let (host, port) = match &member.endpoint {
        Endpoint::Unix(path) => {
            let opened = UnixStream::connect(path).await;
            return opened.map(Stream::Unix).map_err(|error| unreachable(&error));
        }
        Endpoint::Net { host, port, .. } => (host, *port),
    };
    let tcp = tcp(host, port, limit).await?;
    match &member.tls {
        None => Ok(Stream::Tcp(tcp)),
        Some(tls) => match tls.connect(tcp, http1).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(UpstreamError::new(Kind::Tls, format!("TLS: {error}"))),
        },
    }
}

/// Tries every address of the name, each with its share of the time.
async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, UpstreamError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return dial(SocketAddr::new(address, port)).await.map_err(|error| unreachable(&error));
    }
    let addresses = NAMES
        .addresses(host)
        .await
        .map_err(|error| UpstreamError::new(Kind::Unreachable, format!("looking up {host}: {error}")))?;
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses.iter().map(|address| SocketAddr::new(*address, port)) {
        match timeout(share, dial(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer")),
        }
    }
    Err(unreachable(&last))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A head and its body go out in one write; waiting for more would only add latency.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unreachable(error: &io::Error) -> UpstreamError {
    let kind = if is_ours(error) { Kind::Exhausted } else { Kind::Unreachable };
    UpstreamError::new(kind, format!("connecting: {error}"))
}

/// Whether no origin could have been reached: out of files (EMFILE, ENFILE), buffers (ENOBUFS), memory
/// (ENOMEM) or local ports (EADDRNOTAVAIL).
fn is_ours(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};

    use super::super::health::Patience;
    use super::super::settings::PoolPolicy;
    use super::*;
    use crate::clock;
    use crate::config::section::FromText;

    const LIMIT: Duration = Duration::from_secs(5);

    fn member(url: &str) -> Member {
        let patience = Patience { fail_after: 0, retry_after: LIMIT };
        Member::new(
            Endpoint::from_text(url).unwrap(),
            None,
            patience,
            1,
            &PoolPolicy::default(),
            clock::now(),
        )
    }

    async fn kind(url: &str, limit: Duration) -> Kind {
        let error = connect(&member(url), limit, false).await.unwrap_err();
        assert_eq!(error.retry, Retry::Anywhere);
        error.kind
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        // `localhost` is ::1 first on many machines; only 127.0.0.1 listens here.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        assert!(matches!(connect(&member(&url), LIMIT, false).await, Ok(Stream::Tcp(_))));
    }

    #[tokio::test]
    async fn a_unix_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.sock");
        let url = format!("unix:{}", path.display());
        assert_eq!(kind(&url, LIMIT).await, Kind::Unreachable);
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(connect(&member(&url), LIMIT, false).await, Ok(Stream::Unix(_))));
    }

    #[test]
    fn what_we_lack_ourselves_is_no_fault_of_the_origin() {
        let kind = |errno: Errno| unreachable(&errno.into()).kind;
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL] {
            assert_eq!(kind(ours), Kind::Exhausted, "{ours}");
        }
        for theirs in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::TIMEDOUT, Errno::NOENT] {
            assert_eq!(kind(theirs), Kind::Unreachable, "{theirs}");
        }
    }

    #[tokio::test]
    async fn refused_and_unknown_and_too_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(kind(&url, LIMIT).await, Kind::Unreachable);
        assert_eq!(kind("http://no-such-host.invalid:80", LIMIT).await, Kind::Unreachable);
        assert_eq!(kind("http://no-such-host.invalid:80", Duration::ZERO).await, Kind::Unreachable);
    }
}
