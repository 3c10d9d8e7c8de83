//! From two files to a certificate that can be served, or to a sentence that says why not.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::dev_ca;
use super::expiry;
use super::pem::{self, Content};
use super::x509::{CertificateFacts, date, fingerprint};
use crate::config::complaint::{Complaints, Place};
use crate::config::file;

/// Larger files are not read: a chain with its key is a few KiB.
const LARGEST_FILE: u64 = 1 << 20;

/// A certificate with its chain and key, ready to be served.
#[derive(Debug)]
pub struct Certificate {
    /// Chain and key as rustls takes them. rustls prints no part of a key.
    pub key: Arc<CertifiedKey>,
    /// What the certificate says about itself.
    pub facts: CertificateFacts,
    /// Where it came from, for messages: the file of the chain, or what made it.
    pub origin: PathBuf,
}

/// The files of one certificate.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// PEM: the certificate first, then its intermediates. The root may be there, or not.
    pub chain: &'a Path,
    /// PEM: the private key (PKCS#8, PKCS#1 or SEC1). May be the same file as the chain.
    pub key: &'a Path,
}

/// A complaint to be made about a file.
struct Fault {
    message: String,
    hint: Option<String>,
}

/// Reads a certificate and its key, and checks that they belong together and are valid at `now`.
/// What keeps it from being used is an error among the complaints, the rest are warnings.
pub fn load(
    files: Files<'_>,
    now: SystemTime,
    place: Option<&Place>,
    complaints: &mut Complaints,
) -> Option<Arc<Certificate>> {
    // Both files are looked at before giving up: the operator mends both at once.
    let chain = report(read_chain(files.chain), place, complaints);
    let key = report(read_key(files.key), place, complaints);
    warn_open_key(files.key, place, complaints);
    let ((chain, facts), key) = (chain?, key?);
    let leaf = facts.first()?;
    report(fits(files, &facts, key.as_ref()), place, complaints)?;
    report(valid(files.chain, leaf, now), place, complaints)?;
    report(complete(files.chain, &facts), place, complaints)?;
    warn_early(files.chain, leaf, now, place, complaints);
    warn_expiry(files.chain, leaf, now, place, complaints);
    warn_chain(files.chain, &facts, place, complaints);
    warn_nameless(files.chain, leaf, place, complaints);
    let facts = leaf.clone();
    Some(Arc::new(Certificate {
        key: Arc::new(CertifiedKey::new(chain, key)),
        facts,
        origin: files.chain.to_owned(),
    }))
}

fn report<T>(result: Result<T, Fault>, place: Option<&Place>, complaints: &mut Complaints) -> Option<T> {
    result.map_err(|fault| complaints.error(place, fault.message, fault.hint)).ok()
}

impl Fault {
    fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: Some(hint.into()) }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let read = file::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    let name = path.display();
    match read {
        Err(error) => Err(Fault::new(format!("cannot read {name}: {error}"), unreadable_hint(&error))),
        Ok(_) if bytes.len() as u64 > LARGEST_FILE => {
            Err(Fault::new(format!("{name} is larger than 1 MiB"), "this is not a certificate or key file"))
        }
        Ok(_) => Ok(bytes),
    }
}

fn unreadable_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "check the path; a relative one starts at the folder of the configuration file"
        }
        io::ErrorKind::PermissionDenied => {
            "give the user that Ravelin runs as the right to read it (and to enter its folders)"
        }
        _ => "it must be a PEM file",
    }
}

