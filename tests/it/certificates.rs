//! Certificates as their owner meets them: replaced on the disk, in folders, refused, shown, and trusted or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{HOST, Ravelin, Recorder, Said, certs, proxy, ravelin, run, within};

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The SHA-256 of the certificate that is shown to somebody who asks for `host`.
fn shown(site: &Ravelin, host: &str) -> Option<String> {
    let target = format!("127.0.0.1:{}", site.https_port());
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &target, "-servername", host]).stdin(Stdio::null());
    let all = run(&mut client).out;
    let (_, rest) = all.split_once("-----BEGIN CERTIFICATE-----")?;
    rest.split("-----END").next().map(|text| text.split_whitespace().collect())
}

fn on_disk(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("-----").nth(2).unwrap();
    text.split_whitespace().collect()
}

#[test]
fn a_certificate_that_is_replaced_is_served_without_a_signal_and_a_broken_one_never() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).start();
    let (chain, key) = (site.dir().join("site0.pem"), site.dir().join("site0.key"));
    let before = shown(&site, HOST).unwrap();
    assert_eq!(before, on_disk(&chain));
    // What is there when the watch takes its first look is what was loaded.
    std::thread::sleep(Duration::from_millis(300));
    certs::issue(site.dir(), "site0", &[HOST]);
    let fresh = on_disk(&chain);
    let swapped = within(PATIENCE, || shown(&site, HOST).filter(|now| *now == fresh));
    assert!(swapped.is_some(), "the new one is not served:\n{}", site.stderr());
    assert!(site.stderr().contains("certificates on the disk have changed"), "{}", site.stderr());

    let good = fs::read(&key).unwrap();
    let other = certs::issue(site.dir(), "other", &["other.example.org"]);
    fs::copy(&other.key, &key).unwrap();
    let said = within(PATIENCE, || {
        site.stderr().contains("reload failed, nothing has changed").then(|| site.stderr())
    });
    assert!(
        said.is_some_and(|said| said.contains("does not belong to the certificate")),
        "{}",
        site.stderr()
    );
    assert_eq!(shown(&site, HOST).unwrap(), fresh, "the old pair stays");
    let failures = site.stderr().matches("reload failed").count();

    fs::write(&key, good).unwrap();
    let reloaded =
        within(PATIENCE, || (site.stderr().matches("configuration in force").count() >= 3).then_some(()));
    assert!(reloaded.is_some(), "mended files are taken:\n{}", site.stderr());
    assert_eq!(site.stderr().matches("reload failed").count(), failures, "said once");
    assert_eq!(shown(&site, HOST).unwrap(), fresh);
    site.get("/").status(200);
    let metrics = site.admin("/metrics").text();
    let left = metrics.lines().find(|line| line.starts_with("ravelin_certificate_expiry_seconds{"));
    assert!(left.is_some_and(|line| line.contains(&format!("certificate=\"{HOST}\"}}"))), "{metrics}");
}

/// A configuration with a folder of certificates.
fn with_folder(dir: &Path, hosts: &str) -> PathBuf {
    let config = dir.join("ravelin.toml");
    let text = format!(
        "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = \"dir:certs\"\n\n[[site]]\nhosts = {hosts}\n\
         upstream = \"http://127.0.0.1:9\"\npreset = \"typo3\"\n"
    );
    fs::write(&config, text).unwrap();
    fs::create_dir_all(dir.join("certs")).unwrap();
    config
}

fn check(config: &Path) -> Said {
    run(ravelin().arg("check").arg("--config").arg(config))
}

