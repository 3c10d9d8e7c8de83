//! Which member is asked: the one with the fewest requests under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::health::{Health, Patience};
use super::http2::Lanes;
use super::pool::Pool;
use super::settings::PoolPolicy;
use super::stream::{Link, Stream};
use super::tls::Tls;
use crate::load::Gate;

/// More members than this do not fit the mark of those tried already.
pub(super) const MEMBERS_MAX: usize = 64;

/// One origin server of a site.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it is.
    pub(super) endpoint: Endpoint,
    /// How it is called in logs and metrics.
    pub(super) name: Arc<str>,
    /// How TLS is spoken to it.
    pub(super) tls: Option<Tls>,
    /// Whether it is left alone.
    pub(super) health: Health,
    /// How many requests it may have at once without an answer.
    pub(super) gate: Arc<Gate>,
    outstanding: AtomicUsize,
    pools: Box<[Pool]>,
    /// The same for HTTP/2; empty where it is not wanted.
    lanes: Box<[Lanes]>,
}

/// The members tried for one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried(u64);

/// One request's place at a member, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    /// The member.
    pub(super) member: Arc<Member>,
    worker: usize,
}

impl Member {
    /// A member with one pool for each of `workers`.
    #[must_use]
    pub(super) fn new(
        endpoint: Endpoint,
        tls: Option<Tls>,
        patience: Patience,
        workers: usize,
        pool: &PoolPolicy,
        now: Instant,
    ) -> Self {
        let http2 = matches!(&endpoint, Endpoint::Net { h2c: true, .. })
            || tls.as_ref().is_some_and(Tls::offers_http2);
        Self {
            lanes: (0..if http2 { workers } else { 0 }).map(|_| Lanes::default()).collect(),
            name: endpoint.to_string().into(),
            endpoint,
            tls,
            health: Health::new(patience, now),
            gate: Gate::new(pool.requests),
            outstanding: AtomicUsize::new(0),
            pools: (0..workers).map(|_| Pool::new(pool.idle_per_worker)).collect(),
        }
    }

    /// The idle connections of one worker; none for a worker that was not announced.
    #[must_use]
    pub(super) fn pool(&self, worker: usize) -> Option<&Pool> {
        self.pools.get(worker)
    }

    /// The connections of one worker that speak HTTP/2; none where it is not wanted.
    #[must_use]
    pub(super) fn lanes(&self, worker: usize) -> Option<&Lanes> {
        self.lanes.get(worker)
    }

    /// Whether HTTP/2 is what `stream`, a new connection for any version, speaks.
    pub(super) fn speaks_http2(&self, stream: &Stream) -> bool {
        !self.lanes.is_empty()
            && (matches!(self.endpoint, Endpoint::Net { h2c: true, .. }) || stream.agreed_on_http2())
    }

    /// How many requests are under way.
    #[must_use]
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}

impl Tried {
    /// Marks the member at `index`.
    pub(super) fn add(&mut self, index: usize) {
        self.0 |= 1 << (index % MEMBERS_MAX);
    }

    fn has(self, index: usize) -> bool {
        self.0 & (1 << (index % MEMBERS_MAX)) != 0
    }
}

impl Seat {
    /// Takes a seat.
    #[must_use]
    pub(super) fn take(member: &Arc<Member>, worker: usize) -> Self {
        member.outstanding.fetch_add(1, Ordering::Relaxed);
        Self { member: Arc::clone(member), worker }
    }

    /// An idle connection of this worker.
    #[must_use]
    pub(super) fn idle(&self, now: Instant, thorough: bool) -> Option<Link> {
        self.member.pool(self.worker)?.take(now, thorough)
    }

    /// The connections of this worker that speak HTTP/2.
    #[must_use]
    pub(super) fn lanes(&self) -> Option<&Lanes> {
        self.member.lanes(self.worker)
    }

    /// Gives the seat up and keeps the connection for the next request.
    pub(super) fn give_back(self, link: Link, now: Instant, keep: Duration) {
        if let Some(pool) = self.member.pool(self.worker) {
            pool.put(link, now, keep);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.member.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Picks a member that was not tried yet: one that waits for its trial, or the one with the fewest
/// requests under way. `turn` moves the start, so that equals are taken in turn.
#[must_use]
pub(super) fn choose(members: &[Arc<Member>], tried: Tried, turn: usize, now: Instant) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for step in 0..members.len() {
        let index = (turn.wrapping_add(step)) % members.len();
        let Some(member) = members.get(index).filter(|_| !tried.has(index)) else { continue };
        if !member.health.is_up() {
            if member.health.claim_trial(now) {
                return Some(index);
            }
            continue;
        }
        let load = member.outstanding();
        if best.is_none_or(|(_, least)| load < least) {
            best = Some((index, load));
        }
    }
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::section::FromText;

    fn members(count: usize) -> Vec<Arc<Member>> {
        let patience = Patience { fail_after: 1, retry_after: Duration::from_secs(10) };
        (0..count)
            .map(|i| {
                let endpoint = Endpoint::from_text(&format!("http://127.0.0.1:{}", 8000 + i)).unwrap();
                Arc::new(Member::new(endpoint, None, patience, 1, &PoolPolicy::default(), clock::now()))
            })
            .collect()
    }

    #[test]
    fn the_least_busy_is_chosen_and_a_seat_counts_until_dropped() {
        let members = members(3);
        let now = clock::now();
        let _a = Seat::take(&members[0], 0);
        let _b = Seat::take(&members[0], 0);
        let c = Seat::take(&members[1], 0);
        let _d = Seat::take(&members[2], 0);
        let _e = Seat::take(&members[2], 0);
        for turn in 0..3 {
            assert_eq!(choose(&members, Tried::default(), turn, now), Some(1));
        }
        drop(c);
        assert_eq!(members[1].outstanding(), 0);
    }

    #[test]
    fn equals_are_taken_in_turn_and_nobody_twice() {
        let members = members(3);
        let now = clock::now();
        let picks: Vec<_> = (0..4).map(|turn| choose(&members, Tried::default(), turn, now)).collect();
        assert_eq!(picks, [Some(0), Some(1), Some(2), Some(0)]);
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(choose(&members, tried, 0, now), Some(1));
        tried.add(1);
        tried.add(2);
        assert_eq!(choose(&members, tried, 0, now), None);
    }

    #[test]
    fn who_is_left_alone_is_passed_over_and_then_tried_by_one() {
        let members = members(2);
        let now = clock::now();
        members[0].health.failed(now);
        assert_eq!(choose(&members, Tried::default(), 0, now), Some(1));
        members[1].health.failed(now);
        assert_eq!(choose(&members, Tried::default(), 0, now), None);
        let later = now + Duration::from_secs(11);
        assert_eq!(choose(&members, Tried::default(), 0, later), Some(0));
        assert_eq!(choose(&members, Tried::default(), 0, later), Some(1));
        assert_eq!(choose(&members, Tried::default(), 0, later), None);
        assert_eq!(choose(&[], Tried::default(), 0, later), None);
    }
}
