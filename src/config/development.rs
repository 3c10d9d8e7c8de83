//! Certificates made on the spot: for which names, and where the development CA lives.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::complaint::Place;
use super::section::{Placed, Reading};
use crate::clock;
use crate::guard::host::{self, HostPattern};
use crate::listen::settings::Maker;
use crate::tls::dev_ca::{DOMAINS, DevCa, throw_away, vouches_for};
use crate::tls::load::Certificate;

/// What a certificate is for if every host is served.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the development CA of this user lives. It need not exist yet.
///
/// # Errors
/// A sentence, when no variable of the environment tells where the user's data is.
pub fn directory() -> Result<PathBuf, String> {
    directory_by(&|name| std::env::var(name).ok())
}

/// `$RAVELIN_DATA`, else `$XDG_DATA_HOME/ravelin`, else `~/.local/share/ravelin` (XDG Base Directory
/// Specification: a relative path there is ignored).
fn directory_by(env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    let path = |name: &str| env(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let ours = path("RAVELIN_DATA");
    let data = || path("XDG_DATA_HOME").filter(|path| path.is_absolute()).map(|data| data.join("ravelin"));
    let home = || path("HOME").map(|home| home.join(".local/share/ravelin"));
    let found = ours.or_else(data).or_else(home).map(|data| data.join("development-ca"));
    found.ok_or_else(|| {
        "there is no place for the development CA: neither RAVELIN_DATA nor HOME is set".to_owned()
    })
}

/// A certificate for all `hosts`, or complaints that say why there is none.
pub(super) fn certificate(
    maker: Maker,
    place: &Place,
    hosts: &[Placed<HostPattern>],
    reading: &mut Reading<'_>,
) -> Option<Arc<Certificate>> {
    let names = names(hosts.iter().map(|host| &host.value));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = match maker {
        Maker::ThrowAway => throw_away(&names, clock::wall()).map_err(|error| error.to_string()),
        Maker::Development if !all_ours(hosts, reading) => return None,
        Maker::Development => directory_by(reading.env).and_then(|directory| issue(&directory, &names)),
    };
    let hint = "RAVELIN_DATA names another folder for it, which only you may write to";
    made.map_err(|why| reading.complaints.error(Some(place), why, Some(hint.to_owned()))).ok()
}

fn issue(directory: &Path, names: &[&str]) -> Result<Arc<Certificate>, String> {
    let now = clock::wall();
    DevCa::open(directory, now).and_then(|ca| ca.issue(names, now)).map_err(|error| error.to_string())
}

/// The names that stand in the certificate, each once. A wildcard stands for one label there; `*` is no
/// name and becomes this machine.
fn names<'h>(hosts: impl Iterator<Item = &'h HostPattern>) -> Vec<String> {
    let mut names = Vec::new();
    for host in hosts {
        let these = match host {
            HostPattern::Any => LOOPBACK.map(str::to_owned).into(),
            named => vec![name(named)],
        };
        names.extend(these.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    names
}

/// A host as certificates write it: addresses have no brackets there.
fn name(host: &HostPattern) -> String {
    let text = host.to_string();
    host::address(&text).map_or(text, |address| address.to_string())
}

/// Complains about every host that the development CA does not vouch for.
fn all_ours(hosts: &[Placed<HostPattern>], reading: &mut Reading<'_>) -> bool {
    let ours =
        |host: &&Placed<HostPattern>| host.value == HostPattern::Any || vouches_for(&name(&host.value));
    let mut foreign = hosts.iter().filter(|host| !ours(host)).peekable();
    let none = foreign.peek().is_none();
    for host in foreign {
        let message = format!("the development CA does not vouch for `{}`", host.value);
        let hint = format!(
            "it is only for {}, names below these, and loopback addresses; a public name needs a certificate \
             from a public CA",
            DOMAINS.join(", ")
        );
        reading.complaints.error(Some(&host.place), message, Some(hint));
    }
    none
}

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;
    use crate::config::section::FromText;

    #[test]
    fn the_directory_is_the_most_specific_that_is_said() {
        let env = |pairs: &'static [(&str, &str)]| {
            directory_by(&move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let is = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(env(&[("HOME", "/h")]), is("/h/.local/share/ravelin/development-ca"));
        assert_eq!(env(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), is("/d/ravelin/development-ca"));
        assert_eq!(
            env(&[("HOME", "/h"), ("XDG_DATA_HOME", "d")]),
            is("/h/.local/share/ravelin/development-ca")
        );
        assert_eq!(env(&[("RAVELIN_DATA", "/r"), ("XDG_DATA_HOME", "/d")]), is("/r/development-ca"));
        assert!(env(&[("HOME", "")]).unwrap_err().contains("RAVELIN_DATA"));
    }

    #[test]
    fn hosts_become_names_once() {
        let hosts = ["a.test", "*.b.test", "[::1]", "*", "localhost", "a.test"];
        let hosts: Vec<_> = hosts.iter().map(|host| HostPattern::from_text(host).unwrap()).collect();
        assert_eq!(names(hosts.iter()), ["a.test", "*.b.test", "::1", "localhost", "127.0.0.1"]);
    }

    fn load(certificates: &str, hosts: &str) -> super::super::Loaded {
        let text = format!(
            "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = \"{certificates}\"\n\
             [[site]]\nhosts = {hosts}\nupstream = \"http://127.0.0.1:8080\"\n"
        );
        load_text("test.toml", text, PathBuf::new())
    }

    #[test]
    fn every_foreign_host_is_named_with_its_place() {
        let said =
            load("development", r#"["a.test", "www.example.org", "*.example.com"]"#).complaints.to_string();
        for host in ["www.example.org", "*.example.com"] {
            assert!(said.contains(&format!("does not vouch for `{host}`")), "{said}");
        }
        assert!(said.contains("test.toml:5") && said.contains("localhost, test, ddev.site"), "{said}");
        assert!(!said.contains("`a.test`"), "{said}");
    }

    #[test]
    fn a_throw_away_certificate_is_for_any_name() {
        let loaded = load("throw-away", r#"["www.example.org"]"#);
        let generation = loaded.generation.expect("usable");
        let until = generation.made_until().expect("it ends");
        let left = until.duration_since(clock::wall()).unwrap();
        assert!(left.as_secs() / 3600 == 23, "{left:?}");
    }
}
