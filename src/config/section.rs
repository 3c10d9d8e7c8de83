//! Reading one TOML table key by key, so that nothing unknown passes and every complaint has a place.
//!
//! Each module reads its own `Raw` from a [`Section`]; `finish` then names every key that nobody asked
//! for. A value that cannot be read is complained about and treated as absent: reading goes on.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::complaint::{Complaints, Place, Source, did_you_mean};
use super::file;

/// What a reading carries along: complaints so far, the environment, and where relative paths start.
pub struct Reading<'e> {
    /// Everything found wrong so far.
    pub complaints: Complaints,
    /// Looks an environment variable up, for `${NAME}` in values.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// The folder that relative paths are relative to: that of the configuration file.
    pub base: PathBuf,
}

/// A value together with the place it was written at.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

impl<T> Placed<T> {
    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Placed<U> {
        Placed { value: f(self.value), place: self.place }
    }
}

/// A table being read.
pub struct Section<'t> {
    table: &'t DeTable<'t>,
    /// Where the table was opened.
    pub place: Place,
    name: String,
    known: Vec<&'static str>,
    found: usize,
}

/// A value not yet read.
pub struct Item<'t> {
    value: &'t DeValue<'t>,
    /// Where it was written.
    pub place: Place,
    name: String,
}

/// A type that one TOML value can be read as. An implementation that answers `None` has complained.
pub trait FromToml: Sized {
    /// Reads the value, or complains.
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self>;
}

/// A type written as a TOML string in a grammar of its own (sizes, durations, CIDRs, modes…).
pub trait FromText: Sized {
    /// Parses the text; the error says what is wrong and, if known, how to write it.
    fn from_text(text: &str) -> Result<Self, Fault>;
}

/// Why a text could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, with the value.
    pub message: String,
    /// How to write it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault with a hint.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

impl<'t> Section<'t> {
    /// The whole document as one section.
    #[must_use]
    pub fn root(table: &'t DeTable<'t>, source: &Arc<Source>) -> Self {
        let place = Place { source: Arc::clone(source), span: 0..0 };
        Self { table, place, name: String::new(), known: Vec::new(), found: 0 }
    }

    /// Reads `key` as `T`; `None` if it is absent or was complained about.
    pub fn get<T: FromToml>(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<Placed<T>> {
        let item = self.item(key)?;
        T::from_toml(&item, reading).map(|value| Placed { value, place: item.place })
    }

    /// The value of `key`, unread.
    pub fn item(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.known.push(key);
        let (_, value) = self.table.iter().find(|(k, _)| k.get_ref() == key)?;
        self.found += 1;
        Some(self.child(key, value.get_ref(), value.span()))
    }

    /// How many of the keys that were asked for are there: who reads several can tell whether any was.
    #[must_use]
    pub fn found(&self) -> usize {
        self.found
    }

    /// Reads `key` as a table (`[key]`).
    pub fn section(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Option<Section<'t>> {
        self.item(key)?.into_section(reading)
    }

    /// Reads `key` as an array of tables (`[[key]]`).
    pub fn sections(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Vec<Section<'t>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let Some(array) = item.value.as_array() else {
            reading.complaints.error(
                Some(&item.place),
                format!("`{}` must be a list of tables", item.name),
                Some(format!("write `[[{}]]`, with two brackets, once for each", item.name)),
            );
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(array.len());
        sections.extend(
            array.iter().filter_map(|v| self.child(key, v.get_ref(), v.span()).into_section(reading)),
        );
        sections
    }

    /// Every key with its value, for tables whose keys are names of the operator's choosing.
    /// In the order they were written.
    pub fn entries(&mut self) -> Vec<(Placed<String>, Item<'t>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(k, v)| {
                let name = k.get_ref().to_string();
                let place = Place { source: Arc::clone(&self.place.source), span: k.span() };
                let item = self.child(&name, v.get_ref(), v.span());
                (Placed { value: name, place }, item)
            })
            .collect();
        entries.sort_by_key(|(name, _)| name.place.span.start);
        entries
    }

    /// Complains about every key that was never asked for. Not for tables read by `entries`.
    pub fn finish(self, reading: &mut Reading<'_>) {
        for (key, _) in self.table {
            let word: &str = key.get_ref();
            if self.known.contains(&word) {
                continue;
            }
            let place = Place { source: Arc::clone(&self.place.source), span: key.span() };
            let hint = did_you_mean(word, self.known.iter().copied()).unwrap_or_else(|| {
                let mut known = self.known.clone();
                known.sort_unstable();
                known.dedup();
                format!("known here: {}", known.join(", "))
            });
            let message = match self.name.as_str() {
                "" => format!("unknown key `{word}`"),
                name => format!("unknown key `{word}` in `{name}`"),
            };
            reading.complaints.error(Some(&place), message, Some(hint));
        }
    }

    fn child(&self, key: &str, value: &'t DeValue<'t>, span: Range<usize>) -> Item<'t> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        Item { value, place: Place { source: Arc::clone(&self.place.source), span }, name }
    }
}

