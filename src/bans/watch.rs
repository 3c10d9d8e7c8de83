//! A jail of the operator's own: which answers are failures.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::jail::Jail;
use super::policy::Terms;
use super::{Ban, SiteId};
use crate::config::complaint::Complaints;
use crate::config::section::{Fault, FromText, FromToml, Item, Placed, Reading, Section, Text};
use crate::config::units::Mode;
use crate::guard::path::decoded;
use crate::guard::path::glob::Glob;
use crate::harden::status_range;
use crate::site::Area;

/// What was written.
#[derive(Debug)]
pub struct Raw {
    section: Placed<()>,
    name: Option<Placed<String>>,
    matching: Match,
    terms: Terms,
    mode: Option<Placed<Text<Mode>>>,
}

/// Which exchanges count: all that was written must fit.
#[derive(Debug, Default)]
struct Match {
    paths: Vec<Placed<Text<PathGlob>>>,
    methods: Vec<Placed<Text<Method>>>,
    statuses: Vec<Placed<Status>>,
    areas: Vec<Placed<Text<Area>>>,
    sites: Vec<Placed<String>>,
}

/// A jail and what it watches.
#[derive(Debug)]
pub struct Watch {
    /// The jail.
    pub jail: Jail,
    paths: Box<[Glob]>,
    methods: Box<[Method]>,
    statuses: Box<[(u16, u16)]>,
    areas: Box<[Area]>,
    sites: Box<[SiteId]>,
}

/// What is known of an exchange once its status is.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The site.
    pub site: SiteId,
    /// What part of TYPO3 it asked.
    pub area: Area,
    /// The method.
    pub method: &'a Method,
    /// The normalised path; of requests whose path nobody could read, what they wrote.
    pub path: &'a str,
    /// The status of the answer.
    pub status: StatusCode,
}

/// A glob over a whole path.
#[derive(Clone, Debug)]
pub(super) struct PathGlob(pub(super) Glob);

impl FromText for PathGlob {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.starts_with(['/', '*']) {
            return Ok(Self(Glob::new(text)));
        }
        let message = format!("`{text}` can never match: every path begins with a slash");
        Err(Fault::new(message, format!("write `/{text}`, or `*{text}` for every path that ends so")))
    }
}

/// A status (`404`), a class (`\"4xx\"`) or a range (`\"500-503\"`).
#[derive(Clone, Copy, Debug)]
struct Status(u16, u16);

impl FromToml for Status {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let text = if item.is_text() {
            String::from_toml(item, reading)?
        } else {
            u64::from_toml(item, reading)?.to_string()
        };
        match status_range(text.trim()) {
            Ok((from, to)) => Some(Self(from, to)),
            Err(message) => {
                reading.complaints.error(Some(&item.place), message, None);
                None
            }
        }
    }
}

impl Raw {
    /// Reads one `[[jail]]` and closes it.
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let raw = Self {
            section: Placed { value: (), place: section.place.clone() },
            name: section.get(reading, "name"),
            matching: section
                .section(reading, "match")
                .map(|matching| Match::read(matching, reading))
                .unwrap_or_default(),
            terms: Terms::read(&mut section, reading),
            mode: section.get(reading, "mode"),
        };
        section.finish(reading);
        raw
    }
}

impl Match {
    fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        fn list<T: FromToml>(
            section: &mut Section<'_>,
            reading: &mut Reading<'_>,
            key: &'static str,
        ) -> Vec<Placed<T>> {
            section.get::<Vec<Placed<T>>>(reading, key).map(|list| list.value).unwrap_or_default()
        }
        let matching = Self {
            paths: list(&mut section, reading, "path"),
            methods: list(&mut section, reading, "method"),
            statuses: list(&mut section, reading, "status"),
            areas: list(&mut section, reading, "area"),
            sites: list(&mut section, reading, "site"),
        };
        section.finish(reading);
        matching
    }

    fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.methods.is_empty() && self.statuses.is_empty() && self.areas.is_empty()
    }
}

/// The jails; what they do not say, they take from `[bans]`.
pub(super) fn compile(raw: Vec<Raw>, base: &Jail, complaints: &mut Complaints) -> Box<[Watch]> {
    let mut watches: Vec<Watch> = Vec::with_capacity(raw.len());
    for raw in raw {
        let place = &raw.section.place;
        let Some(name) = raw.name else {
            let hint =
                Some("write e.g. `name = \"scanners\"`: the log and the metrics tell jails by it".into());
            complaints.error(Some(place), "this `[[jail]]` has no `name`", hint);
            continue;
        };
        let taken = [&*base.name, Ban::BY_HAND, Ban::CROSS_SITE, Ban::NETWORK].contains(&&*name.value)
            || watches.iter().any(|other| *other.jail.name == *name.value);
        if taken || !is_name(&name.value) {
            let message = format!("`{}` cannot be the name of this jail", name.value);
            let hint = "small letters, digits and `-`; each name once, and none of `login`, `login-cross-site`, `login-network` and `by-hand`";
            complaints.error(Some(&name.place), message, Some(hint.to_owned()));
        }
        if raw.matching.is_empty() {
            let hint =
                "write e.g. `match = { path = \"/wp-login.php\" }` or `match = { status = [401, 403] }`";
            complaints.error(Some(place), "this `[[jail]]` would count every request", Some(hint.to_owned()));
        }
        let jail = Jail {
            name: Arc::from(&*name.value),
            place: format!("{} [[jail]] {}", place.label(), name.value).into(),
            mode: raw.mode.map_or(Mode::Enforce, |mode| mode.value.0),
            user_retry: None,
            ..base.clone()
        };
        watches.push(Watch {
            jail: raw.terms.compile(jail, "jail", complaints),
            paths: raw.matching.paths.into_iter().map(|path| path.value.0.0).collect(),
            methods: raw.matching.methods.into_iter().map(|method| method.value.0).collect(),
            statuses: raw.matching.statuses.into_iter().map(|s| (s.value.0, s.value.1)).collect(),
            areas: raw.matching.areas.into_iter().map(|area| area.value.0).collect(),
            sites: raw.matching.sites.into_iter().map(|site| SiteId::of(&site.value)).collect(),
        });
    }
    watches.into()
}

/// Names stand in metrics labels and log lines.
pub(super) fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Watch {
    /// Whether this exchange is a failure to it.
    #[must_use]
    pub fn sees(&self, exchange: &Exchange<'_>) -> bool {
        fn fits<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(fits)
        }
        let status = exchange.status.as_u16();
        fits(&self.statuses, |(from, to)| (*from..=*to).contains(&status))
            && fits(&self.methods, |method| method == exchange.method)
            && fits(&self.areas, |area| *area == exchange.area)
            && fits(&self.sites, |site| *site == exchange.site)
            && fits(&self.paths, |glob| glob.matches(decoded(exchange.path)))
    }
}
