//! What a certificate says about itself, as far as an operator or a client wants to know it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::extensions::AccessDescription;
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509Extension};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it names, such as `CN=www.example.org`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The DNS names that it is for, in lower case, wildcards included.
    pub names: Vec<Box<str>>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// The kind of its key, such as `RSA 2048` or `ECDSA P-256`.
    pub key_kind: String,
    /// SHA-256 of its public key (SPKI), in hex: what pins use, and what tells two keys apart.
    pub key_fingerprint: String,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Where its issuer's certificate can be fetched (RFC 5280 section 4.2.2.1), over http or https.
    pub issuer_url: Option<Box<str>>,
    /// SHA-256 of the whole certificate, in hex: what browsers show.
    pub fingerprint: String,
}

impl CertificateFacts {
    /// Reads one DER certificate. The error is what the parser says.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let (names, addresses) = alternative_names(&certificate);
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names,
            addresses,
            not_before: instant(certificate.validity().not_before),
            not_after: instant(certificate.validity().not_after),
            key_kind: key_kind(certificate.public_key().parsed().as_ref().ok()),
            key_fingerprint: fingerprint(certificate.public_key().raw),
            is_authority: certificate.is_ca(),
            issuer_url: issuer_url(&certificate),
            fingerprint: fingerprint(der),
        })
    }

    /// Whether it signed itself, judged by the names.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }
}

/// Names of kinds other than DNS and address are of no use to a web server and left out.
fn alternative_names(certificate: &X509Certificate<'_>) -> (Vec<Box<str>>, Vec<IpAddr>) {
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    let extension = certificate.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase().into_boxed_str()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (names, addresses)
}

fn issuer_url(certificate: &X509Certificate<'_>) -> Option<Box<str>> {
    let mut parsed = certificate.extensions().iter().map(X509Extension::parsed_extension);
    let access = parsed.find_map(|extension| match extension {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    })?;
    let of_issuer =
        |what: &&AccessDescription<'_>| what.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
    access.accessdescs.iter().filter(of_issuer).find_map(|what| match &what.access_location {
        GeneralName::URI(url)
            if url.starts_with("http") && url.bytes().all(|b| b.is_ascii_graphic() && b != b'\'') =>
        {
            Some((*url).into())
        }
        _ => None,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn key_kind(key: Option<&PublicKey<'_>>) -> String {
    match key {
        Some(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Some(PublicKey::EC(point)) => format!("ECDSA P-{}", curve_bits(point.key_size())),
        // The parser has no word for Ed25519 (RFC 8410): 32 bytes of an unknown kind.
        Some(PublicKey::Unknown(bytes)) if bytes.len() == 32 => "Ed25519".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// P-521 points are 528 bits when counted in whole bytes.
fn curve_bits(size: usize) -> usize {
    if size > 521 { 521 } else { size }
}

/// SHA-256 in hex, of a DER public key or a certificate.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() else { return String::new() };
    let digest = suite.common.hash_provider.hash(der);
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Dates before 1970 are read as 1970: long expired either way.
pub(super) fn instant(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A date as operators read it, `2026-11-22 15:48 UTC`.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let Some(time) = i64::try_from(seconds).ok().and_then(|s| ASN1Time::from_timestamp(s).ok()) else {
        return "a date beyond reckoning".to_owned();
    };
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", time.hour(), time.minute())
}
