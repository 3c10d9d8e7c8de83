//! `ravelin dev`: https in front of a web server on one's own machine.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::local::{self, Local};
use crate::clock;
use crate::config::section::FromText as _;
use crate::config::{self, development};
use crate::server::{self, Lineage};
use crate::tls::{DevCa, trust_instructions};
use crate::upstream::Endpoint;

/// How long it may take until the origin answers the question whether it is there.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Your web server, for example `http://127.0.0.1:8080`.
    #[arg(long, env = "RAVELIN_TO", value_name = "URL", required_unless_present = "how_to_trust", value_parser = endpoint)]
    to: Option<Endpoint>,

    /// The names to serve, besides localhost: below `.localhost`, `.test` or `.ddev.site`.
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,

    /// The port for https.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    https: u16,

    /// The port for http, which leads to https; 8080, or 8081 if your web server has that.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http: Option<u16>,

    /// Only say how browsers and systems are told to trust the development CA.
    #[arg(long)]
    how_to_trust: bool,
}

/// Reads `--to`; the error carries its hint.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::from_text(text).map_err(|fault| {
        fault.hint.map_or(fault.message.clone(), |hint| format!("{}: {hint}", fault.message))
    })
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => super::complain(&message),
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let Some(to) = arguments.to.as_ref().filter(|_| !arguments.how_to_trust) else {
        say_on!("{}", trust_instructions(&root_file()?));
        return Ok(());
    };
    let local = Local {
        https: arguments.https,
        http: arguments.http.unwrap_or_else(|| if port(to) == Some(8080) { 8081 } else { 8080 }),
        ipv6: local::has_ipv6(),
        certificates: "development",
        hosts: hosts(arguments.hosts.clone()),
        to: to.to_string(),
        access: "combined",
    };
    not_itself(to, &local)?;
    let text = local.to_toml();
    let load = move || config::load_text("ravelin dev", text.clone(), PathBuf::new());
    let loaded = load();
    eprint!("{}", loaded.complaints);
    let generation = loaded.generation.ok_or("nothing was started")?;
    let greeting = greeting(to, &local, &root_file()?);
    let reload = Box::new(move || Ok(load()));
    server::run(generation, reload, Lineage::default(), |_| say!("{greeting}"))
        .map_err(|error| local.explain(&error))
}

/// The root that browsers are to trust; it is made if there is none.
fn root_file() -> Result<PathBuf, String> {
    let ca = DevCa::open(&development::directory()?, clock::wall());
    ca.map(|ca| ca.root_file()).map_err(|error| error.to_string())
}

fn port(to: &Endpoint) -> Option<u16> {
    match to {
        Endpoint::Net { port, .. } => Some(*port),
        Endpoint::Unix(_) => None,
    }
}

/// The names that were typed, then this machine's own, each once.
fn hosts(mut typed: Vec<String>) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
    for host in own {
        if !typed.contains(&host) {
            typed.push(host);
        }
    }
    typed
}

/// An origin at one of our own ports would be ourselves, over and over.
fn not_itself(to: &Endpoint, local: &Local) -> Result<(), String> {
    let Endpoint::Net { host, port, .. } = to else { return Ok(()) };
    let here = ["localhost", "127.0.0.1", "::1"].contains(&&**host);
    let flag = match *port {
        port if port == local.https => "--https",
        port if port == local.http => "--http",
        _ => return Ok(()),
    };
    if !here {
        return Ok(());
    }
    Err(format!(
        "`--to {to}` is where Ravelin itself would listen\n  help: `{flag} PORT` takes another port, or name your \
         web server's"
    ))
}

/// What is printed once it serves.
fn greeting(to: &Endpoint, local: &Local, root: &Path) -> String {
    let mut lines = vec![format!("Ravelin stands in front of {to}"), String::new()];
    lines.extend(
        local
            .hosts
            .iter()
            .filter(|host| is_name(host))
            .map(|host| format!("  https://{host}:{}", local.https)),
    );
    lines.push(format!("  http://localhost:{} leads to https", local.http));
    lines.push(String::new());
    if let Err(error) = answers(to) {
        lines.push(format!("Nothing answers at {to} yet: {}.", error.kind()));
        lines
            .push("Start your web server; until then every page says so, with status 502 or 504.".to_owned());
        lines.push(String::new());
    }
    lines.push(
        "The certificate comes from a CA of your own, which can vouch for development names only:".to_owned(),
    );
    lines.push(format!("  {}", root.display()));
    lines.push(
        "Browsers warn until they trust it: `ravelin dev --how-to-trust` says how. Ctrl-C ends it."
            .to_owned(),
    );
    lines.push(String::new());
    lines.join("\n")
}

fn is_name(host: &str) -> bool {
    host.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether something listens there.
fn answers(to: &Endpoint) -> io::Result<()> {
    match to {
        Endpoint::Unix(path) => UnixStream::connect(path).map(|_| ()),
        Endpoint::Net { host, port, .. } => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
            for address in (&**host, *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn local(to: &str, https: u16, http: u16) -> Local {
        let (to, hosts) = (to.to_owned(), hosts(vec!["a.test".to_owned()]));
        Local { https, http, ipv6: true, certificates: "development", hosts, to, access: "combined" }
    }

    #[test]
    fn an_origin_without_scheme_gets_the_one_that_was_meant() {
        let said = endpoint("127.0.0.1:8080").unwrap_err();
        assert!(
            said.contains("has no scheme") && said.contains("did you mean `http://127.0.0.1:8080`?"),
            "{said}"
        );
    }

    #[test]
    fn an_origin_cannot_be_ourselves() {
        for (to, flag) in [
            ("http://localhost:8443", Some("--https")),
            ("http://[::1]:8080", Some("--http")),
            ("http://127.0.0.1:80", None),
            ("http://192.0.2.1:8080", None),
        ] {
            let said = not_itself(&Endpoint::from_text(to).unwrap(), &local(to, 8443, 8080)).err();
            assert_eq!(said.is_some(), flag.is_some(), "{to}: {said:?}");
            assert!(said.is_none_or(|said| said.contains(flag.unwrap_or_default())));
        }
    }

    #[test]
    fn hosts_are_named_once() {
        assert_eq!(hosts(vec!["localhost".to_owned()]), ["localhost", "127.0.0.1", "[::1]"]);
    }

    #[test]
    fn a_silent_origin_is_said_and_no_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("http://{}", listener.local_addr().unwrap());
        let greet = |to: &str| {
            greeting(&Endpoint::from_text(to).unwrap(), &local(to, 1, 2), Path::new("/ca/root.crt"))
        };
        assert!(!greet(&to).contains("Nothing answers"));
        drop(listener);
        let said = greet(&to);
        assert!(said.contains("Nothing answers at") && said.contains("https://a.test:1\n"), "{said}");
        assert!(said.contains("/ca/root.crt") && said.lines().all(|line| line.len() <= 100), "{said}");
    }
}
