//! URLs that leak how the origin is reached, and their public form.
//!
//! Apache redirects `/typo3` to `http://<host>:<its own port>/typo3/`, however right the Host it was
//! sent. Rewritten are the scheme and authority of URLs that point to the requested host over plain
//! HTTP or at the origin's port, or to the origin itself. Every other URL is left as it is: other hosts,
//! other ports of this host, relative references, URLs with a user name. The rest of the URL keeps
//! every byte, and https is never turned into http for the requested host.

/// How the client reached us: what a URL to this site must look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Public<'a> {
    /// Over TLS.
    pub(super) secure: bool,
    /// The requested host without port; IPv6 in brackets.
    pub(super) host: &'a str,
    /// The port, where it is not the scheme's own.
    pub(super) port: Option<u16>,
}

/// An address that the origin is known by: never to be seen by clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginAuthority {
    /// The host in lower case; IPv6 in brackets.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
}

/// An absolute `http` or `https` URL, taken apart as far as needed.
struct Absolute<'a> {
    secure: bool,
    host: &'a [u8],
    port: u16,
    rest: &'a [u8],
}

/// The public form of `url`, or `None` if it leaks nothing.
pub(super) fn publish(url: &[u8], public: &Public<'_>, origins: &[OriginAuthority]) -> Option<Vec<u8>> {
    let found = absolute(url)?;
    leaks(&found, public, origins).then(|| write(public, found.rest))
}

/// The same for a `Refresh` value: `5; url=http://…`, the URL perhaps in quotes (HTML standard, shared
/// declarative refresh steps).
pub(super) fn publish_refresh(
    value: &[u8],
    public: &Public<'_>,
    origins: &[OriginAuthority],
) -> Option<Vec<u8>> {
    let at = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="))? + 4;
    let (before, after) = value.split_at_checked(at)?;
    let quote = after.iter().position(|b| !matches!(b, b' ' | b'\'' | b'"'))?;
    let (lead, url) = after.split_at_checked(quote)?;
    Some([before, lead, &publish(url, public, origins)?].concat())
}

fn leaks(url: &Absolute<'_>, public: &Public<'_>, origins: &[OriginAuthority]) -> bool {
    let own_port = public.port.unwrap_or(if public.secure { 443 } else { 80 });
    let ours = url.host.eq_ignore_ascii_case(public.host.as_bytes());
    if ours && url.port == own_port && url.secure == public.secure {
        return false;
    }
    if ours && url.secure && !public.secure {
        return false;
    }
    let plain = public.secure && !url.secure && (url.port == 80 || url.port == own_port);
    let origin_port = origins.iter().any(|origin| origin.port == url.port);
    if ours {
        return plain || (origin_port && url.port != own_port);
    }
    origins
        .iter()
        .any(|origin| origin.port == url.port && url.host.eq_ignore_ascii_case(origin.host.as_bytes()))
}

fn absolute(url: &[u8]) -> Option<Absolute<'_>> {
    let (secure, after) = scheme(url, b"https://")
        .map(|rest| (true, rest))
        .or_else(|| scheme(url, b"http://").map(|rest| (false, rest)))?;
    let end = after.iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    // Browsers read a backslash as a slash; what they see is not what a parser by the book sees.
    if rest.first() == Some(&b'\\') || authority.contains(&b'@') {
        return None;
    }
    let colon = authority.iter().rposition(|b| *b == b':').filter(|_| authority.last() != Some(&b']'));
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) => {
            (authority.get(..at)?, Some(authority.get(at + 1..)?).filter(|digits| !digits.is_empty()))
        }
    };
    let port = match port {
        None => default_port(secure),
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok()?
        }
        Some(_) => return None,
    };
    Some(Absolute { secure, host, port, rest })
}

fn scheme<'a>(url: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = url.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

fn write(public: &Public<'_>, rest: &[u8]) -> Vec<u8> {
    let scheme: &[u8] = if public.secure { b"https://" } else { b"http://" };
    let mut out = Vec::with_capacity(scheme.len() + public.host.len() + rest.len() + 6);
    out.extend_from_slice(scheme);
    out.extend_from_slice(public.host.as_bytes());
    if let Some(port) = public.port.filter(|port| *port != default_port(public.secure)) {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origins() -> Vec<OriginAuthority> {
        vec![OriginAuthority { host: "10.0.0.1".into(), port: 8081 }]
    }

    #[test]
    fn refresh_keeps_its_delay_and_quotes() {
        let public = Public { secure: true, host: "a.example", port: None };
        let done = publish_refresh(b"5; URL='http://a.example/x'", &public, &origins()).unwrap();
        assert_eq!(done, b"5; URL='https://a.example/x'");
        assert_eq!(publish_refresh(b"5", &public, &origins()), None);
        assert_eq!(publish_refresh(b"5; url=https://b.example/", &public, &origins()), None);
    }

    proptest! {
        #[test]
        fn what_is_published_leaks_no_more(
            tls in any::<bool>(), theirs in any::<bool>(), port in prop_oneof![Just(None), Just(Some(8443_u16))],
            host in "(a.example|A.EXAMPLE|10.0.0.1|b.example)", url_port in "(|:80|:443|:8081|:8443|:9)", rest in "(|/|/x\\?y#z|\\?q)",
        ) {
            let public = Public { secure: tls, host: "a.example", port };
            let url = format!("{}://{host}{url_port}{rest}", if theirs { "https" } else { "http" });
            if let Some(done) = publish(url.as_bytes(), &public, &origins()) {
                prop_assert!(!url.contains("b.example"), "a foreign URL was touched: {url}");
                prop_assert!(done.ends_with(rest.as_bytes()));
                prop_assert_eq!(publish(&done, &public, &origins()), None);
            }
        }

        #[test]
        fn never_panics(url in "(http|https|HTTP)?:?//?[ -~]{0,30}") {
            let public = Public { secure: true, host: "a.example", port: None };
            let _ = publish(url.as_bytes(), &public, &origins());
            let _ = publish_refresh(url.as_bytes(), &public, &origins());
        }
    }
}
