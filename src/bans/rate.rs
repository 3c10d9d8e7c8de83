//! How often one client may ask: the generic cell rate algorithm (ITU-T I.371, annex A), on a table that never grows.
//!
//! A client has one number for each limit: the time at which it would have nothing left to catch up on. Numbers live in
//! sets of four on a cache line; who comes into a full set takes the place of the client that has least to catch up on,
//! so too many clients make the limits milder, never harsher, and nobody pays for another.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::Method;

use super::watch::{PathGlob, is_name};
use super::{SiteId, stable_hash};
use crate::config::complaint::Complaints;
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::Mode;
use crate::guard::path::decoded;
use crate::guard::path::glob::Glob;
use crate::refusal::{Reason, Refusal};
use crate::site::Area;

/// What no limit counts unless it says so: files, of which one page of the backend asks for hundreds at once. TYPO3's
/// rewrite rules never hand the first three to PHP, whether they exist or not (`root-htaccess`, 11 to 14); of the last
/// two, files that do not exist may reach it (`_assets` up to 13), as a 404 or a redirect of TYPO3.
const STATIC: [&str; 5] =
    ["/fileadmin/*", "/typo3temp/*", "/typo3conf/ext/*", "/_assets/*", "/typo3/sysext/*/Resources/Public/*"];

/// The limit on attempts to log in, where none of this name is written: an office behind one address at nine o'clock
/// stays below, and a guesser does not get far.
const LOGIN: (&str, Spell, u32) = ("login", Spell(Duration::from_secs(2)), 30);

/// How a limit is written: `10/s`, `30/min`, `600/h`. Kept as the time from one request to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell(Duration);

impl FromText for Spell {
    fn from_text(text: &str) -> Result<Self, Fault> {
        const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];
        let wrong = || {
            let hint = "a rate is a number from 1 to 1000000 and a unit: `10/s`, `30/min`, `600/h`, `1000/d`";
            Fault::new(format!("`{text}` is not a rate"), hint)
        };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?.1;
        let count =
            count.trim().parse::<u32>().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(wrong)?;
        Ok(Self(Duration::from_secs(seconds) / count))
    }
}

/// What was written.
#[derive(Debug)]
pub struct Raw {
    section: Placed<()>,
    name: Option<Placed<String>>,
    rate: Option<Placed<Text<Spell>>>,
    burst: Option<Placed<u64>>,
    path: Option<Vec<Placed<Text<PathGlob>>>>,
    except: Option<Vec<Placed<Text<PathGlob>>>>,
    method: Option<Vec<Placed<Text<Method>>>>,
    area: Option<Vec<Placed<Text<Area>>>>,
    site: Option<Vec<Placed<String>>>,
    mode: Option<Placed<Text<Mode>>>,
}

/// One limit, compiled.
#[derive(Debug)]
pub struct Rate {
    /// Its name, in the log.
    pub name: Box<str>,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Whether it counts attempts to log in, which its refusal says.
    is_login: bool,
    /// Whether it counts them wherever they are made, because nothing else was written.
    everywhere: bool,
    gcra: Gcra,
    id: u64,
    paths: Box<[Glob]>,
    except: Box<[Glob]>,
    methods: Box<[Method]>,
    areas: Box<[Area]>,
    sites: Box<[SiteId]>,
    place: Box<str>,
}

/// The numbers of a limit, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// From one request to the next.
    interval: u64,
    /// How far ahead of its time a client may be: `burst - 1` intervals.
    tolerance: u64,
}

/// What is asked, as far as limits want to know.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The site.
    pub site: SiteId,
    /// What part of TYPO3.
    pub area: Area,
    /// The method.
    pub method: &'a Method,
    /// The normalised path.
    pub path: &'a str,
}

