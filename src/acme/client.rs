//! HTTP to an ACME directory: one request, one verified connection, an answer of bounded size.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::stream::Stream;

/// How long a request may take, from the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer answer is no answer of an ACME server.
const LARGEST: usize = 1 << 20;

/// A client that trusts the roots in this configuration.
#[derive(Debug)]
pub(super) struct Client(pub(super) Arc<ClientConfig>);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let config = Arc::clone(&self.0);
        Box::pin(async move {
            let uri = request.uri().clone();
            let failed = |why: String| Error::Other(format!("{uri}: {why}").into());
            match timeout(PATIENCE, ask(config, request)).await {
                Ok(answer) => answer.map_err(failed),
                Err(_) => Err(failed("no answer within 30 s".to_owned())),
            }
        })
    }
}

async fn ask(
    config: Arc<ClientConfig>,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let (mut parts, body) = request.into_parts();
    if parts.uri.scheme_str() != Some("https") {
        return Err("ACME is spoken over https only".to_owned());
    }
    let authority = parts.uri.authority().cloned().ok_or("there is no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await;
    let tcp = tcp.map_err(|error| said(&error))?;
    let name = ServerName::try_from(host).map_err(|error| said(&error))?;
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| said(&error))?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    parts.uri = path.parse::<Uri>().map_err(|error| said(&error))?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|error| said(&error))?;
    parts.headers.insert(HOST, host);
    let shaken = hyper::client::conn::http1::handshake(Stream(tls)).await;
    let (mut sender, connection) = shaken.map_err(|error| said(&error))?;
    let talk = async move {
        let answer = sender.send_request(Request::from_parts(parts, body)).await;
        let (parts, body) = answer.map_err(|error| said(&error))?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| said(&error))?;
        Ok::<_, String>(BytesResponse { parts, body: Box::new(body.to_bytes()) })
    };
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        // Its end may come with the last byte of the answer.
        _ = connection => talk.await,
    }
}
