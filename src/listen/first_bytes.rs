//! What a connection's first bytes say about the protocol its client speaks.
//!
//! Sans-IO: bytes in, a verdict out. Only HTTP goes on; everything else is named, so that it can be
//! counted and, where a protocol has a proper way to say no, answered.

/// The most bytes that are ever needed for a verdict.
pub const ENOUGH: usize = 32;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They fit more than one protocol: read on.
    NeedMore,
    /// They fit this one.
    Speaks(Protocol),
}

/// A protocol that a client may speak. The label is a metrics label and a word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// A TLS record with a handshake message in it (RFC 8446 section 5.1).
    Tls,
    /// An HTTP/1 request line, well-formed or not: the parser behind says which.
    Http1,
    /// The HTTP/2 connection preface in plain text (RFC 9113 section 3.4).
    H2c,
    /// `SSH-2.0-…` (RFC 4253 section 4.2).
    Ssh,
    /// A mail client: EHLO, HELO, LHLO, MAIL (RFC 5321), or POP3 and IMAP openings.
    Mail,
    /// An FTP client: USER, AUTH TLS, FEAT (RFC 959).
    Ftp,
    /// A `MySQL` client packet. Its server speaks first, so few clients get this far.
    Mysql,
    /// A `PostgreSQL` start-up, SSL or cancel request.
    Postgres,
    /// RDP: a TPKT header with an X.224 connection request.
    Rdp,
    /// SOCKS4 or SOCKS5 (RFC 1928).
    Socks,
    /// Redis, as RESP arrays or inline commands.
    Redis,
    /// SMB 1, 2 or 3 over a `NetBIOS` session header.
    Smb,
    /// MQTT CONNECT.
    Mqtt,
    /// `BitTorrent`'s peer handshake.
    BitTorrent,
    /// A PROXY protocol header, version 1 or 2, which this listener was not told to expect.
    ProxyHeader,
    /// SIP, RTSP or another protocol with HTTP-like request lines.
    Rtsp,
    /// IRC: NICK, CAP LS, JOIN.
    Irc,
    /// Nothing known.
    Noise,
}

impl Protocol {
    /// Every protocol, in the order of the numbers that [`Protocol::index`] gives.
    pub const ALL: [Protocol; 18] = [
        Protocol::Tls,
        Protocol::Http1,
        Protocol::H2c,
        Protocol::Ssh,
        Protocol::Mail,
        Protocol::Ftp,
        Protocol::Mysql,
        Protocol::Postgres,
        Protocol::Rdp,
        Protocol::Socks,
        Protocol::Redis,
        Protocol::Smb,
        Protocol::Mqtt,
        Protocol::BitTorrent,
        Protocol::ProxyHeader,
        Protocol::Rtsp,
        Protocol::Irc,
        Protocol::Noise,
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tls => "tls",
            Protocol::Http1 => "http1",
            Protocol::H2c => "h2c",
            Protocol::Ssh => "ssh",
            Protocol::Mail => "mail",
            Protocol::Ftp => "ftp",
            Protocol::Mysql => "mysql",
            Protocol::Postgres => "postgres",
            Protocol::Rdp => "rdp",
            Protocol::Socks => "socks",
            Protocol::Redis => "redis",
            Protocol::Smb => "smb",
            Protocol::Mqtt => "mqtt",
            Protocol::BitTorrent => "bittorrent",
            Protocol::ProxyHeader => "proxy-header",
            Protocol::Rtsp => "rtsp",
            Protocol::Irc => "irc",
            Protocol::Noise => "noise",
        }
    }

    /// The position in [`Protocol::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Openings that are told by fixed bytes alone. The first that fits wins; `None` in a pattern is any
