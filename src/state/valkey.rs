//! Bans in a Valkey or Redis that replicas share: scripts that decide for all of them, and a channel that tells all.
//!
//! One connection, RESP3, on which answers and what others publish arrive. Keys, all in one slot of a cluster:
//!
//! ```text
//! {ravelin}:bans     subject → its bans          {ravelin}:ends      when a subject's bans are forgotten
//! {ravelin}:lifted   what was lifted, and when   {ravelin}:known     who logged in
//! {ravelin}:grants   who may reach the Install Tool                  {ravelin}:strikes:…   failures in one jail
//! ```

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use ipnet::IpNet;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, Script,
    TlsCertificates, Value,
};
use tokio::sync::mpsc;

use super::settings::{self, Secret};
use super::{Failure, KNOWN_FOR, Status, line};
use crate::bans::{Ban, Change, Sentence, SiteId, Subject, Tally, stable_hash};
use crate::clock::{self, Millis};
use crate::config::file;

/// How long connecting may take, and each answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What others published and is not applied yet; more than that, and everything is read again.
const BACKLOG: usize = 4096;
/// How many scripts are under way at once.
const AT_ONCE: usize = 64;
/// How many subjects are read at once.
const PAGE: usize = 512;
/// Bytes of the largest file of roots that is read.
const LARGEST_ROOTS: u64 = 8 << 20;
/// More clients that logged in are not read.
const KNOWN_MAX: isize = 100_000;

const COMMON: &str = include_str!("lua/common.lua");

/// A connection that was greeted, and has subscribed.
pub struct Valkey {
    connection: MultiplexedConnection,
    told: mpsc::Receiver<Told>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    /// Who we are on the channel, so that we do not hear ourselves.
    origin: Arc<str>,
    status: Arc<Status>,
    /// Something was told and could not be taken in: everything has to be read again.
    missed: Arc<AtomicBool>,
    /// Whether it was said that the store refuses something.
    complained: AtomicBool,
    dice: RandomState,
    drawn: AtomicU64,
}

/// What came over the channel.
enum Told {
    Message(String),
    /// The connection ended, or more came than was read.
    Gap,
}

#[derive(Debug)]
struct Keys {
    bans: String,
    ends: String,
    lifted: String,
    known: String,
    grants: String,
    strikes: String,
    channel: String,
}

struct Scripts {
    ban: Script,
    strike: Script,
    lift: Script,
}

