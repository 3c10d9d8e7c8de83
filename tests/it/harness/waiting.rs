//! Cases that must hold, and those of them that wait for the strict HTTP/1 front: each must fail until then, so that
//! the list cannot rot, and is deleted from it when it passes.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `THEME: CASE`, red for as long as hyper fronts HTTP/1 (`h2`: until GET and HEAD with a body are refused there, too).
pub(crate) const STRICT_FRONT: &[&str] = &[
    "framing: CL.TE",
    "framing: TE.CL",
    "framing: CL 0 and TE",
    "framing: both, and a coding that is not chunked",
    "framing: identity alone",
    "framing: an empty Transfer-Encoding",
    "framing: xchunked",
    "framing: chunkedx",
    "framing: chunked with a parameter",
    "framing: chunked, identity",
    "framing: chunked and a comma",
    "framing: two lines of Transfer-Encoding",
    "framing: chunked in quotation marks",
    "framing: chunked behind a vertical tab",
    "framing: chunked with a NUL behind it",
    "framing: chunked behind a byte above 127",
    "framing: a blank before the colon of Transfer-Encoding",
    "framing: Transfer-Encoding behind a folded line",
    "framing: a folded Transfer-Encoding",
    "framing: two different lengths",
    "framing: two equal lengths",
    "framing: two lengths that are equal numbers",
    "framing: a list of equal lengths",
    "framing: a plus sign before the length",
    "framing: a negative length",
    "framing: minus zero",
    "framing: a hexadecimal length",
    "framing: a length with a decimal point",
    "framing: a length with an underscore",
    "framing: a length with a blank in it",
    "framing: a length with a letter behind it",
    "framing: an empty length",
    "framing: a length of more than 64 bits",
    "framing: a length in digits of another script",
    "framing: a tab within a length",
    "framing: an empty field name before the length",
    "framing: chunked over HTTP/1.0",
    "framing: chunked and a length over HTTP/1.0",
    "framing: HTTP/0.9",
    "framing: HTTP/1.2",
    "framing: HTTP/2.0 in text",
    "framing: http in small letters",
    "framing: a version with two digits",
    "framing: a blank behind the version",
    "framing: a version twice",
    "framing: GET with a length and a body",
    "framing: GET in chunks",
    "framing: HEAD with a body",
    "framing: a folded expectation on OPTIONS",
    "framing: a chunk size of many zeros",
    "framing: a blank behind a chunk size",
    "framing: a chunk extension with a NUL",
    "framing: a chunk extension of eight KiB",
    "framing: an end of the trailers with LF alone",
    "framing: two blanks before the target",
    "framing: two blanks before the version",
    "framing: a tab in the request line",
    "framing: a blank in the target",
    "framing: a blank before the method",
    "framing: a bare LF before the request line",
    "framing: a NUL in the method",
    "framing: a colon in the method",
    "framing: a byte above 127 in the method",
    "framing: a control byte in the target",
    "framing: a NUL in the target",
    "framing: a byte above 127 in the target",
    "framing: a bare CR in the target",
    "framing: a fragment in the target",
    "framing: no target",
    "framing: a line of 200 KiB",
    "framing: lines that end with LF alone",
    "framing: one line that ends with LF alone",
    "framing: an empty line of LF alone",
    "framing: a bare CR in a value",
    "framing: CR CR LF",
    "framing: a NUL in a value",
    "framing: an escape byte in a value",
    "framing: DEL in a value",
    "framing: a bell in a value",
    "framing: a folded line",
    "framing: a line folded with a tab",
    "framing: a blank before the first field line",
    "framing: a blank before a colon",
    "framing: a tab before a colon",
    "framing: a blank in a name",
    "framing: a NUL in a name",
    "framing: a byte above 127 in a name",
    "framing: a slash in a name",
    "framing: an empty name",
    "framing: a line without a colon",
    "framing: a request line among the field lines",
    "framing: one hundred and one lines",
    "framing: a head of 100 KB",
    "guardian: dirty, split, bad host and poisoned are nought",
    "guardian: every refusal is hardened and logged",
    "gunicorn: dirty, split, bad host and poisoned are nought",
    "gunicorn: every refusal is hardened and logged",
    "gunicorn: every invalid one is refused",
    "authority: a blank before the colon of Host",
    "authority: a folded Host",
    "authority: an absolute target without a host",
    "authority: a target that begins with an at sign",
    "path-acl: \\typo3\\secret.txt",
    "path-acl: typo3/secret.txt",
    "slow-clients: a head that stops, plain",
    "slow-clients: a head that stops, over TLS",
    "slow-clients: a head that drips, plain",
    "slow-clients: a head that drips, over TLS",
    "slow-clients: a second head that drips",
    "h2: GET with a body",
    "h2: GET with a body of unknown length",
    "conversation: a refusal of framing in the middle ends the connection, and nothing behind it is served",
    "conversation: a client that closes its half is answered",
];

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
        let waits = |name: &str| STRICT_FRONT.contains(&format!("{}: {name}", self.theme).as_str());
        println!("{}: {} cases, {} hold", self.theme, self.seen.len(), self.held);
        assert!(!self.seen.is_empty(), "{} has no case", self.theme);
        let mut wrong = Vec::new();
        for (name, fault) in &self.broken {
            if !waits(name) {
                wrong.push(format!("{}: {name}\n    {fault}", self.theme));
            }
        }
        for entry in STRICT_FRONT {
            let Some(name) = entry.strip_prefix(&format!("{}: ", self.theme)) else { continue };
            if !self.seen.contains(name) {
                wrong.push(format!("{entry:?} waits for the strict front, but there is no such case"));
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
