//! Values that do not do what their author hopes, found at load.
//!
//! An error is a value that would protect nobody or break the site; a warning is one that browsers have
//! stopped reading or that has a better place.

use super::permissions::Features;
use super::rule::Word;
use super::{csp, singleton};
use crate::config::complaint::{Complaints, Place, did_you_mean};

/// Fields that frame the message. Ravelin writes them itself; a rule about them is an error, and a
/// wildcard passes them by.
pub(super) const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
];

/// Fields without which a body cannot be read: a wildcard passes them by too.
pub(super) const MEANING: [&str; 5] =
    ["content-encoding", "content-range", "content-type", "location", "set-cookie"];

/// Complains about rules for a name that no rule may or should be for. False: the rule is not to be read.
pub(super) fn name(lower: &str, place: &Place, complaints: &mut Complaints) -> bool {
    if FRAMING.contains(&lower) {
        let message = format!("`{lower}` frames the message and is written by Ravelin itself");
        complaints.error(Some(place), message, Some("remove the line".to_owned()));
        return false;
    }
    if lower == "strict-transport-security" {
        let hint = "write `[hsts]` with `enabled = true` and `max_age = \"365 d\"`; `override = true` replaces \
                    the origin's, and with `max_age = \"0 s\"` makes browsers forget it";
        let message = "Strict-Transport-Security has its own block, which keeps it off plain HTTP";
        complaints.error(Some(place), message, Some(hint.to_owned()));
        return false;
    }
    true
}

/// Complains about a value that no header may have: control characters, or characters beyond ASCII.
pub(super) fn not_a_value(lower: &str, text: &str, place: &Place, complaints: &mut Complaints) {
    let (what, hint) = if text.contains(['\r', '\n']) {
        ("a line break", "end each line of a long value with a backslash inside `\"\"\"…\"\"\"`")
    } else if text.is_ascii() {
        ("a control character", "remove it")
    } else {
        ("a character beyond ASCII", "header values are ASCII")
    };
    complaints.error(Some(place), format!("`{lower}` holds {what}"), Some(hint.to_owned()));
}

/// Complains about a value that is written for `lower` by operation `word`.
pub(super) fn value(lower: &str, word: Word, text: &str, place: &Place, complaints: &mut Complaints) {
    if text.trim().is_empty() {
        let hint = format!("write `{lower} = false` to remove the header");
        complaints.error(Some(place), format!("`{lower}` is empty"), Some(hint));
        return;
    }
    if lower == "set-cookie" && matches!(word, Word::Append | Word::Merge) {
        let hint = Some("write `add`".to_owned());
        complaints.error(Some(place), "cookies must not be joined into one Set-Cookie line", hint);
    }
    known_value(lower, word, text, place, complaints);
    outdated(lower, text, place, complaints);
    match lower {
        "set-cookie" if word == Word::Set => {
            let message = "this replaces every cookie that the origin sets, a login's too: nobody can log in";
            let hint = "write `Set-Cookie = { add = \"…\" }`, or `edit*` to change those of the origin";
            complaints.warning(Some(place), message, Some(hint.to_owned()));
        }
        "location" if matches!(word, Word::Set | Word::Add | Word::Append | Word::Merge) => {
            let message = "this changes where every redirect of the origin leads, that after a login too";
            let hint = "redirects of the origin are put right without it; `edit` changes a part of them";
            complaints.warning(Some(place), message, Some(hint.to_owned()));
        }
        "permissions-policy" => {
            if let Err(message) = Features::new(text) {
                complaints.error(Some(place), format!("Permissions-Policy {message}"), None);
            }
        }
        "content-security-policy" | "content-security-policy-report-only" => {
            csp::lint(text, place, complaints);
            if matches!(word, Word::Set | Word::Append | Word::Merge) && lower == "content-security-policy" {
                let hint = "write a plain string or `setifempty`: it is added only where the origin has none";
                let message =
                    format!("`{}` changes the origin's own policy and breaks its nonces", word.key());
                complaints.warning(Some(place), message, Some(hint.to_owned()));
            }
        }
        _ => {}
    }
}

