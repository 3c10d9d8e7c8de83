//! Is this a path that nobody needs? What TYPO3's `.htaccess` closes, closed for any origin.
//!
//! `[deny]` is a table of names, merged name by name: a list of globs closes, `false` takes out what a more general
//! layer closes. Compiled into one automaton over the rarest words of all patterns: an ordinary path holds none of
//! them, and no pattern is looked at.

pub mod answer;
mod forms;
pub mod glob;

use std::collections::HashMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::excerpt;
use crate::config::complaint::{Complaints, did_you_mean};
use crate::config::section::{Item, Placed, Reading, Section};
use crate::refusal::{Reason, Refusal};
use glob::Glob;

/// What one layer wrote under `[deny]`, by name.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    rules: Vec<Named>,
    /// Names that were taken out though no layer below has them.
    missed: Vec<Placed<String>>,
}

/// A name, and what is closed under it; `None` takes it out.
#[derive(Clone, Debug)]
struct Named {
    name: Placed<String>,
    rule: Option<Arc<Rule>>,
}

/// What one name closes.
#[derive(Clone, Debug, Default)]
struct Rule {
    paths: Vec<Glob>,
    except: Vec<Glob>,
}

/// Which paths are closed.
#[derive(Debug)]
pub struct Policy {
    rules: Box<[Compiled]>,
    patterns: Box<[Pattern]>,
    /// Which patterns a word belongs to, by the number of the word; odd words make the path be read again.
    words: Box<[Word]>,
    automaton: Option<AhoCorasick>,
}

#[derive(Debug)]
struct Compiled {
    name: Box<str>,
    /// Where it was written.
    place: Box<str>,
    except: Box<[Glob]>,
}

#[derive(Debug)]
struct Pattern {
    glob: Glob,
    rule: usize,
}

#[derive(Debug)]
enum Word {
    Of(Vec<usize>),
    /// An origin may read the path in another way than it stands there.
    Odd,
}

/// What an origin may read differently; a path that holds none of them has one form.
const ODD: [&[u8]; 9] = [b"%", b";", b":", b"\\", b"//", b"./", b" ", b"\t", b"\0"];

impl Raw {
    /// Reads the table `deny`, if it is there.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Arc<Self>> {
        let mut table = section.section(reading, "deny")?;
        let rules = table.entries().into_iter().filter_map(|(name, item)| {
            // `false` is the one thing that closes nothing and is no mistake.
            let out = item.as_bool() == Some(false);
            let rule = if out { None } else { Some(Arc::new(Rule::read(&name.value, item, reading)?)) };
            Some(Named { name, rule })
        });
        Some(Arc::new(Self { rules: rules.collect(), missed: Vec::new() }))
    }

    /// This layer with a more specific one over it, name by name.
    #[must_use]
    pub fn over(&self, specific: &Self) -> Self {
        let mut merged = self.clone();
        for named in &specific.rules {
            if let Some(own) = merged.rules.iter_mut().find(|own| own.name.value == named.name.value) {
                *own = named.clone();
                continue;
            }
            if named.rule.is_none() {
                merged.missed.push(named.name.clone());
            }
            merged.rules.push(named.clone());
        }
        merged
    }

    /// What the merged layers mean.
    /// `frugal` spends time on requests rather than memory.
    fn compile(&self, frugal: bool, complaints: &mut Complaints) -> Policy {
        for missed in &self.missed {
            let known =
                self.rules.iter().filter(|named| named.rule.is_some()).map(|named| named.name.value.as_str());
            let hint = did_you_mean(&missed.value, known)
                .unwrap_or_else(|| "`docs/closed-paths.md` lists the names of the preset".to_owned());
            let message = format!("`deny.{}` takes nothing out: nothing has this name", missed.value);
            complaints.warning(Some(&missed.place), message, Some(hint));
        }
        Policy::new(&self.rules, frugal)
    }
}

