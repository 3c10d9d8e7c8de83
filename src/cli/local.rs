//! Ravelin on one's own machine: the configuration that `dev` and `demo` share, and its addresses.

use std::net::{Ipv6Addr, TcpListener};

use super::flags::{list, quoted};
use crate::server::StartError;

/// The configuration as it is shipped; what stands in it is replaced value by value.
const TEMPLATE: &str = include_str!("../../config/dev.toml");

/// What differs from the template.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// The port for https.
    pub(super) https: u16,
    /// The port for http, which leads to https.
    pub(super) http: u16,
    /// Whether the machine has IPv6: `localhost` is both addresses then.
    pub(super) ipv6: bool,
    /// Who makes the certificate: a word of `certificates`.
    pub(super) certificates: &'static str,
    /// Which hosts are served.
    pub(super) hosts: Vec<String>,
    /// The origin.
    pub(super) to: String,
    /// The form of the access log.
    pub(super) access: &'static str,
}

impl Local {
    /// The text of the configuration.
    pub(super) fn to_toml(&self) -> String {
        let six = |block: &&str| self.ipv6 || !block.contains("//[::1]:");
        let text = TEMPLATE.split("\n\n").filter(six).collect::<Vec<_>>().join("\n\n");
        let mut text = text;
        for (written, meant) in self.values() {
            text = text.replace(&written, &meant);
        }
        text
    }

    /// What stands in the template, and what is meant instead. Whole assignments, so that no value that was
    /// put in is taken for one of the template's.
    fn values(&self) -> Vec<(String, String)> {
        let mut values = Vec::new();
        for address in ["127.0.0.1", "[::1]"] {
            let url = |scheme: &str, port: u16| format!("url = \"{scheme}://{address}:{port}\"");
            values.push((url("https", 8443), url("https", self.https)));
            values.push((url("http", 8081), url("http", self.http)));
        }
        let word = |key: &str, value: &str| format!("{key} = {}", quoted(value));
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        values.extend([
            (word("certificates", "development"), word("certificates", self.certificates)),
            (format!("hosts = {}", list(&hosts)), format!("hosts = {}", list(&self.hosts))),
            (word("upstream", "http://127.0.0.1:8080"), word("upstream", &self.to)),
            (word("access", "combined"), word("access", self.access)),
        ]);
        values
    }

    /// Why it could not start, with the flag that helps against a busy port.
    pub(super) fn explain(&self, error: &StartError) -> String {
        let StartError::Bind(bind) = error else { return error.to_string() };
        let (flag, free) =
            if bind.address.port() == self.https { ("--https", 9443) } else { ("--http", 9080) };
        format!("{error}\n  help: `{flag} {free}` takes another port")
    }
}

/// Whether something can listen on `::1` here.
pub(super) fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config;
    use crate::observe::settings::Form;

    fn local() -> Local {
        Local {
            https: 9443,
            http: 9080,
            ipv6: true,
            certificates: "throw-away",
            hosts: vec!["a.test".to_owned()],
            to: "http://127.0.0.1:81".to_owned(),
            access: "off",
        }
    }

    #[test]
    fn every_value_reaches_the_configuration() {
        let local = local();
        for (written, _) in local.values() {
            assert!(TEMPLATE.contains(&written), "{written} is not in the template");
        }
        let text = local.to_toml();
        let generation = config::load_text("test", text, PathBuf::new()).generation.expect("usable");
        let addresses: Vec<_> = generation.listeners.iter().map(|l| l.settings.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:9443", "[::1]:9443", "127.0.0.1:9080", "[::1]:9080"]);
        assert_eq!(&*generation.sites.first().expect("one site").name, "a.test");
        assert_eq!(generation.log.access, Form::Off);
    }

    #[test]
    fn ports_may_change_places_with_the_templates() {
        let text = Local { https: 8081, http: 8443, ..local() }.to_toml();
        let generation = config::load_text("test", text, PathBuf::new()).generation.expect("usable");
        let addresses: Vec<_> = generation.listeners.iter().map(|l| l.settings.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:8081", "[::1]:8081", "127.0.0.1:8443", "[::1]:8443"]);
    }

    #[test]
    fn the_template_itself_is_a_usable_file() {
        let loaded =
            config::load_text("dev.toml", TEMPLATE.replace("development", "throw-away"), PathBuf::new());
        assert!(loaded.generation.is_some() && loaded.complaints.is_empty(), "{}", loaded.complaints);
    }

    #[test]
    fn without_ipv6_nothing_listens_there() {
        let text = Local { ipv6: false, ..local() }.to_toml();
        let generation = config::load_text("test", text, PathBuf::new()).generation.expect("usable");
        assert!(generation.listeners.iter().all(|listener| listener.settings.address.is_ipv4()));
        assert_eq!(generation.listeners.len(), 2);
    }
}
