//! Floods of HTTP/2 frames: each is ended early and costs next to nothing; the origin hardly hears of it, and
//! everybody else is served meanwhile.
//!
//! Every attack sends raw frames over TLS to the real binary, at most 20,000 or for four seconds. What is counted
//! (frames, requests at the origin, failures of others) is held against its bar in every build; CPU, memory and
//! late answers in full for a release, because a debug build is many times dearer. A line of figures is printed for each:
//!
//!     RAVELIN_BINARY=target/release/ravelin cargo test --test it h2_floods -- --nocapture --test-threads 1

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::recorder::{Next, OK};
use crate::harness::{HOST, Ravelin, Recorder, Wire, other_binary, proxy, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const LAST: u8 = END_STREAM | END_HEADERS;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What one attack may cost, and for how long it may go on.
const FRAMES: usize = 20_000;
const TIME: Duration = Duration::from_secs(4);
/// An attack reaches the origin with at most so many requests.
const ORIGIN: usize = 10;
/// CPU seconds of the whole process, of a release and of a debug build.
const CPU: (f64, f64) = (0.25, 2.5);
/// Growth of resident memory in bytes, the same two.
const MEMORY: (u64, u64) = (15_000_000, 30_000_000);
/// An answer that takes longer is late. A neighbour on the machine may make a few of them so.
const LATE: Duration = Duration::from_millis(200);
const FEW: usize = 20;
/// Frames after which resets must have been answered by GOAWAY.
const PROMPT: usize = 1000;

/// Whether a release is attacked, not the build of these tests.
fn is_release() -> bool {
    !cfg!(debug_assertions) || other_binary().is_some()
}

/// A frame as it crosses the wire (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A string of HPACK without Huffman coding (RFC 7541 section 5.2).
fn string(text: &str) -> Vec<u8> {
    let mut out = number(text.len(), 7, 0);
    out.extend(text.bytes());
    out
}

/// An integer with a prefix of `bits` bits (RFC 7541 section 5.1).
fn number(value: usize, bits: u32, first: u8) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let mut out = vec![first | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
    out
}

/// The pseudo fields of `method` and `path`, all literal (RFC 7541 section 6.2.2).
fn asks(method: &str, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, value) in [(2, method), (7, "https"), (4, path), (1, HOST)] {
        out.extend(number(index, 4, 0));
        out.extend(string(value));
    }
    out
}

fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, LAST, stream, &asks("GET", "/attack"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// An attacker: counts what it sends, and reads what comes back.
struct Attacker {
    wire: Wire,
    unread: Vec<u8>,
    began: Instant,
    frames: usize,
    /// The next stream's number.
    stream: u32,
    /// Streams that the server reset.
    resets: usize,
    /// The code of GOAWAY, and after how many frames it was read.
    goaway: Option<(u32, usize)>,
    closed: bool,
}

impl Attacker {
    fn new(site: &Ravelin, settings: &[u8]) -> Self {
        let mut wire = site.wire_h2();
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        Self {
            wire,
            unread: Vec::new(),
            began: Instant::now(),
            frames: 0,
            stream: 1,
            resets: 0,
            goaway: None,
            closed: false,
        }
    }

    /// The number of a stream that was not used yet.
    fn next(&mut self) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        stream
    }

    /// Sends `frames` at once.
    fn send(&mut self, frames: &[Vec<u8>]) -> &mut Self {
        self.frames += frames.len();
        self.wire.send(frames.concat());
        self
    }

    /// Reads what has come, and waits for at most `silence` for more.
    fn listen(&mut self, silence: Duration) -> &mut Self {
        if self.closed {
            return self;
        }
        let (bytes, closed) = self.wire.whatever(silence);
        self.unread.extend(bytes);
        self.closed = closed;
        let mut at = 0;
        while let Some(head) = self.unread.get(at..at + 9) {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]) | usize::from(head[0]) << 16;
            let kind = head[3];
            let Some(payload) = self.unread.get(at + 9..at + 9 + length) else { break };
            match kind {
                RST_STREAM => self.resets += 1,
                GOAWAY if self.goaway.is_none() => {
                    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                    self.goaway = Some((code, self.frames));
                }
                _ => {}
            }
            at += 9 + length;
        }
        self.unread.drain(..at);
        self
    }

    /// Whether there is something left to do.
    fn goes_on(&self) -> bool {
        !self.closed && self.frames < FRAMES && self.began.elapsed() < TIME
    }

    /// Sends what `make` makes of each new stream's number, `each` times in one write, again and again.
    fn flood(&mut self, each: usize, pause: Duration, make: impl Fn(u32) -> Vec<Vec<u8>>) {
        while self.goes_on() {
            let batch: Vec<Vec<u8>> = (0..each).flat_map(|_| make(self.next())).collect();
            self.send(&batch).listen(pause);
        }
    }
}

