//! How much memory this process may take, how much it has, and when that is too much.
//!
//! What is allowed is `limits.memory`, or else the limit of the own control group and those above it; and the limit of
//! address space (`RLIMIT_AS`), as far as it is not taken at the start: the allocator reserves addresses that it does
//! not use. What is taken is the process's own, not the group's: a
//! web server beside us in a container that fills it would otherwise shut the door for good.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

/// From here on nothing new begins, in percent of what is allowed …
const HIGH: u64 = 85;
/// … until less than this is taken, or less than that for …
const LOW: u64 = 75;
/// … this long: what stays then belongs to requests that go on, or is the allocator's, and comes back only with use.
const LONG: Duration = Duration::from_secs(10);
/// How long the allocator may take to give back what the last one had.
const SETTLES: Duration = Duration::from_secs(3);

/// What bounds the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `limits.memory`.
    Written,
    /// `memory.max` of a control group (cgroups version 2), or `memory.limit_in_bytes` (version 1).
    Group,
    /// `RLIMIT_AS`, which bounds addresses and not what is resident.
    Addresses,
}

/// Memory and its bound; looked at now and then by one thread.
#[derive(Debug)]
pub struct Memory {
    status: File,
    written: Option<u64>,
    group: Option<u64>,
    /// How many addresses there may be, and how many there were at the start.
    addresses: Option<(u64, u64)>,
    /// Since when it is short, and since when nothing has been under way meanwhile.
    short: Option<Instant>,
    quiet: Option<Instant>,
    /// What was taken although nothing was under way, if that was too much: it has to be lived with, and only what
    /// is above it counts.
    floor: u64,
}

/// One look, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What is taken of what is nearest to its bound.
    pub taken: u64,
    /// The bound.
    pub allowed: u64,
    /// Which one it is.
    pub bound: Bound,
}

/// What changed with a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Memory is short from now on.
    Short,
    /// Memory is no longer short.
    Enough,
    /// Nothing is under way, and yet as much is taken: the limit is too low, and refusing does not help.
    Resigned,
}

impl Memory {
    /// The bounds of this process. `written` overrides what the system says of the control group.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn new(written: Option<u64>) -> io::Result<Self> {
        let status = File::open("/proc/self/status")?;
        let (_, addresses) = taken(&status).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            status,
            written,
            group: group_limit(),
            addresses: getrlimit(Resource::As).current.map(|limit| (limit, addresses)),
            short: None,
            quiet: None,
            floor: 0,
        })
    }

    /// Another `limits.memory` holds from now on.
    pub fn allow(&mut self, written: Option<u64>) {
        if self.written != written {
            (self.written, self.floor) = (written, 0);
        }
    }

    /// Looks; none if there is no bound.
    #[must_use]
    pub fn look(&self) -> Option<Sight> {
        let (resident, addresses) = taken(&self.status)?;
        let resident_bound = self.written.map(|bytes| (bytes, Bound::Written));
        let resident_bound = resident_bound.or(self.group.map(|bytes| (bytes, Bound::Group)));
        let of_resident = resident_bound.map(|(allowed, bound)| Sight { taken: resident, allowed, bound });
        let of_addresses = self.addresses.map(|(limit, at_start)| Sight {
            taken: addresses.saturating_sub(at_start),
            allowed: limit.saturating_sub(at_start),
            bound: Bound::Addresses,
        });
        of_resident.into_iter().chain(of_addresses).max_by_key(Sight::permille)
    }

    /// Judges a look, while `under_way` says whether any request or connection is. Says what is new.
    pub fn judge(&mut self, sight: Sight, under_way: bool, now: Instant) -> Option<Change> {
        self.floor = self.floor.min(sight.taken);
        let taken = sight.taken - self.floor;
        let allowed = sight.allowed.saturating_sub(self.floor);
        let above = |percent: u64| taken > allowed / 100 * percent;
        if under_way {
            self.quiet = None;
        }
        let Some(since) = self.short else {
            self.short = above(HIGH).then_some(now);
            self.quiet = None;
            return self.short.map(|_| Change::Short);
        };
        let mark = if now.saturating_duration_since(since) > LONG { HIGH } else { LOW };
        if !above(mark) {
            self.short = None;
            return Some(Change::Enough);
        }
        if under_way || now.saturating_duration_since(*self.quiet.get_or_insert(now)) <= SETTLES {
            return None;
        }
        self.floor = sight.taken;
        self.short = None;
        Some(Change::Resigned)
    }

    /// Whether memory is short, by the last judgement.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.is_some()
    }
}

impl Sight {
    /// How much of what is allowed is taken, in thousandths.
    #[must_use]
    pub fn permille(&self) -> u64 {
        self.taken.saturating_mul(1000) / self.allowed.max(1)
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (taken, allowed) = (self.taken >> 20, self.allowed >> 20);
        let bound = match self.bound {
            Bound::Written => "limits.memory",
            Bound::Group => "the control group's limit",
            Bound::Addresses => "the limit of address space, less what was taken at the start",
        };
        write!(f, "{taken} of {allowed} MiB ({bound})")
    }
}

/// What is resident and how many addresses there are, in bytes. The file is read anew while it stays open: there may
/// be no descriptor to be had when files are short too.
fn taken(status: &File) -> Option<(u64, u64)> {
    let mut text = [0; 4096];
    let count = status.read_at(&mut text, 0).ok()?;
    let status = std::str::from_utf8(text.get(..count)?).ok()?;
    Some((kilobytes(status, "VmRSS:")?, kilobytes(status, "VmSize:")?))
}