/// byte.
const FIXED: &[(Protocol, &[Option<u8>])] = &[
    // Content type 22, version 3.x, then a length of two bytes and handshake type 1 (ClientHello).
    (Protocol::Tls, &[Some(0x16), Some(3), None, None, None, Some(1)]),
    (Protocol::Smb, &[Some(0), None, None, None, Some(0xff), Some(b'S'), Some(b'M'), Some(b'B')]),
    (Protocol::Smb, &[Some(0), None, None, None, Some(0xfe), Some(b'S'), Some(b'M'), Some(b'B')]),
    // Length (below 64 KiB), then version 3.0, SSLRequest, CancelRequest or GSSENCRequest.
    (Protocol::Postgres, &[Some(0), Some(0), None, None, Some(0), Some(3), Some(0), Some(0)]),
    (Protocol::Postgres, &[Some(0), Some(0), Some(0), Some(8), Some(4), Some(210), Some(22), Some(47)]),
    (Protocol::Postgres, &[Some(0), Some(0), Some(0), Some(8), Some(4), Some(210), Some(22), Some(48)]),
    (Protocol::Postgres, &[Some(0), Some(0), Some(0), Some(16), Some(4), Some(210), Some(22), Some(46)]),
    // TPKT version 3, reserved 0, length, X.224 length, connection request.
    (Protocol::Rdp, &[Some(3), Some(0), None, None, None, Some(0xe0)]),
    // CONNECT, its remaining length (one byte in practice), and the protocol's name.
    (Protocol::Mqtt, &[Some(0x10), None, Some(0), Some(4), Some(b'M'), Some(b'Q'), Some(b'T'), Some(b'T')]),
    (Protocol::Mqtt, &[Some(0x10), None, None, Some(0), Some(4), Some(b'M'), Some(b'Q'), Some(b'T')]),
    (Protocol::Mqtt, &[Some(0x10), None, Some(0), Some(6), Some(b'M'), Some(b'Q'), Some(b'I'), Some(b's')]),
    // SOCKS5 with one to nine methods; SOCKS4 CONNECT and BIND.
    (Protocol::Socks, &[Some(4), Some(1)]),
    (Protocol::Socks, &[Some(4), Some(2)]),
    // Sequence 1 and capabilities with CLIENT_PROTOCOL_41: a login request after a greeting.
    (Protocol::Mysql, &[None, None, Some(0), Some(1), None, None, None, None, None, None, None, Some(1)]),
];

