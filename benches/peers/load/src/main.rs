//! The load that the referee puts on a proxy, and the backend behind it: one small program with a
//! subcommand for each kind of work. It speaks only to loopback addresses and stops by itself.

mod args;
mod backend;
mod client;
mod handshakes;
mod idle;
mod pace;
mod report;
mod transfer;

use std::process::ExitCode;

use args::Args;

/// What can go wrong: the text is for the person who runs the referee.
type Fault = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("load: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fault> {
    let (command, args) = Args::read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let work = async {
        match command.as_str() {
            "backend" => backend::run(&args).await,
            "handshakes" => handshakes::run(&args).await,
            "transfer" => transfer::run(&args).await,
            "pace" => pace::run(&args).await,
            "idle" => idle::run(&args).await,
            other => Err(format!("no such work: {other} (backend, handshakes, transfer, pace, idle)").into()),
        }
    };
    local.block_on(&runtime, work)
}
