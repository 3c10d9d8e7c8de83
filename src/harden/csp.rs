//! A small lint for Content-Security-Policy texts: what is surely a slip, and what browsers dropped.

use crate::config::complaint::{Complaints, Place, did_you_mean};

/// The directives that browsers know (CSP Level 3, and the documents that extend it).
const DIRECTIVES: [&str; 25] = [
    "base-uri",
    "child-src",
    "connect-src",
    "default-src",
    "fenced-frame-src",
    "font-src",
    "form-action",
    "frame-ancestors",
    "frame-src",
    "img-src",
    "manifest-src",
    "media-src",
    "object-src",
    "report-to",
    "report-uri",
    "require-trusted-types-for",
    "sandbox",
    "script-src",
    "script-src-attr",
    "script-src-elem",
    "style-src",
    "style-src-attr",
    "style-src-elem",
    "upgrade-insecure-requests",
    "worker-src",
];

/// Directives that browsers no longer honour, and what to write instead.
const DROPPED: [(&str, &str); 8] = [
    ("block-all-mixed-content", "write `upgrade-insecure-requests`"),
    ("plugin-types", "write `object-src 'none'`"),
    ("referrer", "write the Referrer-Policy header"),
    ("reflected-xss", "remove it"),
    ("require-sri-for", "remove it"),
    ("navigate-to", "remove it"),
    ("prefetch-src", "remove it"),
    ("disown-opener", "write the Cross-Origin-Opener-Policy header"),
];

/// Directives whose values are not sources, so that bare words are right there.
const WORDS: [&str; 6] =
    ["report-to", "report-uri", "require-trusted-types-for", "sandbox", "trusted-types", "webrtc"];

const KEYWORDS: [&str; 8] = [
    "self",
    "none",
    "unsafe-inline",
    "unsafe-eval",
    "unsafe-hashes",
    "strict-dynamic",
    "report-sample",
    "wasm-unsafe-eval",
];

/// Complains about what is surely not meant.
pub(super) fn lint(text: &str, place: &Place, complaints: &mut Complaints) {
    for directive in text.split(';') {
        let mut words = directive.split_ascii_whitespace();
        let Some(name) = words.next().map(str::to_ascii_lowercase) else { continue };
        directive_name(&name, place, complaints);
        for word in words {
            source(&name, word, place, complaints);
        }
    }
    if text.contains(',') {
        let hint = "separate directives by `;` and sources by blanks".to_owned();
        complaints.warning(Some(place), "a comma ends the policy and begins another one", Some(hint));
    }
}

fn directive_name(name: &str, place: &Place, complaints: &mut Complaints) {
    if let Some((_, instead)) = DROPPED.iter().find(|(dropped, _)| *dropped == name) {
        let message = format!("browsers no longer know the directive `{name}`");
        complaints.warning(Some(place), message, Some((*instead).to_owned()));
    } else if !DIRECTIVES.contains(&name) && !WORDS.contains(&name) {
        let hint = did_you_mean(name, DIRECTIVES);
        complaints.warning(Some(place), format!("`{name}` is not a directive"), hint);
    }
}

fn source(directive: &str, word: &str, place: &Place, complaints: &mut Complaints) {
    if DIRECTIVES.contains(&word) && !WORDS.contains(&directive) {
        let hint = Some(format!("write `; {word}`"));
        complaints.warning(Some(place), format!("a `;` is missing before `{word}`"), hint);
        return;
    }
    let lower = word.to_ascii_lowercase();
    let special = ["nonce-", "sha256-", "sha384-", "sha512-"].iter().any(|start| lower.starts_with(start));
    if !WORDS.contains(&directive) && (special || KEYWORDS.contains(&lower.as_str())) {
        let hint = Some(format!("write `'{word}'`"));
        complaints.warning(Some(place), format!("`{word}` without single quotes is a host name"), hint);
    }
}
