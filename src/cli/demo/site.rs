//! The demo's origin: a small site that answers as TYPO3 13 does behind Apache, leaks and gaps included.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPIRES, HOST, HeaderName,
    LOCATION, PRAGMA, REFERRER_POLICY, SERVER, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::body::Body;
use crate::runtime;
use crate::tls::Plain;

const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";
const LOGO: &str = include_str!("logo.svg");

/// The pages, with the addresses of this run in them.
struct Site {
    front: Bytes,
    frame: Bytes,
    stranger: Bytes,
    login: Bytes,
    absent: Bytes,
}

/// Serves the site on a loopback port of the kernel's choice, in a thread of its own, until the process
/// ends. `secure` is where Ravelin stands in front of it.
pub(super) fn start(secure: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let site = Arc::new(Site::at(address.port(), secure));
    thread::Builder::new().name("demo-site".to_owned()).spawn(move || {
        if let Err(error) = runtime::control(serve(listener, site)).and_then(|served| served) {
            tracing::error!(%error, "the demo's site stopped");
        }
    })?;
    Ok(address)
}

async fn serve(listener: TcpListener, site: Arc<Site>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = site.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection =
                http1::Builder::new().serve_connection(Plain::new(socket, Bytes::new()), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the demo's site lost a connection");
            }
        });
    }
}

impl Site {
    fn at(port: u16, secure: &str) -> Self {
        let page = |template: &str| {
            let page = template.replace("{{secure}}", secure);
            let page = page.replace("{{alone}}", &format!("http://localhost:{port}"));
            // Another host, and so another site to a browser.
            Bytes::from(page.replace("{{stranger}}", &format!("http://127.0.0.1:{port}")))
        };
        Self {
            front: page(include_str!("page.html")),
            frame: page(include_str!("frame.html")),
            stranger: page(include_str!("stranger.html")),
            login: page(include_str!("login.html")),
            absent: page(include_str!("absent.html")),
        }
    }

    /// Like TYPO3 it does not care for the method, and like Apache it answers TRACE.
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut response = match request.uri().path() {
            "/" => visited(frontend(StatusCode::OK, &self.front)),
            "/frame" => frontend(StatusCode::OK, &self.frame),
            "/stranger" => frontend(StatusCode::OK, &self.stranger),
            "/typo3" => folder(request),
            "/typo3/" | "/typo3/login" => self.backend(request),
            "/fileadmin/logo.svg" => typed(StatusCode::OK, Bytes::from_static(LOGO.as_bytes()), SVG),
            _ => frontend(StatusCode::NOT_FOUND, &self.absent),
        };
        // What an ordinary PHP installation tells everybody.
        set(&mut response, SERVER, "Apache/2.4.62 (Debian)");
        set(&mut response, HeaderName::from_static("x-powered-by"), "PHP/8.2.29");
        response
    }

    /// The login page. TYPO3 sends headers of its own here; a wrong password is answered with 200, and
    /// every answer without a session deletes the session cookie.
    fn backend(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut response = typed(StatusCode::OK, self.login.clone(), HTML);
        set(&mut response, X_FRAME_OPTIONS, "SAMEORIGIN");
        set(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(&mut response, REFERRER_POLICY, "strict-origin-when-cross-origin");
        // A real nonce is another one in every answer; this page has no script that needs it.
        let policy = "default-src 'self'; script-src 'self' 'nonce-cmF2ZWxpbg' 'report-sample'; \
                      style-src 'self' 'unsafe-inline' 'report-sample'; \
                      style-src-attr 'unsafe-inline' 'report-sample'; \
                      img-src 'self' data: *.ytimg.com *.vimeocdn.com; \
                      frame-src 'self' *.youtube-nocookie.com *.youtube.com *.vimeo.com; \
                      base-uri 'none'; object-src 'none'";
        set(&mut response, CONTENT_SECURITY_POLICY, policy);
        set(&mut response, EXPIRES, "0");
        set(&mut response, CACHE_CONTROL, "no-cache, no-store");
        set(&mut response, PRAGMA, "no-cache");
        add(&mut response, "be_typo_user=deleted; Max-Age=0; path=/; httponly; samesite=lax");
        if request.method() != Method::POST {
            add(
                &mut response,
                "typo3nonce_5f2c=eyJhbGciOiJIUzI1NiJ9.e30.b2Rl; path=/; httponly; samesite=strict",
            );
        }
        response
    }
}

/// A page of the front end: no security header, and with debugging left on a little too much of others.
fn frontend(status: StatusCode, page: &Bytes) -> Response<Body> {
    let mut response = typed(status, page.clone(), HTML);
    set(&mut response, CONTENT_LANGUAGE, "en-US");
    set(&mut response, CACHE_CONTROL, "private, no-store");
    set(&mut response, HeaderName::from_static("x-ua-compatible"), "IE=edge");
    set(&mut response, HeaderName::from_static("x-typo3-parsetime"), "12ms");
    response
}

/// The same with the cookies of a visitor: one that a PHP extension sets, and TYPO3's own.
fn visited(mut response: Response<Body>) -> Response<Body> {
    add(&mut response, "PHPSESSID=0f5fd4a1c96b7d2e; path=/");
    add(&mut response, "fe_typo_user=eyJhbGciOiJIUzI1NiJ9.e30.c2l0ZQ; path=/; httponly; samesite=lax");
    response
}

/// Apache's own redirect for a folder names http: it does not know of the https in front of it.
fn folder(request: &Request<Incoming>) -> Response<Body> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let mut response = typed(StatusCode::MOVED_PERMANENTLY, Bytes::new(), HTML);
    set(&mut response, LOCATION, &format!("http://{host}/typo3/"));
    response
}

fn typed(status: StatusCode, content: Bytes, kind: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(content));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, kind);
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn add(response: &mut Response<Body>, cookie: &'static str) {
    response.headers_mut().append(SET_COOKIE, HeaderValue::from_static(cookie));
}
