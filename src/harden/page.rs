//! The page that a refused client reads: small, accessible, in the form it accepts.
//!
//! It says what happened in plain words and carries the reference id under which the log tells the rest.
//! It loads nothing, and its own Content-Security-Policy allows its one style sheet by hash.

use std::fmt::{Display, Write as _};

use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};

use crate::body::Body;
use crate::head::Head;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:12vh auto;padding:0 1rem}\
    h1{font-size:1.4rem}code{overflow-wrap:anywhere}@media(prefers-color-scheme:dark){\
    body{background:#181818;color:#eee}}";

/// Allows the style sheet above and nothing else. A test recomputes the hash.
const POLICY: &str = "default-src 'none'; style-src 'sha256-zfHoqlSfYA73wK8oueWM/qHZtri9vZ7y08hXNpqYLP8='; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'self'";

/// When to come back if it was too much (RFC 9110 section 10.2.3): soon, for it passes quickly.
const RETRY_SOON: HeaderValue = HeaderValue::from_static("2");

/// The forms in which the page exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Plain,
    Json,
}

/// The reply to a refused request. `reference` is the id that the log line carries too.
pub fn refusal(refusal: &Refusal, reference: impl Display, head: &Head<'_>) -> Reply {
    let row = refusal.reason.row();
    let accept =
        head.all(&ACCEPT).filter_map(|value| str::from_utf8(value).ok()).collect::<Vec<_>>().join(",");
    let mut reply = page(refusal.status(), row.public, reference, &accept);
    if refusal.reason == Reason::Overloaded {
        reply.fields.push(RETRY_AFTER, RETRY_SOON);
    }
    if let Some(time) = refusal.retry_after {
        // Rounded up: who comes back exactly then is let in.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        reply.fields.push(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(allow) = &refusal.allow {
        reply.fields.push(ALLOW, allow.clone());
    }
    reply.close = row.close;
    reply
}

/// The reply to a request whose answer met a defect while it was hardened: what is set here does not depend on any rule.
pub fn bare(refusal: &Refusal, reference: impl Display, head: &Head<'_>) -> Reply {
    let mut reply = self::refusal(refusal, reference, head);
    reply.fields.push(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply.fields.push(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    reply.fields.push(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply.close = true;
    reply
}

/// A page for answers that have no request head, such as a message that is not HTTP at all. `accept` is
/// the client's Accept field, empty if it is not known.
pub fn page(status: StatusCode, public: &str, reference: impl Display, accept: &str) -> Reply {
    let reference = reference.to_string();
    let (content_type, text) = match negotiate(accept) {
        Form::Html => ("text/html; charset=utf-8", html(status, public, &reference)),
        Form::Plain => ("text/plain; charset=utf-8", plain(status, public, &reference)),
        Form::Json => ("application/json", json(status, public, &reference)),
    };
    let mut reply = Reply::new(status, Body::full(text));
    reply.fields.push(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.fields.push(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.fields.push(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply
}

fn title(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn html(status: StatusCode, public: &str, reference: &str) -> String {
    let title = title(status);
    let (public, reference) = (escape_html(public), escape_html(reference));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n<p>{public}</p>\n\
         <p>If you ask for help, please give this reference: <code>{reference}</code></p>\n\
         </main>\n</body>\n</html>\n"
    )
}

fn plain(status: StatusCode, public: &str, reference: &str) -> String {
    format!("{}\n\n{public}\n\nReference: {reference}\n", title(status))
}

fn json(status: StatusCode, public: &str, reference: &str) -> String {
    let (public, reference) = (escape_json(public), escape_json(reference));
    format!("{{\"status\":{},\"error\":\"{public}\",\"reference\":\"{reference}\"}}\n", status.as_u16())
}

/// The form that the client likes best (RFC 9110 section 12.5.1). HTML if it does not say, or likes
/// several alike: people read these pages.
fn negotiate(accept: &str) -> Form {
    const OFFERS: [(Form, &str, &str); 3] =
        [(Form::Html, "text", "html"), (Form::Json, "application", "json"), (Form::Plain, "text", "plain")];
    let mut best = (Form::Html, 0);
    for (form, kind, sub) in OFFERS {
        let liking = liking(accept, kind, sub);
        if liking > best.1 {
            best = (form, liking);
        }
    }
    best.0
}

/// How much the client likes a type, in thousandths. The most specific range counts.
fn liking(accept: &str, kind: &str, sub: &str) -> u32 {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let (range_kind, range_sub) =
            parts.next().and_then(|range| range.split_once('/')).unwrap_or_default();
        let specific = match (range_kind, range_sub) {
            ("*", "*") => 1,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 2,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(sub) => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        if specific > best.0 {
            best = (specific, quality.map_or(1000, thousandths));
        }
    }
    best.1
}

/// `1`, `0.5`, `0.123` in thousandths; what is no quality counts as 1.
fn thousandths(quality: &str) -> u32 {
    let (whole, rest) = quality.split_once('.').unwrap_or((quality, ""));
    let digits = format!("{rest:0<3}");
    match (whole, digits.get(..3).and_then(|three| three.parse::<u32>().ok())) {
        ("0", Some(thousandths)) => thousandths,
        _ => 1000,
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '<' | '>' | '&' | '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(accept: &str) -> http::request::Parts {
        http::Request::builder().header("accept", accept).body(()).unwrap().into_parts().0
    }

    fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let letter = LETTERS[(group >> (18 - 6 * i)) as usize & 63] as char;
                out.push(if i <= chunk.len() { letter } else { '=' });
            }
        }
        out
    }

    #[test]
    fn the_policy_allows_exactly_the_style() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let sha256 = provider
            .cipher_suites
            .iter()
            .find_map(|suite| {
                suite.tls13().filter(|_| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
            })
            .unwrap()
            .common
            .hash_provider;
        let hash = base64(sha256.hash(STYLE.as_bytes()).as_ref());
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "the style's hash is {hash}");
    }

    #[test]
    fn the_form_is_negotiated() {
        for (accept, form) in [
            ("", Form::Html),
            ("*/*", Form::Html),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("application/json, text/javascript, */*; q=0.01", Form::Json),
            ("text/plain", Form::Plain),
            ("text/html;q=0.2, text/plain;q=0.9", Form::Plain),
            ("text/html;q=0, */*", Form::Json),
            ("image/png", Form::Html),
            ("text/*", Form::Html),
        ] {
            assert_eq!(negotiate(accept), form, "{accept}");
        }
    }

    #[test]
    fn a_refusal_carries_what_it_must() {
        let no = Refusal::method(Reason::MethodNotAllowed, "secret", HeaderValue::from_static("GET, HEAD"));
        let parts = head("text/html");
        let reply = refusal(&no, "ref-1", &Head::new(&parts));
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(reply.fields.get(&ALLOW).unwrap(), "GET, HEAD");
        assert_eq!(reply.fields.get(&CACHE_CONTROL).unwrap(), "no-store");
        assert!(!reply.close);
        let text = html(StatusCode::METHOD_NOT_ALLOWED, no.reason.row().public, "ref-1");
        assert!(text.contains("<html lang=\"en\">") && text.contains("ref-1") && text.contains("viewport"));
        assert!(!text.contains("secret"));
    }

    #[test]
    fn who_comes_at_a_bad_moment_hears_when_to_come_again() {
        let parts = head("*/*");
        let busy = refusal(&Refusal::new(Reason::Overloaded, "x"), 1, &Head::new(&parts));
        assert_eq!(busy.fields.get(&RETRY_AFTER).unwrap(), "2");
        let other = refusal(&Refusal::new(Reason::BadPath, "x"), 1, &Head::new(&parts));
        assert!(!other.fields.contains(&RETRY_AFTER));
    }

    #[test]
    fn a_closing_refusal_ends_the_connection() {
        let parts = head("*/*");
        assert!(refusal(&Refusal::new(Reason::BadTarget, "x"), 1, &Head::new(&parts)).close);
        assert!(!refusal(&Refusal::new(Reason::BadHeader, "x"), 1, &Head::new(&parts)).close);
    }

    proptest! {
        #[test]
        fn nothing_breaks_out(text in ".{0,40}") {
            let page = html(StatusCode::FORBIDDEN, &text, &text);
            prop_assert_eq!(page.matches('<').count(), html(StatusCode::FORBIDDEN, "", "").matches('<').count());
            let data: serde_json::Value = serde_json::from_str(&json(StatusCode::FORBIDDEN, &text, &text)).unwrap();
            prop_assert_eq!(data["reference"].as_str().unwrap(), &text);
        }
    }
}
