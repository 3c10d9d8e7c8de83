//! Answers that are late on purpose: a bounded number of banned clients waits, the others hear at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::sleep;

/// How many are held now.
#[derive(Debug, Default)]
pub struct Tarpit {
    held: AtomicUsize,
}

/// A place in the tarpit, given back when it is dropped: also if the client hangs up.
struct Held<'a>(&'a Tarpit);

impl Tarpit {
    /// Waits for `time`, unless `most` wait already. Says whether it did.
    pub async fn hold(&self, (most, time): (usize, Duration)) -> bool {
        let held = Held(self);
        if self.held.fetch_add(1, Relaxed) >= most {
            return false;
        }
        sleep(time).await;
        drop(held);
        true
    }

    /// How many are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_many_are_held_as_allowed_and_who_hangs_up_makes_room() {
        let tarpit = Tarpit::default();
        let terms = (2, Duration::from_secs(10));
        let mut first = Box::pin(tarpit.hold(terms));
        let second = Box::pin(tarpit.hold(terms));
        tokio::select! { biased; _ = &mut first => {}, () = sleep(Duration::from_secs(1)) => {} }
        assert_eq!(tarpit.held(), 1);
        let third = tarpit.hold(terms);
        let (second, third) = tokio::join!(second, third);
        assert!(second != third, "one of them finds the tarpit full");
        assert!(first.await);
        assert_eq!(tarpit.held(), 0);
        drop(Box::pin(tarpit.hold(terms)));
        assert_eq!(tarpit.held(), 0);
    }
}
