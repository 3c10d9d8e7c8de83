//! What "one client" is where clients are counted.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::units::Draw;

/// One client: an IPv4 address, or the IPv6 network that one household or server gets, in which it can change
/// its address at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(IpAddr);

/// How many leading bits of an IPv6 address make one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(u8);

impl Default for Prefix {
    /// A /64, the smallest network that is handed out (RFC 6177).
    fn default() -> Self {
        Self(64)
    }
}

impl Prefix {
    /// A prefix of 32 to 128 bits; providers themselves have a /32.
    #[must_use]
    pub fn new(bits: u8) -> Option<Self> {
        (32..=128).contains(&bits).then_some(Self(bits))
    }

    /// How many bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.0)).unwrap_or(0)
    }
}

impl Key {
    /// The client that `addr` belongs to. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn new(addr: IpAddr, prefix: Prefix) -> Self {
        Self(match addr.to_canonical() {
            IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & prefix.mask()).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// Its number among a hundred: the same in every process, so that replicas agree.
    #[must_use]
    pub fn draw(self) -> Draw {
        Draw::of(match self.0 {
            IpAddr::V4(addr) => stable_hash(&addr.octets()),
            IpAddr::V6(addr) => stable_hash(&addr.octets()),
        })
    }

    /// The address, or the first one of the network.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.0
    }
}

/// FNV-1a of 64 bits with a finish that spreads it (Murmur 3's): the same in every process and version, because it
/// is stored and sent to replicas. Not keyed: nothing that a client chooses may be looked up by it alone.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(addr: &str, bits: u8) -> Key {
        Key::new(addr.parse().unwrap(), Prefix::new(bits).unwrap())
    }

    #[test]
    fn ipv4_addresses_are_clients_of_their_own() {
        assert_ne!(key("192.0.2.1", 64), key("192.0.2.2", 64));
        assert_eq!(key("192.0.2.1", 64), key("::ffff:192.0.2.1", 64));
    }

    #[test]
    fn ipv6_addresses_of_one_network_are_one_client() {
        assert_eq!(key("2001:db8:0:1::1", 64), key("2001:db8:0:1:ffff:ffff:ffff:ffff", 64));
        assert_ne!(key("2001:db8:0:1::1", 64), key("2001:db8:0:2::1", 64));
        assert_ne!(key("2001:db8::1", 128), key("2001:db8::2", 128));
        assert_eq!(key("2001:db8:1::", 32), key("2001:db8:2::", 32));
    }

    #[test]
    fn prefixes_have_bounds() {
        assert_eq!(Prefix::new(31), None);
        assert_eq!(Prefix::new(129), None);
        assert_eq!(Prefix::default(), Prefix::new(64).unwrap());
    }
}