impl Raw {
    /// Reads one `[[rate]]` and closes it.
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let raw = Self {
            section: Placed { value: (), place: section.place.clone() },
            name: section.get(reading, "name"),
            rate: section.get(reading, "rate"),
            burst: section.get(reading, "burst"),
            path: section.get(reading, "path").map(|list| list.value),
            except: section.get(reading, "except").map(|list| list.value),
            method: section.get(reading, "method").map(|list| list.value),
            area: section.get(reading, "area").map(|list| list.value),
            site: section.get(reading, "site").map(|list| list.value),
            mode: section.get(reading, "mode"),
        };
        section.finish(reading);
        raw
    }

    fn compile(self, complaints: &mut Complaints) -> Option<Rate> {
        let place = &self.section.place;
        let Some(name) = self.name else {
            let hint = Some("write e.g. `name = \"api\"`: the log tells limits by it".to_owned());
            complaints.error(Some(place), "this `[[rate]]` has no `name`", hint);
            return None;
        };
        if !is_name(&name.value) {
            let message = format!("`{}` cannot be the name of a limit", name.value);
            complaints.error(Some(&name.place), message, Some("small letters, digits and `-`".to_owned()));
        }
        let Some(rate) = self.rate else {
            let hint = Some("write e.g. `rate = \"10/s\"`".to_owned());
            complaints.error(Some(place), "this `[[rate]]` has no `rate`", hint);
            return None;
        };
        let burst = self.burst.as_ref().map_or(10, |burst| burst.value);
        if let Some(burst) = self.burst.filter(|burst| !(1..=1_000_000).contains(&burst.value)) {
            let hint = "how many requests may come at once; one page asks for a hundred files".to_owned();
            complaints.error(Some(&burst.place), "`rate.burst` must be 1 to 1000000", Some(hint));
        }
        let globs = |list: Vec<Placed<Text<PathGlob>>>| list.into_iter().map(|p| p.value.0.0).collect();
        let is_login = name.value == LOGIN.0;
        let everywhere = is_login && self.path.is_none() && self.method.is_none() && self.area.is_none();
        Some(Rate {
            mode: self.mode.map_or(Mode::Enforce, |mode| mode.value.0),
            gcra: Gcra::new(rate.value.0, u32::try_from(burst).unwrap_or(1)),
            id: stable_hash(name.value.as_bytes()),
            // The limit on logins is about attempts, if nothing else is said.
            methods: match self.method {
                Some(list) => list.into_iter().map(|method| method.value.0).collect(),
                None if is_login => [Method::POST].into(),
                None => [].into(),
            },
            areas: self.area.into_iter().flatten().map(|area| area.value.0).collect(),
            paths: match self.path {
                Some(list) => globs(list),
                None => [].into(),
            },
            except: self.except.map_or_else(exempt, globs),
            sites: self.site.into_iter().flatten().map(|site| SiteId::of(&site.value)).collect(),
            place: format!("{} [[rate]] {}", place.label(), name.value).into(),
            name: name.value.into(),
            is_login,
            everywhere,
        })
    }
}

fn exempt() -> Box<[Glob]> {
    STATIC.map(Glob::new).into()
}

/// The limits in the order of the file; the one on logins is there in any case.
pub(super) fn compile(raw: Vec<Raw>, complaints: &mut Complaints) -> Box<[Rate]> {
    let mut rates: Vec<Rate> = Vec::with_capacity(raw.len() + 1);
    for raw in raw {
        let place = raw.section.place.clone();
        let Some(rate) = raw.compile(complaints) else { continue };
        if rates.iter().any(|other| other.name == rate.name) {
            let hint = Some("give each `[[rate]]` a name of its own".to_owned());
            complaints.error(Some(&place), format!("the limit `{}` stands twice", rate.name), hint);
        }
        rates.push(rate);
    }
    if !rates.iter().any(|rate| rate.is_login) {
        rates.push(Rate {
            name: LOGIN.0.into(),
            mode: Mode::Enforce,
            is_login: true,
            everywhere: true,
            gcra: Gcra::new(LOGIN.1, LOGIN.2),
            id: stable_hash(LOGIN.0.as_bytes()),
            paths: [].into(),
            except: [].into(),
            methods: [Method::POST].into(),
            areas: [].into(),
            sites: [].into(),
            place: "default".into(),
        });
    }
    rates.into()
}

