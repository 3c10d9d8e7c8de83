//! `ravelin check`: everything that is wrong with a configuration, without starting.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::source::Source;
use crate::config::complaint::Severity;
use crate::generation::Generation;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Count warnings as errors.
    #[arg(long)]
    strict: bool,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let loaded = match arguments.source.load() {
        Ok(loaded) => loaded,
        Err(message) => return super::complain(&message),
    };
    say_on!("{}", loaded.complaints);
    let errors = loaded.complaints.iter().filter(|c| c.severity == Severity::Error).count();
    let warnings = loaded.complaints.iter().count() - errors;
    let said = match &loaded.generation {
        Some(generation) => format!("{} ({})", summary(generation), plural(warnings, "warning")),
        None => format!("not usable: {}, {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    say!("{said}");
    let bad = loaded.generation.is_none() || (arguments.strict && warnings > 0);
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn summary(generation: &Generation) -> String {
    let mut said = format!(
        "ok: generation {}, {}, {}",
        generation.id,
        plural(generation.listeners.len(), "listener"),
        plural(generation.sites.len(), "site"),
    );
    let firewall = &generation.firewall;
    let beyond = firewall.rules().iter().filter(|rule| firewall.beyond(rule).is_some()).count();
    if !firewall.rules().is_empty() {
        let rules = plural(firewall.rules().len(), "firewall rule");
        let _ = write!(said, ", {rules} ({beyond} of them for `ravelin firewall export`)");
    }
    said
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
