//! Who is asked to go when places are short: every connection, in the order in which they came.
//!
//! The oldest goes first, everywhere. Of those that idle it is the one that nobody came back to for longest; of
//! those that have yet to speak, or are in the middle of a request head, it is the one that has had the most time:
//! an honest client needs milliseconds, so whoever is oldest is most likely one that holds places on purpose. Were
//! the newest sent away instead, holding places would lock everybody out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::pulse::Pulse;

/// As many idle connections are asked to go at once, if a place is short: looking for one takes as long.
const AT_ONCE: usize = 32;

/// After a look that found nobody, none is taken for this long.
const PAUSE: Duration = Duration::from_millis(100);

/// A request head that is being read for longer is a slow one; and whoever has said nothing of use for longer may be
/// called off. Before that it may be us who are slow: a thousand clients that come back at once after a break of
/// the network want to be served, not to be called off for it.
const SLOW: Duration = Duration::from_secs(1);

/// Every connection.
#[derive(Debug, Default)]
pub(super) struct Roll {
    lists: Mutex<Lists>,
    /// Connections that were asked to go and are still here.
    leaving: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lists {
    next: u64,
    /// Those that have yet to say what they want, or to shake hands.
    opening: BTreeMap<u64, Arc<Call>>,
    open: BTreeMap<u64, Arc<Pulse>>,
    /// Until when nobody looks for idle ones.
    pause: Option<Instant>,
}

/// A connection's line in the roll.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    /// None once it speaks HTTP, unless it was called off just before.
    call: Option<Arc<Call>>,
}

/// How a connection is called off while it opens.
#[derive(Debug)]
struct Call {
    since: Instant,
    off: AtomicBool,
    bell: Notify,
}

impl Roll {
    /// Writes a new connection in. If more than `most` are opening, the oldest of them is called off; says whether
    /// one was.
    pub(super) fn begin(&self, most: usize, now: Instant) -> (Line, bool) {
        let call = Arc::new(Call { since: now, off: AtomicBool::new(false), bell: Notify::new() });
        let mut lists = self.lock();
        let number = lists.next;
        lists.next += 1;
        lists.opening.insert(number, Arc::clone(&call));
        let is_crowded = lists.opening.len() > most;
        drop(lists);
        (Line { number, call: Some(call) }, is_crowded && self.call_off(1, now) > 0)
    }

    /// Calls up to `most` of those off that have been opening for longest, and for long; says how many.
    fn call_off(&self, most: usize, now: Instant) -> usize {
        let mut count = 0;
        let mut lists = self.lock();
        while count < most
            && let Some(oldest) = lists.opening.first_entry()
            && now.saturating_duration_since(oldest.get().since) > SLOW
        {
            let oldest = oldest.remove();
            self.leaving.fetch_add(1, Relaxed);
            oldest.off.store(true, Relaxed);
            oldest.bell.notify_one();
            count += 1;
        }
        count
    }

    /// The connection speaks HTTP from now on.
    pub(super) fn open(&self, line: &mut Line, pulse: &Arc<Pulse>) {
        let mut lists = self.lock();
        if lists.opening.remove(&line.number).is_some() {
            line.call = None;
        }
        lists.open.insert(line.number, Arc::clone(pulse));
    }

    /// The connection is gone.
    pub(super) fn strike(&self, line: &Line) {
        let mut lists = self.lock();
        lists.opening.remove(&line.number);
        let pulse = lists.open.remove(&line.number);
        drop(lists);
        if line.call.as_ref().is_some_and(|call| call.off.load(Relaxed))
            || pulse.is_some_and(|pulse| pulse.is_dismissed())
        {
            self.leaving.fetch_sub(1, Relaxed);
        }
    }

