//! The part of `[limits]` that the door applies: caps, sizes and times of connections.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::{Size, choice};
use crate::http1::grade::Mode;
use crate::http1::request;

/// What was written; absent keys take their default.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    connections: Option<Placed<u64>>,
    connections_per_client: Option<Placed<u64>>,
    handshakes: Option<Placed<u64>>,
    slow_heads: Option<Placed<u64>>,
    header_count: Option<Placed<u64>>,
    header_size: Option<Placed<Text<Size>>>,
    request_line: Option<Placed<Text<Size>>>,
    header_read: Option<Placed<Text<Duration>>>,
    handshake: Option<Placed<Text<Duration>>>,
    keep_alive: Option<Placed<Text<Duration>>>,
    body_idle: Option<Placed<Text<Duration>>>,
    desync: Option<Placed<Text<Mode>>>,
    requests_per_connection: Option<Placed<u64>>,
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Open connections of the whole process.
    pub connections: usize,
    /// Open connections of one client: an IPv4 address or an IPv6 network.
    pub connections_per_client: u32,
    /// Connections that have yet to send their first bytes or to finish the TLS handshake; above it the oldest of
    /// them is closed.
    pub handshakes: usize,
    /// Request heads that take longer than a second; above it the oldest of them has no more time.
    pub slow_heads: usize,
    /// Header fields of a request. The guard refuses above it; the parsers stop somewhat later.
    pub header_count: usize,
    /// Bytes of all header fields of a request.
    pub header_size: usize,
    /// Bytes of a request line.
    pub request_line: usize,
    /// From the first byte of a request head to its last; also how long the first may take.
    pub header_read: Duration,
    /// From accepting to the end of the TLS handshake.
    pub handshake: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// How long a client may take no byte of an answer. (The same key bounds request bodies; the road
    /// applies it there.)
    pub write_idle: Duration,
    /// Which HTTP/1 messages are taken although they are not quite clear.
    pub desync: Mode,
    /// Requests after which a connection is closed gracefully; none: no limit.
    pub requests_per_connection: Option<NonZeroU64>,
    /// The limit of open files, where it leaves room for fewer connections than were asked for.
    pub short_of_files: Option<u64>,
}

/// The words of AWS's load balancers (`routing.http.desync_mitigation_mode`).
impl FromText for Mode {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(
            text,
            &[("strictest", Self::Strictest), ("defensive", Self::Defensive), ("monitor", Self::Monitor)],
        )
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_client: 256,
            handshakes: 1000,
            slow_heads: 1000,
            header_count: 100,
            header_size: 64 * 1024,
            request_line: 16 * 1024,
            header_read: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            write_idle: Duration::from_secs(30),
            desync: Mode::default(),
            requests_per_connection: None,
            short_of_files: None,
        }
    }
}

/// The least room that hyper's HTTP/1 parser works with.
const LEAST_HEAD: usize = 8 * 1024;

/// Sizes above this are a slip of the pen: it would be held in memory for each connection.
const MOST_HEAD: u64 = 16 * 1024 * 1024;

