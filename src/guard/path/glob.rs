//! Globs on a file name: `*` stands for any run of bytes, `?` for exactly one. Sans-IO.

use std::fmt;

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Box<[Token]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Run,
}

impl Glob {
    /// Compiles `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let token = |byte| match byte {
            b'*' => Token::Run,
            b'?' => Token::One,
            byte => Token::Byte(byte),
        };
        let mut tokens: Vec<Token> = text.bytes().map(token).collect();
        tokens.dedup_by(|a, b| *a == Token::Run && *b == Token::Run);
        Self { tokens: tokens.into() }
    }

    /// Whether the whole of `name` fits.
    pub fn matches(&self, name: impl Iterator<Item = u8> + Clone) -> bool {
        fits(&self.tokens, name, |token, byte| token == Token::One || token == Token::Byte(byte))
    }

    /// Whether every name that fits `other` fits this one too. Never true wrongly.
    #[must_use]
    pub fn covers(&self, other: &Glob) -> bool {
        fits(&self.tokens, other.tokens.iter().copied(), |token, theirs| match theirs {
            Token::Run => false,
            Token::One => token == Token::One,
            Token::Byte(_) => token == Token::One || token == theirs,
        })
    }

    /// How many bytes it says exactly; more is more specific.
    #[must_use]
    pub fn literals(&self) -> usize {
        self.tokens.iter().filter(|token| matches!(token, Token::Byte(_))).count()
    }
}

/// Walks both from the left; after a mismatch only the last `*` has to give way, so the work is bounded by
/// the product of both lengths.
fn fits<I>(mut tokens: &[Token], mut text: I, one: impl Fn(Token, I::Item) -> bool) -> bool
where
    I: Iterator<Item: Copy> + Clone,
{
    let mut retry: Option<(&[Token], I)> = None;
    loop {
        if let Some((Token::Run, rest)) = tokens.split_first() {
            retry = Some((rest, text.clone()));
            tokens = rest;
            continue;
        }
        let mut ahead = text.clone();
        match (tokens.split_first(), ahead.next()) {
            (None, None) => return true,
            (Some((token, rest)), Some(item)) if one(*token, item) => {
                tokens = rest;
                text = ahead;
            }
            (_, None) => return false,
            _ => {
                let Some((rest, from)) = retry.as_mut() else { return false };
                from.next();
                tokens = rest;
                text = from.clone();
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = self
            .tokens
            .iter()
            .map(|token| match token {
                Token::Byte(byte) => *byte,
                Token::One => b'?',
                Token::Run => b'*',
            })
            .collect();
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        Glob::new(glob).matches(name.bytes())
    }

    /// The definition, too slow to use.
    fn by_definition(glob: &[u8], name: &[u8]) -> bool {
        match (glob, name) {
            ([], []) => true,
            ([b'*', rest @ ..], name) => (0..=name.len()).any(|n| by_definition(rest, &name[n..])),
            ([b'?', rest @ ..], [_, tail @ ..]) => by_definition(rest, tail),
            ([g, rest @ ..], [n, tail @ ..]) => g == n && by_definition(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn the_usual_globs() {
        assert!(matches("*.pdf", "a.pdf") && matches("*.pdf", ".pdf") && !matches("*.pdf", "a.pdf.txt"));
        assert!(
            matches("*.svg*", "a.svg") && matches("*.svg*", "a.svg.wrong") && !matches("*.svg*", "a.SVG")
        );
        assert!(matches("?.txt", "a.txt") && !matches("?.txt", "ab.txt") && !matches("?.txt", ".txt"));
        assert!(matches("*", "") && matches("**", "x") && !matches("", "x"));
    }

    #[test]
    fn covering() {
        let covers = |a: &str, b: &str| Glob::new(a).covers(&Glob::new(b));
        assert!(covers("*.pdf", "report-*.pdf") && covers("*", "?") && covers("a?c", "abc"));
        assert!(!covers("?", "*") && !covers("report-*.pdf", "*.pdf") && !covers("abc", "a?c"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn it_agrees_with_the_definition(glob in "[ab*?]{0,7}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(&glob, &name), by_definition(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn what_is_covered_fits(wide in "[ab*?]{0,5}", narrow in "[ab*?]{0,5}", name in "[ab]{0,6}") {
            if Glob::new(&wide).covers(&Glob::new(&narrow)) && matches(&narrow, &name) {
                prop_assert!(matches(&wide, &name));
            }
        }
    }
}
