//! What came of a try to log in: read off the answer, by what TYPO3 11 to 14 were seen to answer.
//!
//! A failed login of TYPO3 is no 401 but a 200, and only its cookies tell: whoever is not logged in has
//! `be_typo_user` deleted. That alone proves nothing, since every answer of the backend to a stranger does it,
//! so nothing counts here that was not a try.

use super::attempt::{Attempt, Kind};
use super::policy::{Count401, Policy};
use crate::fields::Fields;
use crate::guard::php;
use http::header::{LOCATION, SET_COOKIE, WWW_AUTHENTICATE};

/// What came of it; the label in metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Right.
    Success,
    /// Wrong.
    Failure,
    /// TYPO3's own limiter refused to look.
    LockedByCore,
    /// Neither: somebody who is logged in already, say.
    Neutral,
}

impl Verdict {
    /// Every verdict, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::LockedByCore, Self::Neutral];

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::LockedByCore => "locked-by-core",
            Self::Neutral => "neutral",
        }
    }

    /// Whether it counts against who tried.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Failure | Self::LockedByCore)
    }
}

/// What an answer says of a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookie {
    /// Nothing.
    #[default]
    Absent,
    /// It has a new value.
    Set,
    /// It is taken away.
    Deleted,
}

/// What of an answer's head is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The status code.
    pub status: u16,
    /// `Location`.
    pub location: Option<&'a [u8]>,
    /// The backend's session cookie.
    pub session: Cookie,
    /// The frontend's.
    pub frontend: Cookie,
    /// Whether it asks for credentials (`WWW-Authenticate`).
    pub challenge: bool,
}

impl<'a> Facts<'a> {
    /// Reads them off an answer.
    #[must_use]
    pub fn of(policy: &Policy, status: u16, fields: &'a Fields) -> Self {
        let mut facts = Self { status, ..Self::default() };
        for (name, value) in fields.iter() {
            if *name == SET_COOKIE {
                facts.session = facts.session.and(value.as_bytes(), &policy.cookie);
                facts.frontend = facts.frontend.and(value.as_bytes(), &policy.frontend_cookie);
            } else if *name == LOCATION {
                facts.location = Some(value.as_bytes());
            } else if *name == WWW_AUTHENTICATE {
                facts.challenge = true;
            }
        }
        facts
    }
}

impl Cookie {
    /// With one more `Set-Cookie` line. A value outweighs a deletion.
    fn and(self, line: &[u8], name: &str) -> Self {
        match value_of(line, name) {
            Some(value) if is_deleted(line, value) => {
                if self == Self::Set {
                    self
                } else {
                    Self::Deleted
                }
            }
            Some(_) => Self::Set,
            None => self,
        }
    }
}

/// The value that a `Set-Cookie` line gives to the cookie with this name.
fn value_of<'l>(line: &'l [u8], name: &str) -> Option<&'l [u8]> {
    let pair = line.split(|byte| *byte == b';').next()?;
    let at = memchr::memchr(b'=', pair)?;
    let (found, value) = (pair.get(..at)?, pair.get(at + 1..)?);
    (found.trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
}

/// PHP deletes a cookie by the value `deleted` and `Max-Age=0`.
fn is_deleted(line: &[u8], value: &[u8]) -> bool {
    let expired = |attribute: &[u8]| {
        let attribute = attribute.trim_ascii();
        attribute.split_at_checked(b"max-age=".len()).is_some_and(|(name, age)| {
            name.eq_ignore_ascii_case(b"max-age=")
                && (age.starts_with(b"-") || age.iter().all(|digit| *digit == b'0'))
        })
    };
    value.is_empty() || value == b"deleted" || line.split(|byte| *byte == b';').skip(1).any(expired)
}

/// The session of the backend that an answer begins.
#[must_use]
pub fn new_session<'f>(policy: &Policy, fields: &'f Fields) -> Option<&'f [u8]> {
    let value = |line: &'f http::HeaderValue| {
        let line = line.as_bytes();
        value_of(line, &policy.cookie).filter(|value| !is_deleted(line, value))
    };
    fields.all(&SET_COOKIE).filter_map(value).last()
}

