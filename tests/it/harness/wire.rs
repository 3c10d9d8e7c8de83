//! A raw connection: exactly the bytes that a test sends, and every byte that comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::reply::Reply;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection to a listener.
pub(crate) struct Wire {
    stream: Stream,
    unread: Vec<u8>,
}

impl Wire {
    /// Connects without TLS.
    #[track_caller]
    pub(crate) fn plain(port: u16) -> Self {
        Self { stream: Stream::Plain(connect(port)), unread: Vec::new() }
    }

    /// Connects with TLS, trusting `authority`, offering `alpn`.
    #[track_caller]
    pub(crate) fn tls(port: u16, host: &str, authority: &str, alpn: &[&[u8]]) -> Self {
        let name = ServerName::try_from(host.to_owned()).expect("a host name");
        let client = ClientConnection::new(client_config(authority, alpn), name).expect("a TLS client");
        let mut stream = StreamOwned::new(client, connect(port));
        stream.flush().unwrap_or_else(|error| panic!("the TLS handshake with {host} failed: {error}"));
        Self { stream: Stream::Tls(Box::new(stream)), unread: Vec::new() }
    }

    /// Connects with TLS and these settings, as a client that may be turned away.
    pub(crate) fn tls_as(port: u16, host: &str, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(host.to_owned()).expect("a host name");
        let client = ClientConnection::new(Arc::clone(config), name).expect("a TLS client");
        let mut stream = StreamOwned::new(client, connect(port));
        let _ = stream.flush();
        Self { stream: Stream::Tls(Box::new(stream)), unread: Vec::new() }
    }

    /// Whether TLS went on with an earlier session.
    pub(crate) fn resumed(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }

