//! Sets of addresses in CIDR notation: a few or thousands, one look-up is a binary search.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses: sorted ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetSet {
    /// Whether `addr` is in the set. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(addr) => within(&self.v4, addr.to_bits()),
            IpAddr::V6(addr) => within(&self.v6, addr.to_bits()),
        }
    }

    /// Whether every address of `net` is in the set.
    #[must_use]
    pub fn covers(&self, net: IpNet) -> bool {
        match canonical(net) {
            IpNet::V4(net) => {
                let end = net.broadcast().to_bits();
                range(&self.v4, net.network().to_bits()).is_some_and(|(_, last)| end <= last)
            }
            IpNet::V6(net) => {
                let end = net.broadcast().to_bits();
                range(&self.v6, net.network().to_bits()).is_some_and(|(_, last)| end <= last)
            }
        }
    }

    /// Whether no address is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for NetSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match canonical(net) {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: merged(v4, |end| end.checked_add(1)), v6: merged(v6, |end| end.checked_add(1)) }
    }
}

/// A network inside `::ffff:0:0/96` as the IPv4 network that it is.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    mapped(v6).map_or(net, IpNet::V4)
}

fn mapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let bits = net.prefix_len().checked_sub(96)?;
    Ipv6Addr::to_ipv4_mapped(&net.network()).and_then(|addr| Ipv4Net::new(addr, bits).ok())
}

fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            // No successor: the last range reaches the end of all addresses.
            Some(last) if next(last.1).is_none_or(|after| start <= after) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged.into()
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], addr: T) -> bool {
    range(ranges, addr).is_some_and(|(_, end)| addr <= end)
}

/// The last range that begins at `addr` or before.
fn range<T: Copy + Ord>(ranges: &[(T, T)], addr: T) -> Option<(T, T)> {
    let behind = ranges.partition_point(|(start, _)| *start <= addr);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(nets: &[&str]) -> NetSet {
        nets.iter().map(|net| net.parse::<IpNet>().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn edges_are_inside_and_neighbours_are_not() {
        let set = set(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
        for inside in
            ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::", "2001:db8:ffff::1", "::ffff:10.1.2.3"]
        {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db9::", "::", "::10.0.0.1"]
        {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
    }

    #[test]
    fn the_whole_space_and_nothing() {
        let all = set(&["0.0.0.0/0", "::/0", "10.0.0.0/8"]);
        assert!(all.contains(ip("255.255.255.255")) && all.contains(ip("ffff::")) && !all.is_empty());
        let none = NetSet::default();
        assert!(none.is_empty() && !none.contains(ip("0.0.0.0")) && !none.contains(ip("::")));
    }

    #[test]
    fn mapped_networks_are_ipv4_networks() {
        let set = set(&["::ffff:10.0.0.0/104"]);
        assert!(
            set.contains(ip("10.9.9.9"))
                && set.contains(ip("::ffff:10.9.9.9"))
                && !set.contains(ip("11.0.0.1"))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn it_covers_what_it_contains_whole(
            nets in prop::collection::vec((0u32..256, 26u8..=32), 0..12),
            asked in (0u32..256, 26u8..=32),
        ) {
            let net = |(addr, bits): (u32, u8)| Ipv4Net::new(addr.into(), bits).unwrap().trunc();
            let set: NetSet = nets.into_iter().map(|pair| IpNet::V4(net(pair))).collect();
            let asked = net(asked);
            let first_to_last = asked.network().to_bits()..=asked.broadcast().to_bits();
            let whole = first_to_last.map(|addr| IpAddr::V4(addr.into())).all(|addr| set.contains(addr));
            prop_assert_eq!(set.covers(IpNet::V4(asked)), whole);
        }

        #[test]
        fn it_agrees_with_asking_every_network(
            nets in prop::collection::vec((0u32..4096, 20u8..=32), 0..30),
            addrs in prop::collection::vec(0u32..4096, 1..30),
        ) {
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(addr, bits)| IpNet::V4(Ipv4Net::new(addr.into(), bits).unwrap().trunc()))
                .collect();
            let set: NetSet = nets.iter().copied().collect();
            for addr in addrs {
                let addr = IpAddr::V4(addr.into());
                prop_assert_eq!(set.contains(addr), nets.iter().any(|net| net.contains(&addr)));
            }
        }
    }
}
