//! Strict-Transport-Security: the `[hsts]` block and the value it means.
//!
//! The rules are those that RFC 6797 asks for and that sozu distilled from practice: `enabled` must be
//! written, so that off and inherited are told apart; `max_age = "0 s"` is the kill switch; never on
//! plain HTTP (section 7.2), whoever set it; never for names that exist on developers' machines only.

use std::time::Duration;

use http::HeaderValue;

use super::describe::Said;
use super::intern;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};

/// One year, which browsers' preload lists ask for and the preset uses.
const YEAR: Duration = Duration::from_hours(365 * 24);
const DAY: Duration = Duration::from_hours(24);

/// What one layer wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    enabled: Option<Placed<bool>>,
    max_age: Option<Placed<Duration>>,
    include_subdomains: Option<Placed<bool>>,
    preload: Option<Placed<bool>>,
    replace: Option<Placed<bool>>,
}

/// What it means on TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing is added; the origin's own value passes.
    #[default]
    Off,
    /// Added where the origin has none.
    Fill(HeaderValue),
    /// Replaces the origin's.
    Set(HeaderValue),
}

impl Raw {
    /// Reads `[hsts]` if it is there.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut block) = section.section(reading, "hsts") else { return Self::default() };
        let raw = Self {
            enabled: block.get(reading, "enabled"),
            max_age: block.get::<Text<Duration>>(reading, "max_age").map(|age| age.map(|text| text.0)),
            include_subdomains: block.get(reading, "include_subdomains"),
            preload: block.get(reading, "preload"),
            replace: block.get(reading, "override"),
        };
        let place = block.place.clone();
        block.finish(reading);
        if raw.enabled.is_none() {
            let hint = "write `enabled = true`, or `enabled = false` to let only the origin's own value pass";
            reading.complaints.error(Some(&place), "`[hsts]` needs `enabled`", Some(hint.to_owned()));
        }
        raw
    }

    /// This layer with a more specific one over it, key by key.
    pub(super) fn over(self, specific: Self) -> Self {
        Self {
            enabled: specific.enabled.or(self.enabled),
            max_age: specific.max_age.or(self.max_age),
            include_subdomains: specific.include_subdomains.or(self.include_subdomains),
            preload: specific.preload.or(self.preload),
            replace: specific.replace.or(self.replace),
        }
    }

    /// Checks the merged block and builds the value.
    pub(super) fn compile(&self, complaints: &mut Complaints) -> Policy {
        if !is_true(self.enabled.as_ref()) {
            return Policy::Off;
        }
        self.lint(complaints);
        // Digits and words of our own: always a value.
        let Some(value) = intern::value(&self.text()) else { return Policy::Off };
        if is_true(self.replace.as_ref()) { Policy::Set(value) } else { Policy::Fill(value) }
    }

    fn age(&self) -> Duration {
        self.max_age.as_ref().map_or(YEAR, |age| age.value)
    }

    fn text(&self) -> String {
        let mut text = format!("max-age={}", self.age().as_secs());
        if is_true(self.include_subdomains.as_ref()) {
            text.push_str("; includeSubDomains");
        }
        if is_true(self.preload.as_ref()) {
            text.push_str("; preload");
        }
        text
    }

    fn lint(&self, complaints: &mut Complaints) {
        let age = self.age();
        let place = self.max_age.as_ref().map(|age| &age.place);
        if age > Duration::ZERO && age < DAY {
            let hint = "write `365 d`, or `0 s` to make browsers forget it";
            let message = "`hsts.max_age` below one day protects nobody";
            complaints.warning(place, message, Some(hint.to_owned()));
        }
        if is_true(self.preload.as_ref()) && (age < YEAR || !is_true(self.include_subdomains.as_ref())) {
            let place = self.preload.as_ref().map(|preload| &preload.place);
            let hint = "the preload lists accept it only with `max_age = \"365 d\"` or more and \
                        `include_subdomains = true`";
            complaints.warning(
                place,
                "`hsts.preload` will be refused by the preload lists",
                Some(hint.to_owned()),
            );
        }
    }

    /// Which line decides, for `explain`.
    pub(super) fn describe(&self) -> Option<Said> {
        let enabled = self.enabled.as_ref()?;
        let place = self.max_age.as_ref().map_or(&enabled.place, |age| &age.place);
        let rule = match (enabled.value, is_true(self.replace.as_ref())) {
            (false, _) => "off; the origin's own value passes".to_owned(),
            (true, false) => format!("setifempty \"{}\" on TLS, not for development hosts", self.text()),
            (true, true) => format!("set \"{}\" on TLS, not for development hosts", self.text()),
        };
        Some(Said { header: "Strict-Transport-Security".to_owned(), rule, place: Place::clone(place) })
    }
}

fn is_true(placed: Option<&Placed<bool>>) -> bool {
    placed.is_some_and(|placed| placed.value)
}
