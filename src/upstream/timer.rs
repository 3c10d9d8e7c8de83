//! A deadline that may be pushed back often and is rarely reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::clock;

/// Due a while after it was last pushed back, or when it was last set to. Either costs one store; the runtime's
/// timer is only moved when it fires too early, or would fire too late.
#[derive(Debug)]
pub(super) struct Timer {
    due: Instant,
    /// Made when something is waited for, and not before.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Due in `wait` from now.
    #[must_use]
    pub(super) fn after(wait: Duration) -> Self {
        Self::at(clock::now() + wait)
    }

    /// Due then.
    #[must_use]
    pub(super) fn at(due: Instant) -> Self {
        Self { due, sleep: None }
    }

    /// Due then, whatever was said before.
    pub(super) fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// Due then, if that is later; whether it is.
    pub(super) fn later(&mut self, due: Instant) -> bool {
        let later = due > self.due;
        if later {
            self.due = due;
        }
        later
    }

    /// Due in `wait` from now, and not before.
    pub(super) fn push(&mut self, wait: Duration) {
        self.due = clock::now() + wait;
    }

    /// Ready when it is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = tokio::time::Instant::from_std(self.due);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if sleep.deadline() > due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}
