//! May this address see this part of the site, now?
//!
//! Of all lines that are about a path, those for the longest path decide; among them deny beats allow.

use std::net::IpAddr;
use std::time::SystemTime;

use super::hours::{Hours, Window, Zone};
use super::path::Pattern;
use crate::client::cidr::NetSet;
use crate::client::networks::{self, Networks};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};
use crate::refusal::{Reason, Refusal};
use crate::site::{Area, Route};

/// What one `[[site.access]]` says.
#[derive(Clone, Debug)]
pub struct Raw {
    place: Place,
    area: Option<Placed<Text<Area>>>,
    path: Option<Placed<String>>,
    allow: Option<Placed<Vec<Placed<Networks>>>>,
    deny: Option<Placed<Vec<Placed<Networks>>>>,
    except: Option<Placed<Vec<Placed<String>>>>,
    hours: Option<Placed<Vec<Placed<Text<Window>>>>>,
    zone: Option<Placed<Text<Zone>>>,
}

/// Every line of a site, those for long paths first.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    lines: Box<[Line]>,
}

/// One line, for one path.
#[derive(Clone, Debug)]
pub struct Line {
    pattern: Pattern,
    /// Only where this part of TYPO3 is, if an area was written.
    area: Option<Area>,
    except: Box<[Pattern]>,
    /// None lets everybody in who is not denied.
    allow: Option<NetSet>,
    deny: NetSet,
    hours: Option<Hours>,
    /// `file:line`.
    label: Box<str>,
}

/// What the lines say.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'p> {
    /// No line is about the path.
    Unsaid,
    /// This line lets the client in.
    Allowed(&'p Line),
    /// This line does not.
    Denied(&'p Line, Why),
}

/// Why a line lets a client not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It stands in `deny`.
    Listed,
    /// It does not stand in `allow`.
    NotListed,
    /// It stands in `allow`, and `hours` are over.
    Closed,
}

impl Raw {
    /// Reads every `[[site.access]]`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Vec<Self> {
        let lines = section.sections(reading, "access").into_iter();
        let lines = lines.map(|mut line| {
            let raw = Self {
                place: line.place.clone(),
                area: line.get(reading, "area"),
                path: line.get(reading, "path"),
                allow: line.get(reading, "allow"),
                deny: line.get(reading, "deny"),
                except: line.get(reading, "except"),
                hours: line.get(reading, "hours"),
                zone: line.get(reading, "time_zone"),
            };
            line.finish(reading);
            raw
        });
        lines.collect()
    }

    /// The lines of a site whose routes say where its areas are.
    pub fn compile(all: &[Self], routes: &[Route], complaints: &mut Complaints) -> Policy {
        let mut lines: Vec<Line> = all.iter().flat_map(|raw| raw.lines(routes, complaints)).collect();
        // Stable: lines for one path stay in the order of the file.
        lines.sort_by_key(|line| std::cmp::Reverse(line.pattern.specificity()));
        Policy { lines: lines.into() }
    }

    fn lines(&self, routes: &[Route], complaints: &mut Complaints) -> Vec<Line> {
        let places = self.places(routes, complaints);
        if self.allow.is_none() && self.deny.is_none() && self.hours.is_none() {
            let hint = "write `allow = [\"203.0.113.0/24\"]`, `deny` or `hours`".to_owned();
            complaints.error(
                Some(&self.place),
                "this `[[site.access]]` does not say who may come, or when",
                Some(hint),
            );
        }
        let except = self.exceptions(&places, complaints);
        let hours = self.hours(complaints);
        let set = |list: &Option<Placed<Vec<Placed<Networks>>>>| -> Option<NetSet> {
            list.as_ref().map(|list| networks::all(&list.value).collect())
        };
        let (allow, deny) = (set(&self.allow), set(&self.deny).unwrap_or_default());
        let line = |(pattern, area)| Line {
            pattern,
            area,
            except: except.clone(),
            allow: allow.clone(),
            deny: deny.clone(),
            hours: hours.clone(),
            label: self.place.label().into(),
        };
        places.into_iter().map(line).collect()
    }

    /// Where it holds: at its path, or wherever its area begins.
    fn places(&self, routes: &[Route], complaints: &mut Complaints) -> Vec<(Pattern, Option<Area>)> {
        match (&self.path, &self.area) {
            (Some(path), None) => {
                pattern(path, complaints).map(|pattern| (pattern, None)).into_iter().collect()
            }
            (None, Some(area)) => {
                let begins = begins(routes, area.value.0);
                if begins.is_empty() {
                    let message = format!("no path of this site has the area `{}`", area.value.0.word());
                    let hint =
                        "write `path`, or give a `[[site.path]]` this area; the preset `typo3` has them"
                            .to_owned();
                    complaints.error(Some(&area.place), message, Some(hint));
                }
                begins.into_iter().map(|pattern| (pattern, Some(area.value.0))).collect()
            }
            (path, _) => {
                let message = if path.is_some() {
                    "this `[[site.access]]` has a `path` and an `area`"
                } else {
                    "this `[[site.access]]` does not say what it is for"
                };
                let hint = "write one of `area = \"backend\"` and `path = \"/typo3\"`".to_owned();
                complaints.error(Some(&self.place), message, Some(hint));
                Vec::new()
            }
        }
    }

    fn exceptions(&self, places: &[(Pattern, Option<Area>)], complaints: &mut Complaints) -> Box<[Pattern]> {
        let mut patterns = Vec::new();
        for path in self.except.iter().flat_map(|list| &list.value) {
            let Some(pattern) = pattern(path, complaints) else { continue };
            if !places.is_empty() && !places.iter().any(|(place, _)| place.covers(&pattern)) {
                let message = format!("`except`: `{pattern}` lies outside of what this line is for");
                let hint = "an exception is a path below it, such as `/typo3/reaction`".to_owned();
                complaints.warning(Some(&path.place), message, Some(hint));
            }
            patterns.push(pattern);
        }
        patterns.into()
    }

    fn hours(&self, complaints: &mut Complaints) -> Option<Hours> {
        let (Some(hours), zone) = (&self.hours, &self.zone) else {
            if let Some(zone) = &self.zone {
                let hint = "delete it, or add e.g. `hours = \"Mon-Fri 07:00-19:00\"`".to_owned();
                complaints.warning(
                    Some(&zone.place),
                    "`time_zone` means nothing without `hours`",
                    Some(hint),
                );
            }
            return None;
        };
        if zone.is_none() {
            let hint = "write e.g. `time_zone = \"Europe/Berlin\"`, or `\"UTC\"` if you mean it".to_owned();
            complaints.warning(
                Some(&hours.place),
                "`hours` without `time_zone` are taken as UTC",
                Some(hint),
            );
        }
        let zone = zone.as_ref().map_or(jiff::tz::TimeZone::UTC, |zone| zone.value.0.0.clone());
        Some(Hours::new(hours.value.iter().map(|window| window.value.0), zone))
    }
}