impl Raw {
    /// Reads the keys of the door from `[limits]`. Other rooms read theirs from the same section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            connections: section.get(reading, "connections"),
            connections_per_client: section.get(reading, "connections_per_client"),
            handshakes: section.get(reading, "handshakes"),
            slow_heads: section.get(reading, "slow_heads"),
            header_count: section.get(reading, "header_count"),
            header_size: section.get(reading, "header_size"),
            request_line: section.get(reading, "request_line"),
            header_read: section.get(reading, "header_read"),
            handshake: section.get(reading, "handshake"),
            keep_alive: section.get(reading, "keep_alive"),
            body_idle: section.get(reading, "body_idle"),
            desync: section.get(reading, "desync_mitigation"),
            requests_per_connection: section.get(reading, "requests_per_connection"),
        }
    }

    /// Warns of limits that are in force and that ordinary browsers run into.
    fn warn_small(&self, complaints: &mut Complaints) {
        let mut warn = |place: &Place, key: &str, what: &str, usual: &str| {
            let message = format!("`limits.{key}` is so small that ordinary browsers run into it: {what}");
            complaints.warning(
                Some(place),
                message,
                Some(format!("leave the key out for the default, {usual}")),
            );
        };
        let count =
            |written: &Option<Placed<u64>>, least| written.clone().filter(|w| (1..least).contains(&w.value));
        if let Some(small) = count(&self.connections, 16) {
            warn(&small.place, "connections", "one browser opens six connections", "10000");
        }
        if let Some(small) = count(&self.connections_per_client, 5) {
            warn(&small.place, "connections_per_client", "one browser opens six connections", "256");
        }
        if let Some(small) = count(&self.header_count, 20) {
            warn(&small.place, "header_count", "they send up to twenty fields", "100");
        }
        let sizes = [
            (&self.header_size, "header_size", 4096, "they send up to 4 KiB with cookies", "64 KiB"),
            (
                &self.request_line,
                "request_line",
                1024,
                "addresses in TYPO3's backend are longer than that",
                "16 KiB",
            ),
        ];
        for (written, key, least, what, usual) in sizes {
            if let Some(small) = written.as_ref().filter(|written| written.value.0.0 < least) {
                warn(&small.place, key, what, usual);
            }
        }
        let times = [
            (&self.header_read, "header_read", "10 s"),
            (&self.handshake, "handshake", "10 s"),
            (&self.keep_alive, "keep_alive", "75 s"),
            (&self.body_idle, "body_idle", "30 s"),
        ];
        for (written, key, usual) in times {
            let second = Duration::from_secs(1);
            if let Some(small) = written.as_ref().filter(|written| written.value.0 < second) {
                warn(&small.place, key, "a packet that was lost is sent again after a second", usual);
            }
        }
    }

    /// Fills in the defaults and complains about limits that nothing could pass.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        self.warn_small(complaints);
        let default = Policy::default();
        let policy = Policy {
            connections: count(self.connections.as_ref(), "connections", default.connections, complaints),
            connections_per_client: count(
                self.connections_per_client.as_ref(),
                "connections_per_client",
                default.connections_per_client,
                complaints,
            ),
            handshakes: count(self.handshakes.as_ref(), "handshakes", default.handshakes, complaints),
            slow_heads: count(self.slow_heads.as_ref(), "slow_heads", default.slow_heads, complaints),
            header_count: count(self.header_count.as_ref(), "header_count", default.header_count, complaints),
            header_size: size(self.header_size.as_ref(), "header_size", default.header_size, complaints),
            request_line: size(self.request_line.as_ref(), "request_line", default.request_line, complaints),
            header_read: time(self.header_read.as_ref(), "header_read", default.header_read, complaints),
            handshake: time(self.handshake.as_ref(), "handshake", default.handshake, complaints),
            keep_alive: time(self.keep_alive.as_ref(), "keep_alive", default.keep_alive, complaints),
            write_idle: time(self.body_idle.as_ref(), "body_idle", default.write_idle, complaints),
            desync: self.desync.as_ref().map_or_else(Mode::default, |written| written.value.0),
            requests_per_connection: self.requests_per_connection.and_then(|p| NonZeroU64::new(p.value)),
            short_of_files: None,
        };
        if usize::try_from(policy.connections_per_client).is_ok_and(|one| one > policy.connections)
            && let Some(written) = &self.connections_per_client
        {
            complaints.warning(
                Some(&written.place),
                "`limits.connections_per_client` is above `limits.connections`: one client can take every place",
                Some("256 is plenty for a browser and for an office behind one address".to_owned()),
            );
        }
        policy
    }
}

/// Files that are open whoever connects: logs, listeners, the runtimes' own, a name server, a reload.
const OWN_FILES: u64 = 40;

impl Policy {
    /// The same limits where no more than `files` may be open. A quarter of them is for connections to origins:
    /// a client that is let in and cannot be served helps nobody. And those that have yet to speak never take more
    /// than half of the places.
    #[must_use]
    pub fn within(self, files: Option<u64>) -> Self {
        let Some(files) = files else { return self };
        let places = usize::try_from(files.saturating_sub(OWN_FILES) / 4 * 3).unwrap_or(usize::MAX).max(1);
        let connections = self.connections.min(places);
        let short_of_files = (connections < self.connections).then_some(files);
        Self { connections, handshakes: self.handshakes.min(connections.div_ceil(2)), short_of_files, ..self }
    }

    /// How many files must be allowed for all connections of these limits.
    #[must_use]
    pub fn files(&self) -> u64 {
        let places = u64::try_from(self.connections).unwrap_or(u64::MAX);
        places.div_ceil(3).saturating_mul(4).saturating_add(OWN_FILES)
    }

    /// The limits of the HTTP/1 decoder.
    #[must_use]
    pub fn request(&self) -> request::Limits {
        request::Limits {
            request_line: self.request_line,
            fields: self.header_count,
            fields_size: self.header_size,
        }
    }