type Chain = (Vec<CertificateDer<'static>>, Vec<CertificateFacts>);

fn read_chain(path: &Path) -> Result<Chain, Fault> {
    let bytes = read(path)?;
    let contents = pem::contents(&bytes);
    if !contents.contains(&Content::Certificate) {
        return Err(no_certificate(path, &contents));
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| broken(path, "certificate", &error.to_string()))?;
    let facts: Result<Vec<_>, _> = chain.iter().map(|der| CertificateFacts::read(der)).collect();
    let facts = facts.map_err(|error| broken(path, "certificate", &error))?;
    if facts.is_empty() {
        return Err(no_certificate(path, &contents));
    }
    Ok((chain, facts))
}

fn broken(path: &Path, what: &str, why: &str) -> Fault {
    let message = format!("{} holds a {what} that cannot be read: {why}", path.display());
    Fault::new(message, "the file is damaged or cut off: copy it again from where it was issued")
}

fn phrases(contents: &[Content]) -> String {
    contents.iter().map(|content| content.phrase()).collect::<Vec<_>>().join(" and ")
}

fn no_certificate(path: &Path, contents: &[Content]) -> Fault {
    let name = path.display();
    let message = format!("{name} holds no certificate: it holds {}", phrases(contents));
    let hint = match contents.first() {
        Some(Content::Binary) => format!(
            "turn it into PEM: `openssl x509 -inform der -in {name}` or, for a .p12 or .pfx file, \
             `openssl pkcs12 -nokeys -in {name}`"
        ),
        Some(Content::TrustedCertificate) => format!("turn it into plain PEM: `openssl x509 -in {name}`"),
        Some(Content::Request) => "use the certificate that the CA sent back for this request".to_owned(),
        Some(Content::Key | Content::EncryptedKey) => "are `chain` and `key` swapped?".to_owned(),
        _ => "it must begin with `-----BEGIN CERTIFICATE-----`".to_owned(),
    };
    Fault::new(message, hint)
}

fn read_key(path: &Path) -> Result<Arc<dyn SigningKey>, Fault> {
    let bytes = read(path)?;
    let contents = pem::contents(&bytes);
    if !contents.contains(&Content::Key) {
        return Err(no_key(path, &contents));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| broken(path, "private key", &error.to_string()))?;
    any_supported_type(&key).map_err(|error| {
        let message = format!("{} holds a private key that cannot be used: {error}", path.display());
        Fault::new(message, "use an ECDSA (P-256, P-384), RSA (2048 bits or more) or Ed25519 key")
    })
}

fn no_key(path: &Path, contents: &[Content]) -> Fault {
    let name = path.display();
    let message = format!("{name} holds no usable private key: it holds {}", phrases(contents));
    let encrypted = contents.contains(&Content::EncryptedKey);
    let hint = match contents.first() {
        _ if encrypted => format!(
            "remove the password: `openssl pkey -in {name} -out plain.key`, then `chmod 600 plain.key`"
        ),
        Some(Content::OpenSshKey) => {
            format!("turn a copy of it into PEM: `ssh-keygen -p -N '' -m pem -f {name}`")
        }
        Some(Content::Binary) => format!(
            "turn it into PEM: `openssl pkey -inform der -in {name}` or, for a .p12 or .pfx file, \
             `openssl pkcs12 -nocerts -nodes -in {name}`"
        ),
        Some(Content::Certificate) => {
            "are `chain` and `key` swapped, or is the key in another file?".to_owned()
        }
        _ => "it must begin with `-----BEGIN PRIVATE KEY-----`, or RSA or EC PRIVATE KEY".to_owned(),
    };
    Fault::new(message, hint)
}

/// Whether the key is the one of the first certificate.
fn fits(files: Files<'_>, chain: &[CertificateFacts], key: &dyn SigningKey) -> Result<(), Fault> {
    let Some(leaf) = chain.first() else { return Ok(()) };
    let Some(public) = key.public_key() else { return Ok(()) };
    let print = fingerprint(&public);
    if print == leaf.key_fingerprint {
        return Ok(());
    }
    let (chain_name, key_name) = (files.chain.display(), files.key.display());
    if let Some(meant) = chain.iter().find(|facts| facts.key_fingerprint == print) {
        let message = format!(
            "{chain_name} begins with `{}`, but the key in {key_name} belongs to `{}` further down",
            leaf.subject, meant.subject
        );
        return Err(Fault::new(message, "put the site's own certificate first, its issuers after it"));
    }
    let message = format!(
        "the key in {key_name} does not belong to the certificate in {chain_name}: the certificate is for `{}` \
         and has the {} key with SHA-256 {}, the file has the {} key with SHA-256 {print}",
        leaf.subject,
        leaf.key_kind,
        leaf.key_fingerprint,
        kind_of(key),
    );
    let hint = format!(
        "find the right key: `openssl pkey -in FILE -pubout -outform der | sha256sum` prints {} for it",
        leaf.key_fingerprint
    );
    Err(Fault::new(message, hint))
}

fn kind_of(key: &dyn SigningKey) -> &'static str {
    use rustls::SignatureAlgorithm::{ECDSA, ED25519, RSA};
    match key.algorithm() {
        RSA => "RSA",
        ECDSA => "ECDSA",
        ED25519 => "Ed25519",
        _ => "other",
    }
}

