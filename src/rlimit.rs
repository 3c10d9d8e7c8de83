//! The limit of open files, raised as far as this process may.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files may be open; none for as many as one likes.
#[must_use]
pub fn files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open files to the hard one: each request may need two, and systemd's soft
/// limit of 1,024 is kept for programs that use `select`.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
