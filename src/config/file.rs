//! Files that a configuration is read from: regular ones, and no larger than makes sense.
//!
//! A reload happens on the thread that also hears signals. A pipe without a writer, or a device without an
//! end, would hold it there for ever.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// When it cannot be opened, or is a folder, a pipe, a socket or a device.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a pipe waits for its writer.
    let kind = path.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe, a socket or a device, not a file",
        ));
    }
    File::open(path)
}

/// The text of a file of at most `largest` bytes.
///
/// # Errors
/// Those of [`open`] and of reading; `FileTooLarge`; `InvalidData` if it is not UTF-8.
pub fn text(path: &Path, largest: u64) -> io::Result<String> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    let mut text = String::new();
    // Not by its size alone: it may grow while it is read.
    if size > largest || file.take(largest + 1).read_to_string(&mut text)? as u64 > largest {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {largest} bytes"),
        ));
    }
    Ok(text)
}

/// The bytes of a file of at most `largest` bytes.
///
/// # Errors
/// Those of [`open`] and of reading; `FileTooLarge`.
pub fn bytes(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if open(path)?.take(largest + 1).read_to_end(&mut bytes)? as u64 > largest {
        let message = format!("it is larger than {largest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_ordinary_text_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "hello").unwrap();
        std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
        File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let kind = |path: &Path, largest| text(path, largest).unwrap_err().kind();
        assert_eq!(text(&path("good"), 5).unwrap(), "hello");
        assert_eq!(kind(&path("good"), 4), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(&path("huge"), 100), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(&path("binary"), 100), io::ErrorKind::InvalidData);
        assert_eq!(kind(&path("none"), 100), io::ErrorKind::NotFound);
        assert_eq!(kind(folder.path(), 100), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&path("pipe"), 100), io::ErrorKind::InvalidInput);
        assert_eq!(kind(Path::new("/dev/zero"), 100), io::ErrorKind::InvalidInput);
    }
}
