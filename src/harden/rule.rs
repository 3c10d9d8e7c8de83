//! One entry of `[headers]`: a name, and what is to be done with its lines.
//!
//! The operations are those of Apache's `mod_headers`. A plain string is the everyday form: `set` for
//! most headers, `setifempty` for Content-Security-Policy (an origin's policy carries nonces that a
//! constant would destroy) and completion by feature for Permissions-Policy.

use std::sync::Arc;

use http::HeaderValue;

use super::condition::Condition;
use super::edit::Edit;
use super::permissions::Features;
use super::{intern, lint};
use crate::config::complaint::Place;
use crate::config::section::{Item, Placed, Reading, Section};

/// What one layer wrote about one name.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The name as it was spelt.
    pub(super) name: String,
    /// Where the name stands.
    pub(super) place: Place,
    /// What to do, in order. Empty after `inherit = false`: the origin's lines pass.
    pub(super) rules: Vec<Rule>,
}

/// One operation and when it applies.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) verb: Verb,
    pub(super) when: Condition,
    pub(super) place: Place,
}

/// An operation of Apache's `mod_headers`, with its value built.
#[derive(Clone, Debug)]
pub(super) enum Verb {
    /// Exactly one line with this value.
    Set(HeaderValue),
    /// Joined to the first line with `, `, or a line of its own if there is none.
    Append(HeaderValue),
    /// The same, unless the value is an element of the list already.
    Merge(HeaderValue),
    /// A line of its own, always.
    Add(HeaderValue),
    /// A line of its own if there is none. An empty line counts as one, as in Apache.
    SetIfEmpty(HeaderValue),
    /// Permissions-Policy: the features that the origin does not mention are added.
    Complete(HeaderValue, Arc<Features>),
    /// No line.
    Unset,
    /// Every line edited.
    Edit(Arc<Edit>, Arc<str>),
}

/// The operations that are written with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Set,
    Append,
    Merge,
    Add,
    SetIfEmpty,
    Edit,
    EditEvery,
}

impl Word {
    const ALL: [Word; 7] =
        [Word::Set, Word::Append, Word::Merge, Word::Add, Word::SetIfEmpty, Word::Edit, Word::EditEvery];

    /// The key that stands in the configuration.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Word::Set => "set",
            Word::Append => "append",
            Word::Merge => "merge",
            Word::Add => "add",
            Word::SetIfEmpty => "setifempty",
            Word::Edit => "edit",
            Word::EditEvery => "edit*",
        }
    }

    /// What a plain string means for this header.
    fn plain(name: &str) -> Self {
        match name {
            "content-security-policy" | "content-security-policy-report-only" => Word::SetIfEmpty,
            "permissions-policy" => Word::Merge,
            _ => Word::Set,
        }
    }
}

impl Verb {
    /// The rule in words, for `explain`.
    pub(super) fn describe(&self) -> String {
        let quoted =
            |word: &str, value: &HeaderValue| format!("{word} \"{}\"", value.to_str().unwrap_or_default());
        match self {
            Verb::Set(value) => quoted("set", value),
            Verb::Append(value) => quoted("append", value),
            Verb::Merge(value) | Verb::Complete(value, _) => quoted("merge", value),
            Verb::Add(value) => quoted("add", value),
            Verb::SetIfEmpty(value) => quoted("setifempty", value),
            Verb::Unset => "unset".to_owned(),
            Verb::Edit(_, text) => text.to_string(),
        }
    }
}

impl Written {
    /// Reads what stands behind `name`; `lower` is the name in lower case. `None` after a complaint.
    pub(super) fn read(
        name: Placed<String>,
        lower: &str,
        item: &Item<'_>,
        reading: &mut Reading<'_>,
    ) -> Option<Self> {
        let rules = match item.as_bool() {
            Some(false) => {
                vec![Rule { verb: Verb::Unset, when: Condition::default(), place: name.place.clone() }]
            }
            Some(true) => {
                let hint = "write a string to set it, or `false` to remove it".to_owned();
                reading.complaints.error(
                    Some(&item.place),
                    format!("`{}` cannot be `true`", item.name()),
                    Some(hint),
                );
                return None;
            }
            None if item.is_text() => {
                let text = item.read::<String>(reading)?;
                let verb = verb(lower, Word::plain(lower), &text, None, reading)?;
                vec![Rule { verb, when: Condition::default(), place: name.place.clone() }]
            }
            None => operations(lower, item, reading)?,
        };
        Some(Self { name: name.value, place: name.place, rules })
    }
}