/// What an attack came to.
struct Cost {
    name: &'static str,
    origin: usize,
    frames: usize,
    goaway: Option<(u32, usize)>,
    closed: bool,
    cpu: f64,
    memory: u64,
    /// How long it took until the connection was closed, or until the attack gave up.
    took: Duration,
    others: Others,
}

/// What a client that does nothing wrong saw.
#[derive(Default)]
struct Others {
    served: usize,
    failed: usize,
    late: usize,
    slowest: Duration,
}

/// An origin that counts what the attack asks, and takes 300 ms for it.
fn origin(asked: &Arc<AtomicUsize>) -> Recorder {
    let asked = Arc::clone(asked);
    Recorder::scripted(move |_, head, socket| {
        if head.windows(7).any(|window| window == b"/attack") {
            asked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(300));
        }
        let large = head.windows(6).any(|window| window == b"/large");
        let sent = if large {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&vec![b'x'; 1_000_000]))
        } else {
            socket.write_all(OK.as_bytes())
        };
        if sent.is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

/// Asks every 20 ms, in turn over a kept connection and a new one, until `done`.
fn honest(site: &Ravelin, done: &AtomicBool) -> Others {
    let mut seen = Others::default();
    let mut kept = site.wire_tls();
    while !done.load(Ordering::Relaxed) {
        for fresh in [false, true] {
            let began = Instant::now();
            let mut other = fresh.then(|| site.wire_tls());
            let wire = other.as_mut().unwrap_or(&mut kept);
            wire.say(&format!("GET /honest HTTP/1.1\nHost: {HOST}\n\n"));
            let (bytes, closed) = answer(wire);
            let good = bytes.starts_with(b"HTTP/1.1 200 ") && !closed;
            let took = began.elapsed();
            seen.served += usize::from(good);
            seen.failed += usize::from(!good);
            seen.late += usize::from(took > LATE);
            seen.slowest = seen.slowest.max(took);
            sleep(Duration::from_millis(20));
        }
    }
    seen
}

/// What comes until the two bytes of the body are there.
fn answer(wire: &mut Wire) -> (Vec<u8>, bool) {
    let (mut bytes, mut closed) = (Vec::new(), false);
    let began = Instant::now();
    while !bytes.ends_with(b"\r\n\r\nok") && !closed && began.elapsed() < Duration::from_secs(10) {
        let (more, end) = wire.whatever(Duration::from_millis(1));
        bytes.extend(more);
        closed = end;
    }
    (bytes, closed)
}

/// Runs `attack` against a fresh process, beside an honest client.
fn suffer(name: &'static str, settings: &[u8], attack: impl FnOnce(&mut Attacker)) -> Cost {
    suffer_with(name, settings, |_, attacker| attack(attacker))
}

/// The same for an attack that needs more than one connection.
fn suffer_with(name: &'static str, settings: &[u8], attack: impl FnOnce(&Ravelin, &mut Attacker)) -> Cost {
    let asked = Arc::new(AtomicUsize::new(0));
    let origin = origin(&asked);
    let site = proxy().bare_site(HOST, &origin).start();
    site.get("/honest").status(200);
    let done = AtomicBool::new(false);
    let cost = std::thread::scope(|scope| {
        // The honest client runs a second alone, so that its own cost can be taken off.
        let other = scope.spawn(|| honest(&site, &done));
        sleep(Duration::from_millis(300));
        site.forget_peak();
        let (cpu, memory) = (site.cpu_seconds(), site.resident());
        sleep(Duration::from_secs(1));
        let usual = site.cpu_seconds() - cpu;
        let cpu = site.cpu_seconds();
        let mut attacker = Attacker::new(&site, settings);
        attack(&site, &mut attacker);
        let took = attacker.began.elapsed();
        // What it still costs to get rid of what was sent.
        sleep(Duration::from_millis(500));
        attacker.listen(Duration::from_millis(1));
        let spent = site.cpu_seconds() - cpu - usual * (took.as_secs_f64() + 0.5);
        done.store(true, Ordering::Relaxed);
        let others = other.join().unwrap();
        Cost {
            name,
            origin: asked.load(Ordering::Relaxed),
            frames: attacker.frames,
            goaway: attacker.goaway,
            closed: attacker.closed,
            cpu: spent.max(0.0),
            memory: site.resident_peak().saturating_sub(memory),
            took,
            others,
        }
    });
    cost.show().holds()
}

