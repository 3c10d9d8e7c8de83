//! A certificate authority for development: one root per developer, leaves made on the spot.
//!
//! The root is constrained (RFC 5280 section 4.2.1.10) to names that exist on one's own machine only.
//! Whoever steals it cannot impersonate anything on the Internet, even to a browser that trusts it.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::load::Certificate;
use super::x509::{CertificateFacts, date};

/// The domains that the root may vouch for; each stands for itself and everything below it.
pub const DOMAINS: [&str; 3] = ["localhost", "test", "ddev.site"];
/// The addresses that it may vouch for, each with its mask: 127.0.0.0/8 and `::1`.
const LOOPBACK: [&[u8]; 2] = [
    &[127, 0, 0, 0, 255, 0, 0, 0],
    b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
];
/// The secret: key and certificate of the root in one file, so that they cannot come apart.
const SECRET_FILE: &str = "root.key";
/// The certificate alone, to be trusted by browsers.
const PUBLIC_FILE: &str = "root.crt";
const ORGANISATION: &str = "Ravelin development";
const ROOT_NAME: &str = "Ravelin development CA";
const ROOT_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
const LEAF_LIFE: Duration = Duration::from_hours(24);
/// Certificates begin a little in the past, for clients whose clocks lag.
const LAG: Duration = Duration::from_mins(5);

/// The authority, ready to sign.
pub struct DevCa {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    facts: CertificateFacts,
}

/// Why there is no authority or no leaf. Each is a sentence for the developer.
#[derive(Debug)]
pub enum DevCaError {
    /// A file or the directory could not be read or written.
    Io(PathBuf, io::Error),
    /// A file or the directory can be read or written by others.
    TooOpen(PathBuf, &'static str),
    /// The secret file does not hold what it should.
    Broken(PathBuf, String),
    /// A name that the root may not vouch for.
    Foreign(String),
    /// Making a key or certificate failed.
    Crypto(String),
}

impl DevCa {
    /// Opens the authority in `directory`, or makes one there if there is none.
    pub fn open(directory: &Path, now: SystemTime) -> Result<Self, DevCaError> {
        prepare(directory)?;
        let secret = directory.join(SECRET_FILE);
        if !secret.exists() {
            create(&secret, &make_root(now)?)?;
        }
        let ca = Self::read(directory, &secret, now)?;
        ca.publish(&secret)?;
        Ok(ca)
    }

    fn read(directory: &Path, secret: &Path, now: SystemTime) -> Result<Self, DevCaError> {
        closed(secret, 0o077, "chmod 600")?;
        let pem = fs::read_to_string(secret).map_err(|error| DevCaError::Io(secret.to_owned(), error))?;
        let broken = |why: &str| DevCaError::Broken(secret.to_owned(), why.to_owned());
        let key = KeyPair::from_pem(&pem).map_err(|_| broken("it holds no private key"))?;
        let root =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken("it holds no certificate"))?;
        let facts = CertificateFacts::read(&root).map_err(|why| broken(&why))?;
        if !facts.is_authority {
            return Err(broken("its certificate is not one of an authority"));
        }
        if super::x509::fingerprint(&rcgen::PublicKeyData::subject_public_key_info(&key))
            != facts.key_fingerprint
        {
            return Err(broken("its key and its certificate do not belong together"));
        }
        if now > facts.not_after {
            return Err(broken(&format!("it expired on {}", date(facts.not_after))));
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|error| broken(&error.to_string()))?;
        Ok(Self { issuer, directory: directory.to_owned(), facts })
    }

    /// Writes the public file anew if it is missing or another.
    fn publish(&self, secret: &Path) -> Result<(), DevCaError> {
        let path = self.root_file();
        let io = |error| DevCaError::Io(path.clone(), error);
        let pem = fs::read_to_string(secret).map_err(io)?;
        let certificate =
            pem.find("-----BEGIN CERTIFICATE-----").and_then(|at| pem.get(at..)).unwrap_or_default();
        if fs::read_to_string(&path).is_ok_and(|present| present == certificate) {
            return Ok(());
        }
        let draft = draft(&path, certificate, 0o644).map_err(io)?;
        fs::rename(draft, &path).map_err(io)
    }

