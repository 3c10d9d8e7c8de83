//! The few bytes that Ravelin itself sends before any HTTP parser is in charge.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::first_bytes::Protocol;

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
/// https URL if the head has a Host that is one.
pub(super) fn https_needed(head: &[u8], now: SystemTime) -> Vec<u8> {
    let advice = match host(head) {
        Some(host) => format!("<p>Please use <a href=\"https://{host}/\">https://{host}/</a> instead.</p>"),
        None => "<p>Please use an address that begins with <code>https://</code> instead.</p>".to_owned(),
    };
    let text = format!("<p>This port speaks HTTPS, and the request came without encryption.</p>\n{advice}");
    let without_body = head.starts_with(b"HEAD ");
    page("400 Bad Request", "This site needs https", &text, without_body, now)
}

/// The 408 for a request head that did not end in time (RFC 9110 section 15.5.9).
pub(super) fn too_slow(now: SystemTime) -> Vec<u8> {
    let text = "<p>The request took too long to arrive. Please try again.</p>";
    page("408 Request Timeout", "Request timeout", text, false, now)
}

/// A small page with the hardening that fits any: it loads nothing, is framed by nobody, is not stored.
fn page(status: &str, title: &str, text: &str, without_body: bool, now: SystemTime) -> Vec<u8> {
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{text}\n</main>\n</body>\n</html>\n"
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
         Referrer-Policy: no-referrer\r\n\r\n",
        imf_date(now),
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

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn imf_date(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let word = |list: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|i| list.get(i)).copied().unwrap_or_default()
    };
    let mut out = String::with_capacity(29);
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        word(&DAYS, days % 7),
        word(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60,
    );
    out
}

/// Year, month and day of the day that is `days` after 1970-01-01: the Gregorian calendar, counted in
/// 400-year cycles from 0000-03-01, so that the leap day is a cycle's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn text(head: &[u8]) -> String {
        String::from_utf8(https_needed(head, UNIX_EPOCH)).unwrap()
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
        for page in [https_needed(b"", UNIX_EPOCH), too_slow(UNIX_EPOCH)] {
            let page = String::from_utf8(page).unwrap();
            let (head, body) = page.split_once("\r\n\r\n").unwrap();
            for field in ["X-Content-Type-Options: nosniff", "X-Frame-Options: DENY", "Connection: close"] {
                assert_eq!(head.matches(field).count(), 1, "{head}");
            }
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        }
        let head_only = text(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head_only.ends_with("\r\n\r\n") && !head_only.contains("<html"));
    }

    #[test]
    fn dates_are_those_of_the_rfc() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(imf_date(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
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