    /// The room for a whole request head in an HTTP/1 parser.
    #[must_use]
    pub fn head(&self) -> usize {
        self.header_size.saturating_add(self.request_line).max(LEAST_HEAD)
    }
}

fn count<T: TryFrom<u64>>(
    written: Option<&Placed<u64>>,
    key: &str,
    default: T,
    complaints: &mut Complaints,
) -> T {
    let Some(written) = written else { return default };
    if written.value == 0 {
        let hint = "leave the key out for the default".to_owned();
        complaints.error(Some(&written.place), format!("`limits.{key}` = 0 lets nobody in"), Some(hint));
        return default;
    }
    T::try_from(written.value).unwrap_or_else(|_| {
        complaints.error(Some(&written.place), format!("`limits.{key}` is too large"), None);
        default
    })
}

fn size(
    written: Option<&Placed<Text<Size>>>,
    key: &str,
    default: usize,
    complaints: &mut Complaints,
) -> usize {
    let Some(written) = written else { return default };
    let Size(bytes) = written.value.0;
    if !(256..=MOST_HEAD).contains(&bytes) {
        complaints.error(
            Some(&written.place),
            format!("`limits.{key}` must be between 256 B and 16 MiB"),
            Some("it is held in memory for each connection; browsers need about 4 KiB".to_owned()),
        );
        return default;
    }
    usize::try_from(bytes).unwrap_or(default)
}

fn time(
    written: Option<&Placed<Text<Duration>>>,
    key: &str,
    default: Duration,
    complaints: &mut Complaints,
) -> Duration {
    let Some(written) = written else { return default };
    let Text(time) = written.value;
    if time.is_zero() {
        complaints.error(
            Some(&written.place),
            format!("`limits.{key}` = 0 would end every connection at once"),
            Some("a limit cannot be switched off; write a longer time".to_owned()),
        );
        return default;
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::settings::tests::limits_with;

    fn compile(text: &str) -> (Policy, Complaints) {
        limits_with(text, Raw::read, Raw::compile)
    }

    #[test]
    fn an_empty_table_is_the_default() {
        let (policy, complaints) = compile("[limits]");
        assert_eq!(policy, Policy::default());
        assert!(complaints.is_empty());
        assert_eq!(policy.head(), 80 * 1024);
    }

    #[test]
    fn what_is_written_is_taken() {
        let (policy, complaints) = compile(
            "[limits]\nconnections = 50\nconnections_per_client = 5\nkeep_alive = \"5 s\"\nheader_size = \"1 KiB\"\n\
             request_line = \"512 B\"\nbody_idle = \"7 s\"\nrequests_per_connection = 9",
        );
        assert!(!complaints.has_errors(), "{complaints}");
        assert_eq!((policy.connections, policy.connections_per_client), (50, 5));
        assert_eq!((policy.keep_alive, policy.write_idle), (Duration::from_secs(5), Duration::from_secs(7)));
        assert_eq!(policy.requests_per_connection, NonZeroU64::new(9));
        assert_eq!(policy.head(), LEAST_HEAD, "hyper's parser needs that much");
    }

    #[test]
    fn connections_leave_files_for_origins() {
        let limits = |files| {
            let policy = Policy::default().within(files);
            (policy.connections, policy.handshakes)
        };
        assert_eq!(limits(None), (10_000, 1000));
        assert_eq!(limits(Some(1 << 20)), (10_000, 1000));
        assert_eq!(limits(Some(1040)), (750, 375));
        assert_eq!(limits(Some(0)), (1, 1));
        let enough = Policy::default().files();
        assert_eq!(Policy::default().within(Some(enough)), Policy::default());
        let short = Policy::default().within(Some(enough - 4));
        assert!(short.connections < 10_000 && short.short_of_files == Some(enough - 4));
    }

    #[test]
    fn impossible_limits_are_named_with_their_line() {
        for (line, want) in [
            ("connections = 0", "`limits.connections` = 0 lets nobody in"),
            ("keep_alive = \"0 s\"", "`limits.keep_alive` = 0 would end every connection at once"),
            ("header_size = \"1 GiB\"", "`limits.header_size` must be between"),
            ("connections_per_client = 5000000000", "`limits.connections_per_client` is too large"),
            ("hand_shake = \"5 s\"", "did you mean `handshake`?"),
        ] {
            let (_, complaints) = compile(&format!("[limits]\n{line}"));
            assert!(complaints.has_errors(), "{line}");
            let said = complaints.to_string();
            assert!(said.contains(want) && said.contains("ravelin.toml:2"), "{said}");
        }
    }
}
