//! Certificates against the sites that they are for: the folder that holds them, and names that nobody asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::complaint::{Complaints, Place};
use super::section::Placed;
use crate::guard::host::{self, HostPattern};
use crate::tls::folder;
use crate::tls::load::{Certificate, Files, load};

/// Complains about a certificate that is for no host of any site. One that signed itself is only warned of: behind a
/// balancer that looks at no names, it serves.
pub(super) fn check(
    certificate: &Certificate,
    hosts: &[Placed<HostPattern>],
    place: Option<&Place>,
    complaints: &mut Complaints,
) {
    if hosts.is_empty() || hosts.iter().any(|host| covers(certificate, &host.value)) {
        return;
    }
    let message = format!(
        "the certificate in {} is for {}, and no site has such a host: they have {}",
        certificate.origin.display(),
        names(certificate),
        some(hosts.iter().map(|host| host.value.to_string()))
    );
    let hint = "have it issued with the hosts of the site, write the hosts that it is for into `hosts`, or remove it";
    if certificate.facts.is_self_signed() {
        complaints.warning(place, message, Some(hint.to_owned()));
    } else {
        complaints.error(place, message, Some(hint.to_owned()));
    }
}

/// The certificates of a folder. Others' names are left out with a warning: the folder may serve more than us.
pub(super) fn folder(
    folder: &Placed<PathBuf>,
    hosts: &[Placed<HostPattern>],
    now: SystemTime,
    complaints: &mut Complaints,
) -> Vec<Arc<Certificate>> {
    let (place, name) = (Some(&folder.place), folder.value.display());
    let found = match folder::look(&folder.value) {
        Ok(found) => found,
        Err(error) => {
            let hint =
                "check the path; the user that Ravelin runs as must be allowed to read and enter the folder";
            complaints.error(place, format!("cannot read the folder {name}: {error}"), Some(hint.to_owned()));
            return Vec::new();
        }
    };
    if found.pairs.is_empty() {
        let hint = "put `www.pem` and `www.key` there (also `.crt`), or certbot's folders with `fullchain.pem` and \
                    `privkey.pem`";
        complaints.error(place, format!("{name} holds no certificate with its key"), Some(hint.to_owned()));
        return Vec::new();
    }
    for chain in &found.keyless {
        let chain = chain.display();
        let hint = format!(
            "put its key beside it, under the same name with `.key`; {name} may hold other files, too"
        );
        complaints.warning(place, format!("{chain} has no key beside it and is not served"), Some(hint));
    }
    let before = complaints.has_errors();
    let mut others = Vec::new();
    let mut ours = Vec::new();
    for (chain, key) in &found.pairs {
        let Some(certificate) = load(Files { chain, key }, now, place, complaints) else { continue };
        let asked = hosts.iter().any(|host| covers(&certificate, &host.value));
        if asked { ours.push(certificate) } else { others.push(certificate) }
    }
    // Nothing is for us. That is the mistake to be told of, once for each.
    let none = ours.is_empty() && (before || !complaints.has_errors());
    for certificate in &others {
        if none {
            check(certificate, hosts, place, complaints);
        } else {
            let (file, names) = (certificate.origin.display(), names(certificate));
            complaints.warning(
                place,
                format!("{file} is for {names}, no host of any site: it is not served"),
                None,
            );
        }
    }
    if ours.is_empty() { others } else { ours }
}

/// Whether a client that asks for `host` could be shown this certificate.
fn covers(certificate: &Certificate, host: &HostPattern) -> bool {
    let text = host.to_string().to_ascii_lowercase();
    if *host == HostPattern::Any {
        return true;
    }
    if let Some(address) = host::address(&text) {
        return certificate.facts.addresses.contains(&address);
    }
    certificate.facts.names.iter().any(|name| meets(name, &text))
}

/// Whether a name of a certificate and a host have a name in common. A wildcard of a certificate is for one label (RFC
/// 9525 section 6.3); one of a site is for any number of them.
fn meets(name: &str, host: &str) -> bool {
    if let Some(parent) = host.strip_prefix("*.") {
        let below = |name: &str| name.strip_suffix(parent).is_some_and(|before| before.ends_with('.'));
        return below(name) || name.strip_prefix("*.") == Some(parent);
    }
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => name == host,
    }
}

fn names(certificate: &Certificate) -> String {
    let facts = &certificate.facts;
    let names = facts.names.iter().map(ToString::to_string);
    let all: Vec<_> = names.chain(facts.addresses.iter().map(ToString::to_string)).collect();
    if all.is_empty() { format!("no name at all (`{}`)", facts.subject) } else { some(all.into_iter()) }
}

/// At most five of them.
fn some(mut all: impl Iterator<Item = String>) -> String {
    let first: Vec<_> = all.by_ref().take(5).map(|name| format!("`{name}`")).collect();
    let more = all.count();
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hosts_meet_as_browsers_see_it() {
        for (name, host, wanted) in [
            ("www.example.org", "www.example.org", true),
            ("www.example.org", "example.org", false),
            ("*.example.org", "www.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "a.b.example.org", false),
            ("*.example.org", "*.example.org", true),
            ("www.example.org", "*.example.org", true),
            ("*.shop.example.org", "*.example.org", true),
            ("*.example.com", "*.example.org", false),
            ("example.org", "*.example.org", false),
            ("badexample.org", "*.example.org", false),
        ] {
            assert_eq!(meets(name, host), wanted, "{name} for {host}");
        }
    }
}
