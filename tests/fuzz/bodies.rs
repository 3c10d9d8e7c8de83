// What is fuzzed: one function per decoder, bytes in, panics if a promise is broken. Included by the fuzz
// targets (coverage-guided) and by `tests/it/fuzz_twin.rs` (stable toolchain, bounded), so that both run
// the same bodies.

use bytes::BytesMut;

/// Takes any bytes; panics if a promise is broken.
pub(crate) type Body = fn(&[u8]);

/// Every body with the name of its target, and how many times as dear as a decoder it is.
pub(crate) const ALL: [(&str, Body, usize); 13] = [
    ("chunked", chunked, 1),
    ("config", config, 10),
    ("first_bytes", first_bytes, 1),
    ("forwarded", forwarded, 1),
    ("host", host, 1),
    ("login", login, 1),
    ("path", path, 1),
    ("proxy_protocol", proxy_protocol, 1),
    ("request_head", request_head, 1),
    ("response_head", response_head, 1),
    ("set_cookie", set_cookie, 1),
    ("tickets", tickets, 4),
    ("traceparent", traceparent, 1),
];

/// A configuration is usable exactly if nothing in it is an error; every complaint says something, points
/// into the text, and can be shown.
pub(crate) fn config(data: &[u8]) {
    use ravelin::config::complaint::Severity;
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What would be read from the machine that fuzzes is not what is fuzzed.
    if text.contains("file:") || text.contains("${") {
        return;
    }
    let nowhere = std::path::PathBuf::from("/nonexistent/fuzz");
    let loaded = ravelin::config::load_text("fuzz.toml", text.to_owned(), nowhere);
    let errors = loaded.complaints.iter().any(|complaint| complaint.severity == Severity::Error);
    assert_eq!(loaded.generation.is_none(), errors, "{}", loaded.complaints);
    for complaint in loaded.complaints.iter() {
        assert!(!complaint.message.is_empty() && complaint.to_string().contains(&complaint.message));
        let Some(place) = complaint.place.as_ref().filter(|place| place.source.name == "fuzz.toml") else {
            continue;
        };
        assert!(place.source.text.get(place.span.clone()).is_some(), "{complaint} points outside");
        assert!(place.line() <= text.split('\n').count(), "{complaint} names a line that is none");
    }
}

/// What lies on the shelf is written as it was read, and nothing but a ticket opens.
pub(crate) fn tickets(data: &[u8]) {
    use ravelin::clock::Millis;
    use ravelin::tls::tickets::{PERIOD, Ring, is_tls13};
    let ring = Ring::read(data).unwrap_or_default();
    assert!(ring.write().as_slice() == data || Ring::read(data).is_none());
    for number in [0, 1, 2, 3, 6] {
        let now = Millis(0).plus(PERIOD * number);
        assert_eq!(ring.open(data, now), None);
        let Some(ticket) = ring.seal(data, now) else { continue };
        assert_eq!(ring.open(&ticket, now).as_deref(), Some(data));
    }
    assert!(!is_tls13(data) || data.windows(2).any(|pair| pair == [3, 4]));
}

/// A header ends within its bytes and its bounds, and means the same whatever comes behind it.
pub(crate) fn proxy_protocol(data: &[u8]) {
    use ravelin::listen::proxy_protocol::{LONGEST, read};
    match read(data) {
        Ok(Some((header, length))) => {
            assert!(length <= data.len() && length <= LONGEST);
            assert_eq!(read(&data[..length]), Ok(Some((header, length))));
            assert_eq!(read(&data[..length - 1]), Ok(None));
        }
        Ok(None) => assert!(data.len() < LONGEST),
        Err(fault) => assert_eq!(read(&[data, b"x"].concat()), Err(fault)),
    }
}

/// A line keeps every byte and its cookie's name, gets what is wanted once, and is complete then.
pub(crate) fn set_cookie(data: &[u8]) {
    use ravelin::harden::set_cookie::{Wanted, complete, name};
    for bits in 0..8_u8 {
        let wanted = Wanted { secure: bits & 1 != 0, http_only: bits & 2 != 0, lax: bits & 4 != 0 };
        let done = complete(data, wanted).unwrap_or_else(|| data.to_vec());
        assert!(done.starts_with(data), "{:?}", data.escape_ascii().to_string());
        assert_eq!(complete(&done, wanted), None, "{:?}", data.escape_ascii().to_string());
        if !name(data).is_empty() {
            assert_eq!(name(&done), name(data), "{:?}", data.escape_ascii().to_string());
        }
        for (attribute, wants) in
            [("secure", wanted.secure), ("httponly", wanted.http_only), ("samesite", wanted.lax)]
        {
            let (before, after) = (attributes(data, attribute), attributes(&done, attribute));
            let expected = if wants { before.max(1) } else { before };
            assert_eq!(after, expected, "{attribute} of {:?}", data.escape_ascii().to_string());
        }
    }
}

