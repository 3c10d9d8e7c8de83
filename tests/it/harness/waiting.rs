//! Cases that must hold, and those of them that the product does not keep yet: each must fail until then, so that
//! the list cannot rot, and is deleted from it when it passes.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `THEME: CASE`, with its reason beside it.
pub(crate) const WAITING: &[&str] = &[];

/// Says of every case of `theme` whether it holds; what is wrong with it otherwise.
pub(crate) struct Results {
    theme: &'static str,
    held: usize,
    broken: Vec<(String, String)>,
    seen: BTreeSet<String>,
}

impl Results {
    /// None yet.
    pub(crate) fn of(theme: &'static str) -> Self {
        Self { theme, held: 0, broken: Vec::new(), seen: BTreeSet::new() }
    }

    /// Counts a case by its faults.
    #[track_caller]
    pub(crate) fn add(&mut self, name: &str, faults: &[String]) -> &mut Self {
        assert!(self.seen.insert(name.to_owned()), "two cases of {} are called {name:?}", self.theme);
        if faults.is_empty() {
            self.held += 1;
        } else {
            self.broken.push((name.to_owned(), faults.join("\n    ")));
        }
        self
    }

    /// Runs a case, and counts it by whether it panics.
    #[track_caller]
    pub(crate) fn run(&mut self, name: &str, case: impl FnOnce()) -> &mut Self {
        let fault = catch_unwind(AssertUnwindSafe(case)).err().map(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        self.add(name, fault.as_slice())
    }

    /// Every case holds, but for those that wait; and none of those holds.
    #[track_caller]
    pub(crate) fn hold(&self) {
        let waits = |name: &str| WAITING.contains(&format!("{}: {name}", self.theme).as_str());
        println!("{}: {} cases, {} hold", self.theme, self.seen.len(), self.held);
        assert!(!self.seen.is_empty(), "{} has no case", self.theme);
        let mut wrong = Vec::new();
        for (name, fault) in &self.broken {
            if !waits(name) {
                wrong.push(format!("{}: {name}\n    {fault}", self.theme));
            }
        }
        for entry in WAITING {
            let Some(name) = entry.strip_prefix(&format!("{}: ", self.theme)) else { continue };
            if !self.seen.contains(name) {
                wrong.push(format!("{entry:?} waits, but there is no such case"));
            } else if !self.broken.iter().any(|(broken, _)| broken == name) {
                wrong.push(format!("{entry:?} holds: delete it from the list in {}", file!()));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {} cases are wrong:\n  {}",
            wrong.len(),
            self.seen.len(),
            wrong.join("\n  ")
        );
    }
}
