//! Pingora, configured for the referee's job: a small proxy built on its framework, as its users build theirs.
//!
//! `peer-pingora JOB` reads a JSON file: `port`, `origin`, `host`, `chain`, `key`, `log` and `headers` (pairs of
//! name and value). It answers GET, HEAD and POST, refuses everything below `/deny/`, adds the headers to every
//! answer, and writes one JSON line for each request through a buffer of 64 KiB that is flushed each second,
//! which is what nginx does.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{Error, HttpPeer, ProxyHttp, Result, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Log = Arc<Mutex<BufWriter<File>>>;

/// What is the same for every request.
struct Proxy {
    origin: (&'static str, u16),
    port: HeaderValue,
    headers: Vec<(HeaderName, HeaderValue)>,
    log: Log,
}

impl Proxy {
    fn harden(&self, answer: &mut ResponseHeader) -> Result<()> {
        answer.remove_header("server");
        answer.remove_header("x-powered-by");
        for (name, value) in &self.headers {
            answer.insert_header(name.clone(), value.clone())?;
        }
        Ok(())
    }

    async fn refuse(&self, session: &mut Session, status: u16) -> Result<bool> {
        let mut answer = ResponseHeader::build(status, Some(self.headers.len() + 1))?;
        answer.insert_header("content-length", "0")?;
        self.harden(&mut answer)?;
        session.write_response_header(Box::new(answer), true).await?;
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Instant;

    fn new_ctx(&self) -> Instant {
        Instant::now()
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Instant) -> Result<bool> {
        let head = session.req_header();
        if !matches!(head.method.as_str(), "GET" | "HEAD" | "POST") {
            return self.refuse(session, 405).await;
        }
        if head.uri.path().starts_with("/deny/") {
            return self.refuse(session, 403).await;
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Instant) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        _: &mut Instant,
    ) -> Result<()> {
        let host = host(session.req_header());
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            head.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        if let Ok(host) = HeaderValue::from_str(&host) {
            head.insert_header("host", host.clone())?;
            head.insert_header("x-forwarded-host", host)?;
        }
        head.insert_header("x-forwarded-proto", HeaderValue::from_static("https"))?;
        head.insert_header("x-forwarded-port", self.port.clone())
    }

    async fn response_filter(&self, _: &mut Session, answer: &mut ResponseHeader, _: &mut Instant) -> Result<()> {
        self.harden(answer)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, begin: &mut Instant) {
        let head = session.req_header();
        let field = |name: &str| text(head.headers.get(name));
        let line = serde_json::json!({
            "time": SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            "client": session.client_addr().map(ToString::to_string),
            "method": head.method.as_str(),
            "host": host(head),
            "path": head.uri.path(),
            "protocol": format!("{:?}", head.version),
            "status": session.response_written().map_or(0, |answer| answer.status.as_u16()),
            "bytes": session.body_bytes_sent(),
            "seconds": begin.elapsed().as_secs_f64(),
            "referer": field("referer"),
            "agent": field("user-agent"),
            "error": error.map(ToString::to_string),
        });
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written is the referee's to notice: it counts lines.
        let _ = writeln!(log, "{line}");
    }
}

fn host(head: &RequestHeader) -> String {
    head.uri.authority().map_or_else(|| text(head.headers.get("host")), ToString::to_string)
}

fn text(value: Option<&HeaderValue>) -> String {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn main() {
    if let Err(fault) = run() {
        eprintln!("peer-pingora: {fault}");
        std::process::exit(1);
    }
}

fn run() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: peer-pingora JOB")?;
    let job: serde_json::Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let word = |name: &str| job[name].as_str().map(str::to_owned).ok_or(format!("no `{name}`"));
    let number = |name: &str| {
        job[name].as_u64().and_then(|n| u16::try_from(n).ok()).ok_or(format!("no `{name}`"))
    };
    let headers = job["headers"].as_object().ok_or("no `headers`")?;
    let headers = headers
        .iter()
        .map(|(name, value)| Ok((name.parse()?, HeaderValue::from_str(value.as_str().unwrap_or_default())?)))
        .collect::<std::result::Result<_, Box<dyn std::error::Error>>>()?;
    let log = File::options().append(true).create(true).open(word("log")?)?;
    let log: Log = Arc::new(Mutex::new(BufWriter::with_capacity(64 << 10, log)));
    flush_each_second(&log);

    let conf = ServerConf { threads: 1, work_stealing: false, upstream_keepalive_pool_size: 512, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let port = number("port")?;
    let proxy = Proxy { origin: ("127.0.0.1", number("origin")?), port: port.into(), headers, log };
    let mut service = http_proxy_service(&server.configuration, proxy);
    let mut tls = TlsSettings::intermediate(&word("chain")?, &word("key")?)?;
    tls.enable_h2();
    // The intermediate profile ends at TLS 1.2; the job is 1.3.
    tls.set_max_proto_version(Some(pingora::tls::ssl::SslVersion::TLS1_3))?;
    tls.set_curves_list("X25519MLKEM768:X25519:P-256")?;
    service.add_tls_with_settings(&format!("127.0.0.1:{port}"), None, tls);
    server.add_service(service);
    server.run_forever()
}

fn flush_each_second(log: &Log) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            let _ = log.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    });
}