/// How often a line has an attribute, as RFC 6265 section 5.2 reads it.
fn attributes(line: &[u8], wanted: &str) -> usize {
    let named = |attribute: &&[u8]| {
        let name = attribute.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
    };
    line.split(|byte| *byte == b';').skip(1).filter(named).count()
}

/// A normalised path is absolute, has no empty, `.` or `..` segment, and is its own normal form.
pub(crate) fn path(data: &[u8]) {
    use ravelin::guard::path::normalise;
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(path) = normalise(raw) else { return };
    assert!(path.starts_with('/'), "{raw:?} became {path:?}");
    let inner: Vec<&str> = path.split('/').skip(1).collect();
    let last = inner.len() - 1;
    for (position, segment) in inner.iter().enumerate() {
        assert!(position == last || !segment.is_empty(), "an empty segment: {raw:?} became {path:?}");
        assert!(!matches!(*segment, "." | ".."), "a dot segment: {raw:?} became {path:?}");
    }
    let lower = path.to_ascii_lowercase();
    for unclear in ["%2e", "%2f", "%5c", "%00", "\\", "\0"] {
        assert!(!lower.contains(unclear), "{unclear:?} is left: {raw:?} became {path:?}");
    }
    assert_eq!(normalise(&path).as_deref(), Ok(&*path), "not its own normal form: {raw:?}");
}

/// A host is lower-case, without blank, slash or `@`, and is read again as the same host.
pub(crate) fn host(data: &[u8]) {
    use ravelin::guard::host::Authority;
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(authority) = Authority::parse(raw) else { return };
    let host = authority.host.to_string();
    assert_eq!(host, host.to_ascii_lowercase(), "{raw:?}");
    assert!(!host.is_empty() && !host.ends_with('.'), "{raw:?} became {host:?}");
    assert!(!host.contains(['/', '@', '?', '#', ' ', ',', '\\', '%', '\t', '\0']), "{raw:?} became {host:?}");
    let again = Authority::parse(&host);
    assert_eq!(again.as_ref().map(|a| a.host.to_string()), Ok(host.clone()), "{raw:?}");
    assert!(again.is_ok_and(|a| a.port.is_none()), "{raw:?}: the port is not part of the host");
}

/// What strangers wrote on the left never changes who is believed: the nearest hops decide.
pub(crate) fn forwarded(data: &[u8]) {
    use ravelin::client::forwarded::{address, elements, hops, last, node, walk};
    let peer = std::net::IpAddr::from([192, 0, 2, 1]);
    let trusts = |addr: std::net::IpAddr| addr.is_loopback();
    let client = walk(peer, hops(data), trusts);
    let spoofed = [b"6.6.6.6, ::6, nonsense, ", data].concat();
    let decided = hops(data).any(|hop| hop.is_none_or(|addr| !trusts(addr)));
    if decided {
        assert_eq!(walk(peer, hops(&spoofed), trusts), client, "{:?}", String::from_utf8_lossy(data));
    }
    if let Some(addr) = address(last(data)) {
        assert_eq!(addr.to_canonical(), addr, "IPv4 in IPv6 is IPv4");
        assert_eq!(address(addr.to_string().as_bytes()), Some(addr));
    }
    for element in elements(data) {
        let _ = node(element);
    }
}

