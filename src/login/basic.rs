//! HTTP Basic: for whom a request carries credentials (RFC 7617). Sans-IO.

use super::form::VALUE_MAX;

/// The user of `Authorization: Basic …`, cut to [`VALUE_MAX`] bytes; none for another scheme. Credentials that
/// cannot be read have a user without a name: the application will say what it thinks of them.
#[must_use]
pub fn user(authorization: &[u8]) -> Option<Box<[u8]>> {
    let (scheme, rest) = authorization.split_at_checked(b"Basic".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic") || rest.first().is_some_and(|byte| *byte != b' ') {
        return None;
    }
    let mut user = Vec::new();
    for quad in rest.trim_ascii().chunks(4) {
        let (mut bits, mut count) = (0_u32, 0);
        for value in quad.iter().map_while(|byte| sextet(*byte)) {
            bits = bits << 6 | value;
            count += 6;
        }
        let [_, bytes @ ..] = (bits << (24_u32.saturating_sub(count))).to_be_bytes();
        for byte in bytes.into_iter().take(usize::try_from(count / 8).unwrap_or_default()) {
            if byte == b':' || user.len() == VALUE_MAX {
                return Some(user.into());
            }
            user.push(byte);
        }
        if count < 24 {
            break;
        }
    }
    // No colon: no credentials.
    Some(Box::default())
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_user_is_what_stands_before_the_colon() {
        for (field, want) in [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some("Aladdin")),
            ("basic  YTpi", Some("a")),
            ("BASIC dGVzdDoxMjPCow==", Some("test")),
            ("Basic Og==", Some("")),
            ("Basic YWJj", Some("")),
            ("Basic", Some("")),
            ("Basic !", Some("")),
            ("Basically YTpi", None),
            ("Bearer YTpi", None),
            ("", None),
        ] {
            assert_eq!(user(field.as_bytes()).as_deref(), want.map(str::as_bytes), "{field}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_grows(field in prop::collection::vec(any::<u8>(), 0..400)) {
            let field = [b"Basic ".as_slice(), &field].concat();
            prop_assert!(user(&field).is_some_and(|user| user.len() <= VALUE_MAX));
        }
    }
}
