//! What `ravelin explain` prints about a header: the rule in words and the line that decides.

use crate::config::complaint::Place;

/// One decided header.
#[derive(Clone, Debug)]
pub struct Said {
    /// The header as the configuration spells it.
    pub header: String,
    /// The rule in words: `set "SAMEORIGIN"`, `unset`, `append "x" for status 404`.
    pub rule: String,
    /// The configuration line that decides.
    pub place: Place,
}
