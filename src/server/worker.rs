//! What the road asks of the worker that it runs on.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{House, Worker};
use crate::admin;
use crate::bans::{Ledger, Memory, Meters, Tarpit};
use crate::client::balancer;
use crate::client::{Client, Peer};
use crate::clock;
use crate::generation::Generation;
use crate::harden::Applied;
use crate::head::Head;
use crate::live::Live;
use crate::load::Place;
use crate::observe::{Arrival, Record, Tls};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::site::Site;

impl Worker {
    /// The answer to a challenge of ACME, if this asks for one.
    #[must_use]
    pub fn challenge(&self, head: &Head<'_>) -> Option<Reply> {
        self.house.book.answer(head)
    }

    /// A place for a request of `client` among those that are under way.
    ///
    /// # Errors
    /// When too many are.
    pub fn enter(&self, generation: &Generation, client: &Client) -> Result<Place, Refusal> {
        self.house.load.enter(generation.client.key(client.addr), &generation.load)
    }

    /// Whether memory is short, so that no connection is kept for another request.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.house.load.is_short()
    }

    /// Looks for a balancer that is not trusted, and says so, at most once an hour.
    pub fn suspect(&self, generation: &Generation, peer: &Peer, head: &Head<'_>) {
        let Some(found) = self.suspicion.saw(balancer::looks_like_one(&generation.client, peer, head)) else {
            return;
        };
        if self.house.balancer.turn(clock::now()) {
            tracing::warn!(
                sources = %found,
                "nearly all requests come from private addresses that send X-Forwarded-For and are not trusted: a load \
                 balancer or proxy stands in front, and all its clients count as one. Limits and bans would hit \
                 everybody. Write `trusted_proxies = [{found}]`, or its subnets, into `[client]`"
            );
        }
    }

    /// Who failed, who is locked out, and who was seen to log in.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.house.ledger
    }

    /// Where every client stands with the limits on how often it may ask.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.house.meters
    }

    /// Banned clients whose answer is late on purpose.
    #[must_use]
    pub fn tarpit(&self) -> &Tarpit {
        &self.house.tarpit
    }

    /// What is remembered of clients, at the time when this request came.
    #[must_use]
    pub fn memory(&self, record: &Record) -> Memory<'_> {
        let (wall, instant) = record.arrived();
        let House { ledger, meters, .. } = &*self.house;
        Memory { ledger, meters, now: wall.into(), instant }
    }

    /// The generation slot.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.house.live
    }

    /// How far the process is.
    #[must_use]
    pub fn state(&self) -> admin::State {
        self.house.readiness.state()
    }

    /// Begins the record of a request: now, or when its head began, if that did not end in time.
    #[must_use]
    pub fn record(
        &self,
        generation: &Generation,
        peer: &Peer,
        head: &Head<'_>,
        slow_since: Option<Instant>,
    ) -> Box<Record> {
        let tls = peer.tls.as_ref();
        let (now, wall) = (clock::now(), clock::wall());
        let ago = slow_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let arrival = Arrival {
            now: now.checked_sub(ago).unwrap_or(now),
            wall: wall.checked_sub(ago).unwrap_or(wall),
            peer: peer.addr,
            listener: peer.listener,
            tls: tls.map(|tls| Tls {
                version: tls.version,
                cipher: tls.cipher,
                sni: tls.sni.as_deref(),
                client: tls.identity.as_ref().map(|identity| &*identity.subject),
            }),
            generation: &generation.id,
        };
        self.seen.record(&arrival, head)
    }

    /// A request panicked: counted, and answered like any other refusal.
    #[must_use]
    pub fn panicked(&self) -> Refusal {
        self.seen.panicked();
        Refusal::new(Reason::Internal, "a panic while answering; standard error says where")
    }

    /// The backend of a site is elsewhere than its configuration says: said once for each site, with what to write.
    pub fn moved(&self, site: &Site, entry: &str) {
        let key = (site.index, http::header::SET_COOKIE);
        if self.house.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
            tracing::warn!(
                site = &*site.name,
                "the backend answers at {entry:?}, where no failed login is seen and no rule for it holds: write \
                 `login = {{ entry_point = {entry:?} }}` in its [[site]] and a [[site.path]] with `path = {entry:?}` and \
                 `area = \"backend\"` (docs/logins.md)"
            );
        }
    }

    /// Singleton headers on which origin and configuration disagree: said once for each site and header.
    pub fn conflicts(&self, site: Option<&Site>, applied: &Applied) {
        for conflict in &applied.conflicts {
            let key = (site.map_or(usize::MAX, |site| site.index), conflict.name.clone());
            if self.house.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
                let site = site.map_or("none", |site| &site.name);
                tracing::warn!(
                    site,
                    header = %conflict.name,
                    origin = ?conflict.sent,
                    kept = ?conflict.kept,
                    "the origin sends this header too; it leaves once"
                );
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}
