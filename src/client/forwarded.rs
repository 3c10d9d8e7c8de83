//! The decoder of forwarded chains: X-Forwarded-For and Forwarded (RFC 7239), read from their ends. Sans-IO.
//!
//! Everything left of the last trusted proxy's entry was written by strangers, so nothing here reads from the
//! left, and nothing on the left can spoil what stands on the right.

use std::net::{IpAddr, Ipv6Addr};

/// The client behind `peer`: the first hop, nearest first, that is not trusted; the farthest one if all are.
/// A hop that is no address ends the walk at the last good one: what is behind it cannot be believed.
pub fn walk(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusts: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        let Some(addr) = hop else { break };
        client = addr;
        if !trusts(addr) {
            break;
        }
    }
    client
}

/// The entries of an X-Forwarded-For line, nearest first; `None` for what is no address.
pub fn hops(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    line.rsplit(|byte| *byte == b',').map(address)
}

/// The last entry of a comma-separated line.
#[must_use]
pub fn last(line: &[u8]) -> &[u8] {
    line.rsplit(|byte| *byte == b',').next().unwrap_or(line).trim_ascii()
}

/// An address as proxies write it: IPv4 or IPv6, with a port (`192.0.2.1:80`, `[2001:db8::1]:80`) or without,
/// IPv6 with brackets or without. IPv4-mapped IPv6 becomes IPv4.
#[must_use]
pub fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry.trim_ascii()).ok()?;
    let addr = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            is_port_or_nothing(port).then_some(())?;
            IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?)
        }
        None => match text.split_once(':') {
            Some((host, port)) if host.contains('.') && is_port(port) => IpAddr::V4(host.parse().ok()?),
            _ => text.parse().ok()?,
        },
    };
    Some(addr.to_canonical())
}

fn is_port_or_nothing(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port)
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The elements of a Forwarded line, nearest first. Commas inside quotes do not separate; there are no escapes
/// in a chain that an honest proxy writes, so quotes can be counted from the right.
#[must_use]
pub fn elements(line: &[u8]) -> Elements<'_> {
    Elements { rest: Some(line) }
}

/// See [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut quoted = false;
        let comma = rest.iter().rposition(|byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        });
        let (before, element) = match comma.and_then(|at| rest.split_at_checked(at)) {
            Some((before, [_, element @ ..])) => (Some(before), element),
            _ => (None, rest),
        };
        self.rest = before;
        Some(element.trim_ascii())
    }
}

/// The address in an element's `for`; `None` for `unknown`, `_hidden`, and what is malformed.
#[must_use]
pub fn node(element: &[u8]) -> Option<IpAddr> {
    address(parameter(element, b"for")?)
}

/// The value of an element's parameter, without its quotes. `None` if it is absent, given twice, or malformed.
#[must_use]
pub fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    for pair in element.split(|byte| *byte == b';') {
        let (key, [_, value @ ..]) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?
        else {
            return None;
        };
        if key.trim_ascii().eq_ignore_ascii_case(name)
            && found.replace(unquoted(value.trim_ascii())?).is_some()
        {
            return None;
        }
    }
    found
}

fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    };
    (!inner.iter().any(|byte| matches!(byte, b'"' | b'\\'))).then_some(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_as_proxies_write_them() {
        for (entry, addr) in [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:443 ", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:65535", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:c000:201]:80", "192.0.2.1"),
        ] {
            assert_eq!(address(entry.as_bytes()), Some(ip(addr)), "{entry}");
        }
        for entry in [
            "",
            " ",
            "unknown",
            "_hidden",
            "localhost",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:x",
            "192.0.2.1:65536",
            "192.0.2.1:+80",
            "192.0.2.1:000080",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "[fe80::1%eth0]",
            "fe80::1%25eth0",
            "192.0.2.1 192.0.2.2",
            "\"192.0.2.1\"",
            "0x7f.0.0.1",
            "010.0.0.1",
            "::ffff:192.0.2.1:80",
        ] {
            assert_eq!(address(entry.as_bytes()), None, "{entry}");
        }
    }

    #[test]
    fn forwarded_elements_come_from_the_right_and_keep_their_quotes() {
        let line = br#"for="a,b";proto=http , for="[2001:db8::1]:80";by=x"#;
        let found: Vec<&[u8]> = elements(line).collect();
        assert_eq!(found, [&br#"for="[2001:db8::1]:80";by=x"#[..], br#"for="a,b";proto=http"#]);
        assert_eq!(node(found[0]), Some(ip("2001:db8::1")));
        assert_eq!(parameter(found[1], b"PROTO"), Some(&b"http"[..]));
        assert_eq!(node(found[1]), None);
    }

    #[test]
    fn a_quote_left_open_on_the_left_does_not_reach_the_right() {
        let mut found = elements(br#"for="x, for=192.0.2.1"#);
        assert_eq!(found.next().and_then(node), Some(ip("192.0.2.1")));
    }

    #[test]
    fn malformed_elements_have_no_parameter() {
        for element in
            ["", "for", "for=1;for=2", "for=\"", "for=\"a\\\"b\"", "for=1;;", "proto=https; secure"]
        {
            assert_eq!(parameter(element.as_bytes(), b"for"), None, "{element}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_survived(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (hops(&line).count(), last(&line), elements(&line).filter_map(node).count());
        }

        /// A client that forges whatever it likes cannot change what its proxy then appends.
        #[test]
        fn what_strangers_wrote_changes_nothing(forged in prop::collection::vec(any::<u8>(), 0..60), bits: u32) {
            let real = IpAddr::from(bits.to_be_bytes());
            let proxy = ip("2001:db8::1");
            let trusts = |addr| addr == proxy;
            let list = [&forged[..], format!(", {real}").as_bytes()].concat();
            prop_assert_eq!(walk(proxy, hops(&list), trusts), real);
            let forwarded = [&forged[..], format!(", for={real};proto=https").as_bytes()].concat();
            prop_assert_eq!(walk(proxy, elements(&forwarded).map(node), trusts), real);
        }

        #[test]
        fn every_address_is_read_back(bits: u128, port: u16) {
            let addr = Ipv6Addr::from_bits(bits);
            let canonical = IpAddr::V6(addr).to_canonical();
            for entry in [addr.to_string(), format!("[{addr}]"), format!("[{addr}]:{port}")] {
                prop_assert_eq!(address(entry.as_bytes()), Some(canonical), "{}", entry);
            }
        }
    }
}
