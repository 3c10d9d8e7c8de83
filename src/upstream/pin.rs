//! The fingerprint of a public key: SHA-256 over its `SubjectPublicKeyInfo` (as in RFC 7469).

use std::fmt;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use crate::config::section::{Fault, FromText};

/// One pinned key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin([u8; 32]);

const HINT: &str = "write the 44 base64 characters that `openssl x509 -pubkey -noout -in cert.pem | \
    openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64` prints, or 64 hex digits";

impl Pin {
    /// The pin of a DER-encoded `SubjectPublicKeyInfo`.
    #[must_use]
    pub(super) fn of(public_key: &[u8]) -> Self {
        let mut pin = [0; 32];
        // The suite's hash is SHA-256; taking it from there saves a crate of its own.
        if let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() {
            let hash = suite.common.hash_provider.hash(public_key);
            pin.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        }
        Self(pin)
    }
}

impl fmt::Display for Pin {
    /// Hexadecimal, one of the two forms in which a pin is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromText for Pin {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let bare = text.strip_prefix("sha256//").unwrap_or(text).trim();
        let read = if bare.len() == 64 { hex(bare) } else { base64(bare) };
        let pin = read.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        pin.map(Self).ok_or_else(|| Fault::new(format!("`{text}` is not a SHA-256 pin"), HINT))
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |value, digit| value * 16 + digit))
        .map(|byte| u8::try_from(byte).ok())
        .collect()
}

/// Standard base64 (RFC 4648 section 4), padding optional, surplus bits zero.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0_u32, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|a| *a == byte)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SHA-256 of nothing, a value known everywhere.
    const EMPTY_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn both_forms_of_the_same_pin() {
        let pin = Pin::of(b"");
        for text in [EMPTY_HEX, EMPTY_BASE64, EMPTY_BASE64.trim_end_matches('='), &EMPTY_HEX.to_uppercase()] {
            assert_eq!(Pin::from_text(text).unwrap(), pin, "{text}");
        }
        assert_eq!(Pin::from_text(&format!("sha256//{EMPTY_BASE64}")).unwrap(), pin);
        assert_eq!(pin.to_string(), EMPTY_HEX);
    }

    #[test]
    fn anything_else_is_refused_with_the_command_to_type() {
        for text in
            ["", "abc", &EMPTY_HEX[..63], &EMPTY_BASE64[..40], "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="]
        {
            assert!(Pin::from_text(text).unwrap_err().hint.unwrap().contains("openssl"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hex_round_trips(key: Vec<u8>) {
            let pin = Pin::of(&key);
            prop_assert_eq!(Pin::from_text(&pin.to_string()), Ok(pin));
        }

        #[test]
        fn never_panics(text: String) {
            let _ = Pin::from_text(&text);
        }
    }
}
