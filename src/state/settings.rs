//! `[state]`: where bans are kept, and whether other replicas share them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::complaint::Complaints;
use crate::config::section::{Fault, Placed, Reading, Section};

/// The file's name in a state directory.
const FILE: &str = "ravelin.redb";
/// Where a service keeps its state if systemd does not say (FHS 3.0 section 5.8).
const USUAL: &str = "/var/lib/ravelin";

/// What was written.
#[derive(Clone, Default)]
pub struct Raw {
    store: Option<Placed<Secret>>,
    password: Option<Placed<String>>,
    prefix: Option<Placed<String>>,
    roots: Option<Placed<PathBuf>>,
    tickets: Option<Placed<bool>>,
    base: PathBuf,
    usual: Option<PathBuf>,
}

/// What it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where.
    pub place: Place,
    /// Whether the operator wrote it, or it is what there was.
    pub written: bool,
    /// Whether keys of session tickets are kept there, too.
    pub tickets: bool,
}

/// Where bans are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere but in this process.
    #[default]
    Memory,
    /// In a file of this process.
    File(PathBuf),
    /// In a Valkey or Redis that replicas share.
    Valkey(Box<Valkey>),
}

/// How a Valkey or Redis is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Valkey {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The roots that its certificate must come from (PEM); the system's if none.
    pub roots: Option<PathBuf>,
    /// The ACL user.
    pub user: Option<Box<str>>,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
    /// What every key begins with.
    pub prefix: Box<str>,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address without its password.
impl fmt::Display for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valkey{}://", if self.tls { "s" } else { "" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        let six = self.host.contains(':');
        let (open, close) = if six { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Valkey(valkey) => valkey.fmt(f),
        }
    }
}

impl Place {
    /// Whether nobody on a network sees what is kept there.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self {
            Self::Memory | Self::File(_) => true,
            Self::Valkey(valkey) => valkey.tls || is_near(&valkey.host),
        }
    }
}

impl Raw {
    /// Reads `[state]` of the file.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let mut raw = Self { base: reading.base.clone(), usual: usual(reading.env), ..Self::default() };
        let Some(mut section) = root.section(reading, "state") else { return raw };
        // Not as a string, in which `file:` would mean the content of that file.
        raw.store = section.item("store").and_then(|item| {
            let place = item.place.clone();
            item.text(reading).map(|text| Placed { value: Secret(text.into()), place })
        });
        raw.password = section.get::<String>(reading, "password");
        raw.prefix = section.get::<String>(reading, "prefix");
        raw.roots = section.get::<PathBuf>(reading, "roots");
        raw.tickets = section.get::<bool>(reading, "session_tickets");
        section.finish(reading);
        raw
    }

    /// What it means; an address that cannot be read is an error.
    #[must_use]
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let wish = self.tickets.as_ref().map(|written| written.value);
        let Some(store) = self.store else {
            let place = self.usual.map_or(Place::Memory, Place::File);
            return Policy { place, written: false, tickets: wish.unwrap_or(true) };
        };
        // A complaint shows the line that it is about: not one with a password.
        let shown = Some(&store.place).filter(|_| !store.value.0.contains('@'));
        let mut place = match parse(&store.value.0, &self.base) {
            Ok(place) => place,
            Err(fault) => {
                complaints.error(shown, fault.message, fault.hint);
                Place::Memory
            }
        };
        if let Place::Valkey(valkey) = &mut place {
            if let Some(prefix) = self.prefix {
                if prefix.value.is_empty()
                    || !prefix.value.bytes().all(|b| b.is_ascii_graphic() && !b"{}".contains(&b))
                {
                    let hint = "write letters and digits, e.g. `ravelin`".to_owned();
                    complaints.error(Some(&prefix.place), "`prefix` cannot stand before a key", Some(hint));
                }
                valkey.prefix = prefix.value.into();
            }
            if let Some(password) = self.password {
                valkey.password = Some(Secret(password.value.into()));
            }
            valkey.roots = self.roots.map(|roots| roots.value);
            if !valkey.tls && !is_near(&valkey.host) {
                let hint = "write `valkeys://` if it speaks TLS: whoever is on the way can lift every ban";
                let message = format!("{valkey} is reached without TLS");
                complaints.warning(shown, message, Some(hint.to_owned()));
                if let Some(written) = self.tickets.as_ref().filter(|written| written.value) {
                    let message = "the keys of session tickets travel without TLS: who sees them can pose as this server";
                    let hint = "write `valkeys://`, or leave `session_tickets` out";
                    complaints.warning(Some(&written.place), message, Some(hint.to_owned()));
                }
            }
        }
        if let Some(written) = self.tickets.filter(|written| written.value && place == Place::Memory) {
            let hint = "name a file or a Valkey as `store`, or leave `session_tickets` out";
            let message = "keys of session tickets cannot outlive this process: `store` is `memory`";
            complaints.warning(Some(&written.place), message, Some(hint.to_owned()));
        }
        let tickets = wish.unwrap_or_else(|| place.is_private());
        Policy { place, written: true, tickets }
    }
}

