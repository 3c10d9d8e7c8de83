//! What simulations of several rooms share: dice, a line that misbehaves, and the run over many seeds.
//!
//! Everything runs on one thread, in time that stands still until nobody has anything to do. So one seed
//! is one course of events, to the millisecond, and a failure can be played again.

pub(crate) mod dice;
pub(crate) mod net;
pub(crate) mod pipe;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use crate::clock;

/// Plays `world` with many seeds: `usual` of them, or as many as `RAVELIN_SEEDS` says, or the one that
/// `RAVELIN_SEED` names, with its trace. A seed that fails says how to play it again.
pub(crate) fn play(test: &str, usual: u64, world: impl Fn(u64) -> Trace) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("RAVELIN_SEED") {
        println!("{}", attempt(test, seed, &world).text());
        return;
    }
    for seed in 0..number("RAVELIN_SEEDS").unwrap_or(usual) {
        attempt(test, seed, &world);
    }
}

fn attempt(test: &str, seed: u64, world: impl Fn(u64) -> Trace) -> Trace {
    catch_unwind(AssertUnwindSafe(|| world(seed))).unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed; play it again with\n  RAVELIN_SEED={seed} cargo test --lib {test} -- --nocapture");
        resume_unwind(panic)
    })
}

/// Runs `world` to its end in time that stands still while anybody has something to do.
pub(crate) fn frozen<F: Future>(world: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(world)
}

/// What happened, line by line. Printed when a world ends badly.
#[derive(Clone)]
pub(crate) struct Trace {
    start: std::time::Instant,
    lines: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { start: clock::now(), lines: Arc::default() }
    }

    pub(crate) fn note(&self, line: impl std::fmt::Display) {
        let at = clock::now().duration_since(self.start).as_millis();
        self.lines.lock().unwrap().push((format!("{at:>8} ms  {line}"), 0));
    }

    /// Notes that so many bytes went `line`'s way; many in a row make one line.
    pub(crate) fn flow(&self, line: impl std::fmt::Display, bytes: usize) {
        self.note(line);
        let mut lines = self.lines.lock().unwrap();
        let (last, _) = lines.pop().unwrap();
        match lines.last_mut().filter(|(line, _)| *line == last) {
            Some((_, sum)) => *sum += bytes,
            None => lines.push((last, bytes)),
        }
    }

    pub(crate) fn text(&self) -> String {
        let line = |(line, bytes): &(String, usize)| match bytes {
            0 => line.clone(),
            bytes => format!("{line} {bytes}"),
        };
        self.lines.lock().unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Shows the trace if the thread panics while this lives.
pub(crate) struct Witness(pub(crate) Trace);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.text());
        }
    }
}
