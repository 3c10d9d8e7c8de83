//! One layer of rules (preset, level, file or site) and how layers become a site's routes.
//!
//! Layers merge by name: preset, then the preset's level, then the file, then the site. A path beats
//! all of them, a longer path beats a shorter one. All of this happens at load, so that a request
//! finds one route with everything already decided.

use std::collections::HashMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::complaint::{Complaints, Place, Source, did_you_mean};
use super::rules::{Raw, Shared};
use super::section::{Placed, Reading, Section, Text};
use crate::guard::path::Pattern;
use crate::site::{Area, Route, Routes};

/// The rules of one layer, site-wide and by path.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// The rules for everything.
    pub rules: Raw,
    /// The rules for paths.
    pub paths: Vec<PathLayer>,
    /// Whether anything stands in it at all.
    pub written: bool,
}

/// The rules that one layer has for a path.
#[derive(Clone, Debug)]
pub struct PathLayer {
    /// Which paths.
    pub pattern: Placed<Pattern>,
    /// What part of TYPO3 this is.
    pub area: Option<Area>,
    /// The rules.
    pub rules: Raw,
}

impl Layer {
    /// Reads the rule keys and every `[[path]]`; the caller closes the section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let before = section.found();
        let rules = Raw::read(section, reading);
        let paths = section
            .sections(reading, "path")
            .into_iter()
            .filter_map(|path| PathLayer::read(path, reading))
            .collect();
        Self { rules, paths, written: section.found() > before }
    }

    /// Complains about what can never take effect: rules that mean nothing inside of a site, and a path
    /// that stands twice, of which only the later one counts where both speak.
    pub fn check_inside(&self, complaints: &mut Complaints) {
        self.rules.check_inside(complaints);
        self.check_paths(complaints);
    }

    /// The part of [`Layer::check_inside`] that holds at the top of the file too.
    pub fn check_paths(&self, complaints: &mut Complaints) {
        for (index, path) in self.paths.iter().enumerate() {
            path.rules.check_inside(complaints);
            path.rules.check_path(complaints);
            let earlier = self.paths.iter().take(index).find(|p| p.pattern.value == path.pattern.value);
            if let Some(earlier) = earlier {
                let message = format!(
                    "the path `{}` stands twice: the other one is at {}",
                    path.pattern.value,
                    earlier.pattern.place.label()
                );
                let hint =
                    "put their rules into one `[[path]]`; where both speak, the later one wins".to_owned();
                complaints.warning(Some(&path.pattern.place), message, Some(hint));
            }
        }
    }

    /// Reads a whole text, such as a preset, as one layer.
    pub fn parse(source: &Arc<Source>, reading: &mut Reading<'_>) -> Self {
        let Ok(document) = DeTable::parse(&source.text) else { return Self::default() };
        let mut section = Section::root(document.get_ref(), source);
        let layer = Self::read(&mut section, reading);
        section.finish(reading);
        layer
    }
}

impl PathLayer {
    fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let place = section.place.clone();
        let path = section.get::<String>(reading, "path");
        let name = section.get::<String>(reading, "name");
        let area = section.get::<Text<Area>>(reading, "area").map(|placed| placed.value.0);
        let rules = Raw::read(&mut section, reading);
        section.finish(reading);
        let Some(path) = path else {
            let hint = Some("write e.g. `path = \"/fileadmin\"`".to_owned());
            reading.complaints.error(Some(&place), "this `[[path]]` does not say which path it is for", hint);
            return None;
        };
        match Pattern::new(&path.value, name.as_ref().map(|n| n.value.as_str())) {
            Ok(pattern) => Some(Self { pattern: Placed { value: pattern, place: path.place }, area, rules }),
            Err(fault) => {
                reading.complaints.error(Some(&path.place), fault.message, fault.hint);
                None
            }
        }
    }
}

/// What is made once for a whole configuration: presets are read once, and sites that write no rules of their
/// own share the routes of their preset.
#[derive(Debug, Default)]
pub struct Stacks {
    presets: HashMap<(Box<str>, Level), Arc<[Layer]>>,
    routes: HashMap<Stack, Arc<Routes>>,
    shared: Shared,
}

