//! Globs over a whole path: `*` stays within a segment, `**` crosses slashes, `{a,b}` are alternatives. Sans-IO.
//!
//! Linear in the path whatever was written: every position that a pattern may have reached is a bit, and each byte
//! moves all of them at once.

use crate::config::section::Fault;

/// The most tokens a pattern may have after its braces were written out: one bit for each, and one for the end.
const LONGEST: usize = 127;

/// The most patterns that the braces of one may stand for.
const MOST: usize = 256;

/// One pattern without alternatives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Box<[Token]>,
    ignore_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: any byte but a slash.
    One,
    /// `*`: any run without a slash.
    Run,
    /// `**`: any run.
    Any,
}

impl Glob {
    /// The patterns that `text` stands for. It must begin with `/` or `**`, for a path begins with a slash.
    pub fn expand(text: &str, ignore_case: bool) -> Result<Vec<Self>, Fault> {
        if !text.starts_with('/') && !text.starts_with("**") {
            let message = format!("`{text}` could never match: every path begins with a slash");
            return Err(Fault::new(message, format!("write `/{text}` or `**/{text}`")));
        }
        let mut globs = Vec::new();
        for plain in alternatives(text)? {
            globs.push(Self::new(&plain, ignore_case)?);
        }
        Ok(globs)
    }

    fn new(text: &str, ignore_case: bool) -> Result<Self, Fault> {
        let mut tokens = Vec::new();
        for byte in text.bytes() {
            match (byte, tokens.last()) {
                (b'*', Some(Token::Any)) => {}
                (b'*', Some(Token::Run)) => {
                    tokens.pop();
                    tokens.push(Token::Any);
                }
                (b'*', _) => tokens.push(Token::Run),
                (b'?', _) => tokens.push(Token::One),
                (byte, _) if ignore_case => tokens.push(Token::Byte(byte.to_ascii_lowercase())),
                (byte, _) => tokens.push(Token::Byte(byte)),
            }
        }
        if tokens.len() > LONGEST {
            let message = format!("`{text}` is too long: a pattern has at most {LONGEST} characters");
            return Err(Fault::new(message, "write `*` or `**` for a part of it"));
        }
        Ok(Self { tokens: tokens.into(), ignore_case })
    }

    /// Whether the whole of `path` fits. Bytes as the origin's file system sees them: escapes decoded.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut reached = self.open(1, 0);
        for byte in path {
            let byte = if self.ignore_case { byte.to_ascii_lowercase() } else { *byte };
            reached = self.step(reached, byte);
            if reached == 0 {
                return false;
            }
        }
        reached & self.end() != 0
    }

    fn end(&self) -> u128 {
        1 << self.tokens.len()
    }

    fn step(&self, reached: u128, byte: u8) -> u128 {
        let mut next = 0;
        let mut left = reached & !self.end();
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            let token = usize::try_from(at).ok().and_then(|at| self.tokens.get(at));
            match token {
                Some(Token::Any) => next = self.open(next | 1 << at, at),
                Some(Token::Run) if byte != b'/' => next = self.open(next | 1 << at, at),
                Some(Token::One) if byte != b'/' => next = self.open(next | 2 << at, at + 1),
                Some(Token::Byte(own)) if *own == byte => next = self.open(next | 2 << at, at + 1),
                _ => {}
            }
        }
        next
    }

    /// A run at `at` may be empty: what is behind it is reached as well.
    fn open(&self, mut reached: u128, mut at: u32) -> u128 {
        while let Some(Token::Run | Token::Any) = usize::try_from(at).ok().and_then(|at| self.tokens.get(at))
        {
            at += 1;
            reached |= 1 << at;
        }
        reached
    }

    /// The runs of plain bytes that a path must hold to match.
    pub fn literals(&self) -> impl Iterator<Item = Vec<u8>> {
        let runs = self.tokens.split(|token| !matches!(token, Token::Byte(_)));
        runs.filter(|run| !run.is_empty()).map(|run| {
            let byte = |token: &Token| if let Token::Byte(byte) = token { Some(*byte) } else { None };
            run.iter().filter_map(byte).collect()
        })
    }
}

