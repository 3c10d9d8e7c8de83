//! Keys of session tickets that replicas share, and the tickets that are sealed with them.
//!
//! ```text
//! time      6 h      6 h      6 h      6 h
//! a key  ─ known ┬─ seals ┬─────── opens ───┬ gone
//! ```
//! A key is on the shelf one period before anybody seals with it, so that every replica can open what another has sealed.
//! A ticket is the key's id, a nonce, and the session sealed with AES-256-GCM, the id as additional data. Only sessions of
//! TLS 1.3 go into such tickets: with (EC)DHE in every handshake, who has the keys still decrypts nothing that was recorded
//! (RFC 8446 section 2.2). A session of TLS 1.2 holds the very secret of its connection (RFC 5077 section 4).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::clock::{self, Millis};
use crate::state::{self, Failure, Shelf};

/// For how long one key seals. With random nonces it may seal 2^32 tickets (NIST SP 800-38D section 8.3): 198,000 in each
/// second of this time.
pub const PERIOD: Duration = Duration::from_hours(6);
/// For how many periods more it opens.
const OPENS: u64 = 2;
/// More keys are not kept: four are in use, and as many may be left of a store that was lost.
const KEYS_MAX: usize = 8;

/// Length of a key's id, bytes.
const ID: usize = 16;
/// Length of a key of AES-256, bytes.
const KEY: usize = 32;
/// Length of the tag of AES-GCM, bytes.
const TAG: usize = 16;
/// What a key takes on the shelf: its period, its id, itself.
const ROW: usize = 8 + ID + KEY;
/// What stands before the keys on the shelf.
const MARK: &[u8] = b"tickets 1\n";
/// Under which name they lie there; another format gets another one.
const SHELF: &str = "tickets/1";
/// Who may make the next key.
const LOCK: &str = "tickets";
/// For how long: a few questions of two seconds at most.
const HELD: Duration = Duration::from_secs(15);
/// How long they lie there.
const LIFE: Duration = Duration::from_hours(24);
/// How long the first handshake may be kept waiting for them.
const AT_START: Duration = Duration::from_secs(2);
/// How often it is looked after them, how soon again when the store fails, and when another replica has the lock.
const LOOK: Duration = Duration::from_mins(1);
const AGAIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(100);

type Id = [u8; ID];

/// One key. Never printed; its memory is wiped.
struct Key {
    period: u64,
    id: Id,
    secret: Zeroizing<[u8; KEY]>,
    cipher: RandomizedNonceKey,
}

/// All keys that are known at one time.
#[derive(Clone, Default)]
pub struct Ring(Vec<Arc<Key>>);

/// The ring in force, which handshakes look into. Empty while nothing is shared.
#[derive(Default)]
pub struct Shared(ArcSwap<Ring>);

impl Key {
    fn new(period: u64, id: Id, secret: Zeroizing<[u8; KEY]>) -> Option<Self> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret[..]).ok()?;
        Some(Self { period, id, secret, cipher })
    }

    /// None if the system gives no random numbers.
    fn draw(period: u64) -> Option<Self> {
        let (mut id, mut secret) = (Id::default(), Zeroizing::new([0; KEY]));
        rand::fill(&mut id).ok()?;
        rand::fill(&mut secret[..]).ok()?;
        Self::new(period, id, secret)
    }

    fn read(row: &[u8; ROW]) -> Option<Self> {
        let (period, rest) = row.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<ID>()?;
        let secret = Zeroizing::new(*rest.first_chunk::<KEY>()?);
        Self::new(u64::from_be_bytes(*period), *id, secret)
    }

    /// Whether it is of any use in `period`: it is known one period ahead.
    fn holds(&self, period: u64) -> bool {
        self.period <= period.saturating_add(1) && period <= self.period.saturating_add(OPENS)
    }
}

