//! Which paths a `[[path]]` is for: everything below a prefix, and there only names that fit a glob.

use std::fmt;

use super::decode::{decoded, normalise};
use super::glob::Glob;
use crate::config::section::Fault;

/// A prefix on segment boundaries, and optionally a glob on the last segment. Case counts, as it does on the
/// origin. Both are compared with escapes decoded, so `/a%20b` and `/a b` are one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The bytes of the prefix without its last slash; empty for `/`.
    prefix: Box<[u8]>,
    name: Option<Glob>,
}

impl Pattern {
    /// Compiles what the operator wrote. The fault says why the pattern could never match.
    pub fn new(path: &str, name: Option<&str>) -> Result<Self, Fault> {
        check_path(path)?;
        if let Some(name) = name {
            check_name(path, name)?;
        }
        let bytes: Vec<u8> = decoded(path).collect();
        let prefix = bytes.strip_suffix(b"/").unwrap_or(&bytes).into();
        Ok(Self { prefix, name: name.map(Glob::new) })
    }

    /// Whether a normalised path belongs to it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.is_above(path) && self.name.as_ref().is_none_or(|glob| glob.matches(decoded(last_segment(path))))
    }

    /// The prefix with its escapes decoded, without its last slash.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn is_above(&self, path: &str) -> bool {
        // Most patterns differ from a path in their first letter, which spares the decoding.
        if let (Some(want), Some(have)) = (self.prefix.get(1), path.as_bytes().get(1))
            && want != have
            && *have != b'%'
        {
            return false;
        }
        let mut rest = decoded(path);
        self.prefix.iter().all(|byte| rest.next() == Some(*byte)) && matches!(rest.next(), None | Some(b'/'))
    }

    /// Orders patterns from general to specific: by the length of the prefix, then those without a name
    /// before those with one, then by how much of the name is given.
    #[must_use]
    pub fn specificity(&self) -> (usize, usize) {
        (self.prefix.len(), self.name.as_ref().map_or(0, |glob| 1 + glob.literals()))
    }

    /// Whether every path of `other` belongs to this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        self.reaches(other)
            && match (&self.name, &other.name) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(mine), Some(theirs)) => mine.covers(theirs),
            }
    }

    /// This pattern's name below a longer prefix that `other` has: where `*.pdf` below `/fileadmin` reaches
    /// into `/fileadmin/user_upload`.
    #[must_use]
    pub fn within(&self, other: &Pattern) -> Option<Pattern> {
        let name = self.name.clone()?;
        let below = self.reaches(other) && self.prefix.len() < other.prefix.len();
        below.then(|| Pattern { prefix: other.prefix.clone(), name: Some(name) })
    }

    fn reaches(&self, other: &Pattern) -> bool {
        let rest = other.prefix.strip_prefix(&*self.prefix);
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.prefix.is_empty() { b"/" } else { &*self.prefix };
        f.write_str(&String::from_utf8_lossy(prefix))?;
        match &self.name {
            Some(glob) => write!(f, " {glob}"),
            None => Ok(()),
        }
    }
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn check_path(path: &str) -> Result<(), Fault> {
    let Some(first) = path.chars().next() else {
        return Err(Fault::new("the path is empty", "write `/` for every path"));
    };
    if let Some((before, _)) = path.split_once(['?', '#']) {
        let message = format!("`{path}`: a path has no query and no fragment");
        return Err(Fault::new(message, format!("did you mean `{before}`?")));
    }
    if first != '/' {
        let rest =
            path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, p)| p));
        let message = format!("`{path}` can never match: every path begins with a slash");
        return Err(Fault::new(message, format!("did you mean `/{rest}`?")));
    }
    if let Some(at) = path.find('*') {
        let folder = path.get(..at).and_then(|head| head.rfind('/')).and_then(|i| path.get(..i.max(1)));
        let hint = format!("write `path = \"{}\"` and the rest as `name`", folder.unwrap_or("/"));
        return Err(Fault::new(format!("`{path}`: a path is a prefix, `*` has no meaning in it"), hint));
    }
    check_normal(path)
}

/// A path that is spelled otherwise than requests are after normalising would never match.
fn check_normal(path: &str) -> Result<(), Fault> {
    // Blanks cannot be in a request's path, and are easier to read in a configuration than `%20`.
    let spelled = path.replace(' ', "%20");
    let normal = normalise(&spelled).map_err(|fault| {
        Fault::new(format!("`{path}` can never match: {fault}"), "write it as a browser shows it")
    })?;
    if decoded(&normal).eq(decoded(&spelled)) {
        return Ok(());
    }
    let message = format!("`{path}` can never match: requests are normalised first");
    Err(Fault::new(message, format!("did you mean `{normal}`?")))
}

