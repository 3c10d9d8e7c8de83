//! The compiled hardening policy: one table that tells by name what happens to a line.
//!
//! A response has a dozen lines and the preset some thirty names. Names are found by a tiny hash over
//! their length and ends, so that most lines cost one look into an array; everything that can be decided
//! at load (which value wins, what a wildcard covers, which conditions are the same) is.

use http::{HeaderName, HeaderValue, StatusCode};

use super::condition::Condition;
use super::rule::{Verb, Written};
use super::singleton::{self, Kind};
use super::table::Wildcard;
use super::{cookies, hsts, lint, table};
use crate::config::complaint::{Complaints, Place};

/// What leaves the house, for one route.
#[derive(Debug)]
pub struct Policy {
    /// Sorted by bucket.
    entries: Box<[Entry]>,
    /// Where the entries of each bucket begin; one more at the end.
    starts: [u8; BUCKETS + 1],
    /// The entries that may add a line.
    pub(super) adders: Box<[u8]>,
    conditions: Box<[Condition]>,
    needs_type: bool,
    wildcards: Wildcards,
    pub(super) hsts: hsts::Policy,
    pub(super) cookies: cookies::Policy,
}

/// What happens to the lines of one name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: HeaderName,
    pub(super) rules: Box<[Rule]>,
    pub(super) single: Option<Kind>,
    pub(super) role: Role,
}

/// An operation, and the number of its condition.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) verb: Verb,
    when: Option<u8>,
}

/// Names that more than the table decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The table alone.
    Plain,
    /// `[hsts]` decides.
    Hsts,
    /// Attributes are added.
    Cookie,
    /// A URL that must not leak the origin.
    Link,
    /// The same behind `url=`.
    Refresh,
}

const BUCKETS: usize = 128;
const MOST_ENTRIES: usize = 250;
const MOST_CONDITIONS: usize = 64;

/// The conditions that hold for one response, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds(u64);

impl Rule {
    pub(super) fn applies(&self, holds: Holds) -> bool {
        self.when.is_none_or(|number| holds.0 & (1 << number) != 0)
    }
}

impl Policy {
    /// Compiles the merged table.
    pub(super) fn new(
        table: &table::Raw,
        hsts: hsts::Policy,
        cookies: cookies::Policy,
        complaints: &mut Complaints,
    ) -> Self {
        let mut conditions = Conditions::default();
        let wildcards = Wildcards::new(table);
        let mut entries: Vec<Entry> = table
            .exact()
            .map(|(name, written)| Entry::written(name, written, &mut conditions, complaints))
            .collect();
        for (name, role) in implied(&cookies) {
            if !entries.iter().any(|entry| entry.name == name) {
                entries.push(Entry::implied(name, role, &wildcards));
            }
        }
        entries.sort_by_key(|entry| bucket(&entry.name));
        if entries.len() > MOST_ENTRIES {
            complaints.error(None, format!("more than {MOST_ENTRIES} header names with a rule"), None);
            entries.truncate(MOST_ENTRIES);
        }
        let starts = starts(&entries);
        let mut adders: Vec<(u8, &Entry)> =
            (0_u8..).zip(&entries).filter(|(_, entry)| entry.may_add()).collect();
        // Added lines leave in the order of their names, so that responses can be compared.
        adders.sort_by_key(|(_, entry)| entry.name.as_str());
        let adders = adders.into_iter().map(|(at, _)| at).collect();
        let conditions: Box<[Condition]> = conditions.list.into();
        let needs_type = conditions.iter().any(Condition::needs_type);
        Self { entries: entries.into(), starts, adders, conditions, needs_type, wildcards, hsts, cookies }
    }

    /// The entry of a name and its number.
    pub(super) fn find(&self, name: &HeaderName) -> Option<(u8, &Entry)> {
        let bucket = bucket(name);
        let (start, end) = (*self.starts.get(bucket)?, *self.starts.get(bucket + 1)?);
        let candidates = self.entries.get(usize::from(start)..usize::from(end))?;
        (start..).zip(candidates).find(|(_, entry)| entry.name == *name)
    }

    /// The entry with this number.
    pub(super) fn entry(&self, at: u8) -> Option<&Entry> {
        self.entries.get(usize::from(at))
    }

    /// Whether a wildcard removes this name, which has no entry.
    pub(super) fn removes(&self, name: &HeaderName) -> bool {
        self.wildcards.covers(name.as_str())
    }

    /// Whether any condition asks for the content type.
    pub(super) fn needs_type(&self) -> bool {
        self.needs_type
    }

    /// Which conditions hold.
    pub(super) fn holds(&self, status: StatusCode, content_type: Option<&HeaderValue>) -> Holds {
        let content_type = content_type.map(HeaderValue::as_bytes);
        let bits = (0_u8..).zip(&self.conditions).filter(|(_, c)| c.holds(status, content_type));
        Holds(bits.fold(0, |bits, (at, _)| bits | (1 << at)))
    }
}

