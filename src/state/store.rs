//! The three kinds of store behind a few verbs.

use std::future::pending;
use std::sync::Arc;

use super::file::File;
use super::settings::Place;
use super::valkey::Valkey;
use super::{Failure, Status};
use crate::bans::Change;
use crate::clock;

/// Where changes are kept.
pub enum Store {
    /// Nowhere.
    Memory,
    /// In a file of this process.
    File(Arc<File>),
    /// In a store that replicas share.
    Valkey(Box<Valkey>),
}

impl Store {
    /// Opens or connects to it.
    ///
    /// # Errors
    /// When it cannot be reached, in a sentence.
    pub async fn open(place: &Place, status: &Arc<Status>) -> Result<Self, Failure> {
        match place {
            Place::Memory => Ok(Self::Memory),
            Place::File(path) => {
                let path = path.clone();
                let file = elsewhere(move || File::open(&path, clock::millis())).await?;
                Ok(Self::File(Arc::new(file)))
            }
            Place::Valkey(settings) => {
                Valkey::connect(settings, Arc::clone(status)).await.map(Box::new).map(Self::Valkey)
            }
        }
    }

    /// What it knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restore(&mut self) -> Result<Vec<Change>, Failure> {
        match self {
            Self::Memory => Ok(Vec::new()),
            Self::File(file) => {
                let file = Arc::clone(file);
                elsewhere(move || file.restore(clock::millis())).await
            }
            Self::Valkey(valkey) => valkey.restore().await,
        }
    }

    /// Keeps what happened, and answers what it knows better: a ban that all replicas together have made, or that one
    /// was lifted meanwhile.
    ///
    /// # Errors
    /// When it is not kept, or not all of it.
    pub async fn write(&mut self, changes: Vec<Change>) -> Result<Vec<Change>, Failure> {
        match self {
            Self::Memory => Ok(Vec::new()),
            Self::File(file) => {
                let file = Arc::clone(file);
                elsewhere(move || file.write(&changes, clock::millis())).await.map(|()| Vec::new())
            }
            Self::Valkey(valkey) => valkey.write(changes).await,
        }
    }

    /// What another replica did. Waits until there is something; for ever, if there are no others.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn next(&mut self) -> Result<Change, Failure> {
        match self {
            Self::Memory | Self::File(_) => pending().await,
            Self::Valkey(valkey) => valkey.next().await,
        }
    }

    /// Sees whether it is still there, and takes out what is over. To be called every few seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn tend(&mut self, turn: u64) -> Result<(), Failure> {
        /// A file is swept every so many turns.
        const SWEEP: u64 = 30;
        match self {
            Self::File(file) if turn % SWEEP == 1 => {
                let file = Arc::clone(file);
                elsewhere(move || file.sweep(clock::millis())).await
            }
            Self::Memory | Self::File(_) => Ok(()),
            Self::Valkey(valkey) => valkey.ping().await,
        }
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn elsewhere<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(act).await;
    done.unwrap_or_else(|_| Err(Failure("the thread that reads and writes it ended".to_owned())))
}
