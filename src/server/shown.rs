//! What the house shows on the metrics page that others count.

use std::sync::Arc;

use super::House;
use crate::generation::Generation;
use crate::listen::first_bytes::Protocol;
use crate::listen::tally::Event;
use crate::load;
use crate::observe::metrics::{Kind, Named, Outside};

/// Shows everything; once.
pub(super) fn all(house: &Arc<House>) {
    door(house);
    state(house);
    acme(house);
}

impl House {
    /// Shows when the certificates in use end.
    pub fn show_certificates(&self) {
        self.show_certificates_of(&self.live.load());
    }

    pub(super) fn show_certificates_of(&self, generation: &Generation) {
        let (loaded, came) = (generation.certificates(), self.book.all());
        let loaded = loaded.iter().map(|certificate| {
            let name = certificate.facts.names.first().map_or("unnamed", |name| &**name);
            (name, certificate.facts.not_after)
        });
        let came = came.iter().map(|(name, certificate)| (&**name, certificate.facts.not_after));
        self.observe.certificates(loaded.chain(came));
    }
}

/// Shows on the metrics page what is counted at the door.
fn door(house: &Arc<House>) {
    let tally = Arc::clone(&house.tally);
    let events = move || Event::ALL.iter().map(|event| (event.name(), tally.count(*event))).collect();
    show(house, "door_events", "What happened to connections, by event", Kind::Counter, "event", events);
    let tally = Arc::clone(&house.tally);
    let foreign = move || Protocol::ALL.iter().map(|p| (p.name(), tally.foreign_count(*p))).collect();
    let help = "Connections that spoke something else than what they were opened for, by protocol";
    show(house, "foreign_protocols", help, Kind::Counter, "protocol", foreign);
    let tally = Arc::clone(&house.tally);
    let failed = move || tally.handshakes();
    show(
        house,
        "tls_handshakes_failed",
        "TLS handshakes that failed, by cause",
        Kind::Counter,
        "cause",
        failed,
    );
    let load = Arc::clone(&house.load);
    let refused = move || load::Limit::ALL.iter().map(|limit| (limit.name(), load.refused(*limit))).collect();
    let help = "Requests refused because too much was under way, by the limit that said so";
    show(house, "overload_refusals", help, Kind::Counter, "limit", refused);
    let ledger = Arc::clone(&house.ledger);
    let active = move || vec![("", ledger.active() as u64)];
    show(house, "bans_active", "Clients and user names that are banned", Kind::Gauge, "", active);
    let ledger = Arc::clone(&house.ledger);
    house.observe.show_named(Named {
        name: "bans_made",
        help: "Bans that were made, by the jail that did",
        label: "jail",
        read: Box::new(move || ledger.made()),
    });
    let ledger = Arc::clone(&house.ledger);
    let pushed_out = move || vec![("bans", ledger.pushed_out().0), ("failures", ledger.pushed_out().1)];
    let help = "What was forgotten too early because there was too much of it; see `bans.memory`";
    show(house, "bans_pushed_out", help, Kind::Counter, "what", pushed_out);
    let tarpit = Arc::clone(&house.tarpit);
    let held = move || vec![("", tarpit.held() as u64)];
    show(house, "tarpit_held", "Banned clients whose answer is late on purpose", Kind::Gauge, "", held);
    let load = Arc::clone(&house.load);
    let under_way = move || vec![("", load.under_way() as u64)];
    let help = "Requests that the origins were asked and that are not over";
    show(house, "requests_under_way", help, Kind::Gauge, "", under_way);
    let load = Arc::clone(&house.load);
    let short = move || vec![("", u64::from(load.is_short()))];
    let help = "Whether memory is short, so that nothing new begins: 1 or 0";
    show(house, "memory_short", help, Kind::Gauge, "", short);
    let load = Arc::clone(&house.load);
    let memory = move || vec![("taken", load.memory().0), ("allowed", load.memory().1)];
    let help = "Memory in bytes, and what of it is allowed; 0 if there is no bound";
    show(house, "memory_bytes", help, Kind::Gauge, "memory", memory);
    let house_now = Arc::downgrade(house);
    let open = move || {
        let open = house_now.upgrade().map_or(0, |house| house.drain.live());
        vec![("", open as u64)]
    };
    show(house, "connections_open", "Connections that are open now", Kind::Gauge, "", open);
}

/// Shows on the metrics page how the store is.
fn state(house: &Arc<House>) {
    let state = Arc::clone(&house.state);
    let up = move || vec![("", u64::from(state.is_up()))];
    let help = "Whether the store of bans was reached last time: 1 or 0; 0 too while bans are kept in memory";
    show(house, "state_up", help, Kind::Gauge, "", up);
    let state = Arc::clone(&house.state);
    let changes = move || state.counts().into();
    let help = "Changes written to the store of bans, taken over from it, not understood, refused by it; and how often it failed";
    show(house, "state_changes", help, Kind::Counter, "what", changes);
    let ledger = Arc::clone(&house.ledger);
    let lost = move || vec![("", ledger.changes_lost())];
    let help = "Changes that the store of bans was not told, because there were too many while it was gone";
    show(house, "state_changes_lost", help, Kind::Counter, "", lost);
}

/// Shows on the metrics page what becomes of certificates from a CA.
fn acme(house: &Arc<House>) {
    let book = Arc::clone(&house.book);
    let waiting = move || {
        let [waiting, ..] = book.counts();
        vec![("", waiting)]
    };
    let help = "Names that wait for their certificate by ACME, and are served with a self-signed one";
    show(house, "acme_waiting", help, Kind::Gauge, "", waiting);
    let book = Arc::clone(&house.book);
    let orders = move || {
        let [_, issued, failed] = book.counts();
        vec![("issued", issued), ("failed", failed)]
    };
    let help = "Certificates that came by ACME, and rounds of orders in which no CA gave one";
    show(house, "acme_orders", help, Kind::Counter, "result", orders);
}

/// Shows numbers that `read` looks up whenever somebody asks, each with its value of `label`.
fn show(
    house: &House,
    name: &'static str,
    help: &'static str,
    kind: Kind,
    label: &'static str,
    read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
) {
    house.observe.show(Outside { name, help, kind, label, read: Box::new(read) });
}
