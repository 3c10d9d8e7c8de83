//! The view of a request head that guards look at.
//!
//! A guard never sees `http::Request`: it asks this view for the method, the target and a handful of
//! fields by name. Today hyper's `HeaderMap` stands behind it for both protocol versions; a front
//! that keeps the received bytes can stand behind it without a map being built.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

/// One request head, borrowed for as long as the guards decide.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    fields: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// The view over a head that hyper has parsed.
    #[must_use]
    pub fn new(parts: &'a http::request::Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, version: parts.version, fields: &parts.headers }
    }

    /// The request method.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The request target as hyper understood it: origin-form, absolute-form, authority-form or `*`
    /// (RFC 9112 section 3.2). For HTTP/2 it carries `:scheme` and `:authority`.
    #[must_use]
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The protocol version the client spoke.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&'a HeaderValue> {
        self.fields.get(name)
    }

    /// Every value of `name`, in order; chains of proxies are read from the end.
    pub fn all(&self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a HeaderValue> + use<'a> {
        self.fields.get_all(name).iter()
    }

    /// Every field line.
    pub fn iter(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> + use<'a> {
        self.fields.iter()
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether the head carries no field at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}
