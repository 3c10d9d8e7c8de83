//! Sessions that go on at another process: replicas on one real Valkey, a restart on one file, and what is never shared.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

use crate::harness::clients::{Authority, nobody, speaking};
use crate::harness::recorder::OK;
use crate::harness::valkey::Valkey;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, within};

const SHOP: &str = "shop.example.com";
const PATIENCE: Duration = Duration::from_secs(10);

/// A Ravelin on this `[state]`, with an open site and one that asks for certificates of the authority in `dir`.
fn replica(origin: &Recorder, state: &str, dir: &Path) -> Ravelin {
    let keys = format!("client_certificates = \"request\"\nclient_ca = \"{}\"", dir.join("ca.pem").display());
    let site = proxy().bare_site(HOST, origin).bare_site(SHOP, origin).with(&keys);
    site.table(&format!("[state]\n{state}")).start()
}

/// Asks `site` for a page, and says whether TLS went on with an earlier session. The answer brings new tickets.
#[track_caller]
fn resumes(site: &Ravelin, host: &str, config: &Arc<ClientConfig>) -> bool {
    let mut wire = Wire::tls_as(site.https_port(), host, config);
    wire.say(&format!("GET / HTTP/1.1\nHost: {host}\n\n")).reply().status(200);
    wire.resumed()
}

fn clients(dir: &Path) -> Authority {
    let authority = Authority::new("Clients");
    authority.write(&dir.join("ca.pem"));
    authority
}

#[test]
fn a_session_goes_on_at_every_replica_except_where_it_says_who_somebody_is() {
    let dir = tempfile::tempdir().unwrap();
    let anna = clients(dir.path()).client("anna", 0x0a01).config();
    let (valkey, origin) = (Valkey::start(), Recorder::answering(OK));
    let store = format!("store = \"{}\"", valkey.url(""));
    let (one, other) = (replica(&origin, &store, dir.path()), replica(&origin, &store, dir.path()));
    let client = speaking(&TLS13);
    assert!(!resumes(&one, HOST, &client));
    assert!(resumes(&other, HOST, &client) && resumes(&one, HOST, &client), "{}", other.stderr());
    // The ticket of a connection of TLS 1.2 holds what decrypts it.
    let client = speaking(&TLS12);
    assert!(!resumes(&one, HOST, &client) && resumes(&one, HOST, &client));
    assert!(!resumes(&other, HOST, &client));
    for client in [anna, nobody()] {
        assert!(!resumes(&one, SHOP, &client) && resumes(&one, SHOP, &client));
        assert!(!resumes(&other, SHOP, &client), "who asks for certificates asks again");
    }
    for apart in ["session_tickets = false", "prefix = \"other\""] {
        let apart = replica(&origin, &format!("{store}\n{apart}"), dir.path());
        let client = speaking(&TLS13);
        assert!(!resumes(&one, HOST, &client) && !resumes(&apart, HOST, &client));
    }
}

#[test]
fn a_store_that_is_gone_costs_nobody_a_handshake() {
    let dir = tempfile::tempdir().unwrap();
    clients(dir.path());
    let (mut valkey, origin) = (Valkey::start(), Recorder::answering(OK));
    let store = format!("store = \"{}\"", valkey.url(""));
    let (one, other) = (replica(&origin, &store, dir.path()), replica(&origin, &store, dir.path()));
    let client = nobody();
    assert!(!resumes(&one, HOST, &client));
    valkey.kill();
    assert!(resumes(&one, HOST, &client) && resumes(&other, HOST, &client), "both know the keys");
    // One that starts now has keys of its own, and shared ones once the store is back.
    let late = replica(&origin, &store, dir.path());
    let client = nobody();
    assert!(!resumes(&late, HOST, &client) && resumes(&late, HOST, &client));
    assert_eq!(
        late.stderr().matches("the store of ticket keys cannot be used").count(),
        1,
        "{}",
        late.stderr()
    );
    valkey.run();
    let back =
        within(PATIENCE, || late.stderr().contains("the keys of session tickets are kept").then_some(()));
    assert!(back.is_some(), "{}", late.stderr());
    assert!(resumes(&late, HOST, &client), "what it has sealed alone still opens");
    let newest = replica(&origin, &store, dir.path());
    assert!(resumes(&newest, HOST, &client));
}

#[test]
fn a_file_keeps_sessions_over_a_restart_and_memory_does_not() {
    let dir = tempfile::tempdir().unwrap();
    clients(dir.path());
    let origin = Recorder::answering(OK);
    let file = format!("store = \"file:{}\"", dir.path().join("state.redb").display());
    for (state, goes_on) in [(&*file, true), ("store = \"memory\"", false)] {
        let client = nobody();
        let first = replica(&origin, state, dir.path());
        assert!(!resumes(&first, HOST, &client) && resumes(&first, HOST, &client));
        drop(first);
        let second = replica(&origin, state, dir.path());
        assert_eq!(resumes(&second, HOST, &client), goes_on, "{state}");
    }
    let shelf = std::fs::metadata(dir.path().join("state.shelf.redb")).unwrap();
    assert_eq!(shelf.permissions().mode() & 0o777, 0o600);
}