impl Cost {
    fn show(self) -> Self {
        let goaway = self.goaway.map_or("-".to_owned(), |(code, at)| format!("{code} @{at}"));
        println!(
            "{:<28} | frames {:>5} | goaway {goaway:>9} | closed {:<5} | origin {:>3} | cpu {:.3} s | rss +{:>4.1} MB | \
             {:>4} ms | others {}/{}, {} late, max {} ms",
            self.name,
            self.frames,
            self.closed,
            self.origin,
            self.cpu,
            f64::from(u32::try_from(self.memory / 1000).unwrap()) / 1000.0,
            self.took.as_millis(),
            self.others.served,
            self.others.served + self.others.failed,
            self.others.late,
            self.others.slowest.as_millis(),
        );
        self
    }

    /// What holds for every attack.
    #[track_caller]
    fn holds(self) -> Self {
        let (name, others) = (self.name, &self.others);
        let (cpu, memory) = if is_release() { (CPU.0, MEMORY.0) } else { (CPU.1, MEMORY.1) };
        assert!(self.origin <= ORIGIN, "{name}: {} requests reached the origin", self.origin);
        assert!(self.cpu <= cpu, "{name}: {} CPU seconds", self.cpu);
        assert!(self.memory <= memory, "{name}: {} bytes more in memory", self.memory);
        assert!(others.served > 0, "{name}: nobody else was served");
        assert_eq!(others.failed, 0, "{name}: requests of the honest client failed");
        let few = others.served / FEW;
        assert!(
            !is_release() || others.late <= few,
            "{name}: {} of {} were late",
            others.late,
            others.served
        );
        self
    }

    /// It was ended by GOAWAY within `frames` frames.
    #[track_caller]
    fn ended_within(&self, frames: usize) -> &Self {
        let at = self.goaway.map(|(_, at)| at);
        assert!(at.is_some_and(|at| at <= frames), "{}: GOAWAY {:?}", self.name, self.goaway);
        self
    }

    /// The connection was closed.
    #[track_caller]
    fn closed(&self) -> &Self {
        assert!(self.closed, "{}: the connection is still open", self.name);
        self
    }
}

const NOW: Duration = Duration::from_millis(1);

#[test]
fn rapid_reset_in_one_write() {
    let cost = suffer("rapid reset, one write", &[], |attacker| {
        attacker.flood(10, NOW, |stream| vec![get(stream), reset(stream)]);
    });
    cost.ended_within(PROMPT).closed();
}

#[test]
fn rapid_reset_in_volleys() {
    let cost = suffer("rapid reset, volleys", &[], |attacker| {
        while attacker.goes_on() {
            let streams: Vec<u32> = (0..100).map(|_| attacker.next()).collect();
            attacker.send(&streams.iter().map(|stream| get(*stream)).collect::<Vec<_>>());
            attacker.listen(Duration::from_millis(10));
            attacker.send(&streams.iter().map(|stream| reset(*stream)).collect::<Vec<_>>()).listen(NOW);
        }
    });
    cost.ended_within(PROMPT).closed();
}

#[test]
fn rapid_reset_with_patience() {
    let cost = suffer("rapid reset, one by one", &[], |attacker| {
        while attacker.goes_on() {
            let stream = attacker.next();
            attacker.send(&[get(stream)]).listen(Duration::from_millis(3));
            attacker.send(&[reset(stream)]);
        }
    });
    cost.ended_within(PROMPT).closed();
}

/// The server is made to reset by an error that the client makes on a stream that is being served.
fn made(name: &'static str, error: impl Fn(u32) -> Vec<u8>) -> Cost {
    suffer(name, &[], |attacker| {
        while attacker.goes_on() {
            let streams: Vec<u32> = (0..20).map(|_| attacker.next()).collect();
            attacker.send(&streams.iter().map(|stream| get(*stream)).collect::<Vec<_>>());
            attacker.listen(Duration::from_millis(3));
            attacker.send(&streams.iter().map(|stream| error(*stream)).collect::<Vec<_>>()).listen(NOW);
        }
    })
}

#[test]
fn made_you_reset_by_an_increment_of_zero() {
    made("made you reset: window +0", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]))
        .ended_within(PROMPT)
        .closed();
}

#[test]
fn made_you_reset_by_an_overflow_of_the_window() {
    made("made you reset: overflow", |stream| {
        frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
    })
    .ended_within(PROMPT)
    .closed();
}

#[test]
fn made_you_reset_by_data_after_the_end() {
    made("made you reset: late DATA", |stream| frame(DATA, 0, stream, b"more")).ended_within(PROMPT).closed();
}

