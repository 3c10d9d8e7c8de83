//! The TLS handshake with a client: what it agreed on, or why there is no agreement.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clients;
use super::identity::Identity;
use super::offer::Offer;
use super::plain::Plain;
use super::policy;
use super::session::{Fault, Session};
use super::stream::TlsStream;

/// What a CA offers in its greeting when it looks for the answer to TLS-ALPN-01 (RFC 8737 section 4), and nobody else.
pub const ALPN: &[u8] = b"acme-tls/1";

/// For how long and how much is read after a refusal, so that the alert arrives.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The HTTP version to speak.
    pub alpn: Alpn,
    /// The server name that the client asked for (SNI), in lower case.
    pub sni: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// What was asked of the client.
    pub clients: Arc<clients::Policy>,
    /// Whom its certificate names, if it showed one.
    pub identity: Option<Arc<Identity>>,
}

/// What is spoken inside TLS (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `http/1.1`, also when the client offered nothing.
    Http1,
    /// `h2`.
    Http2,
    /// `acme-tls/1`: a CA has seen what it wanted to see (RFC 8737), and nothing is said.
    Acme,
}

/// Why a handshake failed.
#[derive(Debug)]
pub struct AcceptError {
    /// What went wrong.
    pub cause: Cause,
    /// The server name that the client asked for, as far as it got.
    pub sni: Option<Box<str>>,
    /// The alert that told the client.
    pub alert: Option<AlertDescription>,
}

/// The ways in which a handshake fails.
#[derive(Debug)]
pub enum Cause {
    /// The connection broke.
    Io(io::Error),
    /// The client closed before the end.
    HungUp,
    /// No certificate for the name in [`AcceptError::sni`], or none was named and one is required.
    UnknownName,
    /// The client sent an alert: it refuses us.
    Refused(AlertDescription),
    /// What came is not TLS.
    NotTls,
    /// Anything else, as a sentence.
    Other(String),
}

/// Notes which name was asked for and whether there was a certificate: rustls' unbuffered connection
/// tells neither. One per connection.
#[derive(Debug)]
struct Watch {
    inner: Arc<dyn ResolvesServerCert>,
    seen: Arc<OnceLock<Seen>>,
}

#[derive(Debug)]
struct Seen {
    name: Option<Box<str>>,
    refused: bool,
}

/// Shakes hands with the client on `io`. `first` are bytes that were read from `io` already.
///
/// The deadline is the caller's: dropping the future closes the connection. On an error the client has
/// been told by an alert, as far as the connection allowed.
pub async fn accept(
    io: TcpStream,
    offer: Arc<Offer>,
    first: Bytes,
) -> Result<(TlsStream, Facts), AcceptError> {
    let seen = Arc::new(OnceLock::new());
    let (entry, first) = offer.choose(&io, first).await;
    let config = watched(&entry.config, &seen);
    let (clients, is_proof) = (Arc::clone(&entry.clients), entry.is_proof);
    drop(offer);
    let mut socket = Plain::new(io, first);
    let mut session = match Session::new(config) {
        Ok(session) => Box::new(session),
        Err(error) => return Err(AcceptError::new(Cause::Other(error.to_string()), &seen)),
    };
    match shake(&mut socket, &mut session).await {
        Ok(()) => {
            let facts = facts(&session, &seen, clients)?;
            // A second greeting may offer something else than the first: who was asked for nothing gets nothing.
            if is_proof && facts.alpn != Alpn::Acme {
                return Err(AcceptError::new(
                    Cause::Other("nothing is said where a CA looks".to_owned()),
                    &seen,
                ));
            }
            Ok((TlsStream::new(socket, session), facts))
        }
        Err(Broken::Io(error)) => Err(AcceptError::new(Cause::Io(error), &seen)),
        Err(Broken::HungUp) => Err(AcceptError::new(Cause::HungUp, &seen)),
        Err(Broken::Tls(fault)) => Err(refuse(&mut socket, &mut session, &fault, &seen).await),
    }
}

enum Broken {
    Io(io::Error),
    HungUp,
    Tls(Fault),
}

async fn shake(socket: &mut Plain, session: &mut Session) -> Result<(), Broken> {
    while !session.is_established() {
        poll_fn(|cx| poll_send(cx, socket, session)).await.map_err(Broken::Io)?;
        poll_fn(|cx| poll_receive(cx, socket, session)).await?;
        session.handshake().map_err(Broken::Tls)?;
    }
    // In TLS 1.3 only tickets are left to send, and they travel with the first response. In TLS 1.2
    // the client waits for our Finished.
    if session.tls().protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        poll_fn(|cx| poll_send(cx, socket, session)).await.map_err(Broken::Io)?;
    }
    Ok(())
}

fn poll_send(cx: &mut Context<'_>, socket: &mut Plain, session: &mut Session) -> Poll<io::Result<()>> {
    while !session.output().is_empty() {
        let count = ready!(socket.poll_send(cx, session.output()))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        session.sent(count);
    }
    Poll::Ready(Ok(()))
}

fn poll_receive(cx: &mut Context<'_>, socket: &mut Plain, session: &mut Session) -> Poll<Result<(), Broken>> {
    ready!(socket.poll_readable(cx)).map_err(Broken::Io)?;
    let space = session.input_space().map_err(Broken::Tls)?;
    let polled = socket.poll_fill(cx, space);
    let count = if let Poll::Ready(Ok(count)) = &polled { *count } else { 0 };
    session.received(count);
    match ready!(polled) {
        Ok(0) => Poll::Ready(Err(Broken::HungUp)),
        Ok(_) => Poll::Ready(Ok(())),
        Err(error) => Poll::Ready(Err(Broken::Io(error))),
    }
}

