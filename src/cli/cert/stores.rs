//! The trust stores of a machine: the system's, those of browsers (NSS), and Java's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;

/// The name that the root has in every store, so that it is found again.
const NAME: &str = "ravelin-development";
/// Java's stores have this password unless somebody has changed it; it protects nothing.
const JAVA_PASSWORD: &str = "changeit";

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    /// curl, PHP and most programs.
    System,
    /// Chrome, Chromium and Firefox of this user.
    Nss,
    /// Java's cacerts.
    Java,
}

/// What became of a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done; what.
    Done(String),
    /// There is no such store; why.
    Absent(String),
    /// It could not be done; why, and what to do.
    Failed(String),
}

/// Where the stores are.
#[derive(Debug)]
pub(super) struct Stores {
    home: Option<PathBuf>,
    java_home: Option<PathBuf>,
    keystore: Option<PathBuf>,
}

/// Where a distribution takes roots from, how it is told of a new one, and how of one that has gone.
struct Anchors {
    folder: &'static str,
    added: &'static [&'static str],
    removed: &'static [&'static str],
}

const ANCHORS: [Anchors; 4] = [
    // Fedora, RHEL
    Anchors {
        folder: "/etc/pki/ca-trust/source/anchors",
        added: &["update-ca-trust"],
        removed: &["update-ca-trust"],
    },
    // Arch
    Anchors {
        folder: "/etc/ca-certificates/trust-source/anchors",
        added: &["update-ca-trust"],
        removed: &["update-ca-trust"],
    },
    // SUSE
    Anchors {
        folder: "/etc/pki/trust/anchors",
        added: &["update-ca-certificates"],
        removed: &["update-ca-certificates"],
    },
    // Debian, Ubuntu, Alpine
    Anchors {
        folder: "/usr/local/share/ca-certificates",
        added: &["update-ca-certificates"],
        removed: &["update-ca-certificates", "--fresh"],
    },
];

/// Folders below the home in which Firefox keeps profiles.
const FIREFOX: [&str; 3] = [
    ".mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
];
/// Databases of Chrome and Chromium below the home.
const CHROME: [&str; 2] = [".pki/nssdb", "snap/chromium/current/.pki/nssdb"];

