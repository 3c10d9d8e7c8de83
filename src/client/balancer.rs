//! The classic mistake: a load balancer in front that is not trusted, so that all its clients are one.
//!
//! Nothing is decided by this. It only looks whether nearly all requests come from a few private addresses that send
//! X-Forwarded-For, so that the operator can be told before the first limit or ban hits everybody.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Peer, Policy, X_FORWARDED_FOR};
use crate::head::Head;

/// Requests of one worker that are looked at together.
const WINDOW: u32 = 100;
/// So many of them make "nearly all".
const NEARLY_ALL: u32 = 95;
/// A balancer has an address in each zone; with more than this it is a network of clients.
const SOURCES: usize = 8;
/// The pause between two warnings.
const PAUSE: Duration = Duration::from_hours(1);

/// The peer's address if it looks like a balancer that should be trusted: private, not trusted, and it says for whom
/// it asks.
#[must_use]
pub fn looks_like_one(policy: &Policy, peer: &Peer, head: &Head<'_>) -> Option<IpAddr> {
    let addr = peer.addr.ip().to_canonical();
    (is_private(addr) && head.get(&X_FORWARDED_FOR).is_some() && !policy.trusts(addr)).then_some(addr)
}

/// Addresses that no visitor of a public site has: RFC 1918, RFC 6598, RFC 4193, link-local and loopback.
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [first, second, ..] = addr.octets();
            addr.is_private()
                || addr.is_loopback()
                || addr.is_link_local()
                || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(addr) => addr.is_loopback() || addr.is_unique_local() || addr.is_unicast_link_local(),
    }
}

/// What one worker saw lately.
#[derive(Debug, Default)]
pub struct Suspicion(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    seen: u32,
    suspect: u32,
    sources: BTreeSet<IpAddr>,
}

impl Suspicion {
    /// One more request. At the end of a window of which nearly all are suspect: their sources, as they are written
    /// in a list.
    pub fn saw(&self, suspect: Option<IpAddr>) -> Option<String> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.seen += 1;
        if let Some(addr) = suspect {
            window.suspect += 1;
            if window.sources.len() <= SOURCES {
                window.sources.insert(addr);
            }
        }
        if window.seen < WINDOW {
            return None;
        }
        let Window { suspect, sources, .. } = std::mem::take(&mut *window);
        (suspect >= NEARLY_ALL && sources.len() <= SOURCES).then(|| list(&sources))
    }
}

fn list(sources: &BTreeSet<IpAddr>) -> String {
    let mut text = String::new();
    for addr in sources {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{comma}\"{addr}\"");
    }
    text
}

/// Once in an hour.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time again.
    pub fn turn(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(mut requests: impl Iterator<Item = Option<IpAddr>>) -> Option<String> {
        let suspicion = Suspicion::default();
        requests.find_map(|suspect| suspicion.saw(suspect))
    }

    #[test]
    fn a_balancer_with_an_address_in_each_zone_is_noticed() {
        let zones = |i: u32| Some(IpAddr::from([10, 0, u8::try_from(i % 3).unwrap(), 7]));
        assert_eq!(found((0..100).map(zones)).unwrap(), "\"10.0.0.7\", \"10.0.1.7\", \"10.0.2.7\"");
        assert_eq!(found((0..99).map(zones)), None, "not before there is enough to judge by");
        let health_checks = |i: u32| (!i.is_multiple_of(20)).then_some(ip("10.0.0.7"));
        assert!(found((0..100).map(health_checks)).is_some());
    }

    #[test]
    fn ordinary_traffic_is_not() {
        let a_few = |i: u32| i.is_multiple_of(2).then_some(ip("10.0.0.7"));
        assert_eq!(found((0..1000).map(a_few)), None);
        let intranet = |i: u32| Some(IpAddr::from([10, 0, 0, u8::try_from(i % 50).unwrap()]));
        assert_eq!(found((0..1000).map(intranet)), None);
        assert_eq!(found((0..1000).map(|_| None)), None);
    }

    #[test]
    fn private_addresses_are_those_that_no_visitor_has() {
        for addr in [
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_private(ip(addr)), "{addr}");
        }
        for addr in ["172.32.0.1", "100.128.0.1", "203.0.113.9", "2001:db8::1"] {
            assert!(!is_private(ip(addr)), "{addr}");
        }
    }

    #[test]
    fn it_is_said_once_an_hour() {
        let (seldom, start) = (Seldom::default(), crate::clock::now());
        assert!(seldom.turn(start) && !seldom.turn(start + Duration::from_mins(59)));
        assert!(
            seldom.turn(start + Duration::from_hours(1)) && !seldom.turn(start + Duration::from_hours(1))
        );
    }
}
