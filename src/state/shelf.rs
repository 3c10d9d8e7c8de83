//! What replicas share besides bans: values under keys, and locks that one of them holds at a time.
//!
//! For what is asked for seldom and by no request: certificates and accounts of ACME, keys of session tickets. It lies
//! where the bans lie: in memory, in a file beside theirs, or in the Valkey that replicas share.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::hash::BuildHasher as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Latch, PoisonError};
use std::time::Duration;

use redb::{Builder, Database, DatabaseError, ReadableTable as _, TableDefinition};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Script};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::settings::{Place, Valkey};
use super::store::elsewhere;
use super::{Failure, valkey};
use crate::clock::{self, Millis};

/// Why a shelf does not do what it is asked for.
pub type ShelfError = Failure;

/// A longer value is not kept, bytes.
pub const LONGEST_VALUE: usize = 256 << 10;
/// A longer key is not kept, bytes.
pub const LONGEST_KEY: usize = 512;
/// More entries are not kept in memory or a file.
const ENTRIES_MAX: usize = 20_000;
/// How often, and how long after one another, a file is tried that another process has open at the moment.
const TRIES: (u32, Duration) = (250, Duration::from_millis(20));
/// How long Valkey may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Until when an entry holds (milliseconds since 1970, big-endian; 0 is for ever), and its value.
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("shelf");

/// Takes a lock back only from who holds it: KEYS[1] is the lock, ARGV[1] the holder's token.
const UNLOCK: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
/// The same, to hold it for ARGV[2] milliseconds from now.
const EXTEND: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";

/// A key-value store with locks. Cheap to clone; all clones are one shelf.
#[derive(Clone)]
pub struct Shelf {
    kind: Arc<Kind>,
    dice: RandomState,
}

enum Kind {
    Memory(Latch<HashMap<String, Entry>>),
    /// Opened for each question, so that two processes may share it.
    File(PathBuf),
    Valkey {
        settings: Box<Valkey>,
        connection: Mutex<Option<MultiplexedConnection>>,
    },
}

#[derive(Clone)]
struct Entry {
    until: Option<Millis>,
    value: Vec<u8>,
}

/// A lock that is held until it ends or is given back.
#[derive(Debug)]
pub struct Lease {
    key: String,
    token: String,
}

