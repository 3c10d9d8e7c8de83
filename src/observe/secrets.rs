//! Keeping credentials out of the log: query parameters with telling names lose their values.
//!
//! TYPO3's backend carries form tokens in every address, and again percent-encoded inside `returnUrl`;
//! so names and delimiters are recognised at every level of encoding. Sans-IO: bytes in, bytes out.

/// What stands where a secret stood.
const MASK: &[u8] = b"***";
/// A parameter is secret if its name holds one of these, in any case. `token` covers TYPO3's
/// `__RequestToken` and `moduleToken`, `userident` and `p_field` its password fields.
const TELLING: [&[u8]; 13] = [
    b"pass",
    b"pwd",
    b"userident",
    b"p_field",
    b"token",
    b"secret",
    b"credential",
    b"session",
    b"signature",
    b"jwt",
    b"apikey",
    b"forgothash",
    b"oauth",
];
/// A parameter is secret if its innermost name is one of these: as parts of a word they say nothing.
/// `hash` is the one-time key in felogin's recovery mail (`tx_felogin_login[hash]`); `cHash` is none.
/// `totp` and `recoverycode` are what TYPO3's second factors call their codes.
const TELLING_ALONE: [&[u8]; 12] = [
    b"sid",
    b"otp",
    b"totp",
    b"mfa",
    b"recoverycode",
    b"pw",
    b"sig",
    b"pin",
    b"hash",
    b"auth",
    b"code",
    b"ticket",
];
/// Addresses whose every parameter is secret: TYPO3's backend password reset names them `t`, `i`, `e`.
const ALL_SECRET: [&[u8]; 2] = [b"password-reset", b"password_reset"];
/// As much of a name as is looked at.
const NAME_MAX: usize = 96;

/// Appends `path` and `?query` to `out`, the values of secret parameters replaced by `***`.
pub fn target(path: &[u8], query: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(path);
    let Some(query) = query else { return };
    out.push(b'?');
    mask(query, is_all_secret(path), out);
}

/// Appends a `Referer` to `out` without user information, query and fragment: pages hand their own
/// address on, and with it their secrets.
pub fn referer(value: &[u8], out: &mut Vec<u8>) {
    let end = memchr::memchr2(b'?', b'#', value).unwrap_or(value.len());
    let value = value.get(..end).unwrap_or_default();
    let begins = |at: &usize| value.get(*at..).is_some_and(|rest| rest.starts_with(b"://"));
    let authority = memchr::memchr_iter(b':', value).find(begins).map_or(0, |at| at + 3);
    let (scheme, rest) = value.split_at_checked(authority).unwrap_or((value, &[]));
    let host_end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(host_end).unwrap_or((rest, &[]));
    let user_end = memchr::memrchr(b'@', host).map_or(0, |at| at + 1);
    let host = host.get(user_end..).unwrap_or_default();
    out.extend_from_slice(scheme);
    out.extend_from_slice(host);
    out.extend_from_slice(path);
}

/// A delimiter in a query, plain or percent-encoded.
struct Mark {
    kind: Kind,
    /// 0 for a plain one, 1 for `%26`, 2 for `%2526` and so on.
    level: usize,
    length: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Equals,
    And,
    /// `?` and `;`: a name may begin after them, but no value ends at them.
    Start,
}

/// Whether every parameter behind this path is a secret. Looks for the rarest letter of both words, and then
/// at what stands around it.
fn is_all_secret(path: &[u8]) -> bool {
    const BEFORE_W: usize = "pass".len();
    let begins = |at: usize| at.checked_sub(BEFORE_W).and_then(|start| path.get(start..));
    memchr::memchr_iter(b'w', path)
        .filter_map(begins)
        .any(|rest| ALL_SECRET.iter().any(|word| rest.starts_with(word)))
}

