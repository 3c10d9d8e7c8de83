//! What the origin gets: the request head, written anew.
//!
//! Nothing is passed on because it was there: each field is looked at once and either copied, dropped
//! or replaced by our own. The bytes go straight into one buffer; no map is built and nothing is
//! allocated per field. That no value ends a line is checked at the end, for all of them at once: the
//! head must hold as many line ends as lines were written. Sources of the rules: RFC 9110 section 7.6.1 (hop-by-hop), httpoxy
//! (CVE-2016-5385), CVE-2022-31813 and CVE-2026-26365 (fields named by `Connection`), and TYPO3's
//! `NormalizedParams.php`, which believes the first or last value of `X-Forwarded-For`: so there is
//! exactly one.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{ACCEPT_ENCODING, CONNECTION, COOKIE};
use http::{HeaderName, Method};

use super::names;
use crate::client::chain::Chain;
use crate::guard::headers::UnderscoreHeaders;
use crate::guard::overrides;
use crate::head::Head;
use crate::http1::connection::tokens;
use crate::http1::framing::RequestFraming;
use crate::refusal::{Reason, Refusal};

/// More options than this in `Connection` are refused: each is compared with every field.
const OPTIONS_MAX: usize = 32;
/// Room for nearly every head; longer ones grow.
const USUAL: usize = 1024;
const TRACESTATE: &str = "tracestate";
/// What a line has around its name and value: `: ` and CR LF.
const AROUND: usize = 4;

/// What is written instead of what the client claimed.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a request, each from a step of its own")]
pub struct Onward<'a> {
    /// The one normalised path that the guards saw, or `*`.
    pub path: &'a str,
    /// The query, as it came.
    pub query: Option<&'a str>,
    /// Host as the client sent it: TYPO3 compares it with `trustedHostsPattern`.
    pub host: &'a str,
    /// The client's address, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// What stands there instead of it alone.
    pub chain: &'a Chain,
    /// Whether the client came by https, for `X-Forwarded-Proto`.
    pub secure: bool,
    /// The port that the client asked at, for `X-Forwarded-Port`.
    pub port: u16,
    /// This request's id, for `X-Request-Id`.
    pub request_id: &'a [u8],
    /// The W3C trace context of this request.
    pub traceparent: &'a [u8],
    /// The same in the words of AWS, for `X-Amzn-Trace-Id`; empty if none came.
    pub amzn_trace: &'a [u8],
    /// Whether the client's `tracestate` belongs to that context and goes on.
    pub tracestate: bool,
    /// Whether this is a WebSocket handshake that the path allows.
    pub websocket: bool,
    /// What happens to names with `_`.
    pub underscores: UnderscoreHeaders,
    /// Which fields may name another method or URL.
    pub overrides: overrides::Policy,
    /// Whether a trusted proxy sent this: then what it says of the client's certificate and place goes on.
    pub trusted: bool,
    /// Whether the answer is to come without a content coding, because its first bytes are looked at.
    pub uncoded: bool,
    /// A field that only the application may send.
    pub reserved: Option<&'a HeaderName>,
    /// What is told of the client's certificate, by names that no client can use.
    pub certificate: &'a [(&'static str, Box<str>)],
    /// How the body ends; the only source of the framing field.
    pub framing: RequestFraming,
}

/// What happens to one field of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Copy,
    Join,
    Drop,
}

/// A part of the head that cannot be written without changing its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclean {
    /// Which part.
    pub part: &'static str,
}

/// The request head for the origin, empty line included.
pub fn head(client: &Head<'_>, onward: &Onward<'_>) -> Result<BytesMut, Unclean> {
    let options = Options::of(client)?;
    let mut out = Lines { bytes: BytesMut::with_capacity(USUAL), count: 0 };
    request_line(client.method(), onward, &mut out)?;
    out.own(b"host: ", onward.host.as_bytes(), "host")?;
    let mut cookie_written = false;
    for (name, value) in client.lines() {
        match fate(name, onward, &options) {
            Fate::Drop => {}
            Fate::Copy => out.copy(name, value),
            Fate::Join if cookie_written => {}
            Fate::Join => {
                cookie_written = true;
                cookies(client, &mut out);
            }
        }
    }
    own_fields(onward, &mut out)?;
    for (name, value) in onward.certificate {
        out.copy(name.as_bytes(), value.as_bytes());
    }
    framing_field(onward.framing, &mut out);
    out.end();
    out.finish()
}

