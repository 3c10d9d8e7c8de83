//! One TLS session without a socket: bytes of the wire in and out, plaintext in and out.
//!
//! It drives rustls' public unbuffered interface. rustls keeps the protocol, the keys and the limits;
//! this file keeps four buffers and the rule that each of them is bounded. Nothing here waits.

use std::sync::Arc;

use bytes::BytesMut;
use hyper::rt::ReadBufCursor;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, ReadTraffic,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{AlertDescription, ServerConfig};

use super::block::{Block, Class, Lead};

/// The most plaintext that one record carries (RFC 8446 section 5.1).
const RECORD: usize = 16_384;
/// The most bytes that one record has on the wire (RFC 5246 section 6.2.3).
const LARGEST_RECORD: usize = 5 + RECORD + 2048;
/// How much is read at once when the peer sends faster than it is read.
const BULK_READ: usize = 128 * 1024;
/// More plaintext is not taken while this much ciphertext waits to be sent: back-pressure.
const OUTPUT_LIMIT: usize = 128 * 1024;
/// What a record adds to its plaintext, at most: header 5, explicit nonce 8, tag 16, content type 1.
const RECORD_OVERHEAD: usize = 32;
/// Room for an alert or a key update in front of the data.
const CONTROL: usize = 256;

/// What ends a session.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// rustls refused what the peer did.
    Tls(rustls::Error),
    /// A record or handshake message is larger than the buffer that it must fit.
    TooLarge,
    /// A limit of ours or of the cipher was reached while writing.
    Exhausted,
}

/// The state of one connection.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// Received, not yet decrypted. Between two reads it holds less than one whole record.
    input: Option<Block>,
    /// Decrypted, not yet taken.
    plain: Option<Block>,
    /// Plaintext of the record that is being filled.
    stage: Option<Block>,
    /// Encrypted, not yet sent.
    output: Option<Block>,
    /// The last read filled its buffer: the next one gets a large buffer.
    bulk: bool,
    peer_closed: bool,
    ours: Ours,
}

/// How far our half of the session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Open,
    /// We have said `close_notify`; reading goes on.
    Closed,
    /// The session broke.
    Failed,
}

/// What to do once rustls lets application data pass.
#[derive(Clone, Copy)]
enum Errand<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

/// Why one run of rustls ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// More input is needed.
    Blocked,
    /// The errand was done.
    Done,
    /// Both sides have closed.
    Closed,
}

