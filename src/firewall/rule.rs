//! One rule of a firewall, in the words of a security group: type, protocol, port, addresses, description.

use std::fmt;

use ipnet::IpNet;

use super::kind::{self, Kind};
use crate::client::networks::{self, Networks};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, FromToml, Item, Placed, Reading, Section, Text};

/// Whose end of a connection a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What comes in; addresses are those of the sources.
    Ingress,
    /// What goes out; addresses are those of the destinations.
    Egress,
}

/// What is carried over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Every protocol, all ports: `-1` at AWS.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of IPv4.
    Icmp,
    /// ICMP of IPv6.
    Icmpv6,
    /// Any other, by its number at IANA.
    Number(u8),
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; the same for one port.
    pub last: u16,
}

/// A message of ICMP: its type and, if it matters, its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// The type, such as 8 for an echo request.
    pub kind: u8,
    /// The code; none for every code.
    pub code: Option<u8>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What comes in, or what goes out.
    pub direction: Direction,
    /// What is carried.
    pub protocol: Protocol,
    /// Which ports; none for protocols without ports, and for every protocol.
    pub ports: Option<Ports>,
    /// Which message of ICMP; none for every message.
    pub icmp: Option<Icmp>,
    /// The other end.
    pub nets: Box<[IpNet]>,
    /// What it is for.
    pub description: Option<Box<str>>,
    /// Where it was written; none for one that was imported.
    pub place: Option<Place>,
}

impl Direction {
    /// The name of the table in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The key that holds the other end.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ingress => "source",
            Self::Egress => "destination",
        }
    }
}

impl Protocol {
    /// Whether it has ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }

    fn covers(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

/// As AWS writes it, and as it is read.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("-1"),
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmpv6 => f.write_str("icmpv6"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromText for Protocol {
    fn from_text(text: &str) -> Result<Self, Fault> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "tcp" | "6" => Self::Tcp,
            "udp" | "17" => Self::Udp,
            "icmp" | "1" => Self::Icmp,
            "icmpv6" | "ipv6-icmp" | "58" => Self::Icmpv6,
            "all" | "-1" => Self::All,
            other => Self::Number(other.parse().map_err(|_| {
                let hint = "write `tcp`, `udp`, `icmp`, `icmpv6`, `-1` for all, or a number of IANA's";
                Fault::new(format!("`{text}` is not a protocol"), hint)
            })?),
        })
    }
}

/// A word or a number: `-1` is both at AWS.
impl FromToml for Protocol {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let Some(number) = item.as_integer() else {
            return Text::from_toml(item, reading).map(|Text(protocol)| protocol);
        };
        read_text(&number.to_string(), item, reading)
    }
}

/// Every port.
pub(super) const ALL_PORTS: Ports = Ports { first: 0, last: u16::MAX };

