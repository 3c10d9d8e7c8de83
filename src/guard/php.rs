//! How PHP names request parameters: the rules by which a text becomes `$_GET` and `$_POST`. Sans-IO.
//!
//! A rule on a parameter has to read its name as the application will, or another spelling gets around it:
//! to PHP, `__typo3.install`, `+__typo3[install` and `%5f_typo3_install%00x` are all `__typo3_install`.
//! Source: `php_register_variable_ex` in PHP's `main/php_variables.c`. Older versions keep dots and blanks
//! behind an unclosed bracket; such a name is folded further here than there. Limits on the number and the
//! depth of parameters are not applied either: what PHP would drop is still seen.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// The parameters of an urlencoded text, a query or a body, in their order: folded name, decoded value.
/// Parameters that PHP drops because they have no name are left out.
pub fn pairs(text: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    Pieces { rest: Some(text) }.filter_map(|piece| {
        let (name, value) = match memchr(b'=', piece) {
            Some(at) => (piece.get(..at)?, piece.get(at + 1..)?),
            None => (piece, &[][..]),
        };
        let name = folded(unescaped(name));
        (!name.is_empty()).then(|| (name, unescaped(value)))
    })
}

/// Whether an urlencoded text has the parameter `wanted` in any spelling. `wanted` is one variable: no brackets.
#[must_use]
pub fn has(text: &[u8], wanted: &[u8]) -> bool {
    // No spelling is shorter than the name.
    text.len() >= wanted.len()
        && Pieces { rest: Some(text) }.any(|piece| {
            let name = piece.get(..memchr(b'=', piece).unwrap_or(piece.len())).unwrap_or(piece);
            name.len() >= wanted.len() && base(&folded(unescaped(name))) == wanted
        })
}

/// A name that is not urlencoded, such as one of a multipart body, as PHP would register it. Empty if PHP
/// drops it.
#[must_use]
pub fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    let name = name.get(..memchr(0, name).unwrap_or(name.len())).unwrap_or(name);
    let blanks = name.iter().take_while(|byte| **byte == b' ').count();
    let name = name.get(blanks..).unwrap_or(name);
    let Some(odd) = name.iter().position(|byte| matches!(byte, b' ' | b'.' | b'[')) else {
        return Cow::Borrowed(name);
    };
    match name.iter().position(|byte| *byte == b'[') {
        Some(0) => Cow::Borrowed(&[]),
        Some(at) if odd == at && is_indexed(name, at) => Cow::Borrowed(name),
        bracket => Cow::Owned(rebuild(name, bracket)),
    }
}

/// The part of a folded name before its first bracket: the variable that PHP registers.
#[must_use]
pub fn base(name: &[u8]) -> &[u8] {
    name.get(..memchr(b'[', name).unwrap_or(name.len())).unwrap_or(name)
}

/// The pieces between ampersands.
struct Pieces<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = memchr(b'&', rest);
        self.rest = end.and_then(|end| rest.get(end + 1..));
        rest.get(..end.unwrap_or(rest.len()))
    }
}

fn folded(name: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match name {
        Cow::Borrowed(name) => fold(name),
        Cow::Owned(name) => Cow::Owned(fold(&name).into_owned()),
    }
}

/// `php_url_decode`: `+` is a blank, and a `%` without two digits stands for itself.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [a, b, tail @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                out.push(digit(*a) << 4 | digit(*b));
                rest = tail;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    Cow::Owned(out)
}

fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        byte => (byte | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0xf,
    }
}