#[test]
fn a_folder_is_read_by_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_folder(dir.path(), "[\"www.example.org\", \"shop.example.org\"]");
    let certs_dir = dir.path().join("certs");
    check(&config).exits(1).says("holds no certificate with its key").says("ravelin.toml:3");
    certs::issue(&certs_dir, "www", &[HOST]);
    let live = certs_dir.join("shop.example.org");
    fs::create_dir(&live).unwrap();
    let pair = certs::issue(&live, "x", &["shop.example.org"]);
    fs::rename(pair.chain, live.join("fullchain.pem")).unwrap();
    fs::rename(pair.key, live.join("privkey.pem")).unwrap();
    certs::issue(&certs_dir, "stranger", &["stranger.example.net"]);
    fs::write(certs_dir.join("ca.pem"), certs::authority_pem()).unwrap();
    check(&config)
        .exits(0)
        .says("stranger.pem is for `stranger.example.net`, no host of any site")
        .says("ca.pem has no key beside it");
    let show = run(ravelin().args(["cert", "show", "--config"]).arg(&config));
    show.exits(0)
        .says("names        shop.example.org")
        .says(&format!("names        {HOST}"))
        .says("days left");
    assert!(!show.out.contains("stranger"), "{}", show.out);
    // One that is broken keeps all of it from being used: no site loses its certificate without a word.
    fs::write(certs_dir.join("www.key"), "").unwrap();
    check(&config).exits(1).says("www.key holds no usable private key: it holds nothing");
    fs::remove_dir_all(&certs_dir).unwrap();
    check(&config).exits(1).says("cannot read the folder");
}

#[test]
fn a_new_certificate_in_a_folder_is_served() {
    let origin = Recorder::answering(OK);
    let folder = tempfile::tempdir().unwrap();
    certs::issue(folder.path(), "www", &[HOST]);
    let (site, late) = (Recorder::answering(OK), "late.example.org");
    let site = proxy().site(HOST, &origin).site(late, &site).start();
    let text = fs::read_to_string(site.config()).unwrap();
    let from = text.find("certificates = [").unwrap();
    let to = from + text[from..].find("\n]\n").unwrap() + 3;
    let line = format!("certificates = \"dir:{}\"\n", folder.path().display());
    fs::write(site.config(), [&text[..from], &line, &text[to..]].concat()).unwrap();
    site.signal("HUP");
    let www = on_disk(&folder.path().join("www.pem"));
    assert!(within(PATIENCE, || shown(&site, late).filter(|now| *now == www)).is_some(), "{}", site.stderr());
    // The watch has seen the folder as it is.
    let settled = within(PATIENCE, || site.stderr().contains("have changed").then_some(()));
    assert!(settled.is_some(), "{}", site.stderr());
    let pair = certs::issue(folder.path(), "late", &[late]);
    let fresh = on_disk(&pair.chain);
    assert!(
        within(PATIENCE, || shown(&site, late).filter(|now| *now == fresh)).is_some(),
        "{}",
        site.stderr()
    );
    assert_eq!(shown(&site, HOST).unwrap(), www);
}

/// A workshop where openssl issues a leaf under an intermediate under a root.
fn issue_below(dir: &Path, extensions: &str) {
    let openssl = |args: &str| {
        let said = run(Command::new("openssl").args(args.split(' ')).current_dir(dir));
        said.exits(0);
    };
    fs::write(dir.join("leaf.ext"), format!("subjectAltName=DNS:{HOST}\n{extensions}")).unwrap();
    fs::write(dir.join("mid.ext"), "basicConstraints=critical,CA:TRUE\n").unwrap();
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -days 90 -subj /CN=root",
    );
    for (name, issuer) in [("mid", "root"), ("leaf", "mid")] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial -days 89 -extfile {name}.ext -out {name}.pem"
        ));
    }
    let both = [fs::read(dir.join("leaf.pem")).unwrap(), fs::read(dir.join("mid.pem")).unwrap()].concat();
    fs::write(dir.join("full.pem"), both).unwrap();
}

fn check_pair(dir: &Path, chain: &str) -> Said {
    let mut command = ravelin();
    command.args(["cert", "check", chain, "leaf.key"]).current_dir(dir);
    run(&mut command)
}