#[test]
fn made_you_reset_by_fields_after_the_end() {
    made("made you reset: late HEADERS", get).ended_within(PROMPT).closed();
}

#[test]
fn made_you_reset_by_a_priority_on_itself() {
    made("made you reset: PRIORITY", |stream| {
        frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
    })
    .ended_within(PROMPT)
    .closed();
}

#[test]
fn continuation_flood() {
    let piece = field("x-a", "b").repeat(100);
    let cost = suffer("CONTINUATION flood", &[], |attacker| {
        attacker.send(&[frame(HEADERS, END_STREAM, 1, &asks("GET", "/attack"))]);
        attacker.flood(10, NOW, |_| vec![frame(CONTINUATION, 0, 1, &piece)]);
    });
    cost.ended_within(PROMPT).closed();
}

#[test]
fn empty_continuation_flood() {
    let cost = suffer("empty CONTINUATION flood", &[], |attacker| {
        attacker.send(&[frame(HEADERS, END_STREAM, 1, &asks("GET", "/attack"))]);
        attacker.flood(10, NOW, |_| vec![frame(CONTINUATION, 0, 1, &[])]);
    });
    cost.ended_within(PROMPT).closed();
}

#[test]
fn settings_flood() {
    let cost = suffer("SETTINGS flood", &[], |attacker| {
        attacker.flood(100, NOW, |_| vec![frame(SETTINGS, 0, 0, &[])]);
    });
    cost.closed();
}

#[test]
fn ping_flood() {
    let cost = suffer("PING flood", &[], |attacker| {
        attacker.flood(100, NOW, |_| vec![frame(PING, 0, 0, b"12345678")]);
    });
    cost.closed();
}

#[test]
fn priority_flood() {
    let cost = suffer("PRIORITY flood", &[], |attacker| {
        attacker.flood(100, NOW, |stream| vec![frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 7])]);
    });
    cost.closed();
}

#[test]
fn empty_data_flood() {
    let cost = suffer("empty DATA flood", &[], |attacker| {
        attacker.send(&[frame(HEADERS, END_HEADERS, 1, &asks("POST", "/attack"))]);
        attacker.flood(50, NOW, |_| vec![frame(DATA, 0, 1, &[])]);
    });
    cost.ended_within(PROMPT).closed();
}

/// A field of 4,000 bytes is put into the table once, and named 16,000 times in one byte each.
#[test]
fn hpack_bomb() {
    let mut block = asks("GET", "/attack");
    block.extend([vec![0x40], string("x"), string(&"y".repeat(3900))].concat());
    block.extend(vec![0x80 | 0x3e; 12_000]);
    let cost = suffer("HPACK bomb", &[], |attacker| {
        attacker.flood(1, NOW, |stream| vec![frame(HEADERS, LAST, stream, &block)]);
    });
    cost.ended_within(100).closed();
}

/// Requests with 16,000 fields each.
#[test]
fn sixteen_thousand_fields() {
    let block = [asks("GET", "/attack"), field("a", "b").repeat(16_000)].concat();
    let cost =
        suffer("16,000 fields", &[], |attacker| attacker.flood(1, NOW, |stream| large(stream, &block)));
    cost.ended_within(100).closed();
}

/// Requests whose fields are a little too large, each.
#[test]
fn lists_that_are_too_large_again_and_again() {
    let block = [asks("GET", "/attack"), field("a", &"b".repeat(8000)).repeat(12)].concat();
    let cost = suffer("field lists too large", &[], |attacker| {
        attacker.flood(1, NOW, |stream| large(stream, &block));
    });
    cost.ended_within(PROMPT).closed();
}

/// Malformed requests: each stream ends with an error before there is a request.
#[test]
fn malformed_requests_again_and_again() {
    let block = [asks("GET", "/attack"), field("connection", "close")].concat();
    let cost = suffer("malformed requests", &[], |attacker| {
        attacker.flood(20, NOW, |stream| vec![frame(HEADERS, LAST, stream, &block)]);
    });
    cost.ended_within(PROMPT).closed();
}

/// A header block in frames of 16,000 bytes.
fn large(stream: u32, block: &[u8]) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    let last = pieces.len() - 1;
    let part = |(number, piece): (usize, &&[u8])| {
        let end = if number == last { END_HEADERS } else { 0 };
        if number == 0 {
            frame(HEADERS, END_STREAM | end, stream, piece)
        } else {
            frame(CONTINUATION, end, stream, piece)
        }
    };
    pieces.iter().enumerate().map(part).collect()
}

