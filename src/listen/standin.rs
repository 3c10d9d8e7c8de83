//! STAND-IN, to be deleted when `client/` is merged: the same shapes, just enough to test the door with.

use std::net::{IpAddr, SocketAddr};

/// Stand-in for `client::Peer`.
#[derive(Debug)]
pub struct Peer {
    /// The client's end.
    pub addr: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// What TLS agreed on.
    pub tls: Option<TlsFacts>,
    /// Which listener.
    pub listener: usize,
}

/// Stand-in for `client::TlsFacts`.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The server name the client asked for.
    pub sni: Option<Box<str>>,
    /// The protocol version.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// Stand-in for `client::ClientKey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(pub IpAddr);
