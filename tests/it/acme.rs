//! Certificates that come by themselves, from a real ACME server: every challenge, renewal, fall-back, and replicas.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::clients::Authority;
use crate::harness::curl::{Ask, Over};
use crate::harness::pebble::Pebble;
use crate::harness::ports::Port;
use crate::harness::proxy::Builder;
use crate::harness::recorder::OK;
use crate::harness::valkey::Valkey;
use crate::harness::{HOST, Ravelin, Recorder, proxy, ravelin, run, within};
use crate::upgrade::Kin;

/// How long anything may take on a busy machine.
/// The end of a challenge, in seconds of Unix time.
const NEVER: u64 = 9_999_999_999;
const PATIENCE: Duration = Duration::from_mins(1);

/// A site that takes its certificate by ACME, with these keys in `[acme]` beside its consent.
fn site(origin: &Recorder, ports: (Port, Port), keys: &str) -> Builder {
    let table = format!("[acme]\nagree_to_terms = true\n{keys}\n");
    proxy().site(HOST, origin).certificates("\"acme\"").ports(ports.0, ports.1).table(&table)
}

fn storage(folder: &Path) -> String {
    format!("storage = \"{}\"", folder.join("acme").display())
}

fn issuers(pebble: &Pebble) -> String {
    format!("issuers = [{{ {} }}]", pebble.issuer())
}

/// GET by a client that trusts this root alone; none if it does not trust what it sees.
fn trusted(site: &Ravelin, host: &str, root: &Path) -> Option<u16> {
    let port = site.https_port();
    let ask = Ask::url(&format!("https://{host}:{port}/"), Over::H1);
    let ask = ask.arg("--resolve").arg(&format!("{host}:{port}:127.0.0.1"));
    let reply = ask.arg("--cacert").arg(root.to_str().unwrap()).try_send();
    reply.ok().map(|reply| reply.status)
}

#[track_caller]
fn serves(site: &Ravelin, host: &str, root: &Path) {
    let status = within(PATIENCE, || trusted(site, host, root));
    assert_eq!(status, Some(200), "no certificate for {host}:\n{}", site.stderr());
}

#[track_caller]
fn says(site: &Ravelin, text: &str) {
    let said = within(PATIENCE, || site.stderr().contains(text).then_some(()));
    assert!(said.is_some(), "it should say {text:?}:\n{}", site.stderr());
}

#[test]
fn a_certificate_comes_by_a_handshake_is_kept_and_serves_after_a_restart() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let mut pebble = Pebble::at(&https, &http);
    let keys = format!("{}\n{}\nchallenges = [\"tls-alpn-01\"]", issuers(&pebble), storage(folder.path()));
    // The CA is not there yet: a self-signed certificate serves, and says so.
    let proxied = site(&origin, (https, http), &keys).start();
    says(&proxied, "a self-signed one serves");
    let port = proxied.https_port();
    let ask = Ask::url(&format!("https://{HOST}:{port}/"), Over::H2);
    ask.arg("--resolve").arg(&format!("{HOST}:{port}:127.0.0.1")).arg("--insecure").send().status(200);
    assert!(proxied.admin("/metrics").text().contains("ravelin_acme_waiting 1"), "one name waits");
    says(&proxied, "no new certificate");
    pebble.run("", 5);
    let root = pebble.root();
    assert_eq!(trusted(&proxied, HOST, &root), None);
    // A reload is a reason to try again at once.
    proxied.signal("HUP");
    serves(&proxied, HOST, &root);
    // Said once it is kept.
    says(&proxied, "a certificate came");
    let metrics = proxied.admin("/metrics").text();
    assert!(
        metrics.contains("ravelin_acme_waiting 0") && metrics.contains("result=\"issued\"} 1"),
        "{metrics}"
    );
    let acme = folder.path().join("acme");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&acme), 0o700);
    let kept = acme.join(format!("certificate-{HOST}.pem"));
    assert_eq!(mode(&kept), 0o600);
    assert!(!acme.join("challenge.json").exists(), "nothing of the proof stays");
    // Another process reads what is kept.
    let cert = |verb: &str| run(ravelin().args(["cert", verb, "--config"]).arg(proxied.config()));
    cert("show")
        .exits(0)
        .says(&format!("names        {HOST}"))
        .says("Pebble Intermediate")
        .says("acme/certificate-");
    cert("check").exits(0).says(&format!("ok: {HOST}"));
    std::fs::rename(&kept, acme.join("away")).unwrap();
    cert("check").exits(1).says(&format!("missing: no certificate for `{HOST}` has come by ACME yet"));
    std::fs::rename(acme.join("away"), &kept).unwrap();
    drop(proxied);
    pebble.stop();
    let again = site(&origin, (Port::reserve(), Port::reserve()), &keys).start();
    assert_eq!(trusted(&again, HOST, &root), Some(200), "from the first handshake on:\n{}", again.stderr());
}

