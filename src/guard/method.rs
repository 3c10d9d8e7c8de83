//! May this method be used here? An allow-list.

use http::{HeaderValue, Method};

use super::{excerpt, framing};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};
use crate::refusal::{Reason, Refusal};

/// The methods that were written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    methods: Option<Placed<Vec<Placed<Text<Method>>>>>,
}

/// The methods that may be used, and the `Allow` that says so.
#[derive(Clone, Debug)]
pub struct Policy {
    methods: Box<[Method]>,
    allow: HeaderValue,
}

/// What every TYPO3 frontend gets by with; the backend needs no OPTIONS.
const DEFAULT: [Method; 4] = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS];

impl Raw {
    /// Reads `methods`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { methods: section.get(reading, "methods") }
    }

    /// This layer with a more specific one laid over it. Lists are replaced, not joined.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { methods: specific.methods.or(self.methods) }
    }

    /// Where `methods` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.methods.as_ref().map(|written| &written.place)
    }

    /// The list, or the default where none was written.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let Some(written) = self.methods else { return Policy::new(DEFAULT.into()) };
        if written.value.is_empty() {
            let hint = "leave `methods` out for GET, HEAD, POST and OPTIONS".to_owned();
            complaints.error(Some(&written.place), "`methods` is empty: nothing could be asked", Some(hint));
        }
        let mut methods = Vec::new();
        for method in written.value {
            add(&mut methods, method, complaints);
        }
        Policy::new(methods)
    }
}

fn add(methods: &mut Vec<Method>, method: Placed<Text<Method>>, complaints: &mut Complaints) {
    let Text(value) = method.value;
    if framing::is_forbidden(&value) {
        let hint = "CONNECT would open a tunnel; TRACE and TRACK repeat credentials: remove it";
        complaints.error(Some(&method.place), format!("`{value}` is never forwarded"), Some(hint.to_owned()));
    } else if methods.contains(&value) {
        complaints.warning(Some(&method.place), format!("`{value}` stands twice in `methods`"), None);
    } else {
        methods.push(value);
    }
}

impl Policy {
    fn new(methods: Vec<Method>) -> Self {
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let allow = HeaderValue::try_from(names.join(", "));
        // Methods are tokens, so the list is always a field value.
        let allow = allow.unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { methods: methods.into(), allow }
    }

    /// The list as `Allow` carries it.
    #[must_use]
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }
}

/// Refuses a method that is not on the list.
pub fn check(policy: &Policy, method: &Method) -> Result<(), Refusal> {
    if policy.methods.contains(method) {
        return Ok(());
    }
    let detail = excerpt(method.as_str().as_bytes());
    Err(Refusal::method(Reason::MethodNotAllowed, detail, policy.allow.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    fn compile(text: &str) -> (Policy, Complaints) {
        let (raw, mut complaints) = testing::read(text, Raw::read);
        let policy = raw.compile(&mut complaints);
        (policy, complaints)
    }

    #[test]
    fn the_default_serves_browsers() {
        let (policy, complaints) = compile("");
        assert!(complaints.is_empty(), "{complaints}");
        for method in DEFAULT {
            assert!(check(&policy, &method).is_ok(), "{method}");
        }
        for method in ["PUT", "DELETE", "PATCH", "PROPFIND", "PURGE", "FOO", "get"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refusal = check(&policy, &method).unwrap_err();
            assert_eq!(refusal.reason, Reason::MethodNotAllowed, "{method}");
            assert_eq!(refusal.allow.unwrap(), "GET, HEAD, POST, OPTIONS");
        }
    }

    #[test]
    fn a_list_replaces_the_one_below() {
        let (general, _) = testing::read("methods = [\"GET\", \"PUT\"]", Raw::read);
        let (specific, _) = testing::read("methods = [\"POST\"]", Raw::read);
        let policy = general.clone().over(specific).compile(&mut Complaints::default());
        assert_eq!(policy.allow(), "POST");
        let policy = general.over(Raw::default()).compile(&mut Complaints::default());
        assert_eq!(policy.allow(), "GET, PUT");
    }

    #[test]
    fn what_is_never_forwarded_cannot_be_listed() {
        for method in ["CONNECT", "TRACE", "TRACK"] {
            let (policy, complaints) = compile(&format!("methods = [\"GET\", \"{method}\"]"));
            assert!(complaints.has_errors(), "{method}");
            assert_eq!(policy.allow(), "GET");
        }
    }

    #[test]
    fn mistakes_are_complained_about() {
        assert!(compile("methods = []").1.has_errors());
        assert!(compile("methods = [\"get\"]").1.to_string().contains("did you mean `GET`?"));
        let (policy, complaints) = compile("methods = [\"GET\", \"GET\"]");
        assert!(!complaints.has_errors() && !complaints.is_empty());
        assert_eq!(policy.allow(), "GET");
    }
}
