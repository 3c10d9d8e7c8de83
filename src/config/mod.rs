//! From the operator's text to a generation: read, complain, compile.
//!
//! Every module owns what it configures (`Raw` is what was written, `Policy` what it means); this room
//! reads the file, lays the layers over one another, and puts the compiled parts together.

pub mod complaint;
pub mod development;
pub mod document;
pub mod layer;
pub mod reference;
pub mod rules;
pub mod section;
pub mod site;
pub mod units;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use complaint::{Complaints, Source};
use section::Reading;

use crate::generation::Generation;

/// A configuration, read as far as it could be.
#[derive(Debug)]
pub struct Loaded {
    /// The generation; `None` if there are errors.
    pub generation: Option<Generation>,
    /// Everything that is wrong or worth knowing.
    pub complaints: Complaints,
}

/// Reads and compiles the file at `path`; a file that cannot be read is a complaint like any other.
#[must_use]
pub fn load_file(path: &Path) -> Loaded {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
            load_text(&path.display().to_string(), text, base)
        }
        Err(error) => {
            let mut complaints = Complaints::default();
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "`ravelin config default > ravelin.toml` writes one to start from".to_owned()
                }
                std::io::ErrorKind::PermissionDenied => "run as a user who may read it".to_owned(),
                std::io::ErrorKind::InvalidData => "the file must be UTF-8 text".to_owned(),
                _ => "check the path".to_owned(),
            };
            complaints.error(None, format!("cannot read {}: {error}", path.display()), Some(hint));
            Loaded { generation: None, complaints }
        }
    }
}

/// Reads and compiles `text`. `name` is what complaints call it, `base` where relative paths start.
#[must_use]
pub fn load_text(name: &str, text: String, base: PathBuf) -> Loaded {
    let source = Arc::new(Source { name: name.to_owned(), text });
    let env = |name: &str| std::env::var(name).ok();
    let mut reading = Reading { complaints: Complaints::default(), env: &env, base };
    let generation = document::read(&source, &mut reading);
    let complaints = reading.complaints;
    Loaded { generation: generation.filter(|_| !complaints.has_errors()), complaints }
}