/// A site that nobody sees without a certificate, and that takes its own by ACME; the client who has one.
fn closed(origin: &Recorder, ports: (Port, Port), keys: &str, folder: &Path) -> (Ravelin, [String; 4]) {
    let authority = Authority::new("Clients");
    let ca = authority.write(&folder.join("clients.pem"));
    let (chain, key) = authority.client("anna", 0x0a01).write(folder, "anna");
    let shown = ["--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()].map(str::to_owned);
    let required = format!("client_certificates = \"require\"\nclient_ca = \"{}\"", ca.display());
    (site(origin, ports, keys).https(&required).start(), shown)
}

#[test]
fn a_site_that_requires_certificates_has_its_own_by_a_handshake() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 5);
    let keys = format!("{}\n{}\nchallenges = [\"tls-alpn-01\"]", issuers(&pebble), storage(folder.path()));
    let (proxied, shown) = closed(&origin, (https, http), &keys, folder.path());
    let root = pebble.root();
    let port = proxied.https_port();
    let ask = |more: &[String]| {
        let ask = Ask::url(&format!("https://{HOST}:{port}/"), Over::H2).arg("--resolve");
        let ask = ask.arg(&format!("{HOST}:{port}:127.0.0.1")).arg("--cacert").arg(root.to_str().unwrap());
        let ask = more.iter().fold(ask, |ask, more| ask.arg(more));
        ask.try_send().ok().map(|reply| reply.status)
    };
    assert_eq!(within(PATIENCE, || ask(&shown)), Some(200), "{}", proxied.stderr());
    assert_eq!(ask(&[]), None, "who has no certificate is turned away");
}

#[test]
fn nobody_speaks_http_where_a_ca_looks_for_its_proof() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let valkey = Valkey::start();
    let keys =
        "issuers = [\"https://localhost:1/gone\"]\nstorage = \"state\"\nchallenges = [\"tls-alpn-01\"]";
    let keys = format!("{keys}\n[state]\nstore = \"{}\"", valkey.url(""));
    let (proxied, _) = closed(&origin, (Port::reserve(), Port::reserve()), &keys, folder.path());
    let connect = |alpn: &[&str], input: &str| {
        let mut client = Command::new("openssl");
        client.args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", proxied.https_port()),
            "-servername",
            HOST,
        ]);
        client.args(alpn).args(["-ign_eof"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = client.stderr(Stdio::null()).spawn().unwrap();
        let _ = std::io::Write::write_all(&mut client.stdin.take().unwrap(), input.as_bytes());
        String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned()
    };
    let proof = ["-alpn", "acme-tls/1"];
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let is_proof = |said: &str| said.contains("ALPN protocol: acme-tls/1");
    assert!(!is_proof(&connect(&proof, &get)), "no challenge is open");
    // Another replica has opened one.
    let told = format!(
        "{{\"tls\":true,\"name\":\"{HOST}\",\"token\":\"t\",\"authorization\":\"t.thumb\",\"until\":{NEVER}}}"
    );
    valkey.ask(&["SET", "{ravelin}:shelf:acme/challenge.json", &told]);
    let open = within(PATIENCE, || Some(connect(&proof, "")).filter(|said| is_proof(said)));
    assert!(open.is_some(), "{}", proxied.stderr());
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for input in [&*get, preface] {
        let said = connect(&proof, input);
        assert!(is_proof(&said) && !said.contains("HTTP/"), "{said}");
    }
    for alpn in [&["-alpn", "acme-tls/1,http/1.1"][..], &["-alpn", "http/1.1,acme-tls/1"], &[]] {
        let said = connect(alpn, &get);
        assert!(!is_proof(&said) && !said.contains("HTTP/1.1 "), "{said}");
    }
    assert_eq!(origin.text(), "");
    assert_eq!(proxied.stdout(), "", "there was no request");
}

