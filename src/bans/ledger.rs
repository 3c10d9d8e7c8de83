//! The memory of failures and bans: in shards that seldom meet, with a bound in each, and with time as an argument.
//!
//! Wall-clock milliseconds, because it outlives the process: a store writes what [`Ledger::changes`] tells, and brings
//! back what it knows, and what other replicas found out, through [`Ledger::apply`].

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;

use super::grants::Grants;
use super::jail::{Action, Jail, Reach};
use super::shelf::{Shelf, Worth};
use super::under_way::{Full, Tries, UnderWay};
use super::{Ban, Culprit, SessionId, SiteId, Subject, UserId, audit, stable_hash};
use crate::client::key::Key;
use crate::clock::Millis;

/// A power of two well above the number of workers, so that two of them seldom want the same lock.
const SHARDS: usize = 64;

/// As many bans of one subject are kept, by different jails and for different sites; those that end first go.
const BANS_OF_ONE: usize = 8;

/// As many moments of failure of one subject are kept in a jail. Where it takes more failures than that to make a ban,
/// those that are closest to one another count as one moment, the earlier one.
const MOMENTS: usize = 16;

/// As many changes wait for the store; then the oldest go.
const CHANGES_KEPT: usize = 16_384;

/// A client is known for as long after its session was last seen at work as TYPO3 keeps a backend session that nobody
/// uses (`BE/sessionTimeout`, 28,800 s).
const KNOWN_FOR: Duration = Duration::from_hours(8);

/// How long after its login the use of a session counts: no login makes anybody known for more than a day.
const COUNTS_FOR: Duration = Duration::from_hours(16);

/// The use of a session is noted, and told to the store, no more often than that.
const NOTED_EACH: Duration = Duration::from_mins(15);

/// Sessions at work whose use is followed; those that were not used for longest go.
const WORKING: usize = 16_384;

/// Sessions that began and were not seen at work yet: minutes lie between the two where a second factor does.
const BEGUN: usize = 16_384;

/// How long such a session is waited for.
const BEGUN_FOR: Duration = Duration::from_hours(1);

/// Subjects with tries whose outcome is not known yet: as many as requests are under way, and those that left just now.
const UNDER_WAY: usize = 16_384;

/// What a level is worth when the jail that gave it is not at hand.
const LEVEL_LASTS: Duration = Duration::from_hours(24);

/// How much a ledger keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Subjects that are banned.
    pub bans: usize,
    /// Subjects that failed, once for each jail.
    pub failures: usize,
    /// Clients that logged in, once for each site.
    pub known: usize,
}

impl Bounds {
    /// What a banned subject takes, bytes: measured (`benches/README.md`), rounded up.
    const BAN: usize = 288;
    /// What a subject takes with as many moments of failure as are kept, bytes.
    const FAILURE: usize = 560;
    /// What a known client takes, bytes.
    const KNOWN: usize = 96;

    /// Half of `bytes` for bans, three eighths for failures, the rest for who is known.
    #[must_use]
    pub const fn within(bytes: usize) -> Self {
        Self {
            bans: bytes / 2 / Self::BAN,
            failures: bytes / 8 * 3 / Self::FAILURE,
            known: bytes / 8 / Self::KNOWN,
        }
    }
}

impl Default for Bounds {
    /// 64 MiB: about 116,000 bans, and 45,000 who failed.
    fn default() -> Self {
        Self::within(64 << 20)
    }
}

