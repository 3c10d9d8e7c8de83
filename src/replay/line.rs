//! One line of an access log: our JSON, or Apache's `common`, `combined` and `vhost_combined`.
//!
//! `%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i"`, before it perhaps `%v:%p`
//! (Apache's `mod_log_config`; nginx's `combined` is the same).

use std::borrow::Cow;
use std::net::IpAddr;

use http::StatusCode;
use jiff::Timestamp;
use jiff::fmt::strtime;
use serde::Deserialize;

/// A request as a log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it came.
    pub at: Timestamp,
    /// Who asked.
    pub client: IpAddr,
    /// For which host, if the log says so.
    pub host: Option<Cow<'a, str>>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The request target.
    pub target: Cow<'a, str>,
    /// What was answered; none if the client was gone before.
    pub status: Option<StatusCode>,
    /// The length of the request's body in bytes; 0 where the log does not tell.
    pub received: u64,
    /// The field `User-Agent`.
    pub user_agent: Option<Cow<'a, str>>,
    /// The field `Referer`.
    pub referer: Option<Cow<'a, str>>,
    /// Why Ravelin refused it at the time.
    pub refused: Option<Cow<'a, str>>,
}

/// What is not understood in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(&'static str);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads one line, with or without its end.
///
/// # Errors
/// What is missing or not understood; the line is then no part of the replay.
pub fn read(line: &str) -> Result<Entry<'_>, Fault> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.starts_with('{') { json(line) } else { apache(line) }
}

/// The members of our JSON that matter here; the others may change.
#[derive(Deserialize)]
struct Json<'a> {
    time: Timestamp,
    client: IpAddr,
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    status: Option<u16>,
    #[serde(default)]
    received: u64,
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    referer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

fn json(line: &str) -> Result<Entry<'_>, Fault> {
    let read: Json<'_> =
        serde_json::from_str(line).map_err(|_| Fault("this is JSON, but no line of Ravelin's log"))?;
    Ok(Entry {
        at: read.time,
        client: read.client,
        host: read.host.filter(|host| !host.is_empty()),
        method: read.method,
        target: read.target,
        status: read.status.and_then(|status| StatusCode::from_u16(status).ok()),
        received: read.received,
        user_agent: read.user_agent,
        referer: read.referer,
        refused: read.reason,
    })
}

/// A cursor over a line of Apache's.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Up to the next blank.
    fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// What stands between two quotes, without Apache's escapes.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let text = self.0.strip_prefix('"')?;
        let mut escaped = false;
        let end = text.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (inner, rest) = text.split_at_checked(end)?;
        let rest = rest.strip_prefix('"')?;
        self.0 = rest.strip_prefix(' ').unwrap_or(rest);
        Some(plain(inner))
    }
}

fn apache(line: &str) -> Result<Entry<'_>, Fault> {
    let mut rest = Rest(line);
    let mut first = rest.word().ok_or(Fault("an empty line"))?;
    let mut host = None;
    if first.parse::<IpAddr>().is_err()
        && let Some(next) = rest.0.split(' ').next().filter(|next| next.parse::<IpAddr>().is_ok())
    {
        host = Some(Cow::Borrowed(first.rsplit_once(':').map_or(first, |(name, _)| name)));
        first = next;
        let _ = rest.word();
    }
    let client = first.parse().map_err(|_| {
        Fault("neither JSON nor Apache's `combined`: it does not begin with the client's address")
    })?;
    let (_ident, _user) = (rest.word(), rest.word());
    let time = rest.0.strip_prefix('[').and_then(|text| text.split_once("] "));
    let (time, after) = time.ok_or(Fault("no time in brackets after the user's name"))?;
    rest.0 = after;
    let at = strtime::parse("%d/%b/%Y:%H:%M:%S %z", time).and_then(|time| time.to_timestamp());
    let at = at.map_err(|_| Fault("the time is not of the form 22/Nov/2026:13:39:48 +0000"))?;
    let request = rest.quoted().ok_or(Fault("no request line in quotes after the time"))?;
    let (method, target) = request_line(request)?;
    let status = rest.word().ok_or(Fault("no status after the request line"))?;
    let status = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
    let _sent = rest.word();
    let mut field = || rest.quoted().filter(|value| value != "-");
    let referer = field();
    let user_agent = field();
    Ok(Entry { at, client, host, method, target, status, received: 0, user_agent, referer, refused: None })
}