/// Openings that are told by text at the very start.
const TEXT: &[(Protocol, &[u8])] = &[
    (Protocol::H2c, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (Protocol::Ssh, b"SSH-"),
    (Protocol::BitTorrent, b"\x13BitTorrent protocol"),
    (Protocol::ProxyHeader, b"PROXY "),
    (Protocol::ProxyHeader, b"\r\n\r\n\0\r\nQUIT\n"),
];

/// Words that open a line protocol, and never an HTTP request with this spelling. Compared without
/// regard to case; what follows must be a blank or the end of the line.
const WORDS: &[(Protocol, &[u8])] = &[
    (Protocol::Mail, b"EHLO"),
    (Protocol::Mail, b"HELO"),
    (Protocol::Mail, b"LHLO"),
    (Protocol::Mail, b"MAIL"),
    (Protocol::Mail, b"STARTTLS"),
    (Protocol::Mail, b"STLS"),
    (Protocol::Mail, b"CAPA"),
    (Protocol::Mail, b"APOP"),
    (Protocol::Ftp, b"USER"),
    (Protocol::Ftp, b"AUTH"),
    (Protocol::Ftp, b"FEAT"),
    (Protocol::Ftp, b"SYST"),
    (Protocol::Ftp, b"PASS"),
    (Protocol::Ftp, b"QUIT"),
    (Protocol::Irc, b"NICK"),
    (Protocol::Irc, b"CAP"),
    (Protocol::Irc, b"JOIN"),
    (Protocol::Redis, b"PING"),
    (Protocol::Redis, b"INFO"),
    (Protocol::Redis, b"CONFIG"),
    (Protocol::Redis, b"FLUSHALL"),
    (Protocol::Redis, b"SLAVEOF"),
    (Protocol::Redis, b"EVAL"),
];

/// The registered methods (RFC 9110, RFC 5789, RFC 4918 and kin). After one of these, whatever follows,
/// the parser behind gives the answer.
const METHODS: &[&[u8]] = &[
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"TRACE",
    b"TRACK",
    b"CONNECT",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"MKCALENDAR",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"REPORT",
    b"SEARCH",
    b"PURGE",
    b"BAN",
    b"LINK",
    b"UNLINK",
    b"QUERY",
    b"VERSION-CONTROL",
    b"CHECKOUT",
];

/// Says what `bytes` open. Never answers [`Verdict::NeedMore`] once [`ENOUGH`] bytes are here, and a
/// verdict never changes when more bytes follow: the shortest opening that decides, decides.
#[must_use]
pub fn read(bytes: &[u8]) -> Verdict {
    (1..=bytes.len().min(ENOUGH))
        .filter_map(|length| bytes.get(..length))
        .map(judge)
        .find(|verdict| *verdict != Verdict::NeedMore)
        .unwrap_or(Verdict::NeedMore)
}

fn judge(opening: &[u8]) -> Verdict {
    match first_fit([texts(opening), fixed(opening), socks5(opening), resp(opening)].into_iter()) {
        Fit::Yes(protocol) => Verdict::Speaks(protocol),
        Fit::Maybe if opening.len() < ENOUGH => Verdict::NeedMore,
        Fit::Maybe | Fit::No => line(opening),
    }
}

enum Fit {
    Yes(Protocol),
    Maybe,
    No,
}

/// Whether `bytes` start with, or could grow into, one of the fixed texts.
fn texts(bytes: &[u8]) -> Fit {
    first_fit(TEXT.iter().map(|(protocol, text)| {
        let common = bytes.len().min(text.len());
        fit(*protocol, bytes.get(..common) == text.get(..common), common == text.len())
    }))
}

fn fixed(bytes: &[u8]) -> Fit {
    first_fit(FIXED.iter().map(|(protocol, pattern)| {
        let same = bytes.iter().zip(*pattern).all(|(byte, want)| want.is_none_or(|want| want == *byte));
        fit(*protocol, same, bytes.len() >= pattern.len())
    }))
}

/// Version 5, a count of methods, and that many methods from the few that are registered. Browsers'
/// proxies offer one to three.
fn socks5(bytes: &[u8]) -> Fit {
    match bytes {
        [5] => Fit::Maybe,
        [5, 1..=9, ..] => Fit::Yes(Protocol::Socks),
        _ => Fit::No,
    }
}

/// A RESP array: `*3\r\n$3\r\n…`.
fn resp(bytes: &[u8]) -> Fit {
    let [b'*', rest @ ..] = bytes else { return Fit::No };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    match rest.get(digits) {
        None if digits <= 6 => Fit::Maybe,
        Some(b'\r') if digits > 0 => Fit::Yes(Protocol::Redis),
        _ => Fit::No,
    }
}

fn fit(protocol: Protocol, same: bool, whole: bool) -> Fit {
    match (same, whole) {
        (true, true) => Fit::Yes(protocol),
        (true, false) => Fit::Maybe,
        (false, _) => Fit::No,
    }
}

fn first_fit(fits: impl Iterator<Item = Fit>) -> Fit {
    let mut open = false;
    for fit in fits {
        match fit {
            Fit::Yes(protocol) => return Fit::Yes(protocol),
            Fit::Maybe => open = true,
            Fit::No => {}
        }
    }
    if open { Fit::Maybe } else { Fit::No }
}

/// Text by its first word. Empty lines before a request line are skipped (RFC 9112 section 2.2).
fn line(bytes: &[u8]) -> Verdict {
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let text = bytes.get(start..).unwrap_or_default();
    let length = text.iter().take_while(|b| is_token(**b)).count();
    let (word, rest) = text.split_at_checked(length).unwrap_or_default();
    let request = METHODS.contains(&word);
    match rest {
        [] => undecided(bytes, word),
        _ if request => Verdict::Speaks(Protocol::Http1),
        _ if word.is_empty() => Verdict::Speaks(Protocol::Noise),
        [b' '] => undecided(bytes, word),
        // An unknown method is still HTTP when a path, `*` or an http URL follows.
        [b' ', b'/' | b'*', ..] => Verdict::Speaks(Protocol::Http1),
        [b' ' | b'\r' | b'\n', target @ ..] => match command(word) {
            Some(protocol) => Verdict::Speaks(protocol),
            None => by_target(bytes, target),
        },
        _ => Verdict::Speaks(Protocol::Noise),
    }
}

/// `WORD target` with a word that says nothing: an unregistered method, or an IMAP tag.
fn by_target(bytes: &[u8], target: &[u8]) -> Verdict {
    const TARGETS: [(Protocol, &[u8]); 6] = [
        (Protocol::Http1, b"http:"),
        (Protocol::Http1, b"https:"),
        (Protocol::Rtsp, b"rtsp:"),
        (Protocol::Rtsp, b"sip:"),
        (Protocol::Mail, b"CAPABILITY"),
        (Protocol::Mail, b"LOGIN "),
    ];
    let fits = TARGETS.iter().map(|(protocol, known)| {
        let common = target.len().min(known.len());
        let same = target
            .get(..common)
            .zip(known.get(..common))
            .is_some_and(|(have, want)| have.eq_ignore_ascii_case(want));
        fit(*protocol, same, common == known.len())
    });
    match first_fit(fits) {
        Fit::Yes(protocol) => Verdict::Speaks(protocol),
        Fit::Maybe if bytes.len() < ENOUGH => Verdict::NeedMore,
        Fit::Maybe | Fit::No => Verdict::Speaks(Protocol::Noise),
    }
}

fn command(word: &[u8]) -> Option<Protocol> {
    WORDS.iter().find(|(_, known)| known.eq_ignore_ascii_case(word)).map(|(protocol, _)| *protocol)
}

/// The first word has not ended. It is worth waiting for, unless it can no longer be a short one.
fn undecided(bytes: &[u8], word: &[u8]) -> Verdict {
    if bytes.len() < ENOUGH {
        return Verdict::NeedMore;
    }
    // A whole buffer of line breaks, or one word that long, opens nothing.
    Verdict::Speaks(if METHODS.contains(&word) { Protocol::Http1 } else { Protocol::Noise })
}

/// A token character (RFC 9110 section 5.6.2): methods and command words are made of these.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn speaks(bytes: &[u8]) -> Protocol {
        match read(bytes) {
            Verdict::Speaks(protocol) => protocol,
            Verdict::NeedMore => panic!("undecided: {:?}", bytes.escape_ascii().to_string()),
        }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        bytes: String,
        #[expect(dead_code, reason = "for the integration test that sends these bytes")]
        listener: String,
        protocol: String,
        #[expect(dead_code, reason = "for the integration test that sends these bytes")]
        answer: String,
    }

    /// `\r`, `\n`, `\t`, `\\` and `\xNN`, everything else as it stands.
    fn unescape(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text.as_bytes().iter().copied();
        while let Some(byte) = rest.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            match rest.next().unwrap() {
                b'r' => out.push(b'\r'),
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'x' => {
                    let pair = [rest.next().unwrap(), rest.next().unwrap()];
                    out.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
                }
                other => out.push(other),
            }
        }
        out
    }

    #[test]
    fn the_corpus_is_told_apart() {
        let corpus = include_str!("../../tests/corpus/first-bytes.yaml");
        let cases: Vec<Case> = serde_norway::from_str(corpus).unwrap();
        assert!(cases.len() >= 40, "{} cases", cases.len());
        for case in cases {
            let bytes = unescape(&case.bytes);
            let got = match read(&bytes) {
                Verdict::NeedMore => "undecided",
                Verdict::Speaks(protocol) => protocol.name(),
            };
            assert_eq!(got, case.protocol, "{}", case.name);
        }
    }

    #[test]
    fn every_protocol_but_none_is_in_the_corpus() {
        let corpus = include_str!("../../tests/corpus/first-bytes.yaml");
        let cases: Vec<Case> = serde_norway::from_str(corpus).unwrap();
        for protocol in Protocol::ALL {
            assert!(cases.iter().any(|c| c.protocol == protocol.name()), "{}", protocol.name());
        }
    }

    #[test]
    fn index_is_the_position() {
        for (position, protocol) in Protocol::ALL.iter().enumerate() {
            assert_eq!(protocol.index(), position);
        }
    }

    #[test]
    fn odd_requests_are_the_parsers_business() {
        for text in ["get / HTTP/1.1", "GET\t/ HTTP/1.1", "\r\nGET / HTTP/1.1", "FOO http://a/ HTTP/1.1"] {
            assert_eq!(speaks(text.as_bytes()), Protocol::Http1, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn enough_is_enough(bytes in prop::collection::vec(any::<u8>(), ENOUGH..80)) {
            prop_assert_ne!(read(&bytes), Verdict::NeedMore);
        }

        #[test]
        fn text_of_that_length_is_decided_too(text in "[A-Za-z0-9 :*/.\\r\\n-]{32,60}") {
            prop_assert_ne!(read(text.as_bytes()), Verdict::NeedMore);
        }

        #[test]
        fn a_verdict_stands(bytes in prop::collection::vec(any::<u8>(), 1..40), cut in 0usize..40) {
            let short = read(&bytes[..cut.min(bytes.len())]);
            if short != Verdict::NeedMore {
                prop_assert_eq!(short, read(&bytes));
            }
        }

        #[test]
        fn every_request_with_a_path_is_http(method in "[A-Z]{1,12}", path in "/[a-z0-9/._-]{0,40}") {
            let line = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            prop_assert_eq!(read(line.as_bytes()), Verdict::Speaks(Protocol::Http1));
        }

        #[test]
        fn every_client_hello_is_tls(minor in 1u8..=4, length: u16, rest in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![0x16, 3, minor];
            bytes.extend(length.to_be_bytes());
            bytes.push(1);
            bytes.extend(rest);
            prop_assert_eq!(read(&bytes), Verdict::Speaks(Protocol::Tls));
        }
    }
}
