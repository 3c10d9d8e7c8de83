//! One connection: sniff, shake hands, and serve the protocol that was agreed on.

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::{Instant as Moment, timeout, timeout_at};

use super::answer;
use super::door::{Door, Place, Terms};
use super::first_bytes::{self, Protocol, Verdict};
use super::metered::Metered;
use super::pulse::Pulse;
use super::tally::Event;
use super::wire::{Stream, Wire};
use super::{farewell, http1, http2, introduction, socket};
use crate::client::{Peer, TlsFacts};
use crate::clock;
use crate::drain::{DrainWatch, Phase};
use crate::observe::id::RequestId;
use crate::reply::Reply;
use crate::request::Request;
use crate::tls::{self, Alpn, Plain};

/// A greeting of TLS with a post-quantum key share is below 2 KiB, and fits with all that browsers add.
const FIRST_READ: usize = 4 * 1024;

/// The most that is read of a plain request on a TLS port, to find its Host.
const HEAD_ON_TLS_PORT: usize = 8 * 1024;

/// How long a connection that has not said a byte may still say its first when the server closes: a
/// client whose request is on its way is served, one that connected ahead of time holds nobody up.
const LAST_CALL: Duration = Duration::from_secs(1);

/// A connection that was accepted.
pub(super) struct Guest {
    pub(super) tcp: TcpStream,
    pub(super) addr: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) accepted: Instant,
    pub(super) place: Place,
}

/// What sniffing came to.
enum Opening {
    /// These bytes open this protocol.
    Speaks(Protocol, BytesMut),
    /// Closed without a byte.
    Nothing,
    /// Closed or broken before it could be told.
    TooLittle,
}

/// Serves `guest` from its first byte to its last.
pub(super) async fn serve<S, F>(door: Arc<Door<S>>, guest: Guest)
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let terms = door.terms();
    let patience = if terms.tls.is_some() { terms.limits.handshake } else { terms.limits.header_read };
    let deadline = Moment::from_std(guest.accepted + patience);
    let mut drain = door.drain.clone();
    let (guest, first) = if terms.proxies.is_some() {
        let Some(introduced) = Box::pin(introduction::hear(&door, &terms, guest)).await else { return };
        introduced
    } else {
        (guest, BytesMut::new())
    };
    let opening = tokio::select! {
        opening = timeout_at(deadline, sniff(&guest.tcp, first)) => opening,
        () = last_call(&mut drain) => return,
        () = guest.place.seat.called_off() => return,
    };
    match (opening, terms.tls.is_some()) {
        (Err(_), _) => door.tally.event(Event::Silent),
        (Ok(Opening::Nothing), _) => door.tally.event(Event::Probe),
        (Ok(Opening::TooLittle), _) => door.tally.event(Event::ClientGone),
        (Ok(Opening::Speaks(Protocol::Tls, bytes)), true) => {
            secure(&door, terms, guest, bytes.freeze(), deadline).await;
        }
        (Ok(Opening::Speaks(Protocol::Http1, bytes)), false) => {
            plain(&door, terms, guest, bytes.freeze());
        }
        (Ok(Opening::Speaks(Protocol::Http1, bytes)), true) => {
            door.tally.foreign(Protocol::Http1);
            Box::pin(https_needed(&door, &terms, guest, bytes, deadline)).await;
        }
        (Ok(Opening::Speaks(protocol, _)), tls) => {
            Box::pin(refuse(&door, &terms, guest, protocol, tls)).await;
        }
    }
}

/// Until silent connections are given up, because the server goes down.
pub(super) async fn last_call(drain: &mut DrainWatch) {
    drain.reached(Phase::Closing).await;
    let _ = timeout(LAST_CALL, drain.reached(Phase::Killed)).await;
}

/// Reads until the first bytes say what they open. No buffer is held while nothing has come.
async fn sniff(tcp: &TcpStream, mut bytes: BytesMut) -> Opening {
    loop {
        // What came with a PROXY header may say enough.
        if !bytes.is_empty()
            && let Verdict::Speaks(protocol) = first_bytes::read(&bytes)
        {
            return Opening::Speaks(protocol, bytes);
        }
        if tcp.readable().await.is_err() {
            return Opening::TooLittle;
        }
        bytes.reserve(FIRST_READ);
        match tcp.try_read_buf(&mut bytes) {
            Ok(0) if bytes.is_empty() => return Opening::Nothing,
            Ok(0) => return Opening::TooLittle,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Opening::TooLittle,
        }
    }
}

