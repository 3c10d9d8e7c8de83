//! The corpus of closed paths against the preset, and the laws of the matching.

use std::path::PathBuf;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::config::load_text;
use crate::generation::Generation;
use crate::guard::path;
use crate::guard::testing;

/// What of the corpus concerns the rules alone; tests/it/closed.rs has the rest.
#[derive(Deserialize)]
struct Corpus {
    guide: Vec<String>,
    rules: Vec<Row>,
    open: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    rule: String,
    closed: Vec<String>,
    open: Vec<String>,
}

fn corpus() -> Corpus {
    serde_norway::from_str(include_str!("../../../tests/corpus/closed-paths.yaml")).unwrap()
}

/// A site with the preset, and what the operator wrote.
fn generation(more: &str) -> Generation {
    let text = format!(
        "{more}\n[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[site]]\nhosts = [\"a.test\"]\npreset = \"typo3\"\nupstream = \"http://127.0.0.1:1\"\n"
    );
    let loaded = load_text("test", text, PathBuf::new());
    loaded.generation.unwrap_or_else(|| panic!("{}", loaded.complaints))
}

fn preset() -> Arc<Policy> {
    Arc::clone(&generation("").sites[0].root().unwrap().rules.deny)
}

/// Which rule closes a path as a client writes it; none where it is open, or not clear.
fn rule<'p>(policy: &'p Policy, raw: &str) -> Option<&'p str> {
    let path = path::normalise(raw).ok()?;
    policy.closes(&path).map(|rule| &*rule.name)
}

