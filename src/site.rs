//! A site and its routes: what a request is measured against once its host and path are known.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::bans;
use crate::config::complaint::Place;
use crate::config::rules::{FIRST_BYTE, Rules};
use crate::config::section::{Fault, FromText};
use crate::config::units::choice;
use crate::guard::access;
use crate::guard::path::{Pattern, decoded};
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
    /// Its number in the ledger of bans: the same after a reload.
    pub id: bans::SiteId,
    /// Its number in the metrics; given when the generation is put in force.
    pub meter: SiteId,
    /// The origin.
    pub upstream: Upstream,
    /// How the origin is reached, which no `Location` may tell.
    pub origin_authorities: Vec<OriginAuthority>,
    /// Sites for which the same was written share them.
    pub routes: Arc<Routes>,
    /// Who may see which part of it.
    pub access: access::Policy,
    /// Where it was written.
    pub place: Place,
}

/// The routes of a site, most specific first; the last one has no pattern and takes everything else.
#[derive(Debug)]
pub struct Routes {
    list: Box<[Route]>,
    index: Option<Index>,
}

/// Routes by their prefix, for sites with many.
#[derive(Debug)]
struct Index {
    routes: HashMap<Box<[u8]>, Vec<usize>>,
    /// The longest prefix, bytes.
    longest: usize,
}

/// Up to so many routes are looked through one after the other, which takes a tenth of a microsecond.
const FEW: usize = 24;

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
        self.routes.of(path)
    }

    /// The longest time that any part of the backend may take to its first byte.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let areas = [Area::Backend, Area::Login];
        let backend = self.routes.iter().filter(|route| areas.contains(&route.area));
        let root = self.root().map_or(FIRST_BYTE, |root| root.rules.first_byte);
        backend.map(|route| route.rules.first_byte).max().map_or(root, |longest| longest.max(root))
    }

    /// The route for requests whose path is not known: the site's own rules.
    #[must_use]
    pub fn root(&self) -> Option<&Route> {
        self.routes.last()
    }
}

impl Routes {
    /// Routes that were sorted by [`Pattern::specificity`], the most specific one first.
    #[must_use]
    pub fn new(list: Vec<Route>) -> Self {
        let index = (list.len() > FEW).then(|| Index::new(&list));
        Self { list: list.into(), index }
    }

    fn of(&self, path: &str) -> Option<&Route> {
        match &self.index {
            Some(index) => index.find(path, &self.list),
            None => self.list.iter().find(|route| route.takes(path)),
        }
    }
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.list
    }
}

impl Index {
    fn new(list: &[Route]) -> Self {
        let mut index = Self { routes: HashMap::new(), longest: 0 };
        let patterns = list.iter().enumerate().filter_map(|(at, route)| Some((at, route.pattern.as_ref()?)));
        for (at, pattern) in patterns {
            let prefix = pattern.prefix();
            index.longest = index.longest.max(prefix.len());
            index.routes.entry(prefix.into()).or_default().push(at);
        }
        index
    }

    /// The prefixes that a path has are its beginnings up to a slash; the longest decides. However many
    /// slashes a client writes, no more is looked at than the longest prefix has bytes.
    fn find<'r>(&self, path: &str, list: &'r [Route]) -> Option<&'r Route> {
        let most = self.longest + 1;
        let head: Cow<'_, [u8]> = match path.as_bytes().get(..most).unwrap_or(path.as_bytes()) {
            plain if !plain.contains(&b'%') => Cow::Borrowed(plain),
            _ => decoded(path).take(most).collect(),
        };
        let ends = (0..=self.longest.min(head.len())).rev();
        let ends = ends.filter(|end| head.get(*end).is_none_or(|byte| *byte == b'/'));
        let prefixes = ends.filter_map(|end| self.routes.get(head.get(..end)?));
        let candidates = prefixes.flatten().filter_map(|at| list.get(*at));
        candidates.chain(list.last()).find(|route| route.takes(path))
    }
}

impl Route {
    fn takes(&self, path: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(path))
    }

    /// What `explain` calls it: its pattern and its area.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("{pattern} ({})", self.area.word()),
            None => format!("everything else ({})", self.area.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::config::load_text;

    /// The routes of a site with these paths, and `preset = "none"`.
    fn routes(paths: &[(String, Option<String>)]) -> Arc<Routes> {
        let mut text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[site]]\nhosts = [\"a.test\"]\n\
                        upstream = \"http://127.0.0.1:1\"\npreset = \"none\"\n"
            .to_owned();
        for (path, name) in paths {
            let name = name.as_ref().map_or(String::new(), |name| format!("name = \"{name}\"\n"));
            writeln!(text, "[[site.path]]\npath = \"{path}\"\n{name}").unwrap();
        }
        let loaded = load_text("test", text, PathBuf::new());
        let generation = loaded.generation.unwrap_or_else(|| panic!("{}", loaded.complaints));
        Arc::clone(&generation.sites[0].routes)
    }

    #[test]
    fn many_routes_are_indexed_and_the_longest_prefix_decides() {
        let many: Vec<_> =
            (0..1_000).map(|i| (format!("/p{i}/sub"), None)).chain([("/p7".into(), None)]).collect();
        let routes = routes(&many);
        assert!(routes.index.is_some());
        let found = |path: &str| routes.of(path).unwrap().label();
        assert_eq!(found("/p7/sub/x"), "/p7/sub (frontend)");
        assert_eq!(found("/p7/%73ub"), "/p7/sub (frontend)");
        assert_eq!(found("/p7/subx"), "/p7 (frontend)");
        assert_eq!(found("/p8"), "everything else (frontend)");
        assert_eq!(found(&"/".repeat(100_000)), "everything else (frontend)");
    }

    proptest! {
        #[test]
        fn the_index_finds_what_looking_through_all_finds(
            paths in prop::collection::vec(("(/[ab%]{1,2}){0,3}", prop::option::of("[ab*]{1,2}")), 0..12),
            path in "(/{1,2}([ab]|%61|%2[fF]|%|é){1,3}){0,5}/?",
        ) {
            let good = |(path, name): &(String, Option<String>)| Pattern::new(path, name.as_deref()).is_ok();
            let paths: Vec<_> = paths.into_iter().filter(good).collect();
            let routes = routes(&paths);
            let found = Index::new(&routes).find(&path, &routes).unwrap();
            let want = routes.iter().find(|route| route.takes(&path)).unwrap();
            prop_assert!(std::ptr::eq(found, want), "{path}: {} instead of {}", found.label(), want.label());
        }
    }
}