/// A table, or a list of tables whose operations are done in order.
fn operations(lower: &str, item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Vec<Rule>> {
    let elements = item.elements();
    let alone = elements.len() == 1;
    let mut rules = Vec::with_capacity(elements.len());
    for element in elements {
        match operation(lower, element.into_section(reading)?, reading)? {
            Said::Do(rule) => rules.push(rule),
            Said::Nothing if alone => {}
            Said::Nothing => {
                let message = format!("`{}`: `inherit = false` stands alone", item.name());
                reading.complaints.error(Some(&item.place), message, None);
            }
        }
    }
    Some(rules)
}

/// What one table says.
enum Said {
    Do(Rule),
    /// `inherit = false`.
    Nothing,
}

/// One table; `None` after a complaint.
fn operation(lower: &str, mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Said> {
    let place = section.place.clone();
    let inherit = section.get::<bool>(reading, "inherit");
    let unset = section.get::<bool>(reading, "unset").filter(|unset| unset.value);
    let with = section.get::<String>(reading, "with");
    let mut words: Vec<(Word, Placed<String>)> = Vec::new();
    for word in Word::ALL {
        words.extend(section.get::<String>(reading, word.key()).map(|text| (word, text)));
    }
    let when = condition(&mut section, reading)?;
    section.finish(reading);
    if inherit.as_ref().is_some_and(|inherit| !inherit.value) && words.is_empty() && unset.is_none() {
        return Some(Said::Nothing);
    }
    let verb = match (words.pop(), unset.is_some(), words.is_empty()) {
        (Some((word, text)), false, true) => verb(lower, word, &text, with.as_ref(), reading)?,
        (None, true, true) => Verb::Unset,
        _ => {
            let hint = "one of set, append, merge, add, setifempty, edit (with `with`), unset = true, inherit = false";
            let message = format!("`{lower}` needs exactly one operation");
            reading.complaints.error(Some(&place), message, Some(hint.to_owned()));
            return None;
        }
    };
    Some(Said::Do(Rule { verb, when, place }))
}

fn condition(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Condition> {
    let place = section.place.clone();
    let status = section.get::<Vec<Placed<String>>>(reading, "status");
    let types = section.get::<Vec<Placed<String>>>(reading, "type");
    let texts = |list: &Option<Placed<Vec<Placed<String>>>>| -> Vec<String> {
        list.iter().flat_map(|list| &list.value).map(|text| text.value.clone()).collect()
    };
    let (status, types) = (texts(&status), texts(&types));
    match Condition::new(status.iter().map(String::as_str), types.iter().map(String::as_str)) {
        Ok(condition) => Some(condition),
        Err(message) => {
            reading.complaints.error(Some(&place), message, None);
            None
        }
    }
}

fn verb(
    lower: &str,
    word: Word,
    text: &Placed<String>,
    with: Option<&Placed<String>>,
    reading: &mut Reading<'_>,
) -> Option<Verb> {
    let complaints = &mut reading.complaints;
    let every = word == Word::EditEvery;
    if every || word == Word::Edit {
        let Some(with) = with else {
            let hint = format!("write `{{ edit = \"{}\", with = \"…\" }}`", text.value);
            complaints.error(Some(&text.place), format!("`{lower}`: `edit` needs `with`"), Some(hint));
            return None;
        };
        return match Edit::new(&text.value, &with.value, every) {
            Ok(edit) if intern::value(&with.value).is_some() => {
                let words = format!("{} \"{}\" with \"{}\"", word.key(), text.value, with.value);
                Some(Verb::Edit(Arc::new(edit), words.into()))
            }
            Ok(_) => {
                lint::not_a_value(lower, &with.value, &with.place, complaints);
                None
            }
            Err(message) => {
                complaints.error(Some(&text.place), format!("`{lower}`: {message}"), None);
                None
            }
        };
    }
    if let Some(with) = with {
        complaints.error(Some(&with.place), format!("`{lower}`: `with` belongs to `edit`"), None);
    }
    let Some(value) = intern::value(&text.value) else {
        lint::not_a_value(lower, &text.value, &text.place, complaints);
        return None;
    };
    lint::value(lower, word, &text.value, &text.place, complaints);
    Some(match word {
        Word::Append => Verb::Append(value),
        Word::Merge if lower == "permissions-policy" => {
            // What cannot be read was complained about by the lint.
            Verb::Complete(value, Arc::new(Features::new(&text.value).ok()?))
        }
        Word::Merge => Verb::Merge(value),
        Word::Add => Verb::Add(value),
        Word::SetIfEmpty => Verb::SetIfEmpty(value),
        Word::Set | Word::Edit | Word::EditEvery => Verb::Set(value),
    })
}
