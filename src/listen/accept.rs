//! Accepting connections: caps, exhaustion survived, and an orderly end.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::census::Full;
use super::connection::{self, Guest};
use super::door::{Door, Place};
use super::tally::Event;
use super::{introduction, socket};
use crate::client::Peer;
use crate::clock;
use crate::reply::Reply;
use crate::request::Request;

/// The first pause when the process is out of descriptors or memory, and the longest. Long enough not to
/// spin, short enough that a free place is taken within half a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Accepts connections on `listener` and spawns each, until the door shuts. What the kernel has accepted by
/// then is still taken and served once; then the socket is closed.
///
/// Run it in the worker's entry future itself: a panic in it must not go unnoticed.
///
/// # Errors
/// Only when the socket cannot be registered with the runtime.
pub async fn run<S, F>(listener: StdListener, door: Arc<Door<S>>) -> io::Result<()>
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let mut drain = door.drain.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.shuts() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, addr)) => {
                pause = FIRST_PAUSE;
                admit(&door, tcp, addr);
            }
            Err(error) => stumble(&door, &error, &mut pause).await,
        }
    }
    let listener = listener.into_std()?;
    empty_queue(&listener, &door);
    Ok(())
}

/// Takes what has been waiting in the kernel's queue: closing the socket would reset those clients.
fn empty_queue<S, F>(listener: &StdListener, door: &Arc<Door<S>>)
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    while let Ok((tcp, addr)) = listener.accept() {
        let tokio = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp));
        if let Ok(tcp) = tokio {
            admit(door, tcp, addr);
        }
    }
}

/// Gives the connection a place and a task, or closes it at once.
fn admit<S, F>(door: &Arc<Door<S>>, tcp: TcpStream, addr: SocketAddr)
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let terms = door.terms.load();
    let limits = &terms.limits;
    let addr = canonical(addr);
    let believed = terms.proxies.as_ref().map(|proxies| proxies.contains(addr.ip()));
    // With the PROXY protocol the rules are about the address that it tells, and that comes later.
    match believed {
        Some(false) => {
            return introduction::failed(door, &tcp, addr, "it comes from outside of `proxy_protocol_from`");
        }
        None if !terms.lets_in(addr.ip()) => return keep_out(door, &tcp, addr),
        _ => {}
    }
    let carries_many = believed.is_some() || terms.client.trusts(addr.ip());
    let client = (!carries_many).then(|| terms.client.key(addr.ip()));
    if client.is_some_and(|client| terms.bars(addr.ip(), client)) {
        return shut_out(door, &tcp);
    }
    let now = clock::now();
    match door.census.enter(client, limits, now) {
        Ok(seat) => {
            if seat.crowded() {
                door.tally.event(Event::ShedOpening);
            }
            // A client that is gone already has no local address to tell.
            let Ok(local) = tcp.local_addr().map(canonical) else {
                return door.tally.event(Event::AcceptFailed);
            };
            door.tally.event(Event::Accepted);
            let place = Place { seat, _live: door.drain.enter() };
            let guest = Guest { tcp, addr, local, accepted: now, place };
            tokio::spawn(connection::serve(Arc::clone(door), guest));
        }
        Err(full) => {
            socket::reset_on_close(&tcp);
            turn_away(door, full, addr);
        }
    }
}

/// No `[[ingress]]` rule lets this address in: closed without a byte.
pub(super) fn keep_out<S>(door: &Door<S>, tcp: &TcpStream, addr: SocketAddr) {
    socket::reset_on_close(tcp);
    door.tally.event(Event::KeptOut);
    if let Some(held) = door.tally.may_log(Event::KeptOut, clock::now()) {
        tracing::info!(
            peer = %addr, listener = door.listener, held_back = held,
            "no `[[ingress]]` rule lets this address in; closed at once"
        );
    }
}

/// Who is locked out of everything gets no connection. Whoever made the ban was told of it.
pub(super) fn shut_out<S>(door: &Door<S>, tcp: &TcpStream) {
    socket::reset_on_close(tcp);
    door.tally.event(Event::Banned);
}

pub(super) fn turn_away<S>(door: &Door<S>, full: Full, addr: SocketAddr) {
    let (event, key) = match full {
        Full::Total if door.terms.load().limits.short_of_files.is_some() => {
            (Event::FullTotal, "open files (LimitNOFILE=)")
        }
        Full::Total => (Event::FullTotal, "limits.connections"),
        Full::Client => (Event::FullClient, "limits.connections_per_client"),
        Full::Memory => (Event::FullMemory, "limits.memory"),
    };
    door.tally.event(event);
    if let Some(held) = door.tally.may_log(event, clock::now()) {
        tracing::warn!(peer = %addr, limit = key, held_back = held, "too many connections; closed at once");
    }
}

/// An error of accept(2) says either that one client is gone, and the next may be there, or that this
/// process or system has no room; then trying again at once would only heat the room.
async fn stumble<S>(door: &Door<S>, error: &io::Error, pause: &mut Duration) {
    if !is_exhaustion(error) {
        door.tally.event(Event::AcceptFailed);
        tracing::debug!(%error, "a connection was gone before it was accepted");
        return;
    }
    door.tally.event(Event::Exhausted);
    door.census.make_room(clock::now());
    if let Some(held) = door.tally.may_log(Event::Exhausted, clock::now()) {
        tracing::error!(
            %error, held_back = held,
            "no room for more connections. Raise the limit of open files (LimitNOFILE= in the systemd unit, \
             --ulimit nofile= in a container), or lower `limits.connections`"
        );
    }
    sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}

/// EMFILE, ENFILE, ENOMEM and ENOBUFS, by their numbers on Linux.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 12 | 105))
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