/// Reads `memory`, `file:PATH` or `valkey://…`. Messages never show the text: it may hold a password.
///
/// # Errors
/// What is wrong, and how to write it.
pub fn parse(text: &str, base: &Path) -> Result<Place, Fault> {
    let text = text.trim();
    if text == "memory" {
        return Ok(Place::Memory);
    }
    if let Some(path) = text.strip_prefix("file:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() || path.ends_with('/') {
            Err(Fault::new(
                "`[state] store` names no file",
                "write the file itself, e.g. `file:/var/lib/ravelin/ravelin.redb`",
            ))
        } else {
            Ok(Place::File(base.join(path)))
        };
    }
    let schemes = [("valkey://", false), ("redis://", false), ("valkeys://", true), ("rediss://", true)];
    let found = schemes.iter().find_map(|(scheme, tls)| text.strip_prefix(scheme).map(|rest| (rest, *tls)));
    let Some((rest, tls)) = found else {
        let hint = "write `memory`, `file:PATH`, `valkey://HOST:6379` or, with TLS, `valkeys://HOST:6379`";
        return Err(Fault::new("`[state] store` is none of the kinds that there are", hint));
    };
    let hint = "write `valkeys://USER:PASSWORD@HOST:PORT/DATABASE`; what is special in the password is \
                percent-encoded";
    valkey(rest, tls).map(|valkey| Place::Valkey(Box::new(valkey))).map_err(|why| Fault::new(why, hint))
}

/// `user:password@host:port/database` (RFC 3986 section 3.2, and the scheme that IANA has for redis).
fn valkey(rest: &str, tls: bool) -> Result<Valkey, &'static str> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = authority
        .rsplit_once('@')
        .map_or((None, authority), |(credentials, address)| (Some(credentials), address));
    let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
        None => (None, None),
        Some((user, password)) => (Some(decoded(user)?), Some(decoded(password)?)),
    };
    let some = |text: Option<String>| text.filter(|text| !text.is_empty()).map(String::into_boxed_str);
    let (host, port) = host_and_port(address)?;
    let database = if path.is_empty() {
        0
    } else {
        path.parse().map_err(|_| "the database of `[state] store` is a number")?
    };
    Ok(Valkey {
        host,
        port,
        tls,
        roots: None,
        user: some(user),
        password: some(password).map(Secret),
        database,
        prefix: "ravelin".into(),
    })
}

fn host_and_port(text: &str) -> Result<(Box<str>, u16), &'static str> {
    const USUAL_PORT: u16 = 6379;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("`[` has no `]` in `[state] store`")?;
            (host, port.strip_prefix(':').unwrap_or_default())
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(known) {
        return Err("the host of `[state] store` is no name and no address");
    }
    let port = if port.is_empty() {
        USUAL_PORT
    } else {
        port.parse().map_err(|_| "the port of `[state] store` is a number")?
    };
    Ok((host.into(), port))
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let pair = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                pair.ok_or(
                    "in `[state] store`, `%` stands before two hexadecimal digits; a `%` itself is `%25`",
                )?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).map_err(|_| "user and password of `[state] store` are UTF-8")
}

/// Whether it is on this machine.
fn is_near(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The file that is used if nothing is said: in the first state directory of the service, or the usual one, if it is
/// there. Whether it can be written shows when it is opened.
pub fn usual(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    // systemd.exec(5): several are separated by colons.
    let told = env("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from));
    told.filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(USUAL)).filter(|path| path.is_dir()))
        .map(|folder| folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Place, Fault> {
        parse(text, Path::new("/etc/ravelin"))
    }

    fn shared(text: &str) -> Valkey {
        match read(text) {
            Ok(Place::Valkey(valkey)) => *valkey,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_three_kinds() {
        assert_eq!(read("memory").unwrap(), Place::Memory);
        assert_eq!(read("file:/var/lib/x.redb").unwrap(), Place::File("/var/lib/x.redb".into()));
        assert_eq!(read("file:///var/lib/x.redb").unwrap(), Place::File("/var/lib/x.redb".into()));
        assert_eq!(read("file:x.redb").unwrap(), Place::File("/etc/ravelin/x.redb".into()));
        let plain = shared("valkey://cache");
        assert_eq!((&*plain.host, plain.port, plain.tls, plain.database), ("cache", 6379, false, 0));
        assert_eq!((plain.user, plain.password), (None, None));
        let full = shared("rediss://ravelin:p%40ss%25:w@[2001:db8::1]:7000/3");
        assert_eq!((&*full.host, full.port, full.tls, full.database), ("2001:db8::1", 7000, true, 3));
        assert_eq!(full.user.as_deref(), Some("ravelin"));
        assert_eq!(&*full.password.unwrap().0, "p@ss%:w");
        assert_eq!(&*shared("redis://:secret@h/").password.unwrap().0, "secret");
    }

    #[test]
    fn keys_of_tickets_are_kept_where_nobody_on_the_way_sees_them() {
        for near in ["memory", "file:x", "valkeys://cache", "valkey://localhost", "valkey://127.0.0.1:7000"] {
            assert!(read(near).unwrap().is_private(), "{near}");
        }
        for far in ["valkey://cache", "redis://10.0.0.1", "valkey://localhost.example.org"] {
            assert!(!read(far).unwrap().is_private(), "{far}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let place = read("valkeys://ravelin:hunter2@cache:6380/1").unwrap();
        assert_eq!(place.to_string(), "valkeys://ravelin@cache:6380/1");
        assert!(!format!("{place:?}").contains("hunter2"));
        for broken in
            ["valky://u:hunter2@h", "valkey://u:hunter2@h:x", "valkey://u:hunter2%@h", "valkey://u:hunter2@"]
        {
            assert!(!format!("{:?}", read(broken).unwrap_err()).contains("hunter2"), "{broken}");
        }
    }

    #[test]
    fn what_is_none_of_them_says_how_to_write_it() {
        for text in [
            "",
            "sqlite:x",
            "file:",
            "file:/var/lib/",
            "valkey://",
            "valkey://a b",
            "redis://[::1",
            "redis://h/x",
        ] {
            assert!(read(text).unwrap_err().hint.is_some(), "{text}");
        }
    }

    #[test]
    fn the_state_directory_is_systemds() {
        let env = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".to_owned());
        assert_eq!(usual(&env), Some("/var/lib/a/ravelin.redb".into()));
    }
}
