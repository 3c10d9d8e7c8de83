//! The task that looks after all certificates of ACME: brings back what is kept, orders what is missing or due, and follows
//! what other replicas do. It runs on the control thread; nothing that serves waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::time::{sleep, timeout};

use super::book::{Book, Challenge as Open};
use super::client::LONGEST;
use super::due::{self, Barred};
use super::order::{self, CHALLENGE, LOOK, Order, Refused, Shown};
use super::settings::{Issuer, Policy};
use crate::clock::{self, Millis};
use crate::drain::{DrainWatch, Phase};
use crate::tls::{Certificate, CertificateFacts};

/// How long the first request may be kept waiting for certificates that are kept already.
const AT_START: Duration = Duration::from_secs(3);
/// How long all CAs together may take for one name. Then the right to order is given back.
const AN_ORDER: Duration = Duration::from_mins(14);
/// For how long the right to order is taken.
const HELD: Duration = Duration::from_mins(15);
/// How long to wait when another replica orders, or the storage cannot be asked.
const BUSY: Duration = Duration::from_secs(2);
/// How long the proof of an order may take to be taken back when the process begins to end.
const LEAVING: Duration = Duration::from_secs(3);
/// A CA may be asked for its suggestion this often, whatever it says.
const ASKED: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(24));
/// A certificate that is due on arrival is a clock that is wrong: no other one is ordered for this long.
const PUZZLED: Duration = Duration::from_hours(6);
/// What changes whenever a certificate is put into the storage.
const CHANGED: &str = "changed";
/// Stands before the key in what is kept; PEM allows text there.
const FROM: &str = "Directory: ";

/// Looks after one process's certificates.
pub struct Steward {
    book: Arc<Book>,
    policy: Option<Arc<Policy>>,
    names: HashMap<Box<str>, State>,
    /// What the storage said last time.
    changed: Option<Vec<u8>>,
    complained: bool,
    /// Records in a zone that are to be taken out again.
    shown: Shown,
}

/// What is known about one name.
#[derive(Debug, Default)]
struct State {
    failures: u32,
    rest_until: Option<Instant>,
    /// Where the certificate came from.
    directory: Option<String>,
    /// When its CA suggests to renew it, and when to ask again.
    suggested: Option<SystemTime>,
    ask_again: Option<Instant>,
    /// Whether the certificate that is about to be taken over was ordered here.
    came: bool,
}

impl Steward {
    /// One that has not begun.
    #[must_use]
    pub fn new(book: Arc<Book>) -> Self {
        Self {
            book,
            policy: None,
            names: HashMap::new(),
            changed: None,
            complained: false,
            shown: Shown::default(),
        }
    }

    /// Brings back what is kept, before the first handshake; gives up after a moment, and goes on trying.
    pub async fn begin(&mut self, policy: Option<Arc<Policy>>) {
        if timeout(AT_START, self.adopt(policy)).await.is_err() {
            tracing::warn!(
                "the storage of ACME does not answer; self-signed certificates serve until it does"
            );
        }
    }

    /// Works until the process ends. `policy` is what is in force; `landed` is told when a certificate has come. Once it
    /// drains, nothing is ordered any more: a successor or another replica does. What they tell is followed to the end,
    /// for as long as a CA or a client may come here.
    pub async fn run(
        mut self,
        policy: impl Fn() -> Option<Arc<Policy>>,
        landed: impl Fn(),
        mut drain: DrainWatch,
    ) {
        loop {
            let next = tokio::select! {
                biased;
                () = drain.reached(Phase::Draining) => break,
                next = self.look(&policy, &landed) => next,
            };
            let Some((policy, name)) = next else { continue };
            if self.attempt(&policy, &name, &mut drain).await {
                landed();
            }
            self.count(&policy);
            let _ = timeout(LOOK, drain.reached(Phase::Draining)).await;
        }
        tokio::select! {
            biased;
            () = drain.reached(Phase::Killed) => {}
            () = self.only_follow(&landed) => {}
        }
    }

    async fn only_follow(&mut self, landed: impl Fn()) {
        loop {
            if let Some(policy) = self.policy.clone()
                && self.follow(&policy).await
            {
                landed();
            }
            sleep(LOOK).await;
        }
    }

