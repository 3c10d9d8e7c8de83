//! May the connection change its protocol? Only to WebSocket, and only where a path allows it.
//!
//! Every other upgrade (`h2c`, `TLS/1.0`, …) is as if it had not been asked for: the field is removed and the
//! request goes on as plain HTTP, which RFC 9110 section 7.8 allows.

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, Method, Version};

use super::excerpt;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section};
use crate::head::Head;
use crate::refusal::{Reason, Refusal};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    websocket: Option<Placed<bool>>,
}

/// Whether WebSocket is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Allowed here. TYPO3 itself uses none.
    pub websocket: bool,
}

/// What a request asks the connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing that is served: an `Upgrade` field, if there is one, is removed.
    None,
    /// A WebSocket (RFC 6455).
    WebSocket,
}

impl Raw {
    /// Reads `websocket`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { websocket: section.get(reading, "websocket") }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { websocket: specific.websocket.or(self.websocket) }
    }

    /// Where `websocket` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.websocket.as_ref().map(|written| &written.place)
    }

    /// Not allowed unless written.
    pub fn compile(self, _complaints: &mut Complaints) -> Policy {
        Policy { websocket: self.websocket.is_some_and(|placed| placed.value) }
    }
}

/// What the request asks for; refuses a WebSocket where none is allowed, and one that is none.
pub fn check(policy: &Policy, head: &Head<'_>) -> Result<Upgrade, Refusal> {
    if !asks_for_websocket(head) {
        return Ok(Upgrade::None);
    }
    if !policy.websocket {
        return Err(Refusal::new(Reason::UpgradeNotAllowed, "WebSocket"));
    }
    opening(head).map_err(|detail| Refusal::new(Reason::BadHeader, detail))?;
    Ok(Upgrade::WebSocket)
}

/// An offer of several protocols counts as none that is served: browsers offer `websocket` alone.
fn asks_for_websocket(head: &Head<'_>) -> bool {
    let mut offers = head.all(&UPGRADE);
    let offer = offers.next().filter(|_| offers.next().is_none());
    head.version() == Version::HTTP_11
        && offer.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && lists(head, &CONNECTION, b"upgrade")
}

fn lists(head: &Head<'_>, name: &HeaderName, option: &[u8]) -> bool {
    head.all(name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(option))
}

/// RFC 6455 section 4.2.1. The tunnel begins with what the client sends next, so there must be no body.
fn opening(head: &Head<'_>) -> Result<(), String> {
    if *head.method() != Method::GET {
        return Err(format!("WebSocket with {}", excerpt(head.method().as_str().as_bytes())));
    }
    if head.get(&CONTENT_LENGTH).is_some() || head.get(&TRANSFER_ENCODING).is_some() {
        return Err("WebSocket with a body".to_owned());
    }
    let only = |name: &HeaderName| {
        let mut values = head.all(name);
        values.next().filter(|_| values.next().is_none()).unwrap_or_default()
    };
    match only(&SEC_WEBSOCKET_VERSION) {
        b"13" => {}
        other => return Err(format!("`Sec-WebSocket-Version: {}`", excerpt(other))),
    }
    if !is_key(only(&SEC_WEBSOCKET_KEY)) {
        return Err("Sec-WebSocket-Key is not 16 bytes in base64".to_owned());
    }
    Ok(())
}

/// 16 bytes in base64: 22 digits and two `=`.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.strip_suffix(b"==").is_some_and(|digits| digits.iter().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    const OPENING: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn verdict(allowed: bool, method: &str, fields: &[(&str, &str)]) -> Result<Upgrade, Reason> {
        let parts = testing::head(method, "/", Version::HTTP_11, fields);
        check(&Policy { websocket: allowed }, &Head::new(&parts)).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_websocket_passes_only_where_it_is_allowed() {
        assert_eq!(verdict(true, "GET", &OPENING), Ok(Upgrade::WebSocket));
        assert_eq!(verdict(false, "GET", &OPENING), Err(Reason::UpgradeNotAllowed));
    }

    #[test]
    fn other_upgrades_are_as_if_not_asked_for() {
        for offer in ["h2c", "TLS/1.0", "websocket, h2c", "websocketx", ""] {
            let fields = [("connection", "upgrade"), ("upgrade", offer)];
            assert_eq!(verdict(true, "GET", &fields), Ok(Upgrade::None), "{offer}");
        }
        assert_eq!(verdict(true, "GET", &[]), Ok(Upgrade::None));
        assert_eq!(verdict(true, "GET", &[("upgrade", "websocket")]), Ok(Upgrade::None));
        let twice = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "websocket")];
        assert_eq!(verdict(true, "GET", &twice), Ok(Upgrade::None));
        let parts = testing::head("GET", "/", Version::HTTP_10, &OPENING);
        assert_eq!(check(&Policy { websocket: true }, &Head::new(&parts)).unwrap(), Upgrade::None);
    }

    #[test]
    fn a_malformed_opening_is_refused() {
        assert_eq!(verdict(true, "POST", &OPENING), Err(Reason::BadHeader));
        let with_body = [OPENING.as_slice(), &[("content-length", "3")]].concat();
        assert_eq!(verdict(true, "GET", &with_body), Err(Reason::BadHeader));
        for (name, value) in [
            ("sec-websocket-version", "12"),
            ("sec-websocket-version", ""),
            ("sec-websocket-key", "short=="),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ"),
        ] {
            let fields = OPENING.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
            assert_eq!(verdict(true, "GET", &fields), Err(Reason::BadHeader), "{name}: {value}");
        }
        let two_keys = [OPENING.as_slice(), &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
        assert_eq!(verdict(true, "GET", &two_keys), Err(Reason::BadHeader));
    }

    #[test]
    fn the_policy_is_read() {
        let (raw, complaints) = testing::read("websocket = true", Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        let (off, _) = testing::read("websocket = false", Raw::read);
        let mut complaints = Complaints::default();
        assert!(raw.clone().over(Raw::default()).compile(&mut complaints).websocket);
        assert!(!raw.over(off).compile(&mut complaints).websocket);
        assert!(!Raw::default().compile(&mut complaints).websocket);
    }
}
