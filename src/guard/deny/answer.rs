//! How a closed path is answered: as if there were nothing, or with a plain no.

use http::StatusCode;

use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section};

/// What one layer wrote as `closed_answer`.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    status: Option<Placed<u64>>,
}

impl Raw {
    /// Reads `closed_answer`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { status: section.get(reading, "closed_answer") }
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { status: specific.status.or(self.status) }
    }

    /// 404 unless 403 was written.
    pub fn compile(self, complaints: &mut Complaints) -> StatusCode {
        match self.status {
            None | Some(Placed { value: 404, .. }) => StatusCode::NOT_FOUND,
            Some(Placed { value: 403, .. }) => StatusCode::FORBIDDEN,
            Some(other) => {
                let message = format!("`closed_answer` is {}: it can be 404 or 403", other.value);
                let hint =
                    "404 does not tell whether the file is there; 403 is what TYPO3's .htaccess answers";
                complaints.error(Some(&other.place), message, Some(hint.to_owned()));
                StatusCode::NOT_FOUND
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    #[test]
    fn a_closed_path_is_answered_with_404_or_403() {
        for (text, status, wrong) in [
            ("", 404, false),
            ("closed_answer = 404", 404, false),
            ("closed_answer = 403", 403, false),
            ("closed_answer = 200", 404, true),
        ] {
            let (raw, mut complaints) = testing::read(text, Raw::read);
            assert_eq!(raw.compile(&mut complaints), status, "{text}");
            assert_eq!(complaints.has_errors(), wrong, "{text}");
        }
    }
}
