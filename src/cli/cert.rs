//! `ravelin cert`: what certificates say, whether they can be served, and whom this machine trusts.

mod stores;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::source::Source;
use crate::acme;
use crate::clock;
use crate::config::complaint::Complaints;
use crate::config::{development, file};
use crate::generation::Generation;
use crate::runtime::Control;
use crate::tls::expiry;
use crate::tls::load::{Files, load};
use crate::tls::x509::{CertificateFacts, date};
use crate::tls::{Certificate, DevCa, vouched};
use stores::{Outcome, Root, Store, Stores};

/// A chain, or a bundle of roots.
const LARGEST: u64 = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print what certificates say: those in the files, or those of the configuration.
    Show(Show),
    /// Say whether certificates can be served and last for a while: those of the configuration, or two files.
    Check(Check),
    /// Write a certificate of the development CA and its key to files, for another program.
    Dev(Dev),
    /// Make this machine trust the development CA: the system, browsers, Java.
    Trust(Trust),
    /// Take that back.
    Untrust(Trust),
}

#[derive(Debug, Args)]
struct Show {
    /// PEM files.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Check {
    /// The certificate and its issuers, PEM.
    #[arg(value_name = "CHAIN", requires = "its_key")]
    its_chain: Option<PathBuf>,

    /// The private key, PEM.
    #[arg(value_name = "KEY")]
    its_key: Option<PathBuf>,

    /// Fail if a certificate ends within so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    days: u32,

    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
struct Dev {
    /// For what: localhost, names below `.localhost`, `.test` or `.ddev.site`, loopback addresses.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// The folder for `NAME.pem` and `NAME.key`.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Trust {
    /// Only this store; all that are there otherwise.
    #[arg(long, value_enum, value_name = "STORE")]
    store: Vec<Store>,

