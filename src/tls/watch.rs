//! Notices that certificates on the disk have changed, and waits until whoever writes them is done.
//!
//! It asks for the state of each file instead of being told by the kernel: that also holds on NFS, on overlays and
//! where a link far above is swapped, as Kubernetes and certbot do it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::folder;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A file, or what a link leads to.
    File(PathBuf),
    /// The certificates in a folder.
    Folder(PathBuf),
}

/// The state of everything that is watched: path, inode, length, and the times of content and of inode. A copy that
/// keeps its old date has another time of inode.
pub type Snapshot = Vec<(PathBuf, Option<[i64; 6]>)>;

/// Takes the state of `all`. Reads metadata and the names in folders; of a `.pem` without key beside it, the content.
#[must_use]
pub fn snapshot(all: &[Watched]) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for watched in all {
        match watched {
            Watched::File(path) => snapshot.push(state(path.clone())),
            Watched::Folder(path) => {
                let found = folder::look(path).unwrap_or_default();
                let files =
                    found.pairs.into_iter().flat_map(|(chain, key)| [chain, key]).chain(found.keyless);
                snapshot.extend(files.map(state));
            }
        }
    }
    snapshot
}

#[expect(clippy::cast_possible_wrap, reason = "only compared with its like")]
fn state(path: PathBuf) -> (PathBuf, Option<[i64; 6]>) {
    let metadata = fs::metadata(&path).ok();
    let of = metadata
        .map(|m| [m.ino() as i64, m.len() as i64, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()]);
    (path, of)
}

/// When the content, the name or the rights of a file changed last.
fn changed([.., seconds, nanoseconds]: [i64; 6]) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let rest = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(seconds + rest).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What was seen so far.
#[derive(Debug)]
pub struct Watch {
    read_at: SystemTime,
    loaded: Option<Snapshot>,
    restless: Option<Snapshot>,
}

impl Watch {
    /// Of what was read at that time.
    #[must_use]
    pub fn since(read_at: SystemTime) -> Self {
        Self { read_at, loaded: None, restless: None }
    }

    /// Takes a look. True if something has changed and has been quiet since the look before: a chain and its key are
    /// two files, and between the two writes they are a broken pair.
    pub fn settled(&mut self, seen: Snapshot) -> bool {
        let Some(loaded) = &self.loaded else {
            // What has changed meanwhile may not be what was read.
            let late = seen.iter().any(|(_, state)| state.is_some_and(|state| changed(state) > self.read_at));
            self.loaded = Some(if late { Snapshot::new() } else { seen });
            return false;
        };
        if *loaded == seen {
            self.restless = None;
            return false;
        }
        let quiet = self.restless.as_ref() == Some(&seen);
        if quiet {
            self.restless = None;
            self.loaded = Some(seen);
        } else {
            self.restless = Some(seen);
        }
        quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_change_is_told_once_and_only_when_it_is_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("www.pem");
        let all = [Watched::File(file.clone()), Watched::Folder(folder.path().to_owned())];
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::since(clock::wall() + Duration::from_secs(1));
        assert!(!watch.settled(snapshot(&all)) && !watch.settled(snapshot(&all)));
        fs::write(&file, "other").unwrap();
        assert!(!watch.settled(snapshot(&all)), "it may still be written to");
        fs::write(folder.path().join("www.key"), "key").unwrap();
        assert!(!watch.settled(snapshot(&all)), "it was written to");
        assert!(watch.settled(snapshot(&all)));
        assert!(!watch.settled(snapshot(&all)), "told once");
        fs::remove_file(&file).unwrap();
        assert!(!watch.settled(snapshot(&all)));
        assert!(watch.settled(snapshot(&all)), "a file that goes is a change");
    }

    #[test]
    fn what_was_replaced_after_it_was_read_is_a_change() {
        let at = |changed| vec![(PathBuf::from("a"), Some([1, 1, 0, 0, changed, 0]))];
        let read_at = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        for (changed, told) in [(99, false), (101, true)] {
            let mut watch = Watch::since(read_at);
            assert!(!watch.settled(at(changed)) && !watch.settled(at(changed)));
            assert_eq!(watch.settled(at(changed)), told);
            assert!(!watch.settled(at(changed)), "told once");
        }
    }

    #[test]
    fn what_was_taken_back_is_no_change() {
        let at = |size| vec![(PathBuf::from("a"), Some([1, size, 0, 0, 0, 0]))];
        let mut watch = Watch::since(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert!(
            !watch.settled(at(1)) && !watch.settled(at(2)) && !watch.settled(at(1)) && !watch.settled(at(2))
        );
    }
}
