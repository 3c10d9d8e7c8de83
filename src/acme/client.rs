//! HTTP to an ACME directory: one request, one verified connection, an answer of bounded size.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::stream::Stream;
use crate::clock;

/// How long a request may take, from the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer answer is no answer of an ACME server.
const LARGEST: usize = 1 << 20;

/// The limits of public CAs are counted by the week: nobody is believed who wants to be left alone for longer.
pub(super) const LONGEST: Duration = Duration::from_hours(7 * 24);

/// The CA was asked too often, and says for how long it is to be left alone.
#[derive(Debug)]
pub(super) struct TooOften {
    pub(super) why: String,
    pub(super) after: Duration,
}

impl fmt::Display for TooOften {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for TooOften {}

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
                Ok(Ok(mut answer)) => match not_before(&answer, clock::wall()) {
                    Some(after) => {
                        Err(Error::Other(Box::new(TooOften { why: said(&mut answer).await, after })))
                    }
                    None => Ok(answer),
                },
                Ok(Err(why)) => Err(failed(why)),
                Err(_) => Err(failed("no answer within 30 s".to_owned())),
            }
        })
    }
}

/// For how long the CA does not want to be asked again, if it was asked too often (RFC 8555 section 6.6).
fn not_before(answer: &BytesResponse, now: SystemTime) -> Option<Duration> {
    if !matches!(answer.parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    retry_after(answer.parts.headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Seconds, or a date (RFC 9110 section 10.2.3); never longer than [`LONGEST`].
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

/// The CA's words.
async fn said(answer: &mut BytesResponse) -> String {
    let status = answer.parts.status;
    let body = answer.body.into_bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.to_string(),
        Err(_) => format!("it answers {status}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_says_how_long_in_seconds_or_by_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("Fri, 02 Jan 1970 00:01:00 GMT", now), Some(Duration::from_mins(1)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now), Some(Duration::ZERO), "it has passed");
        assert_eq!(retry_after("18446744073709551615", now), Some(LONGEST));
        assert_eq!(retry_after("soon", now), None);
    }
}
