//! Idle connections of one worker to one member: last in, first out, so that few stay warm and the
//! rest age out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stream::Link;

/// The idle connections. The lock is there to keep the type `Sync`; only one worker ever takes it.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    most: usize,
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
        Self { idle: Mutex::new(Vec::new()), most }
    }

    /// The connection used last that is still good; see [`Stream::is_idle`](super::stream::Stream::is_idle) for `thorough`.
    pub(super) fn take(&self, now: Instant, thorough: bool) -> Option<Link> {
        let mut idle = self.lock();
        while let Some(mut last) = idle.pop() {
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
        let mut idle = self.lock();
        if idle.len() >= self.most {
            drop_expired(&mut idle, now);
        }
        if idle.len() < self.most {
            idle.push(Idle { link, until: now + keep });
        }
    }

    /// Closes what nobody came back for.
    pub(super) fn sweep(&self, now: Instant) {
        drop_expired(&mut self.lock(), now);
    }

    /// How many connections are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
