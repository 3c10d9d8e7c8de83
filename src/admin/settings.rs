//! `[admin]`: where metrics and readiness are served, and where changes are taken.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section};

/// The longest path of a unix socket: `sun_path` has 108 bytes with its NUL (unix(7)).
const PATH_MAX: usize = 107;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    listen: Vec<Placed<String>>,
    socket_mode: Option<Placed<String>>,
    base: PathBuf,
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The addresses of the listener; none if there is no such listener.
    pub listen: Vec<Address>,
    /// The permissions of a unix socket.
    pub socket_mode: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { listen: Vec::new(), socket_mode: 0o600 }
    }
}

/// One address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Metrics and readiness.
    Tcp(SocketAddr),
    /// Also what changes something: the permissions of the socket say who may.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    /// `127.0.0.1:9145`, `[::1]:9145` or `unix:PATH`; the error says what is wrong.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.len() > PATH_MAX || path.contains('\0') {
                Err(format!("`{text}`: the path of a unix socket has 1 to {PATH_MAX} bytes"))
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| format!("`{text}` is not an address with a port"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Raw {
    /// Reads `[admin]` and closes it.
    pub fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let place = section.place.clone();
        let listen = section.get::<Vec<Placed<String>>>(reading, "listen");
        let misspelt = listen.is_none() && section.item("listen").is_none();
        let raw = Self {
            listen: listen.map(|listen| listen.value).unwrap_or_default(),
            socket_mode: section.get::<String>(reading, "socket_mode"),
            base: reading.base.clone(),
        };
        section.finish(reading);
        if misspelt {
            let hint = Some("write e.g. `listen = \"unix:/run/ravelin/admin.sock\"`".to_owned());
            reading.complaints.warning(Some(&place), "`[admin]` without `listen` opens no listener", hint);
        }
        raw
    }

    /// What it means. An address that others can reach is allowed, because containers need it, but never
    /// silently: metrics name every site and tell how busy it is.
    #[must_use]
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let base = &self.base;
        let listen = self.listen.iter().filter_map(|placed| address(placed, complaints));
        let listen = listen.map(|address| match address {
            Address::Unix(path) => Address::Unix(base.join(path)),
            tcp @ Address::Tcp(_) => tcp,
        });
        let mut unique: Vec<Address> = Vec::new();
        for address in listen {
            if !unique.contains(&address) {
                unique.push(address);
            }
        }
        let mode = self.socket_mode.and_then(|placed| mode(&placed, complaints));
        Policy { listen: unique, socket_mode: mode.unwrap_or(Policy::default().socket_mode) }
    }
}

/// Only its owner, or its group, too: whoever may connect may lift every ban.
fn mode(placed: &Placed<String>, complaints: &mut Complaints) -> Option<u32> {
    match placed.value.as_str() {
        "0600" => Some(0o600),
        "0660" => Some(0o660),
        other => {
            let message = format!("`socket_mode` cannot be `{other}`");
            let hint = "write \"0600\" for this user alone, or \"0660\" for its group, too".to_owned();
            complaints.error(Some(&placed.place), message, Some(hint));
            None
        }
    }
}

fn address(placed: &Placed<String>, complaints: &mut Complaints) -> Option<Address> {
    let address = match placed.value.parse::<Address>() {
        Ok(address) => address,
        Err(message) => {
            let hint = "write `unix:/run/ravelin/admin.sock`, `127.0.0.1:9145` or `[::1]:9145`".to_owned();
            complaints.error(Some(&placed.place), message, Some(hint));
            return None;
        }
    };
    if let Address::Tcp(tcp) = &address
        && !tcp.ip().to_canonical().is_loopback()
    {
        let message = format!("the admin listener {tcp} can be reached from outside of this machine");
        let hint = format!(
            "metrics have no password: let a firewall guard the port, or listen on `127.0.0.1:{}`",
            tcp.port()
        );
        complaints.warning(Some(&placed.place), message, Some(hint));
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toml::de::DeTable;

    use super::*;
    use crate::config::complaint::Source;

    fn read(text: &str) -> (Policy, Complaints) {
        let source = Arc::new(Source { name: "test.toml".into(), text: text.into() });
        let document = DeTable::parse(&source.text).unwrap();
        let mut reading = Reading {
            complaints: Complaints::default(),
            env: &|_| None,
            base: PathBuf::from("/etc/ravelin"),
        };
        let raw = Raw::read(Section::root(document.get_ref(), &source), &mut reading);
        let policy = raw.compile(&mut reading.complaints);
        (policy, reading.complaints)
    }

    #[test]
    fn loopback_is_quiet() {
        for address in ["127.0.0.1:9145", "[::1]:9145", "127.8.8.8:1", "[::ffff:127.0.0.1]:9145"] {
            let (policy, complaints) = read(&format!("listen = \"{address}\""));
            assert_eq!(policy.listen, [address.parse().unwrap()]);
            assert!(complaints.is_empty(), "{complaints}");
        }
    }

    #[test]
    fn a_unix_socket_stands_alone_or_beside_an_address() {
        let (policy, complaints) =
            read("listen = [\"unix:run/admin.sock\", \"127.0.0.1:1\"]\nsocket_mode = \"0660\"");
        let socket = Address::Unix("/etc/ravelin/run/admin.sock".into());
        assert_eq!(policy.listen, [socket, "127.0.0.1:1".parse().unwrap()]);
        assert_eq!(policy.socket_mode, 0o660);
        assert!(complaints.is_empty(), "{complaints}");
        assert_eq!(
            read("listen = \"unix:/x\"").0,
            Policy { listen: vec!["unix:/x".parse().unwrap()], socket_mode: 0o600 }
        );
    }

    #[test]
    fn whatever_others_can_reach_is_warned_about() {
        for address in ["0.0.0.0:9145", "[::]:9145", "192.0.2.1:9145"] {
            let (policy, complaints) = read(&format!("listen = \"{address}\""));
            assert!(!policy.listen.is_empty() && !complaints.has_errors());
            assert!(complaints.to_string().contains("from outside"), "{address}: {complaints}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        let long = format!("listen = \"unix:/{}\"", "a".repeat(PATH_MAX));
        for text in [
            "listen = \"9145\"",
            "listen = \"localhost:9145\"",
            "listen = 9145",
            "listn = \"127.0.0.1:1\"",
            "listen = \"unix:\"",
            &long,
        ] {
            let (policy, complaints) = read(text);
            assert!(policy.listen.is_empty() && complaints.has_errors(), "{text}: {complaints}");
        }
        assert!(read("listen = \"unix:/x\"\nsocket_mode = \"0777\"").1.to_string().contains("0660"));
    }
}
