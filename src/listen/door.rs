//! One listener as all workers see it: its terms, its counters, and the road behind it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::census::{Census, Seat};
use super::limits;
use super::tally::Tally;
use crate::bans::Barred;
use crate::client;
use crate::client::cidr::NetSet;
use crate::client::key::Key;
use crate::clock;
use crate::drain::{DrainWatch, Live};
use crate::tls::Offer;

/// A listener. `S` is the road: it takes who asks and what is asked, and gives the answer.
pub struct Door<S> {
    /// The listener's number in the configuration; the peer carries it.
    pub listener: usize,
    /// What applies to connections from now on.
    pub terms: Arc<ArcSwap<Terms>>,
    /// Who is connected, over all listeners.
    pub census: Arc<Census<Key>>,
    /// What happened, over all listeners.
    pub tally: Arc<Tally>,
    /// How far the shutdown has come.
    pub drain: DrainWatch,
    /// The road.
    pub serve: S,
}

/// What a reload may change. A connection keeps the terms it began with.
pub struct Terms {
    /// Caps, sizes and times.
    pub limits: limits::Policy,
    /// TLS, if this listener speaks it.
    pub tls: Option<Arc<Offer>>,
    /// What counts as one client for the cap per client. Trusted proxies carry many, and have no cap.
    pub client: client::Policy,
    /// Who may connect here; none if everybody may.
    pub sources: Option<Arc<NetSet>>,
    /// Who is locked out of everything, before a byte is read.
    pub barred: Option<Barred>,
    /// Who sends a PROXY header, and nobody else may connect; none if nobody does.
    pub proxies: Option<Arc<NetSet>>,
}

impl Terms {
    /// Whether an `[[ingress]]` rule lets `addr` in.
    pub(super) fn lets_in(&self, addr: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.contains(addr))
    }

    /// Whether `addr` is locked out of everything.
    pub(super) fn bars(&self, addr: IpAddr, client: Key) -> bool {
        self.barred.as_ref().is_some_and(|barred| barred.bars(addr, client, clock::millis()))
    }
}

/// What a connection holds while its socket is open.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) seat: Seat<Key>,
    pub(super) _live: Live,
}

impl<S> Door<S> {
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }
}

impl<S> fmt::Debug for Door<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("limits", &self.limits)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
