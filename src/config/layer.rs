//! One layer of rules (preset, level, file or site) and how layers become a site's routes.
//!
//! Layers merge by name: preset, then the preset's level, then the file, then the site. A path beats
//! all of them, a longer path beats a shorter one. All of this happens at load, so that a request
//! finds one route with everything already decided.

use std::sync::Arc;

use toml::de::DeTable;

use super::complaint::{Complaints, Place, Source, did_you_mean};
use super::rules::Raw;
use super::section::{Placed, Reading, Section, Text};
use crate::guard::path::Pattern;
use crate::site::{Area, Route};

/// The rules of one layer, site-wide and by path.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// The rules for everything.
    pub rules: Raw,
    /// The rules for paths.
    pub paths: Vec<PathLayer>,
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
        let rules = Raw::read(section, reading);
        let paths = section
            .sections(reading, "path")
            .into_iter()
            .filter_map(|path| PathLayer::read(path, reading))
            .collect();
        Self { rules, paths }
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

/// The routes of a site from its layers, most general layer first: the most specific route first, the
/// last one covers every path.
pub fn routes(layers: &[Layer], complaints: &mut Complaints) -> Vec<Route> {
    let base = layers.iter().fold(Raw::default(), |base, layer| base.over(layer.rules.clone()));
    let mut paths: Vec<&PathLayer> = layers.iter().flat_map(|layer| &layer.paths).collect();
    // Stable: paths of equal specificity stay in the order of their layers.
    paths.sort_by_key(|path| path.pattern.value.specificity());
    let mut routes: Vec<Route> = patterns(&paths)
        .into_iter()
        .map(|pattern| {
            let mut rules = base.clone();
            let mut area = Area::Frontend;
            for path in paths.iter().filter(|path| path.pattern.value.covers(&pattern)) {
                rules = rules.over(path.rules.clone());
                area = path.area.unwrap_or(area);
            }
            rules.check(area, complaints);
            Route { pattern: Some(pattern), area, rules: rules.compile(complaints) }
        })
        .collect();
    routes.reverse();
    routes.push(Route { pattern: None, area: Area::Frontend, rules: base.compile(complaints) });
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

/// The layers that a site's `preset` and `level` stand for.
pub fn preset(name: &str, level: Level, place: Option<&Place>, reading: &mut Reading<'_>) -> Vec<Layer> {
    if name == "none" {
        return Vec::new();
    }
    let Some(text) = preset_text(name).filter(|_| PRESET_NAMES.contains(&name)) else {
        let hint = did_you_mean(name, PRESET_NAMES).unwrap_or_else(|| "write `typo3` or `none`".to_owned());
        reading.complaints.error(place, format!("there is no preset `{name}`"), Some(hint));
        return Vec::new();
    };
    let mut layers = vec![built_in(&format!("preset {name}"), text, reading)];
    if let Some(text) = (level == Level::Strict).then(|| preset_text(&format!("{name}-strict"))).flatten() {
        layers.push(built_in(&format!("preset {name}, level strict"), text, reading));
    }
    layers
}

fn built_in(name: &str, text: &str, reading: &mut Reading<'_>) -> Layer {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    Layer::parse(&source, reading)
}

/// How far a preset goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
