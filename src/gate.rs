//! The only place that knows modes: off, report, enforce.

use crate::client::Client;
use crate::client::key::Key;
use crate::config::units::{Draw, Mode};
use crate::head::Head;
use crate::observe::Record;
use crate::refusal::Refusal;
use crate::site::{Route, Site};
use crate::step::Step;

/// Who watches the road: the record of a request, or `ravelin explain`.
pub trait Witness {
    /// A rule in report mode would have refused.
    fn would_block(&mut self, refusal: &Refusal);

    /// A step was passed. `note` says what was found; only `explain` asks for it.
    fn passed(&mut self, _step: Step, _note: impl FnOnce() -> String) {}

    /// The site is known.
    fn found_site(&mut self, _site: &Site) {}

    /// The client is known.
    fn found_client(&mut self, _client: &Client, _head: &Head<'_>) {}

    /// What the client counts as is known.
    fn found_key(&mut self, _key: Key) {}

    /// The client's number among a hundred, for rules that are enforced for a share of the clients.
    fn draw(&self) -> Draw {
        Draw::NONE
    }

    /// The route is known.
    fn found_route(&mut self, _route: &Route) {}
}

/// A request's record keeps what the log and the metrics want, and nothing else.
impl Witness for Record {
    fn would_block(&mut self, refusal: &Refusal) {
        self.would_block(refusal);
    }

    fn found_site(&mut self, site: &Site) {
        self.site(site.meter, &site.name);
    }

    fn found_client(&mut self, client: &Client, head: &Head<'_>) {
        self.client(client.addr, client.trusted, head);
    }

    fn found_key(&mut self, key: Key) {
        self.drawn(key.draw());
    }

    fn draw(&self) -> Draw {
        self.draw
    }

    fn found_route(&mut self, route: &Route) {
        self.area(route.area.word());
    }
}

/// Applies a rule in its mode. In report mode the refusal is told to the witness and the request goes on
/// unchanged; in off mode the rule is not looked at.
pub fn gate(
    witness: &mut impl Witness,
    mode: Mode,
    rule: impl FnOnce() -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mode = mode.of(witness.draw());
    if mode == Mode::Off {
        return Ok(());
    }
    match rule() {
        Err(refusal) if mode == Mode::Report => {
            witness.would_block(&refusal);
            Ok(())
        }
        verdict => verdict,
    }
}

/// Whether a rule in this mode changes anything for the client with this number.
#[must_use]
pub fn is_enforced(draw: Draw, mode: Mode) -> bool {
    mode.of(draw) == Mode::Enforce
}
