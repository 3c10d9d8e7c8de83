//! TLS as other people's clients find it: what is agreed on, who must show a certificate, and what the origin hears of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::harness::browser::visit_trusting;
use crate::harness::clients::{Authority, Party, nobody};
use crate::harness::curl::Over;
use crate::harness::log::text;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, Wire, proxy, run, within};
use crate::harness::{certs, outside};

const SHOP: &str = "shop.example.com";
const PATIENCE: Duration = Duration::from_secs(10);

/// What `openssl s_client` and a listener agreed on, as `VERSION SUITE`; none if on nothing.
fn agreed(site: &Ravelin, args: &str) -> Option<String> {
    let address = format!("127.0.0.1:{}", site.https_port());
    let mut command = Command::new("openssl");
    command.args(["s_client", "-brief", "-connect", &address, "-servername", HOST]).args(args.split(' '));
    let said = run(command.stdin(Stdio::null())).all();
    let value = |name: &str| said.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let (version, suite) = (value("Protocol version:")?, value("Ciphersuite:")?);
    Some(format!("{version} {suite}"))
}

/// Clients by what they offer, and what each listener makes of it.
#[test]
fn versions_suites_and_groups_are_those_of_the_policy() {
    const CLIENTS: [(&str, &str); 14] = [
        ("-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256"),
        ("-tls1_3 -groups X25519", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -groups P-256", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -groups P-384", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_2 -groups P-384:P-256", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"),
        // What nobody should speak.
        ("-tls1_3 -groups P-521", ""),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256", ""),
        ("-tls1_1 -cipher ALL:@SECLEVEL=0", ""),
        ("-tls1 -cipher ALL:@SECLEVEL=0", ""),
    ];
    // For each policy the clients, by their number above, that are turned away besides the last four.
    let policies: [(&str, &[usize]); 5] = [
        ("tls_policy = \"intermediate\"", &[]),
        ("tls_policy = \"modern\"", &[6, 7, 8, 9]),
        ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-2021-06\"", &[8]),
        ("tls_policy = \"ELBSecurityPolicy-FS-1-2-Res-2020-10\"", &[0, 1, 2, 3, 4, 5, 8]),
        ("tls_groups = [\"X25519MLKEM768\", \"X25519\"]", &[4, 5, 9]),
    ];
    for (keys, away) in policies {
        let site = proxy().bare_site(HOST, "http://127.0.0.1:9").https(keys).start();
        for (number, (client, want)) in CLIENTS.iter().enumerate() {
            let want = (!want.is_empty() && !away.contains(&number)).then(|| (*want).to_owned());
            assert_eq!(agreed(&site, client), want, "{keys}: {client}");
        }
    }
}

/// A site with a certificate of RSA.
fn with_rsa(dir: &Path, origin: &Recorder, keys: &str) -> Ravelin {
    let pair = certs::issue_rsa(dir, "rsa", &[HOST]);
    let (chain, key) = (pair.chain.display(), pair.key.display());
    let pair = format!("[{{ chain = \"{chain}\", key = \"{key}\" }}]");
    proxy().bare_site(HOST, origin).certificates(&pair).https(keys).start()
}

#[test]
fn a_certificate_of_rsa_serves_both_versions_and_signs_no_old_way() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Recorder::answering(OK));
    let site = with_rsa(dir.path(), &origin, "");
    let verified =
        format!("-verify_return_error -verify_hostname {HOST} -CAfile {}", site.authority().display());
    let clients = [
        ("-tls1_3", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -sigalgs rsa_pss_rsae_sha256", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_2", "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256"),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-RSA-CHACHA20-POLY1305"),
        ("-tls1_2 -sigalgs RSA+SHA256", "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256"),
        // For a key of another kind; without forward secrecy; without authenticated encryption; SHA-1.
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", ""),
        ("-tls1_2 -cipher AES128-GCM-SHA256", ""),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-SHA256", ""),
        ("-tls1_2 -cipher ALL:@SECLEVEL=0 -sigalgs RSA+SHA1", ""),
        ("-tls1_3 -sigalgs rsa_pkcs1_sha256", ""),
    ];
    for (client, want) in clients {
        let want = (!want.is_empty()).then(|| want.to_owned());
        assert_eq!(agreed(&site, &format!("{client} {verified}")), want, "{client}");
    }
}

