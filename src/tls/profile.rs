//! Which TLS a listener speaks: a policy by name, and finer words for those who need them.

use std::path::PathBuf;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::policy::{self, SUITES};
use crate::config::complaint::{Complaints, Place, did_you_mean};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;

/// What was written in a `[[listen]]`.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    policy: Option<Placed<Text<Named>>>,
    versions: Option<Placed<Vec<Placed<Text<Version>>>>>,
    suites: Option<Placed<Vec<Placed<Text<Suite>>>>>,
    groups: Option<Placed<Vec<Placed<Text<Group>>>>>,
    key_log: Option<Placed<PathBuf>>,
}

/// Which TLS is spoken.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The newest first.
    versions: Vec<Version>,
    /// In our order: the client's wishes do not matter.
    suites: Vec<SupportedCipherSuite>,
    /// In our order.
    groups: Vec<&'static dyn SupportedKxGroup>,
    /// Where session secrets are written, which lays every connection open.
    pub key_log: Option<PathBuf>,
}

/// A version of TLS. Older ones are broken (RFC 8996) and not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.3 (RFC 8446).
    Tls13,
    /// TLS 1.2 (RFC 5246).
    Tls12,
}

/// A policy with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Mozilla's "intermediate": TLS 1.3 and 1.2, forward secrecy and authenticated encryption.
    Intermediate,
    /// Mozilla's "modern": TLS 1.3 only.
    Modern,
    /// TLS 1.3, and 1.2 with AES-GCM: the suites of AWS' `TLS13-1-2-Res` that authenticate.
    Restricted,
    /// TLS 1.2 only, with AES-GCM.
    Old,
}

/// AWS' names for the security policies of its load balancers that can be kept here: what they add in CBC suites is
/// left out.
const AWS: [(&str, Named); 8] = [
    ("ELBSecurityPolicy-TLS13-1-3-2021-06", Named::Modern),
    ("ELBSecurityPolicy-TLS13-1-3-PQ-2025-09", Named::Modern),
    ("ELBSecurityPolicy-TLS13-1-2-2021-06", Named::Restricted),
    ("ELBSecurityPolicy-TLS13-1-2-PQ-2025-09", Named::Restricted),
    ("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", Named::Restricted),
    ("ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09", Named::Restricted),
    ("ELBSecurityPolicy-FS-1-2-Res-2020-10", Named::Old),
    ("ELBSecurityPolicy-FS-1-2-Res-2019-08", Named::Old),
];

const AWS_PREFIX: &str = "ELBSecurityPolicy-";

/// A cipher suite that is offered.
#[derive(Clone, Copy, Debug)]
struct Suite(SupportedCipherSuite);

/// A group for the key exchange.
#[derive(Clone, Copy, Debug)]
struct Group(&'static dyn SupportedKxGroup);

impl Version {
    fn rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls13 => &rustls::version::TLS13,
            Self::Tls12 => &rustls::version::TLS12,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Tls13 => "1.3",
            Self::Tls12 => "1.2",
        }
    }

    fn has(self, suite: SupportedCipherSuite) -> bool {
        suite.version().version == self.rustls().version
    }
}

impl Named {
    fn versions(self) -> Vec<Version> {
        match self {
            Self::Intermediate | Self::Restricted => vec![Version::Tls13, Version::Tls12],
            Self::Modern => vec![Version::Tls13],
            Self::Old => vec![Version::Tls12],
        }
    }

    fn has(self, name: &str, suite: SupportedCipherSuite) -> bool {
        let gcm_only = matches!(self, Self::Restricted | Self::Old) && Version::Tls12.has(suite);
        !gcm_only || name.contains("_GCM_")
    }
}

impl FromText for Named {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if let Some((_, named)) = AWS.iter().find(|(name, _)| *name == text) {
            return Ok(*named);
        }
        if let Some(rest) = text.strip_prefix(AWS_PREFIX) {
            return Err(not_kept(text, rest));
        }
        choice(text, &[("intermediate", Self::Intermediate), ("modern", Self::Modern)]).map_err(|fault| Fault {
            hint: Some("`intermediate`, `modern`, or a name of AWS' such as `ELBSecurityPolicy-TLS13-1-2-Res-2021-06`: docs/tls.md has them all".to_owned()),
            ..fault
        })
    }
}

