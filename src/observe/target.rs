//! Where lines end up: standard output, standard error, or a file opened for appending.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Readable by the group, so that log shippers need not run as root.
const FILE_MODE: u32 = 0o640;
/// How long to wait before a pipe that somebody made non-blocking is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// An open place to write lines to.
#[derive(Debug)]
pub struct Target {
    file: File,
    /// The name to open it by again; none for the standard streams.
    path: Option<PathBuf>,
    /// The last write stopped within a line, so the next one begins with a line break.
    torn: bool,
}

/// A write that did not succeed.
#[derive(Debug)]
pub struct Fault {
    /// What the system said.
    pub error: io::Error,
    /// Lines that were not written, or only in part.
    pub lines: u64,
}

impl Target {
    /// Standard output, past Rust's own buffer.
    ///
    /// # Errors
    /// When the stream cannot be duplicated.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::stream(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    /// Standard error.
    ///
    /// # Errors
    /// When the stream cannot be duplicated.
    pub fn stderr() -> io::Result<Self> {
        Ok(Self::stream(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }

    /// A file, created if it is not there, never truncated.
    ///
    /// # Errors
    /// When it cannot be opened for appending.
    pub fn file(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, path: Some(path.to_owned()), torn: false })
    }

    fn stream(file: File) -> Self {
        Self { file, path: None, torn: false }
    }

    /// Opens the file by its name again; nothing happens to a standard stream.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = open(path)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes whole lines, waiting for as long as it takes.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Fault> {
        let mut rest = lines;
        let outcome = self.mend().and_then(|()| self.write_rest(&mut rest));
        outcome.map_err(|error| {
            let begun = lines.len() - rest.len();
            if begun > 0 {
                self.torn = lines.get(begun - 1) != Some(&b'\n');
            }
            Fault { error, lines: memchr::memchr_iter(b'\n', rest).count() as u64 }
        })
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.write_rest(&mut &b"\n"[..])?;
            self.torn = false;
        }
        Ok(())
    }

    fn write_rest(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_appended_to_and_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "old\n").unwrap();
        Target::file(&path).unwrap().write(b"new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\nnew\n");
        let fresh = folder.path().join("fresh.log");
        Target::file(&fresh).unwrap();
        assert_eq!(std::fs::metadata(&fresh).unwrap().permissions().mode() & 0o027, 0);
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut target = Target::file(&path).unwrap();
        target.write(b"half of a l").unwrap();
        target.torn = true;
        target.write(b"whole\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half of a l\nwhole\n");
    }

    #[test]
    fn a_full_disk_says_how_many_lines_it_cost() {
        let fault = Target::file(Path::new("/dev/full")).unwrap().write(b"a\nb\nc\n").unwrap_err();
        assert_eq!(fault.lines, 3);
        assert_eq!(fault.error.kind(), io::ErrorKind::StorageFull);
    }
}