    /// The file that browsers are to trust.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.directory.join(PUBLIC_FILE)
    }

    /// What the root says about itself.
    #[must_use]
    pub fn root(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The same as [`DevCa::issue`], as PEM for other programs: the certificate, then its key.
    pub fn issue_pem(&self, names: &[&str], now: SystemTime) -> Result<(String, String), DevCaError> {
        let (certificate, key) = self.sign(names, now)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A certificate for `names` (host names, wildcards, addresses), valid for 24 hours.
    pub fn issue(&self, names: &[&str], now: SystemTime) -> Result<Arc<Certificate>, DevCaError> {
        let (leaf, key) = self.sign(names, now)?;
        served(leaf.der().clone(), &key, "the development CA")
    }

    fn sign(&self, names: &[&str], now: SystemTime) -> Result<(rcgen::Certificate, KeyPair), DevCaError> {
        if let Some(foreign) = names.iter().find(|name| !vouches_for(name)) {
            return Err(DevCaError::Foreign((*foreign).to_owned()));
        }
        let key = new_key()?;
        let leaf = leaf(names, now)?.signed_by(&key, &self.issuer).map_err(crypto)?;
        Ok((leaf, key))
    }
}

/// Whether a certificate, DER, is the root of a development CA: by its names, and because it can speak for no others than
/// ours. Anybody can write our names into a root of his own.
#[must_use]
pub fn vouched(root: &[u8]) -> bool {
    let ours = format!("O={ORGANISATION}, CN={ROOT_NAME} ");
    let named = CertificateFacts::read(root)
        .is_ok_and(|facts| facts.is_authority && facts.is_self_signed() && facts.subject.starts_with(&ours));
    named && is_constrained(root)
}

/// Whether names and addresses are constrained, critically, to those of one's own machine.
fn is_constrained(root: &[u8]) -> bool {
    let Ok((_, root)) = X509Certificate::from_der(root) else { return false };
    let Ok(Some(constraints)) = root.name_constraints() else { return false };
    let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
    let is_ours = |base: &GeneralName<'_>| match base {
        GeneralName::DNSName(name) => DOMAINS.contains(name),
        GeneralName::IPAddress(net) => LOOPBACK.contains(net),
        _ => false,
    };
    // A kind that is not constrained is free: there must be one of each.
    let names = permitted.iter().any(|tree| matches!(tree.base, GeneralName::DNSName(_)));
    let addresses = permitted.iter().any(|tree| matches!(tree.base, GeneralName::IPAddress(_)));
    constraints.critical && names && addresses && permitted.iter().all(|tree| is_ours(&tree.base))
}

/// Whether a development CA issued it, this one or another machine's: its root is the issuer, and nobody serves that.
#[must_use]
pub fn has_issued(leaf: &CertificateFacts) -> bool {
    leaf.issuer.contains(ROOT_NAME)
}

/// A certificate that nobody trusts, signed by itself and kept nowhere: for a demonstration.
/// Valid for 24 hours.
pub fn throw_away(names: &[&str], now: SystemTime) -> Result<Arc<Certificate>, DevCaError> {
    let key = new_key()?;
    let certificate = leaf(names, now)?.self_signed(&key).map_err(crypto)?;
    served(certificate.der().clone(), &key, "a throw-away certificate")
}

/// Whether the root may vouch for `name`: a host, a wildcard, or an address without brackets.
#[must_use]
pub fn vouches_for(name: &str) -> bool {
    if let Ok(address) = name.parse::<IpAddr>() {
        return address.is_loopback();
    }
    let name = name.strip_prefix("*.").unwrap_or(name).to_ascii_lowercase();
    DOMAINS.iter().any(|domain| {
        name.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

fn crypto(error: impl fmt::Display) -> DevCaError {
    DevCaError::Crypto(error.to_string())
}

fn new_key() -> Result<KeyPair, DevCaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANISATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// Key and certificate of a new root, PEM.
fn make_root(now: SystemTime) -> Result<String, DevCaError> {
    let key = new_key()?;
    // Roots of several machines may meet in one trust store: the fingerprint tells them apart.
    let print = super::x509::fingerprint(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("{ROOT_NAME} {}", print.get(..8).unwrap_or_default()));
    params.not_before = (now - LAG).into();
    params.not_after = (now + ROOT_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(constraints());
    let root = params.self_signed(&key).map_err(crypto)?;
    Ok(key.serialize_pem() + &root.pem())
}

fn constraints() -> NameConstraints {
    let mut permitted: Vec<_> = DOMAINS.map(|name| GeneralSubtree::DnsName(name.to_owned())).into();
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)));
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    permitted.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(loopback, 128)));
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: Vec::new() }
}