impl Rule {
    /// A list of globs, or a table with `paths`, `except` and `ignore_case`. `None` after a complaint.
    fn read(name: &str, item: Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        if item.as_bool().is_some() {
            let hint = format!("write `{name} = [\"/{name}/**\"]`, or `false` to take it out");
            let message = format!("`{}` does not say what is closed", item.name());
            reading.complaints.error(Some(&item.place), message, Some(hint));
            return None;
        }
        if !item.is_table() {
            let paths = item.read::<Vec<Placed<String>>>(reading)?;
            return Some(Self { paths: globs(&paths.value, false, reading), except: Vec::new() });
        }
        let place = item.place.clone();
        let mut table = item.into_section(reading)?;
        let ignore_case = table.get::<bool>(reading, "ignore_case").is_some_and(|placed| placed.value);
        let mut list = |key| {
            let written = table.get::<Vec<Placed<String>>>(reading, key);
            globs(&written.map(|placed| placed.value).unwrap_or_default(), ignore_case, reading)
        };
        let rule = Self { paths: list("paths"), except: list("except") };
        table.finish(reading);
        if rule.paths.is_empty() && !reading.complaints.has_errors() {
            let hint = format!("write `paths = [\"/{name}/**\"]`, or `{name} = false` to take it out");
            reading.complaints.error(
                Some(&place),
                format!("`deny.{name}` does not say what is closed"),
                Some(hint),
            );
        }
        Some(rule)
    }
}

fn globs(written: &[Placed<String>], ignore_case: bool, reading: &mut Reading<'_>) -> Vec<Glob> {
    let mut globs = Vec::new();
    for pattern in written {
        match Glob::expand(&pattern.value, ignore_case) {
            Ok(expanded) => globs.extend(expanded),
            Err(fault) => reading.complaints.error(Some(&pattern.place), fault.message, fault.hint),
        }
    }
    globs
}

impl Policy {
    /// A policy of one name that no operator writes; case does not count.
    pub(super) fn of(name: &str, patterns: &[&str]) -> Self {
        let globs = patterns.iter().flat_map(|pattern| Glob::expand(pattern, true).unwrap_or_default());
        let patterns = globs.map(|glob| Pattern { glob, rule: 0 }).collect();
        let rule = Compiled { name: name.into(), place: "built in".into(), except: Box::default() };
        Self::made(vec![rule], patterns, false)
    }

    fn new(named: &[Named], frugal: bool) -> Self {
        let (mut rules, mut patterns) = (Vec::new(), Vec::new());
        for (named, rule) in named.iter().filter_map(|named| Some((named, named.rule.as_ref()?))) {
            patterns.extend(rule.paths.iter().map(|glob| Pattern { glob: glob.clone(), rule: rules.len() }));
            rules.push(Compiled {
                name: named.name.value.as_str().into(),
                place: named.name.place.label().into(),
                except: rule.except.clone().into(),
            });
        }
        Self::made(rules, patterns, frugal)
    }

    fn made(rules: Vec<Compiled>, patterns: Vec<Pattern>, frugal: bool) -> Self {
        let (texts, words) = words(&patterns);
        let kind = if frugal { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(kind)).build(&texts);
        Self { rules: rules.into(), patterns: patterns.into(), words, automaton: automaton.ok() }
    }

    /// Whether any rule closes a path.
    pub(super) fn is_closed(&self, path: &str) -> bool {
        self.closes(path).is_some()
    }

    /// Which rule closes a path, if one does.
    fn closes(&self, path: &str) -> Option<&Compiled> {
        let closes =
            |pattern: &Pattern, form: &[u8]| pattern.glob.matches(form) && !self.is_except(pattern, form);
        let found = |form: &[u8]| {
            self.candidates(form).find(|pattern| closes(pattern, form)).map(|pattern| pattern.rule)
        };
        if self.patterns.is_empty() || !self.may_close(path.as_bytes()) {
            return None;
        }
        let exact = forms::exact(path);
        let rule = found(&exact)
            .or_else(|| self.is_odd(path.as_bytes()).then(|| found(&forms::loose(&exact)))?)?;
        self.rules.get(rule)
    }

    /// Whether a path holds any of the words. Where there are too many patterns for an automaton, every path does.
    fn may_close(&self, path: &[u8]) -> bool {
        path.ends_with(b".") || self.automaton.as_ref().is_none_or(|automaton| automaton.is_match(path))
    }

    /// Whether an origin may read a path in another way than it stands there.
    fn is_odd(&self, path: &[u8]) -> bool {
        let is_odd = |number: usize| matches!(self.words.get(number), Some(Word::Odd));
        let odd = |automaton: &AhoCorasick| {
            automaton.find_overlapping_iter(path).any(|hit| is_odd(hit.pattern().as_usize()))
        };
        path.ends_with(b".") || self.automaton.as_ref().is_none_or(odd)
    }