/// Why a policy of AWS' is not kept, and which one is nearest.
fn not_kept(whole: &str, rest: &str) -> Fault {
    const NEAREST: &str =
        "write `tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-2021-06\"`, or `\"intermediate\"`";
    let begins = |words: &[&str]| words.iter().any(|word| rest.starts_with(word));
    let why = if rest.contains("FIPS") {
        "promises a FIPS-validated module, and this is none"
    } else if begins(&[
        "2016-08",
        "2015",
        "TLS-1-0",
        "TLS-1-1",
        "TLS13-1-0",
        "TLS13-1-1",
        "FS-2018",
        "FS-1-1",
    ]) {
        "speaks TLS 1.0 or 1.1, which are broken (RFC 8996) and not spoken here"
    } else if begins(&["TLS13-1-2-Ext", "TLS-1-2", "FS-1-2-2019"]) {
        "is for clients that know CBC suites or a key exchange without forward secrecy only, and neither is offered here"
    } else {
        let message = format!("`{whole}` is not a security policy that is known here");
        let near = did_you_mean(whole, AWS.iter().map(|(name, _)| *name));
        return Fault::new(message, near.unwrap_or_else(|| NEAREST.to_owned()));
    };
    Fault::new(format!("`{whole}` {why}"), NEAREST)
}

impl FromText for Version {
    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "1.0" | "1.1" => Err(Fault::new(
                format!("TLS {text} is broken (RFC 8996) and not spoken"),
                "write `tls_versions = [\"1.2\", \"1.3\"]`; every browser since 2014 knows 1.2",
            )),
            _ => choice(text, &[("1.2", Self::Tls12), ("1.3", Self::Tls13)]),
        }
    }
}

