//! The rules that merge: what may stand at the top of the file, in a site, in a path, and in a preset.

use std::sync::Arc;
use std::time::Duration;

use super::complaint::{Complaints, Place};
use super::section::{Placed, Reading, Section, Text};
use crate::guard::{headers, method, modes, size, upgrade};
use crate::harden;
use crate::refusal::Reason;
use crate::site::Area;
use crate::step::Step;

/// What one layer wrote. Everything is optional: what a layer does not mention, it does not touch.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    modes: modes::Raw,
    methods: method::Raw,
    headers: headers::Raw,
    size: size::Raw,
    upgrade: upgrade::Raw,
    first_byte: Option<Placed<Duration>>,
    /// None where nothing was written: most paths leave the headers of their site alone and share them.
    harden: Option<Arc<harden::Raw>>,
}

/// What it means for one route: every policy that a guard or the hardening step is given.
#[derive(Debug)]
pub struct Rules {
    /// Off, report or enforce, rule by rule.
    pub modes: modes::Modes,
    /// Which methods may be used.
    pub methods: method::Policy,
    /// Which request fields go on to the origin.
    pub headers: headers::Policy,
    /// How large a body may be.
    pub size: size::Policy,
    /// Whether WebSocket is allowed.
    pub upgrade: upgrade::Policy,
    /// How long the origin may take to its first byte.
    pub first_byte: Duration,
    /// What leaves the house; shared by all routes of all sites for which the same was written.
    pub harden: Arc<harden::Policy>,
    /// Where the rules that decide were written, for `ravelin explain`.
    pub written: Raw,
}

/// The time an origin has to its first byte where nothing else is said; nginx's `proxy_read_timeout`.
pub const FIRST_BYTE: Duration = Duration::from_mins(1);

impl Raw {
    /// Reads the keys of this layer; the caller closes the section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let before = section.found();
        let harden = harden::Raw::read(section, reading);
        let harden = (section.found() > before).then(|| Arc::new(harden));
        Self {
            modes: modes::Raw::read(section, reading),
            methods: method::Raw::read(section, reading),
            headers: headers::Raw::read(section, reading),
            size: size::Raw::read(section, reading),
            upgrade: upgrade::Raw::read(section, reading),
            first_byte: section
                .get::<Text<Duration>>(reading, "first_byte")
                .map(|placed| placed.map(|text| text.0)),
            harden,
        }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Raw, shared: &mut harden::Shared) -> Raw {
        Raw {
            modes: self.modes.over(specific.modes),
            methods: self.methods.over(specific.methods),
            headers: self.headers.over(specific.headers),
            size: self.size.over(specific.size),
            upgrade: self.upgrade.over(specific.upgrade),
            first_byte: specific.first_byte.or(self.first_byte),
            harden: shared.over(self.harden, specific.harden),
        }
    }

    /// Complains about rules that mean nothing inside of a site.
    pub fn check_inside(&self, complaints: &mut Complaints) {
        self.modes.check_inside(complaints);
    }

    /// Which line decides each response header, for `ravelin explain`.
    #[must_use]
    pub fn decisions(&self) -> Vec<harden::Said> {
        self.harden.as_ref().map(|harden| harden.describe()).unwrap_or_default()
    }

    /// Where the key was written that `reason` judges by; none where its default holds, or where no key
    /// has a say.
    #[must_use]
    pub fn decides(&self, reason: Reason) -> Option<&Place> {
        match reason {
            Reason::MethodNotAllowed => self.methods.place(),
            Reason::BadHeader => self.headers.place(),
            Reason::UpgradeNotAllowed => self.upgrade.place(),
            Reason::BodyTooLarge => self.size.place(),
            _ => None,
        }
    }

    /// Where it was written whether the rule of `step` is off, reported or enforced.
    #[must_use]
    pub fn mode(&self, step: Step) -> Option<&Place> {
        self.modes.place(step)
    }

    /// Complains about what would break the part of TYPO3 that these merged rules are for.
    pub fn check(&self, area: Area, complaints: &mut Complaints) {
        if let (Area::Backend | Area::Login, Some(harden)) = (area, &self.harden) {
            harden.check_backend(complaints);
        }
    }

    /// What the merged layers mean.
    pub fn compile(self, shared: &mut harden::Shared, complaints: &mut Complaints) -> Rules {
        let written = self.clone();
        Rules {
            modes: self.modes.compile(complaints),
            methods: self.methods.compile(complaints),
            headers: self.headers.compile(complaints),
            size: self.size.compile(complaints),
            upgrade: self.upgrade.compile(complaints),
            first_byte: self.first_byte.map_or(FIRST_BYTE, |placed| placed.value),
            harden: shared.policy(self.harden.as_ref(), complaints),
            written,
        }
    }
}