#[test]
fn a_proof_over_http_passes_host_lists_and_redirects() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 5);
    let keys = format!(
        "{}\n{}\nchallenges = [\"http-01\"]\nemail = \"admin@example.org\"",
        issuers(&pebble),
        storage(folder.path())
    );
    let names = "acme_names = [\"other.example.net\", \"127.0.0.1\"]";
    let proxied = site(&origin, (https, http), &keys).https(names).start();
    let root = pebble.root();
    let port = proxied.https_port();
    let by_address = || {
        let ask = Ask::url(&format!("https://127.0.0.1:{port}/"), Over::H1).arg("--cacert");
        ask.arg(root.to_str().unwrap()).try_send().ok().map(|reply| reply.status)
    };
    let status = within(PATIENCE, by_address);
    assert!(status.is_some(), "an address has a certificate, too:\n{}", proxied.stderr());
    let other = within(PATIENCE, || trusted(&proxied, "other.example.net", &root));
    assert_eq!(other, Some(421), "a certificate is no site:\n{}", proxied.stderr());
    let line = within(PATIENCE, || {
        let log = proxied.stdout();
        log.lines()
            .find(|line| line.contains("acme-challenge") && line.contains("\"status\":200"))
            .map(str::to_owned)
    });
    assert!(line.is_some(), "the proof is in the log:\n{}", proxied.stdout());
    // A token that is not ours is the origin's business, like any other path.
    proxied.get_plain("/.well-known/acme-challenge/unknown").status(301);
    // What another process of this storage has open is answered here, too: hardened, and to any name.
    let tell = |until: u64| {
        let open = format!("\"token\": \"told\", \"authorization\": \"told.thumb\", \"until\": {until}");
        let told = format!("{{\"tls\": false, \"name\": \"www.example.org\", {open}}}");
        std::fs::write(folder.path().join("acme/challenge.json"), told).unwrap();
    };
    tell(NEVER);
    let answered = within(PATIENCE, || {
        let reply = proxied.get_plain("/.well-known/acme-challenge/told");
        (reply.status == 200).then_some(reply)
    });
    let reply = answered.expect("it is told within a second");
    reply.hardened().header_once("content-type", "application/octet-stream").shows("told.thumb");
    let stranger = proxied.ask_host(Over::H1, "stranger.example", "/.well-known/acme-challenge/told");
    stranger.arg("--insecure").send().status(200).hardened();
    // What a process left behind that was killed ends.
    tell(1);
    let over = within(PATIENCE, || {
        (proxied.get_plain("/.well-known/acme-challenge/told").status == 301).then_some(())
    });
    assert!(over.is_some(), "it is answered for ever");
}

#[test]
fn a_wildcard_comes_by_the_zone_from_a_ca_that_wants_an_account() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let eab = format!(
        "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"kid-1\": \"{KEY}\"}},"
    );
    let pebble = Pebble::at(&https, &http).start(&eab, 5);
    // The first issuer is gone, the second refuses us without the key, the third one gives the certificate.
    let keys = format!(
        "issuers = [\"https://localhost:1/gone\", {{ {i} }}, {{ {i}, eab_key_id = \"kid-1\", eab_hmac_key = \"${{EAB_KEY}}\" }}]\n\
         {}\nchallenges = [\"dns-01\"]\ndns_hook = [\"{}\"]",
        storage(folder.path()),
        pebble.hook().display(),
        i = pebble.issuer(),
    );
    let proxied = site(&origin, (https, http), &keys).https("acme_names = [\"*.example.org\"]");
    let secrets =
        [("EAB_KEY", KEY), ("RAVELIN_OWN", "ours"), ("LISTEN_FDNAMES", "ours"), ("WATCHDOG_PID", "1")];
    let all = secrets.iter().fold(proxied, |all, (name, value)| all.variable(name, value));
    let proxied = all.variable("AWS_REGION", "eu-central-1").start();
    serves(&proxied, HOST, &pebble.root());
    let said = proxied.stderr();
    assert_eq!(said.matches("no certificate from this CA").count(), 2, "{said}");
    let calls = pebble.hook_log();
    assert_eq!(calls, "add _acme-challenge.example.org\nremove _acme-challenge.example.org\n");
    let found = pebble.hook_environment();
    let has = |name: &str| found.lines().any(|line| line.starts_with(&format!("{name}=")));
    assert!(has("PATH") && has("AWS_REGION"), "{found}");
    assert!(!secrets.iter().any(|(name, _)| has(name)), "{found}");
}

