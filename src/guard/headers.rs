//! May these request fields go on to the origin?
//!
//! PHP folds `-`, `_` and `.` in field names into one (`HTTP_X_FORWARDED_FOR`), so a field that Ravelin
//! removes under one name could come back under another. Such names are dropped when the head is rewritten,
//! not refused: some honest clients send them and nobody reads them.

use http::header::CONNECTION;

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;
use crate::head::Head;
use crate::refusal::{Reason, Refusal};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    underscores: Option<Placed<Text<UnderscoreHeaders>>>,
}

/// What becomes of fields whose names hold `_` or `.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderscoreHeaders {
    /// They do not reach the origin.
    #[default]
    Drop,
    /// They do, unless they fold into a name that Ravelin answers for.
    Keep,
}

impl FromText for UnderscoreHeaders {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("drop", Self::Drop), ("keep", Self::Keep)])
    }
}

/// Which request fields go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Names with `_` or `.`.
    pub underscores: UnderscoreHeaders,
}

impl Raw {
    /// Reads `underscore_headers`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { underscores: section.get(reading, "underscore_headers") }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { underscores: specific.underscores.or(self.underscores) }
    }

    /// Where `underscore_headers` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.underscores.as_ref().map(|written| &written.place)
    }

    /// `drop` unless something else was written.
    pub fn compile(self, _complaints: &mut Complaints) -> Policy {
        Policy { underscores: self.underscores.map_or_else(Default::default, |placed| placed.value.0) }
    }
}

impl Policy {
    /// Whether a field of this name may go on, as far as its spelling is concerned.
    #[must_use]
    pub fn passes(&self, name: &str) -> bool {
        !folds(name) || (self.underscores == UnderscoreHeaders::Keep && !is_ours(name))
    }
}

/// Whether PHP reads the name as another one.
#[must_use]
pub fn folds(name: &str) -> bool {
    name.bytes().any(|byte| matches!(byte, b'_' | b'.'))
}

/// Whether the name folds into one that says who asks, for which host, or where the message ends: those are
/// Ravelin's to write, whatever the policy.
fn is_ours(text: &str) -> bool {
    const NAMES: [&str; 11] = [
        "x-real-ip",
        "x-request-id",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "content-length",
        "content-type",
        "transfer-encoding",
        "http2-settings",
    ];
    let forwarded = text.get(..12).is_some_and(|start| same("x-forwarded-", start));
    forwarded || NAMES.iter().any(|ours| same(ours, text))
}

/// Whether two names are one to PHP.
fn same(a: &str, b: &str) -> bool {
    let fold = |byte| if matches!(byte, b'_' | b'.') { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

/// Refuses what no honest client sends: `Connection` naming a field that must not be removed on the way
/// (CVE-2022-31813, CVE-2026-26365), and, where underscores are kept, two spellings of one name.
pub fn check(policy: &Policy, head: &Head<'_>) -> Result<(), Refusal> {
    connection(head)?;
    if policy.underscores == UnderscoreHeaders::Keep { collisions(head) } else { Ok(()) }
}

/// The fields that `Connection` must not name: for whom it is, and where it ends.
const STAY: [&str; 4] = ["host", "content-length", "transfer-encoding", "content-type"];

fn connection(head: &Head<'_>) -> Result<(), Refusal> {
    for value in head.all(&CONNECTION) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if let Some(name) = STAY.iter().find(|name| option.eq_ignore_ascii_case(name.as_bytes())) {
                return Err(bad(format!("`Connection` names `{name}`")));
            }
        }
    }
    Ok(())
}

fn collisions(head: &Head<'_>) -> Result<(), Refusal> {
    for (name, _) in head.iter().filter(|(name, _)| folds(name)) {
        let twin = head.iter().find(|(other, _)| *other != name && same(other, name));
        if let Some((other, _)) = twin {
            return Err(bad(format!("`{name}` and `{other}` are one name to PHP")));
        }
    }
    Ok(())
}

fn bad(detail: String) -> Refusal {
    Refusal::new(Reason::BadHeader, detail)
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::guard::testing;

    const DROP: Policy = Policy { underscores: UnderscoreHeaders::Drop };
    const KEEP: Policy = Policy { underscores: UnderscoreHeaders::Keep };

    fn verdict(policy: Policy, fields: &[(&str, &str)]) -> Option<String> {
        let parts = testing::head("GET", "/", Version::HTTP_11, fields);
        check(&policy, &Head::new(&parts)).err().map(|refusal| refusal.detail.into_owned())
    }

    #[test]
    fn folding_names_do_not_pass_by_default() {
        for (name, by_default, kept) in [
            ("x-forwarded-for", true, true),
            ("x_forwarded_for", false, false),
            ("x-forwarded_for", false, false),
            ("x.forwarded.host", false, false),
            ("content_length", false, false),
            ("my_field", false, true),
            ("my.field", false, true),
            ("accept", true, true),
        ] {
            assert_eq!(DROP.passes(name), by_default, "{name}");
            assert_eq!(KEEP.passes(name), kept, "{name}");
        }
    }

    #[test]
    fn connection_may_not_name_what_must_stay() {
        for option in ["host", "close, Host", "Transfer-Encoding", "content-length , close"] {
            assert!(verdict(DROP, &[("connection", option)]).is_some(), "{option}");
        }
        for option in ["close", "keep-alive, Upgrade", "X-Forwarded-For", "cookie", "te", "xhost"] {
            assert!(verdict(DROP, &[("connection", option)]).is_none(), "{option}");
        }
        assert!(verdict(DROP, &[("connection", "close"), ("connection", "host")]).is_some());
    }

    #[test]
    fn two_spellings_of_one_name_collide_only_where_both_would_pass() {
        let fields = [("my-field", "1"), ("my_field", "2")];
        assert_eq!(verdict(DROP, &fields), None);
        assert!(verdict(KEEP, &fields).is_some());
        assert_eq!(verdict(KEEP, &[("my_field", "1"), ("my_field", "2"), ("other", "3")]), None);
    }

    #[test]
    fn the_policy_is_read() {
        let (raw, complaints) = testing::read("underscore_headers = \"keep\"", Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        assert_eq!(Raw::default().over(raw).compile(&mut Complaints::default()), KEEP);
        assert_eq!(Raw::default().compile(&mut Complaints::default()), DROP);
        let (_, complaints) = testing::read("underscore_headers = \"dorp\"", Raw::read);
        assert!(complaints.to_string().contains("did you mean `drop`?"), "{complaints}");
    }
}