impl Shelf {
    /// The shelf beside the bans at `place`. Nothing is opened or asked yet.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        let kind = match place {
            Place::Memory => Kind::Memory(Latch::default()),
            Place::File(path) => Kind::File(path.with_extension("shelf.redb")),
            Place::Valkey(settings) => {
                Kind::Valkey { settings: settings.clone(), connection: Mutex::new(None) }
            }
        };
        Self { kind: Arc::new(kind), dice: RandomState::new() }
    }

    /// Whether other replicas see what is put here.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(*self.kind, Kind::Valkey { .. })
    }

    /// Whether what is put here is there after a restart.
    #[must_use]
    pub fn outlives_the_process(&self) -> bool {
        !matches!(*self.kind, Kind::Memory(_))
    }

    /// The value of `key`, if there is one and it has not ended.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ShelfError> {
        let key = checked(key)?;
        if let Kind::Valkey { .. } = &*self.kind {
            let mut get = redis::cmd("GET");
            get.arg(self.name(&key));
            return self.ask(|mut connection| async move { get.query_async(&mut connection).await }).await;
        }
        self.change(|entry| (entry.value, None), key).await
    }

    /// Keeps `value` for `life`, or until it is put again.
    ///
    /// # Errors
    /// When it is too long, or the store does not keep it.
    pub async fn put(&self, key: &str, value: &[u8], life: Option<Duration>) -> Result<(), ShelfError> {
        let key = checked(key)?;
        if value.len() > LONGEST_VALUE {
            return Err(Failure(format!(
                "what is to be kept as `{key}` is longer than {LONGEST_VALUE} bytes"
            )));
        }
        if let Kind::Valkey { .. } = &*self.kind {
            let mut set = redis::cmd("SET");
            set.arg(self.name(&key)).arg(value);
            if let Some(life) = life {
                set.arg("PX").arg(millis(life));
            }
            return self.ask(|mut connection| async move { set.exec_async(&mut connection).await }).await;
        }
        let value = value.to_vec();
        self.change(move |_| ((), Some(Some((value, life)))), key).await
    }

    /// Takes `key` out.
    ///
    /// # Errors
    /// When the store does not do it.
    pub async fn remove(&self, key: &str) -> Result<(), ShelfError> {
        let key = checked(key)?;
        if let Kind::Valkey { .. } = &*self.kind {
            let mut del = redis::cmd("DEL");
            del.arg(self.name(&key));
            return self.ask(|mut connection| async move { del.exec_async(&mut connection).await }).await;
        }
        self.change(|_| ((), Some(None)), key).await
    }

    /// The lock `key` for `life`; `None` while somebody has it. Who needs it longer extends it.
    ///
    /// # Errors
    /// When the store cannot be asked: then nobody knows who has it.
    pub async fn lock(&self, key: &str, life: Duration) -> Result<Option<Lease>, ShelfError> {
        let key = checked(&format!("lock/{key}"))?;
        let token =
            format!("{:016x}{:016x}", self.dice.hash_one(clock::now()), RandomState::new().hash_one(&key));
        let lease = Lease { key: key.clone(), token: token.clone() };
        let held = if let Kind::Valkey { .. } = &*self.kind {
            let mut set = redis::cmd("SET");
            set.arg(self.name(&key)).arg(token).arg("NX").arg("PX").arg(millis(life));
            let answer: Option<String> =
                self.ask(|mut connection| async move { set.query_async(&mut connection).await }).await?;
            answer.is_some()
        } else {
            let act = move |entry: Entries| match entry.value {
                Some(_) => (false, None),
                None => (true, Some(Some((token.into_bytes(), Some(life))))),
            };
            self.change(act, key).await?
        };
        Ok(held.then_some(lease))
    }

    /// Holds the lock for `life` from now on. `false` if it ended meanwhile, and somebody else may have it.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn extend(&self, lease: &Lease, life: Duration) -> Result<bool, ShelfError> {
        if let Kind::Valkey { .. } = &*self.kind {
            return self.script(EXTEND, lease, millis(life)).await;
        }
        let token = lease.token.clone().into_bytes();
        let act = move |entry: Entries| {
            let ours = entry.value.as_ref() == Some(&token);
            (ours, ours.then_some(Some((token, Some(life)))))
        };
        self.change(act, lease.key.clone()).await
    }

    /// Gives a lock back; one that has ended is left to who has it now.
    ///
    /// # Errors
    /// When the store cannot be asked: the lock then ends by itself.
    pub async fn unlock(&self, lease: Lease) -> Result<(), ShelfError> {
        if let Kind::Valkey { .. } = &*self.kind {
            return self.script(UNLOCK, &lease, 0).await.map(drop);
        }
        let Lease { key, token } = lease;
        let act = move |entry: Entries| ((), (entry.value == Some(token.into_bytes())).then_some(None));
        self.change(act, key).await
    }

    /// In Valkey; the braces put all keys of ours into one slot of a cluster.
    fn name(&self, key: &str) -> String {
        match &*self.kind {
            Kind::Valkey { settings, .. } => format!("{{{}}}:shelf:{key}", settings.prefix),
            _ => key.to_owned(),
        }
    }

    async fn script(&self, text: &str, lease: &Lease, life: u64) -> Result<bool, ShelfError> {
        let script = Script::new(text);
        let mut call = script.key(self.name(&lease.key));
        call.arg(&lease.token).arg(life);
        let call = &call;
        let done: i64 =
            self.ask(|mut connection| async move { call.invoke_async(&mut connection).await }).await?;
        Ok(done == 1)
    }

    /// Asks Valkey over the kept connection, or a new one; after an error the next question gets a new one.
    async fn ask<T, F: Future<Output = redis::RedisResult<T>>>(
        &self,
        question: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, ShelfError> {
        let Kind::Valkey { settings, connection } = &*self.kind else {
            return Err(Failure("there is no Valkey to ask".to_owned()));
        };
        let mut kept = connection.lock().await;
        let usable = if let Some(usable) = kept.take() {
            usable
        } else {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE));
            let client = valkey::client(settings)?;
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            connected.map_err(valkey::failed)?
        };
        let answer = question(usable.clone()).await.map_err(valkey::failed)?;
        *kept = Some(usable);
        Ok(answer)
    }

    /// Looks at the entry of `key` and changes it, alone.
    async fn change<T: Send + 'static>(
        &self,
        act: impl FnOnce(Entries) -> (T, Option<Change>) + Send + 'static,
        key: String,
    ) -> Result<T, ShelfError> {
        let now = clock::millis();
        match &*self.kind {
            Kind::Memory(map) => {
                let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
                map.retain(|_, entry| entry.until.is_none_or(|until| now < until));
                let (answer, change) = act(Entries { value: map.get(&key).map(|entry| entry.value.clone()) });
                match change {
                    Some(Some(_)) if map.len() >= ENTRIES_MAX && !map.contains_key(&key) => {
                        return Err(Failure("there are too many entries".to_owned()));
                    }
                    Some(Some((value, life))) => {
                        map.insert(key, Entry { until: life.map(|life| now.plus(life)), value });
                    }
                    Some(None) => drop(map.remove(&key)),
                    None => {}
                }
                Ok(answer)
            }
            Kind::File(path) => {
                let database = open_in_turn(path).await?;
                elsewhere(move || guarded(|| in_file(&database, act, &key, now))).await
            }
            Kind::Valkey { .. } => Err(Failure("that is for one process".to_owned())),
        }
    }
}

