//! `application/x-www-form-urlencoded` as PHP reads it, piece by piece and without a buffer. Sans-IO.
//!
//! Names and values are decoded while they pass; of each, only the beginning is kept. What PHP leaves out of a
//! name (leading blanks, everything behind a NUL) is left out here before it is kept, so that no padding pushes
//! the rest of a name out of sight. Source: `add_post_vars` and `php_url_decode` in PHP's `main/php_variables.c`
//! and `ext/standard/url.c`.

use memchr::memchr;

use super::short::Short;

/// As much of a name as is kept, bytes: the longest name that is looked for has 22.
pub const NAME_MAX: usize = 64;
/// As much of a value as is kept, bytes: user names that are longer are cut.
pub const VALUE_MAX: usize = 128;

/// Who is told what a body holds.
pub trait Sink {
    /// Another parameter begins.
    fn begin(&mut self);

    /// It may have this name, of which the first [`NAME_MAX`] bytes are given, decoded and not yet folded. Told
    /// more than once where PHP's versions differ.
    fn name(&mut self, name: &[u8]);

    /// Whether its value is of interest.
    fn wants(&self) -> bool;

    /// Its value: the first [`VALUE_MAX`] bytes, decoded; `whole` if that is all of it.
    fn value(&mut self, value: &[u8], whole: bool);
}

/// The decoder of one body.
#[derive(Clone, Debug, Default)]
pub struct Form {
    name: Short<NAME_MAX>,
    value: Short<VALUE_MAX>,
    at: At,
    escape: Escape,
}

/// Where in a parameter the decoder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Name,
    /// In a name, behind a NUL.
    Cut,
    Value,
    /// In a value that nobody wants.
    Skipped,
}

/// How much of a `%XX` came.
#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    Percent,
    /// The first digit.
    Digit(u8),
}

impl Form {
    /// The next piece of the body.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut impl Sink) {
        while let Some((byte, rest)) = piece.split_first() {
            piece = rest;
            match byte {
                b'&' => self.end(sink),
                b'=' if matches!(self.at, At::Name | At::Cut) => self.named(sink),
                _ if self.at == At::Skipped => {
                    let next = memchr(b'&', rest).unwrap_or(rest.len());
                    piece = rest.get(next..).unwrap_or_default();
                }
                byte => self.decode(*byte),
            }
        }
    }

    /// The body is over, or this is all of it that will be seen.
    pub fn end(&mut self, sink: &mut impl Sink) {
        if matches!(self.at, At::Name | At::Cut) {
            self.named(sink);
        }
        self.literally();
        if self.at == At::Value {
            sink.value(self.value.start(), self.value.len() <= VALUE_MAX);
        }
        self.name.clear();
        self.value.clear();
        self.at = At::Name;
    }

    /// The name is complete.
    fn named(&mut self, sink: &mut impl Sink) {
        self.literally();
        sink.begin();
        sink.name(self.name.start());
        self.at = if sink.wants() { At::Value } else { At::Skipped };
    }

    fn decode(&mut self, byte: u8) {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (self.escape, digit(byte)) {
            (Escape::Percent, Some(_)) => self.escape = Escape::Digit(byte),
            (Escape::Digit(first), Some(low)) => {
                self.escape = Escape::None;
                self.keep(digit(first).unwrap_or_default() << 4 | low);
            }
            _ => {
                self.literally();
                match byte {
                    b'%' => self.escape = Escape::Percent,
                    b'+' => self.keep(b' '),
                    byte => self.keep(byte),
                }
            }
        }
    }

    /// A `%` that no two digits follow stands for itself.
    fn literally(&mut self) {
        match std::mem::take(&mut self.escape) {
            Escape::None => {}
            Escape::Percent => self.keep(b'%'),
            Escape::Digit(digit) => {
                self.keep(b'%');
                self.keep(digit);
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        match self.at {
            At::Name if byte == 0 => self.at = At::Cut,
            At::Name if byte == b' ' && self.name.is_empty() => {}
            At::Name => self.name.push(byte),
            At::Value => self.value.push(byte),
            At::Cut | At::Skipped => {}
        }
    }
}

/// Wants everything, and keeps it.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct All {
    names: Vec<Vec<u8>>,
    pub(super) pairs: Vec<(Vec<Vec<u8>>, Vec<u8>)>,
}

#[cfg(test)]
impl Sink for All {
    fn begin(&mut self) {
        self.names.clear();
    }

    fn name(&mut self, name: &[u8]) {
        self.names.push(name.to_vec());
    }

    fn wants(&self) -> bool {
        true
    }

    fn value(&mut self, value: &[u8], _whole: bool) {
        self.pairs.push((self.names.clone(), value.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::php;

    fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut form, mut all) = (Form::default(), All::default());
        for piece in pieces {
            form.push(piece, &mut all);
        }
        form.end(&mut all);
        all.pairs.into_iter().map(|(mut names, value)| (names.pop().unwrap_or_default(), value)).collect()
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        read([text.as_bytes()]).into_iter().map(|(name, value)| (text_of(name), text_of(value))).collect()
    }

    #[test]
    fn names_and_values_are_decoded_as_php_does() {
        for (text, name, value) in [
            ("login%5fstatus=log%69n", "login_status", "login"),
            ("+%20login+status=a+b", "login status", "a b"),
            ("a%00b=c%00d", "a", "c\0d"),
            ("a%4=%", "a%4", "%"),
            ("a=b=c", "a", "b=c"),
            ("a", "a", ""),
            ("%%31=%zz", "%1", "%zz"),
        ] {
            assert_eq!(pairs(text), [(name.to_owned(), value.to_owned())], "{text}");
        }
    }

    #[test]
    fn padding_pushes_nothing_out_of_sight() {
        let padded = format!("{}name=x&{}=y", "+".repeat(5_000), "n".repeat(5_000));
        let read = pairs(&padded);
        assert_eq!(read[0], ("name".to_owned(), "x".to_owned()));
        assert_eq!(read[1].0.len(), NAME_MAX);
    }

    proptest! {
        /// The same as from the whole text, by the rules that queries are read by.
        #[test]
        fn it_is_the_same_however_it_is_cut(text in "[a-c%0-9=&+.\\[\\]]{0,40}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let cut = read([first, second]);
            prop_assert_eq!(&cut, &read([bytes]));
            prop_assert_eq!(&cut, &read(bytes.chunks(1)));
            let folded = cut.iter().map(|(name, value)| (php::fold(name).into_owned(), value.clone()));
            let folded: Vec<_> = folded.filter(|(name, _)| !name.is_empty()).collect();
            let whole = php::pairs(bytes).map(|(name, value)| (name.into_owned(), value.into_owned()));
            prop_assert_eq!(folded, whole.collect::<Vec<_>>());
        }

        #[test]
        fn nothing_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5)) {
            read(pieces.iter().map(Vec::as_slice));
        }
    }
}