#[test]
fn two_thousand_open_streams() {
    let cost = suffer("2,000 open streams", &[], |attacker| {
        let block = asks("POST", "/attack");
        while attacker.goes_on() && attacker.frames < 2000 {
            let batch: Vec<_> =
                (0..100).map(|_| frame(HEADERS, END_HEADERS, attacker.next(), &block)).collect();
            attacker.send(&batch).listen(NOW);
        }
        attacker.listen(Duration::from_secs(1));
    });
    cost.ended_within(2000).closed();
}

/// 200 answers of 1 MB to a client that opens no window, over two connections.
#[test]
fn zero_window() {
    let initial_window_size_0 = [0, 4, 0, 0, 0, 0];
    suffer_with("zero window, 200 x 1 MB", &initial_window_size_0, |site, attacker| {
        let mut other = Attacker::new(site, &initial_window_size_0);
        for attacker in [attacker, &mut other] {
            let block = asks("GET", "/large");
            let batch: Vec<_> = (0..100).map(|_| frame(HEADERS, LAST, attacker.next(), &block)).collect();
            attacker.send(&batch).listen(Duration::from_secs(1));
            assert!(attacker.goaway.is_none(), "a hundred streams are allowed");
        }
    });
}

/// How long a header block that is begun and not ended may stand.
fn open_block(name: &'static str, trickle: bool) -> Cost {
    suffer(name, &[], |attacker| {
        attacker.send(&[frame(HEADERS, END_STREAM, 1, &asks("GET", "/attack"))]);
        let patience = Duration::from_secs(15);
        while !attacker.closed && attacker.began.elapsed() < patience {
            if trickle {
                // One frame head is begun and its payload comes byte by byte.
                if attacker.frames == 1 {
                    attacker.send(&[vec![0, 16, 0, CONTINUATION, END_HEADERS, 0, 0, 0, 1]]);
                }
                attacker.wire.send([0]);
            }
            attacker.listen(Duration::from_millis(100));
        }
    })
}

#[test]
fn a_header_block_that_stalls_is_ended_in_time() {
    let cost = open_block("stalled header block", false);
    assert!(cost.closed && cost.took < Duration::from_secs(12), "{:?}", cost.took);
}

#[test]
fn a_header_block_that_trickles_is_ended_in_time() {
    let cost = open_block("trickled header block", true);
    assert!(cost.closed && cost.took < Duration::from_secs(12), "{:?}", cost.took);
}

/// Browsers that navigate away cancel dozens of requests; they are served on, on the same connection.
#[test]
fn a_browser_that_navigates_away_is_served_on() {
    let asked = Arc::new(AtomicUsize::new(0));
    let origin = origin(&asked);
    let site = proxy().bare_site(HOST, &origin).start();
    let mut browser = Attacker::new(&site, &[]);
    let mut answered = 0;
    for page in 0..8 {
        let stream = browser.next();
        browser.send(&[frame(HEADERS, LAST, stream, &asks("GET", "/page"))]);
        answered += answers(&mut browser, 1);
        // Forty pictures, of which none has come when the next page is wanted.
        let pictures: Vec<u32> = (0..40).map(|_| browser.next()).collect();
        browser.send(&pictures.iter().map(|stream| get(*stream)).collect::<Vec<_>>());
        browser.listen(Duration::from_millis(5));
        browser.send(&pictures.iter().map(|stream| reset(*stream)).collect::<Vec<_>>()).listen(NOW);
        // And forty that are waited for.
        let block = asks("GET", "/style");
        let styles: Vec<_> = (0..40).map(|_| frame(HEADERS, LAST, browser.next(), &block)).collect();
        answered += answers(browser.send(&styles), 40);
        assert!(!browser.closed && browser.goaway.is_none(), "page {page}: sent away");
    }
    assert_eq!(answered, 8 * 41);
}

/// Waits for `count` bodies that end, and says how many came.
fn answers(browser: &mut Attacker, count: usize) -> usize {
    let mut seen = 0;
    let mut bytes: Vec<u8> = Vec::new();
    within(Duration::from_secs(10), || {
        let (more, closed) = browser.wire.whatever(Duration::from_millis(5));
        bytes.extend(more);
        while let Some(head) = bytes.get(..9) {
            let end = 9 + (usize::from(head[1]) << 8 | usize::from(head[2]));
            let (kind, flags) = (head[3], head[4]);
            if bytes.len() < end {
                break;
            }
            seen += usize::from(kind == DATA && flags & END_STREAM != 0);
            bytes.drain(..end);
        }
        browser.closed = closed;
        (seen >= count || closed).then_some(())
    });
    seen
}
