//! Two columns side by side, for a terminal of 100 columns; readable without colour.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

/// Rows under a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// What the rows are about.
    pub(super) title: &'static str,
    /// The rows.
    pub(super) rows: Vec<Row>,
}

/// A name and its two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What is compared.
    pub(super) name: String,
    /// Without Ravelin.
    pub(super) before: String,
    /// With Ravelin.
    pub(super) after: String,
}

/// Whether the terminal shows more than letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Letters only.
    Plain,
    /// Titles in bold, results in green.
    Colour,
}

impl Style {
    /// What standard output takes; `NO_COLOR` (no-color.org) has the last word.
    pub(super) fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && io::stdout().is_terminal() { Self::Colour } else { Self::Plain }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

const WIDTH: usize = 100;
const INDENT: usize = 2;
const GAP: usize = 2;
const NAME: usize = 28;
const BEFORE: usize = 26;
const AFTER: usize = WIDTH - INDENT - NAME - GAP - BEFORE - GAP;

/// The whole table.
pub(super) fn render(sections: &[Section], style: Style) -> String {
    let mut out = String::new();
    let start = INDENT + NAME + GAP;
    let (before, after) = (style.bold(&padded("without Ravelin", BEFORE)), style.bold("with Ravelin"));
    let _ = writeln!(out, "{:start$}{before}{:GAP$}{after}", "", "");
    for section in sections {
        let _ = writeln!(out, "{}", style.bold(section.title));
        for row in &section.rows {
            let (name, before) = (padded(&row.name, NAME), padded(&row.before, BEFORE));
            let after = clipped(&row.after, AFTER);
            let after = if row.after == row.before { after } else { style.green(&after) };
            let _ = writeln!(out, "{:INDENT$}{name}{:GAP$}{before}{:GAP$}{after}", "", "", "");
        }
    }
    out
}

fn padded(text: &str, width: usize) -> String {
    format!("{:width$}", clipped(text, width))
}

/// At most `width` characters; three dots stand for what was left out. Nothing but printable characters
/// reaches the terminal.
fn clipped(text: &str, width: usize) -> String {
    let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
    if text.chars().count() <= width {
        return clean.collect();
    }
    let kept: String = clean.take(width.saturating_sub(4)).collect();
    // Whole words, if there are some.
    let kept = kept.rsplit_once(' ').map_or(&*kept, |(words, _)| words);
    format!("{kept} ...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(style: Style) -> String {
        let row = |name: &str, before: &str, after: &str| Row {
            name: name.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let rows = vec![row("Server", "Apache", "gone"), row("Long", &"b".repeat(99), &"a\u{1b}".repeat(99))];
        render(&[Section { title: "Leaks", rows }], style)
    }

    #[test]
    fn columns_stand_under_each_other_and_lines_are_short() {
        let plain = table(Style::Plain);
        let lines: Vec<&str> = plain.lines().collect();
        let [head, title, server, long] = lines.as_slice() else { panic!("{plain}") };
        assert_eq!(*title, "Leaks");
        assert_eq!(head.find("without"), server.find("Apache"));
        assert_eq!(head.rfind("with "), server.find("gone"));
        assert_eq!(long.chars().count(), WIDTH);
        assert_eq!(clipped("several words are here", 16), "several ...");
        assert!(long.ends_with(" ...") && !plain.contains('\u{1b}'), "{plain}");
    }

    #[test]
    fn colour_changes_no_letter() {
        let mut text = table(Style::Colour);
        assert!(text.contains("\u{1b}[32mgone\u{1b}[0m"));
        for code in ["\u{1b}[1m", "\u{1b}[32m", "\u{1b}[0m"] {
            text = text.replace(code, "");
        }
        assert_eq!(text, table(Style::Plain));
    }
}