impl Entry {
    fn written(
        name: HeaderName,
        written: &Written,
        conditions: &mut Conditions,
        complaints: &mut Complaints,
    ) -> Self {
        let single = singleton::kind(name.as_str());
        let rules = written
            .rules
            .iter()
            .map(|rule| {
                let verb = match (&rule.verb, single) {
                    // A second line of a singleton would not survive: adding one means replacing it.
                    (Verb::Add(value), Some(_)) => Verb::Set(value.clone()),
                    (verb, _) => verb.clone(),
                };
                Rule { verb, when: conditions.number(&rule.when, &rule.place, complaints) }
            })
            .collect();
        let role = role(name.as_str());
        Self { name, rules, single, role }
    }

    fn implied(name: HeaderName, role: Role, wildcards: &Wildcards) -> Self {
        let removed = role != Role::Hsts && wildcards.covers(name.as_str());
        let rules = removed.then_some(Rule { verb: Verb::Unset, when: None }).into_iter().collect();
        let single = singleton::kind(name.as_str());
        Self { name, rules, single, role }
    }

    fn may_add(&self) -> bool {
        let adds = |rule: &Rule| !matches!(rule.verb, Verb::Unset | Verb::Edit(..));
        self.role == Role::Hsts || self.rules.iter().any(adds)
    }
}

fn role(name: &str) -> Role {
    match name {
        "strict-transport-security" => Role::Hsts,
        "set-cookie" => Role::Cookie,
        "location" | "content-location" => Role::Link,
        "refresh" => Role::Refresh,
        _ => Role::Plain,
    }
}

/// Names that are looked at without any rule.
fn implied(cookies: &cookies::Policy) -> impl Iterator<Item = (HeaderName, Role)> {
    let names = ["location", "content-location", "refresh"].into_iter();
    let cookie = (!cookies.is_idle()).then_some("set-cookie");
    let singles = singleton::SINGLETONS.iter().map(|(name, _)| *name);
    names.chain(cookie).chain(singles).map(|name| (HeaderName::from_static(name), role(name)))
}

/// A number below [`BUCKETS`] that differs for most pairs of header names.
fn bucket(name: &HeaderName) -> usize {
    let bytes = name.as_str().as_bytes();
    let at = |index: usize| bytes.get(index).copied().map_or(0, usize::from);
    let length = bytes.len();
    (length.wrapping_mul(37)
        ^ at(length / 2).wrapping_mul(11)
        ^ at(length.wrapping_sub(2)).wrapping_mul(3)
        ^ at(2))
        % BUCKETS
}

fn starts(entries: &[Entry]) -> [u8; BUCKETS + 1] {
    let mut starts = [0_u8; BUCKETS + 1];
    for (at, start) in starts.iter_mut().enumerate() {
        let before = entries.iter().filter(|entry| bucket(&entry.name) < at).count();
        *start = u8::try_from(before).unwrap_or(u8::MAX);
    }
    starts
}

/// Distinct conditions, numbered.
#[derive(Default)]
struct Conditions {
    list: Vec<Condition>,
}

impl Conditions {
    fn number(&mut self, condition: &Condition, place: &Place, complaints: &mut Complaints) -> Option<u8> {
        if condition.is_always() {
            return None;
        }
        let at = self.list.iter().position(|known| known == condition).unwrap_or_else(|| {
            self.list.push(condition.clone());
            self.list.len() - 1
        });
        if at >= MOST_CONDITIONS {
            self.list.truncate(MOST_CONDITIONS);
            let message = format!("more than {MOST_CONDITIONS} different conditions");
            complaints.error(Some(place), message, None);
            return Some(0);
        }
        u8::try_from(at).ok()
    }
}

/// The wildcards, and which first letters they can be about at all.
#[derive(Debug, Default)]
struct Wildcards {
    list: Box<[Wildcard]>,
    first: u128,
}

impl Wildcards {
    fn new(table: &table::Raw) -> Self {
        let list: Box<[Wildcard]> = table.wildcards().map(|(wildcard, _)| wildcard).collect();
        let first = list.iter().fold(0, |bits, wildcard| match wildcard {
            Wildcard::Prefix(prefix) => bits | letter(prefix),
            Wildcard::Suffix(_) => u128::MAX,
        });
        Self { list, first }
    }

    fn covers(&self, name: &str) -> bool {
        self.first & letter(name) != 0
            && self.list.iter().any(|wildcard| wildcard.covers(name))
            && !lint::FRAMING.contains(&name)
            && !lint::MEANING.contains(&name)
    }
}

fn letter(name: &str) -> u128 {
    name.as_bytes().first().map_or(0, |byte| 1 << (byte & 127))
}
