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

const LOW_BITS: u64 = u64::from_le_bytes([0x7f; 8]);
const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);
/// Added to seven bits, sets the eighth if they are a blank (0x20) or more.
const UP_FROM_BLANK: u64 = u64::from_le_bytes([0x80 - 0x20; 8]);
/// Added to seven bits, sets the eighth if they are DEL (0x7f).
const UP_FROM_DELETE: u64 = u64::from_le_bytes([0x80 - 0x7f; 8]);
const TABS: u64 = u64::from_le_bytes([b'\t'; 8]);

/// The length of the token that `bytes` start with.
pub(super) fn token(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| entry(&TOKEN, **byte) != 0).count()
}

/// The length of the token that `bytes` start with; its letters become lower-case.
pub(super) fn lower_token(bytes: &mut [u8]) -> usize {
    let mut length = 0;
    for byte in bytes {
        let lower = entry(&TOKEN, *byte);
        if lower == 0 {
            break;
        }
        *byte = lower;
        length += 1;
    }
    length
}

/// The length of the target that `bytes` start with, and whether it holds a byte that should have been
/// percent-encoded.
///
/// RFC 3986 forbids `"<>\^`{|}` and allows `[` and `]` in an IPv6 address only. The URL standard of the
/// browsers sends `[\]^`{|}` raw in a query, so these pass; `"`, `<` and `>` are sent by no browser.
pub(super) fn target(bytes: &[u8]) -> (usize, bool) {
    let mut unescaped = PLAIN;
    let length = bytes.iter().take_while(|byte| {
        let kind = entry(&TARGET, **byte);
        unescaped |= kind;
        kind != STOP
    });
    (length.count(), unescaped & UNESCAPED != 0)
}

/// The length of the field value that `bytes` start with: up to the first control byte other than HTAB.
pub(super) fn value(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let found = controls(u64::from_le_bytes(*word));
        if found != 0 {
            return length + usize::try_from(found.trailing_zeros() / 8).unwrap_or_default();
        }
        length += 8;
    }
    length + rest.iter().take_while(|byte| !is_control(**byte)).count()
}

/// A control byte that no field value may hold.
pub(super) const fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

/// A few bits that tell most names apart: of the length, two letters and the last one.
pub(super) fn tag(name: &[u8]) -> u8 {
    let first = name.first().copied().unwrap_or_default();
    let middle = name.get(name.len() / 2).copied().unwrap_or_default();
    let last = name.last().copied().unwrap_or_default();
    let [length, ..] = name.len().to_le_bytes();
    let mixed = (u32::from(length) | u32::from(first) << 8 | u32::from(middle) << 16 | u32::from(last) << 24)
        .wrapping_mul(0x9e37_79b1);
    let [.., high] = mixed.to_le_bytes();
    high
}

/// The high bit of every byte that is a control byte other than HTAB.
fn controls(word: u64) -> u64 {
    let low = word & LOW_BITS;
    let below_blank = !((low + UP_FROM_BLANK) | word);
    let delete = (low + UP_FROM_DELETE) & !word;
    let other = word ^ TABS;
    let not_tab = ((other & LOW_BITS) + LOW_BITS) | other;
    (below_blank & not_tab | delete) & HIGH_BITS
}

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
            b'"' | b'<' | b'>' => UNESCAPED,
            _ => PLAIN,
        };
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
            let expected = matches!(byte, b'!'..=b'~') && byte != b'#';
            assert_eq!(target(&[byte]).0 == 1, expected, "{byte:#x}");
            assert_eq!(target(&[b'/', byte]).1, matches!(byte, b'"' | b'<' | b'>'), "{byte:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_value_ends_at_its_first_control_byte(bytes: Vec<u8>) {
            let expected = bytes.iter().position(|b| is_control(*b)).unwrap_or(bytes.len());
            prop_assert_eq!(value(&bytes), expected);
        }
    }
}