    /// What is in force, what others did, what is to be ordered now; a moment later if there is nothing to order.
    async fn look(
        &mut self,
        policy: impl Fn() -> Option<Arc<Policy>>,
        landed: impl Fn(),
    ) -> Option<(Arc<Policy>, Box<str>)> {
        let now = policy();
        let same = match (&now, &self.policy) {
            (Some(now), Some(known)) => Arc::ptr_eq(now, known),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.adopt(now).await;
            landed();
        }
        if let Some(policy) = self.policy.clone() {
            if self.follow(&policy).await {
                landed();
            }
            if let Some(name) = self.next_due(&policy) {
                return Some((policy, name));
            }
            self.ask_for_suggestion(&policy).await;
            self.count(&policy);
        }
        sleep(LOOK).await;
        None
    }

    /// Another configuration is in force.
    async fn adopt(&mut self, policy: Option<Arc<Policy>>) {
        self.policy.clone_from(&policy);
        let Some(policy) = policy else {
            self.book.retain(|_| false);
            self.names.clear();
            return;
        };
        self.names.retain(|name, _| policy.names.contains(name));
        for name in &policy.names {
            // Another configuration may be what was missing.
            let state = self.names.entry(name.clone()).or_default();
            state.rest_until = None;
        }
        self.book.retain(|name| policy.names.iter().any(|own| **own == *name));
        self.bring_back(&policy).await;
        self.count(&policy);
        for name in policy.names.iter().filter(|name| self.book.exactly(name).is_none()) {
            tracing::warn!(name = %name, "no certificate yet: a self-signed one serves, which no browser trusts, until one comes");
        }
    }

    fn count(&self, policy: &Policy) {
        let missing = policy.names.iter().filter(|name| self.book.exactly(name).is_none()).count();
        self.book.waiting.store(missing as u64, Relaxed);
    }

    /// Takes over everything that is kept and wanted.
    async fn bring_back(&mut self, policy: &Policy) {
        for name in &policy.names {
            match policy.storage.get(&key_of(name)).await {
                Ok(Some(kept)) => self.take_over(name, &kept),
                Ok(None) => {}
                Err(why) => return self.complain(&why),
            }
        }
        self.complained = false;
    }

    /// Says once that the storage is gone.
    fn complain(&mut self, why: &str) {
        if !self.complained {
            tracing::warn!(why, "the storage of ACME cannot be used");
        }
        self.complained = true;
    }

    fn take_over(&mut self, name: &str, kept: &[u8]) {
        match read(kept, &key_of(name)) {
            Ok(certificate) => {
                let state = self.names.entry(name.into()).or_default();
                state.directory = directory(kept);
                let same = self.book.exactly(name).is_some_and(|own| own.key.cert == certificate.key.cert);
                if !same {
                    state.suggested = None;
                    // A CA that suggests at once to renew what it has just issued is not taken at its word for a while.
                    let fresh = self.book.exactly(name).is_some() || state.came;
                    state.ask_again = clock::now().checked_add(ASKED.0).filter(|_| fresh);
                    state.came = false;
                    self.book.enter(name, Arc::new(certificate));
                }
            }
            Err(why) => {
                tracing::warn!(name, why, "what is kept for this name is not usable; another one is ordered");
            }
        }
    }

    /// Does what other replicas tell. Whether certificates came.
    async fn follow(&mut self, policy: &Policy) -> bool {
        match policy.storage.get(CHALLENGE).await {
            Ok(told) => self.answer(told.as_deref(), clock::wall()),
            Err(why) => {
                self.complain(&why);
                return false;
            }
        }
        match policy.storage.get(CHANGED).await {
            Ok(now) if now != self.changed => {
                self.changed = now;
                self.bring_back(policy).await;
                true
            }
            Ok(_) => false,
            Err(why) => {
                self.complain(&why);
                false
            }
        }
    }

    /// Answers the challenge that somebody opened, as long as it lasts.
    fn answer(&self, told: Option<&[u8]>, now: SystemTime) {
        let open = told.and_then(|told| serde_json::from_slice::<Open>(told).ok());
        match open.filter(|open| order::seconds(now) < open.until).map(|open| self.book.open(&open)) {
            Some(Ok(())) => {}
            Some(Err(why)) => tracing::warn!(why, "the challenge of another replica cannot be answered here"),
            None => self.book.close(),
        }
    }