fn check_name(path: &str, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::new("`name` is empty", "leave it out to match every name"));
    }
    if let Some((folders, last)) = name.rsplit_once('/') {
        let folder = format!("{}/{}", path.trim_end_matches('/'), folders.trim_matches('/'));
        let hint = format!("write `path = \"{}\"` and `name = \"{last}\"`", folder.trim_end_matches('/'));
        return Err(Fault::new(format!("`{name}`: a name has no slash, it is the last segment"), hint));
    }
    let plain: Vec<u8> = decoded(name).collect();
    if plain.len() != name.len() {
        let hint = format!("did you mean `{}`?", String::from_utf8_lossy(&plain));
        return Err(Fault::new(format!("`{name}`: names are compared with their escapes decoded"), hint));
    }
    if matches!(name, "." | "..") || name.contains(['\\', '\0']) {
        return Err(Fault::new(
            format!("`{name}` can never match: no normalised path ends so"),
            "write a file name",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(path: &str, name: Option<&str>) -> Pattern {
        Pattern::new(path, name).unwrap()
    }

    #[test]
    fn mistakes_are_told_with_what_was_meant() {
        for (path, name, meant) in [
            ("", None, "`/`"),
            ("fileadmin", None, "`/fileadmin`"),
            ("https://a.test/fileadmin", None, "`/fileadmin`"),
            ("/a?x=1", None, "`/a`"),
            ("/fileadmin/*.pdf", None, "`path = \"/fileadmin\"`"),
            ("/*", None, "`path = \"/\"`"),
            ("/a//b", None, "`/a/b`"),
            ("/a/../b", None, "`/b`"),
            ("/a%2fb", None, "as a browser shows it"),
            ("/a", Some(""), "leave it out"),
            ("/a", Some("b/*.pdf"), "`path = \"/a/b\"` and `name = \"*.pdf\"`"),
            ("/a", Some("x%20*.pdf"), "`x *.pdf`"),
            ("/a", Some(".."), "file name"),
        ] {
            let hint = Pattern::new(path, name).unwrap_err().hint.unwrap();
            assert!(hint.contains(meant), "{path} {name:?}: {hint}");
        }
    }

    #[test]
    fn spellings_of_one_path_are_one_pattern() {
        assert_eq!(pattern("/typo3", None), pattern("/typo3/", None));
        assert_eq!(pattern("/m%c3%bcnchen", None), pattern("/münchen", None));
        assert_eq!(pattern("/a b", None), pattern("/a%20b", None));
        assert_eq!(pattern("/%74ypo3", None), pattern("/typo3", None));
        assert_ne!(pattern("/Typo3", None), pattern("/typo3", None));
    }

    #[test]
    fn specific_patterns_come_after_general_ones() {
        let order = [
            pattern("/", None),
            pattern("/", Some("*.pdf")),
            pattern("/a", None),
            pattern("/a", Some("*")),
            pattern("/a", Some("*.pdf")),
            pattern("/a", Some("x*.pdf")),
            pattern("/a/b", None),
        ];
        assert!(order.is_sorted_by(|a, b| a.specificity() < b.specificity()));
    }

    #[test]
    fn covering_and_reaching_in() {
        let files = pattern("/fileadmin", Some("*.pdf"));
        let upload = pattern("/fileadmin/up", None);
        assert!(pattern("/", None).covers(&files) && pattern("/fileadmin", None).covers(&upload));
        assert!(!files.covers(&upload) && !pattern("/file", None).covers(&upload));
        assert!(files.covers(&pattern("/fileadmin/up", Some("x-*.pdf"))));
        assert_eq!(files.within(&upload), Some(pattern("/fileadmin/up", Some("*.pdf"))));
        assert_eq!(files.within(&pattern("/fileadmin", None)), None);
        assert_eq!(files.within(&pattern("/other", None)), None);
        assert_eq!(upload.within(&files), None);
    }

    #[test]
    fn it_prints_as_it_is_read() {
        assert_eq!(pattern("/", None).to_string(), "/");
        assert_eq!(pattern("/m%C3%BCnchen/", Some("*.pdf")).to_string(), "/münchen *.pdf");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_covered_matches(
            wide in ("(/[ab]{1,2}){0,2}/?", prop::option::of("[ab*?]{1,3}")),
            narrow in ("(/[ab]{1,2}){0,3}/?", prop::option::of("[ab*?]{1,3}")),
            path in "(/[ab]{1,2}){1,4}",
        ) {
            let build = |(path, name): &(String, Option<String>)| {
                Pattern::new(if path.is_empty() { "/" } else { path }, name.as_deref()).unwrap()
            };
            let (wide, narrow) = (build(&wide), build(&narrow));
            if wide.covers(&narrow) && narrow.matches(&path) {
                prop_assert!(wide.matches(&path));
            }
        }
    }
}
