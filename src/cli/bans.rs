//! `ravelin bans` and `ravelin install-tool`: asked of a running Ravelin over its socket, or of the store itself.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;

use super::ask::ask;
use crate::admin::bans::{Answer, Counter};
use crate::admin::settings::Address;
use crate::bans::Ledger;
use crate::client::key::Prefix;
use crate::clock;
use crate::config::{self, Admin};
use crate::runtime;
use crate::state::{Place, Status, Store, settings};

/// Where the documentation puts the socket.
const USUAL: &str = "/run/ravelin/admin.sock";
/// As much of a list as is read: as many bans as a ledger holds.
const ANSWER_MAX: usize = 64 << 20;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// List, make and lift bans, in a running Ravelin or, while none runs, in its store.
///
/// A running Ravelin is asked over its admin socket (`[admin] listen = "unix:…"`), whose permissions say who may. If
/// there is none, the store is opened: a file can only be opened while no Ravelin has it; a Valkey or Redis can always,
/// and every replica follows.
#[derive(Debug, Args)]
pub(super) struct Bans {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    place: Where,
}

/// Open the Install Tool for a while to somebody who was not seen to log in.
#[derive(Debug, Args)]
pub(super) struct InstallTool {
    #[command(subcommand)]
    verb: ToolVerb,

    #[command(flatten)]
    place: Where,
}

/// Whom to ask.
#[derive(Debug, Args)]
struct Where {
    /// The admin socket of a running Ravelin; /run/ravelin/admin.sock if nothing says otherwise.
    #[arg(long, env = "RAVELIN_ADMIN", value_name = "unix:PATH", value_delimiter = ',', global = true)]
    admin: Vec<Address>,

    /// The configuration file, whose `[admin]` or `[state]` is used.
    #[arg(long, short, env = "RAVELIN_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// The store itself, without a running Ravelin: `file:PATH` or `valkey://…`.
    #[arg(long, env = "RAVELIN_STATE", value_name = "STORE", global = true, hide_env_values = true)]
    state: Option<String>,

    /// Print the answer as JSON, where it is a list.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Who is banned, why, by what, and until when.
    List,
    /// Ban a client.
    Add {
        /// Its address; of IPv6, the whole network that is one client.
        client: IpAddr,
        /// For how long: `30m`, `12h`, `7d`; at most a year.
        #[arg(long = "for", value_name = "TIME", default_value = "24h")]
        length: String,
        /// From one site alone, by its first host; from everything if not said.
        #[arg(long, value_name = "HOST")]
        site: Option<String>,
        /// What it meets: `refuse`, `tarpit` or `drop`.
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Why, for those who read the list.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Lift the bans of a client, and forget its failures.
    Remove {
        /// Its address, or `user:…` as the list shows it.
        who: String,
        /// At one site alone.
        #[arg(long, value_name = "HOST")]
        site: Option<String>,
        /// By one jail alone.
        #[arg(long, value_name = "NAME")]
        jail: Option<String>,
    },
    /// Lift every ban.
    Flush,
}

#[derive(Debug, Subcommand)]
enum ToolVerb {
    /// For whom it is open.
    List,
    /// Open it.
    Open {
        /// For whom: an address, or a network.
        #[arg(long, value_name = "IP|CIDR")]
        from: String,
        /// For how long: `30m`, `2h`; at most a day.
        #[arg(long = "for", value_name = "TIME", default_value = "30m")]
        length: String,
    },
    /// Close it again, before its time.
    Close {
        /// For whom; for everybody if not said.
        #[arg(long, value_name = "IP|CIDR")]
        from: Option<String>,
    },
}

/// What is asked for.
struct Question {
    method: Method,
    path: &'static str,
    query: String,
}

pub(super) fn main(arguments: &Bans) -> ExitCode {
    let question = arguments.verb.question(arguments.place.json);
    arguments.place.answer(&question)
}

pub(super) fn install_tool(arguments: &InstallTool) -> ExitCode {
    let question = arguments.verb.question(arguments.place.json);
    arguments.place.answer(&question)
}

impl Verb {
    fn question(&self, json: bool) -> Question {
        let (method, query) = match self {
            Self::List => (Method::GET, list(json)),
            Self::Add { client, length, site, action, why } => {
                let client = client.to_string();
                let pairs = [
                    ("client", Some(&client)),
                    ("for", Some(length)),
                    ("site", site.as_ref()),
                    ("action", action.as_ref()),
                    ("why", why.as_ref()),
                ];
                (Method::POST, query(&pairs))
            }
            Self::Remove { who, site, jail } => {
                let key = if who.starts_with("user:") { "user" } else { "client" };
                let pairs = [(key, Some(who)), ("site", site.as_ref()), ("jail", jail.as_ref())];
                (Method::DELETE, query(&pairs))
            }
            Self::Flush => (Method::DELETE, "all".to_owned()),
        };
        Question { method, path: "/-/bans", query }
    }
}

impl ToolVerb {
    fn question(&self, json: bool) -> Question {
        let (method, query) = match self {
            Self::List => (Method::GET, list(json)),
            Self::Open { from, length } => {
                (Method::POST, query(&[("from", Some(from)), ("for", Some(length))]))
            }
            Self::Close { from: Some(from) } => (Method::DELETE, query(&[("from", Some(from))])),
            Self::Close { from: None } => (Method::DELETE, "all".to_owned()),
        };
        Question { method, path: "/-/install-tool", query }
    }
}

fn list(json: bool) -> String {
    (if json { "" } else { "format=text" }).to_owned()
}

impl Where {
    fn answer(&self, question: &Question) -> ExitCode {
        match self.ask(question) {
            Ok((true, text)) => {
                say!("{}", text.trim_end());
                ExitCode::SUCCESS
            }
            Ok((false, text)) => super::complain(text.trim_end()),
            Err(why) => super::complain(&why),
        }
    }

