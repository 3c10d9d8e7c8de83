//! The heads of HTTP/2 frames in a stream of bytes that may be cut anywhere (RFC 9113 section 4.1).
//!
//! Payloads are passed over unread: this is for counting and timing what a peer does, beside the parser that
//! understands it. A few nanoseconds for each frame, nothing for the bytes between.

/// What a client says before its first frame (RFC 9113 section 3.4): its length is all that matters here.
const PREFACE: usize = 24;

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// Kinds of frames (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

/// The flag that ends a header block (RFC 9113 section 6.2).
const END_HEADERS: u8 = 4;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of payload.
    pub(super) length: usize,
    /// The kind.
    pub(super) kind: u8,
    /// The flags, whose meaning depends on the kind.
    pub(super) flags: u8,
    /// The stream; 0 is the connection.
    pub(super) stream: u32,
}

/// Where in a stream of frames we are.
#[derive(Debug)]
pub(super) struct Frames {
    /// The part of a head that has come, and how much of it.
    begun: [u8; HEAD],
    have: usize,
    /// Bytes to pass over before the next head.
    skip: usize,
    /// Whether a header block has begun, and whether the frame that is passed over ends it.
    in_block: bool,
    ends_block: bool,
}

impl Head {
    fn parse(bytes: [u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            // The first bit is reserved and ignored.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    fn is_of_block(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }

    fn ends_block(self) -> bool {
        self.is_of_block() && self.flags & END_HEADERS != 0
    }
}

impl Frames {
    /// What a client sends, from its preface on.
    pub(super) fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::of_server() }
    }

    /// What a server sends, from its first byte on.
    pub(super) fn of_server() -> Self {
        Self { begun: [0; HEAD], have: 0, skip: 0, in_block: false, ends_block: false }
    }

    /// Passes over `bytes`, and tells `on` of every frame whose head is complete with them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Head)) {
        loop {
            let (over, rest) = bytes.split_at_checked(self.skip).unwrap_or((bytes, &[]));
            self.skip -= over.len();
            bytes = rest;
            if self.skip == 0 && self.ends_block {
                (self.in_block, self.ends_block) = (false, false);
            }
            if bytes.is_empty() {
                return;
            }
            let Some(head) = self.head(&mut bytes) else { return };
            self.skip = head.length;
            self.in_block |= head.is_of_block();
            self.ends_block = head.ends_block();
            on(head);
        }
    }

    /// Takes a head off the front of `bytes`, or what there is of it.
    fn head(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
        {
            *bytes = rest;
            return Some(Head::parse(*head));
        }
        let missing = self.begun.get_mut(self.have..)?;
        let count = missing.len().min(bytes.len());
        let (now, rest) = bytes.split_at_checked(count)?;
        missing.get_mut(..count)?.copy_from_slice(now);
        *bytes = rest;
        self.have = (self.have + count) % HEAD;
        (self.have == 0).then(|| Head::parse(self.begun))
    }

    /// Whether a header block has begun and not ended, its last payload included.
    pub(super) fn is_in_block(&self) -> bool {
        self.in_block
    }

    /// Whether the last byte was the last of a frame: another frame may follow.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(head: Head) -> Vec<u8> {
        let length = u32::try_from(head.length).unwrap().to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], head.kind, head.flags];
        out.extend(head.stream.to_be_bytes());
        out.resize(out.len() + head.length, 0xab);
        out
    }

    fn heads(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<Head> {
        let mut seen = Vec::new();
        for piece in pieces {
            frames.feed(piece, |head| seen.push(head));
        }
        seen
    }

    #[test]
    fn a_block_is_open_until_its_last_byte() {
        let mut frames = Frames::of_client();
        let mut feed = |bytes: &[u8]| {
            frames.feed(bytes, |_| ());
            (frames.is_in_block(), frames.is_between())
        };
        assert_eq!(feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), (false, false));
        assert_eq!(feed(b"\n"), (false, true));
        assert_eq!(feed(&[0, 0, 1, HEADERS, 1, 0, 0, 0, 1]), (true, false));
        assert_eq!(feed(b"x"), (true, true), "CONTINUATION has to follow");
        assert_eq!(feed(&[0, 0, 2, CONTINUATION, END_HEADERS, 0, 0, 0, 1]), (true, false));
        assert_eq!(feed(b"x"), (true, false), "its payload trickles");
        assert_eq!(feed(b"y"), (false, true));
        assert_eq!(feed(&[0, 0, 0, HEADERS, 5, 0, 0, 0, 3]), (false, true), "an empty payload ends at once");
        assert_eq!(feed(&[0, 0, 0, DATA, END_HEADERS, 0, 0, 0, 3]), (false, true));
    }

    fn any_head() -> impl Strategy<Value = Head> {
        (0..300_usize, 0..12_u8, any::<u8>(), 0..0x8000_0000_u32)
            .prop_map(|(length, kind, flags, stream)| Head { length, kind, flags, stream })
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            wanted in prop::collection::vec(any_head(), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let bytes: Vec<u8> = wanted.iter().flat_map(|head| frame(*head)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let mut frames = Frames::of_server();
            prop_assert_eq!(heads(&mut frames, &pieces), wanted.clone());
            prop_assert!(frames.is_between());
            let mut whole = Frames::of_server();
            heads(&mut whole, &[&bytes]);
            prop_assert_eq!(whole.is_in_block(), frames.is_in_block());
        }

        #[test]
        fn no_bytes_break_it(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let mut frames = Frames::of_client();
            let mut total = 0;
            for piece in &pieces {
                frames.feed(piece, |_| total += 1);
            }
            let bytes: usize = pieces.iter().map(Vec::len).sum();
            prop_assert!(total * HEAD <= bytes);
        }
    }
}