/// How a body of which this much is known is framed (RFC 9112 section 6.3 and RFC 9110 section 8.6).
/// `exact` is the length where it is known, and `None` where only its end will tell.
#[must_use]
pub fn framing(method: &Method, exact: Option<u64>) -> RequestFraming {
    match exact {
        None => RequestFraming::Chunked,
        Some(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => RequestFraming::None,
        Some(length) => RequestFraming::Length(length),
    }
}

/// The names that `Connection` holds, other than the usual ones.
#[derive(Default)]
struct Options<'a> {
    named: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn of(client: &Head<'a>) -> Result<Self, Unclean> {
        let mut options = Self::default();
        for value in client.all(&CONNECTION) {
            for token in tokens(value) {
                if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                    continue;
                }
                if options.named.len() == OPTIONS_MAX {
                    return Err(Unclean { part: "Connection" });
                }
                options.named.push(token);
            }
        }
        Ok(options)
    }

    fn name(&self, name: &[u8]) -> bool {
        self.named.iter().any(|token| token.eq_ignore_ascii_case(name))
    }
}

/// The lines of a head.
struct Lines {
    bytes: BytesMut,
    count: usize,
}

impl Lines {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        self.put(b"\r\n");
        self.count += 1;
    }

    fn copy(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + AROUND);
        self.put(name);
        self.put(b": ");
        self.put(value);
        self.end();
    }

    /// One of our own fields, whose value holds no blank; `start` is the name with its colon.
    fn own(&mut self, start: &'static [u8], value: &[u8], part: &'static str) -> Result<(), Unclean> {
        self.put(start);
        self.visible(value, part)?;
        self.end();
        Ok(())
    }

    /// Copies what holds neither blanks nor control bytes: a target, a host, an id.
    fn visible(&mut self, value: &[u8], part: &'static str) -> Result<(), Unclean> {
        // All bytes at once, which is faster than stopping at the first.
        if value.iter().fold(0, |found, b| found | u8::from(*b <= b' ') | u8::from(*b == 0x7f)) != 0 {
            return Err(Unclean { part });
        }
        self.put(value);
        Ok(())
    }

    fn number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The head, unless a value in it ends a line or holds NUL.
    fn finish(self) -> Result<BytesMut, Unclean> {
        if line_ends(&self.bytes) == self.count * b"\r\n".len() {
            Ok(self.bytes)
        } else {
            Err(Unclean { part: "a field value" })
        }
    }
}

/// How many bytes are CR, LF or NUL. Counted in pieces whose count fits a byte, so that the compiler can
/// count many at once.
fn line_ends(bytes: &[u8]) -> usize {
    let is_end = |b: u8| u8::from(b == b'\r') + u8::from(b == b'\n') + u8::from(b == 0);
    let ends = |piece: &[u8]| piece.iter().fold(0_u8, |sum, b| sum + is_end(*b));
    bytes.chunks(usize::from(u8::MAX)).map(|piece| usize::from(ends(piece))).sum()
}

impl fmt::Display for Unclean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be passed on as it is", self.part)
    }
}

impl std::error::Error for Unclean {}

impl From<Unclean> for Refusal {
    fn from(unclean: Unclean) -> Self {
        let reason = match unclean.part {
            "path" | "query" => Reason::BadTarget,
            "host" => Reason::BadHost,
            "request id" | "traceparent" => Reason::Internal,
            _ => Reason::BadHeader,
        };
        Refusal::new(reason, unclean.to_string())
    }
}

fn fate(name: &[u8], onward: &Onward<'_>, options: &Options<'_>) -> Fate {
    if name == COOKIE.as_str().as_bytes() {
        return if options.name(name) { Fate::Drop } else { Fate::Join };
    }
    let keep = onward.underscores == UnderscoreHeaders::Keep;
    let drop = (names::is_protected(name, keep, onward.trusted) && !onward.overrides.passes(name))
        || (name == TRACESTATE.as_bytes() && !onward.tracestate);
    let drop = drop || (onward.uncoded && name == ACCEPT_ENCODING.as_str().as_bytes());
    let drop = drop || onward.reserved.is_some_and(|reserved| is_reserved(reserved, name));
    if drop || options.name(name) { Fate::Drop } else { Fate::Copy }
}