fn pattern(path: &Placed<String>, complaints: &mut Complaints) -> Option<Pattern> {
    Pattern::new(&path.value, None)
        .map_err(|fault| complaints.error(Some(&path.place), fault.message, fault.hint))
        .ok()
}

/// Where an area begins: routes that have it and do not lie in another one that has it too. `routes` are sorted, the
/// most specific one first.
fn begins(routes: &[Route], area: Area) -> Vec<Pattern> {
    let covers = |wide: &Route, route: &Route| match (&wide.pattern, &route.pattern) {
        (None, _) => true,
        (Some(wide), Some(pattern)) => wide.covers(pattern),
        (Some(_), None) => false,
    };
    let mut begins = Vec::new();
    for (at, route) in routes.iter().enumerate().filter(|(_, route)| route.area == area) {
        let around = routes.iter().skip(at + 1).find(|wide| covers(wide, route));
        if around.is_none_or(|around| around.area != area) {
            let everything = || Pattern::new("/", None).ok();
            begins.extend(route.pattern.clone().or_else(everything));
        }
    }
    begins
}

/// Where passwords are entered lies in the part of the site that is entered with them.
fn includes(written: Area, area: Area) -> bool {
    written == area || (written == Area::Backend && area == Area::Login)
}

impl Line {
    fn is_about(&self, path: &str, area: Area) -> bool {
        self.pattern.matches(path)
            && self.area.is_none_or(|written| includes(written, area))
            && !self.except.iter().any(|except| except.matches(path))
    }

    /// Whether it lets nobody in who is not allowed now.
    fn restricts(&self) -> bool {
        self.allow.is_some() || self.hours.is_some()
    }

    /// The line as `explain` and the log name it.
    fn shown(&self) -> String {
        let area = self.area.map_or(String::new(), |area| format!(" (area {})", area.word()));
        format!("{}, for {}{area}", self.label, self.pattern)
    }
}

