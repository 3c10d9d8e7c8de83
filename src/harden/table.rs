//! The `[headers]` table: reading it, merging layers by name, compiling it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::describe::Said;
use super::rule::{Verb, Written};
use super::{intern, lint};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Item, Placed, Reading, Section};

/// What one layer (or all of them, merged) says about headers, by name in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    /// Shared by the layers that were merged: each path of a site has all of its rules.
    written: BTreeMap<Arc<str>, Arc<Written>>,
}

/// `X-TYPO3-*` or `*-Debug`: the part that names share, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wildcard {
    /// Names that begin so.
    Prefix(Box<str>),
    /// Names that end so.
    Suffix(Box<str>),
}

impl Raw {
    /// Reads `[headers]` if it is there.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let mut raw = Self::default();
        let Some(mut block) = section.section(reading, "headers") else { return raw };
        for (name, item) in block.entries() {
            raw.entry(name, &item, reading);
        }
        raw
    }

    fn entry(&mut self, name: Placed<String>, item: &Item<'_>, reading: &mut Reading<'_>) {
        let lower = name.value.to_ascii_lowercase();
        if !name_is_good(&lower, &name.place, &mut reading.complaints) {
            return;
        }
        let place = name.place.clone();
        let Some(written) = Written::read(name, &lower, item, reading) else { return };
        if lower.contains('*') && written.rules.iter().any(|rule| !matches!(rule.verb, Verb::Unset)) {
            let hint = Some("write `false`; everything else needs the whole name".to_owned());
            reading.complaints.error(Some(&place), format!("`{}` can only be removed", written.name), hint);
            return;
        }
        if let Some(before) = self.written.insert(lower.into(), Arc::new(written)) {
            let message =
                format!("`{}` is written twice here, at line {} too", before.name, before.place.line());
            let hint =
                "header names do not know case; several operations stand in one list: `[{ … }, { … }]`";
            reading.complaints.error(Some(&place), message, Some(hint.to_owned()));
        }
    }

    /// This layer with a more specific one over it, name by name.
    pub(super) fn over(mut self, specific: Self) -> Self {
        self.written.extend(specific.written);
        self
    }

    /// What is written about exact names.
    pub(super) fn exact(&self) -> impl Iterator<Item = (HeaderName, &Written)> {
        let plain = self.written.iter().filter(|(name, _)| !name.contains('*'));
        plain.filter_map(|(name, written)| Some((intern::name(name)?, &**written)))
    }

    /// The wildcards that remove.
    pub(super) fn wildcards(&self) -> impl Iterator<Item = (Wildcard, &Written)> {
        let removing = self.written.iter().filter(|(_, written)| !written.rules.is_empty());
        removing.filter_map(|(name, written)| Some((Wildcard::new(name)?, &**written)))
    }

    /// The rules about `name` (lower case), if any layer wrote some.
    pub(super) fn about(&self, name: &str) -> Option<&Written> {
        self.written.get(name).map(Arc::as_ref)
    }

    /// Which line decides each header, for `explain`.
    pub(super) fn describe(&self) -> impl Iterator<Item = Said> {
        self.written.values().flat_map(|written| {
            let said = |rule: String, place: &Place| Said {
                header: written.name.clone(),
                rule,
                place: place.clone(),
            };
            let mut all: Vec<Said> = written
                .rules
                .iter()
                .map(|rule| said(format!("{}{}", rule.verb.describe(), rule.when.describe()), &rule.place))
                .collect();
            if all.is_empty() {
                all.push(said("no rule; the origin's own value passes".to_owned(), &written.place));
            }
            all
        })
    }
}

impl Wildcard {
    fn new(name: &str) -> Option<Self> {
        match (name.strip_suffix('*'), name.strip_prefix('*')) {
            (Some(prefix), None) => Some(Self::Prefix(prefix.into())),
            (None, Some(suffix)) => Some(Self::Suffix(suffix.into())),
            _ => None,
        }
    }

    /// Whether `name`, in lower case, is meant.
    pub(super) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Prefix(prefix) => name.starts_with(&**prefix),
            Self::Suffix(suffix) => name.ends_with(&**suffix),
        }
    }
}

fn name_is_good(lower: &str, place: &Place, complaints: &mut Complaints) -> bool {
    let star = lower.contains('*');
    let stem = lower.strip_suffix('*').or_else(|| lower.strip_prefix('*')).unwrap_or(lower);
    if stem.contains('*') || intern::name(stem).is_none() {
        let hint = if star {
            "one `*`, at the end or at the beginning: `X-TYPO3-*`"
        } else {
            "letters, digits and `-`"
        };
        complaints.error(Some(place), format!("`{lower}` is not a header name"), Some(hint.to_owned()));
        return false;
    }
    lint::name(lower, place, complaints)
}