impl Ring {
    /// What lies on the shelf; `None` if that is nothing that [`Ring::write`] has written.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (rows, rest) = bytes.strip_prefix(MARK)?.as_chunks::<ROW>();
        if rows.len() > KEYS_MAX || !rest.is_empty() {
            return None;
        }
        let mut ring = Self::default();
        for row in rows {
            let key = Key::read(row)?;
            if ring.find(&key.id).is_some() {
                return None;
            }
            ring.0.push(Arc::new(key));
        }
        Some(ring)
    }

    /// The same, for the shelf.
    #[must_use]
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        // At once as long as it becomes: a vector that grows leaves keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MARK.len() + ROW * self.0.len()));
        bytes.extend_from_slice(MARK);
        for key in &self.0 {
            bytes.extend_from_slice(&key.period.to_be_bytes());
            bytes.extend_from_slice(&key.id);
            bytes.extend_from_slice(&key.secret[..]);
        }
        bytes
    }

    fn find(&self, id: &Id) -> Option<&Key> {
        self.0.iter().find(|key| key.id == *id).map(|key| &**key)
    }

    /// The key that seals in `period`: of several the first, which is the one on the shelf.
    fn sealing(&self, period: u64) -> Option<&Key> {
        self.0.iter().find(|key| key.period == period).map(|key| &**key)
    }

    /// Whether everybody has what is needed now and next.
    fn is_complete(&self, period: u64) -> bool {
        self.sealing(period).is_some() && self.sealing(period.saturating_add(1)).is_some()
    }

    /// These keys, and those of `other` that are not among them; without those that are of no use.
    fn and(&self, other: &Self, period: u64) -> Self {
        let more = other.0.iter().filter(|key| self.find(&key.id).is_none());
        let all = self.0.iter().chain(more).filter(|key| key.holds(period));
        Self(all.take(KEYS_MAX).cloned().collect())
    }

    /// With a new key for now and for next, where there is none.
    fn completed(&self, period: u64) -> Option<Self> {
        let mut keys = Vec::with_capacity(KEYS_MAX + 2);
        for wanted in [period, period.saturating_add(1)] {
            if self.sealing(wanted).is_none() {
                keys.push(Arc::new(Key::draw(wanted)?));
            }
        }
        keys.extend(self.0.iter().cloned());
        // Those for now and next stay: what only opens makes room.
        keys.sort_by_key(|key| key.period < period);
        keys.truncate(KEYS_MAX);
        Some(Self(keys))
    }

    /// The ticket of a session; none if no key is shared for this time.
    #[must_use]
    pub fn seal(&self, session: &[u8], now: Millis) -> Option<Vec<u8>> {
        let key = self.sealing(period_of(now))?;
        let mut text = Vec::with_capacity(session.len() + TAG);
        text.extend_from_slice(session);
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(key.id), &mut text).ok()?;
        Some([&key.id[..], &nonce.as_ref()[..], &text].concat())
    }

    /// The session in a ticket, if one of these keys has sealed it not too long ago.
    #[must_use]
    pub fn open(&self, ticket: &[u8], now: Millis) -> Option<Vec<u8>> {
        let (id, rest) = ticket.split_first_chunk::<ID>()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.find(id).filter(|key| key.holds(period_of(now)))?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.cipher.open_in_place(nonce, Aad::from(id), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

impl Shared {
    /// The ring in force.
    #[must_use]
    pub fn ring(&self) -> Arc<Ring> {
        self.0.load_full()
    }
}

/// How many keys there are, and nothing about them.
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ticket keys", self.0.len())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load().fmt(f)
    }
}

fn period_of(now: Millis) -> u64 {
    u128::from(now.0)
        .checked_div(PERIOD.as_millis())
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or(0)
}

/// Whether a session, as rustls writes it, is one of TLS 1.3: the server name (0, or 1 with a length and the name), then
/// the version. Of what is written otherwise nothing is shared.
#[must_use]
pub fn is_tls13(session: &[u8]) -> bool {
    let version = match session.split_first() {
        Some((0, rest)) => Some(rest),
        Some((1, rest)) => rest.split_first().and_then(|(length, rest)| rest.get(usize::from(*length)..)),
        _ => None,
    };
    version.is_some_and(|version| version.starts_with(&[3, 4]))
}

/// Keeps the keys of this process and those on the shelf in step.
pub struct Rotation {
    shared: Arc<Shared>,
    shelf: Shelf,
    policy: state::Policy,
    /// Whether it was said that they are shared, or that they cannot be.
    said: Option<bool>,
}

/// What came of a look at the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// The keys for now and next are there.
    Settled,
    /// Another replica makes them at the moment.
    Awaited,
}