/// What the lines say of `client` at a normalised path.
#[must_use]
pub fn judge<'p>(policy: &'p Policy, path: &str, area: Area, client: IpAddr, now: SystemTime) -> Verdict<'p> {
    let mut about = policy.lines.iter().filter(|line| line.is_about(path, area)).peekable();
    let Some(first) = about.peek().copied() else { return Verdict::Unsaid };
    let depth = first.pattern.specificity();
    let (mut allowed, mut denied) = (None, None);
    for line in about.take_while(|line| line.pattern.specificity() == depth) {
        if line.deny.contains(client) {
            return Verdict::Denied(line, Why::Listed);
        }
        let listed = line.allow.as_ref().is_none_or(|allow| allow.contains(client));
        if listed && line.hours.as_ref().is_none_or(|hours| hours.open(now)) {
            // A line that only denies lets nobody in whom another one keeps out.
            if line.restricts() {
                allowed = allowed.or(Some(line));
            }
        } else if listed {
            denied = Some((line, Why::Closed));
        } else {
            denied = denied.or(Some((line, Why::NotListed)));
        }
    }
    match (allowed, denied) {
        (None, Some((line, why))) => Verdict::Denied(line, why),
        (Some(line), _) => Verdict::Allowed(line),
        (None, None) => Verdict::Allowed(first),
    }
}

/// Refuses a client that no line lets in.
pub fn check(
    policy: &Policy,
    path: &str,
    area: Area,
    client: IpAddr,
    now: SystemTime,
) -> Result<(), Refusal> {
    match judge(policy, path, area, client, now) {
        Verdict::Denied(line, why) => {
            let because = match (why, &line.hours) {
                (Why::Listed, _) => "stands in `deny` of".to_owned(),
                (Why::Closed, Some(hours)) => format!("comes outside of {hours}, by"),
                _ => "does not stand in `allow` of".to_owned(),
            };
            Err(Refusal::new(Reason::SourceDenied, format!("{client} {because} {}", line.shown())))
        }
        Verdict::Unsaid | Verdict::Allowed(_) => Ok(()),
    }
}

/// Which line decided that a client may pass, for `ravelin explain`.
#[must_use]
pub fn describe(policy: &Policy, path: &str, area: Area, client: IpAddr, now: SystemTime) -> String {
    match judge(policy, path, area, client, now) {
        Verdict::Unsaid => "open to everybody: no `[[site.access]]` is about this path".to_owned(),
        Verdict::Allowed(line) => format!("{client} may come, by {}", line.shown()),
        Verdict::Denied(line, _) => {
            format!("{client} is kept out by {}, if the rule were enforced", line.shown())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::load_text;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        lines: String,
        #[serde(default)]
        preset: Option<String>,
        #[serde(default = "noon")]
        now: String,
        #[serde(default, rename = "in")]
        inside: Vec<String>,
        #[serde(default)]
        out: Vec<String>,
        #[serde(default)]
        says: Vec<String>,
    }

    /// A Monday.
    fn noon() -> String {
        "2026-07-06T10:00:00Z".to_owned()
    }

    #[test]
    fn the_corpus_of_lines() {
        let corpus: Vec<Case> =
            serde_norway::from_str(include_str!("../../tests/corpus/access.yaml")).unwrap();
        assert!(corpus.len() >= 20);
        for case in corpus {
            let preset = case.preset.as_deref().unwrap_or("typo3");
            let text = format!(
                "[[listen]]\nurl = \"http://127.0.0.1:0\"\nplain = \"serve\"\n[[site]]\nhosts = [\"a.test\"]\n\
                 upstream = \"http://127.0.0.1:1\"\npreset = \"{preset}\"\n{}",
                case.lines
            );
            let loaded = load_text("test.toml", text, std::path::PathBuf::new());
            let said = loaded.complaints.to_string();
            assert_eq!(case.says.is_empty(), loaded.complaints.is_empty(), "{}: {said}", case.name);
            for part in &case.says {
                assert!(said.contains(part), "{}: it should say {part:?}, but said {said}", case.name);
            }
            let Some(generation) = loaded.generation else { continue };
            let site = &generation.sites[0];
            let now = case.now.parse::<jiff::Timestamp>().unwrap().into();
            for (entries, expected) in [(&case.inside, true), (&case.out, false)] {
                for entry in entries {
                    let (path, addr) = entry.split_once(' ').unwrap();
                    let addr: IpAddr = addr.trim_matches('"').parse().unwrap();
                    let area = site.route(path).unwrap().area;
                    let found = check(&site.access, path, area, addr, now);
                    assert_eq!(found.is_ok(), expected, "{}: {entry}: {found:?}", case.name);
                }
            }
        }
    }
}
