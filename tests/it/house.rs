//! The invariants of ARCHITECTURE.md that a machine can read off the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file of `src`, with its product code: what stands above an inline `mod tests`.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let name = |path: &Path| path.strip_prefix(&root).expect("below src").display().to_string();
    let code = |text: String| text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    let sources: Vec<_> =
        files.iter().map(|path| (name(path), code(fs::read_to_string(path).expect("readable")))).collect();
    assert!(sources.len() > 80, "the walk found the sources");
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn is_test(name: &str) -> bool {
    name.contains("tests") || name.ends_with("_test.rs")
}

/// Files outside of `allowed` whose code holds one of `words`.
fn offenders(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let code = |text: &str| -> String {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    sources()
        .into_iter()
        .filter(|(name, _)| !is_test(name) && !allowed.iter().any(|prefix| name.starts_with(prefix)))
        .flat_map(|(name, text)| {
            let text = code(&text);
            words
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{name}: {word}"))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_file_says_its_one_reason_to_exist() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn only_the_clock_asks_for_the_time() {
    assert_eq!(offenders(&["Instant::now(", "SystemTime::now("], &["clock.rs"]), Vec::<String>::new());
}

#[test]
fn only_configuration_and_command_line_read_the_environment() {
    assert_eq!(offenders(&["std::env::", "env::var"], &["config/", "cli/"]), Vec::<String>::new());
}

#[test]
fn tasks_are_spawned_where_the_architecture_says() {
    // state/: what blocks on a disk runs on a thread that may.
    let allowed = ["listen/", "upstream/http2/", "server/", "control.rs", "cli/demo", "state/store.rs"];
    assert_eq!(offenders(&["tokio::spawn", "task::spawn"], &allowed), Vec::<String>::new());
}

/// Every test of the tree as `path::to::module::name`, those of the library and those of `tests/it`.
fn tests_of_the_tree() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests/it"] {
        collect(&root.join(folder), &mut files);
    }
    let of_one = |path: &PathBuf| {
        let inside =
            path.strip_prefix(root).expect("below the root").with_extension("").display().to_string();
        let inside = inside.trim_start_matches("src/").trim_start_matches("tests/it/").replace('/', "::");
        // `ledger_test.rs` is the module `tests` of `ledger.rs`.
        let module = match inside.strip_suffix("_test") {
            Some(tested) => format!("{tested}::tests"),
            None => inside.trim_end_matches("::mod").to_owned(),
        };
        names(&fs::read_to_string(path).expect("readable"), &module)
    };
    files.iter().flat_map(of_one).collect()
}

/// The tests of one file. Modules within it are told by their indentation, as `cargo fmt` leaves it.
fn names(text: &str, module: &str) -> Vec<String> {
    let mut inner: Vec<(usize, &str)> = Vec::new();
    let (mut is_test, mut found) = (false, Vec::new());
    for line in text.lines() {
        let (word, depth) = (line.trim_start(), line.len() - line.trim_start().len());
        let word = word.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        inner.retain(|(at, _)| word.is_empty() || *at < depth);
        is_test |= word.starts_with("#[test]") || word.starts_with("#[tokio::test");
        let name = |rest: &'_ str| rest.split(['(', '<', ' ', ';']).next().unwrap_or_default().len();
        if let Some(rest) = word.strip_prefix("mod ").filter(|_| word.ends_with('{')) {
            inner.push((depth, &rest[..name(rest)]));
        } else if let Some(rest) = word.strip_prefix("async fn ").or_else(|| word.strip_prefix("fn ")) {
            let path: String = inner.iter().flat_map(|(_, module)| [*module, "::"]).collect();
            if is_test {
                found.push(format!("{module}::{path}{}", &rest[..name(rest)]));
            }
            is_test = false;
        }
    }
    found
}

#[test]
fn every_proof_that_the_list_of_faults_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/faults.md")).expect("the list");
    let tests = tests_of_the_tree();
    assert!(tests.len() > 1000, "the walk found the tests: {}", tests.len());
    let has = |name: &str| match name.strip_suffix('*') {
        Some(all) => tests.iter().any(|test| test.starts_with(all)),
        None => tests.iter().any(|test| test == name),
    };
    let (mut module, mut count, mut missing) = (String::new(), 0, Vec::new());
    for quoted in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        // `::name` stands in the module of what was named before.
        let full = if quoted.starts_with("::") { format!("{module}{quoted}") } else { quoted.to_owned() };
        let is_path = full.contains("::")
            && full.bytes().all(|b| b.is_ascii_alphanumeric() || b":_*".contains(&b))
            && !full.ends_with(':');
        if is_path {
            count += 1;
            module = full.rsplit_once("::").map_or(String::new(), |(module, _)| module.to_owned());
            missing.extend(Some(full).filter(|full| !has(full)));
        }
    }
    assert!(count > 60, "the list was read: {count}");
    let scripts: Vec<_> = text.split("script `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(scripts.len() >= 9, "{scripts:?}");
    let gone = scripts.iter().filter(|name| !root.join("tests/faults").join(name).is_file());
    missing.extend(gone.map(|name| format!("tests/faults/{name}")));
    let is_corpus =
        |quoted: &&str| Path::new(quoted).extension().is_some_and(|extension| extension == "yaml");
    let corpora = text.split('`').filter(is_corpus);
    missing.extend(corpora.filter(|name| !root.join("tests/corpus").join(name).is_file()).map(str::to_owned));
    assert!(missing.is_empty(), "docs/faults.md names what is not there: {missing:#?}");
    let rows: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let numbers: Vec<usize> = rows.iter().filter_map(|cell| cell.parse().ok()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "each fault has one row");
}

#[test]
fn what_decides_knows_nothing_of_sockets_and_origins() {
    let forbidden = ["crate::upstream", "crate::listen", "crate::admin"];
    let found: Vec<_> = offenders(&forbidden, &[])
        .into_iter()
        .filter(|line| ["guard/", "client/", "harden/"].iter().any(|room| line.starts_with(room)))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn decoders_stand_alone() {
    let decoders = [
        "listen/first_bytes.rs",
        "listen/proxy_protocol.rs",
        "client/forwarded.rs",
        "guard/path/decode.rs",
        "guard/host/decode.rs",
        "http1/chunked.rs",
        "http1/framing.rs",
        "http1/response.rs",
        "observe/trace.rs",
        "harden/set_cookie.rs",
        "login/basic.rs",
        "login/form.rs",
        "login/multipart.rs",
        "login/short.rs",
    ];
    let leaning: Vec<_> = sources()
        .into_iter()
        .filter(|(name, text)| decoders.contains(&name.as_str()) && text.contains("use crate::"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(leaning, Vec::<String>::new());
}

/// What every Debian has needs no line; whatever else a test starts, `tests/run` brings.
#[test]
fn tests_run_installs_every_program_that_a_test_starts() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = fs::read_to_string(here.join("tests/run")).expect("readable");
    let needs: Vec<_> = script.lines().map(str::trim).filter_map(|line| line.strip_prefix("need ")).collect();
    let brought: Vec<_> = needs.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    let everywhere = ["chmod", "id", "kill", "mkfifo", "sh", "sha256sum"];
    let mut files = Vec::new();
    collect(&here.join("src"), &mut files);
    collect(&here.join("tests/it"), &mut files);
    let text: String = files.iter().map(|path| fs::read_to_string(path).expect("readable")).collect();
    let started: BTreeSet<_> =
        text.split("Command::new(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(started.contains("openssl") && started.len() > 15, "the walk found the programs: {started:?}");
    let missing: Vec<_> =
        started.iter().filter(|name| !brought.contains(name) && !everywhere.contains(name)).collect();
    assert!(missing.is_empty(), "tests/run has no `need` line for {missing:?}");
}
