//! What is wrong with a configuration, where it stands, and how to mend it.
//!
//! Reading a configuration never stops at the first fault: every reader adds its complaints here,
//! and `ravelin check` prints them all.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// A text that configuration is read from: a file, the built-in preset, or the command line.
#[derive(Debug)]
pub struct Source {
    /// The name that complaints show: a path, `preset typo3`, or `command line`.
    pub name: String,
    /// The whole text, TOML.
    pub text: String,
}

/// Where a value was written: a source and the byte range in it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The text it stands in.
    pub source: Arc<Source>,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl Place {
    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        let end = self.span.start.min(self.source.text.len());
        let before = self.source.text.as_bytes().get(..end).unwrap_or_default();
        1 + memchr::memchr_iter(b'\n', before).count()
    }

    /// `file:line`, as `explain` and complaints print it.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}:{}", self.source.name, self.line())
    }

    /// The line's text, and the columns (in characters, from 0) that the span covers on it.
    fn excerpt(&self) -> (&str, Range<usize>) {
        let text = &self.source.text;
        let start = self.span.start.min(text.len());
        let from = text.get(..start).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let line = text.get(from..).and_then(|t| t.lines().next()).unwrap_or("");
        let column = text.get(from..start).map_or(0, |t| t.chars().count());
        let end = self.span.end.min(from + line.len()).max(start);
        let width = text.get(start..end).map_or(1, |t| t.chars().count()).max(1);
        (line, column..column + width)
    }
}

/// The same bytes of a text of the same name: a preset that is read twice says the same at the same place.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.span == other.span && self.source.name == other.source.name
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.name.hash(state);
        self.span.hash(state);
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Ravelin does not start (or keeps the old generation on reload).
    Error,
    /// Ravelin starts; the operator should know.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Complaint {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands; none for something that is missing altogether or lies outside the text.
    pub place: Option<Place>,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.message)?;
        if let Some(place) = &self.place {
            let (line, columns) = place.excerpt();
            let number = place.line().to_string();
            let gutter = " ".repeat(number.len());
            writeln!(f, "{gutter}--> {}", place.label())?;
            writeln!(f, "{number} | {line}")?;
            let mut marker = String::new();
            for (i, c) in line.chars().enumerate().take(columns.end.max(columns.start + 1)) {
                // Tabs stay tabs, so that the marker stands under what it marks.
                marker.push(if i >= columns.start {
                    '^'
                } else if c == '\t' {
                    '\t'
                } else {
                    ' '
                });
            }
            if marker.trim().is_empty() {
                marker.push('^');
            }
            writeln!(f, "{gutter} | {marker}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  help: {hint}")?;
        }
        Ok(())
    }
}

/// All complaints of one reading, in the order they were found.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    list: Vec<Complaint>,
    known: HashSet<Complaint>,
    errors: bool,
}

impl Complaints {
    /// Adds an error at `place`.
    pub fn error(&mut self, place: Option<&Place>, message: impl Into<String>, hint: Option<String>) {
        self.push(Severity::Error, place, message.into(), hint);
    }

    /// Adds a warning at `place`.
    pub fn warning(&mut self, place: Option<&Place>, message: impl Into<String>, hint: Option<String>) {
        self.push(Severity::Warning, place, message.into(), hint);
    }

    fn push(&mut self, severity: Severity, place: Option<&Place>, message: String, hint: Option<String>) {
        let complaint = Complaint { severity, place: place.cloned(), message, hint };
        self.errors |= severity == Severity::Error;
        // Layers are compiled for several routes and sites: the same fault is said once.
        if self.known.insert(complaint.clone()) {
            self.list.push(complaint);
        }
    }

    /// Whether anything keeps the configuration from being used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors
    }

    /// Every complaint, errors and warnings.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.list.iter()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for complaint in &self.list {
            writeln!(text, "{complaint}")?;
        }
        f.write_str(&text)
    }
}

/// The known word nearest to `word`, if one is near enough to be meant.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (score, best) = known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&word.to_lowercase(), &k.to_lowercase()), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.8).then(|| format!("did you mean `{best}`?"))
}
