// Requests as they come over the wire: mostly well-formed, often slightly wrong. Included by the tests that
// hold the decoder against other readers (`src/http1/request_twin_test.rs`, `tests/guardian`).

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Some requests behind each other, and a few bytes of damage.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::collection::vec(request(), 1..4).prop_map(|requests| requests.concat());
    let damage = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(edit(), 1..3)];
    (requests, damage).prop_map(|(mut bytes, edits)| {
        for edit in edits {
            edit.make(&mut bytes);
        }
        bytes
    })
}

/// One byte that is put in, taken out, or replaced.
#[derive(Clone, Debug)]
struct Edit {
    at: Index,
    kind: u8,
    byte: u8,
}

impl Edit {
    fn make(&self, bytes: &mut Vec<u8>) {
        let at = self.at.index(bytes.len() + 1);
        match self.kind {
            0 => bytes.insert(at, self.byte),
            _ if at == bytes.len() => bytes.push(self.byte),
            1 => bytes[at] = self.byte,
            _ => drop(bytes.remove(at)),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = prop_oneof![select(b"\r\n \t:,;/#\0\x0b\x7f\xa0\xffcC0aA_-".as_slice()), any::<u8>()];
    (any::<Index>(), 0..3_u8, byte).prop_map(|(at, kind, byte)| Edit { at, kind, byte })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = (method(), blank(), target(), blank(), version(), line_end())
        .prop_map(|(a, b, c, d, e, f)| format!("{a}{b}{c}{d}{e}{f}").into_bytes());
    let host =
        mostly(&["Host: a.test\r\n"], &["", "Host: a.test\r\nHost: a.test\r\n", "host:\r\n", "Host : a\r\n"]);
    let lead = mostly(&[""], &["\r\n", "\n", "\r\n\r\n", " "]);
    (lead, line, host, prop::collection::vec(field(), 0..5), body(), line_end(), any::<bool>()).prop_map(
        |(lead, line, host, mut fields, (framing, body), end, first)| {
            fields.insert(if first { 0 } else { fields.len() }, framing.into_bytes());
            let fields = fields.concat();
            [lead.as_bytes(), &line, host.as_bytes(), &fields, end.as_bytes(), body.as_bytes()].concat()
        },
    )
}

/// One of the usual, or, now and then, one of the others.
fn mostly(usual: &'static [&'static str], odd: &'static [&'static str]) -> BoxedStrategy<String> {
    prop_oneof![30 => select(usual), 1 => select(odd)].prop_map(str::to_owned).boxed()
}

