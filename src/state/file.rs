//! Bans in a file of this process: an embedded database that survives being killed at any moment.
//!
//! Each row is the line of one change that still means something. Everything here blocks; the keeper runs it on a
//! thread that may.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    StorageError, TableDefinition, WriteTransaction,
};

use super::{Failure, line, over};
use crate::bans::Change;
use crate::clock::Millis;

/// What a change is about, and its line.
const ROWS: TableDefinition<'_, &str, &str> = TableDefinition::new("changes");
/// More rows are not kept: those that are over first go. About 60 MB.
const ROWS_MAX: u64 = 250_000;
/// What the database may keep of the file in memory, bytes.
const CACHE: usize = 4 << 20;

/// An open file.
#[derive(Debug)]
pub struct File {
    database: Database,
    /// Where a file that could not be used was put.
    pub set_aside: Option<PathBuf>,
}

/// Why a file cannot be used.
enum Broken {
    /// It is not what we wrote.
    Corrupt(String),
    Other(Failure),
}

impl File {
    /// Opens the file, or makes it, readable for its owner alone. One that is damaged is set aside, and an empty one
    /// takes its place.
    ///
    /// # Errors
    /// When another process has it, or the system refuses it.
    pub fn open(path: &Path, now: Millis) -> Result<Self, Failure> {
        let why = match open(path) {
            Ok(database) => return Ok(Self { database, set_aside: None }),
            Err(Broken::Other(failure)) => return Err(failure),
            Err(Broken::Corrupt(why)) => why,
        };
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".corrupt-{}", now.0 / 1000));
        let aside = PathBuf::from(name);
        fs::rename(path, &aside).map_err(|error| system(path, &error))?;
        tracing::error!(
            file = %path.display(), set_aside = %aside.display(), %why,
            "the state file is damaged and was set aside; bans begin anew"
        );
        match open(path) {
            Ok(database) => Ok(Self { database, set_aside: Some(aside) }),
            Err(Broken::Corrupt(why)) => Err(Failure(why)),
            Err(Broken::Other(failure)) => Err(failure),
        }
    }

    /// Everything that is kept and not over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn restore(&self, now: Millis) -> Result<Vec<Change>, Failure> {
        guarded(|| {
            let reading = self.database.begin_read()?;
            let table = match reading.open_table(ROWS) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut changes = Vec::new();
            for row in table.iter()? {
                changes.extend(line::read(row?.1.value()).filter(|change| now < over(change)));
            }
            Ok(changes)
        })
    }

    /// Writes what happened, all of it or nothing; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, changes: &[Change], now: Millis) -> Result<(), Failure> {
        // Failures come by the thousand, and count for minutes only.
        let kept = |change: &&Change| !matches!(change, Change::Struck(..) | Change::Forgiven(_));
        if !changes.iter().any(|change| kept(&change)) {
            return Ok(());
        }
        guarded(|| {
            let writing = self.database.begin_write()?;
            for change in changes.iter().filter(kept) {
                put(&writing, change)?;
            }
            let rows = writing.open_table(ROWS)?.len()?;
            if rows > ROWS_MAX {
                shorten(&writing, now)?;
            }
            writing.commit()?;
            Ok(())
        })
    }

    /// Takes out what is over. To be called every minute or so.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sweep(&self, now: Millis) -> Result<(), Failure> {
        guarded(|| {
            let writing = self.database.begin_write()?;
            let before = writing.open_table(ROWS)?.len()?;
            let alive = |_: &str, text: &str| line::read(text).is_some_and(|change| now < over(&change));
            writing.open_table(ROWS)?.retain(alive)?;
            // A commit is two writes to the disk.
            if writing.open_table(ROWS)?.len()? == before {
                writing.abort()?;
            } else {
                writing.commit()?;
            }
            Ok(())
        })
    }
}

