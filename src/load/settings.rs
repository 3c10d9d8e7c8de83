//! The part of `[limits]` that bounds what is under way at once.

use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::Size;

/// Less than this is no room for anything.
const LEAST_MEMORY: u64 = 32 << 20;

/// What was written; absent keys take their default.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    requests: Option<Placed<u64>>,
    requests_per_client: Option<Placed<u64>>,
    memory: Option<Placed<Text<Size>>>,
}

/// What it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests under way in the whole process, from the end of a head to the last byte of its answer.
    pub requests: usize,
    /// The same for one client: an IPv4 address or an IPv6 network.
    pub requests_per_client: u32,
    /// Bytes of memory that this process may take; none for what the system allows it.
    pub memory: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { requests: 10_000, requests_per_client: 2_000, memory: None }
    }
}

impl Raw {
    /// Reads the keys of this room from `[limits]`. Other rooms read theirs from the same section.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            requests: section.get(reading, "requests"),
            requests_per_client: section.get(reading, "requests_per_client"),
            memory: section.get(reading, "memory"),
        }
    }

    /// Fills in the defaults and complains about limits that nothing could pass.
    pub fn compile(&self, complaints: &mut Complaints) -> Policy {
        let default = Policy::default();
        let mut count = |written: &Option<Placed<u64>>, key| {
            let written = written.as_ref()?;
            if written.value == 0 {
                let hint = "leave the key out for the default".to_owned();
                complaints.error(
                    Some(&written.place),
                    format!("`limits.{key}` = 0 lets nobody in"),
                    Some(hint),
                );
                return None;
            }
            Some(written.value)
        };
        let requests = count(&self.requests, "requests");
        let per_client = count(&self.requests_per_client, "requests_per_client");
        if let Some(written) = self.memory.as_ref().filter(|written| written.value.0.0 < LEAST_MEMORY) {
            let hint = "leave the key out: the limit of the container or of the process is found by itself";
            complaints.error(
                Some(&written.place),
                "`limits.memory` must be 32 MiB or more",
                Some(hint.to_owned()),
            );
        }
        Policy {
            requests: requests.map_or(default.requests, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            requests_per_client: per_client
                .map_or(default.requests_per_client, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            memory: self.memory.as_ref().map(|written| written.value.0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::settings::tests::limits_with;

    fn compile(text: &str) -> (Policy, Complaints) {
        limits_with(text, Raw::read, |raw, complaints| raw.compile(complaints))
    }

    #[test]
    fn what_is_written_is_taken_and_the_rest_is_the_default() {
        let (policy, complaints) = compile("[limits]");
        assert!(complaints.is_empty());
        assert_eq!(policy, Policy::default());
        let (policy, complaints) =
            compile("[limits]\nrequests = 7\nrequests_per_client = 5\nmemory = \"64 MiB\"");
        assert!(complaints.is_empty(), "{complaints}");
        assert_eq!(policy, Policy { requests: 7, requests_per_client: 5, memory: Some(64 << 20) });
    }

    #[test]
    fn impossible_limits_are_named_with_their_line() {
        for (line, want) in [
            ("requests = 0", "`limits.requests` = 0 lets nobody in"),
            ("requests_per_client = 0", "`limits.requests_per_client` = 0 lets nobody in"),
            ("memory = \"1 MiB\"", "`limits.memory` must be 32 MiB or more"),
        ] {
            let (_, complaints) = compile(&format!("[limits]\n{line}"));
            let said = complaints.to_string();
            assert!(
                complaints.has_errors() && said.contains(want) && said.contains("ravelin.toml:2"),
                "{said}"
            );
        }
    }
}
