//! For exactly which authority is a request? And what is said about hosts that belong to no site.

pub mod decode;
pub mod pattern;
pub mod table;

use std::net::{IpAddr, Ipv6Addr};

use http::Version;
use http::header::HOST;

pub use decode::{Authority, HostFault};
pub use pattern::HostPattern;
pub use table::HostTable;

use super::excerpt;
use super::target::Target;
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section};
use crate::head::Head;
use crate::http1::grade::Fault;
use crate::refusal::{Reason, Refusal};

/// What was written about unknown hosts.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    unknown: Option<Placed<u64>>,
}

/// What is said about unknown hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    unknown: Reason,
}

impl Raw {
    /// Reads `unknown_host` from the top of the file.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { unknown: section.get(reading, "unknown_host") }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { unknown: specific.unknown.or(self.unknown) }
    }

    /// 421 unless 404 was written.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let unknown = match self.unknown {
            Some(Placed { value: 404, .. }) => Reason::NoSuchHost,
            None | Some(Placed { value: 421, .. }) => Reason::UnknownHost,
            Some(other) => {
                let message = format!("`unknown_host` is {}: it can be 421 or 404", other.value);
                let hint = "421 names the cause (RFC 9110 section 15.5.20), 404 says no more than it must";
                complaints.error(Some(&other.place), message, Some(hint.to_owned()));
                Reason::UnknownHost
            }
        };
        Policy { unknown }
    }
}

impl Policy {
    /// The refusal of a host that belongs to no site.
    #[must_use]
    pub fn unknown(&self, authority: &Authority<'_>) -> Refusal {
        Refusal::new(self.unknown, format!("the host `{}` belongs to no site", authority.host))
    }
}

/// The one authority of a request: Host and the target must not disagree (RFC 9112 section 3.2, RFC 9113
/// section 8.3.1), and over HTTP/1 Host must be there.
pub fn authority<'a>(head: &Head<'a>, target: &Target<'a>) -> Result<Authority<'a>, Refusal> {
    let mut lines = head.all(&HOST);
    let host = lines.next().map(parse).transpose()?;
    if lines.next().is_some() {
        return Err(bad(Fault::RepeatedHost, "several Host fields"));
    }
    let named = target.authority.map(|text| parse(text.as_bytes())).transpose()?;
    match (host, named) {
        (Some(host), Some(named)) if !agree(&host, &named, target) => {
            let detail = format!("Host is `{}`, the target names `{}`", host.raw, named.raw);
            Err(bad(Fault::HostMismatch, detail))
        }
        (Some(host), _) => Ok(host),
        (None, Some(named)) if head.version() == Version::HTTP_2 => Ok(named),
        (None, _) if head.version() == Version::HTTP_10 => {
            let detail = "HTTP/1.0 without Host: it may be left out there, but then no site can be found";
            Err(bad(Fault::NoHostInHttp10, detail))
        }
        (None, _) => Err(bad(Fault::NoHost, "no Host")),
    }
}

fn parse(bytes: &[u8]) -> Result<Authority<'_>, Refusal> {
    // The detail goes to the log: whoever writes `user:password@host` does not find the password there.
    let shown = || bytes.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    let fault = |fault: &str| bad(Fault::BadHost, format!("`{}`: {fault}", excerpt(shown())));
    let text = str::from_utf8(bytes).map_err(|_| fault("not ASCII"))?;
    Authority::parse(text).map_err(|why| fault(&why.to_string()))
}

/// Equal once case, a trailing dot and a port that goes without saying are set aside.
fn agree(host: &Authority<'_>, named: &Authority<'_>, target: &Target<'_>) -> bool {
    let port = |authority: &Authority<'_>| {
        authority.port.or_else(|| target.scheme.map(super::target::Scheme::default_port))
    };
    host.host == named.host && port(host) == port(named)
}

fn bad(fault: Fault, detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::BadHost, detail).graded(fault)
}