/// The preset and level that a site's rules begin with; none if its preset is unknown or `none`.
pub type Stack = Option<(Box<str>, Level)>;

impl Stacks {
    /// The layers that a site's `preset` and `level` stand for, by the name to ask for them again.
    pub fn preset(
        &mut self,
        name: &str,
        level: Level,
        place: Option<&Place>,
        reading: &mut Reading<'_>,
    ) -> Stack {
        if name == "none" {
            return None;
        }
        let key = (Box::from(name), level);
        if !self.presets.contains_key(&key) {
            let layers = preset(name, level, place, reading)?;
            self.presets.insert(key.clone(), layers.into());
        }
        Some(key)
    }

    /// The routes of a site: its preset, then the file, then what it says itself.
    pub fn routes(
        &mut self,
        stack: &Stack,
        file: &Layer,
        own: Option<&Layer>,
        complaints: &mut Complaints,
    ) -> Arc<Routes> {
        if let (None, Some(known)) = (own, self.routes.get(stack)) {
            return Arc::clone(known);
        }
        let preset = stack.as_ref().and_then(|key| self.presets.get(key)).cloned().unwrap_or_default();
        let layers: Vec<&Layer> = preset.iter().chain([file]).chain(own).collect();
        let made = Arc::new(Routes::new(routes(&layers, &mut self.shared, complaints)));
        if own.is_none() {
            self.routes.insert(stack.clone(), Arc::clone(&made));
        }
        made
    }

    /// The route of requests that belong to no site: what the safe preset and the file say about everything.
    pub fn outside(&mut self, file: &Layer, reading: &mut Reading<'_>) -> Option<Route> {
        let stack = self.preset("typo3", Level::Safe, None, reading);
        let preset = stack.and_then(|key| self.presets.get(&key)).cloned().unwrap_or_default();
        let whole = |layer: &Layer| Layer { rules: layer.rules.clone(), ..Layer::default() };
        let layers: Vec<Layer> = preset.iter().chain([file]).map(whole).collect();
        let layers: Vec<&Layer> = layers.iter().collect();
        routes(&layers, &mut self.shared, &mut reading.complaints).pop()
    }
}

/// The routes of a site from its layers, most general layer first: the most specific route first, the
/// last one covers every path.
fn routes(layers: &[&Layer], shared: &mut Shared, complaints: &mut Complaints) -> Vec<Route> {
    let base = layers.iter().fold(Raw::default(), |base, layer| base.over(layer.rules.clone(), shared));
    let mut paths: Vec<&PathLayer> = layers.iter().flat_map(|layer| &layer.paths).collect();
    // Stable: paths of equal specificity stay in the order of their layers.
    paths.sort_by_key(|path| path.pattern.value.specificity());
    let mut routes: Vec<Route> = patterns(&paths)
        .into_iter()
        .map(|pattern| {
            let mut rules = base.clone();
            let mut area = Area::Frontend;
            for path in paths.iter().filter(|path| path.pattern.value.covers(&pattern)) {
                rules = rules.over(path.rules.clone(), shared);
                area = path.area.unwrap_or(area);
            }
            rules.check(area, complaints);
            Route { pattern: Some(pattern), area, rules: rules.compile(shared, complaints) }
        })
        .collect();
    routes.reverse();
    routes.push(Route { pattern: None, area: Area::Frontend, rules: base.compile(shared, complaints) });
    routes
}

/// Every distinct pattern, and a named one (`*.pdf` below `/fileadmin`) again below each longer path
/// that it reaches into, so that one route always tells the whole story. General ones first.
fn patterns(paths: &[&PathLayer]) -> Vec<Pattern> {
    let mut all: Vec<Pattern> = Vec::new();
    for path in paths {
        let pattern = &path.pattern.value;
        let below = paths.iter().filter_map(|other| pattern.within(&other.pattern.value));
        for pattern in std::iter::once(pattern.clone()).chain(below) {
            if !all.contains(&pattern) {
                all.push(pattern);
            }
        }
    }
    all.sort_by_key(Pattern::specificity);
    all
}

/// The presets, by name and level.
const PRESETS: [(&str, &str); 2] = [
    ("typo3", include_str!("../../config/presets/typo3.toml")),
    ("typo3-strict", include_str!("../../config/presets/typo3-strict.toml")),
];

