//! `[log]`: the access log's form and place, and how much diagnostics say.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use crate::config::complaint::Complaints;
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    access: Option<Placed<Form>>,
    file: Option<Placed<Place>>,
    level: Option<Placed<String>>,
    format: Option<Placed<Format>>,
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The form of the access log.
    pub access: Form,
    /// Where the access log goes.
    pub file: Place,
    /// What diagnostics say, as a `tracing` filter.
    pub level: Box<str>,
    /// The form of diagnostics.
    pub format: Format,
}

/// The form of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// One JSON object per line.
    #[default]
    Json,
    /// Apache's `combined`.
    Combined,
    /// No access log; metrics go on.
    Off,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, opened for appending.
    File(PathBuf),
}

/// The form of diagnostics on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// What diagnostics say where nothing else is said.
pub const LEVEL: &str = "info";

impl FromText for Form {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("json", Self::Json), ("combined", Self::Combined), ("off", Self::Off)])
    }
}

impl FromText for Format {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("text", Self::Text), ("json", Self::Json)])
    }
}

impl Raw {
    /// Reads `[log]` and closes it.
    pub fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let raw = Self {
            access: section.get::<Text<Form>>(reading, "access").map(|placed| placed.map(|text| text.0)),
            file: place(&mut section, reading),
            level: section.get::<String>(reading, "level"),
            format: section.get::<Text<Format>>(reading, "format").map(|placed| placed.map(|text| text.0)),
        };
        section.finish(reading);
        raw
    }

    /// What it means.
    #[must_use]
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let default = Policy::default();
        Policy {
            access: self.access.map_or(default.access, |placed| placed.value),
            file: self.file.map_or(default.file, |placed| placed.value),
            level: self.level.and_then(|placed| level(&placed, complaints)).unwrap_or(default.level),
            format: self.format.map_or(default.format, |placed| placed.value),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { access: Form::Json, file: Place::Stdout, level: LEVEL.into(), format: Format::Text }
    }
}

/// `stdout`, or a path relative to the configuration file.
fn place(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Placed<Place>> {
    let placed = section.get::<PathBuf>(reading, "file")?;
    let stdout = placed.value == reading.base.join("stdout");
    Some(placed.map(|path| if stdout { Place::Stdout } else { Place::File(path) }))
}

fn level(placed: &Placed<String>, complaints: &mut Complaints) -> Option<Box<str>> {
    let text = placed.value.trim();
    // A single word is read as a target by the filter, so a misspelt level would silence everything.
    let word = !text.contains([',', '=']);
    let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    let valid = if word { known } else { EnvFilter::try_new(text).is_ok() };
    if valid {
        return Some(text.into());
    }
    let hint =
        crate::config::complaint::did_you_mean(text, ["off", "error", "warn", "info", "debug", "trace"])
            .unwrap_or_else(|| {
                "write `error`, `warn`, `info`, `debug` or `trace`, or e.g. `info,ravelin::upstream=debug`"
                    .to_owned()
            });
    complaints.error(Some(&placed.place), format!("`{text}` is not a log level"), Some(hint));
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toml::de::DeTable;

    use super::*;
    use crate::config::complaint::Source;

    fn read(text: &str) -> (Policy, String) {
        let source = Arc::new(Source { name: "test.toml".into(), text: text.into() });
        let document = DeTable::parse(&source.text).unwrap();
        let mut reading = Reading {
            complaints: Complaints::default(),
            env: &|_| None,
            base: PathBuf::from("/etc/ravelin"),
        };
        let raw = Raw::read(Section::root(document.get_ref(), &source), &mut reading);
        let policy = raw.compile(&mut reading.complaints);
        (policy, reading.complaints.to_string())
    }

    #[test]
    fn nothing_written_means_json_to_standard_output() {
        assert_eq!(read(""), (Policy::default(), String::new()));
        assert_eq!(read("file = \"stdout\""), (Policy::default(), String::new()));
    }

    #[test]
    fn every_key_is_read() {
        let text = "access = \"combined\"\nfile = \"logs/access.log\"\nlevel = \"info,ravelin=debug\"\nformat = \"json\"";
        let want = Policy {
            access: Form::Combined,
            file: Place::File("/etc/ravelin/logs/access.log".into()),
            level: "info,ravelin=debug".into(),
            format: Format::Json,
        };
        assert_eq!(read(text), (want, String::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        for (text, message, hint) in [
            ("access = \"jsn\"", "`jsn` is not one of", "did you mean `json`?"),
            ("level = \"inof\"", "`inof` is not a log level", "did you mean `info`?"),
            ("level = \"ravelin=loud\"", "is not a log level", "help:"),
            ("acess = \"json\"", "unknown key `acess`", "did you mean `access`?"),
        ] {
            let (policy, complaints) = read(text);
            assert_eq!(policy, Policy::default());
            assert!(complaints.contains(message) && complaints.contains(hint), "{text}: {complaints}");
        }
    }
}