/// What an entry is to become: a value for a time, or nothing.
type Change = Option<(Vec<u8>, Option<Duration>)>;

/// What is there.
struct Entries {
    value: Option<Vec<u8>>,
}

fn in_file<T>(
    database: &Database,
    act: impl FnOnce(Entries) -> (T, Option<Change>),
    key: &str,
    now: Millis,
) -> Result<T, redb::Error> {
    let holds = |row: &[u8]| until(row).is_none_or(|until| now < until);
    let writing = database.begin_write()?;
    let answer = {
        let mut table = writing.open_table(ROWS)?;
        let found = table.get(key)?.map(|row| row.value().to_vec()).filter(|row| holds(row));
        let (answer, change) = act(Entries { value: found.and_then(|row| row.get(8..).map(<[u8]>::to_vec)) });
        let Some(change) = change else {
            drop(table);
            writing.abort()?;
            return Ok(answer);
        };
        match change {
            Some((value, life)) => {
                let end = life.map_or(0, |life| now.plus(life).0);
                let row = [&end.to_be_bytes()[..], &value].concat();
                table.insert(key, row.as_slice())?;
            }
            None => drop(table.remove(key)?),
        }
        table.retain(|_, row| holds(row))?;
        answer
    };
    writing.commit()?;
    Ok(answer)
}

fn until(row: &[u8]) -> Option<Millis> {
    let end = row.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    (end != 0).then_some(Millis(end))
}

/// Opens the file, and waits a moment while another process has it.
async fn open_in_turn(path: &Path) -> Result<Database, ShelfError> {
    let mut left = TRIES.0;
    loop {
        let path = path.to_owned();
        match elsewhere(move || Ok(open(&path))).await? {
            Err(Closed::Busy) if left > 0 => left -= 1,
            Err(Closed::Busy) => return Err(Failure("another process keeps the file open".to_owned())),
            Err(Closed::Other(failure)) => return Err(failure),
            Ok(database) => return Ok(database),
        }
        sleep(TRIES.1).await;
    }
}

enum Closed {
    Busy,
    Other(Failure),
}

fn open(path: &Path) -> Result<Database, Closed> {
    let other = |why: &dyn fmt::Display| Closed::Other(Failure(format!("{}: {why}", path.display())));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| other(&error))?;
    if !file.metadata().map_err(|error| other(&error))?.is_file() {
        return Err(other(&"it is not a file"));
    }
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| other(&error))?;
    drop(file);
    match catch_unwind(AssertUnwindSafe(|| Builder::new().set_cache_size(1 << 20).create(path))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(Closed::Busy)
        }
        Ok(Err(error)) => Err(other(&format!("{error}; move it away if it is damaged"))),
        Err(_) => Err(other(&"it is damaged; move it away")),
    }
}

/// The database may panic on a file that another program has changed under it.
fn guarded<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => done.map_err(|error| Failure(error.to_string())),
        Err(_) => Err(Failure("the file is damaged".to_owned())),
    }
}

