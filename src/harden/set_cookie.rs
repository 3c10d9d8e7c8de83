//! One `Set-Cookie` line: which attributes it has, and adding what is missing at its end.
//!
//! Attributes are told apart as browsers do it (RFC 6265 section 5.2): split at `;`, trimmed,
//! names compared without case. Everything that was there stays, byte for byte.

/// What a line should carry if it does not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite=Lax`, unless any `SameSite` is there.
    pub lax: bool,
}

/// The cookie's name as browsers read it: up to the first `=`, trimmed; a line without `=` names none.
#[must_use]
pub fn name(line: &[u8]) -> &[u8] {
    match memchr::memchr2(b'=', b';', line).and_then(|at| line.split_at_checked(at)) {
        Some((name, rest)) if rest.first() == Some(&b'=') => name.trim_ascii(),
        _ => &[],
    }
}

/// The line with what it lacks, or `None` if it lacks nothing.
#[must_use]
pub fn complete(line: &[u8], wanted: Wanted) -> Option<Vec<u8>> {
    let missing = missing(line, wanted);
    if missing == Wanted::default() {
        return None;
    }
    let mut out = Vec::with_capacity(line.len() + 40);
    out.extend_from_slice(line);
    let mut add = |is_missing: bool, attribute: &[u8]| {
        if is_missing {
            out.extend_from_slice(attribute);
        }
    };
    add(missing.secure, b"; Secure");
    add(missing.http_only, b"; HttpOnly");
    add(missing.lax, b"; SameSite=Lax");
    Some(out)
}

fn missing(line: &[u8], wanted: Wanted) -> Wanted {
    let mut missing = wanted;
    for start in memchr::memchr_iter(b';', line) {
        let attribute = line.get(start + 1..).unwrap_or_default().trim_ascii_start();
        if is_named(attribute, b"secure") {
            missing.secure = false;
        } else if is_named(attribute, b"httponly") {
            missing.http_only = false;
        } else if is_named(attribute, b"samesite") {
            missing.lax = false;
        }
    }
    missing
}

/// Whether the attribute that begins here has this name.
fn is_named(attribute: &[u8], name: &[u8]) -> bool {
    let Some((start, rest)) = attribute.split_at_checked(name.len()) else { return false };
    start.eq_ignore_ascii_case(name) && matches!(rest.trim_ascii_start().first(), None | Some(b';' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Wanted = Wanted { secure: true, http_only: true, lax: true };

    #[test]
    fn names() {
        assert_eq!(name(b"a=b; Path=/"), b"a");
        assert_eq!(name(b" a = b"), b"a");
        assert_eq!(name(b"nothing; a=b"), b"");
        assert_eq!(name(b"=value"), b"");
    }

    proptest! {
        #[test]
        fn every_byte_stays_and_twice_is_once(line in "[ -~]{0,60}") {
            let Some(done) = complete(line.as_bytes(), ALL) else { return Ok(()) };
            prop_assert!(done.starts_with(line.as_bytes()));
            prop_assert_eq!(complete(&done, ALL), None);
            prop_assert_eq!(name(&done), name(line.as_bytes()));
        }

        #[test]
        fn a_flag_is_never_doubled(flag in "(?i)(secure|httponly|samesite=(strict|none|lax|x)?)") {
            let line = format!("a=b; {flag}; path=/");
            let done = String::from_utf8(complete(line.as_bytes(), ALL).unwrap()).unwrap();
            let word = flag.split('=').next().unwrap().to_lowercase();
            prop_assert_eq!(done.to_lowercase().matches(&word).count(), 1);
        }

        #[test]
        fn nothing_wanted_nothing_done(line in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(complete(&line, Wanted::default()), None);
        }
    }
}
