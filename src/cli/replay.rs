//! `ravelin replay`: what a configuration would have done to the requests of an access log.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::source::Source;
use crate::replay::tally::Tally;
use crate::replay::{Judge, line};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Access logs, oldest first: Ravelin's JSON, or Apache's or nginx's `combined`. `-` is standard input
    /// (`zcat access.log.2.gz | ravelin replay -`).
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// The host that was asked, for logs that do not say it.
    #[arg(long, value_name = "NAME")]
    asked_host: Option<String>,

    /// How many clients are listed.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,

    /// Fail if a request that had been answered with success would be blocked or reported.
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    source: Source,
}

/// How the lines for `CloudWatch` begin (`[metrics] emf`), which are no requests.
const EMF: &str = "{\"_aws\":";

/// A longer line is no line of an access log: ours end far below.
const LONGEST: u64 = 256 << 10;

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let generation = match arguments.source.generation() {
        Ok(generation) => generation,
        Err(code) => return code,
    };
    let judge = Judge::new(&generation, arguments.asked_host.as_deref());
    let mut tally = Tally::default();
    for log in &arguments.logs {
        if let Err(error) = replay(log, &judge, &mut tally) {
            return super::complain(&format!("cannot read {}: {error}", log.display()));
        }
    }
    say_on!("{}", tally.tell(arguments.top));
    if tally.requests() == 0 {
        return super::complain("no line was a request that could be replayed");
    }
    let bad = arguments.strict && tally.served() > 0;
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn replay(log: &PathBuf, judge: &Judge<'_>, tally: &mut Tally) -> io::Result<()> {
    let mut reader: Box<dyn BufRead> = match log.as_os_str().as_encoded_bytes() {
        b"-" => Box::new(BufReader::new(io::stdin())),
        _ => Box::new(BufReader::new(File::open(log)?)),
    };
    let mut bytes = Vec::new();
    let mut number = 0_u64;
    loop {
        bytes.clear();
        if reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        number += 1;
        let text = String::from_utf8_lossy(&bytes);
        if text.starts_with(EMF) {
            continue;
        }
        match line::read(&text) {
            Ok(entry) => tally.add(&entry, &judge.judge(&entry)),
            Err(fault) => tally.unread(&format!("{}:{number}", log.display()), fault),
        }
    }
}
