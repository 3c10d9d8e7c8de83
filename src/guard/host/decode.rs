//! The decoder of an authority: host and optional port, in one normal form (RFC 3986 section 3.2,
//! RFC 9110 section 7.2). Sans-IO.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A host and its port, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As it was received.
    pub raw: &'a str,
    /// Lower-case, without the trailing dot of a fully qualified name; IPv6 in brackets and canonical.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// Why a text is no authority that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// No host at all.
    Empty,
    /// A byte that no host name has: userinfo, a path, a list, a blank, a percent escape, non-ASCII.
    BadByte(u8),
    /// An empty label (`a..b`), a label over 63 or a name over 253 bytes (RFC 1035 section 2.3.4).
    BadLabel,
    /// It ends in a number and is no IPv4 address; the URL standard reads `1.2.3` as one nonetheless.
    BadIpv4,
    /// Brackets without an IPv6 address in them.
    BadIpv6,
    /// A port that is not 1 to 65535, written without leading zeros.
    BadPort,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no host"),
            Self::BadByte(byte) => write!(f, "`{}` cannot be part of a host", byte.escape_ascii()),
            Self::BadLabel => f.write_str("a part between dots is empty or too long"),
            Self::BadIpv4 => f.write_str("it ends in a number and is no IPv4 address"),
            Self::BadIpv6 => f.write_str("brackets need an IPv6 address, without zone"),
            Self::BadPort => f.write_str("the port is not a number from 1 to 65535"),
        }
    }
}

impl<'a> Authority<'a> {
    /// Decodes `raw`. An authority that is already in normal form is borrowed.
    pub fn parse(raw: &'a str) -> Result<Self, HostFault> {
        let (host, rest) = if raw.starts_with('[') { bracketed(raw)? } else { named(raw)? };
        let port = if rest.is_empty() { None } else { Some(port(rest)?) };
        Ok(Self { raw, host, port })
    }

    /// The port, or the one that stands for the scheme.
    #[must_use]
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

fn bracketed(raw: &str) -> Result<(Cow<'_, str>, &str), HostFault> {
    let end = raw.find(']').ok_or(HostFault::BadIpv6)?;
    let (host, rest) = raw.split_at_checked(end + 1).ok_or(HostFault::BadIpv6)?;
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).ok_or(HostFault::BadIpv6)?;
    let address: Ipv6Addr = inner.parse().map_err(|_| HostFault::BadIpv6)?;
    let canonical = format!("[{address}]");
    let host = if canonical == host { Cow::Borrowed(host) } else { Cow::Owned(canonical) };
    Ok((host, rest))
}

fn named(raw: &str) -> Result<(Cow<'_, str>, &str), HostFault> {
    let (name, rest) =
        raw.split_at_checked(raw.bytes().position(|b| b == b':').unwrap_or(raw.len())).unwrap_or((raw, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostFault::Empty);
    }
    let upper = check_labels(name)?;
    let host = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
    Ok((host, rest))
}

/// Looks at each byte of a name once; whether one of them is upper-case.
fn check_labels(name: &str) -> Result<bool, HostFault> {
    let (mut upper, mut length, mut is_number) = (false, 0, true);
    for byte in name.bytes() {
        match byte {
            b'.' if length == 0 => return Err(HostFault::BadLabel),
            b'.' => (length, is_number) = (0, true),
            _ if length == 63 => return Err(HostFault::BadLabel),
            b'0'..=b'9' => length += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => {
                upper |= byte.is_ascii_uppercase();
                length += 1;
                is_number = false;
            }
            _ => return Err(HostFault::BadByte(byte)),
        }
    }
    if length == 0 || name.len() > 253 {
        return Err(HostFault::BadLabel);
    }
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return Err(HostFault::BadIpv4);
    }
    Ok(upper)
}

/// `:` and digits. Leading zeros and signs, which a lenient reader takes, are refused.
fn port(rest: &str) -> Result<u16, HostFault> {
    let digits = rest.strip_prefix(':').ok_or(HostFault::BadPort)?;
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostFault::BadPort);
    }
    digits.parse().map_err(|_| HostFault::BadPort)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_normal_authority_is_borrowed() {
        for raw in ["www.example.org", "a.test:8443", "192.0.2.1", "[2001:db8::1]:443"] {
            assert!(matches!(Authority::parse(raw).unwrap().host, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn a_name_has_at_most_253_bytes() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(Authority::parse(&longest).is_ok());
        assert_eq!(Authority::parse(&format!("{longest}b")), Err(HostFault::BadLabel));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn never_panics_and_never_lets_a_delimiter_through(raw in "\\PC{0,40}") {
            if let Ok(authority) = Authority::parse(&raw) {
                prop_assert!(!authority.host.contains(['/', '@', ',', ' ', '?', '#', '%', '\\']));
                prop_assert!(!authority.host.is_empty());
            }
        }

        #[test]
        fn the_normal_form_is_normal(raw in "[a-zA-Z0-9_.:\\[\\]-]{1,30}") {
            if let Ok(first) = Authority::parse(&raw) {
                let again = Authority::parse(&first.host).unwrap();
                prop_assert_eq!(&again.host, &first.host);
                prop_assert_eq!(again.port, None);
                prop_assert!(!first.host.bytes().any(|b| b.is_ascii_uppercase()));
                prop_assert!(!first.host.ends_with('.'));
            }
        }

        #[test]
        fn case_and_one_trailing_dot_do_not_matter(name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}", port in 1u16..) {
            let spelled = format!("{}.:{port}", name.to_uppercase());
            let authority = Authority::parse(&spelled).unwrap();
            prop_assert_eq!(authority.host.as_ref(), name.as_str());
            prop_assert_eq!(authority.port, Some(port));
        }

        #[test]
        fn every_ipv6_spelling_becomes_the_canonical_one(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let long = address.segments().map(|s| format!("{s:04X}")).join(":");
            let spelled = format!("[{long}]");
            let authority = Authority::parse(&spelled).unwrap();
            prop_assert_eq!(authority.host.as_ref(), format!("[{address}]"));
        }
    }
}
