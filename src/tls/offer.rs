//! What a listener offers: one configuration of TLS, or one for each kind of clients, chosen by the name that is asked
//! for.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use tokio::net::TcpStream;

use super::accept::ALPN;
use super::clients;
use crate::guard::host::HostTable;

/// A greeting that is longer is not put together: a real one is a tenth of that.
const LONGEST_HELLO: usize = 16 * 1024;
/// How much is read at once; nearly every greeting fits.
const READ: usize = 2048;

/// What a listener offers.
#[derive(Debug)]
pub struct Offer {
    default: Entry,
    /// `None` if all sites ask the same of their clients: then nothing is looked at before the handshake.
    sites: Option<Sites>,
    /// For a CA that looks for its proof and has no certificate to show; `None` where nobody must show one.
    proof: Option<Entry>,
}

/// One configuration, and what it asks of clients.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) config: Arc<ServerConfig>,
    pub(super) clients: Arc<clients::Policy>,
    /// Whether this is for [`ALPN`] and nothing else.
    pub(super) is_proof: bool,
}

impl Entry {
    fn new(config: Arc<ServerConfig>, clients: Arc<clients::Policy>) -> Self {
        Self { config, clients, is_proof: false }
    }
}

#[derive(Debug)]
struct Sites {
    hosts: Arc<HostTable<usize>>,
    entries: HashMap<usize, Entry>,
}

impl From<Arc<ServerConfig>> for Offer {
    /// The same for everybody, and nobody is asked for a certificate.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { default: Entry::new(config, clients::Policy::off()), sites: None, proof: None }
    }
}

impl Offer {
    /// What `table` asks, with the configurations that `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new<E>(
        table: &clients::Table,
        hosts: &Arc<HostTable<usize>>,
        make: impl Fn(&clients::Policy) -> Result<Arc<ServerConfig>, E>,
    ) -> Result<Self, E> {
        let default = Entry::new(make(table.of(None))?, Arc::clone(table.of(None)));
        let mut made: HashMap<*const clients::Policy, Entry> = HashMap::new();
        let mut entries = HashMap::new();
        for (number, clients) in table.sites() {
            let entry = match made.entry(Arc::as_ptr(clients)) {
                Slot::Occupied(known) => known.get().clone(),
                Slot::Vacant(slot) => slot.insert(Entry::new(make(clients)?, Arc::clone(clients))).clone(),
            };
            entries.insert(number, entry);
        }
        let sites = (!entries.is_empty()).then(|| Sites { hosts: Arc::clone(hosts), entries });
        Ok(Self { default, sites, proof: None })
    }

    /// The same, and for a greeting that offers `acme-tls/1` alone this configuration, which asks nobody for a certificate:
    /// over such a connection nothing is said.
    #[must_use]
    pub fn proving(self, config: Arc<ServerConfig>) -> Self {
        let entry = Entry::new(config, clients::Policy::off());
        Self { proof: Some(Entry { is_proof: true, ..entry }), ..self }
    }

    /// What holds for this connection, and the bytes that were read to find out.
    pub(super) async fn choose(&self, io: &TcpStream, first: Bytes) -> (&Entry, Bytes) {
        if self.sites.is_none() && self.proof.is_none() {
            return (&self.default, first);
        }
        // Boxed: only listeners that ask different things of different clients have room for it.
        let (Asked { name, wants_proof }, bytes) = Box::pin(asked(io, first)).await;
        if let Some(proof) = self.proof.as_ref().filter(|_| wants_proof) {
            return (proof, bytes);
        }
        let of_site = |sites: &Sites| sites.hosts.get(&name?).copied();
        let site = self.sites.as_ref().and_then(|sites| sites.entries.get(&of_site(sites)?));
        (site.unwrap_or(&self.default), bytes)
    }
}

/// What a greeting asks for.
#[derive(Debug, Default)]
struct Asked {
    /// The server name, in normal form.
    name: Option<String>,
    /// Whether it offers `acme-tls/1` alone, as a CA does (RFC 8737 section 3).
    wants_proof: bool,
}

impl Asked {
    fn read(hello: &ClientHello<'_>) -> Self {
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        let mut offers = hello.alpn().into_iter().flatten();
        let wants_proof = offers.next() == Some(ALPN) && offers.next().is_none();
        Self { name: name.map(str::to_ascii_lowercase), wants_proof }
    }
}

/// What the client asks for, and all that was read. What cannot be read asks for nothing: the handshake then says what is
/// wrong with it.
async fn asked(io: &TcpStream, first: Bytes) -> (Asked, Bytes) {
    let mut bytes = BytesMut::from(first);
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while let Some(mut rest) = bytes.get(fed..).filter(|rest| !rest.is_empty()) {
            match acceptor.read_tls(&mut rest) {
                Ok(count) if count > 0 => fed += count,
                _ => return (Asked::default(), bytes.freeze()),
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return (Asked::read(&accepted.client_hello()), bytes.freeze());
            }
            Ok(None) if bytes.len() < LONGEST_HELLO => {}
            Ok(None) | Err(_) => return (Asked::default(), bytes.freeze()),
        }
        if io.readable().await.is_err() {
            return (Asked::default(), bytes.freeze());
        }
        bytes.reserve(READ);
        match io.try_read_buf(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return (Asked::default(), bytes.freeze()),
            Ok(_) => {}
        }
    }
}
