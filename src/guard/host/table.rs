//! From a host to what the operator meant for it, as fast with ten thousand hosts as with one.

use std::collections::HashMap;

use super::pattern::HostPattern;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::Placed;

/// Hosts and what belongs to each. The exact host wins, then the wildcard with the longest name, then `*`.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    // std's maps are seeded at random: hosts of a client's choosing cannot make look-ups slow.
    exact: HashMap<Box<str>, T>,
    below: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: None }
    }
}

impl<T> HostTable<T> {
    /// Builds the table. A pattern that occurs twice is complained about with both places; the first
    /// stays.
    pub fn compile(
        entries: impl IntoIterator<Item = (Placed<HostPattern>, T)>,
        complaints: &mut Complaints,
    ) -> Self {
        let mut table = Self::default();
        let mut seen: HashMap<HostPattern, Place> = HashMap::new();
        for (pattern, value) in entries {
            if let Some(first) = seen.get(&pattern.value) {
                let message = format!("the host `{}` was already given at {}", pattern.value, first.label());
                let hint = "a host belongs to one site: remove it from one of the two".to_owned();
                complaints.error(Some(&pattern.place), message, Some(hint));
                continue;
            }
            seen.insert(pattern.value.clone(), pattern.place);
            table.insert(pattern.value, value);
        }
        table
    }

    fn insert(&mut self, pattern: HostPattern, value: T) {
        match pattern {
            HostPattern::Exact(host) => {
                self.exact.insert(host, value);
            }
            HostPattern::Below(name) => {
                self.below.insert(name, value);
            }
            HostPattern::Any => self.any = Some(value),
        }
    }

    /// What belongs to `host`, which is in normal form.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| self.wildcard(host)).or(self.any.as_ref())
    }

    fn wildcard(&self, host: &str) -> Option<&T> {
        if self.below.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, name)) = rest.split_once('.') {
            if let Some(value) = self.below.get(name) {
                return Some(value);
            }
            rest = name;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::complaint::Source;
    use crate::config::section::FromText;

    fn placed(text: &str, source: &Arc<Source>, start: usize) -> Placed<HostPattern> {
        let place = Place { source: Arc::clone(source), span: start..start + 1 };
        Placed { value: HostPattern::from_text(text).unwrap(), place }
    }

    fn table(hosts: &[(&str, u32)]) -> HostTable<u32> {
        let source = Arc::new(Source { name: "a.toml".to_owned(), text: String::new() });
        let mut complaints = Complaints::default();
        let entries: Vec<_> = hosts.iter().map(|(host, n)| (placed(host, &source, 0), *n)).collect();
        let table = HostTable::compile(entries, &mut complaints);
        assert!(complaints.is_empty(), "{complaints}");
        table
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let table =
            table(&[("a.test", 1), ("*.a.test", 2), ("*.deep.a.test", 3), ("*", 4), ("own.a.test", 5)]);
        for (host, n) in [
            ("a.test", 1),
            ("www.a.test", 2),
            ("own.a.test", 5),
            ("x.own.a.test", 2),
            ("x.www.a.test", 2),
            ("deep.a.test", 2),
            ("x.deep.a.test", 3),
            ("b.test", 4),
            ("xa.test", 4),
            ("[::1]", 4),
        ] {
            assert_eq!(table.get(host), Some(&n), "{host}");
        }
    }

    #[test]
    fn without_a_star_unknown_hosts_are_unknown() {
        let table = table(&[("a.test", 1), ("*.b.test", 2)]);
        for host in ["b.test", "c.test", "test", "a.test.evil", "xa.test", ""] {
            assert_eq!(table.get(host), None, "{host}");
        }
    }

    #[test]
    fn a_host_given_twice_names_both_places() {
        let source = Arc::new(Source { name: "a.toml".to_owned(), text: "x\ny\n".to_owned() });
        let mut complaints = Complaints::default();
        let entries = [(placed("a.test", &source, 0), 1), (placed("a.test", &source, 2), 2)];
        let table = HostTable::compile(entries, &mut complaints);
        assert_eq!(table.get("a.test"), Some(&1));
        let said = complaints.to_string();
        assert!(said.contains("already given at a.toml:1") && said.contains("--> a.toml:2"), "{said}");
    }

    #[test]
    fn ten_thousand_hosts_are_all_found() {
        let hosts: Vec<String> = (0..10_000).map(|n| format!("site-{n}.example.org")).collect();
        let list: Vec<(&str, u32)> = hosts.iter().map(String::as_str).zip(0..).collect();
        let table = table(&list);
        for (host, n) in list {
            assert_eq!(table.get(host), Some(&n));
        }
        assert_eq!(table.get("site-10000.example.org"), None);
    }
}
