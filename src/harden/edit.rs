//! The `edit` operation: a regular expression and a replacement with `$1` to `$9`.
//!
//! The replacement follows Apache's (`Header edit`, `ap_pregsub`): `$0` to `$9` with exactly one digit,
//! and a backslash makes the next character itself. The expressions are those of the `regex` crate:
//! linear in time, therefore without look-around and back-references.

use regex::bytes::{Captures, Regex};

/// A compiled edit.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pattern: Regex,
    pieces: Box<[Piece]>,
    every: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Group(usize),
}

impl Edit {
    /// Compiles `pattern` and `replacement`. `every` replaces every match (Apache's `edit*`) and not
    /// just the first. The error says what is wrong with either.
    pub(super) fn new(pattern: &str, replacement: &str, every: bool) -> Result<Self, String> {
        let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
        let pieces = pieces(replacement);
        let groups = pattern.captures_len();
        let beyond = pieces.iter().find_map(|piece| match piece {
            Piece::Group(number) if *number >= groups => Some(*number),
            _ => None,
        });
        match beyond {
            Some(number) => Err(format!("`${number}`: the expression has only {} group(s)", groups - 1)),
            None => Ok(Self { pattern, pieces: pieces.into(), every }),
        }
    }

    /// The edited value, or `None` if nothing matches.
    pub(super) fn apply(&self, value: &[u8]) -> Option<Vec<u8>> {
        let most = if self.every { usize::MAX } else { 1 };
        let mut matches = self.pattern.captures_iter(value).take(most).peekable();
        matches.peek()?;
        let mut out = Vec::with_capacity(value.len() + 16);
        let mut from = 0;
        for captures in matches {
            let found = captures.get(0)?;
            out.extend_from_slice(value.get(from..found.start())?);
            self.expand(&captures, &mut out);
            from = found.end();
        }
        out.extend_from_slice(value.get(from..)?);
        Some(out)
    }

    fn expand(&self, captures: &Captures<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Group(number) => {
                    out.extend_from_slice(captures.get(*number).map_or(&[], |m| m.as_bytes()));
                }
            }
        }
    }
}

fn pieces(replacement: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut bytes = replacement.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek().copied()) {
            (b'$', Some(digit @ b'0'..=b'9')) => {
                bytes.next();
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(Piece::Group(usize::from(digit - b'0')));
            }
            (b'\\', Some(next)) => {
                bytes.next();
                text.push(next);
            }
            _ => text.push(byte),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(pattern: &str, with: &str, every: bool, value: &str) -> Option<String> {
        let edited = Edit::new(pattern, with, every).unwrap().apply(value.as_bytes())?;
        Some(String::from_utf8(edited).unwrap())
    }

    #[test]
    fn replaces_like_apache() {
        assert_eq!(edit("^(.*)$", "$1;Secure", false, "a=b").unwrap(), "a=b;Secure");
        assert_eq!(edit("a", "x", false, "banana").unwrap(), "bxnana");
        assert_eq!(edit("a", "x", true, "banana").unwrap(), "bxnxnx");
        assert_eq!(edit("(a)(n)", "$2$1", true, "banana").unwrap(), "bnanaa");
        assert_eq!(edit("n", r"\$1", false, "an").unwrap(), "a$1");
        assert_eq!(edit("(n)", "$12", false, "an").unwrap(), "an2");
        assert_eq!(edit("q", "x", false, "banana"), None);
    }

    #[test]
    fn faults_are_said() {
        assert!(Edit::new("(", "", false).is_err());
        assert!(Edit::new("a", "$1", false).unwrap_err().contains("$1"));
    }

    proptest! {
        #[test]
        fn replacing_a_match_by_itself_changes_nothing(value in "[ -~]{0,40}", pattern in "[a-z]{1,2}") {
            for every in [false, true] {
                if let Some(same) = edit(&pattern, "$0", every, &value) {
                    prop_assert_eq!(&same, &value);
                }
            }
        }

        #[test]
        fn a_literal_edit_agrees_with_str_replace(value in "[a-c]{0,20}", with in "[x-z]{0,3}") {
            let all = edit("ab", &with, true, &value).unwrap_or_else(|| value.clone());
            prop_assert_eq!(all, value.replace("ab", &with));
            let first = edit("ab", &with, false, &value).unwrap_or_else(|| value.clone());
            prop_assert_eq!(first, value.replacen("ab", &with, 1));
        }
    }
}