#[test]
fn a_certificate_is_renewed_by_a_fraction_of_its_lifetime() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("\"certificateValidityPeriod\": 20,", 0);
    let keys = format!("{}\n{}\nrenew_after = 20", issuers(&pebble), storage(folder.path()));
    let proxied = site(&origin, (https, http), &keys).start();
    let root = pebble.root();
    serves(&proxied, HOST, &root);
    let renewed = within(PATIENCE, || (pebble.issued() >= 2).then_some(()));
    assert!(renewed.is_some(), "{}", proxied.stderr());
    serves(&proxied, HOST, &root);
    assert!(pebble.log().matches("POST /sign-me-up").count() == 1, "one account");
}

#[test]
fn after_a_failure_the_staging_directory_is_asked_first() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let mut pebble = Pebble::at(&https, &http);
    let keys = format!(
        "issuers = [{{ {}, staging = \"https://localhost:1/staging\" }}]\n{}",
        pebble.issuer(),
        storage(folder.path())
    );
    let proxied = site(&origin, (https, http), &keys).start();
    says(&proxied, "no new certificate");
    pebble.run("", 0);
    proxied.signal("HUP");
    says(&proxied, "its staging directory says");
    assert_eq!(pebble.issued(), 0, "what fails in staging is not tried where it counts");
}

#[test]
fn replicas_order_once_and_answer_for_one_another() {
    let store = Valkey::start();
    let origin = Recorder::answering(OK);
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 5);
    let keys = format!("{}\n[state]\nstore = \"{}\"", issuers(&pebble), store.url(""));
    // The CA comes to the first, whoever orders.
    let second = site(&origin, (Port::reserve(), Port::reserve()), &keys).start();
    let first = site(&origin, (https, http), &keys).start();
    let root = pebble.root();
    for replica in [&first, &second] {
        serves(replica, HOST, &root);
    }
    assert_eq!(pebble.issued(), 1, "{}\n{}", first.stderr(), second.stderr());
}

#[test]
fn two_processes_with_one_folder_order_once() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    let keys = format!("{}\n{}", issuers(&pebble), storage(folder.path()));
    let second = site(&origin, (Port::reserve(), Port::reserve()), &keys);
    let first = site(&origin, (https, http), &keys).start();
    let second = second.start();
    let root = pebble.root();
    for replica in [&first, &second] {
        serves(replica, HOST, &root);
    }
    assert_eq!(pebble.issued(), 1, "{}\n{}", first.stderr(), second.stderr());
}

#[test]
fn an_upgrade_orders_nothing_anew_and_both_serve() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    let keys = format!("{}\n{}", issuers(&pebble), storage(folder.path()));
    let mut proxied = site(&origin, (https, http), &keys).start();
    let root = pebble.root();
    serves(&proxied, HOST, &root);
    let mut old = proxied.wire();
    let mut kin = Kin::default();
    kin.upgrade(&proxied);
    assert_eq!(trusted(&proxied, HOST, &root), Some(200), "the new one:\n{}", proxied.stderr());
    assert!(proxied.lives(), "the old one");
    old.say(&format!("GET / HTTP/1.1\nHost: {HOST}\n\n")).reply().status(301);
    assert_eq!(pebble.issued(), 1, "{}", proxied.stderr());
}