#[test]
fn the_preset_closes_what_the_corpus_says_and_nothing_else() {
    let policy = preset();
    let corpus = corpus();
    assert!(corpus.rules.iter().map(|row| row.closed.len()).sum::<usize>() > 100);
    let mut wrong = Vec::new();
    for row in &corpus.rules {
        for path in &row.closed {
            if rule(&policy, path).is_none() {
                wrong.push(format!("{}: {path} is open", row.rule));
            }
        }
        if !row.closed.iter().any(|path| rule(&policy, path) == Some(&row.rule)) {
            wrong.push(format!("{}: closes none of its paths", row.rule));
        }
    }
    for path in corpus.rules.iter().flat_map(|row| &row.open).chain(&corpus.open) {
        if let Some(rule) = rule(&policy, path) {
            wrong.push(format!("{path} is closed by {rule}"));
        }
    }
    for path in corpus.guide.iter().filter(|path| rule(&policy, path).is_none()) {
        wrong.push(format!("{path} of the security guide is open"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_of_the_preset_is_in_the_corpus_and_in_the_docs() {
    let corpus = corpus();
    let docs = include_str!("../../../docs/closed-paths.md");
    for own in &preset().rules {
        assert!(
            corpus.rules.iter().any(|row| *row.rule == *own.name),
            "{} has no row in the corpus",
            own.name
        );
        assert!(docs.contains(&format!("| `{}` |", own.name)), "{} is not in docs/closed-paths.md", own.name);
    }
}

/// What Apache would map to a closed file, were it there, is closed in every layer's eyes.
#[test]
fn names_merge_by_layer() {
    let generation = generation(
        "[deny]\nvendor = false\nlogs = [\"/private.log\"]\nours = { paths = [\"/Intern/**\"], except = [\"/intern/open/**\"], ignore_case = true }",
    );
    let policy = &generation.sites[0].root().unwrap().rules.deny;
    assert_eq!(rule(policy, "/vendor/autoload.php"), None);
    assert_eq!(rule(policy, "/error.log"), None);
    assert_eq!(rule(policy, "/private.log"), Some("logs"));
    assert_eq!(rule(policy, "/INTERN/a"), Some("ours"));
    assert_eq!(rule(policy, "/Intern/Open/a"), None);
    assert_eq!(rule(policy, "/.git/config"), Some("hidden"));
}

#[test]
fn a_path_may_be_opened_in_one_part_of_a_site() {
    let generation = generation("[[path]]\npath = \"/downloads\"\n[path.deny]\nlogs = false");
    let site = &generation.sites[0];
    let of = |path: &str| rule(&site.route(path).unwrap().rules.deny, path);
    assert_eq!(of("/downloads/a.log"), None);
    assert_eq!(of("/downloads/.git/config"), Some("hidden"));
    assert_eq!(of("/other/a.log"), Some("logs"));
}

#[test]
fn a_refusal_names_the_rule_and_its_line() {
    let refusal = check(&preset(), "/vendor/autoload.php").unwrap_err();
    assert_eq!(refusal.reason, Reason::Closed);
    assert!(refusal.detail.contains("`deny.vendor` (preset typo3:"), "{}", refusal.detail);
    assert!(refusal.detail.contains("/vendor/autoload.php"), "{}", refusal.detail);
}

#[test]
fn mistakes_are_complained_about() {
    for (text, says) in [
        ("[deny]\nx = true", "does not say what is closed"),
        ("[deny]\nx = [\"vendor\"]", "could never match"),
        ("[deny]\nx = { path = [\"/a\"] }", "did you mean `paths`?"),
        ("[deny]\nx = { except = [\"/a\"] }", "does not say what is closed"),
        ("[deny]\nx = 1", "must be"),
    ] {
        let (_, complaints) = testing::read(text, Raw::read);
        assert!(complaints.to_string().contains(says), "{text}: {complaints}");
    }
    let text = "[deny]\nvendro = false\n[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[site]]\nhosts = [\"a.test\"]\npreset = \"typo3\"\nupstream = \"http://127.0.0.1:1\"\n";
    let said = load_text("test", text.to_owned(), PathBuf::new()).complaints.to_string();
    assert!(said.contains("takes nothing out") && said.contains("did you mean `vendor`?"), "{said}");
}

#[test]
fn sites_share_what_they_did_not_write_themselves() {
    let site = |host: &str| {
        format!(
            "[[site]]\nhosts = [\"{host}\"]\npreset = \"typo3\"\nupstream = \"http://127.0.0.1:1\"\nbody_size = \"1 MiB\"\n"
        )
    };
    let generation = generation(&format!("[deny]\nx = [\"/x\"]\n{}{}", "", site("b.test")));
    let of = |at: usize| &generation.sites[at].root().unwrap().rules.deny;
    assert!(Arc::ptr_eq(of(0), of(1)));
    assert_eq!(rule(of(1), "/x"), Some("x"));
}

/// Every pattern tried on both forms, without words and automaton.
fn plainly(policy: &Policy, path: &str) -> bool {
    let exact = forms::exact(path);
    let closed = |form: &[u8]| {
        policy.patterns.iter().any(|pattern| pattern.glob.matches(form) && !policy.is_except(pattern, form))
    };
    closed(&exact) || closed(&forms::loose(&exact))
}

fn piece() -> impl Strategy<Value = String> {
    let known = [
        "vendor",
        "fileadmin",
        "typo3conf",
        "ext",
        "news",
        "Configuration",
        ".git",
        "_temp_",
        "a",
        "x.php",
        "x.sql",
        ".gz",
        "composer.json",
        "README",
        "~",
        "%23",
        "%2e",
        "%252e",
        ";",
        ":",
        ".",
        "..",
        "%20",
        ".log",
        "typo3temp",
        "var",
        "assets",
        "0.tmp",
        ".php",
        ".wrong",
        ".well-known",
        "flexform",
        ".xml",
        "%E4",
        "/",
        "/",
        "/",
        "/",
    ];
    prop_oneof![6 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{1,3}"]
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// One byte as some client may write it.
fn spelled(byte: u8, how: u8) -> String {
    match (byte, how % 5) {
        (b'/', 0) => "//".to_owned(),
        (b'/', 1) => "/./".to_owned(),
        (b'/', 2) => "/x/%2e%2E/".to_owned(),
        (b'/', _) | (_, 0) => char::from(byte).to_string(),
        (byte, 1) => format!("%{byte:02x}"),
        (byte, 2) => format!("%{byte:02X}"),
        (byte, 3) => format!("%25{byte:02x}"),
        (byte, _) => char::from(byte).to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_automaton_finds_what_trying_each_pattern_finds(path in any_path()) {
        thread_local!(static PRESET: Arc<Policy> = preset());
        let same = PRESET.with(|policy| policy.is_closed(&path) == plainly(policy, &path));
        prop_assert!(same, "{}", path);
    }

    /// Whatever normalises to a closed path is closed, or refused before.
    #[test]
    fn no_spelling_of_a_closed_path_passes(
        number in any::<prop::sample::Index>(),
        hows in prop::collection::vec(any::<u8>(), 80),
        end in prop::sample::select(vec!["", ".", "%20", ";a", "%20..", "::$DATA"]),
    ) {
        thread_local!(static PRESET: Arc<Policy> = preset());
        let corpus = corpus();
        let closed: Vec<&String> = corpus.rules.iter().flat_map(|row| &row.closed).chain(&corpus.guide).collect();
        let path = number.get(&closed);
        let plain: Vec<u8> = path::decoded(path).collect();
        let raw: String = plain.iter().zip(hows.iter().cycle()).map(|(byte, how)| spelled(*byte, *how)).collect();
        // What a folder ends with is no name.
        let raw = if path.ends_with('/') { raw } else { raw + end };
        let passes = path::normalise(&raw).is_ok_and(|path| PRESET.with(|policy| !policy.is_closed(&path)));
        prop_assert!(!passes, "{} for {}", raw, path);
        // Where the rule for paths is only reported, the path comes as it was written.
        prop_assert!(PRESET.with(|policy| policy.is_closed(&raw)), "{} as it came, for {}", raw, path);
    }

    #[test]
    fn nothing_panics(path in "/\\PC{0,60}") {
        thread_local!(static PRESET: Arc<Policy> = preset());
        let _ = PRESET.with(|policy| policy.is_closed(&path));
    }
}