/// What a page knows of how it came.
const PAGE: &str = "<!doctype html><title>?</title><script>document.title = \
    performance.getEntriesByType('navigation')[0].nextHopProtocol + ' ' + isSecureContext</script>";

#[test]
fn a_browser_that_trusts_the_authority_and_nothing_else_speaks_http2() {
    let page =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
    let origin = Recorder::answering(page.leak());
    let dir = tempfile::tempdir().unwrap();
    let elliptic = proxy().bare_site(HOST, &origin).start();
    let rsa = with_rsa(dir.path(), &origin, "tls_versions = [\"1.2\"]");
    for (site, version) in [(&elliptic, "TLSv1.3"), (&rsa, "TLSv1.2")] {
        let document = visit_trusting(&format!("{}/page", site.base()), &site.authority());
        assert!(document.contains("<title>h2 true</title>"), "{document}\n{}", site.stderr());
        let line = site.logged("/page");
        assert_eq!(text(&line, "tls"), version, "{line}");
    }
    let other = Authority::new("Somebody").write(&dir.path().join("other.pem"));
    let document = visit_trusting(&format!("{}/page", elliptic.base()), &other);
    assert!(!document.contains("h2 true"), "{document}");
}

#[test]
fn the_order_of_suites_is_that_of_the_listener() {
    let keys = "tls_suites = [\"ECDHE-ECDSA-CHACHA20-POLY1305\", \"ECDHE-ECDSA-AES256-GCM-SHA384\", \"TLS_AES_256_GCM_SHA384\"]";
    let site = proxy().bare_site(HOST, "http://127.0.0.1:9").https(keys).start();
    let modest = "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305";
    assert_eq!(agreed(&site, modest).as_deref(), Some("TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"));
    assert_eq!(agreed(&site, "-tls1_3").as_deref(), Some("TLSv1.3 TLS_AES_256_GCM_SHA384"));
    assert_eq!(agreed(&site, "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256"), None);
}

/// The status that a client gets that names `sni` in the handshake and `host` in its request; none if it is turned away.
fn status(site: &Ravelin, config: &Arc<ClientConfig>, sni: &str, host: &str) -> Option<u16> {
    let mut wire = Wire::tls_as(site.https_port(), sni, config);
    ask(&mut wire, host)
}

fn ask(wire: &mut Wire, host: &str) -> Option<u16> {
    wire.say(&format!("GET / HTTP/1.1\nHost: {host}\n\n"));
    wire.try_reply().map(|reply| reply.status)
}

/// An authority whose client `anna` is in order; the keys that ask for its certificates.
fn household(dir: &Path, wish: &str) -> (Authority, Party, String) {
    let authority = Authority::new("Clients");
    let ca = authority.write(&dir.join("clients.pem"));
    let anna = authority.client("anna", 0x0a01);
    let keys = format!("client_certificates = \"{wish}\"\nclient_ca = \"{}\"", ca.display());
    (authority, anna, keys)
}

/// The fields of the last request that the origin received whose names begin like this.
fn told(origin: &Recorder, begins: &str) -> Vec<String> {
    let text = origin.text();
    let last = text.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    last.lines().map(str::to_owned).filter(|line| line.to_ascii_lowercase().starts_with(begins)).collect()
}

