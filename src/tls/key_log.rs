//! Session secrets in a file, for those who look into recorded traffic of their own. Dangerous, and named so.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::KeyLog;

/// Writes secrets as NSS' key log format has them, which Wireshark reads.
pub(super) struct KeyLogFile {
    file: File,
    /// It was said that writing fails.
    failed: AtomicBool,
}

impl KeyLogFile {
    /// Opens the file to append to it; what is not there is made, for its owner alone.
    ///
    /// # Errors
    /// Those of opening; and when it is no regular file, or others than its owner may read it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened: opening a pipe waits for its reader.
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            let message = format!("others than its owner may read it: `chmod 600 {}`", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { file, failed: AtomicBool::new(false) })
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = label.to_owned();
        for part in [client_random, secret] {
            line.push(' ');
            // Writing into a `String` cannot fail.
            for byte in part {
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        // One write for each line, so that those of several workers do not mix.
        if let Err(error) = (&self.file).write_all(line.as_bytes())
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "`danger_key_log_file` cannot be written");
        }
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLogFile").finish_non_exhaustive()
    }
}
