//! An origin that does exactly what a case of the corpus says, on every connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Deserialize;
use socket2::{Domain, SockRef, Socket, Type};

/// The most that a flood sends: far more than anybody may take.
const FLOOD: usize = 256 << 20;
/// How long a trickle or a stall may go on: far longer than any limit of a test.
const PATIENCE: Duration = Duration::from_mins(1);

/// When the origin begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum At {
    /// Nothing listens.
    Nobody,
    /// As soon as it is connected to.
    Accept,
    /// When it has read the request's head.
    Head,
    /// When it has read all of the request.
    #[default]
    Request,
}

/// One thing that it does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Act {
    /// Sends these bytes.
    Say(String),
    /// Sends these bytes again and again.
    Flood(String),
    /// Sends this byte every 100 ms.
    Trickle(String),
    /// Does nothing for so many milliseconds.
    Wait(u64),
    /// Does nothing until the proxy closes.
    Stall,
    /// Awaits the next request.
    Next,
    /// Closes with a reset.
    Reset,
}

/// The origin; a request for `/healthy` gets a good answer, whatever it does otherwise.
pub(crate) struct Evil {
    port: u16,
    _silent: Option<Socket>,
    asked: Arc<AtomicUsize>,
    acted: Arc<AtomicUsize>,
    healthy: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Part {
    at: At,
    acts: Arc<[Act]>,
    asked: Arc<AtomicUsize>,
    acted: Arc<AtomicUsize>,
    healthy: Arc<AtomicBool>,
}

impl Evil {
    /// One that does `acts`.
    pub(crate) fn doing(at: At, acts: &[Act]) -> Self {
        // Bound and not listening, a socket refuses connections and keeps its port from everybody else.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        let port =
            socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address").port();
        let (asked, acted) = (Arc::default(), Arc::default());
        let (healthy, stopping) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let part = Part {
            at,
            acts: acts.into(),
            asked: Arc::clone(&asked),
            acted: Arc::clone(&acted),
            healthy: Arc::clone(&healthy),
        };
        let stop = Arc::clone(&stopping);
        let silent = if at == At::Nobody {
            Some(socket)
        } else {
            socket.listen(128).expect("it listens");
            let listener = TcpListener::from(socket);
            std::thread::spawn(move || {
                for socket in listener.incoming().map_while(Result::ok) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let part = part.clone();
                    std::thread::spawn(move || part.play(socket));
                }
            });
            None
        };
        Self { port, _silent: silent, asked, acted, healthy, stopping }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests it saw since it was last asked, those for `/healthy` left out.
    pub(crate) fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }

    /// How often it has done all that it does.
    pub(crate) fn acted(&self) -> usize {
        self.acted.load(Ordering::SeqCst)
    }

    /// From now on it answers well, or does what it did before.
    pub(crate) fn mend(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::SeqCst);
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that the port is closed at once.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Part {
    fn play(&self, mut socket: TcpStream) {
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let _ = socket.set_nodelay(true);
        while self.at == At::Accept && !self.healthy.load(Ordering::SeqCst) || self.receive(&mut socket) {
            if self.healthy.load(Ordering::SeqCst) {
                let _ =
                    socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
                break;
            }
            let goes_on = self.acts.iter().any(|act| perform(act, &mut socket));
            self.acted.fetch_add(1, Ordering::SeqCst);
            if !goes_on {
                break;
            }
        }
    }

    /// One request, as far as it is to be read; false at the end.
    fn receive(&self, socket: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(socket.read(&mut byte), Ok(1)) {
                return false;
            }
            head.extend(byte);
        }
        if !self.healthy.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        if self.at == At::Head {
            return true;
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut left: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let most = left.min(buffer.len());
            match socket.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(count) if count > 0 => left -= count,
                _ => return false,
            }
        }
        true
    }
}

/// Does one thing; whether the next request is to be awaited.
fn perform(act: &Act, socket: &mut TcpStream) -> bool {
    match act {
        Act::Say(text) => drop(socket.write_all(&bytes(text))),
        Act::Flood(text) => {
            let block = bytes(text).repeat(1000);
            let mut sent = 0;
            while sent < FLOOD && socket.write_all(&block).is_ok() {
                sent += block.len();
            }
        }
        Act::Trickle(text) => {
            let step = Duration::from_millis(100);
            for _ in 0..PATIENCE.as_millis() / step.as_millis() {
                if socket.write_all(&bytes(text)).is_err() {
                    break;
                }
                std::thread::sleep(step);
            }
        }
        Act::Wait(millis) => std::thread::sleep(Duration::from_millis(*millis)),
        Act::Stall => while matches!(socket.read(&mut [0; 4096]), Ok(1..)) {},
        Act::Next => return true,
        Act::Reset => {
            let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        }
    }
    false
}

/// The corpus writes bytes as characters below 256.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("the corpus is bytes")).collect()
}
