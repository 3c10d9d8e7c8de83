//! A simulated client: what it sends and when, what it does wrong, and how it listens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::ask::{Ask, BROKEN};
use super::hear::hear;
use crate::tests::Trace;
use crate::tests::dice::Dice;
use crate::tests::pipe::{End, Notes};

/// What a client will do.
pub(super) struct Plan {
    pub(super) asks: Vec<Arc<Ask>>,
    steps: Vec<Step>,
    pace: Pace,
    /// What is allowed to go wrong, and with which request.
    pub(super) excuses: Excuses,
}

/// What a client does that the server need not bear.
#[derive(Debug, Default)]
pub(super) struct Excuses {
    /// It went away, or stopped to listen: anything may be missing.
    pub(super) leaves: bool,
    /// This head takes too long, or never ends.
    pub(super) slow_head: Option<usize>,
    /// This body takes too long, or never ends.
    pub(super) slow_body: Option<usize>,
    /// Before this request the connection is idle for too long.
    pub(super) idle_before: Option<usize>,
    /// Behind the requests comes what is none.
    pub(super) is_broken: bool,
}

#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits to be asked for the body of this request; not for ever.
    AwaitContinue(usize),
    /// Waits for so many whole answers.
    AwaitAnswers(usize),
    HalfClose,
    Reset,
    Leave,
}

/// How a client listens.
struct Pace {
    most: usize,
    pause: Duration,
    stops_after: Option<usize>,
    dice: Dice,
}

/// What a client has heard.
#[derive(Default)]
pub(super) struct Ears {
    pub(super) bytes: Vec<u8>,
    /// How it ended: in order, or broken.
    pub(super) ended: Option<bool>,
}

/// Where in a request something happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Between,
    Head,
    Body,
}

impl Plan {
    pub(super) fn throw(name: &str, has_origin: bool, dice: &mut Dice) -> Self {
        let count = dice.within(1..=8);
        let asks: Vec<_> = (0..count)
            .map(|number| Arc::new(Ask::throw(format!("{name}-{number}"), has_origin, dice)))
            .collect();
        let mut excuses = Excuses::default();
        let (mut steps, mut places) = (Vec::new(), Vec::new());
        let mut add = |step, place| {
            steps.push(step);
            places.push(place);
        };
        let lockstep = dice.once_in(3);
        for (number, ask) in asks.iter().enumerate() {
            if number > 0 && (lockstep || dice.once_in(4)) {
                add(Step::AwaitAnswers(number), (number, Part::Between));
            }
            if dice.once_in(4) {
                add(Step::Pause(dice.millis(1..=2500)), (number, Part::Between));
            }
            for piece in dice.cut(&ask.head_bytes) {
                add(Step::Send(piece), (number, Part::Head));
                if dice.once_in(10) {
                    add(Step::Pause(dice.millis(1..=40)), (number, Part::Head));
                }
            }
            if ask.waits {
                add(Step::AwaitContinue(number), (number, Part::Body));
            }
            for piece in dice.cut(&ask.body_bytes) {
                if dice.once_in(10) {
                    add(Step::Pause(dice.millis(1..=40)), (number, Part::Body));
                }
                add(Step::Send(piece), (number, Part::Body));
            }
        }
        if dice.once_in(8) {
            excuses.is_broken = true;
            for piece in dice.cut(dice.clone().pick(BROKEN).as_bytes()) {
                add(Step::Send(piece), (count, Part::Between));
            }
            // Whatever follows must not be seen by anybody.
            add(
                Step::Send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX-Mark: smuggled\r\n\r\n".to_vec()),
                (count, Part::Between),
            );
        }
        let mut pace = Pace {
            most: *dice.pick(&[1 << 20, 1 << 20, 5000, 300]),
            pause: if dice.once_in(5) { dice.millis(1..=200) } else { Duration::ZERO },
            stops_after: None,
            dice: dice.fork(),
        };
        if dice.once_in(2) {
            misbehave(&mut steps, &places, &mut excuses, &mut pace, dice);
        } else {
            steps.push(Step::AwaitAnswers(count + usize::from(excuses.is_broken)));
            steps.extend((!dice.once_in(4)).then_some(Step::Leave));
        }
        Self { asks, steps, pace, excuses }
    }

    pub(super) fn describe(&self) -> String {
        let asks = self.asks.iter().map(|ask| {
            format!(
                "\n    {} {} 1.{} keeps={} expects={} waits={} body={} chunked={} broken={} {}",
                ask.mark,
                ask.method,
                u8::from(!ask.is_old),
                ask.keeps,
                ask.expects,
                ask.waits,
                ask.body.len(),
                ask.is_chunked,
                ask.is_broken,
                ask.deed.as_ref().map_or_else(|| format!("{:?}", ask.lesson), |deed| format!("{deed:?}"))
            )
        });
        format!("{:?}{}", self.excuses, asks.collect::<String>())
    }
}