fn request_line(line: Cow<'_, str>) -> Result<(Cow<'_, str>, Cow<'_, str>), Fault> {
    fn split(line: &str) -> Option<(&str, &str)> {
        let (method, rest) = line.split_once(' ')?;
        let (target, version) = rest.rsplit_once(' ')?;
        version.starts_with("HTTP/").then_some((method, target))
    }
    let fault = Fault("the request line is not METHOD TARGET HTTP/…: what came was no request");
    match line {
        Cow::Borrowed(line) => split(line).map(|(m, t)| (Cow::Borrowed(m), Cow::Borrowed(t))).ok_or(fault),
        Cow::Owned(line) => {
            split(&line).map(|(m, t)| (Cow::Owned(m.to_owned()), Cow::Owned(t.to_owned()))).ok_or(fault)
        }
    }
}

/// A text without Apache's escapes: `\"`, `\\`, `\n` and kin, `\xHH`.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(0x0b),
            Some(b'b') => out.push(0x08),
            Some(b'f') => out.push(0x0c),
            Some(b'x') => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                if let (Some(high), Some(low)) = (digit(), digit()) {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str =
        r#"- - [22/Nov/2026:13:39:48 +0100] "GET /a?b=\"c\" HTTP/1.1" 200 12 "https://x/" "M \x41""#;

    #[test]
    fn lines_of_apache_and_nginx_are_read() {
        let read = |line: &str| read(line).map(|entry| format!("{entry:?}")).unwrap();
        let line = format!("203.0.113.9 {REST}");
        let entry = super::read(&line).unwrap();
        assert_eq!(entry.at.to_string(), "2026-11-22T12:39:48Z");
        assert_eq!((&*entry.method, &*entry.target), ("GET", "/a?b=\"c\""));
        assert_eq!(entry.status, Some(StatusCode::OK));
        assert_eq!(entry.user_agent.as_deref(), Some("M A"));
        assert_eq!(entry.referer.as_deref(), Some("https://x/"));
        assert_eq!(entry.host, None);
        assert!(read(&format!("www.example.org:443 203.0.113.9 {REST}")).contains("\"www.example.org\""));
        assert!(read(&format!("2001:db8::1 {REST}")).contains("2001:db8::1"));
        assert!(
            read(r#"192.0.2.1 - kurt [22/Nov/2026:13:39:48 +0000] "GET / HTTP/1.0" 304 -"#).contains("304")
        );
    }

    #[test]
    fn lines_of_our_own_are_read() {
        let line = r#"{"time":"2026-11-22T13:39:48.123Z","id":"x","client":"203.0.113.9","method":"POST","host":"www.example.org","target":"/typo3/login?a=\"b\"","status":403,"received":17,"step":"method","reason":"method_not_allowed","new":{}}"#;
        let entry = read(line).unwrap();
        assert_eq!(entry.at.to_string(), "2026-11-22T13:39:48.123Z");
        assert_eq!(entry.target, "/typo3/login?a=\"b\"");
        assert_eq!((entry.received, entry.refused.as_deref()), (17, Some("method_not_allowed")));
    }

    #[test]
    fn other_lines_say_what_is_missing() {
        for (line, said) in [
            ("", "empty"),
            ("{\"msg\":1}", "no line of Ravelin's log"),
            ("hello world", "does not begin with the client's address"),
            ("192.0.2.1 - - now", "no time"),
            (r#"192.0.2.1 - - [yesterday] "GET / HTTP/1.1" 200 1"#, "22/Nov/2026"),
            (r#"192.0.2.1 - - [22/Nov/2026:13:39:48 +0000] "\x16\x03" 400 1"#, "no request"),
            (r"192.0.2.1 - - [22/Nov/2026:13:39:48 +0000] GET", "in quotes"),
            (r#"192.0.2.1 - - [22/Nov/2026:13:39:48 +0000] "GET / HTTP/1.1""#, "no status"),
        ] {
            let fault = read(line).unwrap_err().to_string();
            assert!(fault.contains(said), "{line}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_much(line in ".{0,200}") {
            let _ = read(&line);
        }

        #[test]
        fn no_cut_line_is_too_much(cut in 0usize..120) {
            let line = format!("203.0.113.9 {REST}");
            if let Some(line) = line.get(..cut) {
                let _ = read(line);
            }
        }
    }
}
