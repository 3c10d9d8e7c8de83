//! Request and answer together: what there is to say of an exchange, if anything.

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE};
use http::{HeaderName, StatusCode};

use super::attempt::{Asked, Attempt, Initiator, Kind, Watch, takes_body};
use super::policy::{Count401, Policy};
use super::signal;
use super::verdict::{self, Bearer, Facts, Outcome, Verdict};
use crate::fields::Fields;
use crate::head::Head;

/// The longest coded answer that can be the Install Tool's `{"success":true}`; every other one is longer.
const SHORT: u64 = 64;

/// What there is to say.
#[derive(Debug)]
pub enum Conclusion {
    /// This.
    Now(Outcome),
    /// The answer's body will tell.
    InBody(Attempt),
}

impl<'a> Asked<'a> {
    /// What of a request is looked at; `length` is that of its body, if it is known.
    #[must_use]
    pub fn of(head: &Head<'a>, path: &'a str, query: Option<&'a str>, length: Option<u64>) -> Self {
        // Most requests have no body: those few fields are not looked for.
        let parsed = takes_body(head.method());
        let odd = || head.all(&CONTENT_TYPE).count() > 1 || head.get(&CONTENT_ENCODING).is_some();
        Self {
            method: head.method(),
            path,
            query,
            content_type: parsed.then(|| head.get(&CONTENT_TYPE)).flatten(),
            odd: parsed && odd(),
            authorization: head.get(&AUTHORIZATION),
            cross_site: is_cross_site(head),
            length,
        }
    }
}

/// Takes the application's signal out of an answer.
#[must_use]
pub fn take_signal(policy: &Policy, fields: &mut Fields) -> Option<Vec<Box<[u8]>>> {
    let name = policy.signal_header.as_ref()?;
    let said: Vec<Box<[u8]>> = fields.all(name).map(|value| value.as_bytes().into()).collect();
    fields.remove(name).then_some(said)
}

/// Judges an exchange. `known` is asked whether the client has logged in lately, where that matters.
#[must_use]
pub fn conclude(
    policy: &Policy,
    watch: Option<&mut Watch>,
    head: &Head<'_>,
    signal: Option<&[Box<[u8]>]>,
    (status, fields): (StatusCode, &Fields),
    known: impl FnOnce() -> bool,
) -> Option<Conclusion> {
    let facts = Facts::of(policy, status.as_u16(), fields);
    let (clear, attempts, basic) = match watch {
        // Asked first: afterwards nothing is read any more.
        Some(watch) => (watch.is_clear(), watch.attempts(), watch.basic().map(Box::from)),
        None => (true, Vec::new(), None),
    };
    // A failure outweighs: one exchange may try more than one thing.
    let tried = || attempts.first().cloned();
    let said = signal.unwrap_or_default().iter().filter_map(|value| signal::read(value, tried()));
    if let Some(outcome) = said.max_by_key(|outcome| outcome.verdict.counts()) {
        return Some(Conclusion::Now(outcome));
    }
    let mut outcome = None;
    if attempts.is_empty() && !clear {
        let kind = verdict::without_body(&facts, fields, |name| sent(head, name));
        let initiator = initiator(head);
        let failed =
            |kind| Outcome { attempt: Attempt { kind, user: None, initiator }, verdict: Verdict::Failure };
        outcome = kind.map(failed);
    }
    // Of what it may be, it is what the answer has a word for.
    for attempt in attempts {
        if outcome.as_ref().is_some_and(|outcome| outcome.verdict != Verdict::Neutral) {
            break;
        }
        if attempt.kind == Kind::InstallTool {
            return Some(install_tool(attempt, status, fields));
        }
        let verdict = verdict::judge(attempt.kind, &facts);
        outcome = outcome.filter(|_| verdict == Verdict::Neutral).or(Some(Outcome { attempt, verdict }));
    }
    let open = outcome.as_ref().is_none_or(|outcome| outcome.verdict == Verdict::Neutral);
    if open && facts.status == 401 {
        let refused = unauthorized(policy, head, &facts, basic, known);
        outcome = refused.or(outcome);
    }
    outcome.map(Conclusion::Now)
}

