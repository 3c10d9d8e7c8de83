//! Going down in order: who is still here, and how far the shutdown has come.
//!
//! One [`Drain`] is held by the server and moves the phase forward. Accept loops and connections hold
//! a [`DrainWatch`] and react; each connection holds a [`Live`] for as long as its socket is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// How far the shutdown has come. It only ever moves downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    #[default]
    Running,
    /// Still serving, but not ready for more: load balancers are to look elsewhere.
    Draining,
    /// No new connection; open ones finish what they are doing and end.
    Closing,
    /// Whatever is still open is dropped.
    Killed,
}

/// The server's end: the only one that can move the phase.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    crowd: Arc<Crowd>,
}

/// The other end: says the phase, waits for one, and registers connections.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    phase: watch::Receiver<Phase>,
    crowd: Arc<Crowd>,
}

/// One open connection; dropped when it ends.
#[derive(Debug)]
pub struct Live {
    crowd: Arc<Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    count: AtomicUsize,
    gone: Notify,
    /// Whether another process has the listening sockets too, and takes what comes.
    handed_over: AtomicBool,
}

impl Drain {
    /// A server that is running.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Running), crowd: Arc::default() }
    }

    /// A handle for an accept loop or a connection.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch { phase: self.phase.subscribe(), crowd: Arc::clone(&self.crowd) }
    }

    /// Moves to `phase`. A step back is no step: a second signal cannot undo the first.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Begins to drain while another process takes the connections that come: nobody is accepted here any more.
    pub fn hand_over(&self) {
        self.crowd.handed_over.store(true, Ordering::Release);
        self.advance(Phase::Draining);
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The number of open connections.
    #[must_use]
    pub fn live(&self) -> usize {
        self.crowd.count.load(Ordering::Acquire)
    }

    /// Waits until no connection is open. Meaningful once accept loops have stopped.
    pub async fn empty(&self) {
        loop {
            let gone = self.crowd.gone.notified();
            tokio::pin!(gone);
            // Registered before the count is read, so that the last one cannot slip by in between.
            gone.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            gone.await;
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainWatch {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the phase is `phase` or further. A server that is gone counts as further.
    #[must_use]
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.phase.has_changed().is_err() || self.phase() >= phase
    }

    /// Waits until the phase is `phase` or further. A server that is gone counts as further.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the `Drain` was dropped: nobody is left to wait for.
        let _ = self.phase.wait_for(|now| *now >= phase).await;
    }

    /// Waits until nobody is to be accepted any more.
    pub async fn shuts(&mut self) {
        let Self { phase, crowd } = self;
        let shuts = |now: &Phase| match now {
            Phase::Running => false,
            Phase::Draining => crowd.handed_over.load(Ordering::Acquire),
            Phase::Closing | Phase::Killed => true,
        };
        let _ = phase.wait_for(shuts).await;
    }

    /// Waits until another process has taken over; for ever, if none does.
    pub async fn handed_over(&mut self) {
        let Self { phase, crowd } = self;
        let taken = phase.wait_for(|now| *now > Phase::Running && crowd.handed_over.load(Ordering::Acquire));
        if taken.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts one open connection until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Live {
        self.crowd.count.fetch_add(1, Ordering::AcqRel);
        Live { crowd: Arc::clone(&self.crowd) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.crowd.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.crowd.gone.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_phase_never_goes_back() {
        let drain = Drain::new();
        drain.advance(Phase::Closing);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Closing);
        assert_eq!(drain.watch().phase(), Phase::Closing);
    }

    #[tokio::test]
    async fn a_watch_wakes_at_its_phase_and_not_before() {
        let drain = Drain::new();
        let mut watch = drain.watch();
        let waiter = tokio::spawn(async move { watch.reached(Phase::Closing).await });
        drain.advance(Phase::Draining);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiter.is_finished());
        drain.advance(Phase::Closing);
        tokio::time::timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_door_shuts_when_it_closes_and_at_once_when_it_is_handed_over() {
        for (handed_over, shuts) in [(true, true), (false, false)] {
            let drain = Drain::new();
            let mut watch = drain.watch();
            if handed_over {
                drain.hand_over();
            } else {
                drain.advance(Phase::Draining);
            }
            let shut = tokio::time::timeout(Duration::from_millis(20), watch.shuts()).await;
            assert_eq!(shut.is_ok(), shuts);
            drain.advance(Phase::Closing);
            tokio::time::timeout(Duration::from_secs(1), watch.shuts()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_dropped_server_lets_everybody_go() {
        let mut watch = Drain::new().watch();
        tokio::time::timeout(Duration::from_secs(1), watch.reached(Phase::Killed)).await.unwrap();
    }

    #[tokio::test]
    async fn empty_waits_for_the_last() {
        let drain = Drain::new();
        let (first, second) = (drain.watch().enter(), drain.watch().enter());
        assert_eq!(drain.live(), 2);
        let leave = tokio::spawn(async move {
            drop(first);
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(second);
        });
        tokio::time::timeout(Duration::from_secs(1), drain.empty()).await.unwrap();
        assert_eq!(drain.live(), 0);
        leave.await.unwrap();
    }
}
