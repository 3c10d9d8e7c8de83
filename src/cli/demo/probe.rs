//! Asks the demo's site at both doors, with and without Ravelin, over real connections.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode};
use http_body::Body as _;
use rustls::pki_types::CertificateDer;

use crate::body::Body;
use crate::config::section::FromText as _;
use crate::fields::Fields;
use crate::http1::framing::RequestFraming;
use crate::load::Mark;
use crate::upstream::settings::Policy;
use crate::upstream::{Call, Endpoint, Limits, Upstream};

/// A public name: what an administrator wants to see is what the Internet would get.
pub(super) const NAME: &str = "www.example.org";
/// A foreign origin, for the question what another site may read.
pub(super) const STRANGER: &str = "https://stranger.example";

const PATIENCE: Duration = Duration::from_secs(10);

/// Where both sides are.
#[derive(Debug)]
pub(super) struct Doors {
    /// The site itself.
    pub(super) site: SocketAddr,
    /// Ravelin's port for https.
    pub(super) https: u16,
    /// Ravelin's port for http.
    pub(super) http: u16,
    /// Whom to believe over https.
    pub(super) root: CertificateDer<'static>,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// The site alone.
    pub(super) before: Side,
    /// The site behind Ravelin.
    pub(super) after: Side,
}

/// The answers of one side.
#[derive(Debug)]
pub(super) struct Side {
    /// Whether they came over TLS, with a certificate that was verified.
    pub(super) secure: bool,
    /// `/`
    pub(super) front: Answer,
    /// `/` over plain http.
    pub(super) plain: Answer,
    /// `/typo3/`, the login.
    pub(super) login: Answer,
    /// `/typo3`, which Apache redirects because it is a folder.
    pub(super) folder: Answer,
    /// `DELETE /`
    pub(super) delete: Answer,
    /// `TRACE /`
    pub(super) trace: Answer,
    /// What another site's script is told it may do.
    pub(super) preflight: Answer,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its end-to-end fields.
    pub(super) fields: Fields,
    /// Its body.
    pub(super) body: String,
}

/// Asks everything on both sides.
pub(super) async fn measure(doors: &Doors) -> Result<Measured, String> {
    let site = Door::open(&format!("http://{}", doors.site), NAME.to_owned(), None)?;
    let https = named(doors.https);
    let https = Door::open(&format!("https://localhost:{}", doors.https), https, Some(&doors.root))?;
    let http = Door::open(&format!("http://localhost:{}", doors.http), named(doors.http), None)?;
    Ok(Measured {
        before: Side::ask(&site, &site, false).await?,
        after: Side::ask(&https, &http, true).await?,
    })
}

/// `Host` for a port that does not go without saying.
fn named(port: u16) -> String {
    format!("{NAME}:{port}")
}

impl Side {
    async fn ask(door: &Door, plain: &Door, secure: bool) -> Result<Self, String> {
        let preflight = format!("origin: {STRANGER}\r\naccess-control-request-method: POST\r\n");
        Ok(Self {
            secure,
            front: door.ask(Method::GET, "/", "").await?,
            plain: plain.ask(Method::GET, "/", "").await?,
            login: door.ask(Method::GET, "/typo3/", "").await?,
            folder: door.ask(Method::GET, "/typo3", "").await?,
            delete: door.ask(Method::DELETE, "/", "").await?,
            trace: door.ask(Method::TRACE, "/", "").await?,
            preflight: door.ask(Method::OPTIONS, "/", &preflight).await?,
        })
    }
}

/// One address to ask at, under one name.
struct Door {
    url: String,
    host: String,
    upstream: Upstream,
}

impl Door {
    fn open(url: &str, host: String, root: Option<&CertificateDer<'static>>) -> Result<Self, String> {
        let endpoint = Endpoint::from_text(url).map_err(|fault| fault.message)?;
        let policy = Policy::single(endpoint, root).map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { url: url.to_owned(), host, upstream: Upstream::new(&policy, Limits::default(), 1) })
    }

    async fn ask(&self, method: Method, path: &str, more: &str) -> Result<Answer, String> {
        let failed = |why: &dyn std::fmt::Display| format!("asking {}{path} failed: {why}", self.url);
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\naccept: text/html\r\n{more}\r\n", self.host);
        let call = Call {
            client: Mark::default(),
            method,
            head: BytesMut::from(head.as_str()),
            framing: RequestFraming::None,
            body: Body::empty(),
            websocket: false,
            first_byte: PATIENCE,
            many_streams: false,
        };
        let reply = self.upstream.send(0, call).await.map_err(|error| failed(&error))?.reply;
        let body = text(reply.body).await.map_err(|error| failed(&error))?;
        Ok(Answer { status: reply.status, fields: reply.fields, body })
    }
}

async fn text(mut body: Body) -> Result<String, crate::body::BodyError> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend(frame?.into_data().unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