/// Tells the client by an alert and closes our half of the connection.
async fn refuse(
    socket: &mut Plain,
    session: &mut Session,
    fault: &Fault,
    seen: &OnceLock<Seen>,
) -> AcceptError {
    if let Some(Seen { name, refused: true }) = seen.get() {
        // RFC 6066 section 3, and for a missing name RFC 8446 section 9.2.
        session.replace_alert(match name {
            Some(_) => AlertDescription::UnrecognisedName,
            None => AlertDescription::MissingExtension,
        });
    } else if session.output().is_empty() && session.tls().protocol_version().is_none() {
        // rustls says nothing to messages that it cannot even put together.
        match fault {
            Fault::Tls(rustls::Error::AlertReceived(_)) => {}
            Fault::TooLarge => session.replace_alert(AlertDescription::RecordOverflow),
            _ => session.replace_alert(AlertDescription::DecodeError),
        }
    }
    let alert = alert_in(session.output());
    // The connection is over either way: an error while saying so adds nothing.
    let _ = poll_fn(|cx| poll_send(cx, socket, session)).await;
    let _ = timeout(LINGER, part(socket)).await;
    AcceptError { alert, ..AcceptError::new(Cause::of(fault, seen), seen) }
}

/// Closes our half and reads on, into nothing. A socket closed with unread bytes is reset, and the
/// reset overtakes the alert.
async fn part(socket: &mut Plain) -> io::Result<()> {
    poll_fn(|cx| socket.poll_finish(cx)).await?;
    let mut left = LINGER_BYTES;
    while left > 0 {
        match poll_fn(|cx| socket.poll_discard(cx)).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// The alert at the end of `output`, if it is one in plain text.
fn alert_in(output: &[u8]) -> Option<AlertDescription> {
    match output.last_chunk::<7>()? {
        [21, 3, _, 0, 2, _, description] => Some(AlertDescription::from(*description)),
        _ => None,
    }
}

fn watched(config: &ServerConfig, seen: &Arc<OnceLock<Seen>>) -> Arc<ServerConfig> {
    let mut own = config.clone();
    own.cert_resolver = Arc::new(Watch { inner: Arc::clone(&config.cert_resolver), seen: Arc::clone(seen) });
    Arc::new(own)
}

fn facts(
    session: &Session,
    seen: &OnceLock<Seen>,
    clients: Arc<clients::Policy>,
) -> Result<Facts, AcceptError> {
    let tls = session.tls();
    let identity = tls.peer_certificates().map(Identity::read).transpose();
    let identity = identity.map_err(|sentence| AcceptError::new(Cause::Other(sentence), seen))?;
    Ok(Facts {
        version: match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: tls.negotiated_cipher_suite().map_or("", |suite| policy::suite_name(suite.suite())),
        alpn: match tls.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(ALPN) => Alpn::Acme,
            _ => Alpn::Http1,
        },
        sni: seen.get().and_then(|seen| seen.name.clone()),
        resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        clients,
        identity: identity.map(Arc::new),
    })
}

impl ResolvesServerCert for Watch {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        let name = name.map(|name| name.to_ascii_lowercase().into_boxed_str());
        let found = self.inner.resolve(hello);
        // After a HelloRetryRequest this runs again; rustls has checked that the name is the same.
        let _ = self.seen.set(Seen { name, refused: found.is_none() });
        found
    }
}

impl AcceptError {
    fn new(cause: Cause, seen: &OnceLock<Seen>) -> Self {
        Self { cause, sni: seen.get().and_then(|seen| seen.name.clone()), alert: None }
    }

    /// A word for metrics; there are only these few.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.cause {
            Cause::Io(_) => "io",
            Cause::HungUp => "hung_up",
            Cause::UnknownName => "unknown_name",
            Cause::Refused(_) => "refused_by_client",
            Cause::NotTls => "not_tls",
            Cause::Other(_) => "no_agreement",
        }
    }
}

impl Cause {
    fn of(fault: &Fault, seen: &OnceLock<Seen>) -> Self {
        if seen.get().is_some_and(|seen| seen.refused) {
            return Self::UnknownName;
        }
        match fault {
            Fault::Tls(rustls::Error::AlertReceived(alert)) => Self::Refused(*alert),
            Fault::Tls(rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            )) if seen.get().is_none() => Self::NotTls,
            other => Self::Other(explain(other)),
        }
    }
}

/// A fault of TLS as a sentence.
pub(super) fn explain(fault: &Fault) -> String {
    match fault {
        Fault::Tls(rustls::Error::AlertReceived(alert)) => format!("the client sent the TLS alert {alert:?}"),
        Fault::Tls(error) => format!("TLS: {error}"),
        Fault::TooLarge => "TLS: the client sent a message larger than is accepted".to_owned(),
        Fault::Exhausted => "TLS: nothing more can be sent in this session".to_owned(),
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Io(error) => write!(f, "the connection broke during the TLS handshake: {error}")?,
            Cause::HungUp => f.write_str("the client closed during the TLS handshake")?,
            Cause::Refused(alert) => {
                write!(f, "the client ended the TLS handshake with the alert {alert:?}")?;
            }
            Cause::NotTls => f.write_str("what the client sent is not TLS")?,
            Cause::Other(sentence) => f.write_str(sentence)?,
            Cause::UnknownName => {
                return match &self.sni {
                    Some(name) => write!(f, "no certificate for `{name}`, and unknown names are refused"),
                    None => f.write_str("the client named no server (SNI), and unknown names are refused"),
                };
            }
        }
        if let Some(name) = &self.sni {
            write!(f, " (asked for `{name}`)")?;
        }
        Ok(())
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            _ => None,
        }
    }
}
