//! What a simulated client asks, and what it is to be told.

use std::time::Duration;

use super::origin::Deed;
use crate::tests::dice::Dice;

/// One request, and the lesson of the road about it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one throw of the dice")]
pub(super) struct Ask {
    /// Said in the request, repeated in the answer's head and throughout both bodies.
    pub(super) mark: String,
    pub(super) method: &'static str,
    pub(super) is_old: bool,
    pub(super) keeps: bool,
    pub(super) expects: bool,
    /// Whether it waits to be asked for its body.
    pub(super) waits: bool,
    pub(super) body: Vec<u8>,
    pub(super) is_chunked: bool,
    /// Whether its chunks break off in nonsense.
    pub(super) is_broken: bool,
    pub(super) head_bytes: Vec<u8>,
    pub(super) body_bytes: Vec<u8>,
    pub(super) lesson: Lesson,
    /// What the origin does, where there is one; the road then only passes on.
    pub(super) deed: Option<Deed>,
}

/// What the road does with a request.
#[derive(Debug)]
pub(super) struct Lesson {
    pub(super) thinks: Duration,
    pub(super) reads: Reads,
    pub(super) hesitates: Duration,
    pub(super) says: Says,
    pub(super) closes: bool,
}

/// How much of the body the road reads before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Nothing,
    /// Looks once whether something is there.
    Glance,
    Pieces(usize),
    All,
}

#[derive(Debug)]
pub(super) enum Says {
    Full(u16, usize),
    Bare(u16),
    Stream(Vec<Act>),
    /// What it receives, as it comes.
    Echo,
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Piece(usize),
    Pause(Duration),
    Break,
}

/// `length` bytes that say nothing but `mark`.
pub(super) fn filler(mark: &str, length: usize) -> Vec<u8> {
    format!("{mark}|").bytes().cycle().take(length).collect()
}

/// Heads that must be refused, whatever follows.
pub(super) const BROKEN: &[&str] = &[
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "nonsense\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET / HTTP/2.7\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
];

