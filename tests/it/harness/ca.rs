//! What a newer ACME server has, in front of pebble: renewal information (RFC 9773), profiles, and limits. Everything else
//! passes through; pebble makes its URLs from the Host field, so that they lead here and the signatures over them hold.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::{certs, wire};

/// It serves for as long as the test process lives.
pub(crate) struct Ca {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    pebble: u16,
    /// The suggested window, if any was set: start and end, RFC 3339.
    window: Mutex<Option<(String, String)>>,
    /// What is answered to new orders instead of passing them on: more fields of the head.
    limited: Mutex<Option<String>>,
    orders: Mutex<Vec<Value>>,
    asked: Mutex<Vec<String>>,
}

impl Ca {
    /// In front of the pebble at this port; `dir` gets its key.
    pub(crate) fn before(pebble: u16, dir: &Path) -> Self {
        let pair = certs::issue(dir, "ca", &["localhost"]);
        let chain = vec![CertificateDer::from_pem_file(&pair.chain).expect("the chain")];
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("the key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.expect("a server's settings"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            pebble,
            window: Mutex::default(),
            limited: Mutex::default(),
            orders: Mutex::default(),
            asked: Mutex::default(),
        });
        let serves = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (shared, config) = (Arc::clone(&serves), Arc::clone(&config));
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(config).expect("a connection");
                    // A client that goes away is no failure.
                    let _ = shared.serve(&mut StreamOwned::new(connection, socket));
                });
            }
        });
        Self { port, shared }
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Suggests to renew in this window (RFC 3339).
    pub(crate) fn suggest(&self, start: &str, end: &str) {
        *self.shared.window.lock().expect("no panic") = Some((start.to_owned(), end.to_owned()));
    }

    /// Refuses new orders as too many, with this field in the answer; takes them again if there is none.
    pub(crate) fn limit(&self, field: Option<&str>) {
        *self.shared.limited.lock().expect("no panic") = field.map(str::to_owned);
    }

    /// What new orders said.
    pub(crate) fn orders(&self) -> Vec<Value> {
        self.shared.orders.lock().expect("no panic").clone()
    }

    /// The certificates that it was asked about, as RFC 9773 names them.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("no panic").clone()
    }
}

impl Shared {
    fn serve(&self, client: &mut (impl Read + Write)) -> std::io::Result<()> {
        let (head, body) = request(client)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Some(id) = path.strip_prefix("/renewal/") {
            self.asked.lock().expect("no panic").push(id.to_owned());
            let window = self.window.lock().expect("no panic").clone();
            let (start, end) =
                window.unwrap_or(("2999-01-01T00:00:00Z".into(), "2999-01-02T00:00:00Z".into()));
            let said = json!({"suggestedWindow": {"start": start, "end": end}}).to_string();
            return answer(client, "200 OK", "Retry-After: 21600", &said);
        }
        let mut replaces = Value::Null;
        if path == "/order-plz" {
            let jws: Value = serde_json::from_slice(&body).unwrap_or_default();
            let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str().unwrap_or_default());
            let payload: Value = serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or_default();
            replaces = payload["replaces"].clone();
            self.orders.lock().expect("no panic").push(payload);
            if let Some(field) = self.limited.lock().expect("no panic").clone() {
                let said = json!({
                    "type": "urn:ietf:params:acme:error:rateLimited",
                    "detail": "too many certificates already issued"
                });
                return answer(client, "429 Too Many Requests", &field, &said.to_string());
            }
        }
        let reply = self.ask_pebble(&head, &body)?;
        let text = String::from_utf8_lossy(&reply).into_owned();
        let (head, own) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
        match (path.as_str(), serde_json::from_str::<Value>(own)) {
            ("/dir", Ok(mut directory)) => {
                let new = directory["newOrder"].as_str().and_then(|url| url.strip_suffix("/order-plz"));
                directory["renewalInfo"] = json!(format!("{}/renewal", new.expect("its URL")));
                directory["meta"]["profiles"] = json!({"classic": "as ever", "shortlived": "six days"});
                answer(client, "200 OK", "Cache-Control: no-store", &directory.to_string())
            }
            // An order says what it replaces (RFC 9773 section 5).
            ("/order-plz", Ok(mut order)) if !replaces.is_null() && head.starts_with("HTTP/1.1 201 ") => {
                order["replaces"] = replaces;
                let own = |line: &&str| line.starts_with("Replay-Nonce") || line.starts_with("Location");
                let fields: Vec<&str> = head.lines().filter(own).collect();
                answer(client, "201 Created", &fields.join("\r\n"), &order.to_string())
            }
            _ => client.write_all(&reply).and_then(|()| client.flush()),
        }
    }

    fn ask_pebble(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(wire::client_config(&certs::authority_pem(), &[]), name);
        let socket = TcpStream::connect(("127.0.0.1", self.pebble))?;
        let mut stream = StreamOwned::new(client.expect("a client"), socket);
        let head = head.trim_end().to_owned() + "\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reply = Vec::new();
        // Whether it says farewell as TLS wants it is its own business.
        let _ = stream.read_to_end(&mut reply);
        Ok(reply)
    }
}

/// The head with its empty line, and the body.
fn request(client: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().filter_map(|line| line.split_once(':'));
            let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.find_map(|(_, value)| value.trim().parse::<usize>().ok()).unwrap_or(0);
            if bytes.len() >= end + length {
                return Ok((head, bytes[end..].to_vec()));
            }
        }
        match client.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

fn answer(client: &mut impl Write, status: &str, field: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{field}");
    write!(client, "{head}\r\nConnection: close\r\n\r\n{body}")?;
    client.flush()
}