impl Valkey {
    /// Connects, says who it is, and listens to the others.
    ///
    /// # Errors
    /// When it is not there, wants another password, or speaks no RESP3 (before Redis 6).
    pub async fn connect(settings: &settings::Valkey, status: Arc<Status>) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel(BACKLOG);
        let missed = Arc::new(AtomicBool::new(false));
        let gap = Arc::clone(&missed);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(move |push: PushInfo| {
                match hear(push) {
                    Some(told) => gap.fetch_or(tell.try_send(told).is_err(), Relaxed),
                    None => false,
                };
                Ok::<_, redis::aio::SendError>(())
            });
        let client = client(settings)?;
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
        let keys = Keys::new(&settings.prefix);
        connection.subscribe(&keys.channel).await.map_err(failed)?;
        let dice = RandomState::new();
        let origin = format!("{:016x}", dice.hash_one((std::process::id(), clock::millis().0)));
        Ok(Self {
            connection,
            told,
            keys: Arc::new(keys),
            scripts: Arc::new(Scripts::new()),
            origin: origin.into(),
            status,
            missed,
            complained: AtomicBool::new(false),
            dice,
            drawn: AtomicU64::new(0),
        })
    }

    /// Everything that is not over.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restore(&mut self) -> Result<Vec<Change>, Failure> {
        let mut changes = Vec::new();
        let mut unclear = 0;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(&self.keys.bans).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, page): (u64, Vec<(String, String)>) =
                scan.query_async(&mut self.connection).await.map_err(failed)?;
            for text in page.iter().flat_map(|(_, lines)| lines.lines()) {
                match line::read_ban(text) {
                    Some(ban) => changes.push(Change::Banned(ban)),
                    None => unclear += 1,
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        for key in [&self.keys.known, &self.keys.grants] {
            let mut range = redis::cmd("ZREVRANGE");
            range.arg(key).arg(0).arg(KNOWN_MAX);
            let lines: Vec<String> = range.query_async(&mut self.connection).await.map_err(failed)?;
            let read: Vec<Change> = lines.iter().filter_map(|text| line::read(text)).collect();
            unclear += (lines.len() - read.len()) as u64;
            changes.extend(read);
        }
        self.status.unclear(unclear);
        Ok(changes)
    }

    /// Tells what happened, in order; answers what it knows better.
    ///
    /// # Errors
    /// When one of them was not confirmed.
    pub async fn write(&mut self, changes: Vec<Change>) -> Result<Vec<Change>, Failure> {
        let mut answers = Vec::new();
        let this = &*self;
        let mut under_way = stream::iter(changes).map(|change| this.tell(change)).buffered(AT_ONCE);
        while let Some(answer) = under_way.next().await {
            match answer {
                Ok(text) => answers.extend(line::read(&text)),
                Err(error) if is_refusal(&error) => this.refused(&error),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(answers)
    }

    /// What another replica did.
    ///
    /// # Errors
    /// When the connection is gone, or something was missed.
    pub async fn next(&mut self) -> Result<Change, Failure> {
        loop {
            let text = match self.told.recv().await {
                Some(Told::Message(text)) => text,
                Some(Told::Gap) | None => return Err(Failure("the connection ended".to_owned())),
            };
            let (origin, text) = text.split_once('\t').unwrap_or_default();
            let Some(change) = line::read(text) else {
                self.status.unclear(1);
                continue;
            };
            // Bans and lifts of our own come back, too: only in the order of the channel do all replicas end with
            // the same. Failures would count twice.
            let counted = matches!(
                change,
                Change::Struck(..) | Change::Forgiven(_) | Change::Began { .. } | Change::LoggedIn { .. }
            );
            if origin != &*self.origin || !counted {
                return Ok(change);
            }
        }
    }

    /// Whether it still answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&mut self) -> Result<(), Failure> {
        if self.missed.load(Relaxed) {
            return Err(Failure("other replicas told more than could be taken in".to_owned()));
        }
        redis::cmd("PING").query_async::<()>(&mut self.connection).await.map_err(failed)
    }

    /// One change that the store does not take, for want of a right or of memory, must not keep all others.
    fn refused(&self, error: &RedisError) {
        self.status.refused();
        if !self.complained.swap(true, Relaxed) {
            tracing::warn!(%error, "the store does not keep everything; `docs/state.md` lists the rights it needs");
        }
    }

    async fn tell(&self, change: Change) -> RedisResult<String> {
        match &change {
            Change::Banned(ban) => self.ban(ban).await,
            Change::Struck(tally, Some(sentence)) => self.strike(&change, tally, sentence).await,
            Change::Lifted { subject, site, jail } => {
                let jail = jail.as_ref().map_or_else(|| "*".to_owned(), |jail| line::text(jail));
                self.lift(&change, &line::subject(*subject), &jail, *site).await
            }
            Change::Flushed => self.lift(&change, "*", "*", None).await,
            Change::Forgiven(tally) => self.forgive(&change, tally).await,
            // Told and not kept: it matters for minutes.
            Change::Began { .. } => {
                let mut pipe = redis::pipe();
                pipe.publish(&self.keys.channel, self.signed(&change)).ignore();
                pipe.exec_async(&mut self.connection.clone()).await.map(|()| String::new())
            }
            Change::LoggedIn { at, .. } => {
                self.note(
                    redis::pipe(),
                    &change,
                    &self.keys.known,
                    at.0.saturating_sub(millis(KNOWN_FOR)),
                    at.0,
                )
                .await
            }
            Change::Granted { net, until } => self.grant(&change, *net, *until).await,
            Change::Struck(_, None) => Ok(String::new()),
        }
    }

    async fn ban(&self, ban: &Ban) -> RedisResult<String> {
        let jail = stable_hash(ban.jail.as_bytes());
        let mut call = self.scripts.ban.key(&self.keys.bans);
        call.key(&self.keys.ends).key(&self.keys.lifted).key(self.keys.strikes(ban.subject, jail, ban.site));
        call.arg(clock::millis().0).arg(&self.keys.channel).arg(&*self.origin).arg(line::ban(ban));
        call.invoke_async(&mut self.connection.clone()).await
    }

    async fn strike(&self, change: &Change, tally: &Tally, sentence: &Sentence) -> RedisResult<String> {
        let drawn = self.drawn.fetch_add(1, Relaxed);
        let mut call = self.scripts.strike.key(&self.keys.bans);
        call.key(&self.keys.ends).key(&self.keys.lifted);
        call.key(self.keys.strikes(tally.subject, tally.jail, tally.site));
        call.arg(clock::millis().0).arg(&self.keys.channel).arg(&*self.origin).arg(line::change(change));
        // Two failures in one millisecond are two. A success looks for those that end with its user name.
        call.arg(format!("{}-{drawn}:{}", self.origin, line::name(tally.user)))
            .arg(tally.at.0)
            .arg(millis(tally.find_time));
        call.arg(sentence.most).arg(line::subject(tally.subject)).arg(line::text(&sentence.jail));
        call.arg(line::site(tally.site)).arg(millis(sentence.ban_time)).arg(millis(sentence.longest));
        call.arg(sentence.action.word()).arg(line::text(&sentence.why));
        call.arg(self.dice.hash_one(drawn) % 1000);
        call.invoke_async(&mut self.connection.clone()).await
    }

    async fn lift(
        &self,
        change: &Change,
        who: &str,
        jail: &str,
        site: Option<SiteId>,
    ) -> RedisResult<String> {
        let mut call = self.scripts.lift.key(&self.keys.bans);
        call.key(&self.keys.ends).key(&self.keys.lifted);
        call.arg(clock::millis().0).arg(&self.keys.channel).arg(&*self.origin).arg(line::change(change));
        call.arg(who).arg(jail).arg(line::site(site));
        call.invoke_async(&mut self.connection.clone()).await
    }

    async fn forgive(&self, change: &Change, tally: &Tally) -> RedisResult<String> {
        let key = self.keys.strikes(tally.subject, tally.jail, tally.site);
        let mut range = redis::cmd("ZRANGE");
        range.arg(&key).arg(0).arg(-1);
        let there: Vec<String> = range.query_async(&mut self.connection.clone()).await?;
        let name = format!(":{}", line::name(tally.user));
        let mut pipe = redis::pipe();
        pipe.atomic();
        for failure in there.iter().filter(|failure| failure.ends_with(&name)) {
            pipe.zrem(&key, failure).ignore();
        }
        pipe.publish(&self.keys.channel, self.signed(change)).ignore();
        pipe.exec_async(&mut self.connection.clone()).await.map(|()| String::new())
    }

    async fn grant(&self, change: &Change, net: IpNet, until: Millis) -> RedisResult<String> {
        let mut range = redis::cmd("ZRANGE");
        range.arg(&self.keys.grants).arg(0).arg(-1);
        let there: Vec<String> = range.query_async(&mut self.connection.clone()).await?;
        // One that is there for the same network has another end, and is another member.
        let same = |text: &&String| matches!(line::read(text), Some(Change::Granted { net: other, .. }) if other == net);
        let mut pipe = redis::pipe();
        for old in there.iter().filter(same) {
            pipe.zrem(&self.keys.grants, old).ignore();
        }
        self.note(pipe, change, &self.keys.grants, clock::millis().0, until.0).await
    }

    /// Keeps a line with its time, takes out those before `from`, and tells.
    async fn note(
        &self,
        mut pipe: Pipeline,
        change: &Change,
        key: &str,
        from: u64,
        at: u64,
    ) -> RedisResult<String> {
        pipe.atomic();
        if at > from {
            pipe.zadd(key, line::change(change), at).ignore();
        }
        pipe.cmd("ZREMRANGEBYSCORE").arg(key).arg("-inf").arg(from).ignore();
        pipe.cmd("PEXPIREAT").arg(key).arg(at.max(from).saturating_add(millis(super::MEMORY))).ignore();
        pipe.publish(&self.keys.channel, self.signed(change)).ignore();
        pipe.exec_async(&mut self.connection.clone()).await.map(|()| String::new())
    }

    fn signed(&self, change: &Change) -> String {
        format!("{}\t{}", self.origin, line::change(change))
    }
}

impl Keys {
    /// The braces put all keys into one slot of a cluster.
    fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            bans: key("bans"),
            ends: key("ends"),
            lifted: key("lifted"),
            known: key("known"),
            grants: key("grants"),
            strikes: key("strikes"),
            channel: key("changes"),
        }
    }

    fn strikes(&self, subject: Subject, jail: u64, site: Option<SiteId>) -> String {
        format!("{}:{}:{jail:016x}:{}", self.strikes, line::subject(subject), line::site(site))
    }
}

