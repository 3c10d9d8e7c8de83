//! What a PEM file holds, judged by its labels: to say what an operator has given instead of what
//! was asked for.

/// What a file that should be PEM holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing at all.
    Empty,
    /// `CERTIFICATE`.
    Certificate,
    /// `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`, readable without a password.
    Key,
    /// A private key that asks for a password (PKCS#8, or the older `Proc-Type: 4,ENCRYPTED`).
    EncryptedKey,
    /// `OPENSSH PRIVATE KEY`.
    OpenSshKey,
    /// `DSA PRIVATE KEY`.
    DsaKey,
    /// `PUBLIC KEY` and the like.
    PublicKey,
    /// `CERTIFICATE REQUEST`.
    Request,
    /// `TRUSTED CERTIFICATE`, OpenSSL's own form.
    TrustedCertificate,
    /// DER or PKCS#12: binary.
    Binary,
    /// Text without any PEM label that is known here.
    Other,
}

/// Every kind of content in `bytes`, in the order of the labels, each once. Never empty.
#[must_use]
pub fn contents(bytes: &[u8]) -> Vec<Content> {
    if bytes.trim_ascii().is_empty() {
        return vec![Content::Empty];
    }
    // An ASN.1 SEQUENCE with a long length: DER and PKCS#12 begin like this, no text does.
    if let [0x30, 0x80..=0x84, ..] = bytes {
        return vec![Content::Binary];
    }
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((label, body)) = next_section(rest) {
        let content = classify(label, body);
        if !found.contains(&content) {
            found.push(content);
        }
        rest = body;
    }
    if found.is_empty() { vec![Content::Other] } else { found }
}

/// The next label, and everything after its line.
fn next_section(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const END: &[u8] = b"-----";
    let start = find(bytes, BEGIN)? + BEGIN.len();
    let after = bytes.get(start..)?;
    let end = find(after, END)?;
    Some((after.get(..end)?, after.get(end + END.len()..)?))
}

fn classify(label: &[u8], body: &[u8]) -> Content {
    match label {
        b"CERTIFICATE" | b"X509 CERTIFICATE" => Content::Certificate,
        b"TRUSTED CERTIFICATE" => Content::TrustedCertificate,
        b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST" => Content::Request,
        b"ENCRYPTED PRIVATE KEY" => Content::EncryptedKey,
        b"OPENSSH PRIVATE KEY" => Content::OpenSshKey,
        b"DSA PRIVATE KEY" => Content::DsaKey,
        b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" if is_encrypted(body) => {
            Content::EncryptedKey
        }
        b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" => Content::Key,
        b"PUBLIC KEY" | b"RSA PUBLIC KEY" => Content::PublicKey,
        _ => Content::Other,
    }
}

/// RFC 1421 header in front of the base64, as OpenSSL's traditional form has it.
fn is_encrypted(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"Proc-Type: 4,ENCRYPTED")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl Content {
    /// What it is, to stand behind "it holds".
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Certificate => "a certificate",
            Self::Key => "a private key",
            Self::EncryptedKey => "a private key that is protected by a password",
            Self::OpenSshKey => "a private key in OpenSSH's own form",
            Self::DsaKey => "a DSA key, which no TLS version in use accepts",
            Self::PublicKey => "a public key",
            Self::Request => "a certificate request (CSR)",
            Self::TrustedCertificate => "a certificate in OpenSSL's own TRUSTED form",
            Self::Binary => "binary data (DER or PKCS#12) instead of PEM text",
            Self::Other => "something that is not PEM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_told_apart() {
        let cases: [(&str, Content); 11] = [
            ("  \n", Content::Empty),
            ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", Content::Certificate),
            ("-----BEGIN PRIVATE KEY-----\nAA==", Content::Key),
            ("-----BEGIN RSA PRIVATE KEY-----\r\nAA==", Content::Key),
            ("-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\n", Content::EncryptedKey),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==", Content::EncryptedKey),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAA==", Content::OpenSshKey),
            ("-----BEGIN PUBLIC KEY-----\nAA==", Content::PublicKey),
            ("-----BEGIN CERTIFICATE REQUEST-----\nAA==", Content::Request),
            ("\x30\u{2}hello", Content::Other),
            ("hello", Content::Other),
        ];
        for (text, content) in cases {
            assert_eq!(contents(text.as_bytes()), [content], "{text:?}");
        }
        assert_eq!(contents(&[0x30, 0x82, 1, 2]), [Content::Binary]);
    }

    #[test]
    fn a_bundle_lists_each_kind_once() {
        let text = "-----BEGIN EC PARAMETERS-----\nAA==\n-----END EC PARAMETERS-----\n\
                    -----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n\
                    -----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n\
                    -----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        assert_eq!(contents(text.as_bytes()), [Content::Other, Content::Key, Content::Certificate]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_have_contents(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!contents(&bytes).is_empty());
        }

        #[test]
        fn a_key_is_found_behind_anything(noise in "[a-zA-Z \n-]{0,100}") {
            let text = format!("x{noise}\n-----BEGIN PRIVATE KEY-----\nAA==\n");
            prop_assert!(contents(text.as_bytes()).contains(&Content::Key) || noise.contains("-----"));
        }
    }
}