fn valid(path: &Path, leaf: &CertificateFacts, now: SystemTime) -> Result<(), Fault> {
    let (name, subject) = (path.display(), &leaf.subject);
    if now > leaf.not_after {
        let message =
            format!("the certificate in {name} for `{subject}` expired on {}", date(leaf.not_after));
        return Err(Fault::new(message, "renew it; browsers refuse it"));
    }
    Ok(())
}

/// Whether somebody who knows no more than the usual roots can follow the chain. Only public authorities say where
/// their issuer's certificate is to be fetched: where a certificate does and its issuer is neither in the file nor
/// known to this system, every client without a cache of its own refuses the site.
fn complete(path: &Path, chain: &[CertificateFacts]) -> Result<(), Fault> {
    let Some(last) = chain.last().filter(|last| !last.is_self_signed()) else { return Ok(()) };
    // In a file in the wrong order the issuer may stand further up.
    let there = chain.iter().any(|other| other.subject == last.issuer);
    let Some(url) = last.issuer_url.as_deref().filter(|_| !there && !is_root(&last.issuer)) else {
        return Ok(());
    };
    let name = path.display();
    let message =
        format!("{name} lacks the certificate of the issuer of `{}`, `{}`", last.subject, last.issuer);
    let hint = format!(
        "use the file that the CA calls fullchain, or append it: `curl -s '{url}' | openssl x509 -inform der >> {name}` \
         (without `-inform der` if that is PEM)"
    );
    Err(Fault::new(message, hint))
}

/// Whether this system knows a root of that name. One without any roots knows all: it cannot tell.
fn is_root(subject: &str) -> bool {
    static ROOTS: OnceLock<HashSet<String>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let all = rustls_native_certs::load_native_certs().certs;
        all.iter().filter_map(|der| Some(CertificateFacts::read(der).ok()?.subject)).collect()
    });
    roots.is_empty() || roots.contains(subject)
}

fn warn_early(
    path: &Path,
    leaf: &CertificateFacts,
    now: SystemTime,
    place: Option<&Place>,
    complaints: &mut Complaints,
) {
    if now < leaf.not_before {
        let (name, subject, from) = (path.display(), &leaf.subject, date(leaf.not_before));
        let message = format!("the certificate in {name} for `{subject}` is not valid before {from}");
        let hint = format!("wait until then, or set the clock of this machine: it says {}", date(now));
        complaints.warning(place, message, Some(hint));
    }
}

fn warn_expiry(
    path: &Path,
    leaf: &CertificateFacts,
    now: SystemTime,
    place: Option<&Place>,
    complaints: &mut Complaints,
) {
    if expiry::is_soon(leaf, now) {
        let (name, left) = (path.display(), expiry::left(leaf.not_after, now));
        let message = format!(
            "the certificate in {name} for `{}` expires in {left}, on {}",
            leaf.subject,
            date(leaf.not_after)
        );
        complaints.warning(place, message, Some("renew it in time".to_owned()));
    }
}