#[test]
fn a_chain_that_leads_nowhere_is_refused_with_the_command_that_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    issue_below(dir.path(), "authorityInfoAccess=caIssuers;URI:http://ca.example.org/mid.der\n");
    check_pair(dir.path(), "leaf.pem")
        .exits(1)
        .says("error: leaf.pem lacks the certificate of the issuer of `CN=leaf`, `CN=mid`")
        .says("curl -s 'http://ca.example.org/mid.der' | openssl x509 -inform der >> leaf.pem");
    check_pair(dir.path(), "full.pem").exits(0).says("ok: www.example.org, 88 days left");
    // Where nobody says where it is to be had, a private CA may stand on all clients.
    let private = tempfile::tempdir().unwrap();
    issue_below(private.path(), "");
    check_pair(private.path(), "leaf.pem")
        .exits(0)
        .says("warning: leaf.pem lacks the certificate of the issuer");
    run(ravelin()
        .args(["cert", "check", "--days", "90", "full.pem", "leaf.key"])
        .current_dir(private.path()))
    .exits(1)
    .says("ends soon: www.example.org");
}

#[test]
fn a_certificate_for_nobody_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    certs::issue(dir.path(), "www", &["other.example.net"]);
    let config = dir.path().join("ravelin.toml");
    let text = |hosts: &str| {
        format!(
            "[[listen]]\nurl = \"https://127.0.0.1:8443\"\ncertificates = [{{ chain = \"www.pem\", key = \"www.key\" }}]\n\n\
             [[site]]\nhosts = [\"{hosts}\"]\nupstream = \"http://127.0.0.1:9\"\npreset = \"typo3\"\n"
        )
    };
    fs::write(&config, text(HOST)).unwrap();
    check(&config)
        .exits(1)
        .says("is for `other.example.net`, and no site has such a host: they have `www.example.org`")
        .says("write the hosts that it is for into `hosts`");
    for fine in ["other.example.net", "*.example.net", "*"] {
        fs::write(&config, text(fine)).unwrap();
        check(&config).exits(0);
    }
    // Behind a balancer that looks at no names, a certificate that signed itself has any name.
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir.path()).args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout www.key -out www.pem -days 90 -subj /CN=internal".split(' '),
    );
    run(&mut openssl).exits(0);
    fs::write(&config, text(HOST)).unwrap();
    check(&config).exits(0).says("warning: the certificate in").says("no site has such a host");
}

/// `ravelin cert …` of a user with a home of his own.
fn cert(home: &Path, args: &[&str]) -> Said {
    let mut command = ravelin();
    command.env("HOME", home).env_remove("XDG_DATA_HOME").env_remove("JAVA_HOME").arg("cert").args(args);
    run(&mut command)
}

#[test]
fn a_development_certificate_is_written_for_other_programs() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    fs::create_dir(&out).unwrap();
    let out_name = out.to_str().unwrap();
    cert(home.path(), &["dev", "shop.test", "127.0.0.1", "--out", out_name])
        .exits(0)
        .says("valid for 24 hours");
    let root = home.path().join(".local/share/ravelin/development-ca/root.crt");
    let verify = run(Command::new("openssl")
        .args(["verify", "-purpose", "sslserver", "-CAfile"])
        .arg(&root)
        .arg(out.join("shop.test.pem")));
    verify.exits(0);
    let file = |extension| out.join(format!("shop.test.{extension}")).to_str().unwrap().to_owned();
    let checked = cert(home.path(), &["check", &file("pem"), &file("key")]);
    assert!(!checked.all().contains("lacks the certificate of the issuer"), "{}", checked.all());
    cert(home.path(), &["dev", "www.example.org", "--out", out_name]).exits(1).says("does not vouch for");
    let shown = cert(home.path(), &["show", root.to_str().unwrap()]);
    shown.exits(0).says("authority").says("CN=Ravelin development CA");
}

