//! What decides: plain functions, no state, no clock, no log. The table of contents, in the order of
//! the road.
//!
//! | module | asks | verb |
//! |---|---|---|
//! | [`framing`] | is this one clear message within its limits? | `check` |
//! | [`target`] | which form has the request target? | `read` |
//! | [`host`] | for exactly which authority is it? | `authority` |
//! | [`path`] | what is asked for, in the one form that rules see? | `normalise` |
//! | [`php`] | which parameter does PHP take this for? | `pairs` |
//! | [`access`] | may this address see this part, now? | `check` |
//! | [`deny`] | is this a path that nobody needs? | `check` |
//! | [`install_tool`] | may this client reach the Install Tool? | `check` |
//! | [`login_query`] | does a request that reads carry a login in its query? | `check` |
//! | [`method`] | may this method be used here? | `check` |
//! | [`overrides`] | may a field name another method or URL? | `method`, `urls` |
//! | [`headers`] | may these fields go on? | `check` |
//! | [`upgrade`] | may the connection change its protocol? | `check` |
//! | [`size`] | is the declared body within its limit? | `check` |
//! | [`pace`] | does the body come fast enough, and end in time? | `Meter` |
//! | [`modes`] | which of these are off, reported, enforced? | (read by the gate) |
//!
//! Each policy module has three names: `Raw` is what the operator wrote, `Policy` what it means, and
//! one verb applies it.

pub mod access;
pub mod client_certificate;
pub mod deny;
pub mod framing;
pub mod headers;
pub mod host;
pub mod hours;
pub mod install_tool;
pub mod login_query;
pub mod method;
pub mod modes;
pub mod overrides;
pub mod pace;
pub mod path;
pub mod php;
pub mod size;
pub mod target;
pub mod upgrade;

/// What a private detail shows of received bytes: escaped, and never more than a line's worth.
fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("{}{more}", bytes.get(..MOST).unwrap_or(bytes).escape_ascii())
}

#[cfg(test)]
pub(crate) mod testing {
    //! Heads and configuration sections for the tests of this room and of `client`.

    use std::path::PathBuf;
    use std::sync::Arc;

    use http::request::Parts;
    use http::{Method, Request, Version};
    use toml::de::DeTable;

    use crate::config::complaint::{Complaints, Source};
    use crate::config::section::{Reading, Section};

    /// A request head as hyper would hand it over.
    pub(crate) fn head(method: &str, target: &str, version: Version, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target)
            .version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Reads `text` with `read`; the value and everything complained about.
    pub(crate) fn read<T>(
        text: &str,
        read: impl FnOnce(&mut Section<'_>, &mut Reading<'_>) -> T,
    ) -> (T, Complaints) {
        let source = Arc::new(Source { name: "test.toml".to_owned(), text: text.to_owned() });
        let document = DeTable::parse(&source.text).unwrap();
        let mut reading = Reading { complaints: Complaints::default(), env: &|_| None, base: PathBuf::new() };
        let mut section = Section::root(document.get_ref(), &source);
        let value = read(&mut section, &mut reading);
        section.finish(&mut reading);
        (value, reading.complaints)
    }
}