/// What came of an attempt. Of the Install Tool the head says nothing: see [`install_tool`].
#[must_use]
pub fn judge(kind: Kind, facts: &Facts<'_>) -> Verdict {
    match kind {
        Kind::Backend | Kind::Relogin => password(facts.session, facts.status),
        Kind::Frontend => match password(facts.frontend, facts.status) {
            // TYPO3 11 says nothing when it fails.
            Verdict::Neutral => Verdict::Failure,
            verdict => verdict,
        },
        Kind::Mfa => second_factor(facts),
        Kind::Sudo => match facts.status {
            403 => Verdict::Failure,
            200 => Verdict::Success,
            _ => Verdict::Neutral,
        },
        // It always answers 200, whether there is such a user or not: asking is what counts.
        Kind::PasswordReset => {
            if facts.status == 200 {
                Verdict::Failure
            } else {
                Verdict::Neutral
            }
        }
        Kind::Reaction => match facts.status {
            400 | 401 | 404 => Verdict::Failure,
            200..=299 => Verdict::Success,
            _ => Verdict::Neutral,
        },
        Kind::Basic | Kind::Unauthorized => {
            if facts.status == 401 {
                Verdict::Failure
            } else {
                Verdict::Neutral
            }
        }
        Kind::InstallTool | Kind::Application => Verdict::Neutral,
    }
}

fn password(session: Cookie, status: u16) -> Verdict {
    match (session, status) {
        (Cookie::Set, _) => Verdict::Success,
        (_, 403) => Verdict::LockedByCore,
        // TYPO3 mails about failures while it answers, and breaks where mail is broken; who logs in is redirected
        // before anything could.
        (Cookie::Deleted, _) | (Cookie::Absent, 500) => Verdict::Failure,
        (Cookie::Absent, _) => Verdict::Neutral,
    }
}

fn second_factor(facts: &Facts<'_>) -> Verdict {
    let (mfa, failed) = facts.location.map_or((false, false), is_mfa);
    match facts.status {
        500..=599 => Verdict::Failure,
        _ if mfa && failed => Verdict::Failure,
        // The session is taken away after too many tries, or there was none.
        _ if facts.session == Cookie::Deleted => Verdict::LockedByCore,
        300..=399 if !mfa => Verdict::Success,
        _ => Verdict::Neutral,
    }
}

/// Whether a `Location` leads to the second factor, and whether it says that it has failed.
fn is_mfa(location: &[u8]) -> (bool, bool) {
    let at = memchr::memchr(b'?', location).unwrap_or(location.len());
    let path = location.get(..at).unwrap_or_default();
    let query = || php::pairs(location.get(at + 1..).unwrap_or_default());
    let route = |(name, value): (std::borrow::Cow<'_, [u8]>, std::borrow::Cow<'_, [u8]>)| {
        *name == *b"route" && *value == *b"/auth/mfa"
    };
    let mfa = path.ends_with(b"/auth/mfa") || query().any(route);
    (mfa, mfa && query().any(|(name, value)| *name == *b"failure" && *value == *b"1"))
}

/// What the beginning of the Install Tool's answer says; none if more of it is needed.
///
/// Status and cookies are the same whether the password was right or wrong: only the JSON tells.
#[must_use]
pub fn install_tool(start: &[u8], ended: bool) -> Option<Verdict> {
    const WORDS: [(&[u8], Verdict); 2] =
        [(b"{\"success\":true", Verdict::Success), (b"{\"success\":false", Verdict::Failure)];
    if let Some((_, verdict)) = WORDS.iter().find(|(word, _)| start.starts_with(word)) {
        return Some(*verdict);
    }
    let may_come = !ended && WORDS.iter().any(|(word, _)| word.starts_with(start));
    (!may_come).then_some(Verdict::Neutral)
}

/// Whether an answer to a request whose body could not be read shows that a password was wrong: TYPO3 12 and later
/// take away the nonce that was used, and the session, of who is not logged in. Nonces alone prove nothing: old
/// ones are taken away, too. `sent` says whether the request carried a cookie of this name.
#[must_use]
pub fn without_body(facts: &Facts<'_>, fields: &Fields, sent: impl Fn(&[u8]) -> bool) -> Option<Kind> {
    let used = |line: &http::HeaderValue| {
        let line = line.as_bytes();
        let name = memchr::memchr(b'=', line).and_then(|at| line.get(..at)).unwrap_or_default().trim_ascii();
        let bare = name.strip_prefix(b"__Secure-").unwrap_or(name);
        let value = std::str::from_utf8(name).ok().and_then(|name| value_of(line, name));
        bare.starts_with(b"typo3nonce_") && value.is_some_and(|value| is_deleted(line, value)) && sent(name)
    };
    let kind = match (facts.session, facts.frontend) {
        (Cookie::Deleted, _) => Kind::Backend,
        (_, Cookie::Deleted) => Kind::Frontend,
        _ => return None,
    };
    fields.all(&SET_COOKIE).any(used).then_some(kind)
}