/// Singletons with a closed set of values.
fn known_value(lower: &str, word: Word, text: &str, place: &Place, complaints: &mut Complaints) {
    let Some(kind) = singleton::kind(lower) else { return };
    if word == Word::Append {
        let hint = Some(format!("write `{lower} = \"{text}\"`; `append` joins as Apache does"));
        let message = format!(
            "`append`: an origin that sends `{lower}` too makes it `{text}, {text}`, which browsers ignore"
        );
        complaints.warning(Some(place), message, hint);
    }
    let fallbacks = kind == singleton::Kind::Referrer;
    let known = if fallbacks {
        text.split(',').all(|t| kind.is_known(t.trim().as_bytes()))
    } else {
        kind.is_known(text.as_bytes())
    };
    if known {
        return;
    }
    if let Some(uri) = allow_from(lower, text) {
        let hint = format!(
            "write `Content-Security-Policy = {{ setifempty = \"frame-ancestors 'self' {uri}\" }}`: browsers \
             obey it and then ignore X-Frame-Options"
        );
        complaints.error(
            Some(place),
            format!("`{text}`: no browser understands ALLOW-FROM any more"),
            Some(hint),
        );
        return;
    }
    let words = kind.known();
    let hint = did_you_mean(text, words.iter().copied())
        .unwrap_or_else(|| format!("write one of {}", words.join(", ")));
    complaints.error(Some(place), format!("`{text}` is no value of `{lower}`"), Some(hint));
}

fn allow_from<'a>(lower: &str, text: &'a str) -> Option<&'a str> {
    let (word, uri) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), "https://…"));
    (lower == "x-frame-options" && word.eq_ignore_ascii_case("ALLOW-FROM")).then_some(uri.trim())
}

/// Headers that browsers have stopped reading.
fn outdated(lower: &str, text: &str, place: &Place, complaints: &mut Complaints) {
    let mut warn = |message: &str, hint: String| complaints.warning(Some(place), message, Some(hint));
    match lower {
        "x-xss-protection" if text.trim() != "0" => warn(
            "X-XSS-Protection other than `0` opened holes of its own and is read by no current browser",
            "write `X-XSS-Protection = false`, and protect with a Content-Security-Policy".to_owned(),
        ),
        "expect-ct" => warn(
            "Expect-CT is obsolete: browsers require certificate transparency by themselves",
            "write `Expect-CT = false`".to_owned(),
        ),
        "public-key-pins" | "public-key-pins-report-only" => warn(
            "key pinning was removed from every browser",
            "remove the line; Certificate Authority Authorization (CAA) records in DNS do the job".to_owned(),
        ),
        "feature-policy" => warn(
            "Feature-Policy was renamed and is written differently now",
            format!("write `Permissions-Policy = '{}'`", permissions_form(text)),
        ),
        "report-to" => warn(
            "Report-To is replaced by Reporting-Endpoints",
            "write `Reporting-Endpoints = 'csp=\"https://…\"'`".to_owned(),
        ),
        "x-ua-compatible" | "x-content-security-policy" | "x-webkit-csp" | "x-download-options" => {
            warn("no current browser reads this header", format!("write `{lower} = false`"));
        }
        _ => {}
    }
}

/// `camera 'none'; geolocation 'self' https://a` in the new words: `camera=(), geolocation=(self "https://a")`.
fn permissions_form(text: &str) -> String {
    let feature = |directive: &str| {
        let mut words = directive.split_ascii_whitespace();
        let name = words.next()?;
        let allowed: Vec<String> = words
            .filter(|word| *word != "'none'")
            .map(|word| match word {
                "'self'" | "'src'" | "*" => word.trim_matches('\'').to_owned(),
                origin => format!("\"{origin}\""),
            })
            .collect();
        Some(format!("{name}=({})", allowed.join(" ")))
    };
    text.split(';').filter_map(feature).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_policy_in_new_words() {
        let new = permissions_form("camera 'none'; geolocation 'self' https://a.example; usb *");
        assert_eq!(new, r#"camera=(), geolocation=(self "https://a.example"), usb=(*)"#);
        assert!(Features::new(&new).is_ok());
    }
}