/// TLS where it is wanted: the handshake, then the protocol of its ALPN.
async fn secure<S, F>(door: &Arc<Door<S>>, terms: Arc<Terms>, guest: Guest, first: Bytes, deadline: Moment)
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let Some(offer) = terms.tls.clone() else { return };
    let Guest { tcp, addr, local, mut place, .. } = guest;
    let mut drain = door.drain.clone();
    let shaken = tokio::select! {
        shaken = timeout_at(deadline, tls::accept(tcp, offer, first)) => shaken,
        () = drain.reached(Phase::Killed) => return,
        () = place.seat.called_off() => return,
    };
    let (stream, facts) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => {
            door.tally.handshake_failed(error.label());
            tracing::debug!(peer = %addr, %error, "no TLS connection");
            return;
        }
        Err(_) => {
            door.tally.event(Event::HandshakeTimeout);
            return;
        }
    };
    door.tally.event(Event::Handshake);
    if facts.alpn == Alpn::Acme {
        return;
    }
    let is_http2 = facts.alpn == Alpn::Http2;
    let tls = TlsFacts {
        sni: facts.sni,
        version: facts.version,
        cipher: facts.cipher,
        resumed: facts.resumed,
        clients: facts.clients,
        identity: facts.identity,
    };
    let peer = Arc::new(Peer { addr, local, tls: Some(tls), listener: door.listener });
    let pulse = Pulse::new(clock::now(), is_http2, false);
    place.seat.open(&pulse);
    let io = Metered::new(stream, Arc::clone(&pulse), place);
    if is_http2 {
        let door = Arc::clone(door);
        tokio::spawn(async move {
            let call = |request| (door.serve)(Arc::clone(&peer), request);
            http2::serve(io, &pulse, &terms.limits, &door.drain, &door.tally, call).await;
        });
    } else {
        converse(Arc::clone(door), terms, peer, io, pulse);
    }
}

/// HTTP/1 where it is wanted.
fn plain<S, F>(door: &Arc<Door<S>>, terms: Arc<Terms>, mut guest: Guest, first: Bytes)
where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let peer = Arc::new(Peer { addr: guest.addr, local: guest.local, tls: None, listener: door.listener });
    // The time for the first head runs from accepting: sniffing gives nobody a second helping.
    let pulse = Pulse::new(guest.accepted, false, true);
    guest.place.seat.open(&pulse);
    let io = Metered::new(Plain::new(guest.tcp, first), Arc::clone(&pulse), guest.place);
    converse(Arc::clone(door), terms, peer, io, pulse);
}

/// Begins the conversation in a task of its own: the one that sniffed and shook hands is ten times as large, and a
/// connection is idle for most of its life.
fn converse<S, F, T>(
    door: Arc<Door<S>>,
    terms: Arc<Terms>,
    peer: Arc<Peer>,
    io: Metered<T, Place>,
    pulse: Arc<Pulse>,
) where
    S: Fn(Arc<Peer>, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
    Metered<T, Place>: Stream,
{
    let wire = Wire::new(io);
    tokio::spawn(async move {
        let call = |request| (door.serve)(Arc::clone(&peer), request);
        http1::serve(wire, &pulse, &terms.limits, &door.drain, |event| door.tally.event(event), call).await;
    });
}

/// Plain HTTP on the TLS port: a page that names the https URL.
async fn https_needed<S>(door: &Door<S>, terms: &Terms, guest: Guest, mut head: BytesMut, deadline: Moment) {
    let _ = timeout_at(deadline, read_head(&guest.tcp, &mut head)).await;
    // Not counted on from the ids of requests, which belong to the workers: there is no request yet.
    let id = RequestId::new(clock::wall(), RandomState::new().hash_one(0_u8));
    if let Some(held) = door.tally.may_log_foreign(clock::now()) {
        tracing::info!(
            peer = %guest.addr, listener = %guest.local, request_id = id.as_str(), held_back = held,
            "plain HTTP on a port for https; answered with the address to use"
        );
    }
    let page = answer::https_needed(&head, &id, clock::wall());
    farewell(door, terms, guest, page).await;
}

/// Reads to the empty line that ends a head, or to the most that is worth reading.
async fn read_head(tcp: &TcpStream, head: &mut BytesMut) {
    let ends =
        |head: &[u8]| head.windows(4).any(|w| w == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n");
    while !ends(head) && head.len() < HEAD_ON_TLS_PORT {
        if tcp.readable().await.is_err() {
            return;
        }
        match tcp.try_read_buf(head) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

/// A protocol that is not served here: its own way of saying no if it has one, else nothing, at once.
async fn refuse<S>(door: &Door<S>, terms: &Terms, guest: Guest, protocol: Protocol, tls: bool) {
    door.tally.foreign(protocol);
    if let Some(held) = door.tally.may_log_foreign(clock::now()) {
        tracing::info!(
            peer = %guest.addr, listener = %guest.local, protocol = protocol.name(), held_back = held,
            "only HTTP is served here; closed"
        );
    }
    match answer::to_foreign(protocol, tls) {
        [] => socket::reset_on_close(&guest.tcp),
        words => farewell(door, terms, guest, words.to_vec()).await,
    }
}

async fn farewell<S>(door: &Door<S>, terms: &Terms, mut guest: Guest, words: Vec<u8>) {
    let pulse = Pulse::new(clock::now(), false, true);
    guest.place.seat.open(&pulse);
    let io = Metered::new(Plain::new(guest.tcp, Bytes::new()), Arc::clone(&pulse), guest.place);
    farewell::say(io, words, &pulse, &terms.limits, &door.drain).await;
}
