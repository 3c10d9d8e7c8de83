//! `ravelin run`: stand in front of a web server.

use std::process::ExitCode;

use clap::Args;

use super::source::Source;
use crate::server;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
}

pub(super) fn main(arguments: Arguments) -> ExitCode {
    let generation = match arguments.source.generation() {
        Ok(generation) => generation,
        Err(code) => return code,
    };
    let reload = move || arguments.source.load();
    match server::run(generation, Box::new(reload), |_| ()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::complain(&error.to_string()),
    }
}
