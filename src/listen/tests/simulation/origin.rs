//! The origin of the simulation: it answers as the deed of each request says, and is seldom kind.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::ask::{Ask, filler};
use crate::tests::Trace;
use crate::tests::dice::Dice;
use crate::tests::net::Dialled;
use crate::tests::pipe::{End, Notes, pair};

/// How long the proxy waits for a response head, and for the next byte of a body.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// What the origin does with a request.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one throw of the dice")]
pub(super) struct Deed {
    /// Whether it answers before it has read the body.
    is_early: bool,
    /// Whether it reads the body at all.
    reads: bool,
    thinks: Duration,
    interims: usize,
    pub(super) status: u16,
    coding: Coding,
    pub(super) length: usize,
    closes: bool,
    /// Whether it pauses within its answer.
    hesitates: bool,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Length,
    Chunked,
    UntilClose,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    /// Not at all: it closes or resets behind this part of a thousand.
    Cut(usize, bool),
    /// It says nothing any more behind this part of a thousand.
    Stall(usize),
    /// It is none.
    Garbage(&'static str),
    /// Another one follows that nobody asked for, at once or after a while.
    Surplus(Duration),
}

const GARBAGE: &[&str] = &[
    "SSH-2.0-OpenSSH_9.9\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];

/// What nobody asked for.
const SURPLUS: &[u8] = b"HTTP/1.1 200 OK\r\nX-Mark: surplus\r\nContent-Length: 7\r\n\r\nsurplus";

impl Deed {
    pub(super) fn throw(dice: &mut Dice) -> Self {
        let fate = match dice.within(0..=19) {
            0 | 1 => Fate::Cut(dice.within(0..=999), dice.once_in(2)),
            2 => Fate::Stall(dice.within(0..=999)),
            3 => Fate::Garbage(dice.pick::<&str>(GARBAGE)),
            4 | 5 => Fate::Surplus(if dice.once_in(2) { Duration::ZERO } else { dice.millis(1..=300) }),
            _ => Fate::Whole,
        };
        let is_early = dice.once_in(4);
        // Whatever comes before the close is the body, where that is its end.
        let codings = [Coding::Length, Coding::Length, Coding::Chunked, Coding::Chunked, Coding::UntilClose];
        let most = codings.len() - 1 - usize::from(matches!(fate, Fate::Surplus(_)));
        let coding = codings[dice.within(0..=most)];
        Self {
            is_early,
            reads: !is_early || coding == Coding::UntilClose || dice.once_in(2),
            thinks: if dice.once_in(3) { dice.millis(1..=4000) } else { Duration::ZERO },
            interims: if dice.once_in(8) { dice.within(1..=3) } else { 0 },
            status: *dice.pick(&[200, 200, 200, 404, 500, 204, 304]),
            coding,
            length: dice.size(100_000),
            closes: dice.once_in(10),
            hesitates: dice.once_in(4),
            fate,
        }
    }

    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// Whether the proxy does not know how long the answer is.
    pub(super) fn is_endless(&self) -> bool {
        !self.is_bodiless() && self.coding != Coding::Length
    }

    /// Whether the answer may end for the proxy as if that were its end, although it is not.
    pub(super) fn ends_unseen(&self) -> bool {
        self.coding == Coding::UntilClose && matches!(self.fate, Fate::Cut(_, false))
    }

    /// Whether there is no whole answer.
    pub(super) fn breaks_off(&self) -> bool {
        matches!(self.fate, Fate::Cut(..) | Fate::Stall(_) | Fate::Garbage(_))
    }

    pub(super) fn is_early(&self) -> bool {
        self.is_early
    }

    fn answer(&self, ask: &Ask, dice: &mut Dice) -> Vec<u8> {
        let mut out = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(self.interims);
        let (mark, length) = (&ask.mark, self.length);
        out.extend(format!("HTTP/1.1 {} Said\r\nX-Mark: {mark}\r\n", self.status).into_bytes());
        // Whoever does not read what it is sent cannot read what follows.
        if self.closes || !self.reads {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        match self.coding {
            _ if self.status == 204 => {}
            Coding::Length => out.extend(format!("Content-Length: {length}\r\n").into_bytes()),
            Coding::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Coding::UntilClose => {}
        }
        out.extend_from_slice(b"\r\n");
        if self.is_bodiless() || ask.is_head() {
            return out;
        }
        let body = filler(mark, length);
        if self.coding != Coding::Chunked {
            out.extend(body);
            return out;
        }
        for piece in dice.cut(&body) {
            out.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            out.extend(piece);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(if dice.once_in(3) { b"0\r\nA: b\r\n\r\n" } else { b"0\r\n\r\n" });
        out
    }
}

/// One request as it arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
}

/// All that the origins of one world know.
pub(super) struct Origins {
    pub(super) asks: Mutex<HashMap<String, Arc<Ask>>>,
    pub(super) arrivals: Mutex<HashMap<String, Vec<Arrival>>>,
    /// The proxy's ends of all connections.
    pub(super) lines: Mutex<Vec<Notes>>,
    /// Whether connecting may fail and idle connections may be closed at any time.
    pub(super) is_flaky: bool,
    dice: Mutex<Dice>,
    trace: Trace,
}

impl Origins {
    pub(super) fn new(dice: &mut Dice, trace: &Trace) -> Arc<Self> {
        Arc::new(Self {
            asks: Mutex::default(),
            arrivals: Mutex::default(),
            lines: Mutex::default(),
            is_flaky: dice.once_in(3),
            dice: Mutex::new(dice.fork()),
            trace: trace.clone(),
        })
    }

    /// Answers the telephone.
    pub(super) fn dialled(self: &Arc<Self>, name: &str) -> Dialled {
        let mut dice = self.dice.lock().unwrap();
        let dice = &mut *dice;
        let time = if dice.once_in(4) { dice.millis(1..=900) } else { Duration::ZERO };
        if self.is_flaky && dice.once_in(8) {
            self.trace.note(format_args!("{name} does not connect"));
            let time = if dice.once_in(2) { Duration::from_secs(9) } else { time };
            return (time, Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let rooms = [100, 3000, 60_000, 300_000];
        let (near, far) = pair(*dice.pick(&rooms), *dice.pick(&rooms), dice);
        let mut lines = self.lines.lock().unwrap();
        lines.push(near.notes());
        let line = Line {
            name: format!("o{}", lines.len()),
            origins: Arc::clone(self),
            end: far,
            received: Vec::new(),
            dice: dice.fork(),
        };
        self.trace.note(format_args!("{name} connects as {}", line.name));
        tokio::spawn(line.serve());
        (time, Ok(near))
    }
}

/// One connection, seen from the origin.
struct Line {
    name: String,
    origins: Arc<Origins>,
    end: End,
    received: Vec<u8>,
    dice: Dice,
}

impl Line {
    async fn serve(mut self) {
        loop {
            let idle =
                if self.origins.is_flaky { self.dice.millis(0..=6000) } else { Duration::from_hours(1) };
            match timeout(idle, self.head()).await {
                Ok(Some(head)) => {
                    if !self.answer(&head).await {
                        break;
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        self.origins.trace.note(format_args!("{} closes", self.name));
    }

    /// Reads on. Whether there was something.
    async fn more(&mut self) -> bool {
        let mut space = [0; 4096];
        match self.end.read(&mut space).await {
            Ok(count) if count > 0 => {
                self.received.extend_from_slice(&space[..count]);
                true
            }
            _ => false,
        }
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.received.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Answers one request. Whether the connection goes on.
    async fn answer(&mut self, head: &str) -> bool {
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let mark = field("x-mark: ").unwrap().to_owned();
        self.origins.trace.note(format_args!("{} sees {mark}", self.name));
        let ask = Arc::clone(&self.origins.asks.lock().unwrap()[&mark]);
        let deed = ask.deed.as_ref().unwrap();
        let number = {
            let mut arrivals = self.origins.arrivals.lock().unwrap();
            let arrivals = arrivals.entry(mark.clone()).or_default();
            arrivals.push(Arrival { body: Vec::new(), is_whole: false });
            arrivals.len() - 1
        };
        let length = field("content-length: ").map(|length| length.parse::<usize>().unwrap());
        let is_chunked = field("transfer-encoding: chunked").is_some();
        if !deed.is_early && !self.body(&mark, number, length, is_chunked).await {
            return false;
        }
        sleep(deed.thinks).await;
        let keeps = self.say(&ask, deed).await;
        if deed.is_early && deed.reads && !self.body(&mark, number, length, is_chunked).await {
            return false;
        }
        if !deed.reads {
            // It looks away until the proxy has lost its patience.
            sleep(Duration::from_secs(30)).await;
            return false;
        }
        if let Fate::Surplus(wait) = deed.fate
            && keeps
        {
            sleep(wait).await;
            // Whoever has the next request already is beyond help.
            let is_asked =
                std::future::poll_fn(|cx| std::task::Poll::Ready(self.end.poll_readable(cx).is_ready()));
            if wait.is_zero() || !self.received.is_empty() || is_asked.await {
                return self.received.is_empty();
            }
            self.origins.trace.note(format_args!("{} says more than it was asked", self.name));
            let _ = self.end.write_all(SURPLUS).await;
        }
        keeps
    }

    /// Says the answer, as far as its fate goes. Whether the connection goes on.
    async fn say(&mut self, ask: &Ask, deed: &Deed) -> bool {
        let mut answer = deed.answer(ask, &mut self.dice);
        let whole = answer.len();
        let part = |thousandths: usize, of: usize| (of * thousandths / 1000).min(of - 1);
        match deed.fate {
            Fate::Cut(at, _) | Fate::Stall(at) => answer.truncate(part(at, answer.len())),
            Fate::Garbage(text) => answer = text.into(),
            Fate::Surplus(wait) if wait.is_zero() => answer.extend_from_slice(SURPLUS),
            Fate::Whole | Fate::Surplus(_) => {}
        }
        let mut said = 0;
        for piece in self.dice.cut(&answer) {
            // Behind an answer that is whole nobody can tell a pause from the end, and what comes then from the next one.
            if deed.hesitates && self.dice.once_in(8) && said < whole {
                sleep(self.dice.millis(1..=100)).await;
            }
            said += piece.len();
            if self.end.write_all(&piece).await.is_err() {
                return false;
            }
        }
        match deed.fate {
            Fate::Cut(_, reset) => {
                if reset {
                    self.end.notes().reset();
                }
                false
            }
            Fate::Stall(_) => {
                sleep(PATIENCE * 3).await;
                // Not a farewell, which a client that took all that time for what came before would rightly see as
                // the end of a body that ends with the connection.
                self.end.notes().reset();
                false
            }
            Fate::Garbage(_) => false,
            Fate::Whole | Fate::Surplus(_) => !deed.closes && deed.coding != Coding::UntilClose,
        }
    }

    /// Reads a body. Whether it came to its end.
    async fn body(&mut self, mark: &str, number: usize, length: Option<usize>, is_chunked: bool) -> bool {
        loop {
            let (body, used) = if is_chunked {
                unchunk(&self.received)
            } else {
                let length = length.unwrap_or(0);
                let body = self.received[..length.min(self.received.len())].to_vec();
                let used = (body.len() == length).then_some(length);
                (body, used)
            };
            {
                let mut arrivals = self.origins.arrivals.lock().unwrap();
                let arrival = &mut arrivals.get_mut(mark).unwrap()[number];
                *arrival = Arrival { body, is_whole: used.is_some() };
            }
            if let Some(used) = used {
                self.received.drain(..used);
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }
}

/// The data of a chunked body, and the length of it all if it has ended.
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut data, whole) = (Vec::new(), bytes.len());
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let rest = &bytes[end + 2..];
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        let Some(behind) = rest.get(size..).and_then(|rest| rest.strip_prefix(b"\r\n")) else { break };
        bytes = behind;
        if size == 0 {
            return (data, Some(whole - bytes.len()));
        }
    }
    (data, None)
}
