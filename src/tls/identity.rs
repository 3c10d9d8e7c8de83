//! Whom a verified client certificate names, in the fields that the origin gets.

use std::fmt::Write as _;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate, X509Name};

use super::x509::{fingerprint, instant};

/// A name that is longer is not passed on, and its bearer not served: cut, it would be another name.
const LONGEST_NAME: usize = 4096;
/// A certificate whose text is longer is left out: Apache takes fields of up to 8190 bytes.
const LONGEST_CERTIFICATE: usize = 8000;

/// A field for the origin: its name in lower case, with its value.
pub type Field = (&'static str, Box<str>);

/// What the origin is told of a client that was asked for a certificate and showed none.
#[must_use]
pub fn anonymous() -> &'static [Field] {
    static FIELDS: std::sync::LazyLock<[Field; 1]> =
        std::sync::LazyLock::new(|| [("x-client-cert-verify", "none".into())]);
    &*FIELDS
}

/// A client, as its verified certificate tells.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    /// Until when the certificate is valid.
    pub not_after: SystemTime,
    /// Whom it names (RFC 4514).
    pub subject: Box<str>,
    fields: Vec<Field>,
}

impl Identity {
    /// Reads the first certificate of a chain that was verified.
    ///
    /// # Errors
    /// What cannot be told to an origin; such a client is not served.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let leaf = chain.first().ok_or("the client's chain is empty")?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let subject = name(certificate.subject())?;
        let issuer = name(certificate.issuer())?;
        let mut fields: Vec<Field> = vec![
            ("x-client-cert-verify", "success".into()),
            ("x-client-cert-subject", subject.clone()),
            ("x-client-cert-issuer", issuer),
            ("x-client-cert-serial", hex(certificate.raw_serial()).into()),
            ("x-client-cert-fingerprint", fingerprint(leaf).into()),
        ];
        let whole = format!(":{}:", base64(leaf));
        if whole.len() <= LONGEST_CERTIFICATE {
            fields.push(("client-cert", whole.into()));
        }
        let not_after = instant(certificate.validity().not_after);
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Ok(Self { chain, not_after, subject, fields })
    }

    /// The certificate, and those that came with it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What the origin is told.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02X}"))
}

/// Standard base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, usize::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * at) & 63).copied().unwrap_or_default();
            text.push(if at > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// A distinguished name in the one form of RFC 4514: last part first, everything special escaped, so that no part
/// can pass for two. Only visible ASCII and blanks.
fn name(name: &X509Name<'_>) -> Result<Box<str>, String> {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut out = String::new();
    for (at, part) in parts.into_iter().rev().enumerate() {
        if at > 0 {
            out.push(',');
        }
        for (at, pair) in part.iter().enumerate() {
            if at > 0 {
                out.push('+');
            }
            attribute(pair, &mut out);
        }
        if out.len() > LONGEST_NAME {
            return Err("a name in the client's certificate is too long".to_owned());
        }
    }
    Ok(out.into())
}

/// Names by RFC 4514 section 3 and, beyond it, OpenSSL's for mail addresses and serial numbers of people.
const KINDS: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
];

fn attribute(pair: &AttributeTypeAndValue<'_>, out: &mut String) {
    let oid = pair.attr_type().to_id_string();
    let kind = KINDS.iter().find(|(known, _)| *known == oid).map(|(_, kind)| *kind);
    out.push_str(kind.unwrap_or(&oid));
    out.push('=');
    if let (Some(_), Ok(text)) = (kind, pair.as_str()) {
        return escaped(text, out);
    }
    // Section 2.4: what has no known text is told by its BER encoding.
    out.push('#');
    out.push_str(&hex(&pair.attr_value().to_der_vec().unwrap_or_default()));
}

/// RFC 4514 section 2.4.
fn escaped(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' | b'#' if at == 0 => out.extend(['\\', char::from(byte)]),
            b' ' if at == last => out.push_str("\\ "),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            // Writing into a `String` cannot fail.
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn identity(name: DistinguishedName) -> Result<Identity, String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = name;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x0a, 0xff]));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::read(&[certificate.der().clone()])
    }

    fn named(common: &str) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Example");
        name.push(DnType::CommonName, common);
        name
    }

    fn field<'i>(identity: &'i Identity, name: &str) -> &'i str {
        &identity.fields().iter().find(|(known, _)| *known == name).expect(name).1
    }

    #[test]
    fn the_fields_tell_the_certificate() {
        let identity = identity(named("anna")).unwrap();
        assert_eq!(&*identity.subject, "CN=anna,O=Example,C=DE");
        assert_eq!(field(&identity, "x-client-cert-verify"), "success");
        assert_eq!(field(&identity, "x-client-cert-issuer"), "CN=anna,O=Example,C=DE");
        assert_eq!(field(&identity, "x-client-cert-serial"), "0AFF");
        assert_eq!(field(&identity, "x-client-cert-fingerprint").len(), 64);
        assert_eq!(
            field(&identity, "client-cert"),
            format!(":{}:", base64(&identity.chain()[0])),
            "RFC 9440"
        );
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{3fe}\u{3ff}", "z77Pvw=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn no_part_of_a_name_passes_for_two() {
        for (common, told) in [
            ("a,O=Admins", "CN=a\\,O\\=Admins,O=Example,C=DE"),
            ("a+OU=x", "CN=a\\+OU\\=x,O=Example,C=DE"),
            ("#1 ", "CN=\\#1\\ ,O=Example,C=DE"),
            ("M\u{fc}ller\r\nX: y", "CN=M\\C3\\BCller\\0D\\0AX: y,O=Example,C=DE"),
            ("\\", "CN=\\\\,O=Example,C=DE"),
        ] {
            assert_eq!(&*identity(named(common)).unwrap().subject, told, "{common:?}");
        }
        assert!(identity(named(&"x".repeat(5000))).unwrap_err().contains("too long"));
    }

    proptest! {
        /// Whatever a name holds, its text is a field value and can be read back in one way only.
        #[test]
        fn names_are_told_apart(one in "\\PC{1,20}", other in "\\PC{1,20}") {
            let text = |value: &str| { let mut out = String::new(); escaped(value, &mut out); out };
            prop_assert!(text(&one).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(text(&one) == text(&other), one == other);
        }
    }
}
