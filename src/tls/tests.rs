//! TLS as clients meet it: rustls and hyper on one side of a real socket, our stream and hyper on the
//! other.

mod http;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::{
    AcceptError, Alpn, Certificate, DevCa, Facts, Policy, Profile, Store, TlsStream, UnknownName, accept,
    lazy,
};
use crate::clock;
use crate::config::complaint::Complaints;

/// A CA, a certificate for `localhost`, and the configurations of both sides.
struct Stage {
    server: Arc<ServerConfig>,
    client: ClientConfig,
    roots: RootCertStore,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(UnknownName::Default)
    }

    fn with(unknown: UnknownName) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::open(&directory.path().join("ca"), clock::wall()).unwrap();
        let leaf = ca.issue(&["localhost"], clock::wall()).unwrap();
        let server = server_config(&[leaf], unknown);
        let roots = roots(&ca);
        let client = ClientConfig::builder_with_provider(Arc::new(super::policy::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        Self { server, client, roots, _directory: directory }
    }

    fn roots(&self) -> RootCertStore {
        self.roots.clone()
    }

    fn offering(mut self, protocol: &[u8]) -> Self {
        self.client.alpn_protocols = vec![protocol.to_vec()];
        self
    }

    /// A listener that shakes hands once.
    async fn listen_once(&self) -> (SocketAddr, JoinHandle<Result<(TlsStream, Facts), AcceptError>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::clone(&self.server);
        let accepted = tokio::spawn(async move {
            let (io, _) = listener.accept().await.unwrap();
            accept(io, Arc::new(config.into()), Bytes::new()).await
        });
        (address, accepted)
    }

    async fn connect(&self, io: TcpStream, name: &str) -> io::Result<ClientStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(self.client.clone())).connect(name, io).await
    }

    /// Both ends of a fresh connection, after the handshake.
    async fn pair(&self) -> (ClientStream<TcpStream>, TlsStream) {
        let (client, server, _) = self.pair_and_facts().await;
        (client, server)
    }

    /// The same, and what the handshake agreed on.
    async fn pair_and_facts(&self) -> (ClientStream<TcpStream>, TlsStream, Facts) {
        let (address, accepted) = self.listen_once().await;
        let io = TcpStream::connect(address).await.unwrap();
        let client = self.connect(io, "localhost").await.unwrap();
        let (server, facts) = accepted.await.unwrap().unwrap();
        (client, server, facts)
    }

    /// The client's end of a connection that our hyper server serves.
    async fn served(&self) -> ClientStream<TcpStream> {
        let (client, server, facts) = self.pair_and_facts().await;
        tokio::spawn(serve(server, facts.alpn));
        client
    }
}

fn roots(ca: &DevCa) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.root_file()).unwrap()).unwrap();
    roots
}

fn server_config(certificates: &[Arc<Certificate>], unknown: UnknownName) -> Arc<ServerConfig> {
    let mut complaints = Complaints::default();
    let store = Store::new(certificates, None, unknown, None, &mut complaints).unwrap();
    assert!(complaints.is_empty(), "{complaints}");
    Policy::new()
        .unwrap()
        .server_config(Arc::new(store), &Profile::default(), &crate::tls::clients::Policy::off())
        .unwrap()
}

/// `length` bytes that repeat at no small distance.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap()).collect::<Vec<_>>().into()
}

/// Serves one connection as the product does.
async fn serve(io: TlsStream, alpn: Alpn) {
    match alpn {
        Alpn::Http1 => {
            let _ = http1::Builder::new().serve_connection(io, service_fn(answer)).await;
        }
        Alpn::Acme => {}
        Alpn::Http2 => {
            let (io, flusher) = lazy(io);
            let mut connection = pin!(http2::Builder::new(Spawn).serve_connection(io, service_fn(answer)));
            let _ = std::future::poll_fn(|cx| flusher.drive(connection.as_mut(), cx)).await;
        }
    }
}

type Answer = BoxBody<Bytes, hyper::Error>;

/// `/echo` gives the body back, `/bytes/N` gives N bytes, `/pieces/N` gives N pieces of 7 bytes.
async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    let number = |prefix| path.strip_prefix(prefix).map(|n: &str| n.parse::<usize>().unwrap());
    let body = if let Some(length) = number("/bytes/") {
        Full::new(pattern(length)).map_err(|never| match never {}).boxed()
    } else if let Some(count) = number("/pieces/") {
        let all = pattern(count * 7);
        let pieces = (0..count).map(move |i| Ok(Frame::data(all.slice(i * 7..i * 7 + 7))));
        StreamBody::new(futures_util::stream::iter(pieces)).boxed()
    } else {
        request.into_body().boxed()
    };
    Ok(Response::new(body))
}

/// hyper's executor on tokio.
#[derive(Clone)]
struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A tokio stream as hyper's client wants it.
struct Io<T>(T);

impl<T: AsyncRead + Unpin> Read for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; cursor.remaining().min(65_536)];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
