//! What is asked for: the path in the one form that every rule sees and that is forwarded.

pub mod decode;
pub mod glob;
pub mod pattern;

pub use decode::{PathFault, decoded, decoded_again, normalise};
pub use pattern::Pattern;

use crate::refusal::{Reason, Refusal};

impl From<PathFault> for Refusal {
    fn from(fault: PathFault) -> Self {
        Refusal::new(Reason::BadPath, fault.text())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Corpus {
        unchanged: Vec<String>,
        rewritten: Vec<Rewritten>,
        refused: Vec<Refused>,
        bypasses: Bypasses,
        patterns: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rewritten {
        from: String,
        to: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refused {
        path: String,
        because: String,
    }

    /// Attempts to get around a rule on one path.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bypasses {
        rule: String,
        caught: Vec<String>,
        refused: Vec<String>,
        elsewhere: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        path: String,
        name: Option<String>,
        matches: Vec<String>,
        misses: Vec<String>,
    }

    fn corpus() -> Corpus {
        serde_norway::from_str(include_str!("../../../tests/corpus/paths.yaml")).unwrap()
    }

    /// How Apache reads a path, written down independently: decode every escape once, merge slashes,
    /// resolve dot segments. The names from the root down, or `None` where it answers 400 or 404.
    fn as_apache_reads(path: &str) -> Option<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut rest = path.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            let value = u8::from_str_radix(digits, 16).ok().filter(|v| !matches!(v, 0 | b'/'))?;
            bytes.push(value);
            rest = &tail[2..];
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for name in bytes.split(|b| *b == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()?),
                name => names.push(name.to_vec()),
            }
        }
        Some(names)
    }

    fn apache_is_below(rule: &str, path: &str) -> bool {
        let rule = as_apache_reads(rule).unwrap();
        as_apache_reads(path).is_some_and(|names| names.starts_with(&rule))
    }

    #[test]
    fn the_corpus_of_paths() {
        for path in corpus().unchanged {
            assert!(matches!(normalise(&path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
        for case in corpus().rewritten {
            assert_eq!(normalise(&case.from).as_deref(), Ok(case.to.as_str()), "{}", case.from);
        }
        for case in corpus().refused {
            assert_eq!(
                normalise(&case.path).map_err(PathFault::name),
                Err(case.because.as_str()),
                "{}",
                case.path
            );
        }
    }

    #[test]
    fn no_spelling_gets_around_a_rule() {
        let bypasses = corpus().bypasses;
        let rule = Pattern::new(&bypasses.rule, None).unwrap();
        for raw in &bypasses.caught {
            let path = normalise(raw).unwrap();
            assert!(rule.matches(&path), "{raw} became {path}");
            assert!(apache_is_below(&bypasses.rule, &path), "{raw} became {path}");
        }
        for raw in &bypasses.refused {
            assert!(normalise(raw).is_err(), "{raw}");
        }
        for raw in &bypasses.elsewhere {
            let path = normalise(raw).unwrap();
            assert!(!rule.matches(&path), "{raw} became {path}");
            assert!(!apache_is_below(&bypasses.rule, &path), "{raw} became {path}");
        }
        let all = bypasses.caught.len() + bypasses.refused.len() + bypasses.elsewhere.len();
        assert!(all >= 50, "only {all} variants");
    }

    #[test]
    fn the_corpus_of_patterns() {
        for case in corpus().patterns {
            let pattern = Pattern::new(&case.path, case.name.as_deref()).unwrap();
            let hit = |path: &String| pattern.matches(&normalise(path).unwrap());
            for path in &case.matches {
                assert!(hit(path), "{pattern} should match {path}");
            }
            for path in &case.misses {
                assert!(!hit(path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn a_fault_becomes_a_refusal_with_its_detail() {
        let refusal = Refusal::from(PathFault::EncodedSlash);
        assert_eq!(refusal.reason, Reason::BadPath);
        assert!(refusal.detail.contains("encoded slash"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Whatever a client writes: what goes on is below the rule's path for Apache exactly if the rule
        /// saw it so.
        #[test]
        fn the_rule_and_the_origin_agree(pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "//", ".", "..", "%2e", "%2E", "typo3", "%74ypo3", "t%79po3", "TYPO3", "typo3x", "a", "@", "%40",
            ";", "%3b", "%25", "%2574ypo3", "%20", "ü", "%c3%bc", "!", "%21",
        ]), 0..9)) {
            let raw = format!("/{}", pieces.concat());
            for rule in ["/typo3", "/a@!", "/a/ü"] {
                let pattern = Pattern::new(rule, None).unwrap();
                if let Ok(path) = normalise(&raw) {
                    prop_assert_eq!(pattern.matches(&path), apache_is_below(rule, &path), "{}", path);
                }
            }
        }

        /// Normalising keeps the meaning: Apache would read the raw path and the normal form alike.
        #[test]
        fn the_meaning_is_kept(pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "//", "/../", "/./", ".", "%2e%2e", "a", "b", "%61", "%20", "[", "%5B", "{", "~", "ü",
        ]), 0..9)) {
            let raw = format!("/{}", pieces.concat());
            if let Ok(path) = normalise(&raw) {
                prop_assert_eq!(as_apache_reads(&raw), as_apache_reads(&path), "{}", path);
            }
        }
    }
}