fn leaf(names: &[&str], now: SystemTime) -> Result<CertificateParams, DevCaError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(crypto)?;
    params.distinguished_name = named("Ravelin development server");
    params.not_before = (now - LAG).into();
    params.not_after = (now + LEAF_LIFE).into();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn served(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
    origin: &str,
) -> Result<Arc<Certificate>, DevCaError> {
    let facts = CertificateFacts::read(&certificate).map_err(DevCaError::Crypto)?;
    let key =
        PrivateKeyDer::try_from(key.serialize_der()).map_err(|why| DevCaError::Crypto(why.to_owned()))?;
    let key = any_supported_type(&key).map_err(|error| DevCaError::Crypto(error.to_string()))?;
    let key = Arc::new(CertifiedKey::new(vec![certificate], key));
    Ok(Arc::new(Certificate { key, facts, origin: origin.into() }))
}

/// Makes the directory, for its owner only; an existing one must not be writable by others.
fn prepare(directory: &Path) -> Result<(), DevCaError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| DevCaError::Io(directory.to_owned(), error))?;
    closed(directory, 0o022, "chmod 700")
}

fn closed(path: &Path, forbidden: u32, remedy: &'static str) -> Result<(), DevCaError> {
    let metadata = fs::metadata(path).map_err(|error| DevCaError::Io(path.to_owned(), error))?;
    if metadata.permissions().mode() & forbidden == 0 {
        return Ok(());
    }
    Err(DevCaError::TooOpen(path.to_owned(), remedy))
}

/// Puts a complete file in place, unless one is there already: of two processes that start at once,
/// the slower takes the root of the faster.
fn create(path: &Path, content: &str) -> Result<(), DevCaError> {
    let io = |error| DevCaError::Io(path.to_owned(), error);
    let draft = draft(path, content, 0o600).map_err(io)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(io)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(error)),
        _ => Ok(()),
    }
}

/// A complete file beside `path`, on the disk.
fn draft(path: &Path, content: &str, mode: u32) -> io::Result<PathBuf> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    // A leftover of a process with the same number that was killed while writing.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    Ok(draft)
}

impl fmt::Display for DevCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "the development CA in {}: {error}", path.display()),
            Self::TooOpen(path, remedy) => {
                let path = path.display();
                write!(f, "others can get at {path}, part of the development CA: `{remedy} {path}`")
            }
            Self::Broken(path, why) => {
                let path = path.display();
                write!(f, "{path}, the root of the development CA, cannot be used: {why}. ")?;
                write!(f, "Delete it: a new root is made, which must then be trusted again")
            }
            Self::Foreign(name) => {
                write!(f, "the development CA does not vouch for `{name}`, only for {}", DOMAINS.join(", "))?;
                f.write_str(", names below these, and loopback addresses")
            }
            Self::Crypto(why) => write!(f, "making a development certificate failed: {why}"),
        }
    }
}