/// A chain that browsers mend from their caches and other clients do not.
fn warn_chain(path: &Path, chain: &[CertificateFacts], place: Option<&Place>, complaints: &mut Complaints) {
    let name = path.display();
    if let [leaf] = chain
        && !leaf.is_self_signed()
        && !dev_ca::has_issued(leaf)
    {
        let message =
            format!("{name} lacks the certificate of the issuer of `{}`, `{}`", leaf.subject, leaf.issuer);
        let hint = "append the intermediate certificates (the CA calls this file fullchain); only if the \
                    issuer is a root that every client knows, nothing is missing";
        complaints.warning(place, message, Some(hint.to_owned()));
    }
    for (certificate, next) in chain.iter().zip(chain.iter().skip(1)) {
        if certificate.issuer != next.subject {
            let message = format!(
                "in {name} `{}` is followed by `{}`, but was issued by `{}`",
                certificate.subject, next.subject, certificate.issuer
            );
            let hint = "every certificate must be followed by that of its issuer";
            complaints.warning(place, message, Some(hint.to_owned()));
        }
    }
}

fn warn_nameless(path: &Path, leaf: &CertificateFacts, place: Option<&Place>, complaints: &mut Complaints) {
    if leaf.names.is_empty() && leaf.addresses.is_empty() {
        let message = format!(
            "the certificate in {} for `{}` names no host in its subjectAltName",
            path.display(),
            leaf.subject
        );
        let hint = "no browser accepts it: have it issued with its host names (RFC 9110 section 4.3.4)";
        complaints.warning(place, message, Some(hint.to_owned()));
    }
}

