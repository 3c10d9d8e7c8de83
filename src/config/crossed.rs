//! Addresses that lead back to ourselves: an origin or an admin listener where we listen.

use std::net::{IpAddr, SocketAddr};

use super::complaint::Complaints;
use crate::admin::settings::Address;
use crate::generation::Listener;
use crate::listen::settings::collide;
use crate::site::Site;

/// Complains about every one of them. None of these could ever have served.
pub(super) fn check(listeners: &[Listener], sites: &[Site], admin: &[Address], complaints: &mut Complaints) {
    for site in sites {
        for origin in &site.origin_authorities {
            let itself = listeners.iter().find(|l| is_at(&origin.host, origin.port, l.settings.address));
            if let Some(listener) = itself {
                let (host, port) = (&origin.host, origin.port);
                let message = format!(
                    "`upstream` of `{}` is {host}:{port}, where Ravelin itself listens ({}): every request would go \
                     round in circles",
                    site.name,
                    listener.settings.place.label()
                );
                let hint = "write the address of the web server; let it listen on another port, such as 127.0.0.1:8080";
                complaints.error(Some(&site.place), message, Some(hint.to_owned()));
            }
        }
    }
    for address in admin {
        let Address::Tcp(address) = address else { continue };
        if let Some(listener) = listeners.iter().find(|l| collide(l.settings.address, *address)) {
            let message =
                format!("`admin.listen` has {address}, too: metrics and sites cannot share an address");
            let hint = "take another port for it, such as `127.0.0.1:9145`";
            complaints.error(Some(&listener.settings.place), message, Some(hint.to_owned()));
        }
    }
}

/// Whether a connection to `host` and `port` from this machine arrives at a listener at `address`. Names other than
/// `localhost` are not looked up: they may be others' tomorrow.
fn is_at(host: &str, port: u16, address: SocketAddr) -> bool {
    if port == 0 || port != address.port() {
        return false;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = address.ip();
    match host.parse::<IpAddr>() {
        Ok(ip) => ip == here || (here.is_unspecified() && ip.is_loopback() && reaches(ip, here)),
        Err(_) => host.eq_ignore_ascii_case("localhost") && (here.is_unspecified() || here.is_loopback()),
    }
}

/// `[::]` takes IPv4, too.
fn reaches(to: IpAddr, unspecified: IpAddr) -> bool {
    unspecified.is_ipv6() || to.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;

    #[test]
    fn ourselves_are_recognised_and_neighbours_are_not() {
        for (host, port, listener, wanted) in [
            ("127.0.0.1", 80, "0.0.0.0:80", true),
            ("localhost", 80, "0.0.0.0:80", true),
            ("localhost", 80, "127.0.0.1:80", true),
            ("[::1]", 80, "[::]:80", true),
            ("127.0.0.1", 80, "[::]:80", true),
            ("10.0.0.5", 80, "10.0.0.5:80", true),
            ("[::1]", 80, "0.0.0.0:80", false),
            ("127.0.0.1", 80, "10.0.0.5:80", false),
            ("10.0.0.6", 80, "0.0.0.0:80", false),
            ("127.0.0.1", 8080, "0.0.0.0:80", false),
            ("apache", 80, "0.0.0.0:80", false),
        ] {
            assert_eq!(is_at(host, port, listener.parse().unwrap()), wanted, "{host}:{port} at {listener}");
        }
    }

    #[test]
    fn circles_are_refused_with_both_places() {
        let load = |upstream: &str, admin: &str| {
            let text = format!(
                "[[listen]]\nurl = \"http://127.0.0.1:8080\"\nplain = \"serve\"\n[admin]\nlisten = [\"{admin}\"]\n\
                 [[site]]\nhosts = [\"*\"]\npreset = \"typo3\"\nupstream = \"{upstream}\"\n"
            );
            load_text("test.toml", text, std::path::PathBuf::new()).complaints.to_string()
        };
        assert_eq!(load("http://127.0.0.1:8081", "127.0.0.1:9145"), "");
        let said = load("http://localhost:8080", "0.0.0.0:8080");
        assert!(
            said.contains("where Ravelin itself listens (test.toml:2)") && said.contains("test.toml:6"),
            "{said}"
        );
        assert!(said.contains("`admin.listen` has 0.0.0.0:8080, too"), "{said}");
    }
}