    /// A name whose certificate is missing or due, and that is not left alone at the moment. Missing ones come first.
    fn next_due(&self, policy: &Policy) -> Option<Box<str>> {
        let (now, wall) = (clock::now(), clock::wall());
        let rests = |name: &str| {
            self.names.get(name).and_then(|state| state.rest_until).is_some_and(|until| now < until)
        };
        let awake = || policy.names.iter().filter(|name| !rests(name));
        awake()
            .find(|name| self.book.exactly(name).is_none())
            .or_else(|| awake().find(|name| self.is_due(policy, name, wall)))
            .cloned()
    }

    fn is_due(&self, policy: &Policy, name: &str, now: SystemTime) -> bool {
        let Some(own) = self.book.exactly(name) else { return true };
        let state = self.names.get(name);
        let usual =
            || due::renewal(own.facts.not_before, own.facts.not_after, policy.renew_after, due::draw(name));
        state.and_then(|state| state.suggested).unwrap_or_else(usual) <= now
    }

    /// Orders a certificate for `name`, if no other replica does, and unless this process begins to end. Whether one came.
    async fn attempt(&mut self, policy: &Policy, name: &str, drain: &mut DrainWatch) -> bool {
        let hold = match policy.storage.hold(HELD).await {
            Ok(Some(hold)) => hold,
            Ok(None) => {
                self.rest(name, BUSY);
                return false;
            }
            Err(why) => {
                self.complain(&why);
                self.rest(name, BUSY);
                return false;
            }
        };
        let in_time = tokio::select! {
            biased;
            () = drain.reached(Phase::Draining) => None,
            in_time = timeout(AN_ORDER, self.with_the_right_to(policy, name)) => Some(in_time),
        };
        let came = match in_time {
            Some(Ok(came)) => came,
            Some(Err(_)) => {
                order::take_back(policy, &self.book, &self.shown).await;
                self.failed(name, false, "the CAs took too long");
                false
            }
            None => {
                tracing::info!(name, "this process ends: its order is left to whoever comes after it");
                if timeout(LEAVING, order::take_back(policy, &self.book, &self.shown)).await.is_err() {
                    tracing::warn!("`dns_hook` takes too long; its record may stay in the zone");
                }
                false
            }
        };
        policy.storage.release(hold).await;
        came
    }

    async fn with_the_right_to(&mut self, policy: &Policy, name: &str) -> bool {
        // Another replica may have been faster.
        match policy.storage.get(&key_of(name)).await {
            Ok(Some(kept)) => {
                self.take_over(name, &kept);
                if self.book.exactly(name).is_some() && !self.is_due(policy, name, clock::wall()) {
                    self.names.entry(name.into()).or_default().failures = 0;
                    return true;
                }
            }
            Ok(None) => {}
            Err(why) => {
                self.complain(&why);
                self.rest(name, BUSY);
                return false;
            }
        }
        let mut barred = self.barred(policy, name).await;
        let mut said = Vec::new();
        let mut rate_limited = false;
        for issuer in &policy.issuers {
            if let Some(until) = barred.get(&issuer.directory) {
                let until = crate::tls::x509::date(Millis(*until).into());
                tracing::info!(name, issuer = %issuer.name, %until, "this CA wants to be left alone, and is");
                continue;
            }
            match self.ask(policy, issuer, name).await {
                Ok(kept) => {
                    self.arrived(policy, name, &kept, issuer).await;
                    return true;
                }
                Err(refused) => {
                    tracing::warn!(name, issuer = %issuer.name, why = refused.why, "no certificate from this CA");
                    rate_limited |= refused.rate_limited;
                    said.push(issuer.name.clone());
                    if let Some(after) = refused.after {
                        barred.insert(issuer.directory.clone(), clock::millis().plus(after).0);
                        self.bar(policy, name, &barred).await;
                    }
                }
            }
        }
        if said.is_empty() {
            // Until the first of them may be asked again.
            let now = clock::millis();
            let soonest = barred.values().map(|until| until.saturating_sub(now.0)).min();
            self.rest(name, Duration::from_millis(soonest.unwrap_or_default()).max(BUSY));
            return false;
        }
        self.failed(name, rate_limited, &format!("refused by {}", said.join(", ")));
        false
    }

