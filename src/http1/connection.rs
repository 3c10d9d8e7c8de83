//! What `Connection` and `Keep-Alive` say about the connection that a message came on.

use std::time::Duration;

use http::{HeaderName, Version};

/// More names than this in `Connection` are not remembered: nobody honest sends them, and each one is
/// compared with every field.
const NAMED_MAX: usize = 32;

/// The options of every `Connection` field of one message (RFC 9110 section 7.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `close`: the connection ends after this message.
    pub close: bool,
    /// `keep-alive`: the only way for HTTP/1.0 to go on.
    pub keep_alive: bool,
    /// `upgrade`: the message has an `Upgrade` field.
    pub upgrade: bool,
    /// Other field names: hop-by-hop, not to be forwarded.
    pub named: Vec<HeaderName>,
}

/// What `Keep-Alive` says: Apache sends `timeout=5, max=100`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long the sender keeps an idle connection open.
    pub timeout: Option<Duration>,
    /// How many more requests it will take.
    pub max: Option<u64>,
}

impl Options {
    /// Adds one `Connection` field value.
    pub fn read(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if self.named.len() < NAMED_MAX {
                self.named.extend(HeaderName::from_bytes(token));
            }
        }
    }

    /// Whether the connection may carry another message (RFC 9112 section 9.3).
    #[must_use]
    pub fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

impl KeepAlive {
    /// Adds one `Keep-Alive` field value; what cannot be read is passed over.
    pub fn read(&mut self, value: &[u8]) {
        for token in tokens(value) {
            let mut parts = token.splitn(2, |b| *b == b'=');
            let (Some(name), Some(number)) = (parts.next(), parts.next()) else { continue };
            let number = std::str::from_utf8(number).ok().and_then(|n| n.trim().parse::<u64>().ok());
            if name.trim_ascii().eq_ignore_ascii_case(b"timeout") {
                self.timeout = number.map(Duration::from_secs);
            } else if name.trim_ascii().eq_ignore_ascii_case(b"max") {
                self.max = number;
            }
        }
    }
}

/// The members of a comma-separated list, blanks around them removed, empty ones left out
/// (RFC 9110 section 5.6.1).
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(value: &str) -> Options {
        let mut options = Options::default();
        options.read(value.as_bytes());
        options
    }

    #[test]
    fn the_usual_words_are_known() {
        assert!(options("close").close);
        assert!(options(" Keep-Alive ").keep_alive);
        let both = options("Upgrade,, X-Hop");
        assert!(both.upgrade);
        assert_eq!(both.named, [HeaderName::from_static("x-hop")]);
    }

    #[test]
    fn http_1_1_goes_on_by_default_and_1_0_does_not() {
        assert!(options("").persists(Version::HTTP_11));
        assert!(!options("close").persists(Version::HTTP_11));
        assert!(!options("").persists(Version::HTTP_10));
        assert!(options("keep-alive").persists(Version::HTTP_10));
        assert!(!options("keep-alive, close").persists(Version::HTTP_10));
    }

    #[test]
    fn apache_s_keep_alive_is_read() {
        let mut keep = KeepAlive::default();
        keep.read(b"timeout=5, max=99");
        assert_eq!(keep, KeepAlive { timeout: Some(Duration::from_secs(5)), max: Some(99) });
        keep.read(b"timeout=x, other, max=");
        assert_eq!(keep, KeepAlive::default());
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let many: Vec<String> = (0..1000).map(|i| format!("x-{i}")).collect();
        assert_eq!(options(&many.join(",")).named.len(), NAMED_MAX);
    }

    proptest! {
        #[test]
        fn never_panics(value: Vec<u8>) {
            Options::default().read(&value);
            KeepAlive::default().read(&value);
        }

        #[test]
        fn one_field_or_two_say_the_same(a in "[a-z,\\- ]{0,20}", b in "[a-z,\\- ]{0,20}") {
            let mut two = options(&a);
            two.read(b.as_bytes());
            prop_assert_eq!(two, options(&format!("{a},{b}")));
        }
    }
}