impl Session {
    /// A session that has seen nothing yet.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config)?,
            input: None,
            plain: None,
            stage: None,
            output: None,
            bulk: false,
            peer_closed: false,
            ours: Ours::Open,
        })
    }

    /// What rustls knows of the session.
    pub(super) fn tls(&self) -> &UnbufferedServerConnection {
        &self.tls
    }

    /// Whether the handshake is over.
    pub(super) fn is_established(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Whether the session broke: nothing is read or written any more except the alert.
    pub(super) fn has_failed(&self) -> bool {
        self.ours == Ours::Failed
    }

    /// Whether the peer said that nothing more will come (`close_notify`).
    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether a record has been received in part: an end of the stream here is a truncation.
    pub(super) fn is_inside_record(&self) -> bool {
        self.input.as_ref().is_some_and(|block| !block.is_empty())
    }

    /// Where bytes of the wire go; [`received`](Self::received) must follow, with 0 if none came.
    pub(super) fn input_space(&mut self) -> Result<&mut [u8], Fault> {
        let waiting = self.input.as_ref().map_or(0, Block::len);
        // What rustls leaves lying is less than one record, or a handshake message over several of
        // them. The latter is refused: a real ClientHello is a tenth of a record.
        if waiting >= LARGEST_RECORD {
            self.fail();
            return Err(Fault::TooLarge);
        }
        let bulk = self.bulk && self.is_established();
        let want = if bulk { BULK_READ } else { LARGEST_RECORD - waiting };
        let block = Block::reserve(&mut self.input, Lead::Source, want).ok_or(Fault::TooLarge)?;
        Ok(block.spare_mut())
    }

    /// `count` bytes were put into [`input_space`](Self::input_space).
    pub(super) fn received(&mut self, count: usize) {
        if let Some(block) = &mut self.input {
            self.bulk = count == block.room();
            block.commit(count);
        }
        Block::release(&mut self.input);
    }

    /// Goes on with the handshake. Plaintext that came with its last bytes is kept.
    pub(super) fn handshake(&mut self) -> Result<(), Fault> {
        let mut plain = self.plain.take();
        let turn = self.turn(&mut |payload| keep(&mut plain, payload), Errand::Nothing);
        self.plain = plain;
        turn.map(drop)
    }

    /// Decrypts what was received: into `cursor` first, the rest is kept for
    /// [`take_plain`](Self::take_plain). `tap` sees what goes into `cursor`.
    pub(super) fn decrypt(
        &mut self,
        cursor: &mut ReadBufCursor<'_>,
        tap: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Fault> {
        let mut plain = self.plain.take();
        let turn = self.turn(
            &mut |payload| {
                let direct = if plain.is_none() { cursor.remaining().min(payload.len()) } else { 0 };
                let (now, later) = payload.split_at_checked(direct).unwrap_or((&[], payload));
                cursor.put_slice(now);
                tap(now);
                keep(&mut plain, later)
            },
            Errand::Nothing,
        );
        self.plain = plain;
        turn.map(drop)
    }

    /// Decrypts what was received to the end of `into`.
    pub(super) fn decrypt_into(&mut self, into: &mut BytesMut) -> Result<(), Fault> {
        into.reserve(self.input.as_ref().map_or(0, Block::len));
        let turn = self.turn(
            &mut |payload| {
                into.extend_from_slice(payload);
                Ok(())
            },
            Errand::Nothing,
        );
        turn.map(drop)
    }

    /// Moves all kept plaintext to the end of `into`.
    pub(super) fn take_plain_into(&mut self, into: &mut BytesMut) {
        if let Some(block) = self.plain.take() {
            into.extend_from_slice(block.filled());
        }
    }

    /// Moves kept plaintext to `cursor`, which `tap` sees; `false` if there is none.
    pub(super) fn take_plain(&mut self, cursor: &mut ReadBufCursor<'_>, tap: &mut dyn FnMut(&[u8])) -> bool {
        let Some(block) = &mut self.plain else { return false };
        let count = block.len().min(cursor.remaining());
        let bytes = block.filled().get(..count).unwrap_or_default();
        cursor.put_slice(bytes);
        tap(bytes);
        block.consume(count);
        Block::release(&mut self.plain);
        true
    }

    /// Takes plaintext to be sent, and says how much of it: 0 means that ciphertext must leave first.
    ///
    /// Small pieces gather until they fill a record or [`seal`](Self::seal) is called; large ones are
    /// encrypted from where they lie.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, Fault> {
        if self.ours != Ours::Open {
            return Err(Fault::Exhausted);
        }
        let mut rest = data;
        while !rest.is_empty() && self.output().len() < OUTPUT_LIMIT {
            let mut staged = self.stage.as_ref().map_or(0, Block::len);
            // A head before a large piece gets a record of its own, unless that makes one more in all: the piece
            // then need not be copied behind it.
            let last = (rest.len() - 1) % RECORD + 1;
            if staged > 0 && rest.len() >= RECORD && staged + last > RECORD {
                self.seal()?;
                staged = 0;
            }
            let count = if staged == 0 && rest.len() >= RECORD {
                // The head's own record may have gone beyond the limit.
                let room = OUTPUT_LIMIT.saturating_sub(self.output().len());
                let count = rest.len().min(room.max(RECORD));
                self.encrypt(rest.get(..count).unwrap_or_default())?;
                count
            } else {
                self.gather(rest, RECORD - staged)?
            };
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(data.len() - rest.len())
    }

    /// Copies at most `most` bytes to the record being filled, and encrypts it when it is full.
    fn gather(&mut self, data: &[u8], most: usize) -> Result<usize, Fault> {
        let stage = self.stage.get_or_insert_with(|| Block::take(Class::Small, Lead::Source));
        let count = stage.push(data.get(..most).unwrap_or(data));
        if stage.len() >= RECORD {
            self.seal()?;
        }
        Ok(count)
    }

    /// Encrypts the record being filled, however short it is.
    pub(super) fn seal(&mut self) -> Result<(), Fault> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        self.encrypt(stage.filled())
    }

    /// Says `close_notify`, once.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        if self.ours != Ours::Open {
            return Ok(());
        }
        self.seal()?;
        self.ours = Ours::Closed;
        Block::reserve(&mut self.output, Lead::Target, CONTROL).ok_or(Fault::Exhausted)?;
        let mut plain = self.plain.take();
        let turn = self.turn(&mut |payload| keep(&mut plain, payload), Errand::Close);
        self.plain = plain;
        turn.map(drop)
    }

    /// What must be sent.
    pub(super) fn output(&self) -> &[u8] {
        self.output.as_ref().map(Block::filled).unwrap_or_default()
    }

    /// `count` bytes of [`output`](Self::output) were sent.
    pub(super) fn sent(&mut self, count: usize) {
        if let Some(block) = &mut self.output {
            block.consume(count);
        }
        Block::release(&mut self.output);
    }

    /// Throws away what would be sent and puts a plain-text alert in its place: for refusals where
    /// rustls would send a less telling one. Only before any encryption.
    pub(super) fn replace_alert(&mut self, alert: AlertDescription) {
        self.output = None;
        if let Some(block) = Block::reserve(&mut self.output, Lead::Target, CONTROL) {
            // ContentType alert(21), legacy version, length 2, level fatal(2): RFC 8446 section 6.
            block.push(&[21, 3, 3, 0, 2, 2, alert.into()]);
        }
    }

    fn encrypt(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.has_failed() {
            return Err(Fault::Exhausted);
        }
        let need = data.len() + (data.len() / RECORD + 1) * RECORD_OVERHEAD + CONTROL;
        Block::reserve(&mut self.output, Lead::Target, need).ok_or(Fault::Exhausted)?;
        let mut plain = self.plain.take();
        let turn = self.turn(&mut |payload| keep(&mut plain, payload), Errand::Encrypt(data));
        self.plain = plain;
        match turn? {
            Turn::Done => Ok(()),
            Turn::Blocked | Turn::Closed => Err(Fault::Exhausted),
        }
    }

    /// Runs rustls over the input until it wants more of it or the errand is done. After a fault the
    /// alert that tells the peer is in the output.
    fn turn(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
        errand: Errand<'_>,
    ) -> Result<Turn, Fault> {
        let turn = self.run(sink, errand);
        if turn.is_err() {
            self.fail();
        }
        turn
    }

    /// Each round either consumes input, takes something out of rustls, or returns; so it ends.
    fn run(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
        errand: Errand<'_>,
    ) -> Result<Turn, Fault> {
        if self.has_failed() {
            return Err(Fault::Exhausted);
        }
        let idle = matches!(errand, Errand::Nothing);
        loop {
            let received = self.input.as_mut().map(Block::filled_mut).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(received);
            let mut finished = None;
            let mut was_traffic = false;
            match state.map_err(Fault::Tls)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    discard += drain(&mut traffic, sink)?;
                    was_traffic = true;
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.output)?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                ConnectionState::BlockedHandshake => finished = Some(Turn::Blocked),
                ConnectionState::Closed => finished = Some(Turn::Closed),
                ConnectionState::WriteTraffic(traffic) => {
                    errand.run(traffic, &mut self.output)?;
                    finished = Some(Turn::Done);
                }
                // Early data is never accepted, and rustls knows no other state.
                _ => return Err(Fault::Exhausted),
            }
            self.consume(discard);
            if let Some(turn) = finished {
                return Ok(turn);
            }
            // Saves the call that would only say that there is nothing more.
            if idle && was_traffic && self.input.is_none() && !self.tls.wants_write() {
                return Ok(Turn::Blocked);
            }
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(block) = &mut self.input {
            // Whatever follows `close_notify` is ignored (RFC 8446 section 6.1).
            block.consume(if self.peer_closed { block.len() } else { count });
        }
        Block::release(&mut self.input);
    }

    /// Ends the session, and fetches the alert that rustls wants to send.
    fn fail(&mut self) {
        if self.has_failed() {
            return;
        }
        self.ours = Ours::Failed;
        self.input = None;
        self.stage = None;
        // rustls gives out what it has queued before it looks at input, so that none is needed.
        while self.tls.wants_write() {
            let fetched = match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.output),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    drain(&mut traffic, &mut |_| Ok(())).map(drop)
                }
                _ => return,
            };
            if fetched.is_err() {
                return;
            }
        }
    }
}

