//! Header names and values that cost nothing to clone.
//!
//! A value built from a `Vec` shares one reference counter, and every worker thread would fight over
//! its cache line on every response. Texts of the configuration are therefore kept for good, each once:
//! a reload that changes nothing keeps nothing new.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

static POOL: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The value with this text, unless it holds a control character or one beyond ASCII.
pub(super) fn value(text: &str) -> Option<HeaderValue> {
    if !text.is_ascii() || HeaderValue::from_str(text).is_err() {
        return None;
    }
    HeaderValue::from_maybe_shared(Bytes::from_static(keep(text).as_bytes())).ok()
}

/// The name with this text, in lower case, unless it is none.
pub(super) fn name(text: &str) -> Option<HeaderName> {
    let checked = HeaderName::from_bytes(text.as_bytes()).ok()?;
    // What was checked and lower-cased a moment ago is a static name.
    Some(HeaderName::from_static(keep(checked.as_str())))
}

fn keep(text: &str) -> &'static str {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = pool.get(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    pool.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once() {
        let (a, b) = (value("interned once").unwrap(), value("interned once").unwrap());
        assert_eq!(a.as_bytes().as_ptr(), b.as_bytes().as_ptr());
        assert_eq!(a.clone().as_bytes().as_ptr(), a.as_bytes().as_ptr());
    }

    #[test]
    fn names_are_lower_cased_and_checked() {
        assert_eq!(name("X-Frame-Options").unwrap(), http::header::X_FRAME_OPTIONS);
        assert_eq!(name("Permissions-Policy").unwrap().as_str(), "permissions-policy");
        assert!(name("X Foo").is_none());
        assert!(value("a\r\nb").is_none());
        assert!(value("ä").is_none());
    }
}