/// A head is the same however it arrives, never longer than its limit, and clean.
pub(crate) fn response_head(data: &[u8]) {
    use ravelin::http1::response::Decoder;
    const LIMIT: usize = 4096;
    let mut whole = BytesMut::from(data);
    let at_once = Decoder::default().decode(&mut whole, LIMIT);
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
    let mut in_pieces = Ok(None);
    for byte in data {
        input.extend_from_slice(&[*byte]);
        in_pieces = decoder.decode(&mut input, LIMIT);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
    }
    match (&at_once, &in_pieces) {
        (Ok(Some(_)), Ok(Some(_))) => {
            assert!(data.len() - whole.len() <= LIMIT);
            assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        _ => panic!("{at_once:?} at once, {in_pieces:?} in pieces"),
    }
}

/// A head is the same however it arrives, within its limits, and what is accepted is clean: names and values
/// that can be written anew, one Host at most, one framing that the fields say too.
pub(crate) fn request_head(data: &[u8]) {
    use ravelin::http1::framing::RequestFraming;
    use ravelin::http1::grade::{Class, Mode};
    use ravelin::http1::request::{Decoder, Limits};
    const LIMITS: Limits = Limits { request_line: 512, fields: 20, fields_size: 2048 };
    let mut whole = BytesMut::from(data);
    let at_once = Decoder::default().decode(&mut whole, &LIMITS, Mode::Defensive);
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::new());
    let mut in_pieces = Ok(None);
    for byte in data {
        input.extend_from_slice(&[*byte]);
        in_pieces = decoder.decode(&mut input, &LIMITS, Mode::Defensive);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
        assert!(input.len() <= LIMITS.request_line + LIMITS.fields_size + 8, "too much is kept");
    }
    assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
    let strict = Decoder::default().decode(&mut BytesMut::from(data), &LIMITS, Mode::Strictest);
    let Ok(Some(head)) = at_once else {
        assert!(!matches!(strict, Ok(Some(_))), "the strictest mode accepts more than another");
        return;
    };
    assert_eq!(matches!(strict, Ok(Some(_))), head.class() < Class::Ambiguous);
    assert!(head.target().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    for (name, value) in head.iter() {
        assert!(http::HeaderName::from_lowercase(name.as_bytes()).is_ok(), "{name:?}");
        assert!(http::HeaderValue::from_bytes(value).is_ok(), "{:?}", value.escape_ascii().to_string());
        assert!(head.all(name).any(|found| found == value));
    }
    let count = |name| head.all(name).count();
    let framed = match head.body() {
        RequestFraming::None => (0, 0),
        RequestFraming::Length(_) => (1, 0),
        RequestFraming::Chunked => (0, 1),
    };
    assert_eq!((count("content-length"), count("transfer-encoding")), framed);
    assert!(count("host") <= 1);
}

/// A body is the same however it arrives, and what was never well-formed never ends well.
pub(crate) fn chunked(data: &[u8]) {
    let at_once = unchunk([data]);
    for size in [1, 3, 7] {
        assert_eq!(unchunk(data.chunks(size)), at_once, "in pieces of {size}");
    }
}

/// The body, whether it ended, and what followed it; none if it is malformed.
fn unchunk<'d>(pieces: impl IntoIterator<Item = &'d [u8]>) -> Option<(Vec<u8>, bool, Vec<u8>)> {
    use ravelin::http1::chunked::{Decoder, Piece};
    let (mut decoder, mut input, mut body) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut ended = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        while !ended {
            match decoder.decode(&mut input) {
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::More) => break,
                Ok(Piece::End) => ended = true,
                Err(_) => return None,
            }
        }
    }
    Some((body, ended, if ended { input.to_vec() } else { Vec::new() }))
}

/// A verdict never changes when more bytes follow, and there always is one after enough bytes.
pub(crate) fn first_bytes(data: &[u8]) {
    use ravelin::listen::first_bytes::{ENOUGH, Verdict, read};
    let mut verdict = Verdict::NeedMore;
    for length in 0..=data.len().min(ENOUGH + 8) {
        let now = read(&data[..length]);
        assert!(verdict == Verdict::NeedMore || now == verdict, "{verdict:?} became {now:?} at {length}");
        assert!(length < ENOUGH || now != Verdict::NeedMore, "undecided after {length}");
        verdict = now;
    }
}

/// A parent is read only if it is well-formed, and what goes on carries its trace under a span of our own.
pub(crate) fn traceparent(data: &[u8]) {
    use ravelin::observe::trace::{Parent, Traceparent};
    let parent = Parent::parse(data);
    let onward = Traceparent::following(parent.as_ref(), || 0x0123_4567_89ab_cdef);
    let text = onward.as_str();
    assert!(
        text.len() == 55
            && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert!(Parent::parse(text.as_bytes()).is_some(), "{text}");
    if let Some(parent) = parent {
        assert!(data.windows(32).any(|window| window == onward.trace().as_bytes()), "the trace goes on");
        assert_ne!(parent.span(), Some(onward.span()), "under a span of our own");
    }
}

/// Fields are found wherever a body is cut, a whole name or value is never longer than what is kept, and what an
/// urlencoded body holds is what a query of the same bytes holds.
pub(crate) fn login(data: &[u8]) {
    use ravelin::login::fields::Fields;
    use ravelin::login::form::{Form, VALUE_MAX};
    use ravelin::login::multipart::Multipart;
    let said = |fields: &Fields| {
        let words = [fields.login_status(), fields.login_type(), fields.install_login(), fields.verify()];
        let users = [fields.backend_user.clone(), fields.frontend_user.clone()];
        assert!(users.iter().flatten().all(|user| user.len() <= VALUE_MAX));
        (words, users)
    };
    let form = |size: usize| {
        let (mut form, mut fields) = (Form::default(), Fields::default());
        data.chunks(size).for_each(|piece| form.push(piece, &mut fields));
        form.end(&mut fields);
        said(&fields)
    };
    let multipart = |size: usize| {
        let mut multipart = Multipart::new(b"multipart/form-data; boundary=--ab").expect("a boundary");
        let mut fields = Fields::default();
        data.chunks(size).for_each(|piece| multipart.push(piece, &mut fields));
        multipart.end(&mut fields);
        said(&fields)
    };
    let whole = data.len().max(1);
    for size in [1, 3, 7] {
        assert_eq!(form(size), form(whole), "urlencoded, in pieces of {size}");
        assert_eq!(multipart(size), multipart(whole), "multipart, in pieces of {size}");
    }
    let mut query = Fields::default();
    query.query(data);
    assert_eq!(said(&query).0, form(whole).0, "a query, and a body");
    let user = ravelin::login::basic::user(&[b"Basic ", data].concat());
    assert!(user.is_some_and(|user| user.len() <= VALUE_MAX));
}
