//! Is the declared body within its limit? What comes without a declaration is counted by [`super::pace`].

use http::header::CONTENT_LENGTH;

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::Size;
use crate::head::Head;
use crate::refusal::{Reason, Refusal};

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    body_size: Option<Placed<Text<Size>>>,
}

/// How large a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes.
    pub body_size: u64,
}

impl Default for Policy {
    /// 256 MiB: TYPO3 has no limit of its own, and editors upload videos.
    fn default() -> Self {
        Self { body_size: 256 << 20 }
    }
}

impl Raw {
    /// Reads `body_size`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { body_size: section.get(reading, "body_size") }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { body_size: specific.body_size.or(self.body_size) }
    }

    /// Where `body_size` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.body_size.as_ref().map(|written| &written.place)
    }

    /// The limit, or the default where none was written. `0 B` allows no body at all.
    pub fn compile(self, _complaints: &mut Complaints) -> Policy {
        self.body_size.map_or_else(Policy::default, |placed| Policy { body_size: placed.value.0.0 })
    }
}

/// Refuses a body that says that it is too large, before a byte of it is read.
pub fn check(policy: &Policy, head: &Head<'_>) -> Result<(), Refusal> {
    match head.get(&CONTENT_LENGTH).and_then(declared) {
        Some(length) if length > policy.body_size => Err(too_large(length, policy.body_size)),
        _ => Ok(()),
    }
}

/// The refusal of `size` bytes where `limit` are allowed.
pub(super) fn too_large(size: u64, limit: u64) -> Refusal {
    Refusal::new(Reason::BodyTooLarge, format!("{size} bytes of body, the limit is {limit}"))
}

/// The number that Content-Length says: digits only, no sign and no list.
pub(super) fn declared(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::guard::testing;

    fn verdict(limit: u64, fields: &[(&str, &str)]) -> Option<Reason> {
        let parts = testing::head("POST", "/", Version::HTTP_11, fields);
        check(&Policy { body_size: limit }, &Head::new(&parts)).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn the_limit_is_inclusive() {
        assert_eq!(verdict(10, &[("content-length", "10")]), None);
        assert_eq!(verdict(10, &[("content-length", "11")]), Some(Reason::BodyTooLarge));
        assert_eq!(verdict(0, &[("content-length", "0")]), None);
        assert_eq!(verdict(0, &[("transfer-encoding", "chunked")]), None);
    }

    #[test]
    fn only_digits_declare_a_length() {
        let declared = |text: &'static str| declared(text.as_bytes());
        assert_eq!(declared("0"), Some(0));
        assert_eq!(declared("18446744073709551615"), Some(u64::MAX));
        for text in ["", "18446744073709551616", "+1", "-1", "1 ", "1,1", "0x1", "1e3"] {
            assert_eq!(declared(text), None, "{text}");
        }
    }

    #[test]
    fn the_policy_is_read() {
        let (raw, complaints) = testing::read("body_size = \"1 MiB\"", Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        let mut complaints = Complaints::default();
        assert_eq!(Raw::default().over(raw).compile(&mut complaints).body_size, 1 << 20);
        assert_eq!(Raw::default().compile(&mut complaints).body_size, 256 << 20);
    }
}