    /// Connections that were asked to go and are still here.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.load(Relaxed)
    }

    /// Asks a few of those to go that have been idle for longest, or else opening; says how many.
    pub(super) fn make_room(&self, now: Instant) -> usize {
        if self.lock().pause.is_some_and(|until| now < until) {
            return 0;
        }
        let idle = self.dismiss_idle(AT_ONCE);
        let count = if idle > 0 { idle } else { self.call_off(AT_ONCE, now) };
        if count == 0 {
            self.lock().pause = Some(now + PAUSE);
        }
        count
    }

    /// Asks up to `most` of those to go that have been idle for longest; says how many.
    pub(super) fn dismiss_idle(&self, most: usize) -> usize {
        let idle = |pulse: &Arc<Pulse>| pulse.idle_since().map(|since| (since, Arc::clone(pulse)));
        let mut idle: Vec<_> = self.lock().open.values().filter_map(idle).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(most);
        // Counted first: its connection may be gone before the next line.
        self.leaving.fetch_add(idle.len(), Relaxed);
        let stays = idle.iter().filter(|(_, pulse)| !pulse.dismiss()).count();
        self.leaving.fetch_sub(stays, Relaxed);
        idle.len() - stays
    }

    /// Ends the time of the oldest slow request heads, so that no more than `most` are left; says how many.
    pub(super) fn hurry(&self, most: usize, now: Instant) -> usize {
        let slow = |pulse: &Arc<Pulse>| {
            let since =
                pulse.reads_head_since().filter(|since| now.saturating_duration_since(*since) > SLOW)?;
            Some((since, Arc::clone(pulse)))
        };
        let mut slow: Vec<_> = self.lock().open.values().filter_map(slow).collect();
        let too_many = slow.len().saturating_sub(most);
        slow.sort_unstable_by_key(|(since, _)| *since);
        slow.iter().take(too_many).for_each(|(_, pulse)| pulse.hurry());
        too_many
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Waits until this connection is called off while it opens.
    pub(super) async fn called_off(&self) {
        match &self.call {
            Some(call) => call.bell.notified().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn open(roll: &Roll, start: Instant) -> (Line, Arc<Pulse>) {
        let pulse = Pulse::new(start, false, false);
        let (mut line, _) = roll.begin(100, start);
        roll.open(&mut line, &pulse);
        (line, pulse)
    }

    #[tokio::test]
    async fn the_oldest_that_has_yet_to_speak_is_called_off() {
        let (roll, now) = (Roll::default(), clock::now());
        let later = now + SLOW * 2;
        let _spoken = open(&roll, now);
        let (first, crowded) = roll.begin(2, now);
        let (second, _) = roll.begin(2, now);
        assert!(!crowded, "who speaks does not count");
        let (_third, crowded) = roll.begin(2, now + SLOW / 2);
        assert!(!crowded, "nobody is slow yet");
        let (_fourth, crowded) = roll.begin(3, later);
        assert!(crowded);
        first.called_off().await;
        let waits = tokio::time::timeout(Duration::from_millis(20), second.called_off()).await;
        assert!(waits.is_err(), "one for one");
        assert_eq!(roll.leaving(), 1);
        roll.strike(&first);
        assert_eq!(roll.leaving(), 0);
        assert_eq!(roll.make_room(later), 1, "whoever is idle goes first");
        assert_eq!(roll.make_room(later), 2, "then the second and the third");
        assert_eq!(roll.make_room(later), 0, "and not the fourth, which has just come");
    }

    #[test]
    fn who_is_idle_for_longest_goes_first_and_who_is_busy_stays() {
        let (roll, now) = (Roll::default(), clock::now());
        let age = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let (_, busy) = open(&roll, age(900));
        let ticket = busy.request();
        let (_, reading) = open(&roll, age(800));
        reading.read();
        let (_, young) = open(&roll, age(1));
        let (line, old) = open(&roll, age(60));
        assert_eq!(roll.dismiss_idle(1), 1);
        assert!(old.is_dismissed() && !young.is_dismissed());
        assert_eq!(roll.leaving(), 1);
        assert_eq!(roll.dismiss_idle(9), 1, "once each");
        assert!(young.is_dismissed() && !busy.is_dismissed() && !reading.is_dismissed());
        roll.strike(&line);
        assert_eq!(roll.leaving(), 1);
        assert_eq!(roll.make_room(now), 0);
        drop(ticket);
        assert_eq!(roll.make_room(now), 0, "not looked for at once again");
        assert_eq!(roll.make_room(now + PAUSE), 1);
    }

    #[test]
    fn the_oldest_slow_heads_have_no_more_time() {
        let (roll, now) = (Roll::default(), clock::now());
        let reading: Vec<_> = (0..3)
            .map(|_| {
                let (line, pulse) = open(&roll, now);
                pulse.read();
                (line, pulse)
            })
            .collect();
        let _idle = open(&roll, now);
        assert_eq!(roll.hurry(0, now), 0, "none is slow yet");
        let later = now + SLOW * 2;
        assert_eq!(roll.hurry(3, later), 0);
        assert_eq!(roll.hurry(2, later), 1);
        assert_eq!(reading.iter().filter(|(_, pulse)| pulse.is_hurried()).count(), 1);
    }
}
