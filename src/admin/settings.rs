//! `[admin]`: where metrics and readiness are served.

use std::net::SocketAddr;

use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    listen: Option<Placed<String>>,
}

/// What it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The address of the listener; none if there is no such listener.
    pub listen: Option<SocketAddr>,
}

impl Raw {
    /// Reads `[admin]` and closes it.
    pub fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let place = section.place.clone();
        let raw = Self { listen: section.get::<String>(reading, "listen") };
        let misspelt = raw.listen.is_none() && section.item("listen").is_none();
        section.finish(reading);
        if misspelt {
            let hint = Some("write e.g. `listen = \"127.0.0.1:9145\"`".to_owned());
            reading.complaints.warning(Some(&place), "`[admin]` without `listen` opens no listener", hint);
        }
        raw
    }

    /// What it means. An address that others can reach is allowed, because containers need it, but never
    /// silently: metrics name every site and tell how busy it is.
    #[must_use]
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        Policy { listen: self.listen.and_then(|placed| address(&placed, complaints)) }
    }
}

fn address(placed: &Placed<String>, complaints: &mut Complaints) -> Option<SocketAddr> {
    let text = placed.value.trim();
    let Ok(address) = text.parse::<SocketAddr>() else {
        let hint = "write an address and a port: `127.0.0.1:9145`, `[::1]:9145`".to_owned();
        complaints.error(Some(&placed.place), format!("`{text}` is not an address with a port"), Some(hint));
        return None;
    };
    if !address.ip().to_canonical().is_loopback() {
        let message = format!("the admin listener {address} can be reached from outside of this machine");
        let hint = format!(
            "metrics have no password: let a firewall guard the port, or listen on `127.0.0.1:{}`",
            address.port()
        );
        complaints.warning(Some(&placed.place), message, Some(hint));
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use toml::de::DeTable;

    use super::*;
    use crate::config::complaint::Source;

    fn read(text: &str) -> (Option<SocketAddr>, Complaints) {
        let source = Arc::new(Source { name: "test.toml".into(), text: text.into() });
        let document = DeTable::parse(&source.text).unwrap();
        let mut reading =
            Reading { complaints: Complaints::default(), env: &|_| None, base: PathBuf::from("/") };
        let raw = Raw::read(Section::root(document.get_ref(), &source), &mut reading);
        let policy = raw.compile(&mut reading.complaints);
        (policy.listen, reading.complaints)
    }

    #[test]
    fn loopback_is_quiet() {
        for address in ["127.0.0.1:9145", "[::1]:9145", "127.8.8.8:1", "[::ffff:127.0.0.1]:9145"] {
            let (listen, complaints) = read(&format!("listen = \"{address}\""));
            assert_eq!(listen, Some(address.parse().unwrap()));
            assert!(complaints.is_empty(), "{complaints}");
        }
    }

    #[test]
    fn whatever_others_can_reach_is_warned_about() {
        for address in ["0.0.0.0:9145", "[::]:9145", "192.0.2.1:9145"] {
            let (listen, complaints) = read(&format!("listen = \"{address}\""));
            assert!(listen.is_some() && !complaints.has_errors());
            assert!(complaints.to_string().contains("from outside"), "{address}: {complaints}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for text in
            ["listen = \"9145\"", "listen = \"localhost:9145\"", "listen = 9145", "listn = \"127.0.0.1:1\""]
        {
            let (listen, complaints) = read(text);
            assert!(listen.is_none() && complaints.has_errors(), "{text}: {complaints}");
        }
    }
}
