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
    /// Where the entries of each bucket begin; one more at the end. A power of two of buckets, at least twice
    /// as many as entries.
    starts: Box<[u16]>,
    /// The entries that may add a line.
    adders: Box<[Adder]>,
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

/// An entry that may add a line, and what must hold for that: side by side, so that a thousand that do not apply
/// cost a response a glance each.
#[derive(Clone, Copy, Debug)]
struct Adder {
    at: u16,
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

/// The fewest buckets: what the preset needs.
const BUCKETS: usize = 128;
/// The most names that one route may have rules for.
pub(super) const MOST_ENTRIES: usize = 2_048;
const MOST_CONDITIONS: usize = 64;

/// The conditions that hold for one response, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds(u64);

impl Holds {
    /// Whether the condition of this number holds; no condition always does.
    fn has(self, when: Option<u8>) -> bool {
        when.is_none_or(|number| self.0 & (1 << number) != 0)
    }
}

impl Rule {
    pub(super) fn applies(&self, holds: Holds) -> bool {
        holds.has(self.when)
    }

    fn adds(&self) -> bool {
        !matches!(self.verb, Verb::Unset | Verb::Edit(..))
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
        if entries.len() > MOST_ENTRIES {
            complaints.error(None, format!("more than {MOST_ENTRIES} header names with a rule"), None);
            entries.truncate(MOST_ENTRIES);
        }
        let buckets = (2 * entries.len()).next_power_of_two().max(BUCKETS);
        entries.sort_by_cached_key(|entry| bucket(&entry.name, buckets));
        let starts = starts(&entries, buckets);
        let mut adders: Vec<(u16, &Entry)> =
            (0_u16..).zip(&entries).filter(|(_, entry)| entry.may_add()).collect();
        // Added lines leave in the order of their names, so that responses can be compared.
        adders.sort_by_key(|(_, entry)| entry.name.as_str());
        let adders = adders.into_iter().map(|(at, entry)| Adder { at, when: entry.needs() }).collect();
        let conditions: Box<[Condition]> = conditions.list.into();
        let needs_type = conditions.iter().any(Condition::needs_type);
        Self { entries: entries.into(), starts, adders, conditions, needs_type, wildcards, hsts, cookies }
    }

    /// The entry of a name and its number.
    pub(super) fn find(&self, name: &HeaderName) -> Option<(u16, &Entry)> {
        let bucket = bucket(name, self.starts.len() - 1);
        let (start, end) = (*self.starts.get(bucket)?, *self.starts.get(bucket + 1)?);
        let candidates = self.entries.get(usize::from(start)..usize::from(end))?;
        (start..).zip(candidates).find(|(_, entry)| entry.name == *name)
    }

    /// The entry with this number.
    pub(super) fn entry(&self, at: u16) -> Option<&Entry> {
        self.entries.get(usize::from(at))
    }

    /// How many lines can be added at most.
    pub(super) fn most_added(&self) -> usize {
        self.adders.len()
    }

    /// The entries that may add a line, by number, in the order of their names.
    pub(super) fn adders(&self, holds: Holds) -> impl Iterator<Item = u16> {
        self.adders.iter().filter(move |adder| holds.has(adder.when)).map(|adder| adder.at)
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
        self.role == Role::Hsts || self.rules.iter().any(Rule::adds)
    }

    /// The condition without which nothing is added, if there is one for all rules.
    fn needs(&self) -> Option<u8> {
        let mut conditions = self.rules.iter().filter(|rule| rule.adds()).map(|rule| rule.when);
        let first = conditions.next().flatten().filter(|_| self.role != Role::Hsts);
        first.filter(|first| conditions.all(|when| when == Some(*first)))
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

/// A number below `buckets`, a power of two, that differs for most pairs of header names.
fn bucket(name: &HeaderName, buckets: usize) -> usize {
    let bytes = name.as_str().as_bytes();
    let at = |index: usize| bytes.get(index).copied().map_or(0, usize::from);
    let length = bytes.len();
    let mut hash = length.wrapping_mul(37)
        ^ at(length / 2).wrapping_mul(11)
        ^ at(length.wrapping_sub(2)).wrapping_mul(3)
        ^ at(2);
    if buckets > BUCKETS {
        // Families of names that differ in a number at the end: every byte has to count.
        hash = bytes.iter().fold(hash, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    }
    hash & (buckets - 1)
}

fn starts(entries: &[Entry], buckets: usize) -> Box<[u16]> {
    let mut counts = vec![0_u16; buckets + 1];
    for entry in entries {
        if let Some(count) = counts.get_mut(bucket(&entry.name, buckets) + 1) {
            *count += 1;
        }
    }
    counts
        .iter()
        .scan(0_u16, |sum, count| {
            *sum += count;
            Some(*sum)
        })
        .collect()
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