impl Stores {
    /// Those of this machine and of the user who asks.
    pub(super) fn of_this_machine(keystore: Option<PathBuf>) -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { home: path("HOME"), java_home: path("JAVA_HOME"), keystore }
    }

    /// Puts the certificate in the file into the stores of a kind.
    pub(super) fn add(&self, store: Store, certificate: &Path) -> Vec<Outcome> {
        match store {
            Store::System => vec![system(Some(certificate))],
            Store::Nss => self.nss(Some(certificate)),
            Store::Java => vec![self.java(Some(certificate))],
        }
    }

    /// Takes ours out of the stores of a kind.
    pub(super) fn remove(&self, store: Store) -> Vec<Outcome> {
        match store {
            Store::System => vec![system(None)],
            Store::Nss => self.nss(None),
            Store::Java => vec![self.java(None)],
        }
    }

    /// Every database of this user.
    fn databases(&self) -> Vec<PathBuf> {
        let Some(home) = &self.home else { return Vec::new() };
        let chrome = CHROME.iter().map(|folder| home.join(folder));
        let profiles = FIREFOX.iter().filter_map(|folder| fs::read_dir(home.join(folder)).ok());
        let profiles = profiles.flat_map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()));
        let mut all: Vec<_> =
            chrome.chain(profiles).filter(|folder| folder.join("cert9.db").is_file()).collect();
        all.sort();
        all
    }

    fn nss(&self, certificate: Option<&Path>) -> Vec<Outcome> {
        let databases = self.databases();
        if databases.is_empty() {
            let why =
                "browsers: no database of Chrome or Firefox below this user's home; start the browser once";
            return vec![Outcome::Absent(why.to_owned())];
        }
        let of_one = |folder: PathBuf| {
            let name = folder.display();
            let certutil = |arguments: &[&str]| {
                let mut command = Command::new("certutil");
                command.arg("-d").arg(format!("sql:{}", folder.display())).args(arguments);
                command
            };
            let there = match run(certutil(&["-L", "-n", NAME])) {
                Err(why) if why.contains(NOT_FOUND) => {
                    let help = "`certutil` changes it: Debian's libnss3-tools, Fedora's nss-tools";
                    return Outcome::Absent(format!("browsers: {name}: {help}"));
                }
                there => there.is_ok(),
            };
            // One that is there may be of an earlier root.
            let removed = if there { run(certutil(&["-D", "-n", NAME])) } else { Ok(()) };
            let done = match (certificate, removed) {
                (_, Err(why)) => Err(why),
                (None, Ok(())) if !there => return Outcome::Absent(format!("browsers: it is not in {name}")),
                (None, Ok(())) => Ok(format!("no longer trusted by browsers: {name}")),
                (Some(file), Ok(())) => {
                    let mut command = certutil(&["-A", "-t", "C,,", "-n", NAME, "-i"]);
                    command.arg(file);
                    run(command).map(|()| format!("trusted by browsers: {name} (restart the browser)"))
                }
            };
            done.map_or_else(|why| Outcome::Failed(format!("browsers: {name}: {why}")), Outcome::Done)
        };
        databases.into_iter().map(of_one).collect()
    }

    fn java(&self, certificate: Option<&Path>) -> Outcome {
        let keytool = |verb: &str| {
            let own =
                self.java_home.as_ref().map(|home| home.join("bin/keytool")).filter(|path| path.is_file());
            let mut command = Command::new(own.unwrap_or_else(|| "keytool".into()));
            command.args([verb, "-alias", NAME, "-storepass", JAVA_PASSWORD]);
            match &self.keystore {
                Some(file) => command.arg("-keystore").arg(file),
                None => command.arg("-cacerts"),
            };
            command
        };
        let there = match run(keytool("-list")) {
            Err(why) if why.contains(NOT_FOUND) => {
                return Outcome::Absent(
                    "Java: there is no `keytool` on the path or below JAVA_HOME".to_owned(),
                );
            }
            there => there.is_ok(),
        };
        let removed = if there { run(keytool("-delete")) } else { Ok(()) };
        let done = match (certificate, removed) {
            (_, Err(why)) => Err(why),
            (None, Ok(())) if !there => {
                return Outcome::Absent("Java: it is not in the key store".to_owned());
            }
            (None, Ok(())) => Ok("no longer trusted by Java".to_owned()),
            (Some(file), Ok(())) => {
                let mut command = keytool("-importcert");
                command.arg("-noprompt").arg("-file").arg(file);
                run(command).map(|()| "trusted by Java (restart the program)".to_owned())
            }
        };
        done.map_or_else(
            |why| Outcome::Failed(format!("Java: {why}\n  help: its key store usually belongs to root: use sudo with --store java --file")),
            Outcome::Done,
        )
    }
}

fn system(certificate: Option<&Path>) -> Outcome {
    let anchors = ANCHORS.iter().find(|anchors| Path::new(anchors.folder).is_dir());
    let Some(anchors) = anchors else {
        return Outcome::Absent(
            "the system's store: no folder for own roots is known on this system".to_owned(),
        );
    };
    let file = Path::new(anchors.folder).join(format!("{NAME}.crt"));
    let name = file.display();
    let changed = match certificate {
        Some(certificate) => fs::copy(certificate, &file).map(|_| ()),
        None => match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Outcome::Absent(format!("the system's store: {name} is not there"));
            }
            removed => removed,
        },
    };
    if let Err(error) = changed {
        let verb = match certificate {
            Some(path) => format!("trust --store system --file '{}'", path.display()),
            None => "untrust --store system".to_owned(),
        };
        return Outcome::Failed(format!(
            "the system's store: {name}: {error}\n  help: `sudo ravelin cert {verb}`"
        ));
    }
    let update = if certificate.is_some() { anchors.added } else { anchors.removed };
    match command(update).and_then(run) {
        Ok(()) if certificate.is_some() => Outcome::Done(format!("trusted by the system: {name}")),
        Ok(()) => Outcome::Done(format!("no longer trusted by the system: {name} is gone")),
        Err(why) => Outcome::Failed(format!("the system's store: `{}`: {why}", update.join(" "))),
    }
}

fn command(words: &[&str]) -> Result<Command, String> {
    let (program, arguments) = words.split_first().ok_or("nothing to run")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// What is said of a program that is not installed.
const NOT_FOUND: &str = "is not installed";

/// Runs a command to its end; what it says is the error if it fails.
fn run(mut command: Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("`{program}` {NOT_FOUND}"),
        _ => format!("`{program}`: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("`{program}` says: {}", said.trim()))
}