fn mask(query: &[u8], all: bool, out: &mut Vec<u8>) {
    let (mut at, mut name, mut copied) = (0, 0, 0);
    while let Some((found, mark)) = next_mark(query, at) {
        let named = query.get(name..found).unwrap_or_default();
        at = found + mark.length;
        name = at;
        if mark.kind != Kind::Equals || !(all || is_secret(named)) {
            continue;
        }
        let end = value_end(query, at, mark.level);
        if end > at {
            out.extend_from_slice(query.get(copied..at).unwrap_or_default());
            out.extend_from_slice(MASK);
            (at, name, copied) = (end, end, end);
        }
    }
    out.extend_from_slice(query.get(copied..).unwrap_or_default());
}

/// Where the value that begins at `from` ends: at the next `&` of its own level or a lower one. One of
/// a higher level belongs to the value.
fn value_end(query: &[u8], from: usize, level: usize) -> usize {
    let mut at = from;
    while let Some((found, mark)) = next_mark(query, at) {
        if mark.kind == Kind::And && mark.level <= level {
            return found;
        }
        at = found + mark.length;
    }
    query.len()
}

/// The first delimiter at `from` or behind it, and where it is.
fn next_mark(query: &[u8], from: usize) -> Option<(usize, Mark)> {
    let mut at = from;
    loop {
        let may_begin = |byte: &u8| matches!(byte, b'=' | b'&' | b'?' | b';' | b'%');
        at += query.get(at..)?.iter().position(may_begin)?;
        if let Some(mark) = mark(query.get(at..)?) {
            return Some((at, mark));
        }
        at += 1;
    }
}

fn mark(rest: &[u8]) -> Option<Mark> {
    let (byte, level, length) = character(rest)?;
    let kind = match byte {
        b'=' => Kind::Equals,
        b'&' => Kind::And,
        b'?' | b';' => Kind::Start,
        _ => return None,
    };
    Some(Mark { kind, level, length })
}

/// The first character with its encoding taken off, how often it was encoded, and its length.
fn character(rest: &[u8]) -> Option<(u8, usize, usize)> {
    let first = *rest.first()?;
    if first != b'%' {
        return Some((first, 0, 1));
    }
    let mut level = 1;
    let mut digits = rest.get(1..)?;
    while let Some(inner) = digits.strip_prefix(b"25").filter(|inner| escape(inner).is_some()) {
        level += 1;
        digits = inner;
    }
    let byte = escape(digits);
    Some(byte.map_or((b'%', 0, 1), |byte| (byte, level, 1 + 2 * level)))
}

/// The byte that two hexadecimal digits stand for.
fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |i: usize| digits.get(i).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn is_secret(name: &[u8]) -> bool {
    let mut plain = [0; NAME_MAX];
    let length = decode(name, &mut plain);
    let plain = plain.get(..length).unwrap_or_default();
    let inner = plain.strip_suffix(b"]").unwrap_or(plain);
    let inner = memchr::memrchr(b'[', inner).and_then(|at| inner.get(at + 1..)).unwrap_or(inner);
    holds_telling(plain)
        || TELLING_ALONE.contains(&inner)
        || inner.ends_with(b"key")
        || inner.starts_with(b"authori")
        || inner.starts_with(b"auth_")
        || inner.ends_with(b"_auth")
}

/// Writes the beginning of a name with its encoding taken off and in lower case; how much that is.
fn decode(name: &[u8], plain: &mut [u8; NAME_MAX]) -> usize {
    let mut rest = name;
    let mut length = 0;
    for place in plain {
        let Some((byte, _, taken)) = character(rest) else { break };
        *place = byte.to_ascii_lowercase();
        rest = rest.get(taken..).unwrap_or_default();
        length += 1;
    }
    length
}

/// Whether one of the telling words is in this name. Nearly every place is passed over by its first two
/// letters.
fn holds_telling(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let suspicious = tail.first().is_some_and(|second| begins_telling(*first, *second));
        if suspicious && TELLING.iter().any(|word| rest.starts_with(word)) {
            return true;
        }
        rest = tail;
    }
    false
}

/// Whether a telling word may begin with these two letters.
fn begins_telling(first: u8, second: u8) -> bool {
    BEGINNINGS.get(usize::from(first & 31)).is_some_and(|seconds| seconds & (1 << (second & 31)) != 0)
}

