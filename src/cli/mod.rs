//! The command line: what a user types, and which command answers.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

/// A line on standard output. A reader that went away (`ravelin explain … | head`) is no fault of ours.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same without the end of the line.
macro_rules! say_on {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

mod ask;
mod bans;
mod cert;
mod check;
mod config;
mod demo;
mod dev;
mod explain;
mod firewall;
mod flags;
mod health;
mod local;
mod replay;
mod run;
mod source;

/// A security reverse proxy that stands in front of a TYPO3 web server.
#[derive(Debug, Parser)]
#[command(name = "ravelin", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand in front of a web server, from a file or from flags alone.
    Run(run::Arguments),
    /// See it: a small site, Ravelin in front of it, and the difference that it makes.
    Demo(demo::Arguments),
    /// Put https in front of a web server on your own machine.
    Dev(dev::Arguments),
    /// Read the configuration and say everything that is wrong with it, without starting.
    Check(check::Arguments),
    /// Say step by step what would happen to a request, and which line decides.
    Explain(explain::Arguments),
    /// Say what would have been blocked of the requests in an access log, before anybody is.
    Replay(replay::Arguments),
    /// Write the rules of `[[ingress]]` and `[[egress]]` for AWS, nftables or people, or read them from AWS.
    Firewall(firewall::Arguments),
    /// Print, check and make certificates, and make this machine trust the development CA.
    Cert(cert::Arguments),
    /// Print the annotated default configuration.
    Config(config::Arguments),
    Bans(bans::Bans),
    InstallTool(bans::InstallTool),
    /// Ask a running Ravelin whether it is ready (for container health checks).
    Health(health::Arguments),
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let typed = Cli::try_parse().unwrap_or_else(|error| advise(error).exit());
    match typed.command {
        Command::Run(arguments) => run::main(arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Dev(arguments) => dev::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Replay(arguments) => replay::main(&arguments),
        Command::Firewall(arguments) => firewall::main(&arguments),
        Command::Cert(arguments) => cert::main(&arguments),
        Command::Config(arguments) => config::main(&arguments),
        Command::Bans(arguments) => bans::main(&arguments),
        Command::InstallTool(arguments) => bans::install_tool(&arguments),
        Command::Health(arguments) => health::main(&arguments),
    }
}

/// Everybody's first guess is `ravelin check FILE`: says how the file is named.
fn advise(mut error: clap::Error) -> clap::Error {
    let cli = Cli::command();
    let takes_file = std::env::args().nth(1).is_some_and(|name| {
        let command = cli.find_subcommand(name);
        command.is_some_and(|command| command.get_arguments().any(|known| known.get_long() == Some("config")))
    });
    let tip = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if takes_file && !word.starts_with('-') => {
            format!("a configuration file is named with `--config {word}`")
        }
        _ => return error,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Says on standard error why a command could not do its work.
fn complain(message: &str) -> ExitCode {
    eprintln!("ravelin: {message}");
    ExitCode::FAILURE
}
