//! From the operator's text to a generation: read, complain, compile.
//!
//! Every module owns what it configures (`Raw` is what was written, `Policy` what it means); this room
//! reads the file, lays the layers over one another, and puts the compiled parts together.

pub mod complaint;
mod crossed;
pub mod development;
pub mod document;
pub mod file;
pub mod layer;
pub mod reference;
pub mod rules;
pub mod section;
mod served;
pub mod site;
pub mod units;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use complaint::{Complaints, Source};
use section::Reading;

use crate::admin::settings::Address;
use crate::client::key::Prefix;
use crate::generation::Generation;
use crate::state::Place;

/// A configuration, read as far as it could be.
#[derive(Debug)]
pub struct Loaded {
    /// The generation; `None` if there are errors.
    pub generation: Option<Generation>,
    /// Everything that is wrong or worth knowing.
    pub complaints: Complaints,
}

/// What a configuration says about its admin listener.
#[derive(Debug)]
pub enum Admin {
    /// It listens here; at least one address.
    At(Vec<Address>),
    /// There is none.
    Nowhere,
    /// It cannot be told.
    Unclear(Complaints),
}

/// The largest configuration file that is read: ten thousand sites with a page of rules each fit.
const LARGEST: u64 = 32 << 20;

/// Reads and compiles the file at `path`; a file that cannot be read is a complaint like any other.
#[must_use]
pub fn load_file(path: &Path) -> Loaded {
    match read(path) {
        Ok(text) => load_text(&path.display().to_string(), text, base(path)),
        Err(complaints) => Loaded { generation: None, complaints },
    }
}

/// What the file at `path` says about the admin listener, whatever is wrong with the rest of it: a health
/// check asks every few seconds, and loads no certificates for that.
#[must_use]
pub fn admin(path: &Path) -> Admin {
    let text = match read(path) {
        Ok(text) => text,
        Err(complaints) => return Admin::Unclear(complaints),
    };
    let source = Arc::new(Source { name: path.display().to_string(), text });
    let mut reading = Reading { complaints: Complaints::default(), env: &environment, base: base(path) };
    match document::admin(&source, &mut reading) {
        _ if reading.complaints.has_errors() => Admin::Unclear(reading.complaints),
        Some(addresses) if !addresses.is_empty() => Admin::At(addresses),
        _ => Admin::Nowhere,
    }
}

/// Where the file at `path` says that bans are kept, whatever is wrong with the rest of it.
///
/// # Errors
/// What is wrong with it.
pub fn state(path: &Path) -> Result<Place, Complaints> {
    let source = Arc::new(Source { name: path.display().to_string(), text: read(path)? });
    let mut reading = Reading { complaints: Complaints::default(), env: &environment, base: base(path) };
    match document::state(&source, &mut reading) {
        Some(policy) if !reading.complaints.has_errors() => Ok(policy.place),
        _ => Err(reading.complaints),
    }
}

/// The file in which bans are kept if nothing is said, if there is a folder for it.
#[must_use]
pub fn usual_state() -> Option<PathBuf> {
    crate::state::settings::usual(&environment)
}

/// What the sites of the file at `path` are called, and how much of an IPv6 address is one client there. Nothing, if
/// the file is not usable.
#[must_use]
pub fn names(path: &Path) -> (Vec<Box<str>>, Prefix) {
    match load_file(path).generation {
        Some(generation) => {
            (generation.sites.iter().map(|site| site.name.clone()).collect(), generation.client.prefix())
        }
        None => (Vec::new(), Prefix::default()),
    }
}

fn read(path: &Path) -> Result<String, Complaints> {
    file::text(path, LARGEST).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "`ravelin config default > ravelin.toml` writes one to start from"
            }
            std::io::ErrorKind::PermissionDenied => "run as a user who may read it",
            std::io::ErrorKind::InvalidData => "the file must be UTF-8 text",
            std::io::ErrorKind::FileTooLarge => "this is not a configuration",
            std::io::ErrorKind::InvalidInput => "write it to a file first",
            _ => "check the path",
        };
        let mut complaints = Complaints::default();
        let message = format!("cannot read {}: {error}", path.display());
        complaints.error(None, message, Some(hint.to_owned()));
        complaints
    })
}

fn base(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The variables of this process that say how Ravelin runs, by their names: no business of a program that it starts.
#[must_use]
pub fn own_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"RAVELIN_")).collect()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and compiles `text`. `name` is what complaints call it, `base` where relative paths start.
#[must_use]
pub fn load_text(name: &str, text: String, base: PathBuf) -> Loaded {
    let source = Arc::new(Source { name: name.to_owned(), text });
    let mut reading = Reading { complaints: Complaints::default(), env: &environment, base };
    let generation = document::read(&source, &mut reading);
    let complaints = reading.complaints;
    Loaded { generation: generation.filter(|_| !complaints.has_errors()), complaints }
}