impl Rate {
    /// Whether it counts this request.
    #[must_use]
    pub fn counts(&self, asked: &Asked<'_>) -> bool {
        fn fits<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(fits)
        }
        fits(&self.methods, |method| method == asked.method)
            && fits(&self.areas, |area| *area == asked.area)
            && fits(&self.sites, |site| *site == asked.site)
            && fits(&self.paths, |glob| glob.matches(decoded(asked.path)))
            && (!self.is_login || !self.paths.is_empty() || !self.areas.is_empty() || is_login(asked))
            && !(matches!(*asked.method, Method::GET | Method::HEAD)
                && self.except.iter().any(|glob| glob.matches(decoded(asked.path))))
    }

    /// Whether it counts a request that turns out to be a try to log in, and has not counted it yet.
    #[must_use]
    pub fn counts_try(&self, asked: &Asked<'_>) -> bool {
        let here = self.sites.is_empty() || self.sites.contains(&asked.site);
        self.everywhere && here && !self.counts(asked)
    }

    /// The refusal of a request that has to wait.
    #[must_use]
    pub fn refusal(&self, wait: Duration) -> Refusal {
        let reason = if self.is_login { Reason::LoginRateLimited } else { Reason::RateLimited };
        let detail = format!("limit `{}` ({}): {:.1} s too early", self.name, self.place, wait.as_secs_f64());
        Refusal::new(reason, detail).retry_after(wait)
    }

    /// One more request of `client`; how long it is too early, if it is.
    pub fn ask(
        &self,
        meters: &Meters,
        client: impl Hash,
        asked: &Asked<'_>,
        now: Instant,
    ) -> Option<Duration> {
        meters.ask(&self.gcra, (self.id, asked.site, client), now)
    }
}

/// Where the forms that ask for a password are sent: the paths of the login form itself. A password may be sent to any
/// backend route (facts of TYPO3 11 to 14), and a visitor's to any page: there a look into the body tells it from other
/// work ([`Rate::counts_try`]).
fn is_login(asked: &Asked<'_>) -> bool {
    match asked.area {
        Area::Login => true,
        Area::Backend => {
            let tail = asked.path.trim_end_matches('/');
            ["/ajax/login", "/index.php"].iter().any(|end| tail.ends_with(end))
        }
        _ => false,
    }
}

impl Gcra {
    /// One request each `spell`, and `burst` at once.
    #[must_use]
    pub fn new(spell: Spell, burst: u32) -> Self {
        let interval = u64::try_from(spell.0.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.max(1) - 1)) }
    }

    /// Whether a request may pass at `now`, if its client would have caught up at `caught_up`; then when it will
    /// have, else how long it is too early.
    pub(super) fn pass(&self, caught_up: u64, now: u64) -> Result<u64, u64> {
        let ahead = caught_up.saturating_sub(now);
        match ahead.checked_sub(self.tolerance) {
            None | Some(0) => Ok(caught_up.max(now).saturating_add(self.interval)),
            Some(early) => Err(early),
        }
    }
}

/// Locks that seldom meet, and sets of four clients for each: 262,144 clients in 4 MiB.
const SHARDS: usize = 64;
const SETS: usize = 1024;

/// Where every client stands with every limit. Takes no memory before the first limit counts.
#[derive(Debug)]
pub struct Meters {
    shards: OnceLock<Box<[Shard]>>,
    /// Keyed at random: a client cannot choose addresses that push others out.
    hasher: RandomState,
    epoch: Instant,
}

/// A part of the sets behind one lock.
type Shard = Mutex<Box<[Set]>>;

/// Four clients on one cache line; a number of 0 is nobody.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([(u64, u64); 4]);