impl Ports {
    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` is among them.
    #[must_use]
    pub const fn contain(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    const fn cover(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// As it is read: `443`, `8000-8100`.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromText for Ports {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let fault = |said: &str| {
            Fault::new(format!("`{text}` {said}"), "write a port (443), a range (\"8000-8100\"), or \"all\"")
        };
        if text.eq_ignore_ascii_case("all") {
            return Ok(ALL_PORTS);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number =
            |text: &str| text.trim().parse::<u16>().map_err(|_| fault("is not a port or a range of ports"));
        let ports = Self { first: number(first)?, last: number(last)? };
        if ports.first > ports.last {
            return Err(fault("ends before it begins"));
        }
        if ports.last == 0 {
            return Err(fault("is not a port: they begin at 1"));
        }
        Ok(ports)
    }
}

impl FromToml for Ports {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let Some(number) = item.as_integer() else {
            return Text::from_toml(item, reading).map(|Text(ports)| ports);
        };
        read_text(&number.to_string(), item, reading)
    }
}

fn read_text<T: FromText>(text: &str, item: &Item<'_>, reading: &mut Reading<'_>) -> Option<T> {
    T::from_text(text)
        .map_err(|fault| {
            let message = format!("`{}`: {}", item.name(), fault.message);
            reading.complaints.error(Some(&item.place), message, fault.hint);
        })
        .ok()
}

impl Rule {
    /// Reads one `[[ingress]]` or `[[egress]]`; `None` after a complaint.
    pub(super) fn read(
        direction: Direction,
        mut section: Section<'_>,
        reading: &mut Reading<'_>,
    ) -> Option<Self> {
        let written = Written {
            kind: section.get(reading, "type"),
            protocol: section.get(reading, "protocol"),
            ports: section.get(reading, "port"),
            icmp_type: section.get(reading, "icmp_type"),
            icmp_code: section.get(reading, "icmp_code"),
            place: section.place.clone(),
        };
        let key = direction.key();
        let unwritten = section.item(key).is_none();
        let nets = section.get::<Vec<Placed<Networks>>>(reading, key);
        let description = section.get::<String>(reading, "description");
        section.finish(reading);
        if unwritten {
            let hint =
                format!("write e.g. `{key} = [\"192.0.2.0/24\"]`; `[\"0.0.0.0/0\", \"::/0\"]` is everywhere");
            let message = format!("this `[[{}]]` does not say its `{key}`", direction.word());
            reading.complaints.error(Some(&written.place), message, Some(hint));
        }
        let (protocol, ports, icmp) = written.meant(&mut reading.complaints)?;
        let rule = Self {
            direction,
            protocol,
            ports,
            icmp,
            nets: nets.map(|list| networks::all(&list.value).collect()).unwrap_or_default(),
            description: description.map(|placed| placed.value.into()),
            place: Some(written.place),
        };
        rule.check_families(&mut reading.complaints);
        Some(rule)
    }

    /// ICMP has a protocol of its own for each version of IP.
    fn check_families(&self, complaints: &mut Complaints) {
        let wrong = |net: &&IpNet| match self.protocol {
            Protocol::Icmp => matches!(net, IpNet::V6(_)),
            Protocol::Icmpv6 => matches!(net, IpNet::V4(_)),
            _ => false,
        };
        if let Some(net) = self.nets.iter().find(wrong) {
            let other = if self.protocol == Protocol::Icmp { Protocol::Icmpv6 } else { Protocol::Icmp };
            let message = format!("`{net}` never sends `{}`", self.protocol);
            let hint = format!("write a rule with `protocol = \"{other}\"` for it");
            complaints.error(self.place.as_ref(), message, Some(hint));
        }
    }

    /// The type that says the same, as AWS' console calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.icmp.is_some() {
            return if self.protocol == Protocol::Icmp { "Custom ICMP - IPv4" } else { "Custom ICMP - IPv6" };
        }
        kind::name(self.protocol, self.ports)
    }

    /// Whether connections of TCP to `port` are what it is about.
    #[must_use]
    pub fn is_for(&self, port: u16) -> bool {
        self.protocol == Protocol::All
            || (self.protocol == Protocol::Tcp && self.ports.is_some_and(|ports| ports.contain(port)))
    }

    /// Whether everything that `other` lets through goes through this one too, as far as protocol and port go.
    pub(super) fn covers_service(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            _ if self.protocol == Protocol::All => true,
            (Some(mine), Some(theirs)) => mine.cover(theirs),
            (None, None) => self.icmp.is_none() || self.icmp == other.icmp,
            _ => false,
        };
        self.direction == other.direction && self.protocol.covers(other.protocol) && ports
    }

    /// The service in a few words: `tcp 443`, `icmp type 8`, `all traffic`.
    #[must_use]
    pub fn service(&self) -> String {
        match (self.protocol, self.ports, self.icmp) {
            (Protocol::All, ..) => "all traffic".to_owned(),
            (protocol, Some(ports), _) if ports == ALL_PORTS => format!("every port of {protocol}"),
            (protocol, Some(ports), _) => format!("{protocol} {ports}"),
            (protocol, None, Some(Icmp { kind, code: Some(code) })) => {
                format!("{protocol} type {kind} code {code}")
            }
            (protocol, None, Some(Icmp { kind, code: None })) => format!("{protocol} type {kind}"),
            (Protocol::Number(number), None, None) => format!("protocol {number}"),
            (protocol, None, None) => protocol.to_string(),
        }
    }
}