#[test]
fn a_listener_that_requires_certificates_tells_the_origin_whom_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let (_, anna, keys) = household(dir.path(), "require");
    let stranger = Authority::new("Clients").client("anna", 0x0a01);
    let past = Authority::new("x").until("anna", 1, 2021);
    let origin = Recorder::answering(OK);
    let site = proxy().bare_site(HOST, &origin).https(&keys).start();
    for turned_away in [nobody(), stranger.config(), past.config()] {
        assert_eq!(status(&site, &turned_away, HOST, HOST), None);
    }
    assert_eq!(origin.text(), "");
    let (chain, key) = anna.write(dir.path(), "anna");
    for over in [Over::H1, Over::H2] {
        origin.forget();
        let ask = site.ask_over(over, "/").arg("--cert").arg(&chain.display().to_string());
        let ask = ask.arg("--key").arg(&key.display().to_string());
        let forged = [
            "X-Client-Cert-Subject",
            "X-Client-Cert-Verify",
            "Client-Cert",
            "X_Client_Cert_Subject",
            "SSL-Client-S-DN",
        ];
        let ask = forged.iter().fold(ask, |ask, name| ask.header(name, "CN=admin"));
        ask.send().status(200);
        let fields = told(&origin, "x-client-cert-");
        assert_eq!(
            fields[..4],
            [
                "x-client-cert-verify: success",
                "x-client-cert-subject: CN=anna,O=Example",
                "x-client-cert-issuer: CN=Clients,O=Example",
                "x-client-cert-serial: 0A01",
            ]
        );
        assert_eq!((fields.len(), told(&origin, "client-cert: :mii").len()), (5, 1), "{}", origin.text());
        assert!(!origin.text().contains("admin"), "{}", origin.text());
    }
    let logged =
        within(PATIENCE, || site.stdout().contains("\"client_cert\":\"CN=anna,O=Example\"").then_some(()));
    assert!(logged.is_some(), "{}", site.stdout());
}

#[test]
fn a_certificate_that_is_only_asked_for_may_be_missing_and_may_not_be_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, anna, keys) = household(dir.path(), "request");
    let origin = Recorder::answering(OK);
    let site = proxy().bare_site(HOST, &origin).https(&keys).plain_serves().start();
    assert_eq!(status(&site, &nobody(), HOST, HOST), Some(200));
    assert_eq!(told(&origin, "x-client-cert-"), ["x-client-cert-verify: none"]);
    assert_eq!(told(&origin, "client-cert").len(), 0);
    origin.forget();
    assert_eq!(status(&site, &anna.config(), HOST, HOST), Some(200));
    assert_eq!(told(&origin, "x-client-cert-").len(), 5);
    assert_eq!(status(&site, &Authority::new("Clients").client("anna", 1).config(), HOST, HOST), None);
    assert_eq!(status(&site, &authority.until("anna", 2, 2021).config(), HOST, HOST), None);
    // Nobody is asked without TLS, and nobody is believed.
    origin.forget();
    site.ask_over(Over::Plain, "/").header("X-Client-Cert-Verify", "success").send().status(200);
    assert_eq!(told(&origin, "x-client-cert-").len(), 0);
}

/// An open site, and one that requires certificates, behind one listener.
fn street(dir: &Path) -> (Ravelin, Recorder, Recorder, Party) {
    let (_, anna, keys) = household(dir, "require");
    let (www, shop) = (Recorder::answering(OK), Recorder::answering(OK));
    let site = proxy().bare_site(HOST, &www).bare_site(SHOP, &shop).with(&keys).plain_serves().start();
    (site, www, shop, anna)
}

#[test]
fn a_closed_site_is_not_reached_through_the_name_of_an_open_one() {
    let dir = tempfile::tempdir().unwrap();
    let (site, www, shop, anna) = street(dir.path());
    let mut nameless = ClientConfig::clone(&nobody());
    nameless.enable_sni = false;
    let nameless = Arc::new(nameless);
    let mut silent = ClientConfig::clone(&anna.config());
    silent.enable_sni = false;
    for (client, sni, host, want) in [
        (&nobody(), HOST, HOST, Some(200)),
        (&nobody(), SHOP, SHOP, None),
        (&anna.config(), SHOP, SHOP, Some(200)),
        (&anna.config(), HOST, HOST, Some(200)),
        // The name in the handshake decides what is asked; Host must then name the same site.
        (&nobody(), HOST, SHOP, Some(421)),
        (&anna.config(), HOST, SHOP, Some(421)),
        (&anna.config(), SHOP, HOST, Some(421)),
        (&nameless, HOST, HOST, Some(200)),
        (&nameless, HOST, SHOP, Some(421)),
        (&Arc::new(silent), HOST, SHOP, Some(421)),
    ] {
        assert_eq!(status(&site, client, sni, host), want, "{sni} and {host}");
    }
    site.ask_host(Over::Plain, SHOP, "/").send().status(421);
    site.ask_host(Over::Plain, HOST, "/").send().status(200);
    assert_eq!(told(&shop, "x-client-cert-").len(), 5);
    assert!(!www.text().contains("x-client-cert"), "an open site hears of no certificate: {}", www.text());
    assert_eq!(shop.text().matches("GET /").count(), 1);
}

