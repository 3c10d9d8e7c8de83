//! What a replay found, added up by rule and by client.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;

use super::line::Entry;
use super::{Block, served};

/// Sums of a replay. Its size grows with the number of clients and rules, not of requests.
#[derive(Debug, Default)]
pub struct Tally {
    requests: u64,
    clients: HashSet<IpAddr>,
    span: Option<(Timestamp, Timestamp)>,
    unread: u64,
    first_unread: Option<String>,
    before: u64,
    blocked: Sum,
    rules: BTreeMap<Rule, Sum>,
    by_client: HashMap<IpAddr, Sum>,
}

/// A rule, as a reader of the table knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    name: &'static str,
    decided: Option<String>,
    reported: bool,
}

/// Requests that would have been blocked.
#[derive(Debug, Default)]
struct Sum {
    requests: u64,
    /// That had been answered with 2xx or 3xx: the ones to look at first.
    served: u64,
    clients: HashSet<IpAddr>,
    example: Option<String>,
    served_example: Option<String>,
}

impl Sum {
    fn add(&mut self, entry: &Entry<'_>, block: &Block) {
        let served = served(entry.status);
        self.requests += 1;
        self.served += u64::from(served);
        self.clients.insert(entry.client);
        let slot = if served { &mut self.served_example } else { &mut self.example };
        slot.get_or_insert_with(|| example(entry, block));
    }
}

fn example(entry: &Entry<'_>, block: &Block) -> String {
    let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    format!("{} {} from {} ({})", entry.method, cut(&entry.target), entry.client, cut(&block.detail))
}

impl Tally {
    /// A line that is no request.
    pub fn unread(&mut self, place: &str, fault: impl std::fmt::Display) {
        self.unread += 1;
        self.first_unread.get_or_insert_with(|| format!("{place}: {fault}"));
    }

    /// A request, and everything that the rules have against it.
    pub fn add(&mut self, entry: &Entry<'_>, blocks: &[Block]) {
        self.requests += 1;
        self.clients.insert(entry.client);
        let (first, last) = self.span.unwrap_or((entry.at, entry.at));
        self.span = Some((first.min(entry.at), last.max(entry.at)));
        if entry.refused.is_some() {
            self.before += 1;
        }
        for block in blocks {
            let rule =
                Rule { name: block.reason.name(), decided: block.decided.clone(), reported: block.reported };
            self.rules.entry(rule).or_default().add(entry, block);
        }
        // One that was refused then and would be again is nothing new for this client.
        if let Some(block) = blocks.last().filter(|_| entry.refused.is_none()) {
            self.blocked.add(entry, block);
            self.by_client.entry(entry.client).or_default().add(entry, block);
        }
    }

    /// How many requests that had been answered with success would have been blocked.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.blocked.served
    }

    /// How many requests were read.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The tables, with at most `rows` clients.
    #[must_use]
    pub fn tell(&self, rows: usize) -> String {
        let mut out = String::new();
        self.tell_sums(&mut out);
        if !self.rules.is_empty() {
            self.tell_rules(&mut out);
        }
        if !self.by_client.is_empty() {
            self.tell_clients(rows, &mut out);
        }
        out
    }

    fn tell_sums(&self, out: &mut String) {
        // Writing into a `String` cannot fail.
        let _ = write!(
            out,
            "{} of {}",
            plural(self.requests, "request"),
            plural(self.clients.len() as u64, "client")
        );
        if let Some((first, last)) = self.span {
            let _ = write!(out, ", {first:.0} to {last:.0}");
        }
        out.push('\n');
        if let Some(first) = &self.first_unread {
            let _ = writeln!(out, "{} could not be read; the first is {first}", plural(self.unread, "line"));
        }
        if self.before > 0 {
            let _ =
                writeln!(out, "{} had been refused by Ravelin at the time", plural(self.before, "request"));
        }
        let Sum { requests, served, clients, .. } = &self.blocked;
        let _ = match requests {
            0 => writeln!(out, "Nothing else would be blocked."),
            _ => writeln!(
                out,
                "Would be blocked or reported: {} of {}; {served} of them had been answered with success.",
                plural(*requests, "request"),
                plural(clients.len() as u64, "client"),
            ),
        };
    }

    fn tell_rules(&self, out: &mut String) {
        let _ =
            writeln!(out, "\n{:<24}{:>9}{:>9}{:>9}  decided by", "by rule", "requests", "served", "clients");
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.served, sum.requests)));
        for (rule, sum) in rules {
            let decided = rule.decided.as_deref().unwrap_or("built in");
            let only = if rule.reported { " (only reported)" } else { "" };
            let clients = sum.clients.len();
            let _ = writeln!(
                out,
                "{:<24}{:>9}{:>9}{clients:>9}  {decided}{only}",
                rule.name, sum.requests, sum.served
            );
            for (what, example) in [("served: ", &sum.served_example), ("e.g. ", &sum.example)] {
                if let Some(example) = example {
                    let _ = writeln!(out, "    {what}{example}");
                }
            }
        }
    }

    fn tell_clients(&self, rows: usize, out: &mut String) {
        let _ = writeln!(out, "\n{:<42}{:>9}{:>9}", "by client", "requests", "served");
        let mut clients: Vec<_> = self.by_client.iter().collect();
        clients.sort_by_key(|(client, sum)| (std::cmp::Reverse((sum.served, sum.requests)), **client));
        for (client, sum) in clients.iter().take(rows) {
            let _ = writeln!(out, "{:<42}{:>9}{:>9}", client.to_string(), sum.requests, sum.served);
        }
        if let Some(more) = clients.len().checked_sub(rows).filter(|more| *more > 0) {
            let _ = writeln!(out, "and {}", plural(more as u64, "client"));
        }
    }
}

fn plural(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
