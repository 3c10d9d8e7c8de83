//! The operator's program that puts the answer to DNS-01 into the zone, and takes it out again.

use std::ffi::OsString;
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
    /// What of our environment is not for it: it inherits the rest.
    pub kept_back: Vec<OsString>,
}

/// What a service manager told this process, and an ancestor its successor (`sd_notify(3)`, `sd_listen_fds(3)`).
const FOR_US: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// What any program needs, even where the configuration takes it too.
const FOR_ALL: [&str; 8] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL"];

/// What of an environment is ours alone: what a service manager said, `ours`, and what the configuration `text` takes as
/// `${NAME}`. A password of Valkey stands there, and nothing that a hook does needs it.
pub(super) fn kept_back(text: &str, ours: Vec<OsString>) -> Vec<OsString> {
    let taken = text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
    // No name that a variable cannot have: the system refuses to run anything with such a wish.
    let usable = |name: &&str| !name.is_empty() && !name.contains(['=', '\0']) && !FOR_ALL.contains(name);
    FOR_US.into_iter().chain(taken.filter(usable)).map(OsString::from).chain(ours).collect()
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
        for name in &self.kept_back {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        match timeout(PATIENCE, command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{name} {verb} {record} ended with {status}")),
            Ok(Err(error)) => Err(format!("cannot run {name}: {error}")),
            Err(_) => Err(format!("{name} {verb} {record} did not end within three minutes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_kept_back_and_nothing_else() {
        let text = "password = \"${VALKEY_PASSWORD}\"\ndns_hook = [\"${HOME}/hook\", \"${}\", \"${A=B}\", \"${open\"]";
        let kept = kept_back(text, vec!["RAVELIN_STATE".into()]);
        let more: Vec<_> = kept.iter().filter(|name| !FOR_US.iter().any(|ours| *name == ours)).collect();
        assert_eq!(more, ["VALKEY_PASSWORD", "RAVELIN_STATE"]);
        assert_eq!(kept.len(), FOR_US.len() + 2);
    }
}
