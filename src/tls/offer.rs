//! What a listener offers: one configuration of TLS, or one for each kind of clients, chosen by the name that is asked
//! for.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

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
}

/// One configuration, and what it asks of clients.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) config: Arc<ServerConfig>,
    pub(super) clients: Arc<clients::Policy>,
}

#[derive(Debug)]
struct Sites {
    hosts: Arc<HostTable<usize>>,
    entries: HashMap<usize, Entry>,
}

impl From<Arc<ServerConfig>> for Offer {
    /// The same for everybody, and nobody is asked for a certificate.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { default: Entry { config, clients: clients::Policy::off() }, sites: None }
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
        let default = Entry { config: make(table.of(None))?, clients: Arc::clone(table.of(None)) };
        let mut made: HashMap<*const clients::Policy, Entry> = HashMap::new();
        let mut entries = HashMap::new();
        for (number, clients) in table.sites() {
            let entry = match made.entry(Arc::as_ptr(clients)) {
                Slot::Occupied(known) => known.get().clone(),
                Slot::Vacant(slot) => {
                    slot.insert(Entry { config: make(clients)?, clients: Arc::clone(clients) }).clone()
                }
            };
            entries.insert(number, entry);
        }
        let sites = (!entries.is_empty()).then(|| Sites { hosts: Arc::clone(hosts), entries });
        Ok(Self { default, sites })
    }

    /// What holds for this connection, and the bytes that were read to find out.
    pub(super) async fn choose(&self, io: &TcpStream, first: Bytes) -> (&Entry, Bytes) {
        let Some(sites) = &self.sites else { return (&self.default, first) };
        // Boxed: only listeners whose sites differ have room for it.
        let (name, bytes) = Box::pin(asked(io, first)).await;
        let site = name.and_then(|name| sites.hosts.get(&name));
        (site.and_then(|site| sites.entries.get(site)).unwrap_or(&self.default), bytes)
    }
}

/// The server name that the client asks for, in normal form, and all that was read. What cannot be read has no name: the
/// handshake then says what is wrong with it.
async fn asked(io: &TcpStream, first: Bytes) -> (Option<String>, Bytes) {
    let mut bytes = BytesMut::from(first);
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while let Some(mut rest) = bytes.get(fed..).filter(|rest| !rest.is_empty()) {
            match acceptor.read_tls(&mut rest) {
                Ok(count) if count > 0 => fed += count,
                _ => return (None, bytes.freeze()),
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
                return (name.map(str::to_ascii_lowercase), bytes.freeze());
            }
            Ok(None) if bytes.len() < LONGEST_HELLO => {}
            Ok(None) | Err(_) => return (None, bytes.freeze()),
        }
        if io.readable().await.is_err() {
            return (None, bytes.freeze());
        }
        bytes.reserve(READ);
        match io.try_read_buf(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return (None, bytes.freeze()),
            Ok(_) => {}
        }
    }
}
