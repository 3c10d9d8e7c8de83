//! Clients with certificates, and the authority that signs and revokes them; made at run time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::certs;

/// An authority for clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A client.
pub(crate) struct Party {
    certificate: rcgen::Certificate,
    key: KeyPair,
    serial: u64,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    /// A client with this name.
    pub(crate) fn client(&self, name: &str, serial: u64) -> Party {
        self.until(name, serial, 2100)
    }

    /// A client whose certificate ends with the year before `year`.
    pub(crate) fn until(&self, name: &str, serial: u64, year: i32) -> Party {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.distinguished_name = named(name);
        params.serial_number = Some(serial.into());
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        Party { certificate: params.signed_by(&key, &self.0).expect("a leaf"), key, serial }
    }

    /// Its certificate as a file.
    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.0.pem()).expect("the authority is written");
        path.to_owned()
    }

    /// A list of those that it revoked, to be replaced in `year`.
    pub(crate) fn revoke(&self, path: &Path, parties: &[&Party], year: i32) -> PathBuf {
        let revoked = |party: &&Party| RevokedCertParams {
            serial_number: SerialNumber::from(party.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: parties.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.0).expect("a list").pem().expect("PEM");
        std::fs::write(path, pem).expect("the list is written");
        path.to_owned()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::OrganizationName, "Example");
    all.push(DnType::CommonName, name);
    all
}

impl Party {
    /// Settings of a client that shows this certificate, and keeps its sessions.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let chain = vec![self.certificate.der().clone()];
        let builder = ClientConfig::builder().with_root_certificates(roots());
        Arc::new(builder.with_client_auth_cert(chain, key).expect("the key fits"))
    }

    /// The certificate and its key as files for curl and openssl.
    pub(crate) fn write(&self, dir: &Path, stem: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
        std::fs::write(&chain, self.certificate.pem()).expect("the certificate is written");
        std::fs::write(&key, self.key.serialize_pem()).expect("the key is written");
        (chain, key)
    }
}

/// Settings of a client without a certificate.
pub(crate) fn nobody() -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots()).with_no_client_auth())
}

/// The same, of a client that speaks one version only.
pub(crate) fn speaking(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_protocol_versions(&[version]);
    Arc::new(builder.with_root_certificates(roots()).with_no_client_auth())
}

fn roots() -> RootCertStore {
    use rustls::pki_types::pem::PemObject as _;
    let authority = rustls::pki_types::CertificateDer::from_pem_slice(certs::authority_pem().as_bytes());
    let mut roots = RootCertStore::empty();
    roots.add(authority.expect("PEM")).expect("a certificate");
    roots
}
