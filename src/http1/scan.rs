//! Finds where the tokens of a request head end, each byte looked at once.
//!
//! Tables for what is short, eight bytes in a word for what is long. The arithmetic on words is exact in
//! every byte: no carry leaves a byte, so a found position is the position.

/// `tchar` of RFC 9110 section 5.6.2, in lower case; 0 for every other byte.
const TOKEN: [u8; 256] = tokens();
/// What a byte is in a request target.
const TARGET: [u8; 256] = targets();

/// The byte belongs into a target.
const PLAIN: u8 = 0;
/// The byte should have been percent-encoded.
const UNESCAPED: u8 = 1;
/// The byte ends the target.
const STOP: u8 = 2;

const LOW_BITS: u64 = every(0x7f);
const HIGH_BITS: u64 = every(0x80);

/// The length of the token that `bytes` start with.
pub(super) fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| entry(&TOKEN, **byte) != 0).count()
}

/// The length of the token that `bytes` start with; its letters become lower-case.
#[inline]
pub(super) fn lower_token(bytes: &mut [u8]) -> usize {
    let (words, _) = bytes.as_chunks_mut::<8>();
    let mut length = 0;
    for word in words {
        let (lowered, usual) = lower_usual(u64::from_le_bytes(*word));
        *word = lowered.to_le_bytes();
        length += usual;
        if usual < 8 {
            break;
        }
    }
    for byte in bytes.get_mut(length..).unwrap_or_default() {
        let lower = entry(&TOKEN, *byte);
        if lower == 0 {
            break;
        }
        *byte = lower;
        length += 1;
    }
    length
}

/// With how many letters and hyphens a word starts, and the word with those letters in lower case.
#[inline]
fn lower_usual(word: u64) -> (u64, usize) {
    let low = word & LOW_BITS;
    let folded = low | every(0x20);
    let letter = (folded + every(0x80 - b'a')) & !(folded + every(0x80 - b'z' - 1));
    let not_hyphen = (low ^ every(b'-')) + LOW_BITS;
    let other = (!letter & not_hyphen | word) & HIGH_BITS;
    // Every bit below the first other byte's high bit; every bit if there is none.
    let before = (other & other.wrapping_neg()).wrapping_sub(1);
    // Bit 7 marks a letter, bit 5 makes it lower-case.
    (word | (letter & HIGH_BITS & before) >> 2, first_byte(other))
}

/// The length of the target that `bytes` start with, and whether it holds a byte that should have been
/// percent-encoded.
///
/// RFC 3986 forbids `"<>\^`{|}` and allows `[` and `]` in an IPv6 address only. The URL standard of the
/// browsers sends `[\]^`{|}` raw in a query, so these pass; `"`, `<`, `>` and letters outside ASCII are sent
/// by no browser, but by scripts that pass on what somebody typed (curl does).
#[inline]
pub(super) fn target(bytes: &[u8]) -> (usize, bool) {
    let (blocks, _) = bytes.as_chunks::<16>();
    // The compiler makes this a few instructions for all sixteen.
    let plain = |block: &&[u8; 16]| !block.iter().fold(false, |found, byte| found | !is_plain(*byte));
    let mut length = 16 * blocks.iter().take_while(plain).count();
    let mut unescaped = PLAIN;
    for byte in bytes.get(length..).unwrap_or_default() {
        let kind = entry(&TARGET, *byte);
        if kind == STOP {
            break;
        }
        unescaped |= kind;
        length += 1;
    }
    (length, unescaped == UNESCAPED)
}

/// The length of the field value that `bytes` start with: up to the first control byte other than HTAB.
#[inline]
pub(super) fn value(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut length = 0;
    for block in blocks {
        // The compiler makes this a few instructions for all sixteen.
        if block.iter().fold(false, |found, byte| found | is_control(*byte)) {
            return length + first_control(block);
        }
        length += 16;
    }
    length + rest.iter().take_while(|byte| !is_control(**byte)).count()
}

/// Where the first control byte other than HTAB is; 16 if there is none.
#[inline]
fn first_control(block: &[u8; 16]) -> usize {
    let (words, _) = block.as_chunks::<8>();
    let [first, second] = words else { return 0 };
    let found = controls(u64::from_le_bytes(*first));
    if found != 0 { first_byte(found) } else { 8 + first_byte(controls(u64::from_le_bytes(*second))) }
}

/// A byte that belongs into a target as it is.
#[inline]
#[allow(clippy::needless_bitwise_bool, reason = "with short cuts the compiler does not take sixteen at once")]
const fn is_plain(byte: u8) -> bool {
    (byte > b' ') & (byte < 0x7f) & (byte != b'#') & (byte != b'"') & (byte != b'<') & (byte != b'>')
}