/// One thing that goes wrong, somewhere.
fn misbehave(
    steps: &mut Vec<Step>,
    places: &[(usize, Part)],
    excuses: &mut Excuses,
    pace: &mut Pace,
    dice: &mut Dice,
) {
    let at = dice.within(0..=steps.len() - 1);
    let (number, part) = places[at];
    let what = dice.within(0..=7);
    if what == 0 {
        excuses.leaves = true;
        pace.stops_after = Some(dice.size(50_000));
        return;
    }
    // In the middle of a piece as well as between two.
    if let Step::Send(piece) = &mut steps[at] {
        let cut = dice.within(0..=piece.len() - 1);
        let rest = piece.split_off(cut);
        if what >= 5 {
            steps.insert(at + 1, Step::Send(rest));
        }
    }
    if what < 5 {
        // This is the last that it does.
        steps.truncate(at + 1);
    }
    let stall = match what {
        1 | 2 => {
            excuses.leaves = true;
            return steps.push(Step::Leave);
        }
        3 => {
            excuses.leaves = true;
            return steps.push(Step::Reset);
        }
        4 if dice.once_in(3) => {
            excuses.leaves = true;
            return steps.push(Step::HalfClose);
        }
        // Says nothing any more, and listens.
        4 => None,
        5 => Some(dice.millis(100..=6000)),
        _ => Some(dice.millis(9000..=100_000)),
    };
    if stall.is_none_or(|time| time >= Duration::from_secs(9)) {
        match part {
            Part::Head => excuses.slow_head = Some(number),
            Part::Body => excuses.slow_body = Some(number),
            Part::Between => {}
        }
        // A stall at the edge of two parts belongs to either.
        excuses.slow_head.get_or_insert(number);
        excuses.slow_body.get_or_insert(number);
        excuses.idle_before = Some(number);
        if part == Part::Body {
            excuses.slow_head = Some(number + 1);
            excuses.idle_before = Some(number + 1);
        }
    }
    match stall {
        Some(time) => steps.insert(at + 1, Step::Pause(time)),
        None => steps.truncate(at + 1),
    }
    steps.push(Step::Pause(Duration::from_secs(200)));
}

/// Plays `plan` over `end` until it leaves or the server has closed.
pub(super) async fn play(name: String, plan: Plan, end: End, ears: Arc<Mutex<Ears>>, trace: Trace) {
    let notes = end.notes();
    let (read, write) = tokio::io::split(end);
    let fresh = Notify::new();
    let Plan { asks, steps, pace, .. } = plan;
    tokio::select! {
        biased;
        () = listen(&name, pace, read, &ears, &fresh, &trace) => {}
        () = talk(&name, steps, &asks, write, &notes, &ears, &fresh, &trace) => {}
    }
    trace.note(format_args!("{name} leaves"));
}

async fn listen(
    name: &str,
    mut pace: Pace,
    mut read: ReadHalf<End>,
    ears: &Mutex<Ears>,
    fresh: &Notify,
    trace: &Trace,
) {
    let mut space = vec![0; 64 * 1024];
    loop {
        if pace.stops_after.is_some_and(|most| ears.lock().unwrap().bytes.len() >= most) {
            trace.note(format_args!("{name} listens no more"));
            return std::future::pending::<()>().await;
        }
        let most = pace.dice.within(1..=pace.most).min(space.len());
        let heard = read.read(&mut space[..most]).await;
        match &heard {
            Ok(count) if *count > 0 => trace.flow(format_args!("{name} hears"), *count),
            end => trace.note(format_args!("{name} hears the end: {end:?}")),
        }
        {
            let mut ears = ears.lock().unwrap();
            match heard {
                Ok(count) if count > 0 => ears.bytes.extend_from_slice(&space[..count]),
                other => ears.ended = Some(other.is_ok()),
            }
        }
        fresh.notify_waiters();
        if ears.lock().unwrap().ended.is_some() {
            return;
        }
        if !pace.pause.is_zero() {
            sleep(pace.pause).await;
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the whole client")]
async fn talk(
    name: &str,
    steps: Vec<Step>,
    asks: &[Arc<Ask>],
    mut write: WriteHalf<End>,
    notes: &Notes,
    ears: &Mutex<Ears>,
    fresh: &Notify,
    trace: &Trace,
) {
    let is_head = |number: usize| asks.get(number).is_some_and(|ask| ask.is_head());
    let speech = || hear(&ears.lock().unwrap().bytes, is_head, false).unwrap_or_default();
    for step in steps {
        match step {
            Step::Send(bytes) => {
                trace.flow(format_args!("{name} sends"), bytes.len());
                if write.write_all(&bytes).await.is_err() {
                    trace.note(format_args!("{name} cannot send"));
                    break;
                }
            }
            Step::Pause(time) => sleep(time).await,
            Step::AwaitContinue(number) => {
                let asked = || {
                    let speech = speech();
                    let is_next = speech.answers.len() == number && speech.interims > 0;
                    is_next || speech.answers.len() > number
                };
                let _ = timeout(Duration::from_secs(2), until(fresh, asked)).await;
            }
            Step::AwaitAnswers(count) => {
                let whole = || speech().answers.iter().filter(|heard| heard.is_whole).count() >= count;
                until(fresh, whole).await;
            }
            Step::HalfClose => {
                trace.note(format_args!("{name} says that it has said all"));
                let _ = write.shutdown().await;
            }
            Step::Reset => {
                trace.note(format_args!("{name} resets"));
                notes.reset();
            }
            Step::Leave => return,
        }
    }
    // Until the server closes.
    std::future::pending::<()>().await;
}

async fn until(fresh: &Notify, reached: impl Fn() -> bool) {
    loop {
        let notified = fresh.notified();
        if reached() {
            return;
        }
        notified.await;
    }
}
