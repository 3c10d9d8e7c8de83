//! May this client reach the Install Tool? By default only who was seen to log in to the backend.
//!
//! The Install Tool has one password, no limit on attempts, and holds the whole configuration. Administrators need
//! it: the backend's modules Maintenance, Settings, Upgrade and Environment load it in a frame, without a login of
//! its own. A cookie of the request proves nothing: it can be made up, and browsers keep dead ones.

use std::net::IpAddr;

use ipnet::IpNet;

use super::deny;
use super::{excerpt, php};
use crate::client::cidr::NetSet;
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;
use crate::refusal::{Reason, Refusal};

/// The parameter that opens it at any address (TYPO3 14, `public/index.php`).
const PARAMETER: &[u8] = b"__typo3_install";

/// The file that opens it (TYPO3 11 to 13; 14 redirects it), also as a versioned name, which the shipped `.htaccess`
/// rewrites (`install.123.php`), and with a path behind it, as PHP takes it.
const FILES: [&str; 2] = ["**/typo3/install{,.*}.php", "**/typo3/install{,.*}.php/**"];

/// What one layer wrote under `[install_tool]`.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    open_to: Option<Placed<Text<OpenTo>>>,
    sources: Option<Placed<Vec<Placed<Text<IpNet>>>>>,
}

/// To whom it is open.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// In general.
    pub open_to: OpenTo,
    /// And always to these.
    pub sources: NetSet,
}

/// To whom the Install Tool is open besides the listed sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenTo {
    /// Clients that were seen to log in to the backend of the site, and those with a grant.
    #[default]
    Known,
    /// Those with a grant.
    Nobody,
    /// Everybody: the site protects it in another way.
    Everybody,
}

impl FromText for OpenTo {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("known", Self::Known), ("nobody", Self::Nobody), ("everybody", Self::Everybody)])
    }
}

impl Raw {
    /// Reads the table `install_tool` and closes it.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut table) = section.section(reading, "install_tool") else { return Self::default() };
        let raw = Self { open_to: table.get(reading, "open_to"), sources: table.get(reading, "sources") };
        table.finish(reading);
        raw
    }

    /// This layer with a more specific one over it. Lists are replaced, not joined.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { open_to: specific.open_to.or(self.open_to), sources: specific.sources.or(self.sources) }
    }

    /// Where `open_to` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.open_to.as_ref().map(|written| &written.place)
    }

    /// What the merged layers mean.
    pub fn compile(self, _complaints: &mut Complaints) -> Policy {
        let sources = self.sources.map(|placed| placed.value).unwrap_or_default();
        Policy {
            open_to: self.open_to.map_or_else(OpenTo::default, |placed| placed.value.0),
            sources: sources.into_iter().map(|placed| placed.value.0).collect(),
        }
    }
}

/// Tells requests for the Install Tool from all others.
#[derive(Debug)]
pub struct Entrance {
    files: deny::Policy,
}

impl Default for Entrance {
    fn default() -> Self {
        Self { files: deny::Policy::of("install-tool", &FILES) }
    }
}

impl Entrance {
    /// Whether this is a request for the Install Tool, in any spelling that a server or PHP accepts. `query` without
    /// its question mark.
    #[must_use]
    pub fn is_asked(&self, path: &str, query: Option<&str>) -> bool {
        query.is_some_and(|query| php::has(query.as_bytes(), PARAMETER))
            || is_hidden(path)
            || self.files.is_closed(path)
    }
}

/// Apache before 2.4.60 could take an escaped question mark for the real one after a rewrite (CVE-2024-38474).
fn is_hidden(path: &str) -> bool {
    if !path.contains('%') {
        return false;
    }
    let mut parts = path.split("%3F").flat_map(|part| part.split("%3f"));
    parts.next();
    parts.any(|query| php::has(query.as_bytes(), PARAMETER))
}