#[test]
fn who_is_upgraded_while_it_orders_leaves_the_order_to_the_next() {
    let store = Valkey::start();
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    // The first call hangs; the ones after it do what they are asked for.
    let (hangs, hook) = (folder.path().join("hangs"), folder.path().join("hook"));
    let text = format!(
        "#!/bin/sh\n[ -e {h} ] || {{ touch {h}; exec sleep 60; }}\nexec {} \"$@\"\n",
        pebble.hook().display(),
        h = hangs.display()
    );
    std::fs::write(&hook, text).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let keys = format!(
        "{}\nchallenges = [\"dns-01\"]\ndns_hook = [\"{}\"]\n[state]\nstore = \"{}\"",
        issuers(&pebble),
        hook.display(),
        store.url("")
    );
    let proxied = site(&origin, (https, http), &keys).start();
    assert!(within(PATIENCE, || hangs.exists().then_some(())).is_some(), "{}", proxied.stderr());
    let mut kin = Kin::default();
    kin.upgrade(&proxied);
    serves(&proxied, HOST, &pebble.root());
    says(&proxied, "its order is left to whoever comes after it");
    let record = format!("_acme-challenge.{HOST}");
    // What the first one may have written is taken out by it; then comes the other one's order.
    assert_eq!(pebble.hook_log(), format!("remove {record}\nadd {record}\nremove {record}\n"));
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn a_certificate_of_a_profile_is_renewed_when_its_ca_suggests_it() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    let ca = pebble.with_renewal_info();
    let keys = format!(
        "issuers = [{{ {}, profile = \"shortlived\" }}]\n{}",
        pebble.issuer_at(&ca),
        storage(folder.path())
    );
    let proxied = site(&origin, (https, http), &keys).start();
    let root = pebble.root();
    serves(&proxied, HOST, &root);
    // All that was issued is to be replaced, as after an incident; that the new one should be, too, is not believed at once.
    ca.suggest("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    // Who comes later asks at once; the CA comes to the first.
    let later = site(&origin, (Port::reserve(), Port::reserve()), &keys).start();
    let renewed = within(PATIENCE, || (pebble.issued() >= 2).then_some(()));
    assert!(renewed.is_some(), "{:?}\n{:?}\n{}", ca.asked(), ca.orders(), later.stderr());
    says(&later, "a certificate came");
    serves(&later, HOST, &root);
    let third = within(Duration::from_secs(1), || (ca.orders().len() > 2).then_some(()));
    assert!(third.is_none(), "{:?}\n{}\n{}", ca.orders(), proxied.stderr(), later.stderr());
    let (orders, asked) = (ca.orders(), ca.asked());
    assert_eq!(orders[0]["profile"], "shortlived");
    assert!(orders[0].get("replaces").is_none(), "{orders:?}");
    assert_eq!(orders[1]["profile"], "shortlived");
    // The key identifier of its issuer, a point, its serial number (RFC 9773 section 4.1).
    let (issuer, serial) = asked[0].split_once('.').expect("two parts");
    assert!(!issuer.is_empty() && !serial.is_empty(), "{asked:?}");
    assert_eq!(orders[1]["replaces"], asked[0].as_str());
}

#[test]
fn a_profile_that_a_ca_does_not_have_is_said_with_those_that_it_has() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    let ca = pebble.with_renewal_info();
    let keys = format!(
        "issuers = [{{ {}, profile = \"shortlifed\" }}]\n{}",
        pebble.issuer_at(&ca),
        storage(folder.path())
    );
    let proxied = site(&origin, (https, http), &keys).start();
    says(&proxied, "it has no profile `shortlifed`; it has: classic, shortlived");
    assert_eq!(ca.orders(), Vec::<serde_json::Value>::new(), "nothing is ordered");
}

#[test]
fn a_ca_that_wants_to_be_left_alone_is_also_after_a_restart() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("", 0);
    let ca = pebble.with_renewal_info();
    ca.limit(Some("Retry-After: 7200"));
    let issuer = pebble.issuer_at(&ca);
    let keys = format!("issuers = [{{ {issuer} }}]\n{}", storage(folder.path()));
    let proxied = site(&origin, (https, http), &keys).start();
    says(&proxied, "too many certificates already issued");
    says(&proxied, "no new certificate");
    ca.limit(None);
    // A reload tries again at once, but not where it is unwelcome; nor does another process.
    proxied.signal("HUP");
    says(&proxied, "this CA wants to be left alone, and is");
    drop(proxied);
    let ports = (Port::reserve(), Port::reserve());
    let again = site(&origin, ports, &keys).start();
    says(&again, "this CA wants to be left alone, and is");
    assert_eq!((ca.orders().len(), pebble.issued()), (1, 0), "{}", again.stderr());
}

#[test]
fn a_clock_that_is_wrong_orders_once_and_says_so() {
    let (origin, folder) = (Recorder::answering(OK), tempfile::tempdir().unwrap());
    let (https, http) = (Port::reserve(), Port::reserve());
    let pebble = Pebble::at(&https, &http).start("\"certificateValidityPeriod\": 60,", 0);
    let keys = format!("{}\n{}", issuers(&pebble), storage(folder.path()));
    // Ours is an hour ahead: whatever comes has ended already.
    let library = faketime_library();
    let ahead = site(&origin, (https, http), &keys);
    let ahead = ahead.variable("LD_PRELOAD", &library).variable("FAKETIME", "+3600").start();
    says(&ahead, "the clock of this machine is wrong, or that of the CA");
    // Four looks later nothing else was ordered.
    let looks = || ahead.stderr().matches("a certificate came").count();
    assert!(within(Duration::from_secs(1), || (looks() > 1).then_some(())).is_none(), "{}", ahead.stderr());
    assert_eq!(pebble.issued(), 1, "{}", ahead.stderr());
    let port = ahead.https_port();
    let ask = Ask::url(&format!("https://{HOST}:{port}/"), Over::H1);
    ask.arg("--resolve").arg(&format!("{HOST}:{port}:127.0.0.1")).arg("--insecure").send().status(200);
}