#[test]
fn browsers_are_told_and_untold() {
    let home = tempfile::tempdir().unwrap();
    cert(home.path(), &["trust", "--store", "nss"]).exits(1).says("no database of Chrome or Firefox");
    let profiles = [".pki/nssdb", ".mozilla/firefox/abc.default"].map(|folder| home.path().join(folder));
    let certutil = |folder: &Path, args: &[&str]| {
        run(Command::new("certutil").arg("-d").arg(format!("sql:{}", folder.display())).args(args))
    };
    for folder in &profiles {
        fs::create_dir_all(folder).unwrap();
        certutil(folder, &["-N", "--empty-password"]).exits(0);
    }
    // Twice: a root that is there already is replaced.
    for _ in 0..2 {
        cert(home.path(), &["trust", "--store", "nss"]).exits(0).says("trusted by browsers");
    }
    let out = home.path().to_str().unwrap();
    cert(home.path(), &["dev", "shop.test", "--out", out]).exits(0);
    let leaf = home.path().join("shop.test.pem");
    for folder in &profiles {
        certutil(folder, &["-L"]).exits(0).says("ravelin-development");
        certutil(folder, &["-A", "-t", ",,", "-n", "leaf", "-i", leaf.to_str().unwrap()]).exits(0);
        certutil(folder, &["-V", "-u", "V", "-n", "leaf"]).exits(0).says("certificate is valid");
    }
    cert(home.path(), &["untrust", "--store", "nss"]).exits(0).says("no longer trusted by browsers");
    for folder in &profiles {
        let left = certutil(folder, &["-V", "-u", "V", "-n", "leaf"]);
        assert_ne!(left.code, Some(0), "it is trusted still: {}", left.all());
    }
    cert(home.path(), &["untrust", "--store", "nss"]).exits(0).says("it is not in");
}

#[test]
fn java_is_told_and_untold() {
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("cacerts");
    let keytool = |args: &[&str]| {
        run(Command::new("keytool").args(args).arg("-keystore").arg(&store).args(["-storepass", "changeit"]))
    };
    let name = store.to_str().unwrap();
    cert(home.path(), &["trust", "--store", "java", "--keystore", name]).exits(0).says("trusted by Java");
    keytool(&["-list", "-alias", "ravelin-development"]).exits(0).says("trustedCertEntry");
    cert(home.path(), &["untrust", "--store", "java", "--keystore", name])
        .exits(0)
        .says("no longer trusted by Java");
    keytool(&["-list", "-alias", "ravelin-development"]).exits(1);
    cert(home.path(), &["untrust", "--store", "java", "--keystore", name])
        .exits(0)
        .says("it is not in the key store");
}

/// The system's store in a mount namespace of its own: what is changed there is nowhere else.
#[test]
fn the_system_is_told_and_untold() {
    let home = tempfile::tempdir().unwrap();
    let here = home.path().display();
    let ravelin = env!("CARGO_BIN_EXE_ravelin");
    let script = format!(
        "set -e
        mkdir {here}/own {here}/all
        cp -a /etc/ssl/certs/. {here}/all/
        mount --bind {here}/own /usr/local/share/ca-certificates
        mount --bind {here}/all /etc/ssl/certs
        export HOME={here}
        {ravelin} cert dev shop.test --out {here}
        ! openssl verify -CApath /etc/ssl/certs {here}/shop.test.pem
        {ravelin} cert trust --store system
        openssl verify -CApath /etc/ssl/certs {here}/shop.test.pem
        openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt {here}/shop.test.pem
        {ravelin} cert untrust --store system
        ! openssl verify -CApath /etc/ssl/certs {here}/shop.test.pem
        {ravelin} cert untrust --store system
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -keyout {here}/k -out {here}/stranger
        openssl x509 -in {here}/stranger -trustout > {here}/both.crt
        cat {here}/.local/share/ravelin/development-ca/root.crt >> {here}/both.crt
        {ravelin} cert trust --store system --file {here}/both.crt
        ! grep TRUSTED /usr/local/share/ca-certificates/ravelin-development.crt
        ! openssl verify -CApath /etc/ssl/certs {here}/stranger
        {ravelin} cert untrust --store system
        echo the end was reached"
    );
    let namespace = if run(Command::new("id").arg("-u")).out.trim() == "0" { "-m" } else { "-mr" };
    let said = run(Command::new("unshare").args([namespace, "sh", "-c", &script]));
    said.exits(0).says("no longer trusted by the system").says("ravelin-development.crt is not there");
    said.says("the end was reached");
    assert!(!Path::new("/usr/local/share/ca-certificates/ravelin-development.crt").exists());
}

#[test]
fn nothing_but_our_root_is_ever_trusted() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("root.crt");
    fs::write(&file, certs::authority_pem()).unwrap();
    cert(home.path(), &["trust", "--file", file.to_str().unwrap()])
        .exits(1)
        .says("nothing else is installed here");
}
