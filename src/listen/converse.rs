//! Driving a connection of either protocol to its end: the deadline that follows from its pulse, the
//! farewell when the server goes down, and the end when it must.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::{Sleep, sleep};

use super::limits;
use super::pulse::Pulse;
use super::tally::Event;
use crate::clock;
use crate::drain::{DrainWatch, Phase};

/// A connection of one protocol version.
pub(super) trait Conversation {
    /// Why it broke off.
    type Error;

    /// Drives it as far as it goes now.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Lets it finish what it has begun, and then end. It is polled on after this.
    fn part(&mut self);
}

/// How a conversation ended.
#[derive(Debug)]
pub(super) enum Outcome<E> {
    /// By itself.
    Done(Result<(), E>),
    /// A deadline passed; the connection is as it was, and is to be dropped.
    Expired(Option<Event>),
    /// The server's grace is over.
    Killed,
}

/// Drives `conversation` until it ends, a deadline of `pulse` passes, or the server is killed. When the
/// server closes, the client has had its share of requests or has been idle for long, it is told to
/// part first. `on_event` hears of idle and fickle clients.
pub(super) async fn drive<C: Conversation>(
    conversation: &mut C,
    pulse: &Pulse,
    limits: &limits::Policy,
    drain: &DrainWatch,
    on_event: impl Fn(Event),
) -> Outcome<C::Error> {
    let mut phase = pin!(reached(drain.clone(), Phase::Closing));
    let mut alarm = Alarm { sleep: pin!(sleep(limits.header_read)), is_set: false };
    let mut next = Phase::Closing;
    let mut is_awaited = false;
    let mut parting: Option<Instant> = None;
    poll_fn(|cx| {
        loop {
            // While nothing moves it need not be polled again once it waits: a task has one waker for life. Each
            // move uses its waker up, also one to a phase that is not the awaited one.
            let is_draining = drain.has_reached(Phase::Draining);
            if is_draining {
                pulse.draining();
            }
            if (!is_awaited || is_draining) && phase.as_mut().poll(cx).is_ready() {
                if next == Phase::Killed {
                    return Poll::Ready(Outcome::Killed);
                }
                next = Phase::Killed;
                is_awaited = false;
                pulse.closing();
                phase.set(reached(drain.clone(), next));
                continue;
            }
            is_awaited = true;
            if is_due(pulse, limits, parting) {
                if pulse.is_fickle() {
                    on_event(Event::TooManyCancelled);
                } else if pulse.is_dismissed() {
                    on_event(Event::MadeRoom);
                }
                parting = Some(clock::now());
                pulse.part();
                conversation.part();
            }
            if let Poll::Ready(result) = conversation.step(cx) {
                return Poll::Ready(Outcome::Done(result));
            }
            pulse.listen(cx);
            if pulse.is_banished() {
                return Poll::Ready(Outcome::Expired(Some(Event::Banned)));
            }
            if pulse.is_judged() {
                return Poll::Ready(Outcome::Expired(Some(Event::Flood)));
            }
            if is_due(pulse, limits, parting) {
                continue;
            }
            let Some(deadline) = pulse.deadline(limits, parting) else { return Poll::Pending };
            match alarm.poll(cx, deadline.at) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if deadline.event == Some(Event::IdleTimeout) => {
                    on_event(Event::IdleTimeout);
                    parting = Some(clock::now());
                    pulse.part();
                    conversation.part();
                }
                Poll::Ready(()) => return Poll::Ready(Outcome::Expired(deadline.event)),
            }
        }
    })
    .await
}

/// One future for one phase after the other: a connection waits for each most of its life.
#[expect(clippy::manual_async_fn, reason = "an async function would hold the watch twice")]
fn reached(mut drain: DrainWatch, phase: Phase) -> impl Future<Output = ()> {
    async move { drain.reached(phase).await }
}

/// Whether it is time to tell the client to part, and no request is lost by it.
fn is_due(pulse: &Pulse, limits: &limits::Policy, parting: Option<Instant>) -> bool {
    parting.is_none() && pulse.must_part(limits) && pulse.may_part()
}

/// One timer for all deadlines of a connection. It is set anew only when a deadline comes before the
/// one it is set to; a deadline that moved back is found when it rings. So a busy connection never
/// touches the timer wheel. Nor is it polled again before it rings: a task has one waker for life.
struct Alarm<'s> {
    sleep: Pin<&'s mut Sleep>,
    /// Whether it wakes the task.
    is_set: bool,
}

impl Alarm<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        loop {
            let is_early = at < self.sleep.deadline().into_std();
            if is_early || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(at.into());
            } else if self.is_set {
                return Poll::Pending;
            }
            self.is_set = true;
            ready!(self.sleep.as_mut().poll(cx));
            if clock::now() >= at {
                return Poll::Ready(());
            }
        }
    }
}
