//! What `CloudFront` says of the viewer, in fields of its own.
//!
//! Worth reading only from a trusted proxy, and only where everything that reaches it comes through `CloudFront`. Source:
//! `CloudFront` developer guide, "Add `CloudFront` request headers".

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderName;

use crate::head::Head;

static ADDRESS: HeaderName = HeaderName::from_static("cloudfront-viewer-address");
static PROTO: HeaderName = HeaderName::from_static("cloudfront-forwarded-proto");

/// The viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Viewer {
    /// Who he is.
    pub(super) addr: IpAddr,
    /// Whether he came by https, if that is said.
    pub(super) secure: Option<bool>,
}

/// The viewer, if exactly one address is named. `CloudFront` replaces what a viewer wrote; two lines are nobody's word.
pub(super) fn of(head: &Head<'_>) -> Option<Viewer> {
    let addr = address(sole(head, &ADDRESS)?)?;
    let secure = match sole(head, &PROTO) {
        Some(b"https") => Some(true),
        Some(b"http") => Some(false),
        _ => None,
    };
    Some(Viewer { addr, secure })
}

/// An address with its port, which is always there: `198.51.100.10:46532`, and IPv6 with brackets or, as `CloudFront`
/// writes it, without: the last colon is the one before the port.
fn address(value: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(value.trim_ascii()).ok()?;
    let (host, port) = text.rsplit_once(':')?;
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    (is_port && port.parse::<u16>().is_ok()).then_some(())?;
    let addr = match host.strip_prefix('[') {
        Some(inner) => IpAddr::V6(inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => host.parse().ok()?,
    };
    Some(addr.to_canonical())
}

fn sole<'a>(head: &Head<'a>, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = head.all(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_as_cloudfront_writes_them() {
        for (value, addr) in [
            ("198.51.100.10:46532", "198.51.100.10"),
            ("2001:db8::1:46532", "2001:db8::1"),
            ("2001:0db8:85a3:0000:0000:8a2e:0370:7334:443", "2001:db8:85a3::8a2e:370:7334"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:198.51.100.10:443", "198.51.100.10"),
        ] {
            assert_eq!(address(value.as_bytes()), Some(addr.parse().unwrap()), "{value}");
        }
        for value in [
            "",
            "198.51.100.10",
            "198.51.100.10:",
            "198.51.100.10:x",
            "198.51.100.10:65536",
            "a:1",
            "[::1:443",
            "::1:+4",
        ] {
            assert_eq!(address(value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_address_is_read_back(bits: u128, v4: u32, port: u16, noise in prop::collection::vec(any::<u8>(), 0..40)) {
            let v6 = Ipv6Addr::from_bits(bits);
            let canonical = IpAddr::V6(v6).to_canonical();
            prop_assert_eq!(address(format!("{v6}:{port}").as_bytes()), Some(canonical));
            let v4 = IpAddr::from(v4.to_be_bytes());
            prop_assert_eq!(address(format!("{v4}:{port}").as_bytes()), Some(v4));
            let _ = address(&noise);
        }
    }
}
