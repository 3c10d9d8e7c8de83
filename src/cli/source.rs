//! Where a command's configuration comes from: a file, or flags that stand for one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::flags::Flags;
use crate::config::{self, Loaded};
use crate::generation::Generation;

#[derive(Debug, Args)]
pub(super) struct Source {
    /// The configuration file.
    #[arg(long, short, env = "RAVELIN_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    #[command(flatten)]
    pub(super) flags: Flags,
}

/// Where a configuration is looked for when nothing is said.
const USUAL: [&str; 2] = ["ravelin.toml", "/etc/ravelin/ravelin.toml"];

impl Source {
    /// Reads the configuration; again at each call, so that a reload sees what has changed.
    pub(super) fn load(&self) -> Result<Loaded, String> {
        if let Some(path) = &self.config {
            return Ok(config::load_file(path));
        }
        if self.flags.given() {
            if let Some(missing) = self.flags.missing() {
                return Err(missing);
            }
            return Ok(config::load_text("command line", self.flags.to_toml(), PathBuf::new()));
        }
        if let Some(flag) = self.flags.stray() {
            return Err(format!(
                "{flag} goes with --listen and --upstream; in a configuration file, write its key instead\n  \
                 (for --dry-run: `[rules]` with `mode = \"report\"`)"
            ));
        }
        match USUAL.iter().map(PathBuf::from).find(|path| path.exists()) {
            Some(path) => Ok(config::load_file(&path)),
            None => Err(format!(
                "no configuration: name one with --config, or say --listen and --upstream\n  \
                 (looked for {})",
                USUAL.join(" and ")
            )),
        }
    }

    /// Reads the configuration and prints what is wrong; an exit code if it cannot be used.
    pub(super) fn generation(&self) -> Result<Generation, ExitCode> {
        let loaded = self.load().map_err(|message| super::complain(&message))?;
        eprint!("{}", loaded.complaints);
        loaded.generation.ok_or(ExitCode::FAILURE)
    }
}
