//! Looks after what runs short, now and then, on the control thread: memory, and places for slow request heads.
//!
//! While memory is short, requests get 503, connections are refused and idle ones end. The ones under way go on, and
//! what they give back is what is waited for.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::clock;
use crate::listen::tally::Event;
use crate::load::memory::{Change, Memory, Sight};
use crate::server::House;

/// How often memory is looked at if nothing bounds it, while there is plenty, and while there is not. Clients over a
/// fast network fill a few megabytes between two looks; the marks leave more than that.
const SELDOM: Duration = Duration::from_secs(1);
const NOW_AND_THEN: Duration = Duration::from_millis(200);
const OFTEN: Duration = Duration::from_millis(50);

/// From here on it is looked at often, in thousandths of what is allowed.
const NEAR: u64 = 500;

/// How often slow heads are counted, and the allocator is reminded.
const CHORES: Duration = Duration::from_secs(1);

/// Above the sizes that mimalloc keeps pages ready for.
const LARGE: usize = 4 << 20;

/// Looks for as long as it is polled.
pub async fn run(house: Arc<House>) {
    let mut memory = Memory::new(house.live.load().load.memory)
        .inspect_err(|error| tracing::warn!(%error, "nobody looks after memory: /proc does not tell"))
        .ok();
    let mut done = clock::now();
    loop {
        let now = clock::now();
        let again = memory.as_mut().map_or(SELDOM, |memory| look(&house, memory, now));
        if now.saturating_duration_since(done) >= CHORES {
            done = now;
            remind();
            let slow_heads = house.live.load().limits.slow_heads;
            house.tally.events(Event::ShedHead, house.census.hurry(slow_heads, now));
        }
        sleep(again).await;
    }
}

/// Lets the allocator give back what is free. mimalloc does so a second after a page was freed, but looks for such pages
/// only when some thread frees a large block: a process that was busy and then is quiet kept all of its memory, 87 MB
/// of 14 in a measurement, and seemed short of it for good. Nothing of the block is touched; other allocators do not
/// mind.
fn remind() {
    let mut block = Vec::<u8>::new();
    let _ = block.try_reserve_exact(LARGE);
    drop(black_box(block));
}

/// Looks at memory once; says when to look again.
fn look(house: &House, memory: &mut Memory, now: Instant) -> Duration {
    memory.allow(house.live.load().load.memory);
    let Some(sight) = memory.look() else { return SELDOM };
    house.load.saw_memory(sight.taken, sight.allowed);
    let under_way = house.load.under_way() > 0 || house.census.total() > 0;
    if let Some(change) = memory.judge(sight, under_way, now) {
        say(change, sight);
        house.load.set_short(memory.is_short());
        house.census.set_short(memory.is_short());
    }
    if memory.is_short() {
        house.census.dismiss_idle(usize::MAX);
    }
    if sight.permille() > NEAR { OFTEN } else { NOW_AND_THEN }
}

/// One line for each change.
fn say(change: Change, sight: Sight) {
    match change {
        Change::Short => tracing::warn!(
            memory = %sight,
            "memory is short: new requests get 503, new connections are refused, idle ones end"
        ),
        Change::Enough => tracing::info!(memory = %sight, "memory is no longer short"),
        Change::Resigned => tracing::warn!(
            memory = %sight,
            "memory stays taken although nobody is connected: the limit is too low. Serving goes on"
        ),
    }
}
