//! An origin that records every byte it receives, and answers as it is told: well, badly, or never.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What to do with one request on a connection: the number of the connection, the raw head, the socket.
type Script = dyn Fn(usize, &[u8], &mut TcpStream) -> Next + Send + Sync;

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next request is awaited.
    KeepAlive,
    /// It is closed.
    Close,
}

/// The origin.
pub(crate) struct Recorder {
    port: u16,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    stopping: Arc<AtomicUsize>,
}

/// The plain good answer.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

impl Recorder {
    /// One that answers every request with these bytes and keeps the connection.
    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::scripted(move |_, _, socket| {
            let sent = socket.write_all(answer.as_bytes());
            if sent.is_ok() { Next::KeepAlive } else { Next::Close }
        })
    }

    /// One that does what `script` says once a request (head and body) has been received.
    pub(crate) fn scripted(
        script: impl Fn(usize, &[u8], &mut TcpStream) -> Next + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicUsize::new(0));
        let script: Arc<Script> = Arc::new(script);
        let (list, stop) = (Arc::clone(&seen), Arc::clone(&stopping));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) > 0 {
                    break;
                }
                let number = begin(&list);
                let (list, script) = (Arc::clone(&list), Arc::clone(&script));
                std::thread::spawn(move || serve(number, socket, &list, &*script));
            }
        });
        Self { port, seen, stopping }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bytes of every connection so far, connections that said nothing left out.
    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        lock(&self.seen).iter().filter(|bytes| !bytes.is_empty()).cloned().collect()
    }

    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        self.seen().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Forgets what was seen so far.
    pub(crate) fn forget(&self) {
        lock(&self.seen).iter_mut().for_each(Vec::clear);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(1, Ordering::Relaxed);
        // Wakes the accepting thread, so that the port is closed at once.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn begin(list: &Mutex<Vec<Vec<u8>>>) -> usize {
    let mut list = lock(list);
    list.push(Vec::new());
    list.len() - 1
}

fn serve(number: usize, mut socket: TcpStream, list: &Mutex<Vec<Vec<u8>>>, script: &Script) {
    let _ = socket.set_read_timeout(Some(Duration::from_mins(1)));
    let mut unread = Vec::new();
    while let Some(head) = request(number, &mut socket, &mut unread, list) {
        if script(number, &head, &mut socket) == Next::Close {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
}

/// Receives one request to its end, recording; its head.
fn request(
    number: usize,
    socket: &mut TcpStream,
    unread: &mut Vec<u8>,
    list: &Mutex<Vec<Vec<u8>>>,
) -> Option<Vec<u8>> {
    let mut more = |unread: &mut Vec<u8>| {
        let mut buffer = [0; 16 * 1024];
        let count = socket.read(&mut buffer).ok().filter(|count| *count > 0)?;
        let bytes = buffer.get(..count)?;
        unread.extend(bytes);
        lock(list).get_mut(number)?.extend(bytes);
        Some(())
    };
    let end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(unread)?;
    };
    let head: Vec<u8> = unread.drain(..end).collect();
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        // Our own proxy's encoder: the last chunk without trailers. Anything else is caught by the judge.
        loop {
            if unread == b"0\r\n\r\n" || unread.ends_with(b"\r\n0\r\n\r\n") {
                unread.clear();
                break;
            }
            more(unread)?;
        }
    } else if let Some(length) = content_length(&text) {
        while unread.len() < length {
            more(unread)?;
        }
        unread.drain(..length);
    }
    Some(head)
}

fn content_length(head: &str) -> Option<usize> {
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    line.trim().parse().ok()
}
