//! Making any bytes harmless in a log line: JSON strings and Apache's log escaping.
//!
//! Whatever goes in, what comes out holds no line break, no control character, no terminal escape and
//! no unescaped quote. Sans-IO: bytes in, bytes out.

/// What stands at the end of a text that was cut.
pub const CUT: &str = "…";

const HEX: [u8; 16] = *b"0123456789abcdef";

/// The first `max` bytes of `text` at most, cut between characters; and whether anything was cut.
#[must_use]
pub fn cut(text: &[u8], max: usize) -> (&[u8], bool) {
    let Some((mut kept, rest)) = text.split_at_checked(max) else { return (text, false) };
    if rest.is_empty() {
        return (text, false);
    }
    // At most three continuation bytes and their lead belong to a character that was cut through.
    if rest.first().is_some_and(|b| is_continuation(*b)) {
        for _ in 0..3 {
            let Some((last, shorter)) = kept.split_last() else { break };
            if *last < 0x80 {
                break;
            }
            kept = shorter;
            if !is_continuation(*last) {
                break;
            }
        }
    }
    (kept, true)
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Appends `text` as the inside of a JSON string (RFC 8259 section 7). Bytes that are not UTF-8 become
/// the text `\xhh`, as Apache writes them; DEL, C1 controls, line separators and direction marks, which
/// JSON would allow, are escaped as well, because logs are read in terminals.
pub fn json(text: &[u8], out: &mut Vec<u8>) {
    if is_all_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        json_str(chunk.valid(), out);
        for byte in chunk.invalid() {
            out.extend_from_slice(b"\\\\x");
            hex(*byte, out);
        }
    }
}

/// Whether nothing is to be escaped, as in nearly every text. All bytes are looked at, many at once, which is
/// faster than stopping at the first that is.
fn is_all_plain(text: &[u8]) -> bool {
    let odd = |b: u8| u8::from(b < b' ') | u8::from(b >= 0x7f) | u8::from(b == b'"') | u8::from(b == b'\\');
    text.iter().fold(0, |found, b| found | odd(*b)) == 0
}

fn json_str(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if is_treacherous(c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let [high, low] = unit.to_be_bytes();
                    out.extend_from_slice(b"\\u");
                    hex(high, out);
                    hex(low, out);
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Characters that a reader would not see, or that would make the reader see something else.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Appends `text` as Apache's logger does (`ap_escape_logitem` in server/util.c): `\"`, `\\`, the C
/// escapes that it knows, and `\xhh` for every other byte that is not printable ASCII.
pub fn apache(text: &[u8], out: &mut Vec<u8>) {
    if is_all_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0b => b'v',
            b' '..=b'~' => {
                out.push(*byte);
                continue;
            }
            _ => {
                out.extend_from_slice(b"\\x");
                hex(*byte, out);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    let digit = |half: u8| HEX.get(usize::from(half)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_json(text: &[u8]) -> String {
        let mut out = b"\"".to_vec();
        json(text, &mut out);
        out.push(b'"');
        String::from_utf8(out).unwrap()
    }

    fn in_apache(text: &[u8]) -> String {
        let mut out = Vec::new();
        apache(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_escapes_what_ends_a_line_a_string_or_a_readers_trust() {
        assert_eq!(in_json(b"a\"b\\c\r\n\t\x00\x1b\x7f"), r#""a\"b\\c\r\n\t\u0000\u001b\u007f""#);
        assert_eq!(in_json("ü\u{9b}2J\u{2028}\u{202e}😀".as_bytes()), "\"ü\\u009b2J\\u2028\\u202e😀\"");
        assert_eq!(in_json(b"caf\xe9"), r#""caf\\xe9""#);
    }

    #[test]
    fn apache_escapes_as_its_source_says() {
        assert_eq!(
            in_apache(b"a\"b\\c\r\n\t\x08\x0b\x0c\x07\x1b\x7f\xff"),
            r#"a\"b\\c\r\n\t\b\v\x0c\x07\x1b\x7f\xff"#
        );
        assert_eq!(in_apache("ü".as_bytes()), r"\xc3\xbc");
    }

    #[test]
    fn a_cut_goes_between_characters() {
        assert_eq!(cut(b"abc", 3), (&b"abc"[..], false));
        assert_eq!(cut(b"abcd", 3), (&b"abc"[..], true));
        assert_eq!(cut("aüb".as_bytes(), 2), (&b"a"[..], true));
        assert_eq!(cut("aüb".as_bytes(), 3), ("aü".as_bytes(), true));
        assert_eq!(cut("😀😀".as_bytes(), 7), ("😀".as_bytes(), true));
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_json_string(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = in_json(&text);
            prop_assert!(!line.chars().any(is_treacherous), "{line:?}");
            let back: String = serde_json::from_str(&line).unwrap();
            if let Ok(text) = std::str::from_utf8(&text) {
                prop_assert_eq!(back, text);
            }
        }

        #[test]
        fn any_string_survives_json(text in any::<String>()) {
            let back: String = serde_json::from_str(&in_json(text.as_bytes())).unwrap();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn any_bytes_become_printable_in_apaches_way(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = in_apache(&text);
            prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert!(!line.replace("\\\\", "").replace("\\\"", "").contains('"'));
        }

        #[test]
        fn a_cut_is_short_and_leaves_valid_text_valid(text in any::<String>(), max in 0_usize..40) {
            let (kept, was_cut) = cut(text.as_bytes(), max);
            prop_assert!(kept.len() <= max && text.as_bytes().starts_with(kept));
            prop_assert_eq!(was_cut, text.len() > max);
            prop_assert!(std::str::from_utf8(kept).is_ok());
        }
    }
}