/// The address that a host in normal form is, if it is one.
#[must_use]
pub fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// Whether a host in normal form is one that only developers use: `localhost`, names below `localhost`,
/// `test` (RFC 6761) and `ddev.site`, and plain addresses. HSTS never goes to these.
#[must_use]
pub fn is_dev_host(host: &str) -> bool {
    const ENDS: [&str; 3] = [".localhost", ".test", ".ddev.site"];
    host == "localhost" || ENDS.iter().any(|end| host.ends_with(end)) || address(host).is_some()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::guard::{target, testing};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Corpus {
        accepted: Vec<Accepted>,
        refused: Vec<String>,
        messages: Vec<Message>,
        development: Vec<String>,
        production: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Accepted {
        host: String,
        is: String,
        port: Option<u16>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Message {
        version: String,
        target: String,
        #[serde(default)]
        hosts: Vec<String>,
        is: Option<String>,
        refused: Option<String>,
    }

    fn corpus() -> Corpus {
        serde_norway::from_str(include_str!("../../../tests/corpus/hosts.yaml")).unwrap()
    }

    #[test]
    fn the_corpus_of_hosts() {
        for case in corpus().accepted {
            let authority = Authority::parse(&case.host).expect(&case.host);
            assert_eq!((authority.host.as_ref(), authority.port), (case.is.as_str(), case.port));
        }
        for host in corpus().refused {
            assert!(Authority::parse(&host).is_err(), "`{host}` was accepted");
        }
    }

    #[test]
    fn the_corpus_of_whole_messages() {
        for case in corpus().messages {
            let version = match case.version.as_str() {
                "1.0" => Version::HTTP_10,
                "1.1" => Version::HTTP_11,
                "2" => Version::HTTP_2,
                other => panic!("version {other}"),
            };
            let fields: Vec<_> = case.hosts.iter().map(|host| ("host", host.as_str())).collect();
            let parts = testing::head("GET", &case.target, version, &fields);
            let head = Head::new(&parts);
            let found = authority(&head, &target::read(&head).unwrap());
            let name = format!("HTTP/{} {} {:?}", case.version, case.target, case.hosts);
            match (found, case.is, case.refused) {
                (Ok(found), Some(is), None) => assert_eq!(found.host, is, "{name}"),
                (Err(refusal), None, Some(why)) => {
                    assert_eq!(refusal.reason, Reason::BadHost, "{name}");
                    assert!(refusal.detail.contains(&why), "{name}: {}", refusal.detail);
                }
                (found, ..) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn development_hosts() {
        for host in corpus().development {
            assert!(is_dev_host(&host), "{host}");
        }
        for host in corpus().production {
            assert!(!is_dev_host(&host), "{host}");
        }
    }

    #[test]
    fn bytes_outside_ascii_are_refused_and_shown_escaped() {
        let mut parts = testing::head("GET", "/", Version::HTTP_11, &[]);
        parts.headers.insert(HOST, http::HeaderValue::from_bytes(b"m\xc3\xbcnchen.de\xff").unwrap());
        let head = Head::new(&parts);
        let refusal = authority(&head, &target::read(&head).unwrap()).unwrap_err();
        assert!(refusal.detail.is_ascii(), "{}", refusal.detail);
    }

    #[test]
    fn a_password_in_front_of_a_host_is_not_shown() {
        for (target, host) in [("http://user:s3cret@a.test/", "a.test"), ("/", "user:s3cret@a.test")] {
            let parts = testing::head("GET", target, Version::HTTP_11, &[("host", host)]);
            let head = Head::new(&parts);
            let refusal = authority(&head, &target::read(&head).unwrap()).unwrap_err();
            assert!(!refusal.detail.contains("s3cret"), "{}", refusal.detail);
            assert!(refusal.detail.contains("`a.test`"), "{}", refusal.detail);
        }
    }

    #[test]
    fn unknown_hosts_are_421_or_404() {
        for (text, reason, complaints) in [
            ("", Reason::UnknownHost, 0),
            ("unknown_host = 421", Reason::UnknownHost, 0),
            ("unknown_host = 404", Reason::NoSuchHost, 0),
            ("unknown_host = 403", Reason::UnknownHost, 1),
        ] {
            let (raw, _) = testing::read(text, Raw::read);
            let mut found = Complaints::default();
            let policy = raw.compile(&mut found);
            assert_eq!(policy.unknown(&Authority::parse("a.test").unwrap()).reason, reason, "{text}");
            assert_eq!(found.iter().count(), complaints, "{text}");
        }
    }
}