    /// The CAs that want to be left alone with this name, and until when. It is kept where the certificates are: neither a
    /// restart nor another replica asks them meanwhile.
    async fn barred(&mut self, policy: &Policy, name: &str) -> Barred {
        match policy.storage.get(&barred_key(name)).await {
            Ok(Some(kept)) => {
                due::still_barred(serde_json::from_slice(&kept).unwrap_or_default(), clock::millis())
            }
            Ok(None) => Barred::default(),
            Err(why) => {
                self.complain(&why);
                Barred::default()
            }
        }
    }

    async fn bar(&mut self, policy: &Policy, name: &str, barred: &Barred) {
        let kept = serde_json::to_vec(barred).unwrap_or_default();
        if let Err(why) = policy.storage.put(&barred_key(name), &kept, Some(LONGEST)).await {
            self.complain(&why);
        }
    }

    /// One CA. After a failure it is asked in its staging directory first, where failures count less.
    async fn ask(&self, policy: &Policy, issuer: &Issuer, name: &str) -> Result<String, Refused> {
        let state = self.names.get(name);
        let failures = state.map_or(0, |state| state.failures);
        let own = self.book.exactly(name);
        let same = state.and_then(|state| state.directory.as_deref()) == Some(issuer.directory.as_str());
        let replaces = own.as_ref().filter(|_| same).and_then(|own| own.key.cert.first());
        let (book, shown) = (&*self.book, &self.shown);
        let order =
            |directory| Order { policy, book, shown, issuer, directory, name, failures, replaces: None };
        if let Some(staging) = issuer.staging.as_deref().filter(|_| failures > 0) {
            tracing::info!(name, issuer = %issuer.name, "tried in the staging directory first");
            order(staging).place().await.map_err(|refused| Refused {
                why: format!("its staging directory says: {}", refused.why),
                ..refused
            })?;
        }
        let pem = Order { replaces, ..order(&issuer.directory) }.place().await?;
        let kept = format!("{FROM}{}\n{pem}", issuer.directory);
        // What cannot be served is not kept.
        read(kept.as_bytes(), name).map_err(Refused::from)?;
        Ok(kept)
    }

    async fn arrived(&mut self, policy: &Policy, name: &str, kept: &str, issuer: &Issuer) {
        self.names.entry(name.into()).or_default().came = true;
        self.take_over(name, kept.as_bytes());
        self.book.issued.fetch_add(1, Relaxed);
        // It serves from here on, however long it takes to keep it.
        self.count(policy);
        let mut told = policy.storage.put(&key_of(name), kept.as_bytes(), None).await;
        if told.is_ok() {
            let now = clock::millis().0.to_string().into_bytes();
            told = policy.storage.put(CHANGED, &now, None).await;
            self.changed = Some(now);
        }
        if let Err(why) = told {
            self.complain(&why);
            tracing::error!(
                name,
                why,
                "the new certificate is served, but not kept: the next start orders another one"
            );
        }
        let state = self.names.entry(name.into()).or_default();
        state.failures = 0;
        state.rest_until = None;
        let Some(own) = self.book.exactly(name) else { return };
        let until = crate::tls::x509::date(own.facts.not_after);
        tracing::info!(name, issuer = %issuer.name, %until, "a certificate came");
        if self.is_due(policy, name, clock::wall()) {
            tracing::error!(
                name, %until,
                "this new certificate is to be renewed already: the clock of this machine is wrong, or that of the CA"
            );
            self.rest(name, PUZZLED);
        }
    }

    fn failed(&mut self, name: &str, rate_limited: bool, why: &str) {
        self.book.failed.fetch_add(1, Relaxed);
        let state = self.names.entry(name.into()).or_default();
        state.failures = state.failures.saturating_add(1);
        let rest = due::rest(state.failures, rate_limited, due::draw(name));
        let serves = match self.book.exactly(name) {
            Some(own) if clock::wall() < own.facts.not_after => "the old certificate",
            Some(_) => "an expired certificate",
            None => "a self-signed certificate",
        };
        tracing::error!(name, why, serves, again_in = ?rest, "no new certificate");
        self.rest(name, rest);
    }

    fn rest(&mut self, name: &str, rest: Duration) {
        self.names.entry(name.into()).or_default().rest_until = clock::now().checked_add(rest);
    }