/// What makes a process believe another time.
fn faketime_library() -> String {
    let out = std::process::Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let out = out.expect("faketime is installed (tests/run does it)");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn what_cannot_work_is_said_with_its_line_and_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let check = |listen: &str, acme: &str| {
        let text = format!(
            "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = \"acme\"\n{listen}\n{acme}\n\
             [state]\nstore = \"memory\"\n\
             [[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:8080\"\npreset = \"typo3\"\n"
        );
        let path = dir.path().join("ravelin.toml");
        std::fs::write(&path, text).unwrap();
        run(ravelin().args(["check", "--config"]).arg(path))
    };
    let good = "[acme]\nagree_to_terms = true\nstorage = \"acme\"\n";
    check("", good).exits(0);
    let with = |keys: &str| format!("{good}{keys}\n");
    for (listen, acme, parts) in [
        ("", String::new(), ["needs a table `[acme]`", "agree_to_terms = true"]),
        ("", "[acme]\nstorage = \"acme\"\n".to_owned(), ["agree to its terms", "agree_to_terms = true"]),
        (
            "",
            "[acme]\nagree_to_terms = \"yes\"\nstorage = \"acme\"\n".to_owned(),
            ["`acme.agree_to_terms` must be true or false", "once you have, write `agree_to_terms = true`"],
        ),
        ("", "[acme]\nagree_to_terms = true\n".to_owned(), ["where to keep", "storage = "]),
        ("", with("email = \"nobody\""), ["`nobody` is no e-mail address", "admin@example.org"]),
        (
            "",
            with("issuers = [\"letsencrpt\"]"),
            ["no CA is known as `letsencrpt`", "did you mean `letsencrypt`?"],
        ),
        ("", with("issuers = [\"http://ca.test/dir\"]"), ["is no ACME directory", "https only"]),
        ("", with("issuers = [\"zerossl\"]"), ["wants an account of yours", "eab_key_id"]),
        (
            "",
            with("issuers = [{ name = \"zerossl\", eab_key_id = \"a\", eab_hmac_key = \"?\" }]"),
            ["is not base64url", "copy it"],
        ),
        ("", with("issuers = []"), ["names no CA", "letsencrypt"]),
        ("", with("challenges = [\"http-02\"]"), ["http-02", "did you mean `http-01`?"]),
        ("", with("challenges = [\"dns-01\"]"), ["needs a program", "dns_hook"]),
        (
            "",
            with("challenges = [\"dns-01\"]\ndns_hook = [\"none\"]"),
            ["no program that can be run", "chmod +x"],
        ),
        ("", with("renew_after = 100"), ["no percentage from 10 to 90", "66"]),
        ("acme_names = [\"*.example.org\"]", good.to_owned(), ["in the zone only", "dns-01"]),
        ("acme_names = [\"*\"]", good.to_owned(), ["no name that a CA certifies", "name the hosts"]),
        (
            "acme_names = [\"web.local\"]",
            good.to_owned(),
            ["no public CA certifies `web.local`", "development"],
        ),
        ("acme_names = [\"192.0.2.1\"]", good.to_owned(), ["for six days only", "shortlived"]),
        ("acme_names = []", good.to_owned(), ["names none", "all sites"]),
        ("", with("storage_ = \"x\""), ["unknown key `storage_`", "did you mean `storage`?"]),
    ] {
        let said = check(listen, &acme);
        said.exits(1).says("ravelin.toml:");
        for part in parts {
            said.says(part);
        }
    }
    let said = check("", &with("challenges = [\"http-01\"]"));
    said.exits(0).says("no listener speaks it").says("http://0.0.0.0:80");
    let said = check(
        "plain = \"serve\"\n[[listen]]\nurl = \"http://127.0.0.1:80\"\nacme_names = [\"a.test\"]",
        good,
    );
    said.exits(1).says("`acme_names` has no meaning");
}