    /// Whether it went well, and what was said.
    fn ask(&self, question: &Question) -> Result<(bool, String), String> {
        if let Some(store) = &self.state {
            let place = settings::parse(store, Path::new("")).map_err(|fault| match fault.hint {
                Some(hint) => format!("{}: {hint}", fault.message),
                None => fault.message,
            })?;
            return self.offline(&place, question);
        }
        let socket = self.socket()?;
        let target = format!("{}?{}", question.path, question.query);
        let deadline = clock::now() + PATIENCE;
        let online = |socket: &Address| ask(socket, question.method.as_str(), &target, ANSWER_MAX, deadline);
        match socket.as_ref().map(online) {
            Some(Ok(answer)) => Ok((answer.status == 200, answer.body)),
            Some(Err(error)) => match self.written()? {
                Some(place) if place != Place::Memory && nobody_listens(&error) => {
                    self.offline(&place, question)
                }
                _ => Err(format!(
                    "cannot ask {}: {error}\n  (is Ravelin running, and does it have `[admin] listen = \"unix:…\"`?)",
                    socket.map(|socket| socket.to_string()).unwrap_or_default()
                )),
            },
            None => match self.written()? {
                Some(place) if place != Place::Memory => self.offline(&place, question),
                _ => Err(
                    "there is no admin socket to ask and no store to open: say --admin unix:PATH, --state \
                          file:PATH, or --config FILE"
                        .to_owned(),
                ),
            },
        }
    }

    /// The socket that was said, written, or is where sockets usually are.
    fn socket(&self) -> Result<Option<Address>, String> {
        let unix = |addresses: &[Address]| {
            addresses.iter().find(|address| matches!(address, Address::Unix(_))).cloned()
        };
        if !self.admin.is_empty() {
            let none = "bans are listed and changed over a unix socket: --admin unix:PATH".to_owned();
            return unix(&self.admin).map(Some).ok_or(none);
        }
        let written = match &self.config {
            Some(file) => match config::admin(file) {
                Admin::At(addresses) => unix(&addresses),
                Admin::Nowhere => None,
                Admin::Unclear(complaints) => return Err(complaints.to_string().trim_end().to_owned()),
            },
            None => None,
        };
        Ok(written.or_else(|| Path::new(USUAL).exists().then(|| Address::Unix(USUAL.into()))))
    }

    /// The store of the configuration, or the usual one.
    fn written(&self) -> Result<Option<Place>, String> {
        match &self.config {
            Some(file) => config::state(file).map(Some).map_err(|c| c.to_string().trim_end().to_owned()),
            None => Ok(config::usual_state().filter(|path| path.exists()).map(Place::File)),
        }
    }

    fn offline(&self, place: &Place, question: &Question) -> Result<(bool, String), String> {
        let (sites, prefix) = match &self.config {
            Some(file) => config::names(file),
            None => (Vec::new(), Prefix::default()),
        };
        let ledger = Arc::new(Ledger::default());
        let counter = Counter { ledger: Arc::clone(&ledger), sites, prefix };
        let answered =
            runtime::control(change(place, &counter, question)).map_err(|error| error.to_string())?;
        let answer = answered.map_err(|why| match place {
            Place::File(_) => format!(
                "{why}\n  (a running Ravelin has it: ask that over its socket, with `[admin] listen = \"unix:…\"`)"
            ),
            _ => why,
        })?;
        Ok((answer.status == 200, answer.text))
    }
}

/// Does it in the store itself.
async fn change(place: &Place, counter: &Counter, question: &Question) -> Result<Answer, String> {
    if let Place::File(path) = place
        && !path.exists()
    {
        return Err(format!("{} does not exist", path.display()));
    }
    let said = |failure: crate::state::Failure| format!("{place}: {failure}");
    let mut store = Store::open(place, &Arc::new(Status::default())).await.map_err(said)?;
    for known in store.restore().await.map_err(said)? {
        counter.ledger.apply(known, clock::millis());
    }
    counter.ledger.follow();
    let who = format!("uid {} at the store", rustix::process::getuid().as_raw());
    let answer = counter.answer(&question.method, question.path, &question.query, &who, clock::millis());
    let answer = answer.ok_or("this is a defect: please report it")?;
    store.write(counter.ledger.changes()).await.map_err(said)?;
    Ok(answer)
}

/// Whether a socket is there that nobody serves any more, or none.
fn nobody_listens(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

fn query(pairs: &[(&str, Option<&String>)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        if !out.is_empty() {
            out.push('&');
        }
        let _ = write!(out, "{name}=");
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                    out.push(char::from(byte));
                }
                byte => {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_typed_can_leave_its_value() {
        let (who, why) = ("192.0.2.1".to_owned(), "a&b=c d%é".to_owned());
        assert_eq!(
            query(&[("client", Some(&who)), ("site", None), ("why", Some(&why))]),
            "client=192.0.2.1&why=a%26b%3Dc%20d%25%C3%A9"
        );
    }
}