/// The keys that say which service a rule is about.
struct Written {
    kind: Option<Placed<Text<&'static Kind>>>,
    protocol: Option<Placed<Protocol>>,
    ports: Option<Placed<Ports>>,
    icmp_type: Option<Placed<u64>>,
    icmp_code: Option<Placed<u64>>,
    place: Place,
}

type Service = (Protocol, Option<Ports>, Option<Icmp>);

impl Written {
    /// Type, protocol and port together; `None` after a complaint.
    fn meant(&self, complaints: &mut Complaints) -> Option<Service> {
        let protocol = self.protocol(complaints)?;
        let icmp = self.icmp(protocol, complaints);
        if !protocol.has_ports() {
            if let Some(ports) = &self.ports {
                let message = format!("`port` has no meaning for protocol `{protocol}`");
                let hint = "delete the line; only tcp and udp have ports".to_owned();
                complaints.error(Some(&ports.place), message, Some(hint));
            }
            return Some((protocol, None, icmp));
        }
        let usual = self.kind.as_ref().and_then(|kind| kind.value.0.ports);
        let ports = self.ports.as_ref().map(|ports| ports.value).or(usual);
        if ports.is_none() {
            let hint = "write `port = 8080`, `port = \"8000-8100\"` or `port = \"all\"`".to_owned();
            complaints.error(Some(&self.place), "this rule does not say which `port` it is for", Some(hint));
        }
        Some((protocol, Some(ports?), icmp))
    }

    fn protocol(&self, complaints: &mut Complaints) -> Option<Protocol> {
        let meant = self.kind.as_ref().and_then(|kind| kind.value.0.protocol);
        match (&self.protocol, meant) {
            (Some(written), Some(meant)) if written.value != meant => {
                let kind = self.kind.as_ref().map_or("", |kind| kind.value.0.name);
                let message = format!("type `{kind}` goes over {meant}, and not over {}", written.value);
                let hint = "delete `protocol`, or write `type = \"custom\"`".to_owned();
                complaints.error(Some(&written.place), message, Some(hint));
                None
            }
            (Some(written), _) => Some(written.value),
            (None, Some(meant)) => Some(meant),
            // A port without a word more is one of TCP, as nearly all are.
            (None, None) if self.ports.is_some() => Some(Protocol::Tcp),
            (None, None) => {
                let hint = "write `type = \"HTTPS\"`, or `protocol` and `port`".to_owned();
                complaints.error(Some(&self.place), "this rule does not say what it is for", Some(hint));
                None
            }
        }
    }

    fn icmp(&self, protocol: Protocol, complaints: &mut Complaints) -> Option<Icmp> {
        let is_icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
        let mut number = |written: &Option<Placed<u64>>, key: &str| {
            let written = written.as_ref()?;
            let fault = if !is_icmp {
                format!("`{key}` has no meaning for protocol `{protocol}`")
            } else if written.value > 255 {
                format!("`{key}` is {}: it must lie between 0 and 255", written.value)
            } else {
                return u8::try_from(written.value).ok();
            };
            complaints.error(Some(&written.place), fault, Some("leave it out for every message".to_owned()));
            None
        };
        let (kind, code) = (number(&self.icmp_type, "icmp_type"), number(&self.icmp_code, "icmp_code"));
        if let (None, Some(_), Some(placed)) = (kind, code, &self.icmp_code) {
            let hint = Some("write `icmp_type` too".to_owned());
            complaints.error(Some(&placed.place), "`icmp_code` means nothing without `icmp_type`", hint);
        }
        kind.map(|kind| Icmp { kind, code })
    }
}