/// Who asked, where an answer 401 alone is to be judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bearer {
    /// The request carried `Authorization`.
    pub authorization: bool,
    /// It carried a body.
    pub body: bool,
    /// It was made by a script of a page, and its client has logged in lately: pages of an expired session ask on.
    pub expired: bool,
}

/// Whether an answer 401 counts by the rule of the security guide.
#[must_use]
pub fn unauthorized(rule: Count401, facts: &Facts<'_>, bearer: Bearer) -> bool {
    // A challenge to somebody who has shown nothing yet is no failure.
    let credentials = bearer.authorization || (bearer.body && !facts.challenge);
    let qualified = facts.location.is_none() && credentials && !bearer.expired;
    facts.status == 401
        && match rule {
            Count401::Off => false,
            Count401::Qualified => qualified,
            Count401::All => true,
        }
}

/// A verdict with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was tried.
    pub attempt: Attempt,
    /// What came of it.
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn cookies_are_read_off_their_lines() {
        for (lines, want) in [
            (&["be_typo_user=deleted; Max-Age=0"][..], Cookie::Deleted),
            (&["be_typo_user=; path=/"], Cookie::Deleted),
            (&["be_typo_user=x; MAX-AGE=-5"], Cookie::Deleted),
            (&["be_typo_user=x; max-age=60"], Cookie::Set),
            (&[" be_typo_user = eyJ; path=/", "be_typo_user=deleted"], Cookie::Set),
            (&["be_typo_user=deleted", "be_typo_user=eyJ"], Cookie::Set),
            (&["xbe_typo_user=eyJ", "be_typo_user_x=y", "be_typo_user"], Cookie::Absent),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("set-cookie", *line)).collect();
            assert_eq!(Facts::of(&Policy::default(), 200, &fields(&lines)).session, want, "{lines:?}");
        }
    }

    #[test]
    fn the_install_tool_says_it_in_its_first_bytes() {
        assert_eq!(install_tool(b"{\"success\":true}", false), Some(Verdict::Success));
        assert_eq!(install_tool(b"{\"success\":false,\"status\"", false), Some(Verdict::Failure));
        assert_eq!(install_tool(b"{\"succ", false), None);
        assert_eq!(install_tool(b"", false), None);
        assert_eq!(install_tool(b"{\"succ", true), Some(Verdict::Neutral));
        assert_eq!(install_tool(b"<!doctype html>", false), Some(Verdict::Neutral));
    }

    #[test]
    fn without_a_body_only_a_used_nonce_proves_a_failure() {
        let deleted = ("set-cookie", "be_typo_user=deleted; Max-Age=0");
        let nonce = ("set-cookie", "__Secure-typo3nonce_ab=deleted; Max-Age=0");
        let judged = |lines: &[(&'static str, &'static str)], sent: &'static [u8]| {
            let fields = fields(lines);
            without_body(&Facts::of(&Policy::default(), 200, &fields), &fields, |name| name == sent)
        };
        assert_eq!(judged(&[deleted, nonce], b"__Secure-typo3nonce_ab"), Some(Kind::Backend));
        assert_eq!(judged(&[deleted, nonce], b"__Secure-typo3nonce_cd"), None);
        assert_eq!(judged(&[deleted], b"__Secure-typo3nonce_ab"), None);
        assert_eq!(judged(&[nonce], b"__Secure-typo3nonce_ab"), None);
        let visitor = ("set-cookie", "fe_typo_user=deleted; Max-Age=0");
        assert_eq!(judged(&[visitor, nonce], b"__Secure-typo3nonce_ab"), Some(Kind::Frontend));
    }

    #[test]
    fn a_401_counts_by_the_rule() {
        let facts = Facts { status: 401, ..Facts::default() };
        let body = Bearer { body: true, ..Bearer::default() };
        let authorization = Bearer { authorization: true, ..Bearer::default() };
        let challenge = Facts { challenge: true, ..facts };
        let redirect = Facts { location: Some(b"/login"), ..facts };
        let qualified = |facts: &Facts<'_>, bearer| unauthorized(Count401::Qualified, facts, bearer);
        assert!(
            qualified(&facts, body)
                && qualified(&facts, authorization)
                && qualified(&challenge, authorization)
        );
        assert!(
            !qualified(&facts, Bearer::default())
                && !qualified(&challenge, body)
                && !qualified(&redirect, body)
        );
        assert!(!qualified(&facts, Bearer { expired: true, ..body }));
        assert!(unauthorized(Count401::All, &redirect, Bearer::default()));
        assert!(!unauthorized(Count401::Off, &facts, body));
        assert!(!unauthorized(Count401::All, &Facts { status: 403, ..facts }, body));
    }
}
