//! Whether the backend answers where nobody looks for it: TYPO3 13 and later take any path for it (`BE.entryPoint`), and
//! whoever does not say so here has failed logins that nobody counts.

use http::header::SET_COOKIE;

use super::policy::Policy;
use super::verdict::{Cookie, Facts};
use crate::fields::Fields;

/// Routes of the backend that every login takes. None of them is a page of a site by chance and sets the backend's cookie.
const ROUTES: [&str; 5] = ["/ajax/login/preflight", "/ajax/login", "/auth/mfa", "/login", "/main"];

/// Where the backend seems to be, if not at the configured entry point.
#[must_use]
pub fn entry_point<'p>(policy: &Policy, path: &'p str, status: u16, fields: &Fields) -> Option<&'p str> {
    let entry = ROUTES.iter().find_map(|route| path.strip_suffix(route)).filter(|_| policy.backend)?;
    let inside = path.strip_prefix(&*policy.entry_point).is_some_and(|rest| rest.starts_with('/'));
    if inside || fields.get(&SET_COOKIE).is_none() {
        return None;
    }
    // At the top of a site `/login` may be anybody's: there, only a new session says enough.
    match Facts::of(policy, status, fields).session {
        Cookie::Set => Some(if entry.is_empty() { "/" } else { entry }),
        Cookie::Deleted => Some(entry).filter(|entry| !entry.is_empty()),
        Cookie::Absent => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found<'p>(policy: &Policy, path: &'p str, cookie: &'static str) -> Option<&'p str> {
        let fields: Fields = [(SET_COOKIE, HeaderValue::from_static(cookie))].into_iter().collect();
        entry_point(policy, path, 200, &fields)
    }

    #[test]
    fn the_cookie_of_the_backend_tells_where_it_is() {
        let (policy, deleted) = (Policy::typo3(), "be_typo_user=deleted; Max-Age=0");
        for (path, entry) in [
            ("/admin/login", "/admin"),
            ("/cms/backend/ajax/login", "/cms/backend"),
            ("/admin/ajax/login/preflight", "/admin"),
            ("/typo3x/auth/mfa", "/typo3x"),
        ] {
            assert_eq!(found(&policy, path, deleted), Some(entry), "{path}");
        }
        for path in ["/typo3/login", "/typo3/ajax/login", "/login", "/admin", "/admin/login.html"] {
            assert_eq!(found(&policy, path, deleted), None, "{path}");
        }
        assert_eq!(found(&policy, "/login", "be_typo_user=eyJ"), Some("/"), "on a host of its own");
        assert_eq!(found(&policy, "/admin/login", "fe_typo_user=x"), None);
        assert_eq!(entry_point(&policy, "/admin/login", 200, &Fields::default()), None);
        assert_eq!(found(&Policy::default(), "/admin/login", deleted), None, "nobody looks for a backend");
        let moved = Policy { entry_point: "/admin".into(), ..policy };
        assert_eq!(found(&moved, "/admin/login", deleted), None);
    }
}
