//! What the documents show: every configuration in them is one that an operator can paste.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{ravelin, run};

/// A configuration in a document.
struct Shown {
    document: String,
    line: usize,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = in_docs.chain(["README.md", "SECURITY.md"].map(|name| root.join(name))).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    all
}

/// The blocks marked as TOML, those in lists too.
fn shown(path: &Path) -> Vec<Shown> {
    let text = fs::read_to_string(path).unwrap();
    let document = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim() {
            "```toml" => {
                inside = true;
                found.push(Shown { document: document.clone(), line: number + 1, text: String::new() });
            }
            "```" => inside = false,
            line if inside => {
                let text = &mut found.last_mut().unwrap().text;
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// Adds what a reader has already and the document therefore leaves out: a listener, a site, and of a site that only
/// shows what is new about it, its host and its origin.
fn completed(text: &str) -> String {
    let (listen, site) = (text.contains("[[listen]]"), text.contains("[[site]]"));
    let mut whole = String::new();
    if !listen {
        whole.push_str("[[listen]]\nurl = \"http://127.0.0.1:0\"\nplain = \"serve\"\n");
    }
    if !site && text.contains("[site.") {
        whole.push_str(SITE);
    }
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        whole.push_str(line);
        whole.push('\n');
        if line.trim_end() == "[[site]]" {
            let own = format!("\n{}", rest.split("\n[").next().unwrap_or_default());
            for key in ["hosts = [\"*\"]\n", "upstream = \"http://127.0.0.1:81\"\n"] {
                let name = key.split(' ').next().unwrap_or_default();
                if !own.contains(&format!("\n{name} =")) {
                    whole.push_str(key);
                }
            }
        }
    }
    if !site && !text.contains("[site.") {
        whole.push_str(SITE);
    }
    whole
}

const SITE: &str =
    "[[site]]\nhosts = [\"www.example.org\"]\nupstream = \"http://127.0.0.1:81\"\npreset = \"typo3\"\n";

/// What `check` finds wrong, apart from files that this machine does not have.
fn complaints(shown: &Shown) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("ravelin.toml");
    fs::write(&file, completed(&shown.text)).unwrap();
    let names = shown.text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    let said =
        run(ravelin().arg("check").arg("--config").arg(&file).envs(names.map(|name| (name, "secret"))));
    let errors: Vec<_> =
        said.all().lines().filter(|line| line.starts_with("error")).map(str::to_owned).collect();
    assert!(said.code == Some(0) || !errors.is_empty(), "{}", said.all());
    errors.into_iter().filter(|error| !error.contains("cannot read ")).collect()
}

#[test]
fn every_configuration_in_the_documents_is_one() {
    let all: Vec<_> = documents().iter().flat_map(|path| shown(path)).collect();
    assert!(all.len() > 30, "only {} configurations were found", all.len());
    let wrong: Vec<_> = all
        .iter()
        .flat_map(|shown| complaints(shown).into_iter().map(|said| (&shown.document, shown.line, said)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_no_configuration_would_be_noticed() {
    let text = "[[site]]\npresett = \"typo3\"\n".to_owned();
    let found = complaints(&Shown { document: String::new(), line: 0, text });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("presett"), "{found:?}");
}
