//! One TLS connection of a client, and one HTTP/1.1 answer on it.
//!
//! The socket is read in large pieces and fed to rustls from memory, with a bounded receive buffer:
//! with the kernel's autotuned 32 MiB, downloads stalled under TCP memory pressure.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};

use crate::Fault;
use crate::args::Args;

/// Receive buffer of a client socket, bytes.
const RECEIVE_BUFFER: u32 = 512 * 1024;
/// How much is read from a socket at a time, bytes.
const READ: usize = 256 * 1024;

/// Whom to talk to, and how.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    name: ServerName<'static>,
    host: String,
    config: Arc<ClientConfig>,
    resumes: bool,
}

impl Target {
    /// `--to 127.0.0.1:PORT --host NAME --group x25519|mlkem768|any --resume no|yes`
    pub fn read(args: &Args) -> Result<Self, Fault> {
        let host: String = args.get("host", "www.example.org".to_owned())?;
        let config = Arc::new(config(&args.get("group", "x25519".to_owned())?)?);
        let resumes = match args.get("resume", "no".to_owned())?.as_str() {
            "no" => false,
            "yes" => true,
            other => return Err(format!("--resume {other}: yes or no").into()),
        };
        let name = ServerName::try_from(host.clone())?;
        Ok(Self { address: args.loopback("to")?, name, host, config, resumes })
    }

    /// The same for one visitor, who takes back only what he was given himself.
    pub fn of_a_visitor(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        if self.resumes {
            config.resumption = Resumption::in_memory_sessions(2);
        }
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// Whether sessions are resumed.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// The head of a request.
    pub fn head(&self, method: &str, path: &str, more: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: load\r\n{more}\r\n", self.host)
            .into_bytes()
    }
}

/// A full TLS 1.3 handshake every time, unless somebody gives it a place for sessions. The certificate is not judged; the work of
/// judging it would only slow the generator, which shares its core with the backend.
fn config(group: &str) -> Result<ClientConfig, Fault> {
    let provider = aws_lc_rs::default_provider();
    let kx_groups = match group {
        "x25519" => vec![aws_lc_rs::kx_group::X25519],
        "mlkem768" => vec![aws_lc_rs::kx_group::X25519MLKEM768],
        "any" => provider.kx_groups.clone(),
        other => return Err(format!("--group {other}: x25519, mlkem768 or any").into()),
    };
    let provider = CryptoProvider { kx_groups, ..provider };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Accepts the throw-away certificate of the run.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// An open connection.
pub struct Client {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Client {
    /// Connects and shakes hands.
    pub async fn open(target: &Target) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(SocketAddr::from((source(), 0)))?;
        let socket = socket.connect(target.address).await?;
        socket.set_nodelay(true)?;
        let mut tls =
            ClientConnection::new(target.config.clone(), target.name.clone()).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        let mut client = Self { socket, tls };
        let mut small = [0; 16 * 1024];
        while client.tls.is_handshaking() {
            client.flush().await?;
            if client.tls.is_handshaking() {
                client.fill(&mut small, &mut |_| Ok(())).await?;
            }
        }
        client.flush().await?;
        Ok(client)
    }

    /// Whether the session was one from before.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Encrypts and sends.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush().await
    }

    /// Reads one answer to its end: its status and the length of its body.
    pub async fn answer(&mut self, room: &mut Room) -> io::Result<(u16, u64)> {
        let mut answer = Answer::default();
        while !answer.is_complete() {
            self.fill(&mut room.bytes, &mut |plain| answer.take(plain)).await?;
        }
        Ok((answer.status, answer.length))
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Attempt(&self.socket)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads the socket once and gives every plaintext piece to `plain`.
    async fn fill(
        &mut self,
        room: &mut [u8],
        plain: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let n = loop {
            self.socket.readable().await?;
            match self.socket.try_read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        };
        let mut wire = room.get(..n).unwrap_or_default();
        while !wire.is_empty() {
            self.tls.read_tls(&mut wire)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            take_all(&mut self.tls.reader(), plain)?;
        }
        Ok(())
    }
}

fn take_all(from: &mut impl Read, plain: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => plain(piece.get(..n).unwrap_or_default())?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Where the connections of one task read to; kept out of `Client`, of which there may be thousands.
pub struct Room {
    bytes: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        Self { bytes: vec![0; READ] }
    }
}

/// A socket that is written as far as it goes.
struct Attempt<'a>(&'a TcpStream);

impl Write for Attempt<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sixty-four source addresses in turn, so that closed connections do not use up the local ports of one.
fn source() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(127, 0, 1, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 64)
}

/// One answer as it comes in. Every proxy here passes the backend's Content-Length on.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    status: u16,
    length: u64,
    left: Option<u64>,
}

impl Answer {
    fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    fn take(&mut self, plain: &[u8]) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(plain.len() as u64).ok_or_else(|| broken("more body than announced"))?;
            return Ok(());
        }
        self.head.extend_from_slice(plain);
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = parsed.parse(&self.head).map_err(io::Error::other)? else {
            return Ok(());
        };
        self.status = parsed.code.unwrap_or_default();
        self.length = length(parsed.headers).ok_or_else(|| broken("an answer without Content-Length"))?;
        let here = (self.head.len() - end) as u64;
        self.left = Some(self.length.checked_sub(here).ok_or_else(|| broken("more body than announced"))?);
        Ok(())
    }
}

/// The announced length of a body.
pub fn length(fields: &[httparse::Header<'_>]) -> Option<u64> {
    let field = fields.iter().find(|f| f.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(field.value).ok()?.trim().parse().ok()
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