fn method() -> impl Strategy<Value = String> {
    let usual = &["GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "PROPFIND"];
    mostly(usual, &["get", "CONNECT", "TRACE", "", "G T", "G\0T", "G(T", "GET\t", "!#$%&'*+-.^_`|~"])
}

fn target() -> BoxedStrategy<String> {
    let odd = &[
        "",
        "x",
        "?x",
        "*",
        "/#",
        "/\u{1}",
        "/\u{e9}",
        "/\0",
        "http://",
        "http:///x",
        "https://a.test?x",
        "ftp://a/",
        "a.test:443",
        "a.test",
        "//a//b",
        "/a\\b",
        "/<x>",
        "/\"",
        "/?<x>\"",
        "/`",
        "/?`{}|\\^",
        "/^{}|",
        "HTTP://A.TEST/%zz",
        "http://me@a.test/",
        "http://[::1]:80/",
        "http://a b/",
        "/a b",
    ];
    prop_oneof![
        6 => "/[a-z0-9/._~%+-]{0,16}",
        4 => "/[a-z]{0,4}\\?[a-z0-9=&%+\\[\\]|{}^;:@!$'()*,/?.-]{0,20}",
        1 => "https?://a\\.test(:[0-9]{1,3})?(/[a-z]{0,4})?(\\?[a-z]{0,3})?",
        1 => select(odd.as_slice()).prop_map(str::to_owned),
    ]
    .boxed()
}

fn version() -> impl Strategy<Value = String> {
    let odd = &[
        "HTTP/1.0",
        "HTTP/1.0",
        "HTTP/1.2",
        "HTTP/0.9",
        "HTTP/2.0",
        "http/1.1",
        "HTTP/1.1 ",
        "HTTP/11",
        "",
        " HTTP/1.1",
    ];
    mostly(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"], odd)
}

fn blank() -> impl Strategy<Value = String> {
    mostly(&[" ", " ", " "], &["  ", "\t", "", " \t"])
}

fn line_end() -> impl Strategy<Value = String> {
    mostly(&["\r\n", "\r\n", "\r\n"], &["\n", "\r", "\r\r\n", "\n\r\n", " \r\n", "\r\n \r\n"])
}

/// A field that is not about the body, its line end included.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => "[A-Za-z][A-Za-z0-9-]{0,20}: [!-~]([ -~\t]{0,30}[!-~])?",
        1 => "[A-Za-z_-]{1,8}:[ \t]{0,2}[ -~\t]{0,12}",
        2 => select(LINES).prop_map(str::to_owned),
        1 => select(ODD_LINES).prop_map(str::to_owned),
    ];
    let raw = prop_oneof![
        12 => line.prop_map(String::into_bytes),
        1 => prop::collection::vec(0x80_u8.., 0..6).prop_map(|text| [b"X-Name: ", text.as_slice()].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(|text| [b"X-Name: ", text.as_slice()].concat()),
    ];
    (raw, line_end()).prop_map(|(line, end)| [line.as_slice(), end.as_bytes()].concat())
}

const LINES: &[&str] = &[
    "Connection: keep-alive",
    "Connection: close",
    "Connection: Upgrade, close",
    "Connection: x, TE",
    "Connection: Transfer-Encoding",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "TE: trailers",
    "Cookie: a=b; c=\"d\"",
    "Content-Type: text/plain",
    "Keep-Alive: 5",
    "Accept: */*",
    "Trailer: X",
];

const ODD_LINES: &[&str] = &[
    "",
    ":",
    ": x",
    "X",
    "X Y",
    "X : y",
    " X: y",
    "\tX: y",
    "X: a\r\n b",
    "X:\r\n b",
    "X: a\r\n Content-Length: 3",
    "Content-Length : 3",
    "Content_Length: 3",
    "Content Length: 3",
    "Content-Length\t: 3",
    "Content-Leng---: 3",
    "c-------------: 3",
    "ContentXLength: 3",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\u{b}: chunked",
    "Transfer--Encoding: chunked",
    "'Transfer-Encoding: chunked",
    "Transfer-Encod\u{131}ng: chunked",
    "Tran\u{17f}fer-Encoding: chunked",
    "X: \0",
    "X: \u{1b}[m",
    "X(: y",
    "Expect: 200-ok",
    "Host: b.test",
    "Content-Length-X: 3",
    "Content-Type: a\r\n b",
    "X: a\r\n Transfer-Encoding: chunked",
];

/// The lines about the body, and what stands behind the head; they mostly agree.
fn body() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        8 => Just((String::new(), String::new())),
        4 => "[a-z ]{0,8}".prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        1 => (length(), "[0-9a-z]{0,8}").prop_map(|(line, body)| (format!("{line}\r\n"), body)),
        4 => prop::collection::vec("[a-z\r\n ]{1,20}", 0..3)
            .prop_map(|pieces| ("Transfer-Encoding: chunked\r\n".to_owned(), chunks(&pieces))),
        2 => (encoding(), prop::collection::vec("[a-z]{1,3}", 0..2))
            .prop_map(|(line, pieces)| (format!("{line}\r\n"), chunks(&pieces))),
        1 => (length(), encoding(), any::<bool>()).prop_map(|(a, b, swap)| {
            let (first, second) = if swap { (b, a) } else { (a, b) };
            (format!("{first}\r\n{second}\r\n"), "0\r\n\r\n".to_owned())
        }),
    ]
}

fn length() -> impl Strategy<Value = String> {
    select(
        [
            "Content-Length: 0",
            "Content-Length: 3",
            "content-length:3",
            "Content-Length: +3",
            "Content-Length: -3",
            "Content-Length: 3,3",
            "Content-Length: 3 3",
            "Content-Length: 03",
            "Content-Length: 0x3",
            "Content-Length:",
            "Content-Length: 3\u{b}",
            "Content-Length: 3\u{a0}",
            "Content-Length: 99999999999999999999",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3\r\n 3",
            "Content-Length:\r\n 3",
            "Content-Length: 3 ",
            "CONTENT-LENGTH: \t3",
        ]
        .as_slice(),
    )
    .prop_map(str::to_owned)
}

fn encoding() -> impl Strategy<Value = String> {
    select(
        [
            "Transfer-Encoding: chunked",
            "transfer-encoding:Chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chunked;x",
            "Transfer-Encoding:\u{b}chunked",
            "Transfer-Encoding: chunked\u{1}",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: chunked ",
        ]
        .as_slice(),
    )
    .prop_map(str::to_owned)
}

fn chunks(pieces: &[String]) -> String {
    let chunk = |piece: &String| format!("{:x}\r\n{piece}\r\n", piece.len());
    pieces.iter().map(chunk).chain(["0\r\n\r\n".to_owned()]).collect::<Vec<_>>().concat()
}