/// Something that happened to a ledger, as a store or another replica is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A ban was made.
    Banned(Ban),
    /// Bans were lifted.
    Lifted {
        /// Whose.
        subject: Subject,
        /// For which site; `None` for every one.
        site: Option<SiteId>,
        /// By which jail; `None` by any.
        jail: Option<Arc<str>>,
    },
    /// A failure was counted that made no ban.
    ///
    /// With what follows when there are enough of them over all replicas; a store that counts for all of them can
    /// make the ban.
    Struck(Tally, Option<Box<Sentence>>),
    /// The failures of a subject in a jail were forgotten, those with the same user name.
    Forgiven(Tally),
    /// A client gave the right password, and perhaps has to give a second factor.
    Began {
        /// Who.
        client: Key,
        /// Where.
        site: SiteId,
        /// The session that began.
        session: SessionId,
        /// When.
        at: Millis,
    },
    /// A client logged in: its session was seen at work.
    LoggedIn {
        /// Who.
        client: Key,
        /// Where.
        site: SiteId,
        /// When it was seen.
        at: Millis,
        /// The session, and when it began; none if another version told it.
        work: Option<(SessionId, Millis)>,
    },
    /// Every ban was lifted.
    Flushed,
    /// The Install Tool was opened for a network, or closed if that is over.
    Granted {
        /// For whom.
        net: IpNet,
        /// Until when.
        until: Millis,
    },
}

/// What a jail makes of enough failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The jail's name.
    pub jail: std::sync::Arc<str>,
    /// The failure that makes the ban.
    pub most: u32,
    /// How long the first ban takes.
    pub ban_time: Duration,
    /// How long a ban may take at most.
    pub longest: Duration,
    /// What a banned subject meets.
    pub action: Action,
    /// Where the jail was written.
    pub why: std::sync::Arc<str>,
}

/// Where a failure was counted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// [`stable_hash`] of the jail's name.
    pub jail: u64,
    /// Whose failures these are.
    pub subject: Subject,
    /// At which site; `None` if they are counted together.
    pub site: Option<SiteId>,
    /// The user name that was tried, if one is known.
    pub user: Option<UserId>,
    /// When.
    pub at: Millis,
    /// How long it counts.
    pub find_time: Duration,
}

/// Failures, bans and known clients.
#[derive(Debug)]
pub struct Ledger {
    shards: [Mutex<Shard>; SHARDS],
    /// Banned subjects, so that nobody takes a lock while there is none.
    banned: AtomicUsize,
    /// Keyed at random: a client cannot choose addresses that meet in one shard.
    hasher: RandomState,
    journal: Journal,
    grants: Grants,
    /// What sites are called.
    names: Mutex<HashMap<SiteId, Arc<str>>>,
    /// How many bans each jail made. There are as many jails as the operator wrote.
    made: Mutex<BTreeMap<Arc<str>, u64>>,
}

/// What is to be told to the store.
#[derive(Debug, Default)]
struct Journal {
    followed: AtomicBool,
    changes: Mutex<VecDeque<Change>>,
    lost: AtomicU64,
    more: Notify,
}

#[derive(Debug)]
struct Shard {
    bans: Shelf<Subject, Held>,
    tracks: Shelf<TrackKey, Track>,
    known: Shelf<(Key, SiteId), Millis>,
    begun: Shelf<(Key, SiteId, SessionId), Begun>,
    working: Shelf<(Key, SiteId, SessionId), Working>,
    under_way: Shelf<TrackKey, Tries>,
}

/// When a session began.
#[derive(Debug)]
struct Begun(Millis);

/// A session that keeps its client known.
#[derive(Debug)]
struct Working {
    /// When its client logged in.
    began: Millis,
    /// When its use was last noted.
    noted: Millis,
}

/// The bans of one subject.
#[derive(Debug, Default)]
struct Held(Vec<Ban>);

/// A jail, a subject, and the site if the jail counts site by site.
pub(super) type TrackKey = (u64, Subject, Option<SiteId>);

/// What a subject did in a jail.
#[derive(Debug, Default)]
struct Track {
    /// When it failed, in order; none before the last ban.
    failures: Vec<Moment>,
    /// The level of its next ban, if that came at `calm`.
    level: u8,
    /// When its last ban ended.
    calm: Millis,
    /// From when on there is nothing to remember.
    over: Millis,
}

/// Failures at one time.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Millis,
    count: u32,
    /// The user name that was tried; 0 if it is not known, or if they are several.
    user: u64,
}

impl Worth for Held {
    fn worth(&self, now: Millis) -> Option<u64> {
        // What a wrong clock left goes first, and stays if there is room: perhaps the clock is wrong now.
        let worth = |ban: &Ban| if ban.holds(now) { ban.until.0 } else { 0 };
        self.0.iter().filter(|ban| !ban.is_over(now)).map(worth).max()
    }
}

