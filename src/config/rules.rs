//! The rules that merge: what may stand at the top of the file, in a site, in a path, and in a preset.

use std::sync::Arc;
use std::time::Duration;

use super::complaint::{Complaints, Place};
use super::section::{Placed, Reading, Section, Text};
use crate::guard::{deny, headers, install_tool, method, modes, overrides, size, upgrade};
use crate::harden;
use crate::login;
use crate::refusal::Reason;
use crate::site::Area;

/// What one layer wrote. Everything is optional: what a layer does not mention, it does not touch.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    modes: modes::Raw,
    methods: method::Raw,
    overrides: overrides::Raw,
    headers: headers::Raw,
    size: size::Raw,
    upgrade: upgrade::Raw,
    login: login::Raw,
    first_byte: Option<Placed<Duration>>,
    /// Like `harden`, shared where nothing was written.
    deny: Option<Arc<deny::Raw>>,
    closed: deny::answer::Raw,
    install_tool: install_tool::Raw,
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
    /// Which fields may name another method or URL.
    pub overrides: overrides::Policy,
    /// Which request fields go on to the origin.
    pub headers: headers::Policy,
    /// How large a body may be.
    pub size: size::Policy,
    /// Whether WebSocket is allowed.
    pub upgrade: upgrade::Policy,
    /// Which tries to log in are looked for; shared by all routes for which the usual was written.
    pub login: Arc<login::Policy>,
    /// How long the origin may take to its first byte.
    pub first_byte: Duration,
    /// Which paths are closed; shared like `harden`.
    pub deny: Arc<deny::Policy>,
    /// The status of what is closed.
    pub closed_answer: http::StatusCode,
    /// To whom the Install Tool is open.
    pub install_tool: install_tool::Policy,
    /// What leaves the house; shared by all routes of all sites for which the same was written.
    pub harden: Arc<harden::Policy>,
    /// Where the rules that decide were written, for `ravelin explain`.
    pub written: Raw,
}

/// What was merged and compiled so far, while a configuration is read.
#[derive(Debug, Default)]
pub struct Shared {
    harden: harden::Shared,
    deny: deny::Shared,
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
            overrides: overrides::Raw::read(section, reading),
            headers: headers::Raw::read(section, reading),
            size: size::Raw::read(section, reading),
            upgrade: upgrade::Raw::read(section, reading),
            login: login::Raw::read(section, reading),
            first_byte: section
                .get::<Text<Duration>>(reading, "first_byte")
                .map(|placed| placed.map(|text| text.0)),
            deny: deny::Raw::read(section, reading),
            closed: deny::answer::Raw::read(section, reading),
            install_tool: install_tool::Raw::read(section, reading),
            harden,
        }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Raw, shared: &mut Shared) -> Raw {
        Raw {
            modes: self.modes.over(specific.modes),
            methods: self.methods.over(specific.methods),
            overrides: self.overrides.over(specific.overrides),
            headers: self.headers.over(specific.headers),
            size: self.size.over(specific.size),
            upgrade: self.upgrade.over(specific.upgrade),
            login: self.login.over(specific.login),
            first_byte: specific.first_byte.or(self.first_byte),
            deny: shared.deny.over(self.deny, specific.deny),
            closed: self.closed.over(specific.closed),
            install_tool: self.install_tool.over(specific.install_tool),
            harden: shared.harden.over(self.harden, specific.harden),
        }
    }

    /// Complains about rules that mean nothing inside of a site.
    pub fn check_inside(&self, complaints: &mut Complaints) {
        self.modes.check_inside(complaints);
    }

    /// Complains about rules that mean nothing for a path.
    pub fn check_path(&self, complaints: &mut Complaints) {
        self.modes.check_path(complaints);
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
            Reason::InstallToolClosed => self.install_tool.place(),
            _ => None,
        }
    }

    /// Where it was written which overrides go on, if it was.
    #[must_use]
    pub fn overrides(&self) -> Option<&Place> {
        self.overrides.place()
    }

    /// Where it was written whether the rule that refuses for `reason` is off, reported or enforced.
    #[must_use]
    pub fn mode(&self, reason: Reason) -> Option<&Place> {
        self.modes.place_of(reason)
    }

    /// Complains about what would break the part of TYPO3 that these merged rules are for.
    pub fn check(&self, area: Area, complaints: &mut Complaints) {
        if let (Area::Backend | Area::Login, Some(harden)) = (area, &self.harden) {
            harden.check_backend(complaints);
        }
    }

    /// What the merged layers mean.
    pub fn compile(self, shared: &mut Shared, complaints: &mut Complaints) -> Rules {
        let written = self.clone();
        Rules {
            modes: self.modes.compile(complaints),
            methods: self.methods.compile(complaints),
            overrides: self.overrides.compile(complaints),
            headers: self.headers.compile(complaints),
            size: self.size.compile(complaints),
            upgrade: self.upgrade.compile(complaints),
            login: self.login.compile(complaints),
            first_byte: self.first_byte.map_or(FIRST_BYTE, |placed| placed.value),
            deny: shared.deny.policy(self.deny.as_ref(), complaints),
            closed_answer: self.closed.compile(complaints),
            install_tool: self.install_tool.compile(complaints),
            harden: shared.harden.policy(self.harden.as_ref(), complaints),
            written,
        }
    }
}
