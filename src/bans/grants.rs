//! What an operator opened for a time: networks that may reach the Install Tool.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::Millis;

/// As many are open at once; then the one that ends first makes room.
const MOST: usize = 64;

/// As long as an operator may open it for: whatever ends later was opened by a clock that was wrong.
pub const LONGEST: Duration = Duration::from_hours(24);

/// Networks, each with its end.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// So that nobody takes the lock while nothing is open.
    open: AtomicUsize,
    list: Mutex<Vec<(IpNet, Millis)>>,
}

impl Grants {
    /// Opens for `net` until then, or closes it if that is not later than `now`.
    pub(super) fn set(&self, net: IpNet, until: Millis, now: Millis) {
        let mut list = self.lock();
        list.retain(|(other, end)| *other != net && now < *end);
        if now < until {
            if list.len() >= MOST
                && let Some(first) =
                    list.iter().enumerate().min_by_key(|(_, (_, end))| *end).map(|(at, _)| at)
            {
                list.swap_remove(first);
            }
            list.push((net, until));
        }
        self.open.store(list.len(), Relaxed);
    }

    /// Whether it is open for `addr`.
    pub(super) fn holds(&self, addr: IpAddr, now: Millis) -> bool {
        let addr = addr.to_canonical();
        self.open.load(Relaxed) > 0
            && self.lock().iter().any(|(net, until)| is_open(*until, now) && net.contains(&addr))
    }

    /// What is open, the first to end first.
    pub(super) fn list(&self, now: Millis) -> Vec<(IpNet, Millis)> {
        let mut list: Vec<_> =
            self.lock().iter().filter(|(_, until)| is_open(*until, now)).copied().collect();
        list.sort_by_key(|(_, until)| *until);
        list
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(IpNet, Millis)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that is set back opens nothing for longer than an operator can.
fn is_open(until: Millis, now: Millis) -> bool {
    now < until && until.since(now) <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_jump_of_the_clock_leaves_it_open_for_longer_than_can_be_asked_for() {
        let grants = Grants::default();
        let (net, addr): (IpNet, IpAddr) = ("192.0.2.7/32".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let year = Duration::from_hours(24 * 365);
        let wrong = Millis(0).plus(year * 60);
        grants.set(net, wrong.plus(Duration::from_mins(30)), wrong);
        assert!(grants.holds(addr, wrong));
        let right = Millis(0).plus(year * 56);
        assert!(!grants.holds(addr, right) && grants.list(right).is_empty());
        grants.set(net, right.plus(LONGEST), right);
        assert!(grants.holds(addr, right), "the longest that can be asked for");
    }

    #[test]
    fn a_grant_ends_by_itself_or_when_it_is_taken_back() {
        let grants = Grants::default();
        let (net, addr): (IpNet, IpAddr) = ("192.0.2.0/24".parse().unwrap(), "192.0.2.7".parse().unwrap());
        assert!(!grants.holds(addr, Millis(0)));
        grants.set(net, Millis(100), Millis(0));
        assert!(grants.holds(addr, Millis(99)) && !grants.holds(addr, Millis(100)));
        assert!(grants.holds("::ffff:192.0.2.7".parse().unwrap(), Millis(1)));
        assert!(!grants.holds("192.0.3.1".parse().unwrap(), Millis(1)));
        grants.set(net, Millis(0), Millis(1));
        assert!(!grants.holds(addr, Millis(2)) && grants.list(Millis(2)).is_empty());
    }

    #[test]
    fn there_are_never_more_than_a_handful() {
        let grants = Grants::default();
        for n in 0..1000_u64 {
            let net = IpNet::from(IpAddr::from(u32::try_from(n).unwrap().to_be_bytes()));
            grants.set(net, Millis(10 + n), Millis(0));
        }
        let list = grants.list(Millis(0));
        assert_eq!(list.len(), MOST);
        assert_eq!(list[0].1, Millis(10 + 1000 - 64), "those that end first made room");
    }
}