    /// The root, if it is another user's: a `root.crt` of `ravelin dev`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The Java key store; `cacerts` of the Java that is found otherwise.
    #[arg(long, value_name = "FILE")]
    keystore: Option<PathBuf>,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.verb {
        Verb::Show(arguments) => show(arguments),
        Verb::Check(arguments) => check(arguments),
        Verb::Dev(arguments) => dev(arguments),
        Verb::Trust(arguments) => trust(arguments, true),
        Verb::Untrust(arguments) => trust(arguments, false),
    };
    done.unwrap_or_else(|message| super::complain(&message))
}

fn show(arguments: &Show) -> Result<ExitCode, String> {
    let now = clock::wall();
    if arguments.files.is_empty() {
        let generation = match arguments.source.generation() {
            Ok(generation) => generation,
            Err(code) => return Ok(code),
        };
        let mut all: Vec<Arc<Certificate>> = generation.certificates();
        for (name, certificate) in by_acme(&generation)? {
            match certificate {
                Some(certificate) => all.push(Arc::new(certificate)),
                None => eprintln!("ravelin: {}", missing(&name, &generation)),
            }
        }
        for certificate in all {
            say_on!("{}", described(&certificate.origin, 1, &certificate.facts, now));
            for (number, der) in certificate.key.cert.iter().enumerate().skip(1) {
                let facts = CertificateFacts::read(der)?;
                say_on!("{}", described(&certificate.origin, number + 1, &facts, now));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    for path in &arguments.files {
        for (number, facts) in read(path)?.iter().enumerate() {
            say_on!("{}", described(path, number + 1, facts, now));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a CA gave for each name that wants it: from the storage, without asking the process that serves.
fn by_acme(generation: &Generation) -> Result<acme::Kept, String> {
    let Some(policy) = &generation.acme else { return Ok(Vec::new()) };
    let control = Control::new().map_err(|error| format!("cannot ask the storage of ACME: {error}"))?;
    let kept = control.run(acme::kept(policy));
    control.end();
    kept.map_err(|why| format!("cannot read what is kept by ACME: {why}"))
}

fn missing(name: &str, generation: &Generation) -> String {
    let place = generation.acme.as_ref().map(|policy| policy.storage.to_string()).unwrap_or_default();
    format!("no certificate for `{name}` has come by ACME yet; it will be kept in {place}")
}

/// The certificates in a file; at least one.
fn read(path: &Path) -> Result<Vec<CertificateFacts>, String> {
    let facts: Result<Vec<_>, _> = ders(path)?.iter().map(|der| CertificateFacts::read(der)).collect();
    facts.map_err(|error| format!("{} holds a certificate that cannot be read: {error}", path.display()))
}

fn ders(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let text = file::text(path, LARGEST).map_err(|error| format!("cannot read {name}: {error}"))?;
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match ders.map_err(|error| format!("{name}: {error}"))? {
        ders if ders.is_empty() => Err(format!("{name} holds no certificate in PEM form")),
        ders => Ok(ders),
    }
}

fn described(path: &Path, number: usize, facts: &CertificateFacts, now: SystemTime) -> String {
    let names = facts.names.iter().map(ToString::to_string);
    let names: Vec<_> = names.chain(facts.addresses.iter().map(ToString::to_string)).collect();
    let state = match () {
        () if now > facts.not_after => "expired".to_owned(),
        () if now < facts.not_before => "not valid yet".to_owned(),
        () => format!("{} left", expiry::left(facts.not_after, now)),
    };
    let kind = if facts.is_authority { "authority" } else { "certificate" };
    format!(
        "{} #{number}, {kind}\n  subject      {}\n  issuer       {}\n  names        {}\n  valid        {} to {} ({state})\n  key          \
         {}\n  key SHA-256  {}\n  SHA-256      {}\n",
        path.display(),
        facts.subject,
        facts.issuer,
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        date(facts.not_before),
        date(facts.not_after),
        facts.key_kind,
        facts.key_fingerprint,
        facts.fingerprint,
    )
}

fn check(arguments: &Check) -> Result<ExitCode, String> {
    let now = clock::wall();
    let patience = Duration::from_hours(24) * arguments.days;
    let mut ends = false;
    let mut certificates: Vec<(Arc<Certificate>, Duration)> = Vec::new();
    if let (Some(chain), Some(key)) = (&arguments.its_chain, &arguments.its_key) {
        let mut complaints = Complaints::default();
        let certificate = load(Files { chain, key }, now, None, &mut complaints);
        say_on!("{complaints}");
        certificates.extend(certificate.map(|certificate| (certificate, patience)));
    } else {
        let loaded = arguments.source.load()?;
        say_on!("{}", loaded.complaints);
        if let Some(generation) = &loaded.generation {
            certificates.extend(generation.certificates().into_iter().map(|own| (own, patience)));
            for (name, certificate) in by_acme(generation)? {
                let Some(certificate) = certificate else {
                    say!("missing: {}", missing(&name, generation));
                    ends = true;
                    continue;
                };
                // What lives for days is renewed in its last third.
                let patience = patience.min(expiry::notices(&certificate.facts)[0]);
                certificates.push((Arc::new(certificate), patience));
            }
        }
    }
    if certificates.is_empty() && !ends {
        return Err("there is no certificate that can be served".to_owned());
    }
    for (certificate, patience) in certificates {
        let facts = &certificate.facts;
        let left = facts.not_after.duration_since(now).unwrap_or_default();
        ends |= left < patience;
        let word = if left < patience { "ends soon" } else { "ok" };
        let name = facts.names.first().map_or(&*facts.subject, |name| &**name);
        let (left, until) = (expiry::left(facts.not_after, now), date(facts.not_after));
        say!("{word}: {name}, {left} left, until {until} ({})", certificate.origin.display());
    }
    Ok(if ends { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn dev(arguments: &Dev) -> Result<ExitCode, String> {
    let ca = open()?;
    let names: Vec<&str> = arguments.names.iter().map(String::as_str).collect();
    let (chain, key) = ca.issue_pem(&names, clock::wall()).map_err(|error| error.to_string())?;
    let stem = names.first().copied().unwrap_or_default().replace('*', "wildcard").replace(':', "-");
    let (chain_file, key_file) =
        (arguments.out.join(format!("{stem}.pem")), arguments.out.join(format!("{stem}.key")));
    write(&key_file, &key, 0o600)?;
    write(&chain_file, &chain, 0o644)?;
    say!("{}\n{}\nvalid for 24 hours, for {}", chain_file.display(), key_file.display(), names.join(", "));
    say!("The root: {} (`ravelin cert trust` makes this machine trust it)", ca.root_file().display());
    Ok(ExitCode::SUCCESS)
}

/// Puts a whole file in place; who reads it sees the old one or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let draft = path.with_file_name(format!(".{}.draft", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&draft);
        format!("cannot write {}: {error}", path.display())
    })
}

fn open() -> Result<DevCa, String> {
    DevCa::open(&development::directory()?, clock::wall()).map_err(|error| error.to_string())
}

/// The root in a file, which is read once: what is installed is what was looked at, and nothing that stands beside it.
fn root(path: PathBuf) -> Result<Root, String> {
    match &ders(&path)?[..] {
        [der] if vouched(der) => Ok(Root::new(path, der)),
        _ => {
            let name = path.display();
            Err(format!("{name} is no root of Ravelin's development CA; nothing else is installed here"))
        }
    }
}

fn trust(arguments: &Trust, wanted: bool) -> Result<ExitCode, String> {
    let root = match (&arguments.file, wanted) {
        (Some(file), true) => Some(root(file.clone())?),
        (None, true) => Some(root(open()?.root_file())?),
        (_, false) => None,
    };
    let stores = Stores::of_this_machine(arguments.keystore.clone());
    let all: Vec<Store> =
        if arguments.store.is_empty() { Store::value_variants().to_vec() } else { arguments.store.clone() };
    let (mut done, mut failed) = (0, 0);
    for store in all {
        let outcomes = match &root {
            Some(root) => stores.add(store, root),
            None => stores.remove(store),
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Done(what) => {
                    done += 1;
                    say!("{what}");
                }
                // Whoever asked for a store wants to know that it is not there.
                Outcome::Absent(why) if !arguments.store.is_empty() && wanted => {
                    failed += 1;
                    eprintln!("ravelin: {why}");
                }
                Outcome::Absent(why) => say!("passed by: {why}"),
                Outcome::Failed(why) => {
                    failed += 1;
                    eprintln!("ravelin: {why}");
                }
            }
        }
    }
    if wanted && done == 0 && failed == 0 {
        return Err("no store was found; `ravelin dev --how-to-trust` says how it is done by hand".to_owned());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