    /// Asks a CA when it wants one of its certificates renewed (RFC 9773), one name at a time.
    async fn ask_for_suggestion(&mut self, policy: &Policy) {
        let now = clock::now();
        let to_ask = |name: &str| {
            let state = self.names.get(name);
            state.is_some_and(|state| state.directory.is_some() && state.ask_again.is_none_or(|at| at <= now))
        };
        let Some(name) = policy.names.iter().find(|name| to_ask(name)).cloned() else { return };
        let asked = self.suggestion(policy, &name).await;
        let Some(state) = self.names.get_mut(&name) else { return };
        let again = match asked {
            Ok((at, again)) => {
                state.suggested = Some(at);
                again.clamp(ASKED.0, ASKED.1)
            }
            Err(why) => {
                tracing::debug!(name = %name, why, "the CA suggests no time to renew");
                ASKED.1
            }
        };
        state.ask_again = now.checked_add(again);
    }

    async fn suggestion(&self, policy: &Policy, name: &str) -> Result<(SystemTime, Duration), String> {
        let directory = self.names.get(name).and_then(|state| state.directory.as_deref());
        let issuer = policy.issuers.iter().find(|issuer| Some(issuer.directory.as_str()) == directory);
        let (issuer, own) = issuer.zip(self.book.exactly(name)).ok_or("its CA is asked no more")?;
        let account =
            order::account(policy, issuer, &issuer.directory).await.map_err(|refused| refused.why)?;
        let der = own.key.cert.first().ok_or("there is no certificate")?;
        let (window, again) = order::renewal_info(&account, der).await?;
        let life = (own.facts.not_before, own.facts.not_after);
        Ok((due::suggested(window, life, due::draw(name)), again))
    }
}

/// Names that want a certificate by ACME, and what has come for them.
pub type Kept = Vec<(Box<str>, Option<Certificate>)>;

/// What is kept for each name of `policy`, for whoever only looks; none where nothing has come yet.
///
/// # Errors
/// When the storage cannot be asked, or what is kept cannot be read.
pub async fn kept(policy: &Policy) -> Result<Kept, String> {
    let mut all = Vec::with_capacity(policy.names.len());
    for name in &policy.names {
        let kept = policy.storage.get(&key_of(name)).await?;
        let origin = format!("{}/{}", policy.storage, key_of(name));
        let certificate = kept.map(|kept| read(&kept, &origin)).transpose();
        all.push((name.clone(), certificate.map_err(|why| format!("{origin}: {why}"))?));
    }
    Ok(all)
}

/// What the certificate of a name is kept as.
fn key_of(name: &str) -> String {
    format!("certificate-{}.pem", name.replace('*', "_"))
}

/// What is kept of the CAs that want to be left alone with a name.
fn barred_key(name: &str) -> String {
    format!("barred-{}.json", name.replace('*', "_"))
}

fn directory(kept: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(kept).ok()?;
    text.lines().find_map(|line| line.strip_prefix(FROM)).map(str::to_owned)
}

/// Key and chain, ready to be served; the one belongs to the other.
fn read(kept: &[u8], origin: &str) -> Result<Certificate, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let key = PrivateKeyDer::from_pem_slice(kept).map_err(|error| said(&error))?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(kept).collect::<Result<_, _>>().map_err(|error| said(&error))?;
    let leaf = chain.first().ok_or("it holds no certificate")?;
    let facts = CertificateFacts::read(leaf)?;
    let key = any_supported_type(&key).map_err(|error| said(&error))?;
    let key = CertifiedKey::new(chain, key);
    key.keys_match().map_err(|error| said(&error))?;
    Ok(Certificate { key: Arc::new(key), facts, origin: origin.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_open_ends() {
        let steward = Steward::new(Arc::default());
        let told = br#"{"tls":false,"name":"a.test","token":"t","authorization":"t.thumb","until":100}"#;
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for (told, second, open) in
            [(&told[..], 99, true), (told, 100, false), (told, 99, true), (b"{}", 99, false)]
        {
            steward.answer(Some(told), at(second));
            assert_eq!(steward.book.is_open(), open, "{second}");
        }
        steward.answer(Some(told), at(99));
        steward.answer(None, at(99));
        assert!(!steward.book.is_open());
    }
}
