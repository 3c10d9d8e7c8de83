//! The PROXY header before everything else: it says for whom the proxy in front opened a connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::net::TcpStream;
use tokio::time::{Instant as Moment, timeout_at};

use super::accept::{canonical, keep_out, shut_out, turn_away};
use super::connection::{Guest, last_call};
use super::door::{Door, Terms};
use super::proxy_protocol::{self, Header};
use super::socket;
use super::tally::Event;
use crate::clock;

/// A proxy writes its header at once: how long it may take at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Read at once: a header, and nearly always the client's first bytes with it.
const ROOM: usize = 1024;

/// What came instead of a header.
enum Silence {
    /// The connection was closed without a byte: a port check.
    Probe,
    /// Something else, in words.
    Fault(String),
}

/// Hears whom the proxy speaks for. The guest is then that client, with the bytes that came behind the header; `None`
/// if the connection is over.
pub(super) async fn hear<S>(door: &Door<S>, terms: &Terms, mut guest: Guest) -> Option<(Guest, BytesMut)> {
    let deadline = Moment::from_std(guest.accepted + PATIENCE);
    let mut drain = door.drain.clone();
    let heard = tokio::select! {
        heard = timeout_at(deadline, header(&guest.tcp)) => heard,
        () = last_call(&mut drain) => return None,
        () = guest.place.seat.called_off() => return None,
    };
    let (header, rest) = match heard {
        Ok(Ok(heard)) => heard,
        Ok(Err(Silence::Probe)) => {
            door.tally.event(Event::Probe);
            return None;
        }
        Ok(Err(Silence::Fault(why))) => {
            failed(door, &guest.tcp, guest.addr, &why);
            return None;
        }
        Err(_) => {
            failed(door, &guest.tcp, guest.addr, "there was none within 5 seconds");
            return None;
        }
    };
    if let Header::Told { source, destination } = header {
        guest.addr = canonical(source);
        guest.local = canonical(destination);
    }
    if !terms.lets_in(guest.addr.ip()) {
        keep_out(door, &guest.tcp, guest.addr);
        return None;
    }
    // The proxy's own connections, and those of trusted proxies behind it, carry many clients.
    if header != Header::Own && !terms.client.trusts(guest.addr.ip()) {
        let client = terms.client.key(guest.addr.ip());
        if terms.bars(guest.addr.ip(), client) {
            shut_out(door, &guest.tcp);
            return None;
        }
        if let Err(full) = guest.place.seat.belongs_to(client, &terms.limits) {
            socket::reset_on_close(&guest.tcp);
            turn_away(door, full, guest.addr);
            return None;
        }
    }
    Some((guest, rest))
}

/// Reads to the end of the header; what came behind it is left over.
async fn header(tcp: &TcpStream) -> Result<(Header, BytesMut), Silence> {
    let mut bytes = BytesMut::new();
    loop {
        tcp.readable().await.map_err(|error| Silence::Fault(error.to_string()))?;
        bytes.reserve(ROOM);
        match tcp.try_read_buf(&mut bytes) {
            Ok(0) if bytes.is_empty() => return Err(Silence::Probe),
            Ok(0) => return Err(Silence::Fault("it ended in the middle".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Silence::Fault(error.to_string())),
        }
        // A header has an end within `LONGEST`: no more than that, and one read, is ever held.
        match proxy_protocol::read(&bytes) {
            Ok(Some((header, length))) => {
                bytes.advance(length);
                return Ok((header, bytes));
            }
            Ok(None) => {}
            Err(fault) => return Err(Silence::Fault(fault.to_string())),
        }
    }
}

/// Closes a connection that did not introduce itself; without a byte, counted and said now and then.
pub(super) fn failed<S>(door: &Door<S>, tcp: &TcpStream, peer: SocketAddr, why: &str) {
    socket::reset_on_close(tcp);
    door.tally.event(Event::BadProxyHeader);
    if let Some(held) = door.tally.may_log(Event::BadProxyHeader, clock::now()) {
        tracing::warn!(
            %peer, listener = door.listener, why, held_back = held,
            "this listener requires a PROXY header (`proxy_protocol`); closed at once"
        );
    }
}