/// The names that `preset` may take.
pub const PRESET_NAMES: [&str; 2] = ["typo3", "none"];

/// The text of a preset file by its name (`typo3`, `typo3-strict`).
#[must_use]
pub fn preset_text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// The layers that a preset's name and level stand for; `None` after a complaint.
fn preset(name: &str, level: Level, place: Option<&Place>, reading: &mut Reading<'_>) -> Option<Vec<Layer>> {
    let Some(text) = preset_text(name).filter(|_| PRESET_NAMES.contains(&name)) else {
        let hint = did_you_mean(name, PRESET_NAMES).unwrap_or_else(|| "write `typo3` or `none`".to_owned());
        reading.complaints.error(place, format!("there is no preset `{name}`"), Some(hint));
        return None;
    };
    let mut layers = vec![built_in(&format!("preset {name}"), text, reading)];
    if let Some(text) = (level == Level::Strict).then(|| preset_text(&format!("{name}-strict"))).flatten() {
        layers.push(built_in(&format!("preset {name}, level strict"), text, reading));
    }
    Some(layers)
}

fn built_in(name: &str, text: &str, reading: &mut Reading<'_>) -> Layer {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    Layer::parse(&source, reading)
}

/// How far a preset goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Cannot break a working site.
    #[default]
    Safe,
    /// Adds what can break something, each rule with its reason.
    Strict,
}

impl super::section::FromText for Level {
    fn from_text(text: &str) -> Result<Self, super::section::Fault> {
        super::units::choice(text, &[("safe", Self::Safe), ("strict", Self::Strict)])
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use super::super::load_text;
    use super::*;
    use crate::generation::Generation;

    const PLAIN: &str = "upstream = \"http://127.0.0.1:8080\"\npreset = \"typo3\"\n";

    fn load(sites: &[&str]) -> Generation {
        let mut text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\n".to_owned();
        for (index, site) in sites.iter().enumerate() {
            writeln!(text, "[[site]]\nhosts = [\"s{index}.example.org\"]\n{PLAIN}{site}").unwrap();
        }
        let loaded = load_text("test.toml", text, PathBuf::new());
        loaded.generation.unwrap_or_else(|| panic!("{}", loaded.complaints))
    }

    #[test]
    fn sites_that_say_nothing_themselves_share_their_routes() {
        let generation =
            load(&["", "", "level = \"strict\"", "level = \"strict\"", "[site.hsts]\nenabled = false"]);
        let same = |a: usize, b: usize| Arc::ptr_eq(&generation.sites[a].routes, &generation.sites[b].routes);
        assert!(same(0, 1) && same(2, 3));
        assert!(!same(0, 2) && !same(0, 4) && !same(2, 4));
    }

    #[test]
    fn sites_that_leave_the_headers_alone_share_what_they_mean() {
        let path = "[[site.path]]\npath = \"/api\"\nmethods = [\"GET\"]";
        let generation = load(&["", "body_size = \"1 MiB\"", path]);
        let plain: Vec<_> = generation.sites[0].routes.iter().map(|route| &route.rules.harden).collect();
        for site in &generation.sites[1..] {
            for route in site.routes.iter() {
                assert!(
                    plain.iter().any(|known| Arc::ptr_eq(known, &route.rules.harden)),
                    "{}",
                    route.label()
                );
            }
        }
        assert_eq!(generation.sites[1].routes[0].rules.size.body_size, 1 << 20);
        assert_ne!(generation.sites[0].routes[0].rules.size.body_size, 1 << 20);
    }

    #[test]
    fn every_site_with_a_fault_is_named() {
        let site = |preset: &str| {
            format!("[[site]]\nhosts = [\"{preset}.test\"]\nupstream = \"http://a\"\npreset = \"{preset}\"\n")
        };
        let text = ["tpyo3", "typo3", "tpyo3"].map(site).concat();
        let said = load_text("test.toml", text, PathBuf::new()).complaints.to_string();
        assert_eq!(said.matches("there is no preset `tpyo3`").count(), 2, "{said}");
        assert!(said.contains("test.toml:4") && said.contains("test.toml:12"), "{said}");
    }
}
