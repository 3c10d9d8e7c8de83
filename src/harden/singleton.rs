//! Headers that mean something only once, and what remains of them when they came twice.
//!
//! Two lines, or one line with a comma, are worse than none: browsers ignore
//! `X-Frame-Options: SAMEORIGIN, DENY` as a value they do not know, or block the page altogether. Where
//! the origin contradicts itself, what browsers that are strict about it would do is kept: `DENY` over
//! `SAMEORIGIN` (HTML standard), the first Strict-Transport-Security (RFC 6797 section 8.1), the last
//! Referrer-Policy that is known (Referrer Policy section 8.1), and the last valid value of the others.

/// What a singleton header holds, which decides how contradictions end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// X-Frame-Options.
    Frame,
    /// Strict-Transport-Security.
    Transport,
    /// X-Content-Type-Options.
    Sniffing,
    /// Referrer-Policy.
    Referrer,
    /// Cross-Origin-Opener-Policy, also report-only.
    Opener,
    /// Cross-Origin-Embedder-Policy, also report-only.
    Embedder,
    /// Cross-Origin-Resource-Policy.
    Resource,
    /// Origin-Agent-Cluster.
    AgentCluster,
    /// Server.
    Server,
}

/// Every header that leaves at most once.
pub(super) const SINGLETONS: [(&str, Kind); 11] = [
    ("x-frame-options", Kind::Frame),
    ("strict-transport-security", Kind::Transport),
    ("x-content-type-options", Kind::Sniffing),
    ("referrer-policy", Kind::Referrer),
    ("cross-origin-opener-policy", Kind::Opener),
    ("cross-origin-opener-policy-report-only", Kind::Opener),
    ("cross-origin-embedder-policy", Kind::Embedder),
    ("cross-origin-embedder-policy-report-only", Kind::Embedder),
    ("cross-origin-resource-policy", Kind::Resource),
    ("origin-agent-cluster", Kind::AgentCluster),
    ("server", Kind::Server),
];

/// The kind of a header by its lower-case name, if it is a singleton.
pub(super) fn kind(name: &str) -> Option<Kind> {
    SINGLETONS.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
}

impl Kind {
    /// The values that mean something, without parameters; empty if any text does.
    pub(super) const fn known(self) -> &'static [&'static str] {
        match self {
            Self::Frame => &["DENY", "SAMEORIGIN"],
            Self::Sniffing => &["nosniff"],
            Self::Referrer => &[
                "no-referrer",
                "no-referrer-when-downgrade",
                "same-origin",
                "origin",
                "strict-origin",
                "origin-when-cross-origin",
                "strict-origin-when-cross-origin",
                "unsafe-url",
            ],
            Self::Opener => {
                &["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"]
            }
            Self::Embedder => &["require-corp", "credentialless", "unsafe-none"],
            Self::Resource => &["same-origin", "same-site", "cross-origin"],
            Self::AgentCluster => &["?1", "?0"],
            Self::Transport | Self::Server => &[],
        }
    }

    /// Whether `value` (one element, parameters allowed) is one of the known.
    pub(super) fn is_known(self, value: &[u8]) -> bool {
        let bare = bare(value);
        match self {
            Self::Transport => value.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"max-age=")),
            Self::Server => true,
            _ => self.known().iter().any(|known| bare.eq_ignore_ascii_case(known.as_bytes())),
        }
    }

    fn choose<'a>(self, mut values: impl DoubleEndedIterator<Item = &'a [u8]> + Clone) -> Option<&'a [u8]> {
        match self {
            Self::Frame => {
                let deny = values.clone().find(|value| value.eq_ignore_ascii_case(b"DENY"));
                deny.or_else(|| values.find(|value| self.is_known(value)))
            }
            Self::Transport | Self::Server => values.find(|value| self.is_known(value)),
            _ => values.rfind(|value| self.is_known(value)),
        }
    }
}

/// What remains of several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collapsed<'a> {
    /// The one value.
    pub(super) value: &'a [u8],
    /// Whether the values contradicted each other, and were not merely repeated.
    pub(super) conflict: bool,
}

/// One value out of all lines, each perhaps a comma-separated list. `None` if there is no value at all.
pub(super) fn collapse<'a>(kind: Kind, lines: &[&'a [u8]]) -> Option<Collapsed<'a>> {
    // The comments of a Server field may hold commas; it is not a list.
    let values: Vec<&[u8]> = match kind {
        Kind::Server => lines.to_vec(),
        _ => lines.iter().flat_map(|line| elements(line)).filter(|value| !value.is_empty()).collect(),
    };
    let first = values.first()?;
    let conflict = values.iter().any(|value| !value.eq_ignore_ascii_case(first));
    let value = kind.choose(values.iter().copied()).unwrap_or(first);
    // A Referrer-Policy list is a fallback chain that older browsers read differently: no contradiction.
    let conflict = conflict && !(kind == Kind::Referrer && lines.len() == 1);
    Some(Collapsed { value, conflict })
}

/// Whether `value` is a list of several, as far as this kind of header knows lists.
pub(super) fn is_list(kind: Kind, value: &[u8]) -> bool {
    kind != Kind::Server && memchr::memchr(b',', value).is_some()
}

/// The elements of a comma-separated list, trimmed; commas in quotes do not count.
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        let here = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !here => escaped = true,
            b'"' if !here => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    })
    .map(<[u8]>::trim_ascii)
}

/// The part before the first parameter.
fn bare(value: &[u8]) -> &[u8] {
    value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn elements_honour_quotes() {
        let list: Vec<&[u8]> = elements(br#"a, "b,\"c" , d"#).collect();
        assert_eq!(list, [b"a".as_slice(), br#""b,\"c""#, b"d"]);
    }

    proptest! {
        #[test]
        fn what_remains_was_sent_and_is_stable(
            lines in proptest::collection::vec("(DENY|SAMEORIGIN|max-age=1|nosniff|same-origin|x|,| |\"){0,4}", 1..4),
        ) {
            let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
            for (_, kind) in SINGLETONS {
                let Some(collapsed) = collapse(kind, &lines) else { continue };
                let sent = lines.iter().flat_map(|l| elements(l)).any(|e| e == collapsed.value);
                prop_assert!(sent || lines.contains(&collapsed.value));
                let again = collapse(kind, &[collapsed.value]).unwrap();
                prop_assert_eq!(again, Collapsed { value: collapsed.value, conflict: false });
            }
        }

        #[test]
        fn repetition_is_no_conflict(value in "[!-+.-~]{1,12}", times in 1_usize..5) {
            prop_assume!(!value.contains('"'));
            let lines = vec![value.as_bytes(); times];
            for (_, kind) in SINGLETONS {
                prop_assert!(!collapse(kind, &lines).unwrap().conflict);
            }
        }
    }
}
