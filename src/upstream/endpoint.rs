//! Where an origin is: `http://host:port`, `https://host:port`, `h2c://host:port` or `unix:/path`, and nothing else.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::section::{Fault, FromText};

/// One origin address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP, with or without TLS.
    Net {
        /// A name, looked up at most every five seconds, or an address.
        host: Box<str>,
        /// 1 to 65535.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
        /// Whether HTTP/2 is spoken without TLS and without asking (RFC 9113 section 3.3).
        h2c: bool,
    },
    /// A unix socket that speaks HTTP.
    Unix(PathBuf),
}

const ALLOWED: &str = "an upstream is `http://host:port`, `https://host:port`, `h2c://host:port` (HTTP/2 without TLS) or \
                       `unix:/path/to/socket`";

impl Endpoint {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn tls(&self) -> bool {
        matches!(self, Self::Net { tls: true, .. })
    }

    /// What looks wrong and may still be meant.
    #[must_use]
    pub fn doubt(&self) -> Option<Fault> {
        let (host, port, now, then) = match self {
            Self::Net { host, port: port @ (443 | 8443), tls: false, h2c } => {
                (host, port, scheme(false, *h2c), "https")
            }
            Self::Net { host, port: port @ 80, tls: true, .. } => (host, port, "https", "http"),
            _ => return None,
        };
        let message = format!("port {port} usually speaks {then}, but this upstream is written `{now}://`");
        Some(Fault::new(message, format!("did you mean `{then}://{host}:{port}`?")))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Net { host, port, tls, h2c } => {
                let scheme = scheme(*tls, *h2c);
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

impl FromText for Endpoint {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path.strip_prefix("//").unwrap_or(path), text);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(no_scheme(text));
        };
        let (tls, h2c) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, false),
            "https" => (true, false),
            "h2c" => (false, true),
            _ => {
                let message =
                    format!("`{scheme}://` is not forwarded to: Ravelin speaks HTTP and nothing else");
                return Err(Fault::new(message, ALLOWED));
            }
        };
        net(text, rest, tls, h2c)
    }
}

fn scheme(tls: bool, h2c: bool) -> &'static str {
    match (tls, h2c) {
        (true, _) => "https",
        (_, true) => "h2c",
        _ => "http",
    }
}

fn unix(path: &str, text: &str) -> Result<Endpoint, Fault> {
    if !Path::new(path).is_absolute() {
        let message = format!("`{text}` does not name an absolute path");
        return Err(Fault::new(message, "write e.g. `unix:/run/php/site.sock`"));
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

fn no_scheme(text: &str) -> Fault {
    let guess = if text.starts_with('/') { format!("unix:{text}") } else { format!("http://{text}") };
    let hint = match Endpoint::from_text(&guess) {
        Ok(_) if !text.is_empty() => format!("did you mean `{guess}`?"),
        _ => ALLOWED.to_owned(),
    };
    Fault::new(format!("`{text}` has no scheme"), hint)
}

fn net(text: &str, rest: &str, tls: bool, h2c: bool) -> Result<Endpoint, Fault> {
    let scheme = scheme(tls, h2c);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if !matches!(tail, "" | "/") {
        let message =
            format!("`{text}`: an upstream has no path or query; the path of the request is sent on");
        return Err(Fault::new(message, format!("did you mean `{scheme}://{authority}`?")));
    }
    if let Some((_, host)) = authority.rsplit_once('@') {
        let message = "an upstream has no user name or password".to_owned();
        return Err(Fault::new(message, format!("did you mean `{scheme}://{host}`?")));
    }
    let (host, port) = split_port(authority)
        .ok_or_else(|| Fault::new(format!("`{text}` has no valid port"), "a port is 1 to 65535"))?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    let host = host_name(host).map_err(|hint| Fault::new(format!("`{text}` has no valid host"), hint))?;
    Ok(Endpoint::Net { host: host.into(), port, tls, h2c })
}

/// Host (brackets kept) and port of an authority; `None` if the port is not one.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Some((authority, None)),
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|p| digits && *p > 0)?;
    Some((host, Some(port)))
}

/// The host without brackets, or what to do about it.
fn host_name(host: &str) -> Result<&str, String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').filter(|a| a.parse::<std::net::Ipv6Addr>().is_ok());
        return address.ok_or_else(|| "write an IPv6 address in brackets, e.g. `[::1]`".to_owned());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(ALLOWED.to_owned());
    }
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric && host.parse::<IpAddr>().is_err() {
        return Err(match host.parse::<u16>() {
            Ok(port) => format!("did you mean `http://127.0.0.1:{port}`?"),
            Err(_) => "an IPv4 address has four numbers from 0 to 255".to_owned(),
        });
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hint(text: &str) -> String {
        Endpoint::from_text(text).unwrap_err().hint.unwrap()
    }

    #[test]
    fn the_three_forms() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("HTTP://apache", "http://apache:80"),
            ("h2c://apache:8080", "h2c://apache:8080"),
            ("https://origin.internal", "https://origin.internal:443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://web_1:80", "http://web_1:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(Endpoint::from_text(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_hint() {
        for text in ["ftp://h", "mysql://h:3306", "ssh://h", "ws://h", "tcp://h:1", "file:///etc/passwd"] {
            assert_eq!(hint(text), ALLOWED, "{text}");
            assert!(Endpoint::from_text(text).unwrap_err().message.contains("HTTP and nothing else"));
        }
        assert_eq!(hint("127.0.0.1:80"), "did you mean `http://127.0.0.1:80`?");
        assert_eq!(hint("/run/x.sock"), "did you mean `unix:/run/x.sock`?");
        assert_eq!(hint("http://h:80/typo3?x"), "did you mean `http://h:80`?");
        assert_eq!(hint("http://h?x"), "did you mean `http://h`?");
        assert_eq!(hint("http://user:pw@h:80"), "did you mean `http://h:80`?");
        assert_eq!(hint("http://8080"), "did you mean `http://127.0.0.1:8080`?");
        assert_eq!(hint("http://h:0"), "a port is 1 to 65535");
        assert_eq!(hint("http://h:+80"), "a port is 1 to 65535");
        assert_eq!(hint("http://h:99999"), "a port is 1 to 65535");
        assert_eq!(hint("unix:run/x.sock"), "write e.g. `unix:/run/php/site.sock`");
        for text in ["", "http://", "http://a b", "http://[::1", "http://::1", "http://1.2.3"] {
            assert!(Endpoint::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_wrong_port_for_the_scheme_is_doubted() {
        let doubt = |text: &str| Endpoint::from_text(text).unwrap().doubt();
        assert_eq!(
            doubt("http://localhost:443").unwrap().hint.unwrap(),
            "did you mean `https://localhost:443`?"
        );
        assert!(doubt("https://localhost:80").is_some());
        assert!(doubt("http://localhost:8080").is_none());
    }

    proptest! {
        #[test]
        fn never_panics_and_what_is_shown_reads_back(text in "(https?|unix|ftp|h2c)?:?(//)?[a-z0-9.:/@\\[\\]_-]{0,20}") {
            if let Ok(endpoint) = Endpoint::from_text(&text) {
                prop_assert_eq!(Endpoint::from_text(&endpoint.to_string()).unwrap(), endpoint);
            }
        }
    }
}