impl Ask {
    pub(super) fn throw(mark: String, has_origin: bool, dice: &mut Dice) -> Self {
        let method = *dice.pick(&["GET", "GET", "GET", "HEAD", "POST", "POST", "PUT"]);
        let has_body = matches!(method, "POST" | "PUT");
        let is_old = dice.once_in(8);
        let is_chunked = has_body && !is_old && dice.once_in(2);
        let expects = has_body && dice.once_in(5);
        let (connection, keeps) = match (dice.within(0..=11), is_old) {
            (0, _) => ("Connection: close\r\n", false),
            (1..=3, true) => ("", false),
            (_, true) | (1, false) => ("Connection: keep-alive\r\n", true),
            _ => ("", true),
        };
        let length = if has_body { dice.size(*dice.clone().pick(&[500, 5000, 200_000])) } else { 0 };
        let body = filler(&format!("body-of-{mark}"), length);
        let is_broken = is_chunked && dice.once_in(12);
        let framing = match (has_body, is_chunked) {
            (true, true) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (true, false) => format!("Content-Length: {length}\r\n"),
            _ => String::new(),
        };
        let version = if is_old { "1.0" } else { "1.1" };
        let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
        let head_bytes = format!(
            "{method} /{mark} HTTP/{version}\r\nHost: a\r\nX-Mark: {mark}\r\n{connection}{expect}{framing}\r\n"
        );
        let body_bytes = if is_chunked { chunk(&body, is_broken, dice) } else { body.clone() };
        Self {
            mark,
            method,
            is_old,
            keeps,
            expects: expects && !is_old,
            waits: expects && dice.once_in(2),
            body,
            is_chunked,
            is_broken,
            head_bytes: head_bytes.into_bytes(),
            body_bytes,
            lesson: Lesson::throw(has_body, dice),
            deed: has_origin.then(|| Deed::throw(dice)),
        }
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether the answer's end is the end of the connection. Of an origin's it is only known whether it may be:
    /// what has come to its end already has a length.
    fn until_close(&self) -> bool {
        if let Some(deed) = &self.deed {
            return self.is_old && !self.is_head() && deed.is_endless();
        }
        self.is_old && !self.is_head() && matches!(self.lesson.says, Says::Stream(_) | Says::Echo)
    }

    /// Whether the answer must say that it is the last, whatever else happens.
    pub(super) fn must_close(&self) -> bool {
        !self.keeps || (self.deed.is_none() && (self.lesson.closes || self.until_close()))
    }

    /// Whether it may say so although nobody wants to part: for what is left of the body.
    pub(super) fn may_close(&self) -> bool {
        self.must_close()
            || self.until_close()
            || self.expects
            || (!self.is_chunked && self.body.len() > 64 * 1024)
    }

    /// Whether the connection may end after the answer without a word: the rest of the body is too much, or
    /// makes no sense.
    pub(super) fn may_not_settle(&self) -> bool {
        self.is_broken || (self.is_chunked && self.body_bytes.len() > 64 * 1024)
    }

    /// Whether the road gives no whole answer.
    pub(super) fn breaks_off(&self) -> bool {
        if let Some(deed) = &self.deed {
            return deed.breaks_off();
        }
        match &self.lesson.says {
            Says::Panic => true,
            Says::Echo => self.is_broken && !self.is_head(),
            Says::Stream(acts) => !self.is_head() && acts.iter().any(|act| matches!(act, Act::Break)),
            Says::Full(..) | Says::Bare(_) => false,
        }
    }

    /// The status and body of the answer.
    pub(super) fn answer(&self) -> (u16, Vec<u8>) {
        if let Some(deed) = &self.deed {
            let length = if self.is_head() || deed.is_bodiless() { 0 } else { deed.length };
            return (deed.status, filler(&self.mark, length));
        }
        let (status, body) = match &self.lesson.says {
            Says::Full(status, length) => (*status, filler(&self.mark, *length)),
            Says::Bare(status) => (*status, Vec::new()),
            Says::Stream(acts) => (200, filler(&self.mark, length(acts))),
            Says::Echo => (200, self.body.clone()),
            Says::Panic => (0, Vec::new()),
        };
        (status, if self.is_head() { Vec::new() } else { body })
    }
}

fn length(acts: &[Act]) -> usize {
    let until_break = acts.iter().take_while(|act| !matches!(act, Act::Break));
    until_break.map(|act| if let Act::Piece(length) = act { *length } else { 0 }).sum()
}

impl Lesson {
    fn throw(has_body: bool, dice: &mut Dice) -> Self {
        let says = match dice.within(0..=99) {
            0..=44 => Says::Full(*dice.pick(&[200, 404, 500, 302]), dice.size(60_000)),
            45..=54 => Says::Bare(*dice.pick(&[204, 304])),
            55..=84 => Says::Stream(acts(dice)),
            85..=97 if has_body => Says::Echo,
            98 => Says::Panic,
            _ => Says::Full(200, 5),
        };
        let reads = match dice.within(0..=4) {
            _ if matches!(says, Says::Echo) => Reads::Nothing,
            0 => Reads::Nothing,
            4 => Reads::Glance,
            1 => Reads::Pieces(dice.within(1..=3)),
            _ => Reads::All,
        };
        let pause = |dice: &mut Dice| match dice.within(0..=29) {
            0..=19 => Duration::ZERO,
            20..=28 => dice.millis(1..=800),
            _ => dice.millis(1000..=90_000),
        };
        Self { thinks: pause(dice), reads, hesitates: pause(dice), says, closes: dice.once_in(20) }
    }
}

fn acts(dice: &mut Dice) -> Vec<Act> {
    let act = |dice: &mut Dice| match dice.within(0..=39) {
        0 => Act::Break,
        1..=9 => Act::Pause(dice.millis(1..=3000)),
        _ => Act::Piece(dice.size(20_000)),
    };
    (0..dice.within(0..=6)).map(|_| act(dice)).collect()
}

/// `body` in chunks of any size, with extensions and trailers.
fn chunk(body: &[u8], is_broken: bool, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    let pieces = dice.cut(body);
    let break_at = if is_broken { dice.within(0..=pieces.len()) } else { usize::MAX };
    for (number, piece) in pieces.iter().enumerate() {
        if number == break_at {
            break;
        }
        let extension = if dice.once_in(6) { ";name=\"value\"" } else { "" };
        out.extend(format!("{:x}{extension}\r\n", piece.len()).into_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match (is_broken, dice.once_in(6)) {
        (true, _) => b"xyz\r\n\r\n".as_slice(),
        (false, true) => b"0\r\nTrailer: of-no-use\r\n\r\n",
        (false, false) => b"0\r\n\r\n",
    });
    out
}
