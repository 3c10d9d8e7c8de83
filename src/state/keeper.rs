//! The task between ledger and store: restores, writes through, applies what others did, and reconciles after a gap.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Failure, Place, Policy, Status, Store};
use crate::bans::{Change, Ledger};
use crate::clock;

/// How long the first request may be kept waiting for what a store knows: then the start goes on without.
const AT_START: Duration = Duration::from_secs(2);
/// How long the last changes may take at the end.
const AT_END: Duration = Duration::from_secs(2);
/// How often the store is looked after.
const TURN: Duration = Duration::from_secs(2);
/// How long to wait after a failure, and after more of them at most.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// As many changes as are held while the store is gone; the ledger holds more.
const HELD: usize = 16_384;

/// Keeps a ledger and a store in step.
pub struct Keeper {
    ledger: Arc<Ledger>,
    policy: Policy,
    status: Arc<Status>,
    store: Option<Store>,
    /// What the store was told and did not confirm.
    unsaid: Vec<Change>,
    /// Whether its failure was said already.
    complained: bool,
}

/// Why a store that works is left.
enum End {
    /// It is over.
    Stop,
    /// Another process takes it.
    Lent,
}

impl Keeper {
    /// A keeper that has not begun.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, policy: Policy, status: Arc<Status>) -> Self {
        Self { ledger, policy, status, store: None, unsaid: Vec::new(), complained: false }
    }

    /// Brings back what the store knows, before the first request; gives up after a moment, and goes on trying in
    /// [`Keeper::run`].
    pub async fn begin(&mut self) {
        if self.policy.place == Place::Memory {
            tracing::info!(
                "bans are kept in memory: they end with this process (`[state] store` says where to keep them)"
            );
            return;
        }
        self.ledger.follow();
        match timeout(AT_START, self.connect()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => self.down(&failure),
            Err(_) => self.down(&Failure("it does not answer".to_owned())),
        }
    }

    /// Works until `stop` is done; then tells the store the rest.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        if self.policy.place == Place::Memory {
            return;
        }
        let mut stop = std::pin::pin!(stop);
        let mut rest = REST.0;
        let status = Arc::clone(&self.status);
        if matches!(self.policy.place, Place::File(_)) {
            status.is_exclusive();
        }
        loop {
            if status.is_released() {
                status.close();
                tokio::select! {
                    () = status.released(false) => {}
                    () = &mut stop => return,
                }
            }
            if self.store.is_none() {
                tokio::select! {
                    () = sleep(rest) => {}
                    () = status.released(true) => continue,
                    () = &mut stop => return,
                }
                rest = (rest * 2).min(REST.1);
                if let Err(failure) = self.connect().await {
                    self.down(&failure);
                    continue;
                }
            }
            rest = REST.0;
            match self.serve(stop.as_mut()).await {
                Ok(End::Stop) => break,
                Ok(End::Lent) => self.store = None,
                Err(failure) => self.down(&failure),
            }
        }
        if timeout(AT_END, self.write_through()).await.is_err() {
            tracing::warn!(store = %self.policy.place, "the last bans could not be written");
        }
    }

    /// In step until something fails, or `stop` is done.
    async fn serve(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<End, Failure> {
        let status = Arc::clone(&self.status);
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        self.write_through().await?;
        loop {
            let Some(store) = &mut self.store else { return Err(Failure("it is closed".to_owned())) };
            tokio::select! {
                () = &mut stop => return Ok(End::Stop),
                () = status.released(true) => {
                    self.write_through().await?;
                    return Ok(End::Lent);
                }
                () = self.ledger.changed() => self.write_through().await?,
                change = store.next() => {
                    self.ledger.apply(change?, clock::millis());
                    self.status.apply(1);
                }
                _ = turns.tick() => {
                    turn += 1;
                    store.tend(turn).await?;
                }
            }
        }
    }

    /// Opens the store, takes over what it knows, and tells it what it does not.
    async fn connect(&mut self) -> Result<(), Failure> {
        let mut store = Store::open(&self.policy.place, &self.status).await?;
        let known = store.restore().await?;
        let now = clock::millis();
        // What was lifted here while the store was gone must not come back by it.
        self.gather();
        self.status.apply(known.len());
        for change in known {
            if !self.unsaid.iter().any(|own| undoes(own, &change)) {
                self.ledger.apply(change, now);
            }
        }
        let mut all: Vec<Change> = self.ledger.list(now).into_iter().map(Change::Banned).collect();
        all.extend(self.ledger.grants(now).into_iter().map(|(net, until)| Change::Granted { net, until }));
        // First what was lifted, then what is still in force: a lift that is older than a ban would take it out.
        let mut told = std::mem::take(&mut self.unsaid);
        told.retain(|change| !matches!(change, Change::Banned(_)));
        let answers = store.write(told.clone()).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(failure) => {
                self.unsaid = told;
                return Err(failure);
            }
        };
        let more = store.write(all).await?;
        for change in answers.into_iter().chain(more) {
            self.ledger.apply(change, now);
        }
        let bans = self.ledger.active();
        tracing::info!(store = %self.policy.place, bans, "bans are kept in this store");
        self.store = Some(store);
        self.status.set_up(true);
        self.complained = false;
        Ok(())
    }

    async fn write_through(&mut self) -> Result<(), Failure> {
        self.gather();
        let Some(store) = &mut self.store else { return Err(Failure("it is closed".to_owned())) };
        if self.unsaid.is_empty() {
            return Ok(());
        }
        let answers = store.write(self.unsaid.clone()).await?;
        self.status.wrote(self.unsaid.len());
        self.unsaid.clear();
        let now = clock::millis();
        for change in answers {
            self.ledger.apply(change, now);
        }
        Ok(())
    }

    /// Takes over what the ledger has to tell.
    fn gather(&mut self) {
        self.unsaid.extend(self.ledger.changes());
        let surplus = self.unsaid.len().saturating_sub(HELD);
        // Bans are told as a whole after a gap; what is lost here is a failure or who logged in.
        self.unsaid.drain(..surplus);
    }

    /// Says once that the store is gone. Failures that were told and not confirmed are not told again: they may have
    /// been counted.
    fn down(&mut self, failure: &Failure) {
        self.store = None;
        self.status.set_up(false);
        self.unsaid.retain(|change| !matches!(change, Change::Struck(..)));
        let store = &self.policy.place;
        if self.complained {
            tracing::debug!(%store, %failure, "the store is still not there");
        } else if self.policy.written {
            tracing::warn!(%store, %failure, "the store cannot be used: bans are kept in memory until it can");
        } else {
            tracing::info!(%store, %failure, "bans are kept in memory (`[state] store` says where to keep them)");
        }
        self.complained = true;
    }
}

/// Whether `own`, which the store was not told yet, undoes what it remembers.
fn undoes(own: &Change, known: &Change) -> bool {
    let Change::Banned(ban) = known else { return false };
    match own {
        Change::Flushed => true,
        Change::Lifted { subject, site, jail } => {
            *subject == ban.subject
                && (site.is_none() || *site == ban.site)
                && jail.as_deref().is_none_or(|jail| jail == &*ban.jail)
        }
        _ => false,
    }
}
