//! Lines on their way to a file, a pipe or a terminal, without anybody who serves ever waiting for it.
//!
//! Each worker writes into a lane of its own: a buffer behind a lock that nobody else takes, but for
//! the moment in which the one writer thread swaps it for an empty one. That happens a quarter of a
//! second after the first line, or at once when 128 KiB have gathered. The writer looks again by itself for
//! as long as there are lines, and is told of the first one after a pause only: on a core that it shares
//! with a worker, every time it wakes a request waits. If the reader of a pipe is stuck or the disk is
//! full, lanes grow to their cap, and from there lines are dropped and counted. A process that writes
//! nothing wakes nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use super::stamp::Stamp;
use super::target::Target;
use crate::clock;

/// A lane with this much in it is collected at once.
const FULL: usize = 128 << 10;
/// A lane with this much in it takes no more lines: about 10 000 of them.
const CAP: usize = 4 << 20;
/// An empty buffer larger than this is given back.
const KEEP: usize = 256 << 10;
/// At most one warning about lost lines in this time.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Lanes, and the thread that empties them.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    orders: Sender<Order>,
}

/// What happened to lines so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Written.
    pub written: u64,
    /// Dropped, because what takes them did not keep up.
    pub dropped: u64,
    /// Lost, because writing failed (a full disk, a closed pipe).
    pub failed: u64,
}

#[derive(Debug)]
struct Shared {
    lanes: Box<[Lane]>,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    /// Whether the writer will look by itself.
    awake: AtomicBool,
    /// When lines were last warned about, and how many were lost by then.
    warned: Mutex<Option<(Instant, u64)>>,
    /// Whether losses are worth a warning; not those of the warnings themselves.
    warns: bool,
}

/// On cache lines of its own, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    inner: Mutex<Text>,
}

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    lines: u64,
    stamp: Stamp,
}

#[derive(Debug)]
enum Order {
    /// There is a line, and the writer sleeps.
    Some,
    /// A lane is full enough.
    Full,
    /// Write everything, then answer whether that worked.
    Flush(Sender<bool>),
    /// Write everything, then open the target anew, then answer.
    Reopen(Sender<io::Result<()>>),
    /// Write everything, then go on with another target, then answer.
    Turn(Target, Sender<()>),
}

struct Writer {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    target: Target,
    gather: Duration,
    spare: Vec<u8>,
}

enum Next {
    Order(Order),
    Due,
    Gone,
}

impl Spool {
    /// Starts the writer thread. Lines wait up to `gather` for others, so that they are written
    /// together. With `warns`, lost lines are warned about once a minute.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(lanes: usize, target: Target, gather: Duration, warns: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            lanes: (0..lanes.max(1)).map(|_| Lane::default()).collect(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            awake: AtomicBool::new(false),
            warned: Mutex::new(None),
            warns,
        });
        let (sender, orders) = mpsc::channel();
        let writer = Writer { shared: Arc::clone(&shared), orders, target, gather, spare: Vec::new() };
        thread::Builder::new().name("ravelin-log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, orders: sender })
    }

    /// Adds what `write` appends, one whole line or several, to a lane. Never waits; if the lane is at
    /// its cap, `write` is not called and the line is counted as dropped.
    pub fn line(&self, lane: usize, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let lanes = &self.shared.lanes;
        let Some(lane) = lanes.get(lane % lanes.len()) else { return };
        let mut text = lane.text();
        let before = text.bytes.len();
        if before >= CAP {
            drop(text);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.warn("what takes them does not keep up");
            return;
        }
        let Text { bytes, lines, stamp } = &mut *text;
        write(bytes, stamp);
        *lines += 1;
        let after = bytes.len();
        drop(text);
        if before < FULL && after >= FULL {
            self.order(Order::Full);
        } else if before == 0 && !self.shared.awake.swap(true, Ordering::SeqCst) {
            self.order(Order::Some);
        }
    }

    /// Writes everything that was accepted, waiting up to `patience`; whether all of it was written.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, answer) = mpsc::channel();
        self.order(Order::Flush(done));
        answer.recv_timeout(patience).unwrap_or(false)
    }

    /// Writes everything to the target as it is, then opens it anew by its name: for log rotation.
    /// Waits up to `patience`.
    ///
    /// # Errors
    /// When the file cannot be opened; then the old one stays in use.
    pub fn reopen(&self, patience: Duration) -> io::Result<()> {
        let (done, answer) = mpsc::channel();
        self.order(Order::Reopen(done));
        answer.recv_timeout(patience).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes everything to the target as it is, then goes on with another one. Waits up to `patience`;
    /// if the old target is stuck for longer, the turn happens when it is not.
    pub fn turn_to(&self, target: Target, patience: Duration) {
        let (done, answer) = mpsc::channel();
        self.order(Order::Turn(target, done));
        let _ = answer.recv_timeout(patience);
    }

    /// What happened to lines so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            written: self.shared.written.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    fn order(&self, order: Order) {
        // The thread ends only after every sender is gone, so this cannot fail while it matters.
        let _ = self.orders.send(order);
    }
}

