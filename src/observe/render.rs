//! From a record to one line: JSON, or Apache's combined format.
//!
//! Written by hand: a serializer would look at every field's type and name again for every line.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use http::Version;

use super::escape;
use super::record::{Culprit, Record, Upstream, WouldBlock};
use super::settings::Form;
use super::stamp::Stamp;
use super::text::Span;
use super::trace::Parent;
use crate::refusal::Reason;

/// What stands before a member's value: its comma, its name and the colon.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The same before a string.
macro_rules! quoted {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

/// Appends the line of `record`, line break included.
pub(super) fn line(form: Form, record: &Record, took: Duration, stamp: &mut Stamp, out: &mut Vec<u8>) {
    match form {
        Form::Json => json(record, took, stamp, out),
        Form::Combined => combined(record, stamp, out),
        Form::Off => {}
    }
}

/// `{"time":…,"id":…,…}`. What is not known is left out.
fn json(record: &Record, took: Duration, stamp: &mut Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.rfc3339(record.wall, out);
    out.push(b'"');
    let mut object = Object { record, out };
    object.request();
    object.verdict();
    object.number(key!("received"), record.received());
    object.number(key!("sent"), record.sent);
    object.number(key!("duration_us"), micros(took));
    object.duration(key!("head_us"), record.head_after);
    if let Some(upstream) = &record.upstream {
        object.upstream(upstream);
    }
    object.text(quoted!("user_agent"), record.user_agent);
    object.text(quoted!("referer"), record.referer);
    object.text(quoted!("generation"), record.generation);
    out.extend_from_slice(b"}\n");
}

/// The members of a JSON object, each with its comma before it.
struct Object<'a> {
    record: &'a Record,
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn request(&mut self) {
        let record = self.record;
        self.word(quoted!("id"), record.id.as_bytes());
        self.word(quoted!("trace"), record.trace.trace_digits());
        self.word(quoted!("span"), record.trace.span_digits());
        if let Some(span) = record.parent.as_ref().and_then(Parent::span) {
            self.word(quoted!("parent"), span);
        }
        self.text(quoted!("amzn_trace"), record.amzn);
        let client = record.client.unwrap_or(record.peer.ip());
        self.key(quoted!("client"));
        let start = self.out.len();
        address(client, self.out);
        let written = start..self.out.len();
        self.out.push(b'"');
        self.key(quoted!("peer"));
        peer(record.peer, (client == record.peer.ip()).then_some(written), self.out);
        self.out.push(b'"');
        self.number(key!("listener"), record.listener as u64);
        self.word(quoted!("protocol"), protocol(record.version));
        if let Some((version, cipher, sni, client)) = record.tls {
            self.word(quoted!("tls"), version);
            self.word(quoted!("cipher"), cipher);
            self.text(quoted!("sni"), sni);
            self.text(quoted!("client_cert"), client);
        }
        self.text(quoted!("method"), record.method);
        self.text(quoted!("host"), record.host);
        self.text(quoted!("target"), record.target);
        self.text(quoted!("site"), record.site_name);
        if !record.area.is_empty() {
            self.word(quoted!("area"), record.area);
        }
    }

    fn verdict(&mut self) {
        let record = self.record;
        if let Some(status) = record.status {
            self.number(key!("status"), u64::from(status.as_u16()));
        }
        if let Some(culprit) = record.aborted() {
            self.word(
                quoted!("aborted"),
                match culprit {
                    Culprit::Client => "client",
                    Culprit::Origin => "origin",
                },
            );
        }
        if let Some(fault) = record.fault {
            self.word(quoted!("desync"), fault.class().label());
            self.word(quoted!("desync_reason"), fault.label());
        }
        if let Some(reason) = record.refused {
            self.reason(reason);
        }
        self.text(quoted!("detail"), record.detail);
        if let Some((kind, verdict, user)) = record.login {
            self.word(quoted!("login"), kind.name());
            self.word(quoted!("login_verdict"), verdict.name());
            self.text(quoted!("login_user"), user);
        }
        self.text(quoted!("ban"), record.ban);
        if !record.would_block.is_empty() {
            self.would_block(&record.would_block);
        }
    }

    fn reason(&mut self, reason: Reason) {
        self.word(quoted!("step"), reason.row().step.name());
        self.word(quoted!("reason"), reason.name());
    }

    fn would_block(&mut self, list: &[WouldBlock]) {
        self.key(key!("would_block"));
        for (i, entry) in list.iter().enumerate() {
            self.out.extend_from_slice(if i == 0 { b"[{\"step\":\"" } else { b",{\"step\":\"" });
            self.out.extend_from_slice(entry.reason.row().step.name().as_bytes());
            self.out.push(b'"');
            self.word(quoted!("reason"), entry.reason.name());
            self.text(quoted!("detail"), entry.detail);
            self.out.push(b'}');
        }
        self.out.push(b']');
    }

    fn upstream(&mut self, upstream: &Upstream) {
        self.text(quoted!("upstream"), upstream.member);
        self.duration(key!("connect_us"), upstream.connect);
        self.duration(key!("first_byte_us"), upstream.first_byte);
        self.key(if upstream.reused { ",\"reused\":true" } else { ",\"reused\":false" });
        if upstream.retries > 0 {
            self.number(key!("retries"), u64::from(upstream.retries));
        }
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }

    /// A string that needs no escaping, because it is one of ours.
    fn word(&mut self, key: &'static str, word: impl AsRef<[u8]>) {
        self.key(key);
        self.out.extend_from_slice(word.as_ref());
        self.out.push(b'"');
    }

    fn text(&mut self, key: &'static str, span: Span) {
        if let Some(text) = self.record.texts.get(span) {
            self.key(key);
            escape::json(text, self.out);
            self.out.push(b'"');
        }
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn duration(&mut self, key: &'static str, duration: Option<Duration>) {
        if let Some(duration) = duration {
            self.number(key, micros(duration));
        }
    }
}

/// `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`: Apache's `combined`.
fn combined(record: &Record, stamp: &mut Stamp, out: &mut Vec<u8>) {
    address(record.client.unwrap_or(record.peer.ip()), out);
    out.extend_from_slice(b" - - ");
    stamp.clf(record.wall, out);
    out.extend_from_slice(b" \"");
    let texts = &record.texts;
    escape::apache(texts.get(record.method).unwrap_or_default(), out);
    out.push(b' ');
    escape::apache(texts.get(record.target).unwrap_or_default(), out);
    out.push(b' ');
    out.extend_from_slice(request_protocol(record.version).as_bytes());
    out.extend_from_slice(b"\" ");
    match record.status {
        Some(status) => out.extend_from_slice(status.as_str().as_bytes()),
        None => out.push(b'-'),
    }
    out.push(b' ');
    match record.sent {
        0 => out.push(b'-'),
        sent => out.extend_from_slice(itoa::Buffer::new().format(sent).as_bytes()),
    }
    for span in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        escape::apache(texts.get(span).unwrap_or(b"-"), out);
        out.push(b'"');
    }
    out.push(b'\n');
}

/// An address as text. The four numbers of IPv4 by hand, because nearly every line has two.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

/// The other end of the connection with its port; `written` is where its address stands in `out` already.
fn peer(peer: SocketAddr, written: Option<Range<usize>>, out: &mut Vec<u8>) {
    let v6 = peer.is_ipv6();
    if v6 {
        out.push(b'[');
    }
    match written {
        Some(written) => out.extend_from_within(written),
        None => address(peer.ip(), out),
    }
    out.extend_from_slice(if v6 { b"]:" } else { b":" });
    out.extend_from_slice(itoa::Buffer::new().format(peer.port()).as_bytes());
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        other => request_protocol(other),
    }
}

/// As Apache writes it in `%r`.
fn request_protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