impl FromText for Suite {
    /// By its IANA name or by OpenSSL's.
    fn from_text(text: &str) -> Result<Self, Fault> {
        let found = SUITES.iter().find(|(_, name)| *name == text || openssl_name(name) == text);
        found.map(|(suite, _)| Self(*suite)).ok_or_else(|| {
            let near = did_you_mean(text, SUITES.iter().map(|(_, name)| *name));
            let all = || SUITES.map(|(_, name)| name).join(", ");
            Fault::new(
                format!("`{text}` is not offered: only forward secrecy with authenticated encryption is"),
                near.unwrap_or_else(|| format!("there are: {}", all())),
            )
        })
    }
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256` to OpenSSL, nginx and AWS; the suites of
/// TLS 1.3 have one name.
fn openssl_name(name: &str) -> String {
    if !name.contains("_WITH_") {
        return name.to_owned();
    }
    let name = name.trim_start_matches("TLS_").replace("_WITH_", "_").replace("AES_", "AES");
    // OpenSSL leaves the hash of ChaCha20 out.
    name.replace("POLY1305_SHA256", "POLY1305").replace('_', "-")
}

impl FromText for Group {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let words: [(&str, &'static dyn SupportedKxGroup); 9] = [
            ("X25519MLKEM768", kx_group::X25519MLKEM768),
            ("SecP256r1MLKEM768", kx_group::SECP256R1MLKEM768),
            ("X25519", kx_group::X25519),
            ("P-256", kx_group::SECP256R1),
            ("P-384", kx_group::SECP384R1),
            ("secp256r1", kx_group::SECP256R1),
            ("prime256v1", kx_group::SECP256R1),
            ("secp384r1", kx_group::SECP384R1),
            ("x25519", kx_group::X25519),
        ];
        choice(text, &words).map(Self)
    }
}

impl Raw {
    /// Reads the keys of a `[[listen]]`; the caller closes the section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            policy: section.get(reading, "tls_policy"),
            versions: section.get(reading, "tls_versions"),
            suites: section.get(reading, "tls_suites"),
            groups: section.get(reading, "tls_groups"),
            key_log: section.get(reading, "danger_key_log_file"),
        }
    }

    /// Every key that was written, for a listener that speaks no TLS.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let policy = self.policy.as_ref().map(|written| ("tls_policy", &written.place));
        let versions = self.versions.as_ref().map(|written| ("tls_versions", &written.place));
        let suites = self.suites.as_ref().map(|written| ("tls_suites", &written.place));
        let groups = self.groups.as_ref().map(|written| ("tls_groups", &written.place));
        let key_log = self.key_log.as_ref().map(|written| ("danger_key_log_file", &written.place));
        [policy, versions, suites, groups, key_log].into_iter().flatten()
    }

    /// What it means. A version for which no suite was named keeps those of the policy.
    pub fn compile(&self, complaints: &mut Complaints) -> Profile {
        let named = self.policy.as_ref().map_or(Named::Intermediate, |policy| policy.value.0);
        let mut profile = Profile::of(named);
        if let Some(written) = &self.versions {
            let is_written = |version: &Version| written.value.iter().any(|one| one.value.0 == *version);
            profile.versions = [Version::Tls13, Version::Tls12].into_iter().filter(is_written).collect();
            if profile.versions.is_empty() {
                not_empty(written, "tls_versions", complaints);
                profile.versions = named.versions();
            }
        }
        profile.suites = self.suites(named, &profile.versions, complaints);
        if let Some(written) = &self.key_log {
            let message = format!(
                "the secrets of every connection of this listener are written to {}: whoever reads it reads all traffic, \
                 passwords included",
                written.value.display()
            );
            let hint = "take the line out as soon as you have seen what you wanted to see".to_owned();
            complaints.warning(Some(&written.place), message, Some(hint));
            profile.key_log = Some(written.value.clone());
        }
        if let Some(written) = &self.groups {
            profile.groups = written.value.iter().map(|group| group.value.0.0).collect();
            if profile.groups.is_empty() {
                not_empty(written, "tls_groups", complaints);
                profile.groups = groups();
            }
            for version in &profile.versions {
                let usable =
                    |group: &&dyn SupportedKxGroup| group.usable_for_version(version.rustls().version);
                if !profile.groups.iter().any(usable) {
                    let message = format!("none of these groups can be used with TLS {}", version.word());
                    let hint = "add `X25519` and `P-256`, which every client knows".to_owned();
                    complaints.error(Some(&written.place), message, Some(hint));
                }
            }
        }
        profile
    }

    fn suites(
        &self,
        named: Named,
        versions: &[Version],
        complaints: &mut Complaints,
    ) -> Vec<SupportedCipherSuite> {
        let offered = SUITES.iter().filter(|(suite, name)| named.has(name, *suite)).map(|(suite, _)| *suite);
        let usual: Vec<_> = offered.collect();
        let written = self.suites.as_ref().map(|written| &written.value[..]).unwrap_or_default();
        if let Some(empty) = self.suites.as_ref().filter(|list| list.value.is_empty()) {
            not_empty(empty, "tls_suites", complaints);
        }
        for suite in written {
            if !versions.iter().any(|version| version.has(suite.value.0.0)) {
                let message = format!(
                    "`{}` belongs to a version of TLS that this listener does not speak",
                    policy::suite_name(suite.value.0.0.suite())
                );
                let hint = "see `tls_policy` and `tls_versions` of this listener".to_owned();
                complaints.error(Some(&suite.place), message, Some(hint));
            }
        }
        let of = |version: &Version| {
            let own: Vec<_> =
                written.iter().map(|suite| suite.value.0.0).filter(|suite| version.has(*suite)).collect();
            let usual = || usual.iter().copied().filter(|suite| version.has(*suite)).collect();
            if own.is_empty() { usual() } else { own }
        };
        versions.iter().flat_map(of).collect()
    }
}

/// An empty list offers nothing. Where its elements could not be read, they have been complained about.
fn not_empty<T>(written: &Placed<T>, key: &str, complaints: &mut Complaints) {
    if !complaints.has_errors() {
        let hint = "leave the key out for what `tls_policy` says".to_owned();
        complaints.error(Some(&written.place), format!("`{key}` is an empty list"), Some(hint));
    }
}

/// Post-quantum first: with X25519 beside it, it is never weaker.
fn groups() -> Vec<&'static dyn SupportedKxGroup> {
    vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]
}

impl Profile {
    fn of(named: Named) -> Self {
        let versions = named.versions();
        let suites = SUITES.iter().filter(|(suite, name)| named.has(name, *suite)).map(|(suite, _)| *suite);
        let suites = suites.filter(|suite| versions.iter().any(|version| version.has(*suite))).collect();
        Self { versions, suites, groups: groups(), key_log: None }
    }

    /// The cryptography behind TLS, narrowed to what is offered.
    #[must_use]
    pub fn provider(&self) -> CryptoProvider {
        CryptoProvider {
            cipher_suites: self.suites.clone(),
            kx_groups: self.groups.clone(),
            ..rustls::crypto::aws_lc_rs::default_provider()
        }
    }

    /// The versions as rustls takes them.
    #[must_use]
    pub fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        self.versions.iter().map(|version| version.rustls()).collect()
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::of(Named::Intermediate)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;
    use crate::listen::settings::tests::read_with;

    fn compile(text: &str) -> (Profile, String) {
        let (profile, complaints) =
            read_with(text, |root, reading| Raw::read(root, reading).compile(&mut reading.complaints));
        (profile, complaints.to_string())
    }

    fn names(profile: &Profile) -> Vec<&'static str> {
        profile.suites.iter().map(|suite| policy::suite_name(suite.suite())).collect()
    }

    #[test]
    fn policies_say_versions_and_suites() {
        for (text, versions, suites) in [
            ("", &["1.3", "1.2"][..], 9),
            ("tls_policy = \"intermediate\"", &["1.3", "1.2"], 9),
            ("tls_policy = \"modern\"", &["1.3"], 3),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09\"", &["1.3", "1.2"], 7),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-3-2021-06\"", &["1.3"], 3),
            ("tls_policy = \"ELBSecurityPolicy-FS-1-2-Res-2020-10\"", &["1.2"], 4),
            ("tls_versions = [\"1.2\"]", &["1.2"], 6),
            ("tls_versions = \"1.3\"", &["1.3"], 3),
        ] {
            let (profile, said) = compile(text);
            assert_eq!(said, "", "{text}");
            let words: Vec<_> = profile.versions.iter().map(|version| version.word()).collect();
            assert_eq!((&words[..], profile.suites.len()), (versions, suites), "{text}");
        }
    }

    #[test]
    fn suites_are_named_as_in_rfcs_or_as_in_openssl_and_keep_their_order() {
        let (profile, said) = compile(
            "tls_suites = [\"ECDHE-RSA-AES256-GCM-SHA384\", \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\", \
             \"ECDHE-ECDSA-CHACHA20-POLY1305\", \"TLS_CHACHA20_POLY1305_SHA256\"]\ntls_groups = [\"P-384\", \"x25519\"]",
        );
        assert_eq!(said, "");
        let want = [
            "TLS_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ];
        assert_eq!(names(&profile), want);
        let groups: Vec<_> = profile.groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
        let (profile, _) = compile("tls_suites = [\"ECDHE-RSA-AES128-GCM-SHA256\"]");
        assert_eq!(names(&profile).len(), 4, "TLS 1.3, for which none was named, keeps its own");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_reason() {
        for (text, why) in [
            ("tls_policy = \"ELBSecurityPolicy-2016-08\"", "TLS 1.0 or 1.1"),
            ("tls_policy = \"ELBSecurityPolicy-TLS-1-1-2017-01\"", "TLS 1.0 or 1.1"),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-0-2021-06\"", "TLS 1.0 or 1.1"),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06\"", "without forward secrecy"),
            ("tls_policy = \"ELBSecurityPolicy-TLS-1-2-2017-01\"", "without forward secrecy"),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-FIPS-2023-04\"", "FIPS-validated"),
            ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-2021-60\"", "did you mean"),
            ("tls_policy = \"moderm\"", "`intermediate`, `modern`"),
            ("tls_versions = [\"1.1\", \"1.2\"]", "RFC 8996"),
            ("tls_versions = []", "an empty list"),
            ("tls_suites = []", "an empty list"),
            ("tls_groups = []", "an empty list"),
            ("tls_suites = [\"AES128-SHA\"]", "only forward secrecy with authenticated encryption"),
            ("tls_versions = [\"1.3\"]\ntls_suites = [\"ECDHE-RSA-AES128-GCM-SHA256\"]", "does not speak"),
            ("tls_groups = [\"X25519MLKEM768\"]", "can be used with TLS 1.2"),
            ("tls_groups = [\"brainpool\"]", "`X25519`"),
        ] {
            let (_, said) = compile(text);
            assert!(said.contains("error: ") && said.contains(why), "{text}: {said}");
        }
    }

    /// Every profile that passes is one that rustls takes.
    #[test]
    fn rustls_takes_every_policy() {
        let policy = super::super::Policy::new().unwrap();
        for text in [
            "",
            "tls_policy = \"modern\"",
            "tls_policy = \"ELBSecurityPolicy-FS-1-2-Res-2020-10\"",
            "tls_groups = \"P-256\"",
        ] {
            let (profile, said) = compile(text);
            assert_eq!(said, "");
            policy
                .server_config(
                    Arc::new(ResolvesServerCertUsingSni::new()),
                    &profile,
                    &crate::tls::clients::Policy::off(),
                )
                .unwrap();
        }
    }
}