/// OpenSSL takes a session to any name it is told to.
#[test]
fn no_session_goes_from_one_site_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let (site, _www, shop, anna) = street(dir.path());
    let (chain, key) = anna.write(dir.path(), "anna");
    let session = dir.path().join("session");
    let s_client = |version: &str, name: &str, args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &format!("127.0.0.1:{}", site.https_port())]);
        command.args([version, "-servername", name]).args(args).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let _ = std::io::Write::write_all(&mut input, request.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        drop(input);
        (said.contains("Reused, "), said.contains("HTTP/1.1 200"))
    };
    let path = session.display().to_string();
    let (chain, key) = (chain.display().to_string(), key.display().to_string());
    for version in ["-tls1_2", "-tls1_3"] {
        assert_eq!(s_client(version, HOST, &["-sess_out", &path]), (false, true));
        assert_eq!(s_client(version, HOST, &["-sess_in", &path]), (true, true), "the same site resumes");
        assert_eq!(s_client(version, SHOP, &["-sess_in", &path]), (false, false), "an open site's session");
        let shown = ["-cert", &chain, "-key", &key];
        assert_eq!(s_client(version, SHOP, &[&shown[..], &["-sess_out", &path]].concat()), (false, true));
        shop.forget();
        assert_eq!(s_client(version, SHOP, &["-sess_in", &path]), (true, true), "the same site resumes");
        assert_eq!(told(&shop, "x-client-cert-subject"), ["x-client-cert-subject: CN=anna,O=Example"]);
        assert_eq!(s_client(version, HOST, &["-sess_in", &path]), (false, true), "a closed site's session");
    }
}

#[test]
fn a_reload_that_asks_for_more_is_not_undone_by_sessions_and_connections_from_before() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, anna, keys) = household(dir.path(), "request");
    let bert = authority.client("bert", 0x0b02);
    let origin = Recorder::answering(OK);
    let site = proxy().bare_site(HOST, &origin).https(&format!("{keys}\n# more")).start();
    let configs = [anna.config(), bert.config(), nobody()];
    let mut wires: Vec<_> =
        configs.iter().map(|config| Wire::tls_as(site.https_port(), HOST, config)).collect();
    let get = format!("GET / HTTP/1.1\nHost: {HOST}\n\n");
    for wire in &mut wires {
        wire.say(&get).reply().status(200);
    }
    let again = Wire::tls_as(site.https_port(), HOST, &configs[2]);
    assert!(again.resumed());
    let list = authority.revoke(&dir.path().join("revoked.pem"), &[&bert], 2100);
    let text = std::fs::read_to_string(site.config()).unwrap();
    let more = text
        .replace("# more", &format!("client_crl = \"{}\"", list.display()))
        .replace("\"request\"", "\"require\"");
    std::fs::write(site.config(), &more).unwrap();
    site.signal("HUP");
    assert!(within(PATIENCE, || status(&site, &nobody(), HOST, HOST).is_none().then_some(())).is_some());
    // Who was let in before and is in order goes on; the others are sent away, and cannot come back.
    let after: Vec<_> = wires.iter_mut().map(|wire| wire.say(&get).reply().status).collect();
    assert_eq!(after, [200, 421, 421]);
    for (config, want) in configs.iter().zip([Some(200), None, None]) {
        let mut wire = Wire::tls_as(site.https_port(), HOST, config);
        assert!(!wire.resumed());
        assert_eq!(ask(&mut wire, HOST), want);
    }
    let mut wire = Wire::tls_as(site.https_port(), HOST, &configs[0]);
    assert!(wire.resumed(), "under what holds now");
    assert_eq!(ask(&mut wire, HOST), Some(200));
    // A list that is out of date knows nothing of those who were revoked since. The new file is noticed without a signal.
    authority.revoke(&list, &[], 2021);
    assert!(within(PATIENCE, || status(&site, &anna.config(), HOST, HOST).is_none().then_some(())).is_some());
    assert!(site.stderr().contains("was to be replaced on"), "{}", site.stderr());
}