    /// The patterns of which `form` holds the word; all, if there is no automaton.
    fn candidates<'a>(&'a self, form: &'a [u8]) -> impl Iterator<Item = &'a Pattern> {
        let all = if self.automaton.is_some() { &[][..] } else { &self.patterns };
        let hits = self.automaton.iter().flat_map(move |automaton| automaton.find_overlapping_iter(form));
        let numbers = hits.flat_map(|hit| match self.words.get(hit.pattern().as_usize()) {
            Some(Word::Of(patterns)) => patterns.as_slice(),
            _ => &[],
        });
        all.iter().chain(numbers.filter_map(|number| self.patterns.get(*number)))
    }

    fn is_except(&self, pattern: &Pattern, form: &[u8]) -> bool {
        self.rules.get(pattern.rule).is_some_and(|rule| rule.except.iter().any(|glob| glob.matches(form)))
    }
}

/// For each pattern the word that tells it: its last literal if that is long enough, else its longest. Folders stand
/// in front and are frequent, what makes a file dangerous stands behind.
fn words(patterns: &[Pattern]) -> (Vec<Vec<u8>>, Box<[Word]>) {
    let mut texts: Vec<Vec<u8>> = ODD.iter().map(|text| text.to_vec()).collect();
    let mut words: Vec<Word> = ODD.iter().map(|_| Word::Odd).collect();
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    for (number, pattern) in patterns.iter().enumerate() {
        let literals: Vec<Vec<u8>> = pattern.glob.literals().map(|text| text.to_ascii_lowercase()).collect();
        let last = literals.last().filter(|text| text.len() >= 3);
        // A pattern without any literal closes nearly everything: every path has a slash.
        let text = last
            .or_else(|| literals.iter().max_by_key(|text| text.len()))
            .cloned()
            .unwrap_or_else(|| b"/".to_vec());
        let at = *known.entry(text.clone()).or_insert_with(|| {
            texts.push(text);
            words.push(Word::Of(Vec::new()));
            words.len() - 1
        });
        if let Some(Word::Of(of)) = words.get_mut(at) {
            of.push(number);
        }
    }
    (texts, words.into())
}

/// Refuses a path that is closed. `path` is the normal form, or where that rule is not enforced what the client wrote.
pub fn check(policy: &Policy, path: &str) -> Result<(), Refusal> {
    match policy.closes(path) {
        None => Ok(()),
        Some(rule) => {
            let detail = format!("`deny.{}` ({}) closes {}", rule.name, rule.place, excerpt(path.as_bytes()));
            Err(Refusal::new(Reason::Closed, detail))
        }
    }
}

/// Layers that were merged and policies that were compiled, so that ten thousand sites with one preset have one.
#[derive(Debug, Default)]
pub struct Shared {
    /// By the addresses of both; held, so that no address comes twice.
    merged: HashMap<[usize; 2], [Arc<Raw>; 3]>,
    policies: HashMap<usize, (Arc<Raw>, Arc<Policy>)>,
    /// Where no layer wrote anything.
    empty: Option<Arc<Policy>>,
}

/// So many different policies get the fast automaton, of some hundred kilobytes.
const FAST: usize = 64;

impl Shared {
    /// A layer with a more specific one over it; [`Raw::over`], once for the same two.
    pub fn over(&mut self, general: Option<Arc<Raw>>, specific: Option<Arc<Raw>>) -> Option<Arc<Raw>> {
        let (general, specific) = match (general, specific) {
            (Some(general), Some(specific)) => (general, specific),
            (one, other) => return one.or(other),
        };
        let key = [&general, &specific].map(|raw| Arc::as_ptr(raw).addr());
        let made = self.merged.entry(key).or_insert_with(|| {
            let merged = Arc::new(general.over(&specific));
            [general, specific, merged]
        });
        let [.., merged] = made;
        Some(Arc::clone(merged))
    }

    /// What merged layers mean: compiled once for the same ones.
    pub fn policy(&mut self, raw: Option<&Arc<Raw>>, complaints: &mut Complaints) -> Arc<Policy> {
        let Some(raw) = raw else {
            return Arc::clone(self.empty.get_or_insert_with(|| Arc::new(Policy::new(&[], true))));
        };
        let frugal = self.policies.len() >= FAST;
        let compile = || (Arc::clone(raw), Arc::new(raw.compile(frugal, complaints)));
        Arc::clone(&self.policies.entry(Arc::as_ptr(raw).addr()).or_insert_with(compile).1)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