/// A line of `/proc/self/status` in bytes.
fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the own control group and those above it, of either version.
fn group_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let read = |file: PathBuf| fs::read_to_string(file).ok();
    let of_v2 = group(&own, "0::").and_then(|group| least("/sys/fs/cgroup", group, "memory.max", read));
    let of_v1 = group(&own, ":memory:")
        .and_then(|group| least("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", read));
    of_v2.into_iter().chain(of_v1).min()
}

/// The path of the own group, without its first slash, from a line such as `0::/path` or `4:memory:/path` of
/// `/proc/self/cgroup` (cgroups(7)).
fn group<'l>(lines: &'l str, controller: &str) -> Option<&'l str> {
    lines.lines().find_map(|line| line.split_once(controller)?.1.strip_prefix('/'))
}

fn least(root: &str, group: &str, file: &str, read: impl Fn(PathBuf) -> Option<String>) -> Option<u64> {
    let own = Path::new(root).join(group);
    let inside = own.ancestors().take_while(|folder| folder.starts_with(root));
    // `max` is no number, and version 1 writes a huge one: neither is a limit.
    inside
        .filter_map(|folder| read(folder.join(file))?.trim().parse().ok())
        .min()
        .filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MIB: u64 = 1 << 20;

    fn memory() -> Memory {
        let status = File::open("/proc/self/status").unwrap();
        Memory {
            status,
            written: Some(1 << 40),
            group: None,
            addresses: None,
            short: None,
            quiet: None,
            floor: 0,
        }
    }

    fn sight(taken: u64) -> Sight {
        Sight { taken: taken * MIB, allowed: 100 * MIB, bound: Bound::Written }
    }

    #[test]
    fn it_is_short_above_the_high_mark_until_below_the_low_one() {
        let (mut memory, now) = (memory(), clock::now());
        let mut judge = |taken, now| memory.judge(sight(taken), true, now);
        assert_eq!(judge(84, now), None);
        assert_eq!(judge(86, now), Some(Change::Short));
        assert_eq!(judge(99, now), None, "said once");
        assert_eq!(judge(80, now), None);
        assert_eq!(judge(74, now), Some(Change::Enough));
        assert_eq!(judge(80, now), None);
        assert_eq!(judge(86, now), Some(Change::Short));
        assert_eq!(judge(80, now + LONG), None);
        assert_eq!(judge(80, now + LONG * 2), Some(Change::Enough), "it has been short for long enough");
        assert!(!memory.is_short());
    }

    #[test]
    fn a_limit_that_is_too_low_does_not_close_the_house_for_good() {
        let (mut memory, now) = (memory(), clock::now());
        memory.judge(sight(90), true, now);
        assert_eq!(memory.judge(sight(90), false, now), None, "what was free is yet to be given back");
        assert_eq!(memory.judge(sight(90), true, now + SETTLES), None);
        assert_eq!(memory.judge(sight(90), false, now + SETTLES), None);
        assert_eq!(memory.judge(sight(90), false, now + SETTLES * 3), Some(Change::Resigned));
        assert_eq!(memory.judge(sight(95), true, now), None, "there is a little room");
        assert_eq!(memory.judge(sight(99), true, now), Some(Change::Short));
        assert_eq!(memory.judge(sight(95), true, now), Some(Change::Enough));
        memory.allow(Some(7));
        assert_eq!(
            memory.judge(sight(95), true, now),
            Some(Change::Short),
            "another limit, another judgement"
        );
    }

    #[test]
    fn this_process_has_memory() {
        let seen = memory().look().unwrap();
        assert!(seen.taken > MIB && seen.bound == Bound::Written, "{seen}");
        let none = Memory { written: None, ..memory() };
        assert_eq!(none.look(), None);
        assert!(Memory::new(None).is_ok());
    }

    #[test]
    fn what_is_nearest_to_its_bound_counts() {
        let mut memory = Memory { written: Some(1 << 30), addresses: Some((u64::MAX, 0)), ..memory() };
        assert_eq!(memory.look().unwrap().bound, Bound::Written);
        memory.addresses = Some((1, 0));
        assert_eq!(memory.look().unwrap().bound, Bound::Addresses);
        let text = sight(7).to_string();
        assert_eq!(text, "7 of 100 MiB (limits.memory)");
    }

    #[test]
    fn the_least_of_all_groups_counts() {
        let lines = "12:cpu:/y\n4:memory:/x\n0::/a/b\n";
        assert_eq!((group(lines, "0::"), group(lines, ":memory:")), (Some("a/b"), Some("x")));
        assert_eq!(group("12:cpu:/y\n", "0::"), None);
        let files = |file: PathBuf| {
            let text = match file.to_str().unwrap() {
                "/r/a/b/memory.max" => "max\n",
                "/r/a/memory.max" => "2000\n",
                "/r/memory.max" => "3000\n",
                "/v1/memory.max" => "9223372036854771712\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(least("/r", "a/b", "memory.max", files), Some(2000));
        assert_eq!(least("/r", "", "memory.max", files), Some(3000));
        assert_eq!(least("/v1", "", "memory.max", files), None);
        assert_eq!(least("/other", "", "memory.max", files), None);
    }

    #[test]
    fn lines_of_the_status_are_in_kilobytes() {
        let status = "Name:\travelin\nVmSize:\t  2048 kB\nVmRSS:\t     12 kB\n";
        assert_eq!(kilobytes(status, "VmSize:"), Some(2 * MIB));
        assert_eq!(kilobytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }
}