/// Whether the name is, from its bracket at `at` to its end, a run of `[index]` that PHP keeps as it is.
fn is_indexed(name: &[u8], at: usize) -> bool {
    let mut rest = name.get(at..).unwrap_or_default();
    while let Some((index, tail)) = index(rest) {
        if is_blank(index) {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

/// The index in the brackets that `text` begins with, and what follows them.
fn index(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"[")?;
    let end = memchr(b']', inside)?;
    Some((inside.get(..end)?, inside.get(end + 1..)?))
}

/// One byte of white space as an index counts as none.
fn is_blank(index: &[u8]) -> bool {
    matches!(index, [b' ' | 0x09..=0x0d])
}

/// Writes a name in PHP's form. What follows the last closed bracket is dropped; without a closed one, every
/// bracket is an underscore.
fn rebuild(name: &[u8], bracket: Option<usize>) -> Vec<u8> {
    let indices = bracket.and_then(|at| name.get(at..)).filter(|rest| index(rest).is_some());
    let base = name.get(..bracket.filter(|_| indices.is_some()).unwrap_or(name.len())).unwrap_or(name);
    let underscore = |byte: &u8| if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { *byte };
    let mut out: Vec<u8> = base.iter().map(underscore).collect();
    let mut rest = indices.unwrap_or_default();
    while let Some((index, tail)) = index(rest) {
        out.push(b'[');
        out.extend(if is_blank(index) { &[] } else { index });
        out.push(b']');
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Corpus {
        /// What PHP 8.2 makes of a text, as `name=value`.
        pairs: Vec<Case>,
        /// Spellings of one name, and texts that hold another one.
        name: String,
        spellings: Vec<String>,
        others: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        text: String,
        is: Vec<(String, String)>,
    }

    fn corpus() -> Corpus {
        serde_norway::from_str(include_str!("../../tests/corpus/php-names.yaml")).unwrap()
    }

    fn read(text: &[u8]) -> Vec<(String, String)> {
        let text_of = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
        pairs(text).map(|(name, value)| (text_of(name), text_of(value))).collect()
    }

    fn names(text: &str, wanted: &str) -> bool {
        let found = pairs(text.as_bytes()).any(|(name, _)| base(&name) == wanted.as_bytes());
        assert_eq!(has(text.as_bytes(), wanted.as_bytes()), found, "{text}");
        found
    }

    #[test]
    fn texts_are_read_as_php_reads_them() {
        for Case { text, is } in corpus().pairs {
            assert_eq!(read(text.as_bytes()), is, "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_name_is_known() {
        let Corpus { name, spellings, others, .. } = corpus();
        for spelling in spellings {
            assert!(names(&spelling, &name), "{spelling}");
        }
        for other in others {
            assert!(!names(&other, &name), "{other}");
        }
    }

    #[test]
    fn everyday_texts_are_not_copied() {
        for (name, value) in pairs(b"id=1&tx_news[action]=show&cHash=0123") {
            assert!(matches!((name, value), (Cow::Borrowed(_), Cow::Borrowed(_))));
        }
    }

    /// The C source, followed line by line on a text that ends with a NUL.
    fn as_php_registers(name: &[u8]) -> Vec<u8> {
        let mut var: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
        while var.first() == Some(&b' ') {
            var.remove(0);
        }
        var.push(0);
        let mut p = 0;
        let mut is_array = false;
        while var[p] != 0 {
            match var[p] {
                b' ' | b'.' => var[p] = b'_',
                b'[' => {
                    is_array = true;
                    break;
                }
                _ => {}
            }
            p += 1;
        }
        if p == 0 {
            return Vec::new();
        }
        let mut out = var[..p].to_vec();
        let mut ip = p;
        while is_array {
            ip += 1;
            let start = ip;
            if var[ip].is_ascii_whitespace() || var[ip] == 0x0b {
                ip += 1;
            }
            if var[ip] == b']' {
                out.extend(b"[]");
            } else if let Some(end) = var[ip..].iter().position(|byte| *byte == b']') {
                ip += end;
                out.push(b'[');
                out.extend(&var[start..ip]);
                out.push(b']');
            } else {
                if !out.contains(&b'[') {
                    out.push(b'_');
                    let rest = var[start..var.len() - 1].iter();
                    out.extend(rest.map(|b| if matches!(b, b' ' | b'.' | b'[') { b'_' } else { *b }));
                }
                return out;
            }
            ip += 1;
            is_array = var[ip] == b'[';
        }
        out
    }

    /// Names made of the bytes that matter.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => prop::sample::select(b"[]. \t+%_\x00ab5d".to_vec()),
            1 => any::<u8>(),
        ];
        prop::collection::vec(byte, 0..16)
    }

    /// One byte of a name as some client may write it; a blank in front would be dropped.
    fn spelled(byte: u8, how: u8) -> Vec<u8> {
        match (byte, how % 6) {
            (b'_', 0) => b".".to_vec(),
            (b'_', 1) => b"+".to_vec(),
            (b'_', 2) => b"%2E".to_vec(),
            (byte, 3) => format!("%{byte:02x}").into_bytes(),
            (byte, 4) => format!("%{byte:02X}").into_bytes(),
            (byte, _) => vec![byte],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn names_are_folded_as_in_the_c_source(name in name()) {
            prop_assert_eq!(fold(&name).into_owned(), as_php_registers(&name));
        }

        #[test]
        fn folding_twice_changes_nothing(name in name()) {
            let once = fold(&name).into_owned();
            prop_assert_eq!(fold(&once).into_owned(), once);
        }

        #[test]
        fn a_base_holds_nothing_that_php_replaces(name in name()) {
            let folded = fold(&name).into_owned();
            prop_assert!(!base(&folded).iter().any(|byte| matches!(byte, 0 | b' ' | b'.' | b'[')));
        }

        #[test]
        fn escaping_a_text_hides_nothing(name in name(), value in prop::collection::vec(any::<u8>(), 0..8)) {
            let escape = |text: String, byte: &u8| text + &format!("%{byte:02X}");
            let escaped = |bytes: &[u8]| bytes.iter().fold(String::new(), escape);
            let text = format!("x=1&{}={}", escaped(&name), escaped(&value));
            let folded = fold(&name).into_owned();
            let found: Vec<_> = pairs(text.as_bytes()).skip(1).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            prop_assert_eq!(found, if folded.is_empty() { vec![] } else { vec![(folded, value)] });
        }

        #[test]
        fn no_spelling_of_a_name_gets_around(
            hows in prop::collection::vec(any::<u8>(), 15),
            blanks in prop::sample::select(vec!["", "+", "%20", "+%20"]),
            end in prop::sample::select(vec!["", "[]", "[a][", "%5Bx%5D", "%00", "%00[y", "[a]]b"]),
            value in prop::sample::select(vec!["", "=", "=1", "=%00"]),
            around in prop::sample::select(vec![("", ""), ("a=1&", "&"), ("&&", "&b"), ("=&", "&[=")]),
        ) {
            let bytes = b"__typo3_install".iter().zip(hows).enumerate();
            let spelled: Vec<u8> =
                bytes.flat_map(|(at, (b, how))| spelled(*b, if at == 0 && how % 6 == 1 { 0 } else { how })).collect();
            let spelled = String::from_utf8(spelled).unwrap();
            let text = format!("{}{blanks}{spelled}{end}{value}{}", around.0, around.1);
            prop_assert!(names(&text, "__typo3_install"), "{}", text);
        }

        #[test]
        fn nothing_panics_and_no_name_is_empty(text in prop::collection::vec(any::<u8>(), 0..64)) {
            for (name, _) in pairs(&text) {
                prop_assert!(!name.is_empty());
                prop_assert!(!base(&name).is_empty());
            }
        }
    }
}