impl std::error::Error for DevCaError {}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;
    use crate::clock;

    fn openssl(args: &[&str]) -> Output {
        Command::new("openssl").args(args).output().expect("these tests need openssl")
    }

    /// What `openssl verify` says to a leaf under the root of `ca`.
    fn verify(ca: &DevCa, leaf: &CertificateDer<'_>) -> (bool, String) {
        let file = ca.directory.join("leaf.der");
        fs::write(&file, leaf).unwrap();
        let root = ca.root_file();
        let args = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"];
        let output = openssl(&[&args[..], &[root.to_str().unwrap(), file.to_str().unwrap()]].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn openssl_accepts_leaves_for_our_names() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::open(directory.path(), clock::wall()).unwrap();
        let names = ["localhost", "typo3.localhost", "www.site.test", "*.ddev.site", "127.0.0.1", "::1"];
        let leaf = ca.issue(&names, clock::wall()).unwrap();
        let (ok, why) = verify(&ca, leaf.key.end_entity_cert().unwrap());
        assert!(ok, "{why}");
        assert_eq!(leaf.facts.addresses.len(), 2);
        assert!(leaf.key.keys_match().is_ok());
        let life = leaf.facts.not_after.duration_since(leaf.facts.not_before).unwrap();
        assert_eq!(life, LEAF_LIFE + LAG);
    }

    #[test]
    fn openssl_refuses_a_leaf_outside_the_constraints() {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::open(directory.path(), clock::wall()).unwrap();
        for name in ["www.example.org", "nottest", "8.8.8.8", "2001:db8::1"] {
            let error = ca.issue(&[name], clock::wall()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            // What somebody with the stolen key could sign all the same.
            let forged =
                leaf(&[name], clock::wall()).unwrap().signed_by(&new_key().unwrap(), &ca.issuer).unwrap();
            let (ok, why) = verify(&ca, forged.der());
            assert!(!ok && why.contains("permitted subtree violation"), "{name}: {why}");
        }
    }

    #[test]
    fn the_root_is_what_it_should_be() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("a/b");
        let ca = DevCa::open(&home, clock::wall()).unwrap();
        assert_eq!(
            (mode(&home), mode(&home.join(SECRET_FILE)), mode(&ca.root_file())),
            (0o700, 0o600, 0o644)
        );
        let text = openssl(&["x509", "-noout", "-text", "-in", ca.root_file().to_str().unwrap()]);
        let text = String::from_utf8(text.stdout).unwrap();
        for part in [
            "CA:TRUE, pathlen:0",
            "X509v3 Name Constraints: critical",
            "DNS:localhost",
            "DNS:test",
            "DNS:ddev.site",
            "IP:127.0.0.0/255.0.0.0",
            "Certificate Sign",
            "prime256v1",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!fs::read_to_string(ca.root_file()).unwrap().contains("PRIVATE"));
        assert_eq!(fs::read_dir(&home).unwrap().count(), 2, "no drafts are left");
    }

    #[test]
    fn an_existing_root_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = DevCa::open(directory.path(), clock::wall()).unwrap();
        fs::remove_file(first.root_file()).unwrap();
        let second = DevCa::open(directory.path(), clock::wall()).unwrap();
        assert_eq!(first.root(), second.root());
        let leaf = second.issue(&["localhost"], clock::wall()).unwrap();
        assert!(verify(&first, leaf.key.end_entity_cert().unwrap()).0, "the public file is back");
    }

    #[test]
    fn a_root_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        DevCa::open(directory.path(), clock::wall()).unwrap();
        let secret = directory.path().join(SECRET_FILE);
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let error = DevCa::open(directory.path(), clock::wall()).err().unwrap();
        assert!(error.to_string().contains("`chmod 600 "), "{error}");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = DevCa::open(directory.path(), clock::wall()).err().unwrap();
        assert!(error.to_string().contains("`chmod 700 "), "{error}");
    }

    #[test]
    fn only_a_root_that_speaks_for_nobody_else_is_vouched_for() {
        let ours = make_root(clock::wall()).unwrap();
        let ours = CertificateDer::from_pem_slice(ours.as_bytes()).unwrap();
        assert!(vouched(&ours));
        let forged = |constraints: Option<NameConstraints>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = named(&format!("{ROOT_NAME} 01234567"));
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.name_constraints = constraints;
            vouched(params.self_signed(&new_key().unwrap()).unwrap().der())
        };
        assert!(forged(Some(constraints())));
        let with = |more: GeneralSubtree| {
            let mut all = constraints();
            all.permitted_subtrees.push(more);
            all
        };
        let names_only = constraints().permitted_subtrees.into_iter();
        let names_only = names_only.filter(|tree| matches!(tree, GeneralSubtree::DnsName(_))).collect();
        for wider in [
            None,
            Some(with(GeneralSubtree::DnsName("example.org".to_owned()))),
            Some(with(GeneralSubtree::DnsName(String::new()))),
            Some(with(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0, 0, 0, 0], 0)))),
            Some(NameConstraints { permitted_subtrees: names_only, excluded_subtrees: Vec::new() }),
        ] {
            assert!(!forged(wider.clone()), "{wider:?}");
        }
    }

    #[test]
    fn a_broken_root_is_named_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let now = clock::wall();
        DevCa::open(directory.path(), now).unwrap();
        let secret = directory.path().join(SECRET_FILE);
        let good = fs::read_to_string(&secret).unwrap();
        let certificate = &good[good.find("-----BEGIN CERT").unwrap()..];
        let other = new_key().unwrap().serialize_pem() + certificate;
        for (content, why) in [
            ("", "no private key"),
            (certificate, "no private key"),
            (&good[..good.len() - certificate.len()], "no certificate"),
            (other.as_str(), "do not belong together"),
        ] {
            fs::write(&secret, content).unwrap();
            let error = DevCa::open(directory.path(), now).err().unwrap().to_string();
            assert!(error.contains(why) && error.contains("Delete it"), "{error}");
            assert_eq!(fs::read_to_string(&secret).unwrap(), content);
        }
        fs::write(&secret, good).unwrap();
        let later = now + ROOT_LIFE + LAG;
        assert!(DevCa::open(directory.path(), later).err().unwrap().to_string().contains("expired on"));
    }

    #[test]
    fn a_throw_away_certificate_needs_no_directory() {
        let certificate = throw_away(&["demo.localhost", "127.0.0.1"], clock::wall()).unwrap();
        assert_eq!(certificate.facts.names, [Box::<str>::from("demo.localhost")]);
        assert!(certificate.key.keys_match().is_ok() && certificate.facts.is_self_signed());
        assert!(!certificate.facts.is_authority);
    }
}