/// Whether the application could take the field for the reserved one: PHP reads `_` and `.` as `-`.
fn is_reserved(reserved: &HeaderName, name: &[u8]) -> bool {
    let fold = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte };
    reserved.as_str().bytes().map(fold).eq(name.iter().copied().map(fold))
}

fn request_line(method: &Method, onward: &Onward<'_>, out: &mut Lines) -> Result<(), Unclean> {
    out.put(method.as_str().as_bytes());
    out.put(b" ");
    let path = if onward.path.is_empty() { "/" } else { onward.path };
    out.visible(path.as_bytes(), "path")?;
    if let Some(query) = onward.query {
        out.put(b"?");
        out.visible(query.as_bytes(), "query")?;
    }
    out.put(b" HTTP/1.1");
    out.end();
    Ok(())
}

/// Every cookie of the client in one field: HTTP/2 may split them (RFC 9113 section 8.2.3), and the
/// origin must see one list.
fn cookies(client: &Head<'_>, out: &mut Lines) {
    out.put(b"cookie: ");
    let mut values = client.all(&COOKIE).filter(|v| !v.is_empty());
    if let Some(first) = values.next() {
        out.put(first);
    }
    for value in values {
        out.put(b"; ");
        out.put(value);
    }
    out.end();
}

fn own_fields(onward: &Onward<'_>, out: &mut Lines) -> Result<(), Unclean> {
    match onward.chain {
        Chain::Client => {
            out.put(b"x-forwarded-for: ");
            address(onward.client, out);
            out.end();
        }
        Chain::Written(chain) => out.copy(b"x-forwarded-for", chain),
        Chain::Nothing => {}
    }
    out.put(b"x-forwarded-port: ");
    out.number(u64::from(onward.port));
    out.end();
    if !onward.host.is_empty() {
        out.own(b"x-forwarded-host: ", onward.host.as_bytes(), "host")?;
    }
    out.put(if onward.secure { &b"x-forwarded-proto: https"[..] } else { b"x-forwarded-proto: http" });
    out.end();
    if !onward.request_id.is_empty() {
        out.own(b"x-request-id: ", onward.request_id, "request id")?;
    }
    if !onward.traceparent.is_empty() {
        out.own(b"traceparent: ", onward.traceparent, "traceparent")?;
    }
    if !onward.amzn_trace.is_empty() {
        out.own(b"x-amzn-trace-id: ", onward.amzn_trace, "traceparent")?;
    }
    if onward.uncoded {
        out.put(b"accept-encoding: identity");
        out.end();
    }
    if onward.websocket {
        out.put(b"connection: upgrade");
        out.end();
        out.put(b"upgrade: websocket");
        out.end();
    }
    Ok(())
}

/// An address as text; the four numbers of IPv4 by hand, because formatting is slow.
fn address(address: IpAddr, out: &mut Lines) {
    let IpAddr::V4(v4) = address else {
        // Writing into a `BytesMut` grows it and cannot fail.
        let _ = write!(out.bytes, "{address}");
        return;
    };
    let [first, rest @ ..] = v4.octets();
    out.number(u64::from(first));
    for octet in rest {
        out.put(b".");
        out.number(u64::from(octet));
    }
}

