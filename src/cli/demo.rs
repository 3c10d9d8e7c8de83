//! `ravelin demo`: a small site, Ravelin in front of it, and the difference measured at both doors.

mod compare;
mod probe;
mod site;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use clap::Args;
use rustix::process::{Signal, getpid, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use self::probe::Doors;
use self::table::Style;
use super::local::{self, Local};
use crate::clock;
use crate::config::{self, development};
use crate::generation::Generation;
use crate::runtime;
use crate::server::{self, Lineage};
use crate::tls::DevCa;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the comparison and end.
    #[arg(long)]
    once: bool,

    /// The port for https.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    https: u16,

    /// The port for http, which leads to https.
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    http: u16,
}

/// Who vouches for the certificate.
enum Authority {
    /// The development CA with this root.
    Development(PathBuf),
    /// Nobody, because the development CA cannot be used.
    Nobody(String),
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::complain(&message),
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let secure = format!("https://localhost:{}", arguments.https);
    let site = site::start(&secure).map_err(|error| format!("the demo's site cannot be started: {error}"))?;
    let authority = Authority::find();
    let local = Local {
        https: arguments.https,
        http: arguments.http,
        ipv6: local::has_ipv6(),
        certificates: authority.maker(),
        hosts: vec!["*".to_owned()],
        to: format!("http://{site}"),
        access: "off",
    };
    let text = local.to_toml();
    let load = move || config::load_text("ravelin demo", text.clone(), PathBuf::new());
    let loaded = load();
    eprint!("{}", loaded.complaints);
    let generation = loaded.generation.ok_or("nothing was started")?;
    let doors = Doors { site, https: local.https, http: local.http, root: authority.root(&generation)? };
    let greeting = greeting(&local, site.port(), &authority);
    let waits = format!("{secure} is open");
    let once = arguments.once;
    let (report, outcome) = mpsc::channel();
    let ready = move || {
        say!("{greeting}");
        thread::spawn(move || {
            let shown = show(&doors);
            let ends = once || shown.is_err();
            // The receiver outlives the server.
            let _ = report.send(shown);
            if ends {
                // As if somebody had typed Ctrl-C.
                let _ = kill_process(getpid(), Signal::INT);
            } else {
                say!("{waits}; Ctrl-C ends it.");
            }
        });
    };
    let reload = Box::new(move || Ok(load()));
    server::run(generation, reload, Lineage::default(), |_| ready())
        .map_err(|error| local.explain(&error))?;
    // Nothing was sent if Ctrl-C came first.
    outcome.try_recv().unwrap_or(Ok(()))
}

/// Measures both sides and prints the comparison.
fn show(doors: &Doors) -> Result<(), String> {
    let measured = runtime::control(probe::measure(doors)).map_err(|error| error.to_string())??;
    say_on!("{}", table::render(&compare::sections(&measured), Style::of_stdout()));
    say!("\n{}\n", compare::NOTES);
    Ok(())
}

impl Authority {
    fn find() -> Self {
        let opened = development::directory()
            .and_then(|directory| DevCa::open(&directory, clock::wall()).map_err(|error| error.to_string()));
        opened.map_or_else(Self::Nobody, |ca| Self::Development(ca.root_file()))
    }

    /// The word for it in `certificates`.
    fn maker(&self) -> &'static str {
        match self {
            Self::Development(_) => "development",
            Self::Nobody(_) => "throw-away",
        }
    }

    /// What the measuring client believes: the root, or else the certificate itself.
    fn root(&self, generation: &Generation) -> Result<CertificateDer<'static>, String> {
        if let Self::Development(root) = self {
            return CertificateDer::from_pem_file(root)
                .map_err(|error| format!("{}: {error}", root.display()));
        }
        let store = generation.listeners.iter().find_map(|listener| listener.store.as_ref());
        let certificate = store.and_then(|store| store.certificates().first());
        let der = certificate.and_then(|certificate| certificate.key.cert.first());
        der.cloned().ok_or_else(|| "no certificate was made".to_owned())
    }
}

fn greeting(local: &Local, site: u16, authority: &Authority) -> String {
    let mut text = String::from("Ravelin demo: a small TYPO3-like site, and Ravelin in front of it.\n\n");
    let Local { https, http, .. } = local;
    for (url, what) in [
        (format!("https://localhost:{https}"), "the site behind Ravelin"),
        (format!("http://localhost:{http}"), "leads to https"),
        (format!("http://localhost:{site}"), "the same site without Ravelin"),
    ] {
        let _ = writeln!(text, "  {url:<26}{what}");
    }
    let _ = match authority {
        Authority::Development(_) => writeln!(
            text,
            "\nYour browser will warn, because it does not know your development CA. For a look you may go on;\n\
             `ravelin dev --how-to-trust` says how to make it known."
        ),
        Authority::Nobody(why) => {
            writeln!(text, "\nYour browser will warn: the certificate is a throw-away, because\n{why}.")
        }
    };
    text
}
