//! `ravelin run`: stand in front of a web server.

use std::path::{self, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::source::Source;
use crate::listen::inherited::Inherited;
use crate::server::{self, Lineage};
use crate::upgrade::Launch;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let inherited = Inherited::take();
    let generation = match arguments.source.generation() {
        Ok(generation) => generation,
        Err(code) => return code,
    };
    let reload = move || arguments.source.load();
    let lineage = Lineage { inherited, launch: Some(launch()) };
    match server::run(generation, Box::new(reload), lineage, |_| ()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::complain(&error.to_string()),
    }
}

/// How this program was called. A link that leads to the new version is followed anew, so it is not resolved here.
fn launch() -> Launch {
    let mut words = std::env::args_os();
    let called = words.next().map(PathBuf::from).unwrap_or_default();
    // Without a slash it was found in PATH, and will be.
    let program =
        if called.components().count() > 1 { path::absolute(&called).unwrap_or(called) } else { called };
    Launch { program: program.into(), arguments: words.collect() }
}
