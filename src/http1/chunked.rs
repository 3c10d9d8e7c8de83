//! The chunked transfer coding (RFC 9112 section 7.1), both ways.
//!
//! The decoder is strict where an origin and a proxy could read differently: lines end with CR LF and
//! nothing else, a size is bare hexadecimal digits below 2^60, extensions are dropped and bounded,
//! trailers are dropped and bounded.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::grade::Fault;

/// The most digits of a chunk size: 15 hexadecimal digits stay below 2^60.
const SIZE_DIGITS: u8 = 15;
/// The most bytes of extensions behind one chunk size.
const EXTENSION_MAX: u16 = 256;
/// The most bytes of trailers.
const TRAILERS_MAX: u16 = 8 * 1024;

/// Takes the coding off a body, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
}

/// Received bytes that a decoder can take pieces of without copying them.
pub trait Input: Buf + AsRef<[u8]> {
    /// The first `count` bytes, which are no more than there are.
    fn take_front(&mut self, count: usize) -> Bytes;
}

impl Input for BytesMut {
    fn take_front(&mut self, count: usize) -> Bytes {
        self.split_to(count).freeze()
    }
}

impl Input for Bytes {
    fn take_front(&mut self, count: usize) -> Bytes {
        self.split_to(count)
    }
}

/// What a decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Body bytes.
    Data(Bytes),
    /// Everything given so far is used up; the body goes on.
    More,
    /// The body is complete. What is left in the input does not belong to it.
    End,
}

/// Why a body is not properly chunked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// A chunk size is missing or holds something other than hexadecimal digits.
    BadSize,
    /// A chunk size has more than 15 digits.
    SizeTooLarge,
    /// More than 256 bytes of chunk extensions.
    ExtensionTooLong,
    /// A control byte in an extension or a trailer.
    ControlByte,
    /// A line does not end with CR LF.
    BadLineEnd,
    /// A trailer that is no field line.
    BadTrailer,
    /// More than 8 KiB of trailers.
    TrailersTooLong,
}

/// What comes next in the input.
enum Next {
    /// So many bytes of data, at least one.
    Data(usize),
    /// Nothing that is here.
    More,
    /// The end.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// Blanks between the size and `;`.
    BeforeExtension {
        value: u64,
        seen: u16,
    },
    Extension {
        value: u64,
        seen: u16,
    },
    SizeLineFeed {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    TrailerStart {
        seen: u16,
    },
    /// In the name of a trailer.
    TrailerName {
        seen: u16,
    },
    Trailer {
        seen: u16,
    },
    TrailerLineFeed {
        seen: u16,
    },
    LastLineFeed,
    End,
    /// Once broken, for ever broken: what follows a fault cannot be told apart.
    Failed(ChunkFault),
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0 } }
    }
}

impl Decoder {
    /// Takes the next piece off the front of `input`.
    pub fn decode(&mut self, input: &mut impl Input) -> Result<Piece, ChunkFault> {
        Ok(match self.next(input)? {
            Next::Data(length) => Piece::Data(input.take_front(length)),
            Next::More => Piece::More,
            Next::End => Piece::End,
        })
    }

    /// Judges what is here of the body, and takes nothing of it.
    pub fn judge(&self, mut input: &[u8]) -> Result<(), ChunkFault> {
        let mut ahead = self.clone();
        while let Next::Data(length) = ahead.next(&mut input)? {
            input.advance(length);
        }
        Ok(())
    }

    /// Takes what is not data off the front of `input`, up to data, which the caller takes.
    fn next(&mut self, input: &mut (impl Buf + AsRef<[u8]>)) -> Result<Next, ChunkFault> {
        loop {
            match &mut self.state {
                State::End => return Ok(Next::End),
                State::Failed(fault) => return Err(*fault),
                State::Data { left } => {
                    if !input.has_remaining() {
                        return Ok(Next::More);
                    }
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.remaining());
                    *left -= most as u64;
                    if *left == 0 {
                        self.state = State::DataReturn;
                    }
                    return Ok(Next::Data(most));
                }
                state => {
                    if let Some((length, next)) = state.line(input.as_ref()) {
                        input.advance(length);
                        *state = next;
                        continue;
                    }
                    let Some(byte) = input.as_ref().first().copied() else { return Ok(Next::More) };
                    input.advance(1);
                    *state = state.step(byte).unwrap_or_else(State::Failed);
                }
            }
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }
}

