//! What comes from the registries at test time (`tests/outside` fetches it): the judge, and other people's corpora.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::{run, test_file};

/// The folder below `target/`.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let said = run(&mut Command::new(test_file("outside")));
        said.exits(0);
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/outside")
    })
}

/// The judge's program.
#[track_caller]
pub(crate) fn judge() -> PathBuf {
    let path = folder().join("judge");
    assert!(path.is_file(), "tests/outside builds the judge");
    path
}

/// The folder of a Python package. None, and a loud word, only where its registry could not be reached.
#[track_caller]
pub(crate) fn python(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.is_dir() {
        let skipped = std::fs::read_to_string(folder().join("skipped")).unwrap_or_default();
        assert!(skipped.lines().any(|line| line.starts_with(name)), "{name} is neither there nor skipped");
        eprintln!("SKIPPED: {skipped}");
        return None;
    }
    Some(path)
}

/// The files of a corpus whose names end with `end`, with their content. None, and a loud word, only where its
/// registry could not be reached.
#[track_caller]
pub(crate) fn corpus(name: &str, end: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let path = fetched(name)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&path).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(end) {
            files.push((name, std::fs::read(&path).expect("readable")));
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{} is empty", path.display());
    Some(files)
}

/// What was fetched under this name. None, and a loud word, only where its registry could not be reached.
#[track_caller]
fn fetched(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if path.is_dir() {
        return Some(path);
    }
    let skipped = std::fs::read_to_string(folder().join("skipped")).unwrap_or_default();
    assert!(skipped.lines().any(|line| line.starts_with(name)), "{name} is neither there nor skipped");
    eprintln!("SKIPPED: {skipped}");
    None
}

/// The linter of `CloudFormation`'s templates.
#[track_caller]
pub(crate) fn cfn_lint() -> Option<Command> {
    let folder = fetched("cfn-lint")?;
    let mut lint = Command::new("python3");
    lint.env("PYTHONPATH", &folder).arg(folder.join("bin/cfn-lint"));
    Some(lint)
}
