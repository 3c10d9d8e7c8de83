//! The view of a request head that guards look at.
//!
//! A guard never sees `http::Request`: it asks this view for the method, the target and a handful of
//! fields by name. Behind it stands hyper's `HeaderMap` (HTTP/2), or the bytes that were received
//! (HTTP/1), for which no map is built.

use http::{HeaderName, Method, Version, request};

use crate::http1::grade::Fault;
use crate::http1::request::RequestHead;

/// One request head, borrowed for as long as the guards decide.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a>(Source<'a>);

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    Parsed(&'a request::Parts, Option<Fault>),
    Received(&'a RequestHead),
}

/// Either of two iterators over the same things.
enum Either<A, B> {
    Parsed(A),
    Received(B),
}

/// A request target in its parts, split and not yet judged (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTarget<'a> {
    /// The scheme of an absolute-form, or HTTP/2's `:scheme`.
    pub scheme: Option<&'a str>,
    /// The authority of an absolute- or authority-form, or HTTP/2's `:authority`.
    pub authority: Option<&'a str>,
    /// The path as received; `*` in asterisk-form, none in authority-form.
    pub path: Option<&'a str>,
    /// The query as received, without its `?`.
    pub query: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// The view over a head that hyper has parsed.
    #[must_use]
    pub fn new(parts: &'a request::Parts) -> Self {
        Self(Source::Parsed(parts, None))
    }

    /// The same view, with what its connection has found wrong with it.
    #[must_use]
    pub fn graded(parts: &'a request::Parts, fault: Option<Fault>) -> Self {
        Self(Source::Parsed(parts, fault))
    }

    /// The view over a head as it was received.
    #[must_use]
    pub fn received(head: &'a RequestHead) -> Self {
        Self(Source::Received(head))
    }

    /// The request method.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        match self.0 {
            Source::Parsed(parts, _) => &parts.method,
            Source::Received(head) => head.method(),
        }
    }

    /// The request target, split.
    #[must_use]
    pub fn target(&self) -> RawTarget<'a> {
        match self.0 {
            Source::Parsed(parts, _) => RawTarget::of_uri(&parts.uri),
            Source::Received(head) => RawTarget::of_text(head.target()),
        }
    }

    /// Bytes that the target has on the wire of HTTP/1.
    #[must_use]
    pub fn target_len(&self) -> usize {
        match self.0 {
            Source::Parsed(parts, _) => RawTarget::of_uri(&parts.uri).len(),
            Source::Received(head) => head.target_len(),
        }
    }

    /// The protocol version the client spoke.
    #[must_use]
    pub fn version(&self) -> Version {
        match self.0 {
            Source::Parsed(parts, _) => parts.version,
            Source::Received(head) => head.version(),
        }
    }

    /// The worst that was found wrong with it as a message, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self.0 {
            Source::Parsed(_, fault) => fault,
            Source::Received(head) => head.fault(),
        }
    }

    /// Whether its connection has refused it for that already.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.0, Source::Received(head) if head.is_refused())
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&'a [u8]> {
        match self.0 {
            Source::Parsed(parts, _) => parts.headers.get(name).map(http::HeaderValue::as_bytes),
            Source::Received(head) => head.get(name.as_str()),
        }
    }

    /// Every value of `name`, in order; chains of proxies are read from the end.
    pub fn all<'n>(&self, name: &'n HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        match self.0 {
            Source::Parsed(parts, _) => {
                Either::Parsed(parts.headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
            }
            Source::Received(head) => Either::Received(head.all(name.as_str())),
        }
    }

    /// Every field line, its name in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        match self.0 {
            Source::Parsed(parts, _) => {
                Either::Parsed(parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
            }
            Source::Received(head) => Either::Received(head.iter()),
        }
    }

    /// The same as [`Head::iter`], with the names as bytes: cheaper where they are only copied or compared.
    pub fn lines(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        match self.0 {
            Source::Parsed(parts, _) => {
                let line = |(name, value): (&'a HeaderName, &'a http::HeaderValue)| {
                    (name.as_str().as_bytes(), value.as_bytes())
                };
                Either::Parsed(parts.headers.iter().map(line))
            }
            Source::Received(head) => Either::Received(head.lines()),
        }
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Parsed(parts, _) => parts.headers.len(),
            Source::Received(head) => head.len(),
        }
    }

    /// Whether the head carries no field at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<A: Iterator, B: Iterator<Item = A::Item>> Iterator for Either<A, B> {
    type Item = A::Item;

    fn next(&mut self) -> Option<A::Item> {
        match self {
            Self::Parsed(lines) => lines.next(),
            Self::Received(lines) => lines.next(),
        }
    }
}

impl<A: DoubleEndedIterator, B: DoubleEndedIterator<Item = A::Item>> DoubleEndedIterator for Either<A, B> {
    fn next_back(&mut self) -> Option<A::Item> {
        match self {
            Self::Parsed(lines) => lines.next_back(),
            Self::Received(lines) => lines.next_back(),
        }
    }
}

impl<'a> RawTarget<'a> {
    /// The parts that hyper has found.
    fn of_uri(uri: &'a http::Uri) -> Self {
        let (path, query) = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None => (None, None),
            Some(whole) => split_query(whole),
        };
        let authority = uri.authority().map(http::uri::Authority::as_str);
        Self { scheme: uri.scheme_str(), authority, path, query }
    }

    /// The parts of a request line's middle: `/path?query`, `http://authority/path?query`, `authority`, `*`.
    fn of_text(text: &'a str) -> Self {
        if text.starts_with(['/', '*', '?']) {
            let (path, query) = split_query(text);
            return Self { scheme: None, authority: None, path, query };
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Self { scheme: None, authority: Some(text), path: None, query: None };
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, whole) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (path, query) = split_query(whole);
        Self { scheme: Some(scheme), authority: Some(authority), path, query }
    }

    /// Bytes that it has on the wire of HTTP/1.
    #[must_use]
    pub fn len(&self) -> usize {
        let scheme = self.scheme.map_or(0, |scheme| scheme.len() + "://".len());
        let query = self.query.map_or(0, |query| query.len() + "?".len());
        scheme + self.authority.map_or(0, str::len) + self.path.map_or(0, str::len) + query
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn split_query(whole: &str) -> (Option<&str>, Option<&str>) {
    match memchr::memchr(b'?', whole.as_bytes()) {
        Some(at) => (whole.get(..at), whole.get(at + 1..)),
        None => (Some(whole), None),
    }
}