impl Errand<'_> {
    /// Room in the output was made beforehand; rustls says if more is needed.
    fn run<D>(&self, mut traffic: WriteTraffic<'_, D>, output: &mut Option<Block>) -> Result<(), Fault> {
        let mut need = CONTROL;
        for _ in 0..2 {
            if matches!(self, Self::Nothing) {
                return Ok(());
            }
            let block = Block::reserve(output, Lead::Target, need).ok_or(Fault::Exhausted)?;
            let written = match self {
                Self::Encrypt(data) => traffic.encrypt(data, block.spare_mut()),
                _ => traffic.queue_close_notify(block.spare_mut()),
            };
            match written {
                Ok(count) => {
                    block.commit(count);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    need = required_size;
                }
                Err(EncryptError::EncryptExhausted) => break,
            }
        }
        Err(Fault::Exhausted)
    }
}

fn drain<D>(
    traffic: &mut ReadTraffic<'_, '_, D>,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<usize, Fault> {
    let mut discard = 0;
    while let Some(record) = traffic.next_record() {
        let record = record.map_err(Fault::Tls)?;
        discard += record.discard;
        sink(record.payload)?;
    }
    Ok(discard)
}

/// Puts a handshake message, ticket or alert into the output.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, output: &mut Option<Block>) -> Result<(), Fault> {
    let need = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        Err(EncodeError::AlreadyEncoded) => return Err(Fault::Exhausted),
    };
    let block = Block::reserve(output, Lead::Target, need).ok_or(Fault::Exhausted)?;
    let count = data.encode(block.spare_mut()).map_err(|_| Fault::Exhausted)?;
    block.commit(count);
    Ok(())
}

