//! Which of a client's field names never reach an origin.

/// The longest name that is compared with the tables below.
const KNOWN_MAX: usize = 32;

/// Whether a field of this name (lower-case) is never copied: hop-by-hop, written by ourselves, a way to
/// make an origin see another request than the one that was checked, or a name that an origin would
/// take for one of these. Names with `_` go on only if `keep_underscores`.
pub(super) fn is_protected(name: &str, keep_underscores: bool) -> bool {
    let Some(folded) = Folded::of(name) else { return is_known(name) };
    (name.contains('_') && !keep_underscores) || folded.text().is_none_or(is_known)
}

fn is_known(name: &str) -> bool {
    is_hop_by_hop(name) || is_ours(name) || overrides(name)
}

/// RFC 9110 section 7.6.1, and what older proxies called so.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Written by ourselves; and who the client is, is ours to say. `Expect` was answered already.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "expect"
            | "x-request-id"
            | "traceparent"
            | "forwarded"
            | "x-real-ip"
            | "x-forwarded"
    ) || name.starts_with("x-forwarded-")
}

/// httpoxy, and overrides of a URL or method that were not checked.
fn overrides(name: &str) -> bool {
    matches!(
        name,
        "proxy"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
    )
}

/// A name with every character that is neither letter, digit nor `-` turned into `-`, as CGI, PHP and
/// their kin do: `X_Forwarded_For` and `X.Forwarded.For` are `X-Forwarded-For` to them.
struct Folded {
    bytes: [u8; KNOWN_MAX],
    length: usize,
}

impl Folded {
    /// `None` if there is nothing to fold. A name longer than the tables' is cut: only its start matters.
    fn of(name: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.bytes().all(plain) {
            return None;
        }
        let mut bytes = [b'-'; KNOWN_MAX];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            if plain(from) {
                *to = from.to_ascii_lowercase();
            }
        }
        Some(Self { bytes, length: name.len().min(KNOWN_MAX) })
    }

    fn text(&self) -> Option<&str> {
        self.bytes.get(..self.length).and_then(|b| std::str::from_utf8(b).ok())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_is_not_taken_for_a_short_one() {
        // Cut at the length of the table, this is not one of its names.
        assert!(!is_protected("x-http-method-overrides", true));
        assert!(!is_protected("x_my_very_long_application_header_name", true));
        assert!(is_protected("x_forwarded_anything_longer_than_the_table", true));
    }

    proptest! {
        #[test]
        fn whatever_is_written_for_a_dash_a_protected_name_stays_protected(
            which in 0_usize..6,
            dashes in prop::collection::vec("[-_.!~]", 8),
        ) {
            let names = ["x-forwarded-for", "x-real-ip", "x-original-url", "transfer-encoding", "content-length", "x-http-method-override"];
            let mut dash = dashes.iter();
            let spelled: String = names[which]
                .chars()
                .map(|c| if c == '-' { dash.next().unwrap().clone() } else { c.to_string() })
                .collect();
            prop_assert!(is_protected(&spelled, true) && is_protected(&spelled, false));
        }

        #[test]
        fn ordinary_names_pass(name in "[a-wyz][a-z]{0,6}(-[a-z]{1,6})?") {
            prop_assume!(!is_known(&name));
            prop_assert!(!is_protected(&name, false));
        }
    }
}
