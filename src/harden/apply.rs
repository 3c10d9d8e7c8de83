//! Applying a policy to the fields of a response: one pass over the lines, then what is missing.
//!
//! The everyday operations (`set`, `unset`, `setifempty`) are done in the pass. What needs all lines of a
//! name at once (joining, editing, a singleton that came twice) is put aside and done afterwards, for the
//! few names it concerns.

use std::mem;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::location::{OriginAuthority, Public, publish, publish_refresh};
use super::policy::{Entry, Holds, MOST_ENTRIES, Policy, Role};
use super::rule::Verb;
use super::{hsts, singleton};
use crate::fields::Fields;

/// What the policy needs to know about one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The status of the response.
    pub status: StatusCode,
    /// Whether the client came over TLS (or a trusted proxy says so).
    pub secure: bool,
    /// Whether the host is one that browsers must not remember HSTS for: `localhost` and below, `.test`,
    /// `.ddev.site`, an address.
    pub dev_host: bool,
    /// The requested host without port; IPv6 in brackets. Empty if it is not known: then no URL is
    /// rewritten to it.
    pub host: &'a str,
    /// The requested port, where it was written or is not the scheme's own.
    pub port: Option<u16>,
    /// How the origin is reached; URLs that name it are rewritten.
    pub origin_authorities: &'a [OriginAuthority],
}

/// What applying found worth telling.
#[derive(Debug, Default)]
pub struct Applied {
    /// Singleton headers for which the origin said something else than what left. Warn once per site
    /// and header.
    pub conflicts: Vec<Conflict>,
}

/// The origin contradicted itself or the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which header.
    pub name: HeaderName,
    /// What the origin sent (the first line that differs).
    pub sent: HeaderValue,
    /// What left.
    pub kept: HeaderValue,
}

/// Brings the fields of a response into the form in which they leave. Never leaves a singleton header
/// twice.
pub fn apply(policy: &Policy, facts: &Facts<'_>, fields: &mut Fields) -> Applied {
    let content_type = if policy.needs_type() { fields.get(&CONTENT_TYPE) } else { None };
    let holds = policy.holds(facts.status, content_type);
    let mut pass =
        Pass { policy, facts, holds, seen: Bits::default(), later: Vec::new(), conflicts: Vec::new() };
    fields.retain(|name, value| pass.line(name, value));
    fields.reserve(policy.most_added());
    pass.finish(fields);
    Applied { conflicts: pass.conflicts }
}

struct Pass<'a> {
    policy: &'a Policy,
    facts: &'a Facts<'a>,
    holds: Holds,
    /// The entries of which a line was kept.
    seen: Bits,
    /// The entries that need all their lines at once; some of them more than once.
    later: Vec<u16>,
    conflicts: Vec<Conflict>,
}

