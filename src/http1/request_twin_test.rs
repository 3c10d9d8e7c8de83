//! The decoder against hyper's: what we accept, hyper reads the same way.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::chunked::{self, Piece};
use super::framing::RequestFraming;
use super::grade::Mode;
use super::request::{Decoder, Limits, RequestHead};

#[path = "../../tests/fuzz/requests.rs"]
mod requests;

const LIMITS: Limits = Limits { request_line: 8 << 10, fields: 100, fields_size: 64 << 10 };

/// A request as somebody understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    method: Method,
    target: Uri,
    version: Version,
    /// Sorted by name; lines of a name in order.
    fields: Vec<(String, Vec<u8>)>,
    /// None if it does not come to its end, or is refused.
    body: Option<Vec<u8>>,
}

/// All that we read of a stream, and how it ended.
#[derive(Debug, Default)]
struct Ours {
    read: Vec<Read>,
    /// The connection may carry more behind the last one.
    goes_on: bool,
}

fn ours(input: &[u8]) -> Option<Ours> {
    let mut input = BytesMut::from(input);
    let mut decoder = Decoder::default();
    let mut ours = Ours::default();
    while let Ok(Some(head)) = decoder.decode(&mut input, &LIMITS, Mode::Strictest) {
        let body = body(head.body(), &mut input);
        let complete = body.is_some();
        ours.read.push(read(&head, body)?);
        ours.goes_on = complete && head.persists();
        if !ours.goes_on {
            break;
        }
    }
    Some(ours)
}

/// None if the target is one of those that `http::Uri`, and hyper with it, refuses.
fn read(head: &RequestHead, body: Option<Vec<u8>>) -> Option<Read> {
    let mut fields: Vec<_> = head.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let Ok(target) = head.target().parse() else {
        assert!(is_only_ours(head.target()), "hyper refuses {:?}", head.target());
        return None;
    };
    Some(Read { method: head.method().clone(), target, version: head.version(), fields, body })
}

/// What we accept and `http::Uri` does not: bytes that every client should escape and browsers send raw in a
/// query, or an authority that is none, which is judged with the Host.
fn is_only_ours(target: &str) -> bool {
    target.contains(['"', '<', '>', '`', '{', '}', '|', '\\', '^']) || !target.starts_with('/')
}

fn body(framing: RequestFraming, input: &mut BytesMut) -> Option<Vec<u8>> {
    match framing {
        RequestFraming::None => Some(Vec::new()),
        RequestFraming::Length(length) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= input.len())?;
            Some(input.split_to(length).to_vec())
        }
        RequestFraming::Chunked => {
            let (mut decoder, mut body) = (chunked::Decoder::default(), Vec::new());
            loop {
                match decoder.decode(input) {
                    Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                    Ok(Piece::End) => return Some(body),
                    Ok(Piece::More) | Err(_) => return None,
                }
            }
        }
    }
}

/// The stream, and then its end; what is written goes nowhere.
struct Script(Bytes);

impl hyper::rt::Read for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.0.len().min(into.remaining());
        into.put_slice(&self.0[..length]);
        self.0.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn hyper_reads(input: &[u8]) -> (Vec<Read>, Result<(), hyper::Error>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let mut fields = Vec::new();
            for name in parts.headers.keys() {
                let lines = parts.headers.get_all(name).iter();
                fields.extend(lines.map(|value| (name.as_str().to_owned(), value.as_bytes().to_vec())));
            }
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let (method, target, version) = (parts.method, parts.uri, parts.version);
            seen.lock().unwrap().push(Read { method, target, version, fields, body });
            let mut response = Response::new(Empty::<Bytes>::new());
            // A success would open a tunnel for CONNECT.
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            Ok::<_, Infallible>(response)
        }
    });
    let script = Script(Bytes::copy_from_slice(input));
    let ended = http1::Builder::new().half_close(true).serve_connection(script, service).await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, ended)
}

fn compare(input: &[u8], runtime: &tokio::runtime::Runtime) -> Result<(), TestCaseError> {
    let Some(ours) = ours(input) else { return Ok(()) };
    let (theirs, ended) = runtime.block_on(hyper_reads(input));
    let text = input.escape_ascii().to_string();
    for (index, read) in ours.read.iter().enumerate() {
        // A body that we refuse (hyper ends one behind a bare LF, we do not) is nobody's: only its head is compared.
        let theirs = theirs
            .get(index)
            .map(|theirs| Read { body: read.body.as_ref().and(theirs.body.clone()), ..theirs.clone() });
        prop_assert_eq!(Some(read), theirs.as_ref(), "request {} of {}: {:?}", index, text, ended);
    }
    // hyper passes over a Connection that is not all ASCII, and a `close` in it; to us it is the end.
    let is_unread =
        |read: &Read| read.fields.iter().any(|(name, value)| name == "connection" && !value.is_ascii());
    let last = ours.read.last().filter(|last| last.body.is_some() && !is_unread(last));
    let closed = last.is_some() && !ours.goes_on;
    prop_assert!(!closed || theirs.len() == ours.read.len(), "hyper goes on behind the last of {}", text);
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// How many streams are tried: more by `PROPTEST_CASES`, as for every other property.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(4000)
}

#[test]
fn what_we_accept_hyper_reads_alike() {
    let runtime = runtime();
    let mut accepted = 0_u32;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    // hyper takes the bare LF for the end of the trailers; chance finds it once in some 80,000 streams.
    let bare_end =
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n";
    compare(bare_end, &runtime).unwrap();
    let outcome = runner.run(&requests::stream(), |input| compare(&input, &runtime));
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // The samples are worth something only if enough of them are accepted.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..1000 {
        let input = requests::stream().new_tree(&mut runner).unwrap().current();
        accepted += u32::from(ours(&input).is_none_or(|ours| !ours.read.is_empty()));
    }
    assert!((300..900).contains(&accepted), "{accepted} of 1000 were accepted");
}