impl Shared {
    /// Says how many lines were lost, once in a while.
    fn warn(&self, why: &str) {
        if !self.warns {
            return;
        }
        let now = clock::now();
        let lost = self.dropped.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed);
        // Somebody else is at it: one warning is enough.
        let Ok(mut warned) = self.warned.try_lock() else { return };
        let (at, known) = warned.unwrap_or((now, 0));
        if warned.is_some() && now.duration_since(at) < WARN_EVERY {
            return;
        }
        *warned = Some((now, lost));
        drop(warned);
        let since_last = lost.saturating_sub(known);
        tracing::warn!(lost = since_last, in_total = lost, "access log: lines are lost: {why}");
    }
}

impl Lane {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn run(mut self) {
        let mut due = None;
        loop {
            match self.next(due) {
                Next::Order(Order::Some) => {
                    due = due.or_else(|| Some(clock::now() + self.gather));
                    continue;
                }
                Next::Due if self.rests() => {
                    due = None;
                    continue;
                }
                Next::Order(Order::Full) | Next::Due => {
                    self.collect();
                }
                Next::Order(Order::Flush(done)) => {
                    // Whoever asked may have lost patience; then nobody needs the answer. So below.
                    let _ = done.send(self.collect());
                }
                Next::Order(Order::Reopen(done)) => {
                    self.collect();
                    let _ = done.send(self.target.reopen());
                }
                Next::Order(Order::Turn(target, done)) => {
                    self.collect();
                    self.target = target;
                    let _ = done.send(());
                }
                Next::Gone => {
                    self.collect();
                    return;
                }
            }
            // Where lines were, more will come: look again without being told.
            self.shared.awake.store(true, Ordering::SeqCst);
            due = Some(clock::now() + self.gather);
        }
    }

    /// Goes to sleep if there is no line. Whoever adds one after the look finds the writer asleep: lane and
    /// flag are looked at in the opposite order there.
    fn rests(&self) -> bool {
        self.shared.awake.store(false, Ordering::SeqCst);
        let empty = self.shared.lanes.iter().all(|lane| lane.text().bytes.is_empty());
        if !empty {
            self.shared.awake.store(true, Ordering::SeqCst);
        }
        empty
    }

    fn next(&self, due: Option<Instant>) -> Next {
        let Some(due) = due else {
            return self.orders.recv().map_or(Next::Gone, Next::Order);
        };
        match self.orders.recv_timeout(due.saturating_duration_since(clock::now())) {
            Ok(order) => Next::Order(order),
            Err(RecvTimeoutError::Timeout) => Next::Due,
            Err(RecvTimeoutError::Disconnected) => Next::Gone,
        }
    }

    /// Writes what is in the lanes, one after the other; whether all of it was written.
    fn collect(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut all = true;
        for lane in &shared.lanes {
            all &= self.empty(lane);
        }
        all
    }

    fn empty(&mut self, lane: &Lane) -> bool {
        let mut text = lane.text();
        if text.bytes.is_empty() {
            return true;
        }
        let mut bytes = mem::replace(&mut text.bytes, mem::take(&mut self.spare));
        let lines = mem::take(&mut text.lines);
        drop(text);
        let result = self.target.write(&bytes);
        let failed = result.as_ref().err().map_or(0, |fault| fault.lines.min(lines));
        self.shared.written.fetch_add(lines - failed, Ordering::Relaxed);
        if let Err(fault) = &result {
            self.shared.failed.fetch_add(failed, Ordering::Relaxed);
            self.shared.warn(&fault.error.to_string());
        }
        bytes.clear();
        if bytes.capacity() <= KEEP {
            self.spare = bytes;
        }
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn put(spool: &Spool, lane: usize, line: &str) {
        spool.line(lane, |out, _| out.extend_from_slice(line.as_bytes()));
    }

    fn file_spool(path: &std::path::Path, lanes: usize) -> Spool {
        Spool::start(lanes, Target::file(path).unwrap(), Duration::from_millis(20), true).unwrap()
    }

    #[test]
    fn a_flush_writes_every_lane_in_the_order_of_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let spool = file_spool(&path, 2);
        for i in 0..1_000 {
            put(&spool, i % 2, &format!("{} {i}\n", i % 2));
        }
        assert!(spool.flush(PATIENCE));
        let text = fs::read_to_string(&path).unwrap();
        for lane in ["0 ", "1 "] {
            let numbers: Vec<usize> =
                text.lines().filter_map(|l| l.strip_prefix(lane)?.parse().ok()).collect();
            assert_eq!(numbers.len(), 500);
            assert!(numbers.is_sorted());
        }
        assert_eq!(spool.tally(), Tally { written: 1_000, dropped: 0, failed: 0 });
    }

