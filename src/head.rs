//! The view of a request head that guards look at.
//!
//! A guard never sees `http::Request`: it asks this view for the method, the target and a handful of
//! fields by name. Behind it stands hyper's `HeaderMap` (HTTP/2), or the bytes that were received
//! (HTTP/1), for which no map is built.

use http::{HeaderName, Method, Version, request};

/// One request head, borrowed for as long as the guards decide.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    parts: &'a request::Parts,
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
        Self { parts }
    }

    /// The request method.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        &self.parts.method
    }

    /// The request target, split.
    #[must_use]
    pub fn target(&self) -> RawTarget<'a> {
        RawTarget::of_uri(&self.parts.uri)
    }

    /// The protocol version the client spoke.
    #[must_use]
    pub fn version(&self) -> Version {
        self.parts.version
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&'a [u8]> {
        self.parts.headers.get(name).map(http::HeaderValue::as_bytes)
    }

    /// Every value of `name`, in order; chains of proxies are read from the end.
    pub fn all(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        self.parts.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }

    /// Every field line, its name in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.headers.len()
    }

    /// Whether the head carries no field at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    match whole.split_once('?') {
        Some((path, query)) => (Some(path), Some(query)),
        None => (Some(whole), None),
    }
}