    /// Sends these bytes; a peer that has closed already is no failure here, the next read tells.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        let _ = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        self
    }

    /// Says that nothing more will be sent, and still listens.
    pub(crate) fn finish(&mut self) -> &mut Self {
        match &mut self.stream {
            Stream::Plain(stream) => drop(stream.shutdown(Shutdown::Write)),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
        self
    }

    /// Sends text in which `\n` stands for CR LF.
    pub(crate) fn say(&mut self, lines: &str) -> &mut Self {
        self.send(lines.replace('\n', "\r\n"))
    }

    /// Reads one final response with its body.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.reply_to("GET")
    }

    /// Reads one final response of at most ten seconds that gives its length; none if there is none.
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let secure = matches!(self.stream, Stream::Tls(_));
        loop {
            let mut all = Vec::new();
            super::front::replies(&self.unread, false, &mut all);
            let ended = self.more_within(Duration::from_millis(20)) == Some(false);
            if let Some(reply) = all.into_iter().next() {
                return Some(Reply { secure, ..reply });
            }
            if ended || Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// Reads one final response to a request of `method`: HEAD has no body.
    #[track_caller]
    pub(crate) fn reply_to(&mut self, method: &str) -> Reply {
        let mut interim = Vec::new();
        loop {
            let head = self.head();
            if (100..200).contains(&head.status) && head.status != 101 {
                interim.push(head.status);
                continue;
            }
            let body = self.body(method, &head);
            return Reply { body, interim, ..head };
        }
    }

    /// Reads one response head, interim or final, and nothing more.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Reply {
        let bytes = self.until(b"\r\n\r\n");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let head = Reply::from_head(&text).unwrap_or_else(|| panic!("not a response head: {text:?}"));
        Reply { secure: matches!(self.stream, Stream::Tls(_)), ..head }
    }

    /// Reads exactly `count` bytes.
    #[track_caller]
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.more(), "closed after {} of {count} bytes", self.unread.len());
        }
        self.unread.drain(..count).collect()
    }

    /// Everything until the peer closes; it must close within `patience`. Also says how long it took.
    #[track_caller]
    pub(crate) fn until_closed(&mut self, patience: Duration) -> (Vec<u8>, Duration) {
        let began = Instant::now();
        while self.more_within(patience.saturating_sub(began.elapsed())).is_some_and(|more| more) {
            assert!(began.elapsed() < patience, "not closed within {patience:?}");
        }
        let took = began.elapsed();
        assert!(took < patience, "not closed within {patience:?}; got {:?}", self.so_far());
        (std::mem::take(&mut self.unread), took)
    }

    /// Everything until the end, and whether that was a farewell (FIN) rather than a reset. Without TLS only.
    #[track_caller]
    pub(crate) fn until_the_end(&mut self) -> (Vec<u8>, bool) {
        let Stream::Plain(stream) = &mut self.stream else { panic!("TLS has a farewell of its own") };
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut bytes = std::mem::take(&mut self.unread);
        match stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, false),
            Err(error) => panic!("no end: {error}"),
        }
    }

    /// Whatever comes until the peer closes or is silent for `silence`, and whether it closed.
    pub(crate) fn whatever(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        loop {
            match self.more_within(silence) {
                Some(true) => {}
                Some(false) => return (std::mem::take(&mut self.unread), true),
                None => return (std::mem::take(&mut self.unread), false),
            }
        }
    }

    /// The application protocol that TLS agreed on.
    pub(crate) fn alpn(&self) -> Option<String> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => {
                stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
            }
        }
    }

    /// The name of the key exchange that TLS agreed on.
    pub(crate) fn key_exchange(&self) -> Option<String> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => {
                stream.conn.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()))
            }
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    #[track_caller]
    fn body(&mut self, method: &str, head: &Reply) -> Vec<u8> {
        if method == "HEAD" || head.status < 200 || head.status == 204 || head.status == 304 {
            return Vec::new();
        }
        if head.header("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        if let Some(length) = head.header("content-length") {
            return self.exactly(length.parse().expect("a length"));
        }
        self.until_closed(PATIENCE).0
    }

    #[track_caller]
    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n");
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                assert_eq!(self.until(b"\r\n"), b"\r\n", "trailers must be dropped");
                return body;
            }
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n", "the end of a chunk");
        }
    }

    #[track_caller]
    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let at = self.unread.windows(end.len()).position(|window| window == end);
            if let Some(at) = at {
                return self.unread.drain(..at + end.len()).collect();
            }
            assert!(self.more(), "closed before {end:?}; got {:?}", self.so_far());
        }
    }

    /// Reads once; false at the end.
    #[track_caller]
    fn more(&mut self) -> bool {
        let more = self.more_within(PATIENCE);
        more.unwrap_or_else(|| panic!("silent for {PATIENCE:?}; got {:?}", self.so_far()))
    }

    /// Reads once: whether something came, or the end did; none if it stayed silent. A reset is an end.
    fn more_within(&mut self, patience: Duration) -> Option<bool> {
        let patience = patience.max(Duration::from_millis(1));
        let mut buffer = vec![0; 64 * 1024];
        let result = match &mut self.stream {
            Stream::Plain(stream) => {
                let _ = stream.set_read_timeout(Some(patience));
                stream.read(&mut buffer)
            }
            Stream::Tls(stream) => {
                let _ = stream.sock.set_read_timeout(Some(patience));
                stream.read(&mut buffer)
            }
        };
        match result {
            Ok(0) => Some(false),
            Ok(count) => {
                self.unread.extend(buffer.iter().take(count));
                Some(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(_) => Some(false),
        }
    }
}

/// A TLS client's settings: trusting `authority`, offering `alpn`.
pub(crate) fn client_config(authority: &str, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("the authority is PEM");
    roots.add(authority).expect("the authority is a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

#[track_caller]
fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port));
    let stream = stream.unwrap_or_else(|error| panic!("cannot connect to port {port}: {error}"));
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(PATIENCE));
    let _ = stream.set_read_timeout(Some(PATIENCE));
    stream
}