impl Worth for Begun {
    fn worth(&self, now: Millis) -> Option<u64> {
        (now.apart(self.0) < BEGUN_FOR).then_some(self.0.0)
    }
}

impl Worth for Working {
    fn worth(&self, now: Millis) -> Option<u64> {
        let counts = now.apart(self.began) < COUNTS_FOR && now.apart(self.noted) < KNOWN_FOR;
        counts.then_some(self.noted.0)
    }
}

impl Worth for Track {
    /// Former bans weigh more than failures, many failures more than few, and fresh ones more than old ones.
    fn worth(&self, now: Millis) -> Option<u64> {
        let many = u64::from(self.count().min(255));
        (now < self.over)
            .then_some(u64::from(self.level) << 56 | many << 48 | (self.over.0 & ((1 << 48) - 1)))
    }
}

impl Worth for Millis {
    fn worth(&self, now: Millis) -> Option<u64> {
        (now.apart(*self) < KNOWN_FOR).then_some(self.0)
    }
}

impl Track {
    /// The level of a ban now: each `longest` without one forgives one.
    fn level(&self, longest: Duration, now: Millis) -> u8 {
        let calm = now.apart(self.calm).as_millis() / longest.as_millis().max(1);
        self.level.saturating_sub(u8::try_from(calm).unwrap_or(u8::MAX))
    }

    fn fail(&mut self, now: Millis, find_time: Duration, user: Option<UserId>) -> u32 {
        self.failures.retain(|moment| now.apart(moment.at) < find_time);
        if self.failures.len() >= MOMENTS {
            self.merge();
        }
        let at = self.failures.partition_point(|moment| moment.at <= now);
        self.failures.insert(at, Moment { at: now, count: 1, user: number(user) });
        self.over = self.over.max(now.plus(find_time));
        self.count()
    }

    /// Forgets the failures with this user name; whether there were any. Others count on: an account of one's own
    /// says nothing about who tried other names.
    fn forgive(&mut self, user: Option<UserId>) -> bool {
        let before = self.failures.len();
        self.failures.retain(|moment| moment.user != number(user));
        self.failures.len() < before
    }

    /// How many failures count now.
    fn counting(&self, now: Millis, find_time: Duration) -> u32 {
        let fresh = self.failures.iter().filter(|moment| now.apart(moment.at) < find_time);
        fresh.fold(0, |sum, moment| sum.saturating_add(moment.count))
    }

    /// How many failures are kept.
    fn count(&self) -> u32 {
        self.failures.iter().fold(0, |sum, moment| sum.saturating_add(moment.count))
    }

    /// Makes one moment of the two neighbours that are closest to each other, of the same user name if there are any.
    fn merge(&mut self) {
        let gaps = self.failures.windows(2).enumerate().filter_map(|(at, pair)| match pair {
            [first, second] => Some((first.user != second.user, second.at.since(first.at), at)),
            _ => None,
        });
        let Some((differ, _, at)) = gaps.min() else { return };
        let later = self.failures.remove(at + 1);
        if let Some(earlier) = self.failures.get_mut(at) {
            earlier.count = earlier.count.saturating_add(later.count);
            earlier.user = if differ { 0 } else { earlier.user };
        }
    }

    fn banned(&mut self, level: u8, until: Millis, longest: Duration) {
        self.failures = Vec::new();
        self.level = level.saturating_add(1);
        self.calm = until;
        self.over = self.over.max(until.plus(longest.saturating_mul(u32::from(self.level))));
    }
}