impl Rotation {
    /// One that has not begun; none if there is no shelf that outlives the process, or tickets are not to be shared.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, policy: &state::Policy) -> Option<Self> {
        let shelf = Shelf::new(&policy.place);
        (policy.tickets && shelf.outlives_the_process()).then(|| Self {
            shared: Arc::clone(shared),
            shelf,
            policy: policy.clone(),
            said: None,
        })
    }

    /// Takes over the keys before the first handshake; gives up after a moment, and goes on trying in [`Rotation::run`].
    pub async fn begin(&mut self) {
        let settle = async {
            while self.turn().await == Some(Looked::Awaited) {
                sleep(SOON).await;
            }
        };
        if timeout(AT_START, settle).await.is_err() {
            self.failed(&Failure("it does not answer".to_owned()));
        }
    }

    /// Works until `stop` is done.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut rest = if self.said == Some(true) { LOOK } else { AGAIN };
        loop {
            tokio::select! {
                () = sleep(rest) => {}
                () = &mut stop => return,
            }
            rest = tokio::select! {
                looked = self.turn() => match looked {
                    Some(Looked::Settled) => LOOK,
                    Some(Looked::Awaited) => SOON,
                    None => AGAIN,
                },
                () = &mut stop => return,
            };
        }
    }

    async fn turn(&mut self) -> Option<Looked> {
        let mut looked = look(&self.shared, &self.shelf, clock::millis()).await;
        if looked.is_err() {
            // A connection that was idle for a minute may have been closed meanwhile: the next question opens another one.
            looked = look(&self.shared, &self.shelf, clock::millis()).await;
        }
        match looked {
            Ok(looked) => {
                if looked == Looked::Settled && self.said != Some(true) {
                    tracing::info!(store = %self.policy.place, "the keys of session tickets are kept in this store");
                    self.said = Some(true);
                }
                Some(looked)
            }
            Err(failure) => {
                self.failed(&failure);
                None
            }
        }
    }

    /// Says once that the store is gone.
    fn failed(&mut self, failure: &Failure) {
        let (store, said) = (&self.policy.place, self.said.replace(false));
        if said == Some(false) {
            tracing::debug!(%store, %failure, "the store of ticket keys is still not there");
        } else if self.policy.written {
            tracing::warn!(
                %store, %failure,
                "the store of ticket keys cannot be used: the known ones are used to their end, then those of this process alone"
            );
        } else {
            tracing::info!(%store, %failure, "session tickets are good for this process alone");
        }
    }
}

/// Takes over what the shelf has; makes what is missing there, unless another replica is about to.
async fn look(shared: &Shared, shelf: &Shelf, now: Millis) -> Result<Looked, Failure> {
    let period = period_of(now);
    let known = shared.ring();
    if !shelf.is_shared() && known.is_complete(period) {
        return Ok(Looked::Settled);
    }
    let kept = kept(shelf).await?;
    if kept.is_complete(period) {
        shared.0.store(Arc::new(kept.and(&known, period)));
        return Ok(Looked::Settled);
    }
    let Some(lease) = shelf.lock(LOCK, HELD).await? else { return Ok(Looked::Awaited) };
    let made = make(shared, shelf, period).await;
    if let Err(failure) = shelf.unlock(lease).await {
        tracing::debug!(%failure, "the right to make ticket keys ends by itself");
    }
    made.map(|()| Looked::Settled)
}

/// Puts the keys that are missing on the shelf, and uses them only if that succeeds. What a store has lost comes back from
/// the first who notices.
async fn make(shared: &Shared, shelf: &Shelf, period: u64) -> Result<(), Failure> {
    // Another replica may have been faster.
    let kept = kept(shelf).await?;
    let mut ring = kept.and(&shared.ring(), period);
    if !kept.is_complete(period) {
        ring = ring.completed(period).ok_or_else(|| Failure("there are no random numbers".to_owned()))?;
        shelf.put(SHELF, &ring.write(), Some(LIFE)).await?;
    }
    shared.0.store(Arc::new(ring));
    Ok(())
}

