//! An ordered list of header fields, as they cross the wire.
//!
//! A reply is hardened and written in this form: order and repetition are kept, which is what
//! Apache's header operations are defined on, and no hash map is built per message. HTTP/2 and the
//! HTTP/1 front each turn it into what they need at the very end.

use http::header::{DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Header fields in the order they were received or added; a name may occur more than once
/// (RFC 9110 section 5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    list: Vec<(HeaderName, HeaderValue)>,
}

impl Fields {
    /// An empty list with room for `capacity` fields.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity) }
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.list.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Every value of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.list.iter().filter(move |(n, _)| n == name).map(|(_, v)| v)
    }

    /// Whether `name` occurs at least once.
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.list.iter().any(|(n, _)| n == name)
    }

    /// Adds a line at the end, whatever is there already.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.list.push((name, value));
    }

    /// Leaves exactly one line of `name`: the first keeps its place and takes `value`, the others go.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        let mut value = Some(value);
        self.list.retain_mut(|(n, v)| {
            if *n != name {
                return true;
            }
            value.take().map(|new| *v = new).is_some()
        });
        if let Some(value) = value {
            self.list.push((name, value));
        }
    }

    /// Makes room for this many more lines at once.
    pub fn reserve(&mut self, more: usize) {
        self.list.reserve(more);
    }

    /// Removes every line of `name`; says whether there was one.
    pub fn remove(&mut self, name: &HeaderName) -> bool {
        let before = self.list.len();
        self.list.retain(|(n, _)| n != name);
        before != self.list.len()
    }

    /// Keeps the lines for which `keep` answers true; `keep` may change values.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &mut HeaderValue) -> bool) {
        self.list.retain_mut(|(n, v)| keep(n, v));
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.list.iter().map(|(n, v)| (n, v))
    }

    /// All lines in order, values changeable.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&HeaderName, &mut HeaderValue)> {
        self.list.iter_mut().map(|(n, v)| (&*n, v))
    }

    /// The number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no line at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The map that hyper writes a response from. Repeated names stay repeated lines.
    #[must_use]
    pub fn into_map(self) -> HeaderMap {
        // hyper adds `Date` if there is none.
        let mut map = HeaderMap::with_capacity(self.list.len() + 1);
        for (name, mut value) in self.list {
            if is_volatile(&name) {
                value.set_sensitive(true);
            }
            map.append(name, value);
        }
        map
    }
}

/// Whether the value is another one in nearly every response. Put into HPACK's dynamic table, each of them
/// is compared with all of those before it, and soon pushes the fields out that never change; marked as
/// sensitive it is written as a literal instead (RFC 7541 section 6.2.3). (h2 spares `Content-Length`,
/// `ETag`, `Location`, `Set-Cookie` and `Age` by itself.)
fn is_volatile(name: &HeaderName) -> bool {
    *name == DATE || *name == EXPIRES || *name == LAST_MODIFIED || *name == X_REQUEST_ID
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(lines: I) -> Self {
        Self { list: lines.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_keeps_every_line_and_marks_those_that_always_differ() {
        let line =
            |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let lines = [line("date", "d"), line("vary", "a"), line("x-request-id", "i"), line("vary", "b")];
        let map = lines.into_iter().collect::<Fields>().into_map();
        assert_eq!(map.get_all("vary").iter().collect::<Vec<_>>(), ["a", "b"]);
        let sensitive = |name| map.get(name).is_some_and(HeaderValue::is_sensitive);
        assert!(sensitive("date") && sensitive("x-request-id") && !sensitive("vary"));
    }
}
