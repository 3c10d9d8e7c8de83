//! The operator's program that puts the answer to DNS-01 into the zone, and takes it out again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long it may take: until the record can be asked for, everywhere.
const PATIENCE: Duration = Duration::from_mins(3);

/// A program and its first words; `add` or `remove`, the record's name and its value come after them.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The program.
    pub program: PathBuf,
    /// What stands before our words.
    pub words: Vec<String>,
}

impl Hook {
    /// Runs it to its end. No shell reads the words.
    ///
    /// # Errors
    /// When it cannot run, takes too long, or says no.
    pub(super) async fn run(&self, verb: &str, record: &str, value: &str) -> Result<(), String> {
        let name = self.program.display();
        let mut command = Command::new(&self.program);
        command.args(&self.words).args([verb, record, value]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        match timeout(PATIENCE, command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{name} {verb} {record} ended with {status}")),
            Ok(Err(error)) => Err(format!("cannot run {name}: {error}")),
            Err(_) => Err(format!("{name} {verb} {record} did not end within three minutes")),
        }
    }
}
