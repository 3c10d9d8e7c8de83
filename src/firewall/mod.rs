//! Who may connect where, in the words of a security group: `[[ingress]]` and `[[egress]]`.
//!
//! Rules for the ports that Ravelin listens on are enforced when a connection is accepted, before a byte is read.
//! All others are kept, so that one table can be written down once and exported to what enforces it:
//!
//! | module | its one reason to exist |
//! |---|---|
//! | [`rule`] | one rule |
//! | [`kind`] | the types of rules, by name |
//! | [`export`] | the table for AWS, nftables, people and programs |
//! | [`import`] | a security group of AWS as a configuration |

pub mod export;
pub mod import;
pub mod kind;
pub mod rule;

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::client::cidr::NetSet;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Reading, Section};
use rule::{Direction, Protocol, Rule};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    rules: Vec<Rule>,
}

/// The whole table, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: Box<[Rule]>,
    /// The ports that Ravelin listens on.
    own: Box<[u16]>,
}

/// With more rules than this they are not compared with one another: that takes the square of their number.
const COMPARED: usize = 500;

impl Raw {
    /// Reads every `[[ingress]]` and `[[egress]]` of the file.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let mut rules = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            let sections = root.sections(reading, direction.word());
            rules.extend(sections.into_iter().filter_map(|section| Rule::read(direction, section, reading)));
        }
        Self { rules }
    }

    /// The table. `listeners` are the ports that Ravelin listens on, and where each was written.
    pub fn compile(self, listeners: &[(u16, Place)], complaints: &mut Complaints) -> Table {
        let own: Box<[u16]> = listeners.iter().map(|(port, _)| *port).collect();
        let table = Table { rules: self.rules.into(), own };
        table.rules.iter().for_each(|rule| open_to_the_world(rule, complaints));
        table.check_duplicates(complaints);
        table.check_listeners(listeners, complaints);
        table
    }
}

impl Table {
    /// Every rule, ingress first.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Who may connect to `port`: nobody else, as soon as one rule is about it. `None` if there is no rule for it.
    #[must_use]
    pub fn sources(&self, port: u16) -> Option<Arc<NetSet>> {
        let mut rules = self.of(port).peekable();
        rules.peek()?;
        Some(Arc::new(rules.flat_map(|rule| rule.nets.iter().copied()).collect()))
    }

    /// Why Ravelin does not enforce `rule`; none if it does, for every port that it listens on.
    #[must_use]
    pub fn beyond(&self, rule: &Rule) -> Option<&'static str> {
        match rule.direction {
            Direction::Egress => Some("Ravelin does not watch what other programs send"),
            Direction::Ingress if !self.own.iter().any(|port| rule.is_for(*port)) => {
                Some("Ravelin does not listen there")
            }
            Direction::Ingress
                if rule.protocol == Protocol::All || rule.ports.is_some_and(|p| p.first != p.last) =>
            {
                Some("only for the ports that Ravelin listens on")
            }
            Direction::Ingress => None,
        }
    }

    fn of(&self, port: u16) -> impl Iterator<Item = &Rule> {
        let ingress = self.rules.iter().filter(|rule| rule.direction == Direction::Ingress);
        ingress.filter(move |rule| rule.is_for(port))
    }

    /// The rule that lets `addr` connect to `port`, for `ravelin explain`.
    #[must_use]
    pub fn admits(&self, port: u16, addr: std::net::IpAddr) -> Option<&Rule> {
        let addr = addr.to_canonical();
        self.of(port).find(|rule| rule.nets.iter().copied().collect::<NetSet>().contains(addr))
    }

    /// Rules that add nothing to an earlier one.
    fn check_duplicates(&self, complaints: &mut Complaints) {
        if self.rules.len() > COMPARED {
            return;
        }
        let sets: Vec<NetSet> = self.rules.iter().map(|rule| rule.nets.iter().copied().collect()).collect();
        for (at, (rule, place)) in
            self.rules.iter().enumerate().filter_map(|(at, r)| Some((at, (r, r.place.as_ref()?))))
        {
            let others = self.rules.iter().zip(&sets).enumerate().filter(|(other, _)| *other != at);
            let wider = others.into_iter().find(|(other, (wide, set))| {
                // Of two that say the same, the later one is too many.
                let same = rule.covers_service(wide) && sets.get(at) == Some(*set);
                wide.covers_service(rule)
                    && !rule.nets.is_empty()
                    && rule.nets.iter().all(|net| set.covers(*net))
                    && (*other < at || !same)
            });
            let Some((_, (wide, _))) = wider else { continue };
            let message = format!(
                "this `[[{}]]` adds nothing: {} lets the same through",
                rule.direction.word(),
                wide.place.as_ref().map(Place::label).unwrap_or_default()
            );
            let hint = "delete one of the two, or make the wider one narrower".to_owned();
            complaints.warning(Some(place), message, Some(hint));
        }
    }

    /// A port of ours without a rule, while there is a table.
    fn check_listeners(&self, listeners: &[(u16, Place)], complaints: &mut Complaints) {
        if !self.rules.iter().any(|rule| rule.direction == Direction::Ingress) {
            return;
        }
        for (port, place) in listeners.iter().filter(|(port, _)| self.of(*port).next().is_none()) {
            let message = format!("there are `[[ingress]]` rules, and none for this listener's port {port}");
            let hint = format!(
                "a firewall made from this table lets nobody in there, and Ravelin itself restricts nobody: \
                 write `[[ingress]]` with `port = {port}` and `source = [\"0.0.0.0/0\", \"::/0\"]`, or fewer"
            );
            complaints.warning(Some(place), message, Some(hint));
        }
    }
}

/// Ways into the machine or its data that anybody may try.
fn open_to_the_world(rule: &Rule, complaints: &mut Complaints) {
    let everybody = rule.nets.iter().find(|net| net.prefix_len() == 0);
    let (Some(net), Direction::Ingress) = (everybody, rule.direction) else { return };
    if rule.protocol == Protocol::All || rule.ports == Some(rule::ALL_PORTS) {
        let message = format!("{} is open to the whole world (`{net}`)", rule.service());
        let hint = "name the ports that visitors need: `type = \"HTTP\"` and `type = \"HTTPS\"`".to_owned();
        return complaints.warning(rule.place.as_ref(), message, Some(hint));
    }
    let mut ports = HashSet::new();
    for kind in kind::private(rule.protocol, rule.ports).filter(|kind| ports.insert(kind.ports)) {
        let port = kind.ports.map_or(0, |ports| ports.first);
        let message = format!("{} (port {port}) is open to the whole world (`{net}`)", kind.name);
        let hint = "name the addresses that need it, such as the office's: `source = [\"203.0.113.0/24\"]`"
            .to_owned();
        complaints.warning(rule.place.as_ref(), message, Some(hint));
    }
}

/// The networks without those that lie inside of others, IPv4 first.
fn merged(nets: &[IpNet]) -> Vec<IpNet> {
    let mut merged = IpNet::aggregate(&nets.to_vec());
    merged.sort();
    merged
}

#[cfg(test)]
mod tests;
