//! What the application itself says of a login, in a response field of the operator's choice.
//!
//! `failure`, `success`, `locked` or `neutral`, then parameters: `kind`, which is `backend` or `frontend` or another
//! word of the log, and `user`, urlencoded. `failure; kind=backend; user=j.doe` is an example. What cannot be read
//! is no signal.

use super::attempt::{Attempt, Initiator, Kind};
use super::form::VALUE_MAX;
use super::verdict::{Outcome, Verdict};
use crate::guard::php;

/// The signal in a field's value. `tried` is what the request looked like, in case the signal does not say.
#[must_use]
pub fn read(value: &[u8], tried: Option<Attempt>) -> Option<Outcome> {
    let mut words = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let verdict = match words.next()? {
        b"success" => Verdict::Success,
        b"failure" => Verdict::Failure,
        b"locked" => Verdict::LockedByCore,
        b"neutral" => Verdict::Neutral,
        _ => return None,
    };
    let mut attempt =
        tried.unwrap_or(Attempt { kind: Kind::Application, user: None, initiator: Initiator::Own });
    for (name, value) in words.flat_map(php::pairs) {
        match &*name {
            b"kind" => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == &*value);
                attempt.kind = kind.unwrap_or(Kind::Application);
            }
            b"user" if !value.is_empty() => {
                attempt.user = Some(value.get(..VALUE_MAX).unwrap_or(&value).into());
            }
            _ => {}
        }
    }
    Some(Outcome { attempt, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(value: &str, tried: Option<Kind>) -> Option<(Kind, Verdict, Option<String>)> {
        let tried = tried.map(|kind| Attempt { kind, user: None, initiator: Initiator::Own });
        let Outcome { attempt, verdict } = read(value.as_bytes(), tried)?;
        Some((attempt.kind, verdict, attempt.user.map(|user| String::from_utf8_lossy(&user).into_owned())))
    }

    #[test]
    fn signals_are_read() {
        let user = Some("j. doe".to_owned());
        let whole = said("failure; kind=backend; user=j.+doe", None);
        assert_eq!(whole, Some((Kind::Backend, Verdict::Failure, user)));
        assert_eq!(said("success", Some(Kind::Mfa)), Some((Kind::Mfa, Verdict::Success, None)));
        assert_eq!(said(" locked ;", None), Some((Kind::Application, Verdict::LockedByCore, None)));
        assert_eq!(
            said("neutral;kind=nonsense;user=", Some(Kind::Mfa)),
            Some((Kind::Application, Verdict::Neutral, None))
        );
        for odd in ["", "Failure", "failed", "; failure", "\u{e9}"] {
            assert_eq!(said(odd, Some(Kind::Backend)), None, "{odd}");
        }
    }
}