impl Ledger {
    /// Nobody failed yet. Shares `bounds` among its shards.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(bounds))),
            banned: AtomicUsize::new(0),
            hasher: RandomState::new(),
            journal: Journal::default(),
            grants: Grants::default(),
            names: Mutex::default(),
            made: Mutex::default(),
        }
    }

    /// The ban that holds for this client here, if any: of several, the one that lasts longest.
    #[must_use]
    pub fn banned(&self, client: Key, site: SiteId, now: Millis) -> Option<Ban> {
        self.find(Subject::Client(client), now, |ban| ban.covers(site))
    }

    /// The ban of a user name here, if any: only attempts to log in are refused.
    #[must_use]
    pub fn user_banned(&self, user: UserId, site: SiteId, now: Millis) -> Option<Ban> {
        self.find(Subject::User(user), now, |ban| ban.covers(site))
    }

    /// Of the bans of `subject` that hold and that `counts`, the one that lasts longest.
    #[must_use]
    pub fn find(&self, subject: Subject, now: Millis, counts: impl Fn(&Ban) -> bool) -> Option<Ban> {
        self.strongest(subject, now, counts, |ban| ban.until)
    }

    /// Of the bans of `subject` that hold and that `counts`, the one that is strongest.
    #[must_use]
    pub fn strongest<S: Ord>(
        &self,
        subject: Subject,
        now: Millis,
        counts: impl Fn(&Ban) -> bool,
        strength: impl Fn(&Ban) -> S,
    ) -> Option<Ban> {
        if self.is_empty() {
            return None;
        }
        let shard = self.shard(&subject)?;
        let held = shard.bans.get(&subject)?;
        held.0.iter().filter(|ban| ban.holds(now) && counts(ban)).max_by_key(|ban| strength(ban)).cloned()
    }

    /// Whether nobody is banned at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.banned.load(Relaxed) == 0
    }

    /// Subjects with a ban, of which some may be just over.
    #[must_use]
    pub fn active(&self) -> usize {
        self.banned.load(Relaxed)
    }

    /// One more failure. Some ban if this one made it: of the client, or else of the user name.
    pub fn strike(&self, jail: &Jail, who: &Culprit, now: Millis) -> Option<Ban> {
        if who.ignored {
            return None;
        }
        let mut made = None;
        for (subject, most) in who.subjects(jail) {
            let ban = self.count(jail, subject, who, most, now);
            made = made.or(ban);
        }
        made
    }

    /// A try goes on its way: it takes the place of a failure until its outcome is known.
    ///
    /// # Errors
    /// When so many are under way that one more could get past the failure that makes the ban.
    pub fn begin(self: &Arc<Self>, jail: &Jail, who: &Culprit, now: Millis) -> Result<UnderWay, Full> {
        let mut under_way = UnderWay::new(self);
        if who.ignored {
            return Ok(under_way);
        }
        for (subject, most) in who.subjects(jail) {
            let key = Tally::of(jail, subject, who, now).key();
            let Some(mut shard) = self.shard(&subject) else { continue };
            let failures = shard.tracks.get(&key).map_or(0, |track| track.counting(now, jail.find_time));
            let begun = shard.under_way.entry(key, now, Tries::default).begin(failures, most, now);
            drop(shard);
            match begun {
                Ok(()) => under_way.holds(key),
                Err(full) => {
                    under_way.give_back();
                    return Err(full);
                }
            }
        }
        Ok(under_way)
    }

    /// A try is over; since when its client has left, if it has not heard what came of it.
    pub(super) fn end(&self, key: &TrackKey, left: Option<Millis>) {
        let Some(mut shard) = self.shard(&key.1) else { return };
        if shard.under_way.get_mut(key).is_some_and(|tries| tries.end(left)) {
            shard.under_way.remove(key);
        }
    }

    fn count(&self, jail: &Jail, subject: Subject, who: &Culprit, most: u32, now: Millis) -> Option<Ban> {
        let tally = Tally::of(jail, subject, who, now);
        let ban = {
            let mut shard = self.shard(&subject)?;
            // Requests that were under way when the ban was made, or nobody enforces it.
            let holds = |ban: &Ban| ban.holds(now) && ban.jail == jail.name && ban.site == tally.site;
            if shard.bans.get(&subject).is_some_and(|held| held.0.iter().any(holds)) {
                return None;
            }
            let track = shard.tracks.entry(tally.key(), now, Track::default);
            let failures = track.fail(now, jail.find_time, tally.user);
            if failures < most {
                drop(shard);
                self.journal.note(|| Change::Struck(tally, Some(Box::new(Sentence::of(jail, most)))));
                return None;
            }
            let level = track.level(jail.longest, now);
            let length = self.length(jail, subject, level, now);
            let until = now.plus(length);
            track.banned(level, until, jail.longest);
            let ban = Ban {
                subject,
                site: tally.site,
                jail: jail.name.clone(),
                since: now,
                until,
                level,
                failures,
                action: jail.action,
                why: jail.place.clone(),
            };
            self.hold(&mut shard, ban.clone(), now);
            ban
        };
        self.tell(&ban);
        Some(ban)
    }

    /// The first ban takes `ban_time`, each one after it twice as long, up to `longest`; give or take an eighth, so
    /// that those who were banned together do not come back together.
    fn length(&self, jail: &Jail, subject: Subject, level: u8, now: Millis) -> Duration {
        let doubled =
            2_u32.checked_pow(u32::from(level)).map_or(Duration::MAX, |n| jail.ban_time.saturating_mul(n));
        let base = doubled.min(jail.longest);
        let most = u64::try_from((base / 8).as_millis()).unwrap_or(0);
        let jitter = Duration::from_millis(self.hasher.hash_one((subject, now)) % most.saturating_add(1));
        let longer = base.saturating_add(jitter);
        if longer <= jail.longest { longer } else { base.saturating_sub(jitter) }
    }

    /// A success: the failures in this jail are forgotten that this client had with the same user name, and those
    /// that others had with it. Its failures with other names and its former bans are not: who has one good account
    /// would guess at others for ever.
    pub fn forgive(&self, jail: &Jail, who: &Culprit, now: Millis) {
        let user = who.user.filter(|_| jail.user_retry.is_some()).map(Subject::User);
        for subject in [Some(Subject::Client(who.client)), user].into_iter().flatten() {
            let tally = Tally::of(jail, subject, who, now);
            if self.forget(&tally) {
                self.journal.note(|| Change::Forgiven(tally));
            }
        }
    }

    fn forget(&self, tally: &Tally) -> bool {
        let Some(mut shard) = self.shard(&tally.subject) else { return false };
        let track = shard.tracks.get_mut(&tally.key());
        track.is_some_and(|track| track.forgive(tally.user))
    }

    /// A client gave the right password at the backend of a site. Who it is may still depend on a second factor.
    pub fn began(&self, client: Key, site: SiteId, session: SessionId, now: Millis) {
        self.begin_session(client, site, session, now);
        self.journal.note(|| Change::Began { client, site, session, at: now });
    }

    fn begin_session(&self, client: Key, site: SiteId, session: SessionId, at: Millis) {
        if let Some(mut shard) = self.shard(&Subject::Client(client)) {
            shard.begun.entry((client, site, session), at, || Begun(at));
        }
    }

    /// A session is at work as only one can that nothing more is asked of: its client logged in, if it began here lately,
    /// and stays known, if it did so before.
    pub fn at_work(&self, client: Key, site: SiteId, session: SessionId, now: Millis) {
        let shard = self.shard(&Subject::Client(client));
        let began = shard.and_then(|mut shard| shard.note_use((client, site, session), now));
        if let Some(began) = began {
            self.know(client, site, now);
            let work = Some((session, began));
            self.journal.note(|| Change::LoggedIn { client, site, at: now, work });
        }
    }

    /// A client was seen to log in to the backend of a site.
    pub fn logged_in(&self, client: Key, site: SiteId, now: Millis) {
        self.know(client, site, now);
        self.journal.note(|| Change::LoggedIn { client, site, at: now, work: None });
    }

    /// Another replica saw a session at work, or this one did before it was started anew.
    fn follow_session(&self, key: (Key, SiteId, SessionId), began: Millis, at: Millis, now: Millis) {
        let working = Working { began, noted: at };
        if working.worth(now).is_none() {
            return;
        }
        if let Some(mut shard) = self.shard(&Subject::Client(key.0)) {
            shard.begun.remove(&key);
            let known = shard.working.entry(key, now, || working);
            known.noted = at.max(known.noted);
            // Who says that a session is younger than it is known to be is not believed.
            known.began = began.min(known.began);
        }
    }

    fn know(&self, client: Key, site: SiteId, at: Millis) {
        if let Some(mut shard) = self.shard(&Subject::Client(client)) {
            let seen = shard.known.entry((client, site), at, || at);
            *seen = at.max(*seen);
        }
    }

    /// Whether a client's session was seen at work in the backend of a site in the last eight hours.
    #[must_use]
    pub fn knows(&self, client: Key, site: SiteId, now: Millis) -> bool {
        let shard = self.shard(&Subject::Client(client));
        shard.is_some_and(|shard| shard.known.get(&(client, site)).is_some_and(|at| at.worth(now).is_some()))
    }

    /// Whether a client was seen to log in to the backend of any site. Looks through the clients of a shard: to be asked
    /// of banned clients only.
    #[must_use]
    pub fn knows_somewhere(&self, client: Key, now: Millis) -> bool {
        let known = |((key, _), at): (&(Key, SiteId), &Millis)| *key == client && at.worth(now).is_some();
        self.shard(&Subject::Client(client)).is_some_and(|shard| shard.known.iter().any(known))
    }

    /// Opens the Install Tool for a network until then, or closes it again if that is not later than `now`.
    pub fn grant(&self, net: IpNet, until: Millis, now: Millis) {
        self.grants.set(net, until, now);
        self.journal.note(|| Change::Granted { net, until });
    }

    /// Whether the Install Tool was opened for this address.
    #[must_use]
    pub fn granted(&self, addr: IpAddr, now: Millis) -> bool {
        self.grants.holds(addr, now)
    }

    /// For whom the Install Tool is open, and until when.
    #[must_use]
    pub fn grants(&self, now: Millis) -> Vec<(IpNet, Millis)> {
        self.grants.list(now)
    }

    /// Puts a ban in force; one by the same jail for the same site gives way, whichever lasts longer.
    pub fn add(&self, ban: Ban, now: Millis) {
        self.tell(&ban);
        self.put(ban, now);
    }

    fn put(&self, ban: Ban, now: Millis) {
        let Some(mut shard) = self.shard(&ban.subject) else { return };
        if &*ban.jail != Ban::BY_HAND {
            let key = (stable_hash(ban.jail.as_bytes()), ban.subject, ban.site);
            let track = shard.tracks.entry(key, now, Track::default);
            if track.calm < ban.until {
                track.banned(ban.level, ban.until, LEVEL_LASTS);
            }
        }
        // Not only if it holds: the clock of a machine that has just started may still be years behind.
        if !ban.is_over(now) {
            self.hold(&mut shard, ban, now);
        }
    }

    fn hold(&self, shard: &mut Shard, ban: Ban, now: Millis) {
        let before = shard.bans.len();
        let held = shard.bans.entry(ban.subject, now, Held::default);
        held.0.retain(|other| !other.is_over(now) && (other.jail != ban.jail || other.site != ban.site));
        if held.0.len() >= BANS_OF_ONE {
            let first = held.0.iter().enumerate().min_by_key(|(_, ban)| ban.until).map(|(at, _)| at);
            first.map(|at| held.0.swap_remove(at));
        }
        held.0.reserve_exact(1);
        held.0.push(ban);
        self.recount(before, shard.bans.len());
    }

    /// Lifts the bans of `subject`, for one site or for every one, by one jail or by any, and forgets its failures
    /// and former bans there. Says which bans there were.
    pub fn remove(&self, subject: Subject, site: Option<SiteId>, jail: Option<&str>) -> Vec<Ban> {
        let lifted = self.lift(subject, site, jail);
        self.journal.note(|| Change::Lifted { subject, site, jail: jail.map(Into::into) });
        for ban in &lifted {
            audit::lifted(ban, self.name_of(ban.site).as_deref());
        }
        lifted
    }

    fn lift(&self, subject: Subject, site: Option<SiteId>, jail: Option<&str>) -> Vec<Ban> {
        let Some(mut shard) = self.shard(&subject) else { return Vec::new() };
        let number = jail.map(|name| stable_hash(name.as_bytes()));
        let tracks: Vec<TrackKey> = shard.tracks.iter().map(|(key, _)| *key).collect();
        for key in tracks {
            if key.1 == subject
                && number.is_none_or(|jail| jail == key.0)
                && (site.is_none() || key.2 == site)
            {
                shard.tracks.remove(&key);
            }
        }
        let before = shard.bans.len();
        let Some(held) = shard.bans.get_mut(&subject) else { return Vec::new() };
        let chosen = |ban: &mut Ban| {
            (site.is_none() || ban.site == site) && jail.is_none_or(|name| &*ban.jail == name)
        };
        let lifted: Vec<Ban> = held.0.extract_if(.., chosen).collect();
        if held.0.is_empty() {
            shard.bans.remove(&subject);
        }
        self.recount(before, shard.bans.len());
        lifted
    }

    /// Every ban that holds, in no order.
    #[must_use]
    pub fn list(&self, now: Millis) -> Vec<Ban> {
        let mut bans = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            bans.extend(
                shard.bans.iter().flat_map(|(_, held)| &held.0).filter(|ban| ban.holds(now)).cloned(),
            );
        }
        bans
    }

    /// Lifts every ban and forgets every failure; says how many subjects were banned.
    pub fn flush(&self) -> usize {
        let flushed = self.clear();
        self.journal.note(|| Change::Flushed);
        audit::flushed(flushed);
        flushed
    }

    fn clear(&self) -> usize {
        let mut flushed = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.bans.len();
            shard.bans.clear();
            shard.tracks.clear();
            self.recount(before, 0);
            flushed += before;
        }
        flushed
    }

    /// Drops a part of what is over. To be called about once a second.
    pub fn sweep(&self, now: Millis) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.bans.len();
            // Once round in a minute, in less than a millisecond for each hundred thousand.
            let part = |len: usize| len / 64 + 8;
            let (bans, tracks, known) = (before, shard.tracks.len(), shard.known.len());
            let under_way = shard.under_way.len();
            shard.under_way.sweep(now, part(under_way));
            shard.bans.sweep(now, part(bans));
            shard.tracks.sweep(now, part(tracks));
            shard.known.sweep(now, part(known));
            let begun = shard.begun.len();
            shard.begun.sweep(now, part(begun));
            let working = shard.working.len();
            shard.working.sweep(now, part(working));
            self.recount(before, shard.bans.len());
        }
    }

    /// Bans and failures that had to go before they were over, because there were too many.
    #[must_use]
    pub fn pushed_out(&self) -> (u64, u64) {
        self.shards.iter().map(lock).fold((0, 0), |(bans, failures), shard| {
            (bans + shard.bans.pushed_out(), failures + shard.tracks.pushed_out())
        })
    }

    /// A ban was made here.
    fn tell(&self, ban: &Ban) {
        *lock(&self.made).entry(ban.jail.clone()).or_default() += 1;
        self.journal.note(|| Change::Banned(ban.clone()));
        audit::made(ban, self.name_of(ban.site).as_deref());
    }

    /// How many bans each jail made since the process began.
    #[must_use]
    pub fn made(&self) -> Vec<(Arc<str>, u64)> {
        lock(&self.made).iter().map(|(jail, count)| (jail.clone(), *count)).collect()
    }

    /// What the sites of a configuration are called.
    pub fn learn<'n>(&self, names: impl Iterator<Item = &'n str>) {
        *lock(&self.names) = names.map(|name| (SiteId::of(name), name.into())).collect();
    }

    /// The name of the site that a ban is for, if it is one that the configuration knows.
    #[must_use]
    pub fn name_of(&self, site: Option<SiteId>) -> Option<Arc<str>> {
        lock(&self.names).get(&site?).cloned()
    }

    /// From now on [`Ledger::changes`] has something to say.
    pub fn follow(&self) {
        self.journal.followed.store(true, Relaxed);
    }

    /// What happened since the last call, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut *lock(&self.journal.changes)).into()
    }

    /// Waits until there are changes.
    pub async fn changed(&self) {
        self.journal.more.notified().await;
    }

    /// How many changes nobody fetched in time.
    #[must_use]
    pub fn changes_lost(&self) -> u64 {
        self.journal.lost.load(Relaxed)
    }

    /// What a store remembers, or another replica found out. It is not told again.
    pub fn apply(&self, change: Change, now: Millis) {
        match change {
            Change::Banned(ban) => self.put(ban, now),
            Change::Lifted { subject, site, jail } => drop(self.lift(subject, site, jail.as_deref())),
            Change::Struck(tally, _) => {
                if let Some(mut shard) = self.shard(&tally.subject)
                    && now.apart(tally.at) < tally.find_time
                {
                    let track = shard.tracks.entry(tally.key(), now, Track::default);
                    track.fail(tally.at.min(now), tally.find_time, tally.user);
                }
            }
            Change::Forgiven(tally) => drop(self.forget(&tally)),
            Change::Began { client, site, session, at } => {
                self.begin_session(client, site, session, at.min(now));
            }
            Change::LoggedIn { client, site, at, work } => {
                self.know(client, site, at.min(now));
                if let Some((session, began)) = work {
                    self.follow_session((client, site, session), began.min(at).min(now), at.min(now), now);
                }
            }
            Change::Flushed => drop(self.clear()),
            Change::Granted { net, until } => self.grants.set(net, until, now),
        }
    }

    fn shard(&self, subject: &Subject) -> Option<MutexGuard<'_, Shard>> {
        let number = usize::try_from(self.hasher.hash_one(subject) % SHARDS as u64).ok()?;
        self.shards.get(number).map(lock)
    }

    fn recount(&self, before: usize, after: usize) {
        if after >= before {
            self.banned.fetch_add(after - before, Relaxed);
        } else {
            self.banned.fetch_sub(before - after, Relaxed);
        }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Shard {
    fn new(bounds: Bounds) -> Self {
        Self {
            bans: Shelf::new(bounds.bans / SHARDS),
            tracks: Shelf::new(bounds.failures / SHARDS),
            known: Shelf::new(bounds.known / SHARDS),
            begun: Shelf::new(BEGUN / SHARDS),
            working: Shelf::new(WORKING / SHARDS),
            under_way: Shelf::new(UNDER_WAY / SHARDS),
        }
    }

    /// When this session began, if it did so here and its use is to be noted now: the first one, and then one in
    /// [`NOTED_EACH`].
    fn note_use(&mut self, key: (Key, SiteId, SessionId), now: Millis) -> Option<Millis> {
        if let Some(working) = self.working.get_mut(&key) {
            let due = working.worth(now).is_some() && now.apart(working.noted) >= NOTED_EACH;
            return due.then(|| {
                working.noted = now;
                working.began
            });
        }
        let began = self.begun.remove(&key).filter(|begun| begun.worth(now).is_some())?.0;
        self.working.entry(key, now, || Working { began, noted: now });
        Some(began)
    }
}

impl Sentence {
    fn of(jail: &Jail, most: u32) -> Self {
        Self {
            jail: jail.name.clone(),
            most,
            ban_time: jail.ban_time,
            longest: jail.longest,
            action: jail.action,
            why: jail.place.clone(),
        }
    }
}

impl Tally {
    fn of(jail: &Jail, subject: Subject, who: &Culprit, at: Millis) -> Self {
        let site = (jail.reach == Reach::Site).then_some(who.site);
        let (jail, find_time) = (stable_hash(jail.name.as_bytes()), jail.find_time);
        Self { jail, subject, site, user: who.user, at, find_time }
    }

    fn key(&self) -> TrackKey {
        (self.jail, self.subject, self.site)
    }
}

impl Journal {
    fn note(&self, change: impl FnOnce() -> Change) {
        if !self.followed.load(Relaxed) {
            return;
        }
        let mut changes = lock(&self.changes);
        if changes.len() >= CHANGES_KEPT {
            changes.pop_front();
            self.lost.fetch_add(1, Relaxed);
        }
        changes.push_back(change());
        drop(changes);
        self.more.notify_one();
    }
}

/// How a user name is kept.
fn number(user: Option<UserId>) -> u64 {
    user.map_or(0, |user| user.0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
