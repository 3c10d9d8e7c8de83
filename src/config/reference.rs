//! Texts for the operator that are generated, so that they cannot be out of date: the annotated default
//! configuration and the table of refusals.

use std::fmt::Write as _;

use super::layer::preset_text;
use crate::refusal::Reason;
use crate::step::Step;

/// The annotated default configuration: what `ravelin config default` prints and `config/ravelin.toml` is.
#[must_use]
pub fn default_file() -> String {
    let mut text = DEFAULT.to_owned();
    for (name, title) in [
        ("typo3", "The preset `typo3`, level `safe`: what holds if you write nothing else"),
        ("typo3-strict", "What level `strict` adds, each with what it can break"),
    ] {
        let _ = writeln!(text, "\n# {}\n# {title}", "-".repeat(96));
        let _ = writeln!(text, "# Shown for reading; a line of your own with the same name replaces it.");
        for line in preset_text(name).unwrap_or_default().lines() {
            let line = format!("#   {line}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

const DEFAULT: &str = include_str!("default.toml");

/// The operator's table of refusals, in Markdown: what `docs/refusals.md` is.
#[must_use]
pub fn refusals() -> String {
    let mut text = REFUSALS.to_owned();
    for step in Step::ALL {
        let mut rows =
            Reason::ALL.iter().map(|reason| reason.row()).filter(|row| row.step == step).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "\n## {}: {}\n", step.name(), step.question());
        let _ = writeln!(text, "| reason | status | what to do |\n|---|---|---|");
        for row in rows {
            let _ = writeln!(text, "| `{}` | {} | {} |", row.name, row.status.as_u16(), row.advice);
        }
    }
    text
}

const REFUSALS: &str = "# Why was this refused?

Every refusal page carries a reference id. Find it in the access log (`grep ID access.log`): the line
names the `step`, the `reason` and a private `detail`. Here is what each reason means for you.
(`ravelin config refusals` prints this page.)
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::complaint::Severity;
    use crate::http1::grade::Fault;

    #[test]
    fn the_files_in_the_repository_are_the_generated_ones() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/");
        let read = |path: &str| std::fs::read_to_string(format!("{here}{path}")).unwrap();
        assert!(
            read("config/ravelin.toml") == default_file(),
            "run `ravelin config default > config/ravelin.toml`"
        );
        assert!(read("docs/refusals.md") == refusals(), "run `ravelin config refusals > docs/refusals.md`");
    }

    /// The page on grades has a row for each reason, in the words of the log; a limit is no grade.
    #[test]
    fn every_reason_of_a_grade_is_on_its_page() {
        let page = include_str!("../../docs/desync.md");
        let row = |fault: Fault| format!("| `{}` | {} | {fault} |\n", fault.label(), fault.class().label());
        let rows: String = Fault::ALL.into_iter().filter(|fault| !fault.is_limit()).map(row).collect();
        assert!(page.contains(&rows), "docs/desync.md is to have these rows:\n{rows}");
    }

    /// Every key that is shown with its default, taken in, is accepted without a word: the file neither
    /// invents keys nor breaks its own rules.
    #[test]
    fn every_key_of_the_default_file_exists() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["www.example.org".to_owned()]).unwrap();
        std::fs::write(folder.path().join("www.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("www.key"), made.signing_key.serialize_pem()).unwrap();
        let uncommented = |line: &str| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n";
        let text: String = DEFAULT.lines().map(uncommented).collect();
        let loaded = crate::config::load_text("default", text, folder.path().to_path_buf());
        let errors = loaded.complaints.iter().filter(|c| c.severity == Severity::Error);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        assert!(loaded.generation.is_some());
    }
}