/// Others than owner and group must not read a key.
fn warn_open_key(path: &Path, place: Option<&Place>, complaints: &mut Complaints) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = path.metadata() else { return };
    if metadata.permissions().mode() & 0o004 != 0 {
        let name = path.display();
        let message = format!("everybody on this machine can read the private key in {name}");
        complaints.warning(place, message, Some(format!("`chmod o-rwx {name}`")));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    /// A directory in which openssl makes keys and certificates.
    struct Workshop(tempfile::TempDir);

    impl Workshop {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Runs openssl with the words of `args`.
        fn openssl(&self, args: &str) {
            let output = Command::new("openssl").args(args.split(' ')).current_dir(&self.0).output();
            let output = output.expect("these tests need openssl");
            assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        }

        /// A self-signed certificate for a key.
        fn certify(&self, key: &str, chain: &str, name: &str) {
            self.openssl(&format!(
                "req -x509 -new -key {key} -out {chain} -days 90 -subj /CN={name} -addext subjectAltName=DNS:{name}"
            ));
        }

        fn load(&self, chain: &str, key: &str) -> (Option<Arc<Certificate>>, String) {
            self.load_at(chain, key, clock::wall())
        }

        fn load_at(&self, chain: &str, key: &str, now: SystemTime) -> (Option<Arc<Certificate>>, String) {
            let mut complaints = Complaints::default();
            let files = Files { chain: &self.path(chain), key: &self.path(key) };
            let loaded = load(files, now, None, &mut complaints);
            assert_eq!(loaded.is_none(), complaints.has_errors(), "{complaints}");
            (loaded, complaints.to_string())
        }

        /// Loading fails, and the complaint contains all of `parts`.
        fn refuses(&self, chain: &str, key: &str, parts: &[&str]) {
            let (loaded, complaints) = self.load(chain, key);
            assert!(loaded.is_none());
            for part in parts {
                assert!(complaints.contains(part), "`{part}` is missing in: {complaints}");
            }
        }

        fn with_certificate() -> Self {
            let shop = Self::new();
            shop.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out www.key");
            shop.certify("www.key", "www.pem", "www.example.org");
            shop
        }
    }

    #[test]
    fn every_common_form_of_key_is_read() {
        let shop = Workshop::new();
        for (make, kind, begins) in [
            ("genrsa -traditional -out k 2048", "RSA 2048", "-----BEGIN RSA PRIVATE KEY"),
            (
                "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out k",
                "RSA 3072",
                "-----BEGIN PRIVATE KEY",
            ),
            ("ecparam -name prime256v1 -genkey -out k", "ECDSA P-256", "-----BEGIN EC PARAMETERS"),
            ("ecparam -name secp384r1 -genkey -noout -out k", "ECDSA P-384", "-----BEGIN EC PRIVATE KEY"),
            (
                "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out k",
                "ECDSA P-521",
                "-----BEGIN PRIVATE KEY",
            ),
            ("genpkey -algorithm ED25519 -out k", "Ed25519", "-----BEGIN PRIVATE KEY"),
        ] {
            shop.openssl(make);
            assert!(fs::read_to_string(shop.path("k")).unwrap().starts_with(begins), "{make}");
            shop.certify("k", "c", "www.example.org");
            let (loaded, complaints) = shop.load("c", "k");
            assert_eq!(complaints, "", "{make}");
            let loaded = loaded.unwrap();
            assert_eq!(loaded.facts.key_kind, kind);
            assert_eq!(loaded.facts.names, [Box::<str>::from("www.example.org")]);
            assert!(loaded.key.keys_match().is_ok());
        }
    }

    #[test]
    fn chain_and_key_may_share_a_file_and_have_windows_line_ends() {
        let shop = Workshop::with_certificate();
        let both = ["www.key", "www.pem"].map(|name| fs::read_to_string(shop.path(name)).unwrap()).concat();
        fs::write(shop.path("both.pem"), both.replace('\n', "\r\n")).unwrap();
        let (loaded, complaints) = shop.load("both.pem", "both.pem");
        assert!(loaded.is_some(), "{complaints}");
        // fs::write leaves the file open to everybody, and that is said.
        assert!(complaints.contains("everybody on this machine can read"), "{complaints}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let shop = Workshop::with_certificate();
        shop.refuses("no.pem", "no.key", &["cannot read", "no.pem", "no.key", "check the path"]);
    }

    #[test]
    fn swapped_files_are_recognised() {
        let shop = Workshop::with_certificate();
        shop.refuses(
            "www.key",
            "www.pem",
            &[
                "www.key holds no certificate: it holds a private key",
                "www.pem holds no usable private key: it holds a certificate",
                "are `chain` and `key` swapped",
            ],
        );
    }

    #[test]
    fn an_encrypted_key_names_the_command() {
        let shop = Workshop::with_certificate();
        shop.openssl("pkcs8 -topk8 -in www.key -out modern.key -passout pass:secret");
        shop.openssl("genrsa -traditional -aes128 -passout pass:secret -out old.key 2048");
        assert!(fs::read_to_string(shop.path("old.key")).unwrap().contains("Proc-Type: 4,ENCRYPTED"));
        for key in ["modern.key", "old.key"] {
            shop.refuses("www.pem", key, &["protected by a password", "`openssl pkey -in "]);
        }
    }

    #[test]
    fn other_files_are_recognised() {
        let shop = Workshop::with_certificate();
        shop.openssl("x509 -in www.pem -outform der -out www.der");
        shop.openssl("req -new -key www.key -subj /CN=x -out www.csr");
        shop.openssl("pkey -in www.key -pubout -out www.pub");
        fs::write(shop.path("empty"), " \n").unwrap();
        fs::write(shop.path("cut"), &fs::read(shop.path("www.pem")).unwrap()[..200]).unwrap();
        shop.refuses("www.der", "www.key", &["binary data", "openssl x509 -inform der"]);
        shop.refuses("www.csr", "www.key", &["a certificate request", "that the CA sent back"]);
        shop.refuses("empty", "www.pub", &["it holds nothing", "it holds a public key"]);
        shop.refuses("cut", "www.key", &["damaged or cut off"]);
    }

    #[test]
    fn a_key_of_another_certificate_is_told_by_both_fingerprints() {
        let shop = Workshop::with_certificate();
        shop.openssl("genrsa -out other.key 2048");
        let (ours, _) = shop.load("www.pem", "www.key");
        let print = ours.unwrap().facts.key_fingerprint.clone();
        shop.certify("other.key", "other.pem", "other.example.org");
        let (other, _) = shop.load("other.pem", "other.key");
        let other = other.unwrap().facts.key_fingerprint.clone();
        shop.refuses("www.pem", "other.key", &["`CN=www.example.org`", "ECDSA P-256", "RSA", &print, &other]);
    }

    #[test]
    fn the_fingerprint_is_the_one_that_the_hint_computes() {
        let shop = Workshop::with_certificate();
        shop.openssl("pkey -in www.key -pubout -outform der -out spki");
        shop.openssl("dgst -sha256 -r -out print spki");
        let printed = fs::read_to_string(shop.path("print")).unwrap();
        let facts = shop.load("www.pem", "www.key").0.unwrap().facts.clone();
        assert!(printed.starts_with(&facts.key_fingerprint));
    }

    #[test]
    fn dates_are_checked() {
        let shop = Workshop::with_certificate();
        let day = Duration::from_hours(24);
        let now = clock::wall();
        let (loaded, said) = shop.load_at("www.pem", "www.key", now + 91 * day);
        assert!(loaded.is_none() && said.contains("expired on 20"), "{said}");
        let (loaded, said) = shop.load_at("www.pem", "www.key", now - day);
        let told = said.contains("warning: the certificate in") && said.contains("is not valid before 20");
        assert!(loaded.is_some() && told, "{said}");
        let (loaded, said) = shop.load_at("www.pem", "www.key", now + 80 * day);
        assert!(loaded.is_some() && said.contains("expires in 9 days, on 20"), "{said}");
    }

    #[test]
    fn a_missing_intermediate_and_a_wrong_order_are_warned_of() {
        let shop = Workshop::with_certificate();
        shop.openssl("req -x509 -new -key www.key -out ca.pem -days 90 -subj /CN=ca");
        shop.openssl("genpkey -algorithm ED25519 -out leaf.key");
        shop.openssl(
            "req -new -key leaf.key -subj /CN=leaf -addext subjectAltName=DNS:leaf.test -out leaf.csr",
        );
        shop.openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey www.key -CAcreateserial -days 90 -copy_extensions copy -out leaf.pem",
        );
        let (loaded, said) = shop.load("leaf.pem", "leaf.key");
        assert!(
            loaded.is_some() && said.contains("lacks the certificate of the issuer of `CN=leaf`, `CN=ca`"),
            "{said}"
        );
        let join = |names: [&str; 2]| names.map(|name| fs::read_to_string(shop.path(name)).unwrap()).concat();
        fs::write(shop.path("full.pem"), join(["leaf.pem", "ca.pem"])).unwrap();
        let (loaded, said) = shop.load("full.pem", "leaf.key");
        assert_eq!(said, "");
        assert_eq!(loaded.unwrap().key.cert.len(), 2);
        fs::write(shop.path("odd.pem"), join(["leaf.pem", "www.pem"])).unwrap();
        let (_, said) = shop.load("odd.pem", "leaf.key");
        assert!(said.contains("`CN=leaf` is followed by `CN=www.example.org`"), "{said}");
        fs::write(shop.path("reverse.pem"), join(["ca.pem", "leaf.pem"])).unwrap();
        shop.refuses(
            "reverse.pem",
            "leaf.key",
            &["belongs to `CN=leaf` further down", "own certificate first"],
        );
    }
}