/// What an answer 401 says of a request that was no other try to log in.
fn unauthorized(
    policy: &Policy,
    head: &Head<'_>,
    facts: &Facts<'_>,
    basic: Option<Box<[u8]>>,
    known: impl FnOnce() -> bool,
) -> Option<Outcome> {
    let (kind, user) = if let Some(user) = basic {
        (Kind::Basic, Some(user).filter(|user| !user.is_empty()))
    } else {
        if policy.count_401 == Count401::Off {
            return None;
        }
        let bearer = Bearer {
            authorization: head.get(&AUTHORIZATION).is_some(),
            body: !matches!(head.get(&CONTENT_LENGTH), None | Some(b"0"))
                || head.get(&http::header::TRANSFER_ENCODING).is_some(),
            expired: is_script(head) && known(),
        };
        if !verdict::unauthorized(policy.count_401, facts, bearer) {
            return None;
        }
        (Kind::Unauthorized, None)
    };
    let attempt = Attempt { kind, user, initiator: initiator(head) };
    Some(Outcome { attempt, verdict: Verdict::Failure })
}

/// Whether a page of another site has the browser send the request (Fetch Metadata).
fn is_cross_site(head: &Head<'_>) -> bool {
    static SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    head.get(&SITE) == Some(b"cross-site")
}

/// Who had something sent that could not be looked into.
fn initiator(head: &Head<'_>) -> Initiator {
    if is_cross_site(head) { Initiator::CrossSite } else { Initiator::Own }
}

/// Whether a script made the request, and not a form or a link (Fetch Metadata; `X-Requested-With` before it).
fn is_script(head: &Head<'_>) -> bool {
    static MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    static WITH: HeaderName = HeaderName::from_static("x-requested-with");
    head.get(&MODE).is_some_and(|mode| mode != b"navigate") || head.get(&WITH).is_some()
}

/// Whether the request carried a cookie of this name.
fn sent(head: &Head<'_>, name: &[u8]) -> bool {
    let pairs = head.all(&COOKIE).flat_map(|value| value.split(|byte| *byte == b';'));
    pairs
        .map(<[u8]>::trim_ascii)
        .any(|pair| pair.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"=")))
}

/// The Install Tool is asked for answers that are not coded. An origin that codes them all the same tells by the
/// length.
fn install_tool(attempt: Attempt, status: StatusCode, fields: &Fields) -> Conclusion {
    if status != StatusCode::OK {
        return Conclusion::Now(Outcome { attempt, verdict: Verdict::Neutral });
    }
    let coded = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !fields.get(&CONTENT_ENCODING).is_some_and(coded) {
        return Conclusion::InBody(attempt);
    }
    let length = fields.get(&CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_short = length.is_some_and(|length| length <= SHORT);
    let verdict = if is_short { Verdict::Success } else { Verdict::Failure };
    Conclusion::Now(Outcome { attempt, verdict })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Version};

    use super::super::attempt::watch;
    use super::*;
    use crate::guard::testing;

    /// What is said of a POST of which so much came, answered like a wrong password of TYPO3 12.
    fn said(body: &[u8], length: u64, nonce: &'static str) -> Option<Verdict> {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let parts = testing::head("POST", "/typo3/login", Version::HTTP_11, &[form, ("cookie", nonce)]);
        let head = Head::new(&parts);
        let policy = Policy::typo3();
        let mut watch = watch(&policy, &Asked::of(&head, "/typo3/login", None, Some(length))).unwrap();
        watch.push(body);
        let lines = ["be_typo_user=deleted; Max-Age=0", "typo3nonce_ab=deleted; Max-Age=0"];
        let fields: Fields = lines
            .into_iter()
            .map(|line| (http::header::SET_COOKIE, HeaderValue::from_static(line)))
            .collect();
        match conclude(&policy, Some(&mut watch), &head, None, (StatusCode::OK, &fields), || false)? {
            Conclusion::Now(outcome) => Some(outcome.verdict),
            Conclusion::InBody(_) => None,
        }
    }

    #[test]
    fn an_answer_before_the_end_of_the_body_is_judged_by_what_is_known() {
        let beginning = b"username=editor&userident=x";
        assert_eq!(
            said(beginning, 1_000, "a=b; typo3nonce_ab=x"),
            Some(Verdict::Failure),
            "the nonce was used"
        );
        assert_eq!(said(beginning, 1_000, "typo3nonce_abc=x"), None, "that nonce was not sent");
        assert_eq!(said(beginning, beginning.len() as u64, "typo3nonce_ab=x"), None, "no try");
        assert_eq!(said(b"login_status=login&", 1_000, ""), Some(Verdict::Failure));
    }
}
