//! How many requests an origin may have at once without having answered, and who is next.
//!
//! A place is held from the moment a request is to be sent to the head of its answer, so that long downloads, event
//! streams and tunnels hold none. Whoever finds none waits, for a limited time: an Apache with 150 workers makes
//! requests wait in its socket's queue in any case, where nobody can tell whose they are. Here the client that has the
//! fewest places is next, one client never holds more than half of them, and when too many wait the client with most
//! loses one. So a client that floods a slow page waits for itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::timeout;

use super::Mark;
use super::sketch::Sketch;

/// Counters per row: few clients are with one origin at once.
const WIDTH: usize = 256;

/// So many requests may wait.
const QUEUE: usize = 1000;

/// The places with one origin.
#[derive(Debug)]
pub struct Gate {
    places: usize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    /// Places by client.
    held: Sketch<WIDTH>,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    gate: Arc<Gate>,
    client: Mark,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// None was free in time.
    Waited,
    /// Too many wait already, and this client has most of them.
    Crowded,
}

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    client: Mark,
    state: AtomicU8,
    waker: AtomicWaker,
}

const WAITS: u8 = 0;
const CALLED: u8 = 1;
const SENT_AWAY: u8 = 2;
const GONE: u8 = 3;

impl Gate {
    /// A gate with so many places.
    #[must_use]
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: places.max(1),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            held: Sketch::default(),
            queue: Mutex::default(),
        })
    }

    /// Takes a place for a request of `client`, or waits for one for up to `patience`. Cancelling it by dropping the
    /// future gives everything back.
    ///
    /// # Errors
    /// When no place was free in time, or too many wait.
    pub async fn enter(self: &Arc<Self>, client: Mark, patience: Duration) -> Result<Turn, Full> {
        if let Some(turn) = self.enter_now(client) {
            return Ok(turn);
        }
        let line = self.stand_in_line(client);
        // Places may have become free before the line was seen.
        self.call();
        match timeout(patience, line.called()).await {
            Ok(true) => Ok(line.turn()),
            Ok(false) => Err(Full::Crowded),
            Err(_) => line.give_up().ok_or(Full::Waited),
        }
    }

    /// Takes a place, if one is free and nobody waits for it.
    #[must_use]
    pub fn enter_now(self: &Arc<Self>, client: Mark) -> Option<Turn> {
        if self.waiting.load(SeqCst) == 0 { self.try_enter(client) } else { None }
    }

    /// How many hold a place, and how many wait.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        (self.taken.load(SeqCst), self.waiting.load(SeqCst))
    }

    fn try_enter(self: &Arc<Self>, client: Mark) -> Option<Turn> {
        self.take(client).then(|| Turn { gate: Arc::clone(self), client })
    }

    /// Takes a place if one is free, and the client has fewer than half of them.
    fn take(&self, client: Mark) -> bool {
        let grown = |taken: usize| (taken < self.places).then_some(taken + 1);
        if !self.has_share(client) || self.taken.fetch_update(SeqCst, SeqCst, grown).is_err() {
            return false;
        }
        self.held.add(client.0);
        true
    }

    fn has_share(&self, client: Mark) -> bool {
        (self.held.get(client.0) as usize) < self.places.div_ceil(2)
    }

    fn stand_in_line(self: &Arc<Self>, client: Mark) -> Line {
        let waiter = Arc::new(Waiter { client, state: AtomicU8::new(WAITS), waker: AtomicWaker::new() });
        let mut queue = self.lock();
        queue.push_back(Arc::clone(&waiter));
        self.waiting.store(queue.len(), SeqCst);
        let crowded = queue.len() > QUEUE;
        let last = if crowded { self.most_greedy(&queue).and_then(|at| queue.remove(at)) } else { None };
        if let Some(last) = last {
            self.waiting.store(queue.len(), SeqCst);
            last.tell(SENT_AWAY);
        }
        drop(queue);
        Line { gate: Arc::clone(self), waiter }
    }

    /// The last one to come of the client that waits most often.
    fn most_greedy(&self, queue: &VecDeque<Arc<Waiter>>) -> Option<usize> {
        let counts = Sketch::<WIDTH>::default();
        for waiter in queue {
            counts.add(waiter.client.0);
        }
        let greed = |waiter: &Waiter| counts.get(waiter.client.0) + self.held.get(waiter.client.0);
        let last = queue.iter().enumerate().max_by_key(|(at, waiter)| (greed(waiter), *at));
        last.map(|(at, _)| at)
    }

    /// Gives free places to those who wait.
    fn call(&self) {
        while self.waiting.load(SeqCst) > 0 && self.taken.load(SeqCst) < self.places {
            let mut queue = self.lock();
            let least = |(at, waiter): &(usize, &Arc<Waiter>)| (self.held.get(waiter.client.0), *at);
            let next = queue
                .iter()
                .enumerate()
                .filter(|(_, waiter)| self.has_share(waiter.client))
                .min_by_key(least);
            let Some((at, client)) = next.map(|(at, waiter)| (at, waiter.client)) else { return };
            if !self.take(client) {
                return;
            }
            let called = queue.remove(at).is_some_and(|waiter| waiter.tell(CALLED));
            self.waiting.store(queue.len(), SeqCst);
            if !called {
                self.leave(client);
            }
        }
    }

    /// Gives a place back, without calling the next.
    fn leave(&self, client: Mark) {
        self.held.subtract(client.0);
        self.taken.fetch_sub(1, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Tells it, unless it is gone.
    fn tell(&self, what: u8) -> bool {
        let told = self.state.compare_exchange(WAITS, what, SeqCst, SeqCst).is_ok();
        self.waker.wake();
        told
    }
}

/// A stand in the line; leaving it, or a place that was offered and not taken, is seen to when it is dropped.
struct Line {
    gate: Arc<Gate>,
    waiter: Arc<Waiter>,
}

impl Line {
    /// Waits to be called; false if sent away.
    async fn called(&self) -> bool {
        poll_fn(|cx| {
            self.waiter.waker.register(cx.waker());
            match self.waiter.state.load(SeqCst) {
                CALLED => Poll::Ready(true),
                SENT_AWAY => Poll::Ready(false),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// The place that came with the call.
    fn turn(self) -> Turn {
        self.waiter.state.store(GONE, SeqCst);
        Turn { gate: Arc::clone(&self.gate), client: self.waiter.client }
    }

    /// Patience is at its end; a call that came at the same moment counts.
    fn give_up(self) -> Option<Turn> {
        (self.waiter.state.load(SeqCst) == CALLED).then(|| self.turn())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        match self.waiter.state.swap(GONE, SeqCst) {
            // Called, and gone at the same moment: the place is for somebody else.
            CALLED => drop(Turn { gate: Arc::clone(&self.gate), client: self.waiter.client }),
            WAITS => {
                let mut queue = self.gate.lock();
                queue.retain(|other| !Arc::ptr_eq(other, &self.waiter));
                self.gate.waiting.store(queue.len(), SeqCst);
            }
            _ => {}
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.gate.leave(self.client);
        self.gate.call();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    type Waiting = std::pin::Pin<Box<dyn Future<Output = Result<Turn, Full>>>>;

    fn poll(waiting: &mut Waiting) -> Option<Result<Turn, Full>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    fn ask(gate: &Arc<Gate>, client: Mark) -> Waiting {
        let gate = Arc::clone(gate);
        let mut waiting: Waiting = Box::pin(async move { gate.enter(client, LONG).await });
        assert!(poll(&mut waiting).is_none(), "there is no place");
        waiting
    }

    async fn taken(gate: &Arc<Gate>, client: Mark, count: usize) -> Vec<Turn> {
        let mut turns = Vec::new();
        for _ in 0..count {
            turns.push(gate.enter(client, Duration::ZERO).await.unwrap());
        }
        turns
    }

    #[tokio::test]
    async fn one_client_never_holds_more_than_half() {
        let (gate, greedy, other) = (Gate::new(8), Mark::of(1), Mark::of(2));
        let _held = taken(&gate, greedy, 4).await;
        assert_eq!(gate.enter(greedy, Duration::from_millis(5)).await.unwrap_err(), Full::Waited);
        assert_eq!(gate.load(), (4, 0), "who gave up left the line");
        let _others = taken(&gate, other, 4).await;
        assert_eq!(gate.load(), (8, 0));
    }

    #[tokio::test]
    async fn whoever_has_fewest_is_next() {
        let (gate, greedy, other, third) = (Gate::new(4), Mark::of(1), Mark::of(2), Mark::of(3));
        let mut held = taken(&gate, greedy, 2).await;
        let others = taken(&gate, other, 2).await;
        let mut first = ask(&gate, other);
        let mut last = ask(&gate, third);
        held.pop();
        assert!(poll(&mut first).is_none());
        let turn = poll(&mut last).unwrap().unwrap();
        drop((turn, others));
        assert!(poll(&mut first).unwrap().is_ok());
        assert_eq!(gate.load(), (1, 0));
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_not_served_past_by_newcomers() {
        let (gate, one, two, late) = (Gate::new(2), Mark::of(1), Mark::of(2), Mark::of(3));
        let _one = taken(&gate, one, 1).await;
        let mut two_held = taken(&gate, two, 1).await;
        let mut waits = ask(&gate, Mark::of(9));
        two_held.pop();
        assert_eq!(gate.load(), (2, 0), "the place goes straight to who waits");
        assert_eq!(gate.enter(late, Duration::ZERO).await.unwrap_err(), Full::Waited);
        assert!(poll(&mut waits).unwrap().is_ok());
    }

    #[tokio::test]
    async fn when_too_many_wait_the_greediest_is_sent_away() {
        let (gate, greedy, other) = (Gate::new(2), Mark::of(1), Mark::of(2));
        let _greedy = taken(&gate, greedy, 1).await;
        let _other = taken(&gate, other, 1).await;
        let mut line: Vec<Waiting> = (0..QUEUE).map(|_| ask(&gate, greedy)).collect();
        let mut modest = ask(&gate, Mark::of(3));
        assert_eq!(poll(line.last_mut().unwrap()).unwrap().unwrap_err(), Full::Crowded);
        assert!(poll(&mut modest).is_none(), "who came last and is modest stays");
        assert!(line.iter_mut().take(QUEUE - 1).all(|waiting| poll(waiting).is_none()));
    }

    #[tokio::test]
    async fn a_place_that_was_offered_to_someone_who_left_is_not_lost() {
        let gate = Gate::new(1);
        let mut held = taken(&gate, Mark::of(1), 1).await;
        let leaves = ask(&gate, Mark::of(2));
        let mut stays = ask(&gate, Mark::of(3));
        held.pop();
        drop(leaves);
        assert!(poll(&mut stays).unwrap().is_ok());
        assert_eq!(gate.load(), (0, 0));
    }

    proptest! {
        /// Whatever happens in whatever order: never more than there are places, and all of them come back.
        #[test]
        fn places_are_neither_made_nor_lost(steps in prop::collection::vec((0..4_u8, 0..4_usize, any::<prop::sample::Index>()), 0..80)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _inside = runtime.enter();
            let gate = Gate::new(3);
            let clients: Vec<Mark> = (0..4).map(Mark::of).collect();
            let (mut waiting, mut held): (Vec<Waiting>, Vec<Turn>) = (Vec::new(), Vec::new());
            for (step, client, index) in steps {
                match step {
                    0 | 1 => {
                        let (gate, client) = (Arc::clone(&gate), clients[client]);
                        waiting.push(Box::pin(async move { gate.enter(client, LONG).await }));
                    }
                    2 if !held.is_empty() => drop(held.remove(index.index(held.len()))),
                    3 if !waiting.is_empty() => drop(waiting.remove(index.index(waiting.len()))),
                    _ => {}
                }
                waiting.retain_mut(|one| match poll(one) {
                    Some(done) => {
                        held.extend(done);
                        false
                    }
                    None => true,
                });
                prop_assert!(held.len() <= 3);
                prop_assert!(gate.load().0 <= 3);
            }
            drop((waiting, held));
            prop_assert_eq!(gate.load(), (0, 0));
            let again = pin!(gate.enter(Mark::of(9), LONG)).poll(&mut Context::from_waker(Waker::noop()));
            prop_assert!(again.is_ready());
        }
    }
}
