//! The ways in which an origin may read one path: a rule that closes one of them closes the path. Sans-IO.
//!
//! Apache and nginx decode once. Others decode twice, drop path parameters (`;x`), streams of NTFS (`::$DATA`), and
//! trailing dots and blanks as Windows does, take a backslash for a slash, or read overlong UTF-8. Where rules for paths are only
//! reported, a path also comes as the client wrote it: with dot segments, runs of slashes and escapes of all kinds.

use std::borrow::Cow;

use crate::guard::path::{decoded, decoded_again};

/// How often an escape may hide another one.
const DECODED: usize = 4;

/// The path with its escapes decoded once, as file systems behind Apache and nginx see it.
pub(super) fn exact(path: &str) -> Cow<'_, [u8]> {
    if path.contains('%') { Cow::Owned(decoded(path).collect()) } else { Cow::Borrowed(path.as_bytes()) }
}

/// The path as the most generous reader sees it.
pub(super) fn loose(exact: &[u8]) -> Vec<u8> {
    let mut bytes = exact.to_vec();
    for _ in 1..DECODED {
        let once: Vec<u8> = decoded_again(&bytes).collect();
        if once == bytes {
            break;
        }
        bytes = once;
    }
    bytes = shortened(&bytes);
    let end = memchr::memchr(0, &bytes).unwrap_or(bytes.len());
    bytes.truncate(end);
    let mut names: Vec<&[u8]> = Vec::new();
    let mut folder = false;
    for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| matches!(byte, b';' | b':')).next().unwrap_or_default();
        folder = true;
        match name {
            b".." => drop(names.pop()),
            name => {
                let name = trimmed(name);
                folder = name.is_empty();
                if !folder {
                    names.push(name);
                }
            }
        }
    }
    let mut out = Vec::with_capacity(bytes.len());
    for name in names {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    if folder {
        out.push(b'/');
    }
    out
}

/// Overlong sequences of two bytes as the characters that old decoders read: `C0 AE` is a dot, `C0 AF` a slash.
fn shortened(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (lead @ (0xc0 | 0xc1), [next @ 0x80..=0xbf, tail @ ..]) => {
                out.push((lead & 1) << 6 | (next & 0x3f));
                tail
            }
            (byte, tail) => {
                out.push(*byte);
                tail
            }
        };
    }
    out
}

fn trimmed(mut name: &[u8]) -> &[u8] {
    while let [rest @ .., b'.' | b' ' | b'\t'] = name {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loosely(path: &str) -> String {
        String::from_utf8_lossy(&loose(&exact(path))).into_owned()
    }

    #[test]
    fn ordinary_paths_have_one_form() {
        for path in ["/", "/a", "/a/", "/a/b.html", "/fileadmin/a.b.c"] {
            assert_eq!(loosely(path), path);
            assert!(matches!(exact(path), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn a_generous_reader_is_followed() {
        for (path, form) in [
            ("/%2576endor", "/vendor"),
            ("/%25252576endor/", "/vendor/"),
            ("/composer.json;x=1", "/composer.json"),
            ("/vendor;a/autoload.php", "/vendor/autoload.php"),
            ("/composer.json.", "/composer.json"),
            ("/composer.json%20%20", "/composer.json"),
            ("/composer.json. .", "/composer.json"),
            ("/composer.json::$DATA", "/composer.json"),
            ("/a\\..\\vendor", "/vendor"),
            ("/a%5c..%5cvendor", "/vendor"),
            ("//vendor///x", "/vendor/x"),
            ("/./vendor/./x", "/vendor/x"),
            ("/%c0%ae/%C1%B6endor", "/vendor"),
            ("/a/../vendor", "/vendor"),
            ("/a/..;/vendor", "/vendor"),
            ("/a/%2e%2e/vendor", "/vendor"),
            ("/composer.json%00.jpg", "/composer.json"),
            ("/../../vendor/..", "/"),
            ("/vendor/.", "/vendor/"),
        ] {
            assert_eq!(loosely(path), form, "{path}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_a_form_is_a_path(path in "/[ -~]{0,40}") {
            let form = loose(&exact(&path));
            prop_assert_eq!(form.first(), Some(&b'/'));
            prop_assert!(!form.windows(2).any(|pair| pair == b"//"));
            prop_assert_eq!(loose(&form), form);
        }
    }
}
