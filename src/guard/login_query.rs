//! Does a request that reads carry a login in its query?
//!
//! TYPO3 counts each as an attempt: five times `GET /typo3/?login_status=login`, without any password, and everybody
//! behind the same address is locked out for a quarter of an hour; `login_status=logout` logs out whoever follows a
//! link. No part of TYPO3 sends it so. At any address, not only below `/typo3`: the backend may live elsewhere
//! (`BE.entryPoint`), and nothing else has a use for the name.

use http::Method;

use super::php;
use crate::refusal::{Reason, Refusal};

/// The field that makes a request an attempt (`AbstractUserAuthentication::$formfield_status` of the backend).
const FIELD: &[u8] = b"login_status";

/// Refuses a safe method (RFC 9110 section 9.2.1) whose query holds the field, in any of PHP's spellings. What may
/// carry a body is an attempt like any other, and counted.
pub fn check(method: &Method, query: Option<&str>) -> Result<(), Refusal> {
    match query {
        Some(query) if method.is_safe() && php::has(query.as_bytes(), FIELD) => {
            // Not the query itself: a password may stand in it.
            Err(Refusal::new(Reason::LoginInQuery, "`login_status` in the query"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(method: &Method, query: &str) -> bool {
        check(method, Some(query)).is_ok()
    }

    #[test]
    fn only_requests_that_read_are_refused() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            for query in [
                "login_status=login",
                "login.status=login",
                "a=1&%6cogin+status",
                "+login_status[x]=logout",
                "login[status=1",
            ] {
                assert!(!may(&method, query), "{method} {query}");
            }
        }
        assert!(may(&Method::POST, "login_status=login") && may(&Method::PUT, "login_status=login"));
        assert!(check(&Method::GET, None).is_ok());
    }

    #[test]
    fn no_password_is_told() {
        let refusal = check(&Method::GET, Some("login_status=login&userident=secret")).unwrap_err();
        assert!(!refusal.detail.contains("secret"), "{}", refusal.detail);
    }

    #[test]
    fn other_parameters_are_not_meant() {
        for query in [
            "loginProvider=1433416747",
            "logintype=login",
            "redirect=login_status",
            "x[login_status]=1",
            "Login_Status=login",
        ] {
            assert!(may(&Method::GET, query), "{query}");
        }
    }
}
