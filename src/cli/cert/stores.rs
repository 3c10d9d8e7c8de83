//! The trust stores of a machine: the system's, those of browsers (NSS), and Java's.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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

/// A root that was looked at and may be installed.
#[derive(Debug)]
pub(super) struct Root {
    /// Where it came from, for messages: nothing is read there again.
    path: PathBuf,
    pem: String,
}

impl Root {
    pub(super) fn new(path: PathBuf, der: &[u8]) -> Self {
        let text = BASE64_STANDARD.encode(der);
        // Base64 is ASCII.
        let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
        let pem: String = ["-----BEGIN CERTIFICATE-----\n".into()]
            .into_iter()
            .chain(lines)
            .chain(["-----END CERTIFICATE-----\n".into()])
            .collect();
        Self { path, pem }
    }
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

    /// Puts the certificate into the stores of a kind.
    pub(super) fn add(&self, store: Store, certificate: &Root) -> Vec<Outcome> {
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

    fn nss(&self, certificate: Option<&Root>) -> Vec<Outcome> {
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
                (Some(root), Ok(())) => {
                    let command = certutil(&["-A", "-t", "C,,", "-n", NAME]);
                    tell(command, &root.pem)
                        .map(|()| format!("trusted by browsers: {name} (restart the browser)"))
                }
            };
            done.map_or_else(|why| Outcome::Failed(format!("browsers: {name}: {why}")), Outcome::Done)
        };
        databases.into_iter().map(of_one).collect()
    }

    fn java(&self, certificate: Option<&Root>) -> Outcome {
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
            (Some(root), Ok(())) => {
                let mut command = keytool("-importcert");
                command.arg("-noprompt");
                tell(command, &root.pem).map(|()| "trusted by Java (restart the program)".to_owned())
            }
        };
        done.map_or_else(
            |why| Outcome::Failed(format!("Java: {why}\n  help: its key store usually belongs to root: use sudo with --store java --file")),
            Outcome::Done,
        )
    }
}

fn system(certificate: Option<&Root>) -> Outcome {
    let anchors = ANCHORS.iter().find(|anchors| Path::new(anchors.folder).is_dir());
    let Some(anchors) = anchors else {
        return Outcome::Absent(
            "the system's store: no folder for own roots is known on this system".to_owned(),
        );
    };
    let file = Path::new(anchors.folder).join(format!("{NAME}.crt"));
    let name = file.display();
    let changed = match certificate {
        Some(root) => fs::write(&file, &root.pem),
        None => match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Outcome::Absent(format!("the system's store: {name} is not there"));
            }
            removed => removed,
        },
    };
    if let Err(error) = changed {
        let verb = match certificate {
            Some(root) => format!("trust --store system --file '{}'", root.path.display()),
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
fn run(command: Command) -> Result<(), String> {
    tell(command, "")
}

/// The same, and gives it `text` on its standard input.
fn tell(mut command: Command, text: &str) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("`{program}` {NOT_FOUND}"),
        _ => format!("`{program}`: {error}"),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A certificate fits into the pipe. Who does not want it says why below.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("`{program}` says: {}", said.trim()))
}
