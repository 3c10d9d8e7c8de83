//! Certificates made at run time: one authority per test process, a leaf per proxy. No key is ever stored in
//! the repository.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A chain and its key, as files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// PEM certificates, the leaf first.
    pub(crate) chain: PathBuf,
    /// PEM private key, PKCS#8.
    pub(crate) key: PathBuf,
}

fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Ravelin test authority");
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    })
}

/// The authority's certificate, PEM.
pub(crate) fn authority_pem() -> String {
    authority().pem()
}

/// A certificate for `names` (the first is also its subject), written to `dir` as `STEM.pem` and `STEM.key`.
pub(crate) fn issue(dir: &Path, stem: &str, names: &[&str]) -> Pair {
    issue_for(&KeyPair::generate().expect("a key"), dir, stem, names)
}

/// The same with a key of RSA, 2048 bits.
pub(crate) fn issue_rsa(dir: &Path, stem: &str, names: &[&str]) -> Pair {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    issue_for(&key.expect("a key"), dir, stem, names)
}

fn issue_for(key: &KeyPair, dir: &Path, stem: &str, names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("valid names");
    let subject = names.first().expect("at least one name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.as_str());
    // As public authorities issue them today: scanners complain of what lives longer or says less.
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_hours(24)).into();
    params.not_after = (now + Duration::from_hours(80 * 24)).into();
    let leaf = params.signed_by(key, authority()).expect("a leaf");
    let pair = Pair { chain: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) };
    std::fs::write(&pair.chain, leaf.pem()).expect("the chain is written");
    // As a careful administrator does it; Ravelin warns of keys that everybody can read.
    let _ = std::fs::remove_file(&pair.key);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&pair.key);
    let file = file.as_mut().expect("the key is created");
    file.write_all(key.serialize_pem().as_bytes()).expect("the key is written");
    pair
}