/// Refuses a request for the Install Tool by somebody to whom it is not open. `knows` is asked only if it matters:
/// whether the client was seen to log in; `granted`: whether the operator opened it for the client.
pub fn check(
    policy: &Policy,
    client: IpAddr,
    path: &str,
    knows: impl FnOnce() -> bool,
    granted: impl FnOnce() -> bool,
) -> Result<(), Refusal> {
    let open = policy.open_to == OpenTo::Everybody
        || policy.sources.contains(client)
        || (policy.open_to == OpenTo::Known && knows())
        || granted();
    if open {
        return Ok(());
    }
    let why = match policy.open_to {
        OpenTo::Known => "was not seen to log in to the backend lately",
        _ => "has no grant and is not listed",
    };
    Err(Refusal::new(Reason::InstallToolClosed, format!("{client} {why}: {}", excerpt(path.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    fn policy(text: &str) -> Policy {
        let (raw, mut complaints) = testing::read(text, Raw::read);
        let policy = raw.compile(&mut complaints);
        assert!(complaints.is_empty(), "{complaints}");
        policy
    }

    fn may(policy: &Policy, client: &str, known: bool, granted: bool) -> bool {
        check(policy, client.parse().unwrap(), "/", || known, || granted).is_ok()
    }

    #[test]
    fn every_way_in_is_known() {
        let entrance = Entrance::default();
        for (path, query) in [
            ("/typo3/install.php", None),
            ("/typo3/install.php", Some("install[context]=backend")),
            ("/typo3/install.php/", None),
            ("/typo3/install.php/x/y", None),
            ("/typo3/INSTALL.php", None),
            ("/typo3/install.1700000000.php", None),
            ("/cms/typo3/install.php", None),
            ("/typo3/install.php;x", None),
            ("/typo3/install.php.", None),
            ("//typo3/./install.php", None),
            ("/typo3%252Finstall.php", None),
            ("/", Some("__typo3_install")),
            ("/en/products", Some("a=1&%5f.typo3+install[]")),
            ("/_assets/x.css", Some("__typo3[install")),
            ("/index.php%3F__typo3_install&x.1.css", None),
        ] {
            assert!(entrance.is_asked(path, query), "{path} {query:?}");
        }
        for (path, query) in [
            ("/", None),
            ("/typo3/", Some("install[controller]=login")),
            ("/typo3/install/server-response-check/host", Some("src-time=1&src-hash=x")),
            ("/typo3/module/tools/toolsmaintenance", Some("token=0123")),
            ("/install.php", None),
            ("/", Some("q=__typo3_install")),
            ("/", Some("tx_news[__typo3_install]=1")),
            ("/", Some("__Typo3_Install")),
        ] {
            assert!(!entrance.is_asked(path, query), "{path} {query:?}");
        }
    }

    #[test]
    fn strangers_are_refused_and_known_clients_are_not() {
        let default = policy("");
        assert!(!may(&default, "192.0.2.1", false, false));
        assert!(may(&default, "192.0.2.1", true, false) && may(&default, "192.0.2.1", false, true));
    }

    #[test]
    fn nobody_means_sources_and_grants_only() {
        let nobody =
            policy("[install_tool]\nopen_to = \"nobody\"\nsources = [\"192.0.2.0/24\", \"2001:db8::/32\"]");
        assert!(!may(&nobody, "198.51.100.1", true, false) && may(&nobody, "198.51.100.1", false, true));
        assert!(may(&nobody, "192.0.2.1", false, false) && may(&nobody, "2001:db8::1", false, false));
        assert!(may(&policy("[install_tool]\nopen_to = \"everybody\""), "198.51.100.1", false, false));
    }

    #[test]
    fn mistakes_are_complained_about() {
        for (text, says) in [
            ("[install_tool]\nopen_to = \"know\"", "did you mean `known`?"),
            ("[install_tool]\nsources = [\"office\"]", "office"),
            ("[install_tool]\nsource = []", "did you mean `sources`?"),
        ] {
            let (_, complaints) = testing::read(text, Raw::read);
            assert!(complaints.to_string().contains(says), "{complaints}");
        }
    }
}