#[test]
fn what_cannot_be_asked_of_clients_is_said_before_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, anna, _) = household(dir.path(), "require");
    anna.write(dir.path(), "anna");
    authority.revoke(&dir.path().join("list.pem"), &[], 2100);
    Authority::new("Other").write(&dir.path().join("other.pem"));
    crate::harness::certs::issue(dir.path(), "www", &[HOST]);
    for (keys, says) in [
        ("client_certificates = \"require\"", "it is not said whose are accepted"),
        ("client_certificates = \"must\"", "`require`"),
        ("client_certificates = \"require\"\nclient_ca = \"none.pem\"", "cannot read"),
        ("client_certificates = \"require\"\nclient_ca = \"anna.key\"", "holds no certificate"),
        ("client_certificates = \"require\"\nclient_ca = \"anna.pem\"", "is no authority"),
        (
            "client_certificates = \"require\"\nclient_ca = \"clients.pem\"\nclient_crl = \"anna.pem\"",
            "holds no list",
        ),
        (
            "client_certificates = \"require\"\nclient_ca = \"other.pem\"\nclient_crl = \"list.pem\"",
            "there is no list of",
        ),
        ("client_ca = \"clients.pem\"", "no effect"),
    ] {
        let text = format!(
            "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = [{{ chain = \"www.pem\", key = \"www.key\" }}]\n{keys}\n\
             [[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:9\"\npreset = \"none\"\n"
        );
        std::fs::write(dir.path().join("ravelin.toml"), text).unwrap();
        let said = run(crate::harness::ravelin().current_dir(dir.path()).args([
            "check",
            "--config",
            "ravelin.toml",
        ]));
        said.says(says);
    }
}

#[test]
fn secrets_are_written_only_where_danger_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("keys.log");
    let origin = Recorder::answering(OK);
    let keys = format!("danger_key_log_file = \"{}\"", log.display());
    let site = proxy()
        .bare_site(HOST, &origin)
        .https(&keys)
        .variable("SSLKEYLOGFILE", &format!("{}.env", log.display()))
        .start();
    assert!(site.stderr().contains("whoever reads it reads all traffic"), "{}", site.stderr());
    site.get("/").status(200);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("CLIENT_TRAFFIC_SECRET_0 ") && text.contains("SERVER_TRAFFIC_SECRET_0 "), "{text}");
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join("keys.log.env").exists());
    // A file that others can read is not written to.
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o644)).unwrap();
    site.signal("HUP");
    let said = within(PATIENCE, || site.stderr().contains("chmod 600").then_some(()));
    assert!(said.is_some(), "{}", site.stderr());
}

/// sslyze, which knows Mozilla's recommendations, finds each policy compliant, and none of the attacks that it knows.
#[test]
fn mozilla_would_have_it_so() {
    let Some(package) = outside::python("sslyze") else { return };
    for policy in ["intermediate", "modern"] {
        let keys = format!("tls_policy = \"{policy}\"");
        let site = proxy().bare_site(HOST, "http://127.0.0.1:9").https(&keys).start();
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &package).args(["-m", "sslyze", "--sni", HOST, "--mozilla_config", policy]);
        command
            .arg("--certinfo_ca_file")
            .arg(site.authority())
            .arg(format!("127.0.0.1:{}", site.https_port()));
        let said = run(&mut command);
        said.says("OK - Compliant.")
            .says("OK - Not vulnerable to Heartbleed")
            .says("Client Renegotiation DoS Attack:   OK");
        assert!(!said.out.contains("VULNERABLE"), "{policy}: {}", said.all());
    }
}
