//! A site and its routes: what a request is measured against once its host and path are known.

use std::sync::Arc;

use crate::config::complaint::Place;
use crate::config::rules::Rules;
use crate::config::section::{Fault, FromText};
use crate::config::units::choice;
use crate::guard::path::Pattern;
use crate::harden::OriginAuthority;
use crate::observe::SiteId;
use crate::upstream::Upstream;

/// One `[[site]]`, compiled.
#[derive(Debug)]
pub struct Site {
    /// Its label in metrics and the log: the first of its hosts.
    pub name: Box<str>,
    /// Its number among the sites of its generation.
    pub index: usize,
    /// Its number in the metrics; given when the generation is put in force.
    pub meter: SiteId,
    /// The origin.
    pub upstream: Upstream,
    /// How the origin is reached, which no `Location` may tell.
    pub origin_authorities: Vec<OriginAuthority>,
    /// Most specific first; the last one has no pattern and takes everything else. Sites for which the same
    /// was written share them.
    pub routes: Arc<[Route]>,
    /// Where it was written.
    pub place: Place,
}

/// What holds for one part of a site.
#[derive(Debug)]
pub struct Route {
    /// Which paths; `None` takes every path.
    pub pattern: Option<Pattern>,
    /// What part of TYPO3 this is.
    pub area: Area,
    /// The rules.
    pub rules: Rules,
}

/// The parts of a TYPO3 site that are treated differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Area {
    /// What visitors see.
    #[default]
    Frontend,
    /// What editors use, below `/typo3`.
    Backend,
    /// Files that editors uploaded.
    Fileadmin,
    /// Where passwords are entered.
    Login,
}

impl Area {
    const WORDS: [(&'static str, Area); 4] = [
        ("frontend", Area::Frontend),
        ("backend", Area::Backend),
        ("fileadmin", Area::Fileadmin),
        ("login", Area::Login),
    ];

    /// The word that stands in the configuration and in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, area)| *area == self).map_or("frontend", |(word, _)| word)
    }
}

impl FromText for Area {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &Self::WORDS)
    }
}

impl Site {
    /// The route of a normalised path: the most specific one that covers it.
    #[must_use]
    pub fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.pattern.as_ref().is_none_or(|pattern| pattern.matches(path)))
    }

    /// The route for requests whose path is not known: the site's own rules.
    #[must_use]
    pub fn root(&self) -> Option<&Route> {
        self.routes.last()
    }
}

impl Route {
    /// What `explain` calls it: its pattern and its area.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("{pattern} ({})", self.area.word()),
            None => format!("everything else ({})", self.area.word()),
        }
    }
}