impl State {
    /// A shortcut for what nearly every chunk looks like, when it is here as a whole: how many bytes it is,
    /// and where they lead. It takes nothing that `step` would not take in the same way.
    fn line(&self, input: &[u8]) -> Option<(usize, State)> {
        match self {
            State::DataReturn => {
                input.starts_with(b"\r\n").then_some((2, Self::Size { value: 0, digits: 0 }))
            }
            State::Size { digits: 0, .. } => {
                let digits =
                    input.iter().take(SIZE_DIGITS.into()).take_while(|b| b.is_ascii_hexdigit()).count();
                let (size, rest) = input.split_at_checked(digits)?;
                let value = size.iter().fold(0, |value, digit| value * 16 + hex(*digit));
                // The last chunk has its own way.
                (value > 0 && rest.starts_with(b"\r\n")).then_some((digits + 2, State::Data { left: value }))
            }
            _ => None,
        }
    }

    /// Where one byte of the coding (never of the data) leads.
    fn step(&self, byte: u8) -> Result<State, ChunkFault> {
        Ok(match (self, byte) {
            (State::Size { value, digits }, b) if b.is_ascii_hexdigit() => {
                if *digits == SIZE_DIGITS {
                    return Err(ChunkFault::SizeTooLarge);
                }
                State::Size { value: value * 16 + hex(b), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(ChunkFault::BadSize),
            (State::Size { value, .. } | State::Extension { value, .. }, b'\r') => {
                State::SizeLineFeed { value: *value }
            }
            (State::Size { value, .. }, b';') => State::Extension { value: *value, seen: 1 },
            (State::Size { value, .. }, b' ' | b'\t') => State::BeforeExtension { value: *value, seen: 1 },
            (State::Size { .. }, b'\n') => return Err(ChunkFault::BadLineEnd),
            (State::BeforeExtension { value, seen }, b' ' | b'\t') => {
                State::BeforeExtension { value: *value, seen: extension(*seen)? }
            }
            (State::BeforeExtension { value, seen }, b';') => {
                State::Extension { value: *value, seen: extension(*seen)? }
            }
            (State::Size { .. } | State::BeforeExtension { .. }, _) => return Err(ChunkFault::BadSize),
            (State::Extension { value, seen }, b) => {
                not_control(b)?;
                State::Extension { value: *value, seen: extension(*seen)? }
            }
            (State::SizeLineFeed { value: 0 }, b'\n') => State::TrailerStart { seen: 0 },
            (State::SizeLineFeed { value }, b'\n') => State::Data { left: *value },
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart { .. }, b'\r') => State::LastLineFeed,
            (State::TrailerStart { seen }, b) if is_token(b) => State::TrailerName { seen: trailer(*seen)? },
            (State::TrailerName { seen }, b) if is_token(b) => State::TrailerName { seen: trailer(*seen)? },
            (State::TrailerName { seen }, b':') => State::Trailer { seen: trailer(*seen)? },
            (State::TrailerName { .. } | State::TrailerStart { .. }, b'\n') => {
                return Err(ChunkFault::BadLineEnd);
            }
            (State::TrailerStart { .. } | State::TrailerName { .. }, _) => {
                return Err(ChunkFault::BadTrailer);
            }
            (State::Trailer { seen }, b'\r') => State::TrailerLineFeed { seen: trailer(*seen)? },
            (State::Trailer { seen }, b) => {
                not_control(b)?;
                State::Trailer { seen: trailer(*seen)? }
            }
            (State::TrailerLineFeed { seen }, b'\n') => State::TrailerStart { seen: trailer(*seen)? },
            (State::LastLineFeed, b'\n') => State::End,
            _ => return Err(ChunkFault::BadLineEnd),
        })
    }
}

impl ChunkFault {
    /// What it is where a request is graded.
    #[must_use]
    pub const fn grade(self) -> Fault {
        match self {
            Self::BadSize => Fault::BadChunkSize,
            Self::SizeTooLarge => Fault::ChunkTooLarge,
            Self::ExtensionTooLong => Fault::ChunkExtensionTooLong,
            Self::ControlByte => Fault::ChunkControlByte,
            Self::BadLineEnd => Fault::BadChunkEnd,
            Self::BadTrailer => Fault::BadTrailer,
            Self::TrailersTooLong => Fault::TrailersTooLong,
        }
    }
}

impl fmt::Display for ChunkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grade().fmt(f)
    }
}