/// Keeps plaintext that nobody takes right now. What was decrypted is never longer than what was
/// received, so a large block always suffices; if it did not, that is a fault, not a larger buffer.
fn keep(plain: &mut Option<Block>, payload: &[u8]) -> Result<(), Fault> {
    if payload.is_empty() {
        return Ok(());
    }
    let block = Block::reserve(plain, Lead::Source, payload.len()).ok_or(Fault::TooLarge)?;
    block.push(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use hyper::rt::ReadBuf;
    use proptest::prelude::*;
    use rustls::ClientConnection;

    use super::*;
    use crate::clock;
    use crate::config::complaint::Complaints;
    use crate::tls::{Policy, Profile, Store, UnknownName, policy, throw_away};

    /// A session of ours and a client of rustls', connected by memory.
    struct Pair {
        client: ClientConnection,
        server: Session,
    }

    fn configs() -> (Arc<ServerConfig>, Arc<rustls::ClientConfig>) {
        let certificate = throw_away(&["localhost"], clock::wall()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.key.end_entity_cert().unwrap().clone().into_owned()).unwrap();
        let store = Store::new(&[certificate], None, UnknownName::Default, None, &mut Complaints::default());
        let server = Policy::new()
            .unwrap()
            .server_config(Arc::new(store.unwrap()), &Profile::default(), &crate::tls::clients::Policy::off())
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(policy::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server, Arc::new(client))
    }

    fn feed(session: &mut Session, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let space = session.input_space()?;
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            session.received(count);
            if session.is_established() {
                let mut sink = [0; 7];
                let mut buffer = ReadBuf::new(&mut sink);
                session.decrypt(&mut buffer.unfilled(), &mut |_| ())?;
            } else {
                session.handshake()?;
            }
        }
        Ok(())
    }

    impl Pair {
        fn new() -> Self {
            let (server, client) = configs();
            let client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
            let mut pair = Self { client, server: Session::new(server).unwrap() };
            while pair.client.is_handshaking() || !pair.server.is_established() {
                let up = pair.client_output();
                feed(&mut pair.server, &up).unwrap();
                pair.deliver();
            }
            pair
        }

        fn client_output(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            bytes
        }

        /// Brings our output to the client, and gives what it says.
        fn deliver(&mut self) -> Vec<u8> {
            let mut plain = Vec::new();
            let bytes = self.server.output().to_vec();
            self.server.sent(bytes.len());
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                self.client.process_new_packets().unwrap();
                let _ = self.client.reader().read_to_end(&mut plain);
            }
            plain
        }

        fn holds_nothing(&self) -> bool {
            let server = &self.server;
            [&server.input, &server.plain, &server.stage, &server.output].iter().all(|slot| slot.is_none())
        }
    }

    #[test]
    fn an_idle_session_holds_no_buffer() {
        let mut pair = Pair::new();
        assert!(pair.holds_nothing());
        pair.server.write(&vec![1; 50_000]).unwrap();
        pair.server.write(&[2; 10]).unwrap();
        pair.server.seal().unwrap();
        assert_eq!(pair.deliver().len(), 50_010);
        assert!(pair.holds_nothing());
    }

    #[test]
    fn head_and_body_share_the_first_record() {
        let mut pair = Pair::new();
        pair.server.write(&[b'h'; 300]).unwrap();
        pair.server.write(&vec![b'b'; 2 * RECORD - 300]).unwrap();
        pair.server.seal().unwrap();
        let lengths: Vec<_> = records(pair.server.output());
        assert_eq!(lengths, [RECORD + 17, RECORD + 17], "content type and tag are added");
    }

    #[test]
    fn a_body_of_whole_records_is_not_cut_anew_behind_its_head() {
        let mut pair = Pair::new();
        pair.server.write(&[b'h'; 300]).unwrap();
        pair.server.write(&[b'b'; RECORD]).unwrap();
        pair.server.seal().unwrap();
        assert_eq!(records(pair.server.output()), [300 + 17, RECORD + 17]);
    }

    #[test]
    fn a_head_may_fill_what_is_left_of_the_output() {
        let mut pair = Pair::new();
        while pair.server.output().len() < OUTPUT_LIMIT - 300 {
            let room = (OUTPUT_LIMIT - 300 - pair.server.output().len()).min(RECORD - 1);
            pair.server.write(&vec![b'x'; room]).unwrap();
            pair.server.seal().unwrap();
        }
        pair.server.write(&[b'h'; 300]).unwrap();
        assert!(pair.server.output().len() < OUTPUT_LIMIT, "the head is only staged");
        assert!(pair.server.write(&vec![b'b'; 2 * RECORD]).unwrap() >= RECORD);
    }

    /// The lengths of the records in `bytes`.
    fn records(mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let [_, _, _, high, low, rest @ ..] = bytes {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            lengths.push(length);
            bytes = &rest[length..];
        }
        lengths
    }

    #[test]
    fn plaintext_is_not_taken_without_end() {
        let mut pair = Pair::new();
        let data = vec![7; 1 << 20];
        let mut taken = 0;
        loop {
            match pair.server.write(&data[taken..]).unwrap() {
                0 => break,
                count => taken += count,
            }
        }
        assert!((OUTPUT_LIMIT - 4096..OUTPUT_LIMIT + 2 * RECORD).contains(&taken), "{taken}");
        assert_eq!(pair.deliver().len(), taken);
        assert!(pair.server.write(&data[taken..]).unwrap() > 0, "room again");
    }

    #[test]
    fn nothing_is_written_after_the_close() {
        let mut pair = Pair::new();
        pair.server.write(b"last").unwrap();
        pair.server.close().unwrap();
        pair.server.close().unwrap();
        assert_eq!(pair.deliver(), b"last");
        assert!(pair.server.output().is_empty(), "close_notify is said once");
        assert!(pair.server.write(b"more").is_err());
    }

    #[test]
    fn what_follows_close_notify_is_ignored() {
        let mut pair = Pair::new();
        pair.client.send_close_notify();
        let mut bytes = pair.client_output();
        bytes.extend([1; 5000]);
        feed(&mut pair.server, &bytes).unwrap();
        assert!(pair.server.peer_has_closed() && !pair.server.is_inside_record());
    }

    /// Key updates without end cost us nothing: rustls stops them.
    #[test]
    fn a_flood_of_key_updates_ends_the_session() {
        let mut pair = Pair::new();
        let mut outcome = Ok(());
        for _ in 0..100 {
            pair.client.refresh_traffic_keys().unwrap();
            let bytes = pair.client_output();
            outcome = feed(&mut pair.server, &bytes);
            if outcome.is_err() {
                break;
            }
        }
        assert!(matches!(outcome, Err(Fault::Tls(_))), "{outcome:?}");
        assert!(pair.server.has_failed());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Noise before the handshake: an error or waiting, never a panic or a growing buffer.
        #[test]
        fn noise_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (server, _) = fixed();
            let mut session = Session::new(server).unwrap();
            let _ = feed(&mut session, &bytes);
            let _ = feed(&mut session, &bytes);
        }

        /// A ClientHello with some bytes changed, cut into pieces anywhere.
        #[test]
        fn a_bent_client_hello_is_survived(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let (server, client) = fixed();
            let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            for (at, byte) in &changes {
                let at = at.index(hello.len());
                hello[at] = *byte;
            }
            let (first, second) = hello.split_at(cut.index(hello.len()));
            let mut session = Session::new(server).unwrap();
            let outcome = feed(&mut session, first).and_then(|()| feed(&mut session, second));
            if changes.is_empty() {
                prop_assert!(outcome.is_ok() && !session.output().is_empty());
            }
            if outcome.is_err() {
                prop_assert!(session.has_failed() && session.handshake().is_err());
            }
        }

        /// Damage to encrypted records: an error, and what was decrypted before it is unharmed.
        #[test]
        fn a_bent_record_is_survived(at in any::<prop::sample::Index>(), bit in 0..8_u32, size in 1..40_000_usize) {
            let mut pair = Pair::new();
            pair.client.writer().write_all(&vec![5; size]).unwrap();
            let mut bytes = pair.client_output();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let outcome = feed(&mut pair.server, &bytes);
            let waits = pair.server.is_inside_record();
            prop_assert!(outcome.is_err() || waits || at % (RECORD + 22) < 5, "damage was not noticed");
        }
    }

    thread_local! {
        static CONFIGS: (Arc<ServerConfig>, Arc<rustls::ClientConfig>) = configs();
    }

    /// The same configurations for all cases of a property: making keys takes time.
    fn fixed() -> (Arc<ServerConfig>, Arc<rustls::ClientConfig>) {
        CONFIGS.with(Clone::clone)
    }
}