fn framing_field(framing: RequestFraming, out: &mut Lines) {
    match framing {
        RequestFraming::None => return,
        RequestFraming::Length(length) => {
            out.put(b"content-length: ");
            out.number(length);
        }
        RequestFraming::Chunked => out.put(b"transfer-encoding: chunked"),
    }
    out.end();
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    fn onward() -> Onward<'static> {
        Onward {
            path: "/a/b",
            query: Some("x=1"),
            host: "www.example.org:8443",
            client: "2001:db8::7".parse().unwrap(),
            chain: &Chain::Client,
            secure: true,
            port: 8443,
            request_id: b"id-1",
            traceparent: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            amzn_trace: b"",
            tracestate: false,
            uncoded: false,
            reserved: None,
            websocket: false,
            underscores: UnderscoreHeaders::Drop,
            overrides: overrides::Policy::default(),
            trusted: false,
            certificate: &[],
            framing: RequestFraming::None,
        }
    }

    fn write(onward: &Onward<'_>, fields: &[(&str, &str)]) -> Result<String, Unclean> {
        let mut request = Request::builder().method("GET").uri("/ignored");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let bytes = head(&Head::new(&parts), onward)?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// The lines the client's fields became, our own left out.
    fn kept(onward: &Onward<'_>, fields: &[(&str, &str)]) -> Vec<String> {
        let own = write(onward, &[]).unwrap();
        let all = write(onward, fields).unwrap();
        all.lines().filter(|l| !own.lines().any(|o| o == *l)).map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_request() {
        let text = write(&onward(), &[("host", "ignored"), ("accept", "*/*")]).unwrap();
        assert_eq!(
            text,
            "GET /a/b?x=1 HTTP/1.1\r\nhost: www.example.org:8443\r\naccept: */*\r\n\
             x-forwarded-for: 2001:db8::7\r\nx-forwarded-port: 8443\r\n\
             x-forwarded-host: www.example.org:8443\r\nx-forwarded-proto: https\r\n\
             x-request-id: id-1\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"
        );
    }

    #[test]
    fn what_a_client_may_not_say_is_dropped() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
            "Expect",
            "Content-Length",
            "Host",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded",
            "Forwarded",
            "X-Real-IP",
            "X-Request-Id",
            "traceparent",
            "tracestate",
            "Proxy",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Client-IP",
            "Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "CF-Connecting-IPv6",
            "X-Cluster-Client-IP",
            "Fastly-Client-IP",
            "X-Host",
            "X-Forwarded-Server",
            "Front-End-Https",
            "X-Url-Scheme",
            "X-Amzn-Mtls-Clientcert",
            "CloudFront-Viewer-Address",
        ] {
            assert_eq!(kept(&onward(), &[(name, "evil")]), [""; 0], "{name}");
        }
        assert_eq!(kept(&onward(), &[("X-Requested-With", "x"), ("Authorization", "y")]).len(), 2);
    }

    #[test]
    fn names_that_php_folds_into_protected_ones_never_pass() {
        let keep = Onward { underscores: UnderscoreHeaders::Keep, ..onward() };
        for name in [
            "X_Forwarded_For",
            "X-Forwarded_For",
            "X.Forwarded.For",
            "Proxy_Authorization",
            "X_Real_IP",
            "X!Original~URL",
            "X_HTTP_Method_Override",
            "Content_Length",
            "Transfer_Encoding",
            "X_Forwarded_Something_Longer_Than_The_Table",
        ] {
            assert_eq!(kept(&keep, &[(name, "evil")]), [""; 0], "{name}");
        }
        assert_eq!(kept(&keep, &[("my_name", "1")]), ["my_name: 1"]);
        assert_eq!(kept(&onward(), &[("my_name", "1")]), [""; 0]);
        assert_eq!(kept(&onward(), &[("my.name", "1")]), ["my.name: 1"]);
    }

    #[test]
    fn connection_names_are_dropped_but_never_ours() {
        let fields = [
            ("Connection", "X-Hop, Host, Content-Length, X-Forwarded-For, X-Request-Id, close"),
            ("X-Hop", "1"),
            ("X-Stay", "1"),
        ];
        let text = write(&onward(), &fields).unwrap();
        assert!(!text.contains("x-hop"));
        for line in ["host: www", "x-stay: 1", "x-forwarded-for: 2001:db8::7\r\n", "x-request-id: id-1"] {
            assert!(text.contains(line), "{line}");
        }
        let many = vec!["x"; OPTIONS_MAX + 1].join(",");
        assert_eq!(write(&onward(), &[("Connection", &many)]), Err(Unclean { part: "Connection" }));
    }

    #[test]
    fn exactly_one_value_of_x_forwarded_for() {
        let spoofed = [("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")];
        let text = write(&onward(), &spoofed).unwrap();
        assert_eq!(text.matches("x-forwarded-for").count(), 1);
        assert!(!text.contains("6.6.6.6") && !text.contains("7.7.7.7"));
    }

    #[test]
    fn the_chain_stands_where_the_client_would() {
        let spoofed = [("X-Forwarded-For", "6.6.6.6")];
        for (chain, line) in [
            (Chain::Written(b"203.0.113.9, 10.0.0.1".to_vec()), "x-forwarded-for: 203.0.113.9, 10.0.0.1\r\n"),
            (Chain::Nothing, ""),
        ] {
            let text = write(&Onward { chain: &chain, ..onward() }, &spoofed).unwrap();
            assert_eq!(text.matches("x-forwarded-for").count(), usize::from(!line.is_empty()));
            assert!(
                text.contains(line) && !text.contains("6.6.6.6") && !text.contains("2001:db8::7"),
                "{text}"
            );
        }
        let split = Chain::Written(b"203.0.113.9\r\nhost: b".to_vec());
        assert!(write(&Onward { chain: &split, ..onward() }, &[]).is_err());
    }

    #[test]
    fn cookies_become_one_field() {
        let fields = [("cookie", "a=1"), ("accept", "x"), ("cookie", ""), ("cookie", "b=2")];
        let lines = kept(&onward(), &fields);
        assert!(lines.contains(&"cookie: a=1; b=2".to_owned()), "{lines:?}");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn exactly_one_framing_field() {
        let lies = [("content-length", "7"), ("transfer-encoding", "gzip")];
        for (framing, line) in [
            (RequestFraming::Length(5), "content-length: 5\r\n"),
            (RequestFraming::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            let text = write(&Onward { framing, ..onward() }, &lies).unwrap();
            assert!(text.contains(line));
            assert_eq!(text.matches("content-length").count() + text.matches("transfer-encoding").count(), 1);
        }
        assert_eq!(framing(&Method::GET, Some(0)), RequestFraming::None);
        assert_eq!(framing(&Method::POST, Some(0)), RequestFraming::Length(0));
        assert_eq!(framing(&Method::GET, Some(3)), RequestFraming::Length(3));
        assert_eq!(framing(&Method::POST, None), RequestFraming::Chunked);
    }

    #[test]
    fn a_websocket_handshake_keeps_its_own_fields() {
        let fields = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", "k"),
            ("HTTP2-Settings", "x"),
        ];
        let text = write(&Onward { websocket: true, ..onward() }, &fields).unwrap();
        assert!(text.contains("connection: upgrade\r\nupgrade: websocket\r\n"));
        assert!(text.contains("sec-websocket-key: k\r\n"));
        assert_eq!(text.matches("upgrade: ").count(), 1);
        assert!(!write(&onward(), &fields).unwrap().contains("upgrade"));
    }

    #[test]
    fn nothing_that_ends_a_line_gets_through() {
        for bad in ["/a b", "/a\r\nX: y", "/a\n", "/a\0", "/a\u{7f}"] {
            assert_eq!(write(&Onward { path: bad, ..onward() }, &[]), Err(Unclean { part: "path" }));
            assert_eq!(write(&Onward { query: Some(bad), ..onward() }, &[]), Err(Unclean { part: "query" }));
            assert_eq!(write(&Onward { host: bad, ..onward() }, &[]), Err(Unclean { part: "host" }));
            assert!(write(&Onward { request_id: bad.as_bytes(), ..onward() }, &[]).is_err());
            assert!(write(&Onward { traceparent: bad.as_bytes(), ..onward() }, &[]).is_err());
        }
        for bad in [&b"a\nb"[..], b"a\rb", b"a\0b", b"\r\n"] {
            let mut out = Lines { bytes: BytesMut::new(), count: 0 };
            out.copy(b"accept", bad);
            assert!(out.finish().is_err(), "{}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn the_head_is_one_message_and_says_what_it_should(
            fields in prop::collection::vec(("[a-zA-Z_.-]{1,12}", "[ -~\t\u{e9}]{0,20}"), 0..20),
            path in "/[ -~\r\n]{0,12}",
        ) {
            let mut request = Request::new(());
            for (name, value) in &fields {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let (parts, ()) = request.into_parts();
            let Ok(bytes) = head(&Head::new(&parts), &Onward { path: &path, ..onward() }) else {
                prop_assert!(path.contains([' ', '\r', '\n']));
                return Ok(());
            };
            let mut lines = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut lines);
            prop_assert_eq!(parsed.parse(&bytes).unwrap(), httparse::Status::Complete(bytes.len()));
            let target = format!("{path}?x=1");
            prop_assert_eq!(parsed.path, Some(target.as_str()));
            let count = |name: &str| parsed.headers.iter().filter(|h| h.name == name).count();
            prop_assert_eq!((count("host"), count("x-forwarded-for")), (1, 1));
            prop_assert!(parsed.headers.iter().all(|h| !h.name.contains('_')));
        }
    }
}
