//! `--key value` pairs, nothing more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::Fault;

/// The options of one run.
pub struct Args {
    given: BTreeMap<String, String>,
}

impl Args {
    /// The subcommand and its options.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<(String, Self), Fault> {
        let command = words.next().ok_or("which work? (backend, handshakes, transfer, pace, idle)")?;
        let mut given = BTreeMap::new();
        while let Some(word) = words.next() {
            let key = word.strip_prefix("--").ok_or_else(|| format!("an option was expected, not {word}"))?;
            let value = words.next().ok_or_else(|| format!("--{key} needs a value"))?;
            given.insert(key.to_owned(), value);
        }
        Ok((command, Self { given }))
    }

    /// The value of `key`, or `default`.
    pub fn get<T: FromStr>(&self, key: &str, default: T) -> Result<T, Fault> {
        match self.given.get(key) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{key} {text}: not understood").into()),
        }
    }

    /// How long to work. Ten minutes at most, so that a forgotten run ends.
    pub fn seconds(&self) -> Result<Duration, Fault> {
        Ok(Duration::from_secs_f64(self.get("seconds", 5.0_f64)?.clamp(0.1, 600.0)))
    }

    /// An address that has to be given, and has to be this machine's own.
    pub fn loopback(&self, key: &str) -> Result<SocketAddr, Fault> {
        let text = self.given.get(key).ok_or_else(|| format!("--{key} is missing"))?;
        let address: SocketAddr = text.parse().map_err(|_| format!("--{key} {text}: no address and port"))?;
        if address.ip().is_loopback() {
            Ok(address)
        } else {
            Err(format!("--{key} {text}: load goes to loopback addresses only").into())
        }
    }
}