impl Meters {
    /// Nobody has asked yet. `epoch` is where time begins.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { shards: OnceLock::new(), hasher: RandomState::new(), epoch }
    }

    /// One more request of `client`; how long it is too early, if it is, and then it does not count.
    pub fn ask(&self, gcra: &Gcra, client: impl Hash, now: Instant) -> Option<Duration> {
        let hash = self.hasher.hash_one(client).max(1);
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        let shards = self.shards.get_or_init(|| {
            (0..SHARDS).map(|_| Mutex::new(vec![Set::default(); SETS].into_boxed_slice())).collect()
        });
        // Different bits for the shard and the set; all of them tell clients of one set apart.
        let shard = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        let set = usize::try_from((hash >> 32) % SETS as u64).unwrap_or(0);
        let mut sets = shards.get(shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = sets.get_mut(set)?.cell(hash)?;
        match gcra.pass(if cell.0 == hash { cell.1 } else { 0 }, now) {
            Ok(caught_up) => {
                *cell = (hash, caught_up);
                None
            }
            Err(early) => Some(Duration::from_nanos(early)),
        }
    }
}

impl Set {
    /// The cell of a client, or of the one who has least to catch up on.
    fn cell(&mut self, hash: u64) -> Option<&mut (u64, u64)> {
        self.0.iter_mut().min_by_key(|cell| if cell.0 == hash { 0 } else { cell.1.saturating_add(1) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const SECOND: u64 = 1_000_000_000;

    fn gcra(text: &str, burst: u32) -> Gcra {
        Gcra::new(Spell::from_text(text).unwrap(), burst)
    }

    #[test]
    fn rates_are_written_with_a_unit() {
        assert_eq!(Spell::from_text("10/s"), Ok(Spell(Duration::from_millis(100))));
        assert_eq!(Spell::from_text("30/min"), Ok(Spell(Duration::from_secs(2))));
        for wrong in ["10", "0/s", "10/w", "/s", "-1/s", "10/s/s", "2000000/s"] {
            let fault = Spell::from_text(wrong).unwrap_err();
            assert!(fault.message.contains("not a rate") && fault.hint.is_some(), "{wrong}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let (meters, start) = (Meters::new(clock::now()), clock::now());
        let gcra = gcra("2/s", 5);
        let ask = |millis: u64| meters.ask(&gcra, 1, start + Duration::from_millis(millis));
        assert!((0..5).all(|_| ask(0).is_none()));
        let wait = ask(0).unwrap();
        assert!(wait > Duration::from_millis(490) && wait <= Duration::from_millis(510), "{wait:?}");
        assert!(ask(501).is_none() && ask(502).is_some() && ask(1002).is_none());
        assert!(meters.ask(&gcra, 2, start).is_none(), "nobody pays for another");
    }

    #[test]
    fn many_clients_take_no_more_memory_and_pay_for_nobody() {
        let (meters, gcra, now) = (Meters::new(clock::now()), gcra("1/h", 1), clock::now());
        let first = (0..600_000_u32).filter(|client| meters.ask(&gcra, *client, now).is_none()).count();
        assert_eq!(first, 600_000, "the first request of each passes");
        assert!(meters.ask(&gcra, 599_999_u32, now).is_some(), "the newest are known");
    }

    proptest! {
        /// In any span of time no more pass than the burst and what the rate gives for it; and who waits as long as
        /// it was told passes.
        #[test]
        fn no_more_pass_than_allowed(
            gaps in prop::collection::vec(0u64..3 * SECOND, 1..80), burst in 1u32..8, rate in 1u32..5,
        ) {
            let gcra = Gcra::new(Spell(Duration::from_secs(1) / rate), burst);
            let (mut caught_up, mut now, mut passed) = (0, 0, Vec::new());
            for gap in gaps {
                now += gap;
                match gcra.pass(caught_up, now) {
                    Ok(next) => {
                        caught_up = next;
                        passed.push(now);
                    }
                    Err(early) => prop_assert!(gcra.pass(caught_up, now + early).is_ok()),
                }
            }
            for (at, from) in passed.iter().enumerate() {
                for (count, to) in passed[at..].iter().enumerate() {
                    let most = u64::from(burst) + (to - from) / gcra.interval;
                    prop_assert!(most > count as u64, "{} in {} ns", count + 1, to - from);
                }
            }
        }
    }
}
