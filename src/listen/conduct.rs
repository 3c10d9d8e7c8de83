//! What an HTTP/2 client sends besides its requests, measured so that a flood ends early and an honest client never
//! comes near.

use std::time::{Duration, Instant};

use super::frames::{CONTINUATION, DATA, HEADERS, Head};

/// Frames that ask for nothing (SETTINGS, PING, PRIORITY, `WINDOW_UPDATE`, `RST_STREAM`, empty DATA, unknown kinds)
/// which a client may send at once. Browsers send less than ten of them for a page.
const BUDGET: u32 = 1000;

/// What a request adds to the budget: a priority, a window or two, a reset.
const FOR_A_REQUEST: u32 = 8;

/// What each DATA frame of ours adds: the client opens the windows of the stream and of the connection again. The
/// careful ones do so for each frame.
const FOR_AN_ANSWER: u32 = 2;

/// The time that adds one frame: the PINGs of a client that waits.
const FOR_A_PAUSE: Duration = Duration::from_millis(50);

/// A header block of more bytes is a large one: ten times what browsers send with all their cookies.
pub(super) const LARGE: usize = 16 * 1024;

/// One client's conduct on one connection.
#[derive(Debug)]
pub(super) struct Conduct {
    /// Frames that may still come.
    budget: u32,
    /// Until when time has been turned into budget.
    since: Instant,
    /// Bytes of the block that came last.
    block: usize,
    heard: Heard,
    /// The stream of the newest request.
    newest: u32,
}

/// What the client's frames say so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Streams that it opened.
    pub(super) streams: u64,
    /// How many header blocks were large.
    pub(super) large: u64,
    /// Whether it has sent more than its budget.
    pub(super) floods: bool,
}

impl Conduct {
    /// A client that has done nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { budget: BUDGET, since: now, block: 0, heard: Heard::default(), newest: 0 }
    }

    /// The client sent a frame. `now` is asked seldom.
    pub(super) fn hear(&mut self, head: Head, now: impl FnOnce() -> Instant) {
        match head.kind {
            HEADERS => {
                self.block = 0;
                self.grows(head.length);
                if head.stream > self.newest {
                    self.newest = head.stream;
                    self.heard.streams += 1;
                    self.earn(FOR_A_REQUEST);
                } else {
                    // Trailers, or nonsense.
                    self.spend(now);
                }
            }
            CONTINUATION => self.grows(head.length),
            DATA if head.length > 0 => {}
            _ => self.spend(now),
        }
    }

    /// We sent a frame.
    pub(super) fn said(&mut self, head: Head) {
        if head.kind == DATA {
            self.earn(FOR_AN_ANSWER);
        }
    }

    /// What the client's frames say so far.
    pub(super) fn heard(&self) -> Heard {
        self.heard
    }

    /// The stream of the newest request.
    pub(super) fn newest(&self) -> u32 {
        self.newest
    }

    fn grows(&mut self, bytes: usize) {
        let before = self.block;
        self.block = before.saturating_add(bytes);
        self.heard.large += u64::from(before <= LARGE && self.block > LARGE);
    }

    fn earn(&mut self, frames: u32) {
        self.budget = (self.budget + frames).min(BUDGET);
    }

    /// Takes one frame off the budget, if there is one left, or time has passed that makes one.
    fn spend(&mut self, now: impl FnOnce() -> Instant) {
        if self.budget == 0 {
            let now = now();
            let pauses = now.saturating_duration_since(self.since).as_millis() / FOR_A_PAUSE.as_millis();
            self.since = now;
            self.earn(u32::try_from(pauses).unwrap_or(BUDGET));
        }
        match self.budget.checked_sub(1) {
            Some(left) => self.budget = left,
            None => self.heard.floods = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn head(kind: u8, stream: u32, length: usize) -> Head {
        Head { length, kind, flags: 4, stream }
    }

    /// How many times `head` may come in a row, at one moment.
    fn most(conduct: &mut Conduct, now: Instant, mut head: impl FnMut(u32) -> Head) -> u32 {
        conduct.heard.floods = false;
        let floods = |count: &u32| {
            conduct.hear(head(*count), || now);
            conduct.heard().floods
        };
        (0..5000).find(floods).unwrap_or(5000)
    }

    #[test]
    fn a_flood_of_frames_that_ask_for_nothing_ends() {
        let now = clock::now();
        for kind in [2, 3, 4, PING, WINDOW_UPDATE, 0x20] {
            assert_eq!(most(&mut Conduct::new(now), now, |_| head(kind, 0, 8)), BUDGET, "{kind}");
        }
        assert_eq!(most(&mut Conduct::new(now), now, |_| head(DATA, 1, 0)), BUDGET);
        assert_eq!(most(&mut Conduct::new(now), now, |_| head(HEADERS, 0, 8)), BUDGET);
    }

    #[test]
    fn requests_answers_and_time_pay_for_it() {
        let now = clock::now();
        let mut conduct = Conduct::new(now);
        assert_eq!(most(&mut conduct, now, |_| head(PING, 0, 8)), BUDGET);
        conduct.hear(head(HEADERS, 1, 30), || now);
        assert_eq!(most(&mut conduct, now, |_| head(WINDOW_UPDATE, 1, 4)), FOR_A_REQUEST);
        conduct.said(head(DATA, 1, 100));
        assert_eq!(most(&mut conduct, now, |_| head(WINDOW_UPDATE, 1, 4)), FOR_AN_ANSWER);
        let later = now + FOR_A_PAUSE * 5;
        assert_eq!(most(&mut conduct, later, |_| head(PING, 0, 8)), 5);
        assert_eq!(most(&mut conduct, later + Duration::from_secs(9999), |_| head(PING, 0, 8)), BUDGET);
    }

    #[test]
    fn an_upload_of_any_length_is_no_flood() {
        let now = clock::now();
        assert_eq!(most(&mut Conduct::new(now), now, |_| head(DATA, 1, 16_384)), 5000);
    }

    #[test]
    fn requests_are_counted_by_their_streams() {
        let now = clock::now();
        let mut conduct = Conduct::new(now);
        for stream in [1, 3, 3, 1, 9] {
            conduct.hear(head(HEADERS, stream, 10), || now);
        }
        assert_eq!((conduct.heard().streams, conduct.newest()), (3, 9));
    }

    #[test]
    fn the_parts_of_a_large_block_count_once() {
        let now = clock::now();
        let mut conduct = Conduct::new(now);
        conduct.hear(head(HEADERS, 1, LARGE), || now);
        assert_eq!(conduct.heard().large, 0);
        for stream in [3, 5] {
            conduct.hear(head(HEADERS, stream, LARGE / 2), || now);
            for _ in 0..9 {
                conduct.hear(head(CONTINUATION, stream, LARGE / 2), || now);
            }
        }
        assert_eq!(conduct.heard().large, 2);
    }
}