fn put(writing: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    let mut table = writing.open_table(ROWS)?;
    match change {
        Change::Lifted { subject, site, jail } => {
            let begin = format!("ban\t{}\t", line::subject(*subject));
            let lifted = |_: &str, text: &str| match line::read(text) {
                Some(Change::Banned(ban)) => {
                    (site.is_none() || ban.site == *site)
                        && jail.as_deref().is_none_or(|jail| jail == &*ban.jail)
                }
                _ => false,
            };
            // A tab is followed by the next character there is.
            let end = format!("ban\t{}\n", line::subject(*subject));
            table.retain_in(begin.as_str()..end.as_str(), |key, text| !lifted(key, text))?;
        }
        Change::Flushed => table.retain_in("ban\t".."ban\n", |_, _| false)?,
        Change::Banned(_) | Change::LoggedIn { .. } | Change::Granted { .. } => {
            table.insert(key(change).as_str(), line::change(change).as_str())?;
        }
        Change::Struck(..) | Change::Forgiven(_) | Change::Began { .. } => {}
    }
    Ok(())
}

/// What a change is about: a later one takes its place.
fn key(change: &Change) -> String {
    match change {
        Change::Banned(ban) => {
            format!(
                "ban\t{}\t{}\t{}",
                line::subject(ban.subject),
                line::text(&ban.jail),
                line::site(ban.site)
            )
        }
        // Each session keeps its client known by itself: one that ends takes nothing from the others.
        Change::LoggedIn { client, site, work, .. } => {
            let session = work.map(|(session, _)| format!("\t{:016x}", session.0)).unwrap_or_default();
            format!("login\t{}\t{}{session}", client.addr(), line::site(Some(*site)))
        }
        Change::Granted { net, .. } => format!("grant\t{net}"),
        _ => String::new(),
    }
}

/// Makes room for a tenth: what is over, then what will be over first.
fn shorten(writing: &WriteTransaction, now: Millis) -> Result<(), redb::Error> {
    let mut table = writing.open_table(ROWS)?;
    let mut ends: Vec<u64> = Vec::new();
    for row in table.iter()? {
        ends.push(line::read(row?.1.value()).map_or(0, |change| over(&change).0));
    }
    ends.sort_unstable();
    let from = ends.get(ends.len() / 10).copied().unwrap_or_default().max(now.0);
    table.retain(|_, text| line::read(text).is_some_and(|change| over(&change).0 > from))?;
    Ok(())
}

fn open(path: &Path) -> Result<Database, Broken> {
    let other = |error: &io::Error| Broken::Other(system(path, error));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| other(&error))?;
    let kind = file.metadata().map_err(|error| other(&error))?;
    if !kind.is_file() {
        return Err(Broken::Other(Failure(format!("{} is not a file", path.display()))));
    }
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| other(&error))?;
    drop(file);
    let opened = catch_unwind(AssertUnwindSafe(|| {
        // Every page is checked: what a disk has spoilt shows now, and not in the middle of an attack.
        Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(Broken::Other(Failure(format!("{} is in use by another process", path.display()))))
        }
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if !is_content(&error) => Err(other(&error)),
        Ok(Err(error)) => Err(Broken::Corrupt(error.to_string())),
        Err(_) => Err(Broken::Corrupt("it cannot be read".to_owned())),
    }
}

