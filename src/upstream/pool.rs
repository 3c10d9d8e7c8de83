//! Idle connections of one worker to one member: last in, first out, so that few stay warm and the
//! rest age out. None is kept to an address that the member's name has left.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Link;

/// The idle connections. The lock is there to keep the type `Sync`; only one worker ever takes it.
#[derive(Debug)]
pub(super) struct Pool {
    kept: Mutex<Kept>,
    most: usize,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Idle>,
    /// Whether a connection came back since somebody last looked where the name leads.
    used: bool,
    /// Where the name leads; none if there is no name, or nobody has looked.
    leads_to: Option<Arc<[IpAddr]>>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    /// The moment from which the origin may have closed it.
    until: Instant,
}

impl Pool {
    /// A pool that keeps `most` connections.
    #[must_use]
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// The connection used last that is still good; see [`Stream::is_idle`](super::stream::Stream::is_idle) for `thorough`.
    pub(super) fn take(&self, now: Instant, thorough: bool) -> Option<Link> {
        let mut kept = self.lock();
        while let Some(mut last) = kept.idle.pop() {
            if now < last.until && last.link.stream.is_idle(thorough) {
                return Some(last.link);
            }
        }
        None
    }

    /// Keeps a connection for `keep`, if there is room.
    pub(super) fn put(&self, link: Link, now: Instant, keep: Duration) {
        if keep.is_zero() {
            return;
        }
        let mut kept = self.lock();
        kept.used = true;
        if !kept.is_current(&link) {
            return;
        }
        if kept.idle.len() >= self.most {
            drop_expired(&mut kept.idle, now);
        }
        if kept.idle.len() < self.most {
            kept.idle.push(Idle { link, until: now + keep });
        }
    }

    /// Closes what nobody came back for. Whether it is worth asking where the name leads: somebody keeps or kept
    /// connections.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut kept = self.lock();
        drop_expired(&mut kept.idle, now);
        std::mem::take(&mut kept.used) || !kept.idle.is_empty()
    }

    /// Takes in where the name leads now, and closes the connections that lead elsewhere; answers how many. Those in
    /// use are closed when they come back.
    pub(super) fn lead_to(&self, addresses: Arc<[IpAddr]>) -> usize {
        let mut kept = self.lock();
        if kept.leads_to.as_ref().is_some_and(|known| Arc::ptr_eq(known, &addresses)) {
            return 0;
        }
        kept.leads_to = Some(addresses);
        let before = kept.idle.len();
        let mut idle = std::mem::take(&mut kept.idle);
        idle.retain(|one| kept.is_current(&one.link));
        kept.idle = idle;
        before - kept.idle.len()
    }

    /// How many connections are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_current(&self, link: &Link) -> bool {
        leads_there(self.leads_to.as_deref(), link.address)
    }
}

/// Whether a name that leads to these addresses, if it is known where to, still leads to this one.
pub(super) fn leads_there(addresses: Option<&[IpAddr]>, address: Option<IpAddr>) -> bool {
    match (addresses, address) {
        (Some(addresses), Some(address)) => addresses.contains(&address),
        _ => true,
    }
}

fn drop_expired(idle: &mut Vec<Idle>, now: Instant) {
    idle.retain_mut(|kept| now < kept.until && kept.link.stream.is_idle(false));
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::super::stream::Stream;
    use super::*;
    use crate::clock;

    const KEEP: Duration = Duration::from_secs(4);

    fn pair() -> (Link, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Link::new(Stream::Unix(near), clock::now()), far)
    }

    #[tokio::test]
    async fn the_last_one_comes_back_first_and_old_ones_never() {
        let (pool, now) = (Pool::new(8), clock::now());
        let (a, _far_a) = pair();
        let (b, mut far_b) = pair();
        pool.put(a, now, KEEP);
        pool.put(b, now + KEEP / 2, KEEP);
        let mut taken = pool.take(now + KEEP, true).unwrap();
        taken.stream.write_all(b"x").await.unwrap();
        far_b.readable().await.unwrap();
        assert_eq!(far_b.try_read(&mut [0; 4]).unwrap(), 1);
        far_b.shutdown().await.unwrap();
        assert!(pool.take(now + KEEP, true).is_none());
    }

    #[tokio::test]
    async fn closed_or_talkative_connections_are_dropped() {
        for thorough in [false, true] {
            let (pool, now) = (Pool::new(8), clock::now());
            let (closed, far) = pair();
            drop(far);
            let (talkative, mut far) = pair();
            far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            if !thorough {
                // The runtime hears of it when it next looks.
                for link in [&closed, &talkative] {
                    let Stream::Unix(unix) = &link.stream else { unreachable!() };
                    unix.readable().await.unwrap();
                }
            }
            pool.put(closed, now, KEEP);
            pool.put(talkative, now, KEEP);
            assert!(pool.take(now, thorough).is_none());
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_to_an_address_that_the_name_has_left() {
        let (pool, now) = (Pool::new(8), clock::now());
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let mut far = Vec::new();
        let mut at = |last| {
            let (mut near, other) = pair();
            near.address = Some(address(last));
            far.push(other);
            near
        };
        assert!(!pool.sweep(now), "nobody asks for a name that is not used");
        pool.put(at(1), now, KEEP);
        pool.put(at(2), now, KEEP);
        let in_use = pool.take(now, false).unwrap();
        assert_eq!(in_use.address, Some(address(2)));
        assert!(pool.sweep(now));
        let both: Arc<[IpAddr]> = Arc::from([address(1), address(2)]);
        assert_eq!((pool.lead_to(both), pool.len()), (0, 1));
        let moved: Arc<[IpAddr]> = Arc::from([address(3)]);
        assert_eq!((pool.lead_to(Arc::clone(&moved)), pool.len()), (1, 0));
        pool.put(in_use, now, KEEP);
        assert_eq!(pool.len(), 0, "what was in use is closed when it comes back");
        assert!(pool.sweep(now), "somebody uses the name");
        assert!(!pool.sweep(now));
        pool.put(at(3), now, KEEP);
        assert_eq!((pool.lead_to(moved), pool.len()), (0, 1));
    }

    #[tokio::test]
    async fn there_are_never_more_than_allowed() {
        let (pool, now) = (Pool::new(2), clock::now());
        let far: Vec<UnixStream> = (0..5)
            .map(|_| {
                let (near, far) = pair();
                pool.put(near, now, KEEP);
                far
            })
            .collect();
        assert_eq!(pool.len(), 2);
        let (near, _far) = pair();
        pool.put(near, now + KEEP, KEEP);
        assert_eq!(pool.len(), 1, "old ones make room");
        pool.sweep(now + KEEP * 2);
        assert_eq!(pool.len(), 0);
        drop(far);
    }
}