/// What lies on the shelf. What cannot be read counts as nothing, and is written anew.
async fn kept(shelf: &Shelf) -> Result<Ring, Failure> {
    let Some(bytes) = shelf.get(SHELF).await?.map(Zeroizing::new) else { return Ok(Ring::default()) };
    let ring = Ring::read(&bytes);
    if ring.is_none() {
        tracing::warn!("what is kept as the keys of session tickets is damaged; there will be new ones");
    }
    Ok(ring.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(period: u64) -> Millis {
        Millis(0).plus(PERIOD * u32::try_from(period).unwrap()).plus(Duration::from_secs(1))
    }

    fn fresh(period: u64) -> Ring {
        Ring::default().completed(period).unwrap()
    }

    fn periods(ring: &Ring) -> Vec<u64> {
        let mut periods: Vec<_> = ring.0.iter().map(|key| key.period).collect();
        periods.sort_unstable();
        periods
    }

    #[tokio::test]
    async fn every_replica_knows_a_key_before_anybody_seals_with_it() {
        let shelf = Shelf::new(&state::Place::Memory);
        let (one, other) = (Shared::default(), Shared::default());
        for period in 100..110 {
            // One of the two is there first, this one and that one in turn.
            let (first, second) = if period % 2 == 0 { (&one, &other) } else { (&other, &one) };
            if period > 100 {
                // The time has come, and nobody has looked yet.
                let ticket = first.ring().seal(b"session", at(period)).expect("the key was made ahead");
                assert_eq!(second.ring().open(&ticket, at(period)).unwrap(), b"session");
            }
            assert_eq!(look(first, &shelf, at(period)).await, Ok(Looked::Settled));
            assert_eq!(look(second, &shelf, at(period)).await, Ok(Looked::Settled));
            let from = period.saturating_sub(OPENS).max(100);
            assert_eq!(periods(&first.ring()), (from..=period + 1).collect::<Vec<_>>());
            assert_eq!(
                *first.ring().write(),
                *kept(&shelf).await.unwrap().write(),
                "what is over is wiped there, too"
            );
        }
    }

    #[tokio::test]
    async fn tickets_hold_twelve_hours_beyond_their_period_and_no_longer() {
        let ring = fresh(7);
        let ticket = ring.seal(b"session", at(7)).unwrap();
        for period in 6..10 {
            assert!(ring.open(&ticket, at(period)).is_some(), "{period}");
        }
        assert_eq!(ring.open(&ticket, at(10)), None);
        assert!(ring.seal(b"session", at(8)).is_some(), "the next key is known");
        assert!(
            ring.seal(b"session", at(9)).is_none(),
            "a store that is gone for long makes no key live longer"
        );
    }

    #[tokio::test]
    async fn while_another_makes_the_keys_nobody_else_does() {
        let shelf = Shelf::new(&state::Place::Memory);
        let lease = shelf.lock(LOCK, HELD).await.unwrap().unwrap();
        let shared = Shared::default();
        assert_eq!(look(&shared, &shelf, at(5)).await, Ok(Looked::Awaited));
        assert!(shared.ring().seal(b"session", at(5)).is_none(), "the process has keys of its own meanwhile");
        shelf.unlock(lease).await.unwrap();
        assert_eq!(look(&shared, &shelf, at(5)).await, Ok(Looked::Settled));
        assert!(shared.ring().seal(b"session", at(5)).is_some());
    }

    #[tokio::test]
    async fn a_file_keeps_keys_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let place = state::Place::File(folder.path().join("state.redb"));
        let before = Shared::default();
        look(&before, &Shelf::new(&place), at(5)).await.unwrap();
        let ticket = before.ring().seal(b"session", at(5)).unwrap();
        drop(before);
        let after = Shared::default();
        look(&after, &Shelf::new(&place), at(6)).await.unwrap();
        assert_eq!(after.ring().open(&ticket, at(6)).unwrap(), b"session");
    }

    #[tokio::test]
    async fn a_shelf_that_was_lost_or_damaged_is_filled_from_what_is_known() {
        let shelf = Shelf::new(&state::Place::Memory);
        let (one, newcomer) = (Shared::default(), Shared::default());
        look(&one, &shelf, at(5)).await.unwrap();
        let ticket = one.ring().seal(b"session", at(5)).unwrap();
        shelf.put(SHELF, b"\0damaged", None).await.unwrap();
        make(&one, &shelf, 5).await.unwrap();
        look(&newcomer, &shelf, at(5)).await.unwrap();
        assert_eq!(newcomer.ring().open(&ticket, at(5)).unwrap(), b"session");
        // Somebody who knew nothing was faster: his keys are used from now on, and ours still open.
        let foreign = fresh(5);
        shelf.put(SHELF, &foreign.write(), None).await.unwrap();
        make(&one, &shelf, 5).await.unwrap();
        let theirs = one.ring().seal(b"session", at(5)).unwrap();
        assert!(foreign.open(&theirs, at(5)).is_some());
        assert!(one.ring().open(&ticket, at(5)).is_some());
    }

    #[tokio::test]
    async fn clocks_that_disagree_fill_no_shelf() {
        let shelf = Shelf::new(&state::Place::Memory);
        let (right, wrong) = (Shared::default(), Shared::default());
        for _ in 0..20 {
            make(&right, &shelf, 5).await.unwrap();
            make(&wrong, &shelf, 500).await.unwrap();
        }
        assert!(kept(&shelf).await.unwrap().0.len() <= KEYS_MAX);
        assert!(right.ring().is_complete(5) && wrong.ring().is_complete(500));
    }

    #[test]
    fn a_full_ring_makes_room_without_losing_the_key_in_use() {
        let old = (0..KEYS_MAX - 1).map(|_| Arc::new(Key::draw(4).unwrap()));
        let ring = Ring(old.chain([Arc::new(Key::draw(5).unwrap())]).collect());
        let ticket = ring.seal(b"session", at(5)).unwrap();
        let completed = ring.completed(5).unwrap();
        assert!(completed.is_complete(5) && completed.0.len() == KEYS_MAX);
        assert!(completed.open(&ticket, at(5)).is_some());
    }

    #[test]
    fn no_key_is_printed() {
        let shared = Shared(ArcSwap::from_pointee(fresh(5)));
        assert_eq!(format!("{shared:?} {:?}", shared.ring()), "2 ticket keys 2 ticket keys");
    }

    #[test]
    fn only_sessions_of_tls_1_3_are_known_as_such() {
        let cases: [(&[u8], bool); 8] = [
            (b"\0\x03\x04\x13\x01", true),
            (b"\0\x03\x03\xc0\x2f", false),
            (b"\x01\x03a.b\x03\x04", true),
            (b"\x01\x03a.b\x03\x03", false),
            (b"\x01\xff\x03\x04", false),
            (b"\x02\x03\x04", false),
            (b"\x01", false),
            (b"", false),
        ];
        for (session, expected) in cases {
            assert_eq!(is_tls13(session), expected, "{session:?}");
        }
    }

    proptest! {
        #[test]
        fn a_ticket_opens_as_it_was_sealed_and_with_any_bit_changed_not_at_all(
            session in proptest::collection::vec(any::<u8>(), 0..600), at_byte: prop::sample::Index, bit in 0..8_u8,
        ) {
            let ring = fresh(9);
            let mut ticket = ring.seal(&session, at(9)).unwrap();
            prop_assert_eq!(ticket.len(), session.len() + ID + NONCE_LEN + TAG);
            prop_assert_eq!(ring.open(&ticket, at(9)).unwrap(), session);
            prop_assert_eq!(fresh(9).open(&ticket, at(9)), None, "a ring of the same time is another one");
            let index = at_byte.index(ticket.len());
            ticket[index] ^= 1_u8 << bit;
            prop_assert_eq!(ring.open(&ticket, at(9)), None);
            ticket[index] ^= 1_u8 << bit;
            ticket.truncate(index);
            prop_assert_eq!(ring.open(&ticket, at(9)), None);
        }

        #[test]
        fn whatever_lies_on_the_shelf_is_a_ring_or_nothing(
            marked: bool,
            bytes in (0..10_usize, 0..2_usize).prop_flat_map(|(rows, more)| {
                proptest::collection::vec(any::<u8>(), rows * ROW + more)
            }),
        ) {
            let bytes = if marked { [MARK, &bytes].concat() } else { bytes };
            let whole = bytes.len() % ROW == MARK.len() && bytes.len() <= MARK.len() + KEYS_MAX * ROW;
            let ring = Ring::read(&bytes);
            prop_assert_eq!(ring.is_some(), marked && whole);
            if let Some(ring) = ring {
                prop_assert_eq!(&**ring.write(), &bytes[..]);
                prop_assert!(ring.and(&fresh(3), 3).completed(3).unwrap().is_complete(3));
            }
        }
    }
}