impl Scripts {
    fn new() -> Self {
        let script = |text: &str| Script::new(&format!("{COMMON}\n{text}"));
        Self {
            ban: script(include_str!("lua/ban.lua")),
            strike: script(include_str!("lua/strike.lua")),
            lift: script(include_str!("lua/lift.lua")),
        }
    }
}

/// What came that is no answer: a message of another replica, or that there will be no more. What is too long or no
/// text is passed on as nothing, which is counted when it is read.
fn hear(push: PushInfo) -> Option<Told> {
    match push.kind {
        PushKind::Message => match push.data.into_iter().nth(1) {
            Some(Value::BulkString(bytes)) if bytes.len() <= line::LONGEST => {
                Some(Told::Message(String::from_utf8(bytes).unwrap_or_default()))
            }
            _ => Some(Told::Message(String::new())),
        },
        PushKind::Disconnection => Some(Told::Gap),
        _ => None,
    }
}

pub(super) fn client(settings: &settings::Valkey) -> Result<Client, Failure> {
    let host = settings.host.to_string();
    let address = if settings.tls {
        ConnectionAddr::TcpTls { host, port: settings.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, settings.port)
    };
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(settings.database))
        .set_skip_set_lib_name();
    if let Some(user) = &settings.user {
        login = login.set_username(user);
    }
    if let Some(Secret(password)) = &settings.password {
        login = login.set_password(password);
    }
    let info = address.into_connection_info().map_err(failed)?.set_redis_settings(login);
    if !settings.tls {
        return Client::open(info).map_err(failed);
    }
    let root_cert = match &settings.roots {
        Some(path) => {
            let read = file::bytes(path, LARGEST_ROOTS);
            Some(read.map_err(|error| Failure(format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(failed)
}

/// Whether the server understood, and does not want this one. Anything else is about the connection, or about a server
/// that is just starting or just demoted.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("ERR" | "EXECABORT" | "NOPERM" | "NOSCRIPT" | "OOM" | "WRONGTYPE"))
}

/// What went wrong, in a sentence. Servers do not repeat passwords.
#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
pub(super) fn failed(error: RedisError) -> Failure {
    let text = match error.kind() {
        ErrorKind::AuthenticationFailed => format!("it refuses the user or the password ({error})"),
        _ if error.is_timeout() => "it does not answer".to_owned(),
        _ => error.to_string(),
    };
    Failure(text)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
