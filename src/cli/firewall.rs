//! `ravelin firewall`: the table of rules for what enforces it elsewhere, and from there.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::source::Source;
use crate::config::file;
use crate::firewall::rule::Direction;
use crate::firewall::{Table, export, import};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the rules of `[[ingress]]` and `[[egress]]`. What Ravelin does not enforce itself is said on standard error.
    Export(Box<Export>),
    /// Print the rules of a security group of AWS as a configuration.
    Import(Import),
}

#[derive(Debug, Args)]
struct Export {
    /// For whom.
    #[arg(long, value_enum, value_name = "FORM")]
    format: Format,

    /// With `--format aws`: only this direction, as it goes into `--cli-input-json`.
    #[arg(long, value_enum, value_name = "DIRECTION")]
    direction: Option<Which>,

    /// With `--format aws`: the security group that the rules are for.
    #[arg(long, value_name = "ID", default_value = "sg-REPLACE")]
    group: String,

    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Import {
    /// What `aws ec2 describe-security-groups --output json` printed.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Input for `aws ec2 authorize-security-group-ingress` and `-egress`.
    Aws,
    /// A script for `nft -f`.
    Nftables,
    /// A table for people.
    Markdown,
    /// A list for programs.
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Ingress,
    Egress,
}

/// A hundred security groups with all their rules fit.
const LARGEST: u64 = 16 << 20;

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match &arguments.verb {
        Verb::Export(arguments) => print(arguments),
        Verb::Import(arguments) => read(arguments),
    }
}

fn print(arguments: &Export) -> ExitCode {
    let generation = match arguments.source.generation() {
        Ok(generation) => generation,
        Err(code) => return code,
    };
    let table = &generation.firewall;
    match arguments.format {
        Format::Aws => say!("{:#}", aws(table, arguments.direction, &arguments.group)),
        Format::Nftables => say_on!("{}", export::nftables(table)),
        Format::Markdown => say_on!("{}", export::markdown(table)),
        Format::Json => say!("{:#}", export::json(table)),
    }
    for rule in table.rules() {
        if let Some(why) = table.beyond(rule) {
            let (word, service) = (rule.direction.word(), rule.service());
            let place = rule.place.as_ref().map(crate::config::complaint::Place::label).unwrap_or_default();
            eprintln!("note: {word} {service} ({place}) needs a firewall: {why}");
        }
    }
    ExitCode::SUCCESS
}

fn aws(table: &Table, which: Option<Which>, group: &str) -> Value {
    let input = |direction| export::aws(table, direction, group);
    match which {
        Some(Which::Ingress) => input(Direction::Ingress),
        Some(Which::Egress) => input(Direction::Egress),
        None => json!({
            "authorize-security-group-ingress": input(Direction::Ingress),
            "authorize-security-group-egress": input(Direction::Egress),
        }),
    }
}

fn read(arguments: &Import) -> ExitCode {
    let path = arguments.file.display();
    let text = match file::text(&arguments.file, LARGEST) {
        Ok(text) => text,
        Err(error) => return super::complain(&format!("cannot read {path}: {error}")),
    };
    match import::aws(&text) {
        Ok(imported) => {
            say_on!("{}", imported.toml);
            for what in &imported.left_out {
                eprintln!("left out of {what}");
            }
            let count = imported.rules;
            eprintln!("{count} rule{} read from {path}", if count == 1 { "" } else { "s" });
            ExitCode::SUCCESS
        }
        Err(message) => super::complain(&format!("{path}: {message}")),
    }
}
