//! The texts of one record, in one buffer: what is kept is cut to its limit first.

use super::escape::{CUT, cut};
use super::secrets;

/// As much of a field as is kept.
const FIELD_MAX: usize = 1 << 10;
/// As much of a request target as is kept: TYPO3's backend addresses are long.
const TARGET_MAX: usize = 2 << 10;
/// Enough for the texts of nearly every request.
const USUAL: usize = 640;

/// The buffer.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
}

/// A text in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// No text: other than an empty one.
    pub(super) const NONE: Span = Span { start: u32::MAX, end: 0 };

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl Texts {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(USUAL) }
    }

    /// Keeps a text.
    pub(super) fn keep(&mut self, text: &[u8]) -> Span {
        let (kept, was_cut) = cut(text, FIELD_MAX);
        self.append(|bytes| {
            bytes.extend_from_slice(kept);
            if was_cut {
                bytes.extend_from_slice(CUT.as_bytes());
            }
        })
    }

    pub(super) fn keep_some(&mut self, text: Option<&[u8]>) -> Span {
        text.map_or(Span::NONE, |text| self.keep(text))
    }

    /// Keeps what `write` appends.
    pub(super) fn keep_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let span = self.append(write);
        self.shorten(span, FIELD_MAX)
    }

    /// Keeps a request target, its secrets masked. Masked first and cut then, so that a cut can never
    /// hide the name that makes a value a secret.
    pub(super) fn keep_target(&mut self, path: &[u8], query: Option<&[u8]>) -> Span {
        let span = self.append(|bytes| secrets::target(path, query, bytes));
        self.shorten(span, TARGET_MAX)
    }

    /// The text; `None` if there is none.
    pub(super) fn get(&self, span: Span) -> Option<&[u8]> {
        self.bytes.get(usize::try_from(span.start).ok()?..usize::try_from(span.end).ok()?)
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.position();
        write(&mut self.bytes);
        Span { start, end: self.position() }
    }

    /// Cuts the text that was appended last.
    fn shorten(&mut self, span: Span, max: usize) -> Span {
        let text = self.get(span).unwrap_or_default();
        let (kept, was_cut) = cut(text, max);
        if !was_cut {
            return span;
        }
        let length = self.bytes.len() - text.len() + kept.len();
        self.bytes.truncate(length);
        self.bytes.extend_from_slice(CUT.as_bytes());
        Span { start: span.start, end: self.position() }
    }

    fn position(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_apart_and_cut_to_their_limits() {
        let mut texts = Texts::new();
        let empty = texts.keep(b"");
        let long = texts.keep(&[b'a'; FIELD_MAX + 1]);
        let target = texts.keep_target(b"/", Some(&[b'b'; TARGET_MAX]));
        let last = texts.keep(b"last");
        assert_eq!(texts.get(empty), Some(&b""[..]));
        assert_eq!(texts.get(Span::NONE), None);
        assert_eq!(texts.get(long), Some(format!("{}…", "a".repeat(FIELD_MAX)).as_bytes()));
        assert_eq!(texts.get(target), Some(format!("/?{}…", "b".repeat(TARGET_MAX - 2)).as_bytes()));
        assert_eq!(texts.get(last), Some(&b"last"[..]));
    }

    #[test]
    fn a_secret_is_masked_before_it_is_cut() {
        let mut texts = Texts::new();
        let query = format!("token={}&b=1", "s".repeat(2 * TARGET_MAX));
        let span = texts.keep_target(b"/a", Some(query.as_bytes()));
        assert_eq!(texts.get(span), Some(&b"/a?token=***&b=1"[..]));
    }
}