/// For each first letter of a telling word, the second letters; both by their five lowest bits.
#[expect(clippy::indexing_slicing, reason = "happens while compiling, where it cannot panic unseen")]
const BEGINNINGS: [u32; 32] = {
    let mut seconds = [0; 32];
    let mut at = 0;
    while at < TELLING.len() {
        if let [first, second, ..] = TELLING[at] {
            seconds[(*first & 31) as usize] |= 1 << (*second & 31);
        }
        at += 1;
    }
    seconds
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(query: &str) -> String {
        let mut out = Vec::new();
        mask(query.as_bytes(), false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn telling_names_lose_their_values_and_others_keep_them() {
        for (query, want) in [
            ("id=1&cHash=abc", "id=1&cHash=abc"),
            ("token=abc&id=1", "token=***&id=1"),
            ("id=1&__RequestToken=a.b.c", "id=1&__RequestToken=***"),
            ("PASSWORD=a&userident=b", "PASSWORD=***&userident=***"),
            ("tx_felogin%5Bpass%5D=x&logintype=login", "tx_felogin%5Bpass%5D=***&logintype=login"),
            ("tx_felogin_login[hash]=1|2", "tx_felogin_login[hash]=***"),
            ("api_key=1&keyword=door&author=me&auth=1", "api_key=***&keyword=door&author=me&auth=***"),
            (
                "pw=a&otp=1&mfa=2&totp=3&recoveryCode=4&a[pw]=5",
                "pw=***&otp=***&mfa=***&totp=***&recoveryCode=***&a[pw]=***",
            ),
            ("powder=1&mfaProvider=totp", "powder=1&mfaProvider=totp"),
            ("%74oken=abc", "%74oken=***"),
            ("token=", "token="),
            ("token", "token"),
            ("password=a;b?c%26d&x=1", "password=***&x=1"),
            ("pass=a=b", "pass=***"),
            ("q=100%&token=1", "q=100%&token=***"),
            ("", ""),
        ] {
            assert_eq!(masked(query), want);
        }
    }

    #[test]
    fn secrets_inside_an_encoded_address_are_found() {
        assert_eq!(
            masked("returnUrl=%2Ftypo3%2Fmodule%2Fweb%3Ftoken%3Dabc%26id%3D1&edit=2"),
            "returnUrl=%2Ftypo3%2Fmodule%2Fweb%3Ftoken%3D***%26id%3D1&edit=2"
        );
        assert_eq!(
            masked("a=%2F%3Fb%3D%252F%253Ftoken%253Dabc%2526x%253D1%26c%3D2"),
            "a=%2F%3Fb%3D%252F%253Ftoken%253D***%2526x%253D1%26c%3D2"
        );
    }

    #[test]
    fn every_parameter_of_a_password_reset_is_secret() {
        let mut out = Vec::new();
        target(b"/typo3/login/password-reset/validate", Some(b"t=abc&i=def"), &mut out);
        assert_eq!(out, b"/typo3/login/password-reset/validate?t=***&i=***");
    }

    #[test]
    fn a_referer_keeps_no_query_and_no_password() {
        for (value, want) in [
            ("https://example.org/a?token=1#x", "https://example.org/a"),
            ("https://me:secret@example.org/a@b", "https://example.org/a@b"),
            ("https://example.org", "https://example.org"),
            ("about:blank", "about:blank"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            referer(value.as_bytes(), &mut out);
            assert_eq!(out, want.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_secret_never_survives_among_other_parameters(
            before in "[a-z0-9=&%;?]{0,30}", name in "[a-z_]{0,5}(token|pass|pwd|secret)[a-z_]{0,5}", after in "(&[a-z0-9=%]{0,20})?",
        ) {
            let query = format!("{before}&{name}=XSECRETX{after}");
            prop_assert!(!masked(&query).contains("XSECRETX"), "{}", masked(&query));
        }

        #[test]
        fn any_bytes_are_fine_and_without_equals_nothing_changes(query in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            mask(&query, false, &mut out);
            if !query.contains(&b'=') && !query.contains(&b'%') {
                prop_assert_eq!(&out, &query);
            }
            let mut again = Vec::new();
            mask(&out, false, &mut again);
            prop_assert_eq!(out, again, "masking what is masked changes nothing");
        }
    }
}