impl<'t> Item<'t> {
    /// The dotted name of the key, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a string, and not a table or another type, was written.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Whether a table was written.
    #[must_use]
    pub fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The boolean that was written, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// The whole number that was written, if it is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
    }

    /// The string with `${NAME}` filled in, for types that give `file:` a meaning of their own.
    pub fn text(&self, reading: &mut Reading<'_>) -> Option<String> {
        let Some(text) = self.value.as_str() else {
            self.wrong_type(reading, "a string");
            return None;
        };
        interpolate(text, self, reading)
    }

    /// Reads the value as `T`.
    pub fn read<T: FromToml>(&self, reading: &mut Reading<'_>) -> Option<Placed<T>> {
        T::from_toml(self, reading).map(|value| Placed { value, place: self.place.clone() })
    }

    /// The value as a table, or a complaint.
    pub fn into_section(self, reading: &mut Reading<'_>) -> Option<Section<'t>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type(reading, "a table");
            return None;
        };
        Some(Section { table, place: self.place, name: self.name, known: Vec::new(), found: 0 })
    }

    /// The elements of a list; a single value counts as a list of one.
    #[must_use]
    pub fn elements(&self) -> Vec<Item<'t>> {
        match self.value.as_array() {
            Some(array) => array
                .iter()
                .map(|v| Item {
                    value: v.get_ref(),
                    place: Place { source: Arc::clone(&self.place.source), span: v.span() },
                    name: self.name.clone(),
                })
                .collect(),
            None => vec![Item { value: self.value, place: self.place.clone(), name: self.name.clone() }],
        }
    }

    /// The value as it stands in the text.
    fn written(&self) -> String {
        self.place.source.text.get(self.place.span.clone()).unwrap_or_default().to_owned()
    }

    fn wrong_type(&self, reading: &mut Reading<'_>, want: &str) {
        self.mistyped(reading, want, None);
    }

    fn mistyped(&self, reading: &mut Reading<'_>, want: &str, hint: Option<String>) {
        let message = format!("`{}` must be {want}, not {}", self.name, article(self.value.type_str()));
        reading.complaints.error(Some(&self.place), message, hint);
    }
}

impl FromToml for bool {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let value = item.value.as_bool();
        if value.is_none() {
            item.wrong_type(reading, "true or false");
        }
        value
    }
}

impl FromToml for u64 {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let value = item.value.as_integer().and_then(|i| {
            let digits = i.as_str().replace('_', "");
            u64::from_str_radix(&digits, i.radix()).ok()
        });
        if value.is_none() {
            item.wrong_type(reading, "a whole number, 0 or more");
        }
        value
    }
}

/// A secret in a file of its own is a line or a page.
const LARGEST_SECRET: u64 = 1 << 20;

/// Strings take `${NAME}` from the environment, and `file:PATH` as a whole from a file (its last line
/// break removed), so that secrets need not stand in the configuration.
impl FromToml for String {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let Some(text) = item.value.as_str() else {
            item.wrong_type(reading, "a string");
            return None;
        };
        let text = interpolate(text, item, reading)?;
        let Some(path) = text.strip_prefix("file:") else { return Some(text) };
        let path = reading.base.join(path);
        match file::text(&path, LARGEST_SECRET) {
            Ok(content) => Some(content.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                reading.complaints.error(Some(&item.place), message, None);
                None
            }
        }
    }
}

/// Relative paths are relative to the configuration file.
impl FromToml for PathBuf {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let Some(text) = item.value.as_str() else {
            item.wrong_type(reading, "a path in quotes");
            return None;
        };
        let text = interpolate(text, item, reading)?;
        Some(reading.base.join(text))
    }
}

/// A list; a single value counts as a list of one. Elements that cannot be read are complained about
/// and left out.
impl<T: FromToml> FromToml for Vec<Placed<T>> {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        Some(item.elements().iter().filter_map(|element| element.read(reading)).collect())
    }
}

/// A string in a grammar of its own.
#[derive(Clone, Debug)]
pub struct Text<T>(pub T);

impl<T: FromText> FromToml for Text<T> {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        if !item.is_text() {
            // A number without its unit, say: the grammar knows how to write it.
            let hint = T::from_text(&item.written()).err().and_then(|fault| fault.hint);
            item.mistyped(reading, "a string", hint);
            return None;
        }
        let text = String::from_toml(item, reading)?;
        match T::from_text(&text) {
            Ok(value) => Some(Self(value)),
            Err(fault) => {
                let message = format!("`{}`: {}", item.name, fault.message);
                reading.complaints.error(Some(&item.place), message, fault.hint);
                None
            }
        }
    }
}

fn interpolate(text: &str, item: &Item<'_>, reading: &mut Reading<'_>) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            reading.complaints.error(
                Some(&item.place),
                format!("`{}` opens `${{` and never closes it", item.name),
                Some("write `${NAME}` to take the environment variable NAME".to_owned()),
            );
            return None;
        };
        let Some(value) = (reading.env)(name) else {
            reading.complaints.error(
                Some(&item.place),
                format!("the environment variable `{name}` is not set"),
                Some(format!("set {name} before starting Ravelin, or write the value here")),
            );
            return None;
        };
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}