/// Writes the braces of `text` out; they do not nest.
fn alternatives(text: &str) -> Result<Vec<String>, Fault> {
    let mut made = vec![String::new()];
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((inside, after)) = behind.split_once('}') else {
            return Err(Fault::new(format!("`{text}` has a `{{` without `}}`"), "write e.g. `/{a,b}/**`"));
        };
        if inside.contains('{') {
            return Err(Fault::new(format!("`{text}` has braces within braces"), "write two patterns"));
        }
        made = made
            .iter()
            .flat_map(|head| inside.split(',').map(move |one| format!("{head}{before}{one}")))
            .collect();
        if made.len() > MOST {
            let message = format!("`{text}` stands for more than {MOST} patterns");
            return Err(Fault::new(message, "write fewer alternatives, or `*` for one of them"));
        }
        rest = after;
    }
    for head in &mut made {
        head.push_str(rest);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::expand(pattern, false).unwrap().iter().any(|glob| glob.matches(path.as_bytes()))
    }

    #[test]
    fn stars_stay_in_a_segment_and_two_of_them_do_not() {
        assert!(matches("/a/*.txt", "/a/b.txt") && matches("/a/*.txt", "/a/.txt"));
        assert!(!matches("/a/*.txt", "/a/b/c.txt") && matches("/a/**.txt", "/a/b/c.txt"));
        assert!(matches("**/x", "/x") && matches("**/x", "/a/b/x") && !matches("**/x", "/ax"));
        assert!(matches("/v**", "/v") && matches("/v**", "/v/a/b") && !matches("/v**", "/a/v"));
        assert!(matches("/a/?", "/a/b") && !matches("/a/?", "/a/") && !matches("/a?b", "/a/b"));
        assert!(matches("**a/*/b/**", "/xa/1/b/") && !matches("**a/*/b/**", "/xa/1/2/b/"));
    }

    #[test]
    fn braces_are_alternatives() {
        for path in ["/a.md", "/a.txt", "/b.md"] {
            assert!(matches("/{a,b}.{md,txt}", path), "{path}");
        }
        assert!(matches("/a{,.md}", "/a") && matches("/a{,.md}", "/a.md") && !matches("/{a,b}", "/ab"));
    }

    #[test]
    fn case_counts_unless_said() {
        let glob = Glob::expand("**.LOG", true).unwrap();
        assert!(glob[0].matches(b"/a.log") && glob[0].matches(b"/A.Log"));
        assert!(!matches("**.LOG", "/a.log"));
    }

    #[test]
    fn what_could_not_work_is_said() {
        for wrong in ["vendor", "*.log", "", "/{a", "/{a{b}}"] {
            assert!(Glob::expand(wrong, false).is_err(), "{wrong}");
        }
        assert!(Glob::expand(&"/a".repeat(64), false).is_err());
        assert!(Glob::expand(&"/{a,b,c,d}".repeat(5), false).is_err());
    }

    fn naive(tokens: &[Token], path: &[u8]) -> bool {
        match (tokens.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((Token::Any, rest)), _) => {
                naive(rest, path) || path.split_first().is_some_and(|(_, p)| naive(tokens, p))
            }
            (Some((Token::Run, rest)), _) => {
                naive(rest, path) || path.split_first().is_some_and(|(b, p)| *b != b'/' && naive(tokens, p))
            }
            (Some((Token::One, rest)), Some((b, p))) => *b != b'/' && naive(rest, p),
            (Some((Token::Byte(own), rest)), Some((b, p))) => own == b && naive(rest, p),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn all_positions_at_once_find_what_trying_each_finds(pattern in "/[ab/*?]{0,9}", path in "/[ab/]{0,12}") {
            let glob = Glob::new(&pattern, false).unwrap();
            prop_assert_eq!(glob.matches(path.as_bytes()), naive(&glob.tokens, path.as_bytes()));
        }

        #[test]
        fn what_matches_holds_every_literal(pattern in "/[ab/*?]{0,9}", path in "/[ab/]{0,12}") {
            let glob = Glob::new(&pattern, false).unwrap();
            if glob.matches(path.as_bytes()) {
                for literal in glob.literals() {
                    prop_assert!(path.contains(str::from_utf8(&literal).unwrap()));
                }
            }
        }
    }
}
