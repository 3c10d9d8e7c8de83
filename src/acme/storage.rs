//! Where accounts, keys and certificates of ACME are kept: a folder for its owner only, or the shelf of `[state]`.
//!
//! A folder may lie on a network file system that hangs: what is read and written there is on a thread that may wait, not
//! on the one that hears signals and serves metrics.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::state::shelf::{LONGEST_VALUE, Lease};
use crate::state::store::elsewhere;
use crate::state::{Failure, Shelf};

/// Makes drafts differ: one whose writer was given up may still be under way.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// The place.
#[derive(Clone, Debug)]
pub enum Storage {
    /// Files of mode 0600 in a folder of mode 0700.
    Folder(PathBuf),
    /// The store of the bans, which replicas may share.
    Shelf(Shelf),
}

/// The right to order, which one process has at a time.
#[derive(Debug)]
pub(super) enum Hold {
    /// Ends with the process.
    File(#[expect(dead_code, reason = "it is held, and unlocked when it is dropped")] File),
    /// Ends by itself.
    Lease(Lease),
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Shelf(_) => f.write_str("the store of [state]"),
        }
    }
}

impl Storage {
    /// What was kept as `key`.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(key);
                away(move || match read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(said(&path, &error)),
                })
                .await
            }
            Self::Shelf(shelf) => shelf.get(&format!("acme/{key}")).await.map_err(|failure| failure.0),
        }
    }

    /// Keeps `value` as `key`: whole, or not at all.
    pub(super) async fn put(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), String> {
        match self {
            Self::Folder(folder) => {
                let (folder, path, value) = (folder.clone(), folder.join(key), value.to_vec());
                away(move || write(&folder, &path, &value).map_err(|error| said(&path, &error))).await
            }
            Self::Shelf(shelf) => {
                shelf.put(&format!("acme/{key}"), value, life).await.map_err(|failure| failure.0)
            }
        }
    }

    /// Takes `key` out.
    pub(super) async fn remove(&self, key: &str) -> Result<(), String> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(key);
                away(move || match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(said(&path, &error)),
                    _ => Ok(()),
                })
                .await
            }
            Self::Shelf(shelf) => shelf.remove(&format!("acme/{key}")).await.map_err(|failure| failure.0),
        }
    }

    /// The right to order; none while another process has it.
    pub(super) async fn hold(&self, life: Duration) -> Result<Option<Hold>, String> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                away(move || lock(&folder)).await
            }
            Self::Shelf(shelf) => {
                let lease = shelf.lock("acme", life).await.map_err(|failure| failure.0)?;
                Ok(lease.map(Hold::Lease))
            }
        }
    }

    /// Gives the right back.
    pub(super) async fn release(&self, hold: Hold) {
        if let (Self::Shelf(shelf), Hold::Lease(lease)) = (self, hold)
            && let Err(failure) = shelf.unlock(lease).await
        {
            tracing::debug!(%failure, "the right to order ends by itself");
        }
    }
}

/// Runs what blocks on a thread that may.
async fn away<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    elsewhere(move || act().map_err(Failure)).await.map_err(|failure| failure.0)
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn lock(folder: &Path) -> Result<Option<Hold>, String> {
    let path = folder.join("lock");
    let open = || {
        prepare(folder)?;
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)
    };
    let file = open().map_err(|error| said(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Hold::File(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(said(&path, &error)),
    }
}

fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    crate::config::file::open(path)?.take(LONGEST_VALUE as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A draft takes the place of what is there: who reads meanwhile reads the one or the other.
fn write(folder: &Path, path: &Path, value: &[u8]) -> io::Result<()> {
    prepare(folder)?;
    let draft = folder.join(format!(".draft-{}-{}", std::process::id(), DRAFTS.fetch_add(1, Relaxed)));
    // Of a process that had the same number and was killed.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(value)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_for_its_owner_and_one_holds_the_right() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("new/acme");
        let (one, other) = (Storage::Folder(folder.clone()), Storage::Folder(folder.clone()));
        assert_eq!(one.get("a.pem").await.unwrap(), None);
        one.put("a.pem", b"secret", None).await.unwrap();
        assert_eq!(other.get("a.pem").await.unwrap().as_deref(), Some(&b"secret"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("a.pem"))), (0o700, 0o600));
        let hold = one.hold(Duration::from_mins(1)).await.unwrap().expect("nobody has it");
        assert!(other.hold(Duration::from_mins(1)).await.unwrap().is_none());
        one.release(hold).await;
        assert!(other.hold(Duration::from_mins(1)).await.unwrap().is_some());
        other.remove("a.pem").await.unwrap();
        other.remove("a.pem").await.unwrap();
        assert_eq!(one.get("a.pem").await.unwrap(), None);
    }
}