    #[test]
    fn a_line_is_written_without_anybody_asking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let spool = file_spool(&path, 1);
        put(&spool, 0, "hello\n");
        let deadline = clock::now() + PATIENCE;
        while fs::read(&path).unwrap().is_empty() {
            assert!(clock::now() < deadline, "never written");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_writer_wakes_for_a_line_whenever_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let gather = Duration::from_millis(1);
        let target = Target::file(&folder.path().join("access.log")).unwrap();
        let spool = Spool::start(2, target, gather, true).unwrap();
        // Pauses from none to several times `gather`: the writer is about to sleep, asleep, or at work.
        for i in 0..400_usize {
            put(&spool, i % 2, "line\n");
            let deadline = clock::now() + PATIENCE;
            while spool.tally().written <= i as u64 {
                assert!(clock::now() < deadline, "line {i} was never written");
                thread::yield_now();
            }
            thread::sleep(Duration::from_micros((i as u64 * 97) % 2_500));
        }
    }

    #[test]
    fn dropping_the_spool_still_writes_what_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let spool = Spool::start(1, Target::file(&path).unwrap(), PATIENCE, true).unwrap();
        put(&spool, 0, "last words\n");
        drop(spool);
        let deadline = clock::now() + PATIENCE;
        while fs::read(&path).unwrap() != b"last words\n" {
            assert!(clock::now() < deadline, "never written");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn rotation_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let spool = Arc::new(file_spool(&path, 2));
        let writers: Vec<_> = (0..2)
            .map(|lane| {
                let spool = Arc::clone(&spool);
                thread::spawn(move || (0..20_000).for_each(|i| put(&spool, lane, &format!("{lane} {i}\n"))))
            })
            .collect();
        fs::rename(&path, &old).unwrap();
        spool.reopen(PATIENCE).unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(spool.flush(PATIENCE));
        let (before, after) = (fs::read_to_string(&old).unwrap(), fs::read_to_string(&path).unwrap());
        assert_eq!(before.lines().count() + after.lines().count(), 40_000);
        put(&spool, 0, "new\n");
        assert!(spool.flush(PATIENCE));
        assert!(fs::read_to_string(&path).unwrap().ends_with("new\n"), "the new file is in use");
        assert_eq!(fs::read_to_string(&old).unwrap(), before, "the old one is left alone");
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/access.log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let spool = file_spool(&path, 1);
        let moved = folder.path().join("moved");
        fs::rename(path.parent().unwrap(), &moved).unwrap();
        assert!(spool.reopen(PATIENCE).is_err());
        put(&spool, 0, "still here\n");
        assert!(spool.flush(PATIENCE));
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "still here\n");
    }

    #[test]
    fn a_reader_that_is_stuck_delays_nobody_and_drops_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Opened for both, so that opening does not wait for the other side.
        let mut reader = fs::File::options().read(true).write(true).open(&path).unwrap();
        let spool = Arc::new(file_spool(&path, 1));
        let line = format!("{}\n", "x".repeat(1_023));
        let lines = 2 * CAP as u64 / 1_024;
        let slowest = (0..lines)
            .map(|_| {
                let start = clock::now();
                put(&spool, 0, &line);
                start.elapsed()
            })
            .max()
            .unwrap();
        assert!(slowest < Duration::from_secs(1), "a line took {slowest:?}");
        let dropped = spool.tally().dropped;
        assert!(dropped > 0, "nothing was dropped");
        assert!(!spool.flush(Duration::from_millis(50)), "the reader is stuck");
        // The reader comes back: everything accepted arrives, whole.
        let accepted = usize::try_from(lines - dropped).unwrap();
        let mut text = vec![0; accepted * line.len()];
        reader.read_exact(&mut text).unwrap();
        assert!(text.chunks(line.len()).all(|chunk| chunk == line.as_bytes()));
        assert!(spool.flush(PATIENCE));
        assert_eq!(spool.tally(), Tally { written: accepted as u64, dropped, failed: 0 });
    }

    #[test]
    fn a_full_disk_is_counted_and_the_file_heals() {
        let spool = file_spool(std::path::Path::new("/dev/full"), 1);
        put(&spool, 0, "one\n");
        put(&spool, 0, "two\n");
        assert!(!spool.flush(PATIENCE));
        assert_eq!(spool.tally(), Tally { written: 0, dropped: 0, failed: 2 });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        spool.turn_to(Target::file(&path).unwrap(), PATIENCE);
        put(&spool, 0, "three\n");
        assert!(spool.flush(PATIENCE));
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }
}
