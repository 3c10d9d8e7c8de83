//! `ravelin config`: texts that are generated from the code, so that they cannot be out of date.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::reference;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    text: Text,
}

#[derive(Debug, Subcommand)]
enum Text {
    /// The annotated default configuration.
    Default,
    /// The operator's table of refusals: step, reason, status, and what to do about it.
    Refusals,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match arguments.text {
        Text::Default => say_on!("{}", reference::default_file()),
        Text::Refusals => say_on!("{}", reference::refusals()),
    }
    ExitCode::SUCCESS
}
