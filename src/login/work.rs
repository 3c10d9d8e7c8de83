//! Whether a session of the backend is at work: only then nothing more is asked of who holds it.
//!
//! TYPO3 12 to 14 answer a right password in one way, whether a second factor follows or not, and take the session with
//! them; but every page of the backend that is not open to strangers leads to that factor until it was given
//! (`BackendUserAuthenticator`), 302 instead of 200.

use http::{Method, StatusCode, header::COOKIE};

use super::policy::Policy;
use super::settle::session_id;
use super::verdict::{Cookie, Facts};
use crate::bans::SessionId;
use crate::fields::Fields;
use crate::guard::php;
use crate::head::Head;

/// As many sessions of one request are looked at: browsers send a dead one along, which they kept for another path.
const SESSIONS: usize = 4;

/// The sessions that a request shows, if its answer is one that only a session at work gets.
pub fn sessions<'r>(
    policy: &'r Policy,
    head: &Head<'r>,
    (path, query): (&str, Option<&str>),
    (status, fields): (StatusCode, &Fields),
) -> impl Iterator<Item = SessionId> + 'r {
    let served = policy.backend && *head.method() == Method::GET && status == StatusCode::OK;
    let at_work = served
        && is_inside(policy, path, query)
        && Facts::of(policy, status.as_u16(), fields).session != Cookie::Deleted;
    let cookies = at_work.then(|| head.all(&COOKIE));
    let pairs = cookies.into_iter().flatten().flat_map(|line| line.split(|byte| *byte == b';'));
    let value = |pair: &'r [u8]| {
        let value = pair.trim_ascii().strip_prefix(policy.cookie.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then(|| session_id(value))
    };
    pairs.filter_map(value).take(SESSIONS)
}

/// Whether it is the frame of the backend or a module of it, on every line of TYPO3.
fn is_inside(policy: &Policy, path: &str, query: Option<&str>) -> bool {
    let rest = path.strip_prefix(&*policy.entry_point).unwrap_or_default();
    // TYPO3 11 may take another route from the query.
    let named = || php::pairs(query.unwrap_or_default().as_bytes()).any(|(name, _)| *name == *b"route");
    (rest == "/main" || rest.starts_with("/module/")) && !named()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Version, header::SET_COOKIE};

    use super::*;
    use crate::guard::testing;

    fn shown(
        method: &str,
        target: &str,
        cookie: &'static str,
        status: u16,
        answer: Option<&'static str>,
    ) -> usize {
        let parts = testing::head(method, target, Version::HTTP_11, &[("cookie", cookie)]);
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let fields: Fields =
            answer.into_iter().map(|line| (SET_COOKIE, HeaderValue::from_static(line))).collect();
        let status = StatusCode::from_u16(status).unwrap();
        sessions(&Policy::typo3(), &Head::new(&parts), (path, query), (status, &fields)).count()
    }

    #[test]
    fn only_the_inside_of_the_backend_proves_a_session() {
        let session = "a=b; be_typo_user=eyJ0; c=d";
        for target in ["/typo3/main", "/typo3/main?token=1", "/typo3/module/web/layout?id=1"] {
            assert_eq!(shown("GET", target, session, 200, None), 1, "{target}");
        }
        for target in [
            "/typo3/login",
            "/typo3/",
            "/typo3/auth/mfa",
            "/typo3/mainframe",
            "/typo3x/main",
            "/main",
            "/typo3/main?token=1&route=/login",
            "/typo3/ajax/login/refresh",
        ] {
            assert_eq!(shown("GET", target, session, 200, None), 0, "{target}");
        }
        assert_eq!(shown("HEAD", "/typo3/main", session, 200, None), 0);
        assert_eq!(shown("GET", "/typo3/main", session, 302, None), 0);
        assert_eq!(shown("GET", "/typo3/main", session, 200, Some("be_typo_user=deleted; Max-Age=0")), 0);
        assert_eq!(shown("GET", "/typo3/main", "xbe_typo_user=1; be_typo_user=", 200, None), 0);
    }

    #[test]
    fn a_heap_of_cookies_is_not_looked_through() {
        assert_eq!(
            shown("GET", "/typo3/main", "be_typo_user=1; be_typo_user=2", 200, None),
            2,
            "a dead one and the other"
        );
        let heap = "be_typo_user=x; ".repeat(100);
        assert_eq!(shown("GET", "/typo3/main", heap.leak(), 200, None), SESSIONS);
    }
}