impl std::error::Error for ChunkFault {}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    })
}

fn extension(seen: u16) -> Result<u16, ChunkFault> {
    if seen >= EXTENSION_MAX { Err(ChunkFault::ExtensionTooLong) } else { Ok(seen + 1) }
}

fn trailer(seen: u16) -> Result<u16, ChunkFault> {
    if seen >= TRAILERS_MAX { Err(ChunkFault::TrailersTooLong) } else { Ok(seen + 1) }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn not_control(byte: u8) -> Result<(), ChunkFault> {
    match byte {
        b'\t' | b' '..=b'~' | 0x80.. => Ok(()),
        b'\n' => Err(ChunkFault::BadLineEnd),
        _ => Err(ChunkFault::ControlByte),
    }
}

/// Writes what stands before `length` bytes of data. The line break that ends a chunk's data is
/// written in front of the next line, so that each chunk needs one prefix and no suffix.
pub fn encode_size(first: bool, length: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if !first {
        out.put_slice(b"\r\n");
    }
    let mut shift = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    while shift > 0 {
        shift -= 1;
        let nibble = (length >> (4 * shift)) & 0xf;
        out.extend(DIGITS.get(nibble));
    }
    out.put_slice(b"\r\n");
}

/// Writes the last chunk: no data follows, and no trailers.
pub fn encode_end(first: bool, out: &mut BytesMut) {
    encode_size(first, 0, out);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, whether it ended, and what was left over; input given in two parts.
    fn decode(input: &[u8], cut: usize) -> Result<(Vec<u8>, bool, Vec<u8>), ChunkFault> {
        let mut decoder = Decoder::default();
        let (head, tail) = input.split_at(cut.min(input.len()));
        let mut buffer = BytesMut::from(head);
        let mut rest = Some(tail);
        let mut body = Vec::new();
        loop {
            match decoder.decode(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => {
                    buffer.extend_from_slice(rest.unwrap_or_default());
                    return Ok((body, true, buffer.to_vec()));
                }
                Piece::More => match rest.take() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => return Ok((body, false, Vec::new())),
                },
            }
        }
    }

    fn encode(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut first = true;
        for chunk in chunks.iter().filter(|c| !c.is_empty()) {
            encode_size(std::mem::take(&mut first), chunk.len(), &mut out);
            out.extend_from_slice(chunk);
        }
        encode_end(first, &mut out);
        out.to_vec()
    }

    #[test]
    fn data_extensions_and_trailers() {
        let input = b"5;a=b\r\nhello\r\n6 ;x=\"y\"\r\n world\r\n0\r\nX-A: b\r\n\r\nNEXT";
        assert_eq!(decode(input, 0), Ok((b"hello world".to_vec(), true, b"NEXT".to_vec())));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = format!("2;{}\r\nhi\r\n0\r\n\r\n", "x".repeat(300));
        let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(2000));
        for (input, fault) in [
            (&b"2\nhi\r\n0\r\n\r\n"[..], ChunkFault::BadLineEnd),
            (b"2;\nhi\r\n0\r\n\r\n", ChunkFault::BadLineEnd),
            (b"2\r\nhi\n0\r\n\r\n", ChunkFault::BadLineEnd),
            (b"2\r\nhi!\r\n", ChunkFault::BadLineEnd),
            (b"2\rXhi", ChunkFault::BadLineEnd),
            (b"0x2\r\nhi", ChunkFault::BadSize),
            (b"+2\r\nhi", ChunkFault::BadSize),
            (b" 2\r\nhi", ChunkFault::BadSize),
            (b"2 \r\nhi", ChunkFault::BadSize),
            (b"\r\nhi", ChunkFault::BadSize),
            (b";x\r\nhi", ChunkFault::BadSize),
            (b"-1\r\nhi", ChunkFault::BadSize),
            (b"00000000000000002\r\nhi", ChunkFault::SizeTooLarge),
            (b"ffffffffffffffff\r\n", ChunkFault::SizeTooLarge),
            (long.as_bytes(), ChunkFault::ExtensionTooLong),
            (b"2;\0\r\nhi", ChunkFault::ControlByte),
            (b"0\r\nA: \0\r\n\r\n", ChunkFault::ControlByte),
            (b"0\r\nA: b\n\r\n", ChunkFault::BadLineEnd),
            (b"0\r\nno field line\r\n\r\n", ChunkFault::BadTrailer),
            (b"0\r\n: b\r\n\r\n", ChunkFault::BadTrailer),
            (b"0\r\n\n", ChunkFault::BadLineEnd),
            (trailers.as_bytes(), ChunkFault::TrailersTooLong),
        ] {
            let text = String::from_utf8_lossy(input);
            assert_eq!(decode(input, 0), Err(fault), "{}", &text[..text.len().min(40)]);
            assert_eq!(Decoder::default().judge(input), Err(fault), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn a_fault_stays() {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from("2\r\nhi!\r\n0\r\n\r\n");
        assert_eq!(decoder.decode(&mut input), Ok(Piece::Data(Bytes::from_static(b"hi"))));
        for _ in 0..3 {
            assert_eq!(decoder.decode(&mut input), Err(ChunkFault::BadLineEnd));
        }
    }

    #[test]
    fn the_encoder_writes_what_the_rfc_shows() {
        let chunks = [b"hello".to_vec(), vec![b'x'; 16]];
        assert_eq!(encode(&chunks), b"5\r\nhello\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
        assert_eq!(encode(&[]), b"0\r\n\r\n");
    }

    #[test]
    fn sizes_are_the_same_however_they_come() {
        for (size, value) in
            [("1", 1), ("00000000000001f", 31), ("Ff", 255), ("fffffffffffffff", (1_u64 << 60) - 1)]
        {
            let line = format!("{size}\r\n");
            let (mut at_once, mut bytewise) = (Decoder::default(), Decoder::default());
            assert_eq!(at_once.decode(&mut BytesMut::from(line.as_str())), Ok(Piece::More));
            for byte in line.bytes() {
                assert_eq!(bytewise.decode(&mut BytesMut::from(&[byte][..])), Ok(Piece::More));
            }
            assert_eq!(at_once.state, State::Data { left: value }, "{size}");
            assert_eq!(at_once, bytewise, "{size}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(input: Vec<u8>, cut in 0_usize..64) {
            let _ = decode(&input, cut);
        }

        #[test]
        fn round_trip(chunks: Vec<Vec<u8>>, cut: prop::sample::Index) {
            let wire = encode(&chunks);
            let at = cut.index(wire.len() + 1);
            prop_assert_eq!(decode(&wire, at), Ok((chunks.concat(), true, Vec::new())));
        }

        #[test]
        fn a_cut_anywhere_changes_nothing(input in "[0-9a-f]{1,2}(;[a-z]{0,3})?\r?\n[a-c]{0,4}(\r\n)?0\r\n\r\n") {
            let whole = decode(input.as_bytes(), 0);
            for cut in 1..=input.len() {
                prop_assert_eq!(&decode(input.as_bytes(), cut), &whole);
            }
        }

        #[test]
        fn a_truncated_body_never_ends(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..4)) {
            let wire = encode(&chunks);
            for end in 0..wire.len() {
                let (_, ended, _) = decode(&wire[..end], 0).unwrap();
                prop_assert!(!ended);
            }
        }
    }
}
