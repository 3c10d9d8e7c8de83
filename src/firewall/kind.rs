//! The types of rules, by the names that AWS' console has for them.

use super::rule::{ALL_PORTS, Ports, Protocol};
use crate::config::complaint::did_you_mean;
use crate::config::section::{Fault, FromText};

/// A type: a name for a protocol and a port.
#[derive(Debug)]
pub struct Kind {
    /// As it is shown.
    pub name: &'static str,
    /// Its protocol; none where the rule has to say it.
    pub protocol: Option<Protocol>,
    /// Its ports, unless the rule says others; none where it has to say them, or there are none.
    pub ports: Option<Ports>,
    /// Whether it is a way into the machine or its data, which the whole world has no business with.
    pub private: bool,
}

const fn tcp(name: &'static str, port: u16, private: bool) -> Kind {
    Kind { name, protocol: Some(Protocol::Tcp), ports: Some(Ports::one(port)), private }
}

const fn other(name: &'static str, protocol: Option<Protocol>, ports: Option<Ports>) -> Kind {
    Kind { name, protocol, ports, private: false }
}

/// Every type. Where two say the same, exports use the first.
static KINDS: [Kind; 41] = [
    tcp("HTTP", 80, false),
    tcp("HTTPS", 443, false),
    tcp("SSH", 22, true),
    tcp("MYSQL/Aurora", 3306, true),
    tcp("MySQL", 3306, true),
    tcp("MariaDB", 3306, true),
    tcp("PostgreSQL", 5432, true),
    tcp("MSSQL", 1433, true),
    tcp("Oracle-RDS", 1521, true),
    tcp("Redshift", 5439, true),
    tcp("Redis", 6379, true),
    tcp("Memcached", 11211, true),
    tcp("MongoDB", 27017, true),
    tcp("Elasticsearch", 9200, true),
    tcp("Solr", 8983, true),
    tcp("RDP", 3389, true),
    tcp("VNC", 5900, true),
    tcp("WinRM-HTTP", 5985, true),
    tcp("WinRM-HTTPS", 5986, true),
    tcp("SMB", 445, true),
    tcp("NFS", 2049, true),
    tcp("LDAP", 389, true),
    tcp("FTP", 21, true),
    tcp("Telnet", 23, true),
    tcp("SMTP", 25, false),
    tcp("SMTPS", 465, false),
    tcp("POP3", 110, false),
    tcp("POP3S", 995, false),
    tcp("IMAP", 143, false),
    tcp("IMAPS", 993, false),
    tcp("DNS (TCP)", 53, false),
    other("DNS (UDP)", Some(Protocol::Udp), Some(Ports::one(53))),
    other("All TCP", Some(Protocol::Tcp), Some(ALL_PORTS)),
    other("All UDP", Some(Protocol::Udp), Some(ALL_PORTS)),
    other("All ICMP - IPv4", Some(Protocol::Icmp), None),
    other("All ICMP - IPv6", Some(Protocol::Icmpv6), None),
    other("All traffic", Some(Protocol::All), None),
    other("Custom TCP", Some(Protocol::Tcp), None),
    other("Custom UDP", Some(Protocol::Udp), None),
    other("Custom ICMP - IPv4", Some(Protocol::Icmp), None),
    other("Custom ICMP - IPv6", Some(Protocol::Icmpv6), None),
];

/// Says neither protocol nor port.
static CUSTOM: Kind = other("custom", None, None);

/// Names without blanks, signs and case: `MYSQL/Aurora` is `mysqlaurora`, and "Custom TCP Rule" ends in "rule".
fn folded(name: &str) -> String {
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    letters.strip_suffix("rule").map_or(letters.clone(), str::to_owned)
}

impl FromText for &'static Kind {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let word = folded(text);
        if matches!(word.as_str(), "custom" | "customprotocol") {
            return Ok(&CUSTOM);
        }
        if let Some(kind) = KINDS.iter().find(|kind| folded(kind.name) == word) {
            return Ok(kind);
        }
        let hint = did_you_mean(text, KINDS.iter().map(|kind| kind.name));
        let hint = hint.unwrap_or_else(|| {
            "write `HTTP`, `HTTPS`, `SSH`, `MySQL` …, or `custom` with `protocol` and `port`".to_owned()
        });
        Err(Fault::new(format!("`{text}` is not a type of rule"), hint))
    }
}

/// The name of what a protocol and its ports are.
pub(super) fn name(protocol: Protocol, ports: Option<Ports>) -> &'static str {
    let same = |kind: &&Kind| kind.protocol == Some(protocol) && kind.ports == ports;
    let custom = match protocol {
        Protocol::Tcp => "Custom TCP",
        Protocol::Udp => "Custom UDP",
        _ => CUSTOM.name,
    };
    KINDS.iter().find(same).map_or(custom, |kind| kind.name)
}

/// The private services that lie within `ports` of `protocol`.
pub(super) fn private(protocol: Protocol, ports: Option<Ports>) -> impl Iterator<Item = &'static Kind> {
    let hit = move |kind: &&Kind| {
        let port = kind.ports.map_or(0, |ports| ports.first);
        let within = ports.is_some_and(|ports| ports.contain(port));
        kind.private && (protocol == Protocol::All || (protocol == Protocol::Tcp && within))
    };
    KINDS.iter().filter(hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        for (written, name) in [
            ("HTTP", "HTTP"),
            ("https", "HTTPS"),
            ("ssh", "SSH"),
            ("MySQL", "MySQL"),
            ("MYSQL/Aurora", "MYSQL/Aurora"),
            ("mysql aurora", "MYSQL/Aurora"),
            ("Custom TCP Rule", "Custom TCP"),
            ("custom-udp", "Custom UDP"),
            ("All traffic", "All traffic"),
            ("custom", "custom"),
            ("Custom Protocol", "custom"),
        ] {
            assert_eq!(<&Kind>::from_text(written).unwrap().name, name, "{written}");
        }
        let fault = <&Kind>::from_text("HTPS").unwrap_err();
        assert_eq!(fault.hint.as_deref(), Some("did you mean `HTTPS`?"));
        assert!(<&Kind>::from_text("quux").unwrap_err().hint.unwrap().contains("custom"));
    }

    #[test]
    fn every_name_is_told_from_every_other() {
        let mut names: Vec<String> = KINDS.iter().map(|kind| folded(kind.name)).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_service_has_one_name() {
        assert_eq!(name(Protocol::Tcp, Some(Ports::one(3306))), "MYSQL/Aurora");
        assert_eq!(name(Protocol::Tcp, Some(Ports::one(8080))), "Custom TCP");
        assert_eq!(name(Protocol::All, None), "All traffic");
        assert_eq!(name(Protocol::Icmp, None), "All ICMP - IPv4");
        assert_eq!(name(Protocol::Number(47), None), "custom");
    }
}