/// Errors about what is in the file, not about the file.
fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn system(path: &Path, error: &io::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

/// The database may panic on a file that another program has changed under it.
fn guarded<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => done.map_err(|error| Failure(error.to_string())),
        Err(_) => Err(Failure("the state file is damaged".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bans::{Action, Ban, SiteId, Subject};
    use crate::client::key::{Key, Prefix};

    fn ban(last: u8, jail: &str, site: Option<SiteId>) -> Ban {
        Ban {
            subject: Subject::Client(Key::new([192, 0, 2, last].into(), Prefix::default())),
            site,
            jail: jail.into(),
            since: Millis(1_000),
            until: Millis(2_000_000),
            level: 0,
            failures: 4,
            action: Action::Refuse,
            why: Arc::from("test"),
        }
    }

    fn bans(file: &File) -> Vec<Ban> {
        let restored = file.restore(Millis(0)).unwrap().into_iter();
        restored
            .filter_map(|change| if let Change::Banned(ban) = change { Some(ban) } else { None })
            .collect()
    }

    #[test]
    fn what_was_written_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let file = File::open(&path, Millis(0)).unwrap();
        assert_eq!(file.restore(Millis(0)).unwrap(), []);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(File::open(&path, Millis(0)).unwrap_err().0.contains("another process"));
        let (one, other) = (ban(1, "login", None), ban(2, "login", Some(SiteId(7))));
        file.write(&[Change::Banned(one.clone()), Change::Banned(other.clone())], Millis(0)).unwrap();
        drop(file);
        let file = File::open(&path, Millis(0)).unwrap();
        assert_eq!(bans(&file), [one.clone(), other.clone()]);
        let lift = |site| Change::Lifted { subject: other.subject, site, jail: None };
        file.write(&[lift(Some(SiteId(8)))], Millis(0)).unwrap();
        assert_eq!(bans(&file).len(), 2, "that is another site");
        file.write(&[lift(None)], Millis(0)).unwrap();
        assert_eq!(bans(&file), [one]);
        file.write(&[Change::Flushed], Millis(0)).unwrap();
        assert_eq!(bans(&file), []);
    }

    #[test]
    fn each_session_keeps_its_client_known_after_a_restart() {
        use crate::bans::{Ledger, SessionId};
        use crate::client::key::{Key, Prefix};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let (client, site) = (Key::new([192, 0, 2, 1].into(), Prefix::default()), SiteId(1));
        let before = Ledger::default();
        before.follow();
        for session in [SessionId(1), SessionId(2)] {
            before.began(client, site, session, Millis(0));
            before.at_work(client, site, session, Millis(0));
        }
        File::open(&path, Millis(0)).unwrap().write(&before.changes(), Millis(0)).unwrap();
        let hour = 3_600_000;
        for (session, known) in [(SessionId(1), true), (SessionId(2), true), (SessionId(3), false)] {
            let after = Ledger::default();
            for change in File::open(&path, Millis(hour)).unwrap().restore(Millis(hour)).unwrap() {
                after.apply(change, Millis(hour));
            }
            after.at_work(client, site, session, Millis(7 * hour));
            assert_eq!(after.knows(client, site, Millis(9 * hour)), known, "{session:?}");
        }
    }

    #[test]
    fn what_is_over_is_neither_restored_nor_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(&folder.path().join("state.redb"), Millis(0)).unwrap();
        let change = Change::Banned(ban(1, "login", None));
        let end = over(&change);
        file.write(std::slice::from_ref(&change), Millis(0)).unwrap();
        file.sweep(Millis(end.0 - 1)).unwrap();
        assert_eq!(file.restore(Millis(end.0 - 1)).unwrap(), [change]);
        assert_eq!(file.restore(end).unwrap(), []);
        file.sweep(end).unwrap();
        assert_eq!(file.restore(Millis(0)).unwrap(), []);
    }

    #[test]
    fn a_damaged_file_is_set_aside_whatever_the_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        {
            let file = File::open(&path, Millis(0)).unwrap();
            let changes: Vec<_> = (0..200).map(|n| Change::Banned(ban(n, "login", None))).collect();
            file.write(&changes, Millis(0)).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let noise = |from: usize, to: usize| {
            let mut bytes = whole.clone();
            bytes[from..to].fill(0xa5);
            bytes
        };
        let half = whole.len() / 2;
        let damaged = [
            b"not a database at all".to_vec(),
            noise(0, 64),
            noise(4096, whole.len()),
            whole[..half].to_vec(),
            vec![0; whole.len()],
        ];
        for (n, bytes) in damaged.into_iter().enumerate() {
            fs::write(&path, &bytes).unwrap();
            let at = Millis(1_000 * (n as u64 + 1));
            let file = File::open(&path, at).unwrap();
            let aside = file.set_aside.clone().unwrap_or_else(|| panic!("damage {n} went unnoticed"));
            assert_eq!(aside, folder.path().join(format!("state.redb.corrupt-{}", n + 1)));
            assert_eq!(fs::read(aside).unwrap(), bytes, "evidence is kept as it was");
            assert_eq!(bans(&file), []);
            file.write(&[Change::Banned(ban(1, "login", None))], Millis(0)).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert!(File::open(folder.path(), Millis(0)).is_err());
        assert!(
            File::open(&folder.path().join("none/state.redb"), Millis(0)).unwrap_err().0.contains("none")
        );
    }
}