/// What the pass does with the lines of one name.
enum Plan<'a> {
    Keep,
    Drop,
    Set(&'a HeaderValue),
    Fill(&'a HeaderValue),
    Later,
}

impl<'a> Pass<'a> {
    /// One line; false drops it.
    fn line(&mut self, name: &HeaderName, value: &mut HeaderValue) -> bool {
        let Some((at, entry)) = self.policy.find(name) else { return !self.policy.removes(name) };
        let plan = self.plan(entry);
        if matches!(plan, Plan::Drop) {
            return false;
        }
        let again = self.seen.insert(at);
        match plan {
            Plan::Set(ours) => {
                if entry.single.is_some() && !value.as_bytes().eq_ignore_ascii_case(ours.as_bytes()) {
                    self.contradiction(entry, value, ours);
                }
                value.clone_from(ours);
                return !again;
            }
            Plan::Later => self.later.push(at),
            _ if entry.single.is_some_and(|kind| again || singleton::is_list(kind, value.as_bytes())) => {
                self.later.push(at);
            }
            _ => {}
        }
        self.role(entry.role, value);
        true
    }

    /// What the table does not say but the name asks for.
    fn role(&self, role: Role, value: &mut HeaderValue) {
        let public = || Public { secure: self.facts.secure, host: self.facts.host, port: self.facts.port };
        let changed = match role {
            Role::Plain | Role::Hsts => return,
            Role::Cookie => self.policy.cookies.complete(value, self.facts.secure),
            _ if self.facts.host.is_empty() => return,
            Role::Link => publish(value.as_bytes(), &public(), self.facts.origin_authorities).and_then(built),
            Role::Refresh => {
                publish_refresh(value.as_bytes(), &public(), self.facts.origin_authorities).and_then(built)
            }
        };
        if let Some(changed) = changed {
            *value = changed;
        }
    }

    fn plan(&self, entry: &'a Entry) -> Plan<'a> {
        if entry.role == Role::Hsts {
            return self.transport();
        }
        match &*entry.rules {
            [] => Plan::Keep,
            [rule] if !rule.applies(self.holds) => Plan::Keep,
            [rule] => match &rule.verb {
                Verb::Set(value) => Plan::Set(value),
                Verb::SetIfEmpty(value) => Plan::Fill(value),
                Verb::Unset => Plan::Drop,
                _ => Plan::Later,
            },
            _ => Plan::Later,
        }
    }

    /// RFC 6797 section 7.2: never over plain HTTP, whoever set it.
    fn transport(&self) -> Plan<'a> {
        if !self.facts.secure || self.facts.dev_host {
            return Plan::Drop;
        }
        match &self.policy.hsts {
            hsts::Policy::Off => Plan::Keep,
            hsts::Policy::Fill(value) => Plan::Fill(value),
            hsts::Policy::Set(value) => Plan::Set(value),
        }
    }

    /// The names that need all their lines, and the lines that are missing.
    fn finish(&mut self, fields: &mut Fields) {
        let mut later = mem::take(&mut self.later);
        later.sort_unstable();
        later.dedup();
        for at in later {
            if let Some(entry) = self.policy.entry(at) {
                self.together(entry, fields);
            }
        }
        let (policy, seen) = (self.policy, self.seen);
        for at in policy.adders(self.holds).filter(|at| !seen.has(*at)) {
            let Some(entry) = policy.entry(at) else { continue };
            let value = match self.plan(entry) {
                Plan::Set(value) => Some(value),
                Plan::Fill(value) => Some(value).filter(|_| self.may_fill(entry)),
                Plan::Later => {
                    let alone = alone(entry);
                    if alone.is_none() {
                        self.together(entry, fields);
                    }
                    alone
                }
                Plan::Keep | Plan::Drop => None,
            };
            if let Some(value) = value {
                fields.push(entry.name.clone(), value.clone());
            }
        }
    }

    /// A 304 updates what the browser has stored (RFC 9111 section 4.3.4). Apache leaves headers out of
    /// it that the 200 had; filling the gap would put our base policy in place of the origin's own.
    /// HSTS is no property of the page: browsers note it for the host from every answer (RFC 6797 section
    /// 8.1), and one that came before Ravelin may ask for nothing but what it has stored.
    fn may_fill(&self, entry: &Entry) -> bool {
        entry.role == Role::Hsts || self.facts.status != StatusCode::NOT_MODIFIED
    }

    /// All lines of one name at once.
    fn together(&mut self, entry: &Entry, fields: &mut Fields) {
        self.collapse(entry, fields);
        let holds = self.holds;
        for rule in entry.rules.iter().filter(|rule| rule.applies(holds)) {
            self.run(entry, &rule.verb, fields);
        }
    }

    /// Leaves one line of a singleton.
    fn collapse(&mut self, entry: &Entry, fields: &mut Fields) {
        let Some(kind) = entry.single else { return };
        let lines: Vec<&[u8]> = fields.all(&entry.name).map(HeaderValue::as_bytes).collect();
        let Some(one) = singleton::collapse(kind, &lines) else {
            // Nothing but empty lines.
            if lines.len() > 1 {
                fields.set(entry.name.clone(), HeaderValue::from_static(""));
            }
            return;
        };
        let Some(kept) = built(one.value.to_vec()) else { return };
        if one.conflict {
            let other =
                fields.all(&entry.name).find(|value| !value.as_bytes().eq_ignore_ascii_case(one.value));
            let sent = other.unwrap_or(&kept).clone();
            self.contradiction(entry, &sent, &kept);
        }
        fields.set(entry.name.clone(), kept);
    }

    fn run(&mut self, entry: &Entry, verb: &Verb, fields: &mut Fields) {
        let name = &entry.name;
        match verb {
            Verb::Set(value) => self.set(entry, value, fields),
            Verb::Add(value) => fields.push(name.clone(), value.clone()),
            Verb::Append(value) => append(name, value, fields),
            Verb::Merge(value) => {
                if !fields.all(name).any(|line| has_element(line.as_bytes(), value.as_bytes())) {
                    append(name, value, fields);
                }
            }
            Verb::SetIfEmpty(value) => {
                if self.may_fill(entry) && !fields.contains(name) {
                    fields.push(name.clone(), value.clone());
                }
            }
            Verb::Complete(value, features) => {
                let lines: Vec<&[u8]> = fields.all(name).map(HeaderValue::as_bytes).collect();
                if !lines.is_empty() {
                    if let Some(merged) = features.complete(&lines).and_then(built) {
                        fields.set(name.clone(), merged);
                    }
                } else if self.may_fill(entry) {
                    fields.push(name.clone(), value.clone());
                }
            }
            Verb::Unset => {
                fields.remove(name);
            }
            Verb::Edit(edit, _) => {
                for (_, value) in fields.iter_mut().filter(|(n, _)| *n == name) {
                    if let Some(edited) = edit.apply(value.as_bytes()).and_then(built) {
                        *value = edited;
                    }
                }
            }
        }
    }

    fn set(&mut self, entry: &Entry, ours: &HeaderValue, fields: &mut Fields) {
        if entry.single.is_some() {
            let other =
                fields.all(&entry.name).find(|value| !value.as_bytes().eq_ignore_ascii_case(ours.as_bytes()));
            if let Some(sent) = other.cloned() {
                self.contradiction(entry, &sent, ours);
            }
        }
        fields.set(entry.name.clone(), ours.clone());
    }

    /// Remembers a contradiction, once per name. `SAMEORIGIN, SAMEORIGIN` is only a repetition.
    fn contradiction(&mut self, entry: &Entry, sent: &HeaderValue, kept: &HeaderValue) {
        let mut elements = singleton::elements(sent.as_bytes());
        let repeated = elements.all(|element| element.eq_ignore_ascii_case(kept.as_bytes()));
        if !repeated && !self.conflicts.iter().any(|known| known.name == entry.name) {
            self.conflicts.push(Conflict {
                name: entry.name.clone(),
                sent: sent.clone(),
                kept: kept.clone(),
            });
        }
    }
}

/// The line that an entry of one operation makes of none, without looking for others: all three then are `add`.
fn alone(entry: &Entry) -> Option<&HeaderValue> {
    match &*entry.rules {
        [rule] => match &rule.verb {
            Verb::Append(value) | Verb::Merge(value) | Verb::Add(value) => Some(value),
            _ => None,
        },
        _ => None,
    }
}

/// Apache's `append`: joined to the first line with `, `, even to an empty one.
fn append(name: &HeaderName, value: &HeaderValue, fields: &mut Fields) {
    let Some((_, line)) = fields.iter_mut().find(|(n, _)| *n == name) else {
        fields.push(name.clone(), value.clone());
        return;
    };
    if let Some(joined) = built([line.as_bytes(), b", ", value.as_bytes()].concat()) {
        *line = joined;
    }
}

fn has_element(line: &[u8], value: &[u8]) -> bool {
    singleton::elements(line).any(|element| element == value)
}

fn built(bytes: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).ok()
}

/// A set of entry numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Bits([u64; MOST_ENTRIES / 64]);

impl Bits {
    /// Puts `at` in and says whether it was in before.
    fn insert(&mut self, at: u16) -> bool {
        let before = self.has(at);
        if let Some(word) = self.0.get_mut(usize::from(at >> 6)) {
            *word |= 1 << (at & 63);
        }
        before
    }

    fn has(&self, at: u16) -> bool {
        self.0.get(usize::from(at >> 6)).is_some_and(|word| word & (1 << (at & 63)) != 0)
    }
}
