//! The few bytes that Ravelin itself sends before any HTTP parser is in charge.

use std::time::SystemTime;

use super::first_bytes::Protocol;
use crate::observe::id::RequestId;

/// A fatal `handshake_failure` alert (RFC 8446 section 6.2: "unable to negotiate an acceptable set of
/// security parameters": there are none on a plain port). Browsers then name TLS as the trouble, which
/// they do not after a bare close. The record version is 3.1, as every first record's.
const TLS_ALERT: &[u8] = &[0x15, 3, 1, 0, 2, 2, 40];

/// An empty SETTINGS frame, then GOAWAY (RFC 9113 section 6.8) with `HTTP_1_1_REQUIRED`.
const GOAWAY_HTTP_1_1: &[u8] =
    &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d];

/// The same with `INADEQUATE_SECURITY`: plain HTTP/2 on a TLS port.
const GOAWAY_INSECURE: &[u8] =
    &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0c];

/// The answer to a protocol that is not served on this listener, where the protocol has a proper one
/// that needs no more than the first bytes. Empty: closed without a word.
pub(super) fn to_foreign(protocol: Protocol, tls: bool) -> &'static [u8] {
    match (protocol, tls) {
        (Protocol::Tls, false) => TLS_ALERT,
        (Protocol::H2c, false) => GOAWAY_HTTP_1_1,
        (Protocol::H2c, true) => GOAWAY_INSECURE,
        _ => &[],
    }
}

/// The 400 for plain HTTP on a TLS port. `head` is what has arrived of the request; the page names the
/// https URL if the head has a Host that is one. `id` is the reference under which the diagnostics tell of it.
pub(super) fn https_needed(head: &[u8], id: &RequestId, now: SystemTime) -> Vec<u8> {
    let advice = match host(head) {
        Some(host) => format!("<p>Please use <a href=\"https://{host}/\">https://{host}/</a> instead.</p>"),
        None => "<p>Please use an address that begins with <code>https://</code> instead.</p>".to_owned(),
    };
    let text = format!("<p>This port speaks HTTPS, and the request came without encryption.</p>\n{advice}");
    let without_body = head.starts_with(b"HEAD ");
    page("400 Bad Request", "This site needs https", &text, id, without_body, now)
}

/// A small page with the hardening that fits any: it loads nothing, is framed by nobody, is not stored.
fn page(
    status: &str,
    title: &str,
    text: &str,
    id: &RequestId,
    without_body: bool,
    now: SystemTime,
) -> Vec<u8> {
    let id = id.as_str();
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{text}\n\
         <p>If you ask for help, please give this reference: <code>{id}</code></p>\n</main>\n</body>\n</html>\n"
    );
    let mut out = format!(
        "HTTP/1.1 {status}\r\n\
         Date: {}\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\
         Cache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
         X-Content-Type-Options: nosniff\r\n\
         X-Frame-Options: DENY\r\n\
         Referrer-Policy: no-referrer\r\n\
         X-Request-Id: {id}\r\n\r\n",
        httpdate::fmt_http_date(now),
        body.len(),
    );
    if !without_body {
        out.push_str(&body);
    }
    out.into_bytes()
}

/// The value of the one Host line, if it is nothing but a host and perhaps a port. It is the client's
/// own view of this port, so it is right behind any port mapping.
fn host(head: &[u8]) -> Option<&str> {
    let mut found = None;
    for line in head.split(|b| *b == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = line.split_at_checked(colon)?;
        if name.eq_ignore_ascii_case(b"host") {
            if found.is_some() {
                return None;
            }
            found = value.get(1..).map(<[u8]>::trim_ascii);
        }
    }
    let host = std::str::from_utf8(found?).ok()?;
    is_host(host).then_some(host)
}

/// A name of letters, digits, dots and hyphens, or a bracketed IPv6 address; then perhaps a port.
/// Nothing in it needs escaping in HTML.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits =
        port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p != 0));
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        }
    };
    port_fits && host_fits
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn text(head: &[u8]) -> String {
        String::from_utf8(https_needed(head, &RequestId::new(UNIX_EPOCH, 7), UNIX_EPOCH)).unwrap()
    }

    #[test]
    fn the_page_names_the_url_that_the_client_should_use() {
        for host in ["www.example.org", "example.org:8443", "[2001:db8::1]:8443", "192.0.2.1"] {
            let page = text(format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
            assert!(page.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{page}");
            assert!(page.contains(&format!("<a href=\"https://{host}/\">")), "{page}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_not_repeated() {
        for host in ["\"><script>", "a/b", "a b", "", "a:b", "a:0", "a@b", "[::1", "a:99999", "a\u{e4}"] {
            let page = text(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert!(!page.contains("href"), "{host}: {page}");
            assert!(page.contains("begins with"), "{page}");
        }
        assert!(
            !text(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").contains("href"),
            "two hosts are none"
        );
        assert!(!text(b"GET / HTTP/1.1\r\n\r\nHost: a\r\n").contains("href"), "the body has no say");
    }

    #[test]
    fn every_page_is_hardened_and_says_its_length() {
        {
            let page = text(b"");
            let (head, body) = page.split_once("\r\n\r\n").unwrap();
            for field in ["X-Content-Type-Options: nosniff", "X-Frame-Options: DENY", "Connection: close"] {
                assert_eq!(head.matches(field).count(), 1, "{head}");
            }
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            let id = RequestId::new(UNIX_EPOCH, 7);
            assert!(head.contains(&format!("X-Request-Id: {}", id.as_str())), "{head}");
            assert!(body.contains(&format!("<code>{}</code>", id.as_str())), "{body}");
        }
        let head_only = text(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head_only.ends_with("\r\n\r\n") && !head_only.contains("<html"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_of_the_client_leaves_unless_it_is_a_host(head in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(host) = host(&head) {
                prop_assert!(host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)));
            }
        }
    }
}