/// A control byte that no field value may hold.
#[inline]
pub(super) const fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

/// A few bits that tell most names apart: of the length, the first and the last letter.
#[inline]
pub(super) fn tag(name: &[u8]) -> u8 {
    let (first, last) = match name {
        [first, .., last] => (*first, *last),
        [only] => (*only, 0),
        [] => (0, 0),
    };
    let [length, ..] = name.len().to_le_bytes();
    let mixed = u32::from_le_bytes([length, first, last, 0]).wrapping_mul(0x9e37_79b1);
    let [.., high] = mixed.to_le_bytes();
    high
}

/// The high bit of every byte that is a control byte other than HTAB. Added to seven bits, `0x80 - n` sets
/// the eighth if they are `n` or more.
#[inline]
fn controls(word: u64) -> u64 {
    let low = word & LOW_BITS;
    let below_blank = !((low + every(0x80 - b' ')) | word);
    let delete = (low + every(0x80 - 0x7f)) & !word;
    let other = word ^ every(b'\t');
    let not_tab = ((other & LOW_BITS) + LOW_BITS) | other;
    (below_blank & not_tab | delete) & HIGH_BITS
}

/// A word of the same byte eight times.
const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Which byte is the first whose high bit is set in `marks`; 8 if none is.
#[inline]
fn first_byte(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

#[inline]
fn entry(table: &[u8; 256], byte: u8) -> u8 {
    table.get(usize::from(byte)).copied().unwrap_or_default()
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
const fn tokens() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
const fn targets() -> [u8; 256] {
    let mut table = [STOP; 256];
    let mut byte: u8 = b'!';
    while byte < 0x7f {
        table[byte as usize] = match byte {
            b'#' => STOP,
            _ if is_plain(byte) => PLAIN,
            _ => UNESCAPED,
        };
        byte += 1;
    }
    let mut byte = 0x80;
    while byte < table.len() {
        table[byte] = UNESCAPED;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_at_every_place_of_a_word() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                for others in [b' ', b'\t', b'~', 0x80, 0xff] {
                    let mut word = [others; 8];
                    word[place] = byte;
                    let expected = if is_control(byte) { 0x80 << (8 * place) } else { 0 };
                    assert_eq!(controls(u64::from_le_bytes(word)), expected, "{byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn tokens_are_those_of_the_grammar() {
        for byte in 0..=255_u8 {
            let is_token = http::HeaderName::from_bytes(&[byte]).is_ok();
            assert_eq!(token(&[byte]) == 1, is_token, "{byte:#x}");
            let mut lowered = [byte];
            assert_eq!(lower_token(&mut lowered) == 1, is_token);
            assert_eq!(lowered[0], if is_token { byte.to_ascii_lowercase() } else { byte });
        }
    }

    #[test]
    fn targets_hold_visible_bytes_only() {
        for byte in 0..=255_u8 {
            let expected = matches!(byte, b'!'..=b'~' | 0x80..) && byte != b'#';
            assert_eq!(target(&[byte]).0 == 1, expected, "{byte:#x}");
            assert_eq!(target(&[b'/', byte]).1, matches!(byte, b'"' | b'<' | b'>' | 0x80..), "{byte:#x}");
            for place in 0..40 {
                let mut text = [b'/'; 40];
                text[place] = byte;
                assert_eq!(target(&text).0, if expected { 40 } else { place }, "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_ends_at_its_first_other_byte(
            name in "[A-Za-z0-9!#$%&'*+.^_`|~-]{0,40}",
            behind in prop::collection::vec(prop_oneof![Just(b':'), Just(b' '), any::<u8>()], 0..20),
        ) {
            let mut bytes = [name.as_bytes(), &behind].concat();
            let before = bytes.clone();
            let expected = before.iter().take_while(|byte| entry(&TOKEN, **byte) != 0).count();
            prop_assert_eq!(lower_token(&mut bytes), expected);
            prop_assert_eq!(&bytes[..expected], &before[..expected].to_ascii_lowercase()[..]);
            prop_assert_eq!(&bytes[expected..], &before[expected..], "what is behind a name never changes");
        }

        #[test]
        fn a_value_ends_at_its_first_control_byte(text in "[ -~\t\u{80}-\u{ff}]{0,70}", tail: Vec<u8>) {
            let bytes = [text.as_bytes(), &tail].concat();
            let expected = bytes.iter().position(|b| is_control(*b)).unwrap_or(bytes.len());
            prop_assert_eq!(value(&bytes), expected);
        }
    }
}