fn checked(key: &str) -> Result<String, Failure> {
    let fine = !key.is_empty() && key.len() <= LONGEST_KEY && key.bytes().all(|b| b.is_ascii_graphic());
    if fine { Ok(key.to_owned()) } else { Err(Failure(format!("`{}` is no key", key.escape_debug()))) }
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs())
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.kind {
            Kind::Memory(_) => "Shelf(memory)",
            Kind::File(_) => "Shelf(file)",
            Kind::Valkey { .. } => "Shelf(valkey)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// What holds for every kind.
    async fn keeps_its_word(one: &Shelf, other: &Shelf) {
        assert_eq!(one.get("a").await.unwrap(), None);
        one.put("a", b"first", None).await.unwrap();
        one.put("a", b"second", Some(LONG)).await.unwrap();
        assert_eq!(other.get("a").await.unwrap().as_deref(), Some(&b"second"[..]));
        one.put("short", b"x", Some(Duration::from_millis(1))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(one.get("short").await.unwrap(), None);
        other.remove("a").await.unwrap();
        assert_eq!(one.get("a").await.unwrap(), None);

        let lease = one.lock("order", LONG).await.unwrap().expect("nobody has it");
        assert!(other.lock("order", LONG).await.unwrap().is_none(), "one holder");
        assert!(one.extend(&lease, LONG).await.unwrap());
        one.unlock(lease).await.unwrap();
        let brief = other.lock("order", Duration::from_millis(1)).await.unwrap().expect("given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = one.lock("order", LONG).await.unwrap().expect("the holder let it end");
        assert!(!other.extend(&brief, LONG).await.unwrap(), "it is somebody else's");
        other.unlock(brief).await.unwrap();
        assert!(other.lock("order", LONG).await.unwrap().is_none(), "only its holder gives it back");
        one.unlock(next).await.unwrap();
        assert!(one.put("big", &vec![0; LONGEST_VALUE + 1], None).await.is_err());
        assert!(one.get("with space").await.is_err());
    }

    #[tokio::test]
    async fn in_memory() {
        let shelf = Shelf::new(&Place::Memory);
        keeps_its_word(&shelf, &shelf.clone()).await;
        assert!(!shelf.is_shared() && !shelf.outlives_the_process());
    }

    #[tokio::test]
    async fn in_a_file_that_two_share() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::File(folder.path().join("ravelin.redb"));
        keeps_its_word(&Shelf::new(&place), &Shelf::new(&place)).await;
        let path = folder.path().join("ravelin.shelf.redb");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn many_at_once_and_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::File(folder.path().join("ravelin.redb"));
        let tries = (0..8).map(|_| {
            let shelf = Shelf::new(&place);
            async move { shelf.lock("order", LONG).await.unwrap().is_some() }
        });
        let held = futures_util::future::join_all(tries).await;
        assert_eq!(held.iter().filter(|held| **held).count(), 1);
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_an_error() {
        let place = super::super::settings::parse("valkey://127.0.0.1:1", Path::new("/")).unwrap();
        let shelf = Shelf::new(&place);
        assert!(shelf.get("a").await.is_err() && shelf.lock("a", LONG).await.is_err());
        let place = Place::File("/nowhere/ravelin.redb".into());
        assert!(Shelf::new(&place).get("a").await.unwrap_err().0.contains("/nowhere"));
    }

    /// A real server of its own, as tests/run installs it.
    struct Server {
        child: std::process::Child,
        shelf: Place,
    }

    impl Server {
        async fn start() -> Self {
            use std::process::{Command, Stdio};
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let spawn = |program: &str| {
                let mut command = Command::new(program);
                command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
            };
            let child = spawn("valkey-server").or_else(|_| spawn("redis-server")).unwrap();
            let url = format!("valkey://127.0.0.1:{port}");
            let shelf = super::super::settings::parse(&url, Path::new("/")).unwrap();
            let server = Self { child, shelf };
            for _ in 0..500 {
                if server.shelf().get("up").await.is_ok() {
                    return server;
                }
                sleep(Duration::from_millis(10)).await;
            }
            panic!("the server does not start");
        }

        fn shelf(&self) -> Shelf {
            Shelf::new(&self.shelf)
        }

        fn signal(&self, name: &str) {
            let pid = self.child.id().to_string();
            assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[tokio::test]
    async fn in_a_store_that_replicas_share() {
        let mut server = Server::start().await;
        let (one, other) = (server.shelf(), server.shelf());
        keeps_its_word(&one, &other).await;
        assert!(one.is_shared() && one.outlives_the_process());
        let big: Vec<u8> = (0..LONGEST_VALUE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        one.put("big", &big, Some(LONG)).await.unwrap();
        assert!(other.get("big").await.unwrap() == Some(big), "every byte");
        let tries = (0..8).map(|_| {
            let shelf = server.shelf();
            async move { shelf.lock("once", LONG).await.unwrap().is_some() }
        });
        let held = futures_util::future::join_all(tries).await;
        assert_eq!(held.iter().filter(|held| **held).count(), 1);
        // One that hangs is an error, soon; and once it is back, all is well.
        let lease = one.lock("order", LONG).await.unwrap().unwrap_or_else(|| panic!("somebody has it"));
        one.unlock(lease).await.unwrap();
        server.signal("STOP");
        let asked = tokio::time::timeout(PATIENCE * 3, one.get("big")).await;
        assert!(asked.expect("within the time-out").is_err());
        server.signal("CONT");
        assert!(one.get("big").await.unwrap().is_some());
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert!(one.put("a", b"x", None).await.is_err() && one.lock("a", LONG).await.is_err());
    }
}
