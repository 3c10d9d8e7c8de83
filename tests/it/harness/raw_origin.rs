//! An origin that keeps the exact bytes of every connection, cut into requests only where one ends beyond doubt,
//! and answers 200 with the request line that it saw: an answer that went astray tells on itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::within;

/// The origin.
pub(crate) struct RawOrigin {
    port: u16,
    book: Arc<Mutex<Vec<Line>>>,
    stopping: Arc<AtomicBool>,
}

/// What one connection brought.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Requests that came whole, each with its body, byte for byte.
    whole: Vec<Vec<u8>>,
    /// What came after the last whole request.
    tail: Vec<u8>,
    closed: bool,
    /// Whether the request that is under way began before the last `forget`.
    stale: bool,
}

/// Everything since the last `forget`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Requests that came whole, in no order across connections.
    pub(crate) whole: Vec<Vec<u8>>,
    /// Beginnings of requests that were cut off.
    pub(crate) cut: Vec<Vec<u8>>,
    /// How many of those connections are still open.
    pub(crate) hanging: usize,
}

impl RawOrigin {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let book = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (pages, stop) = (Arc::clone(&book), Arc::clone(&stopping));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let number = {
                    let mut pages = lock(&pages);
                    pages.push(Line::default());
                    pages.len() - 1
                };
                let pages = Arc::clone(&pages);
                std::thread::spawn(move || serve(number, socket, &pages));
            }
        });
        Self { port, book, stopping }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Forgets what came; what belongs to a request that is under way is not recorded later either.
    pub(crate) fn forget(&self) {
        for line in lock(&self.book).iter_mut() {
            line.stale = !line.tail.is_empty();
            line.whole.clear();
            line.tail.clear();
        }
    }

    /// Whether the beginning of a request with these bytes is here.
    pub(crate) fn begun(&self, bytes: &str) -> bool {
        lock(&self.book).iter().any(|line| find(&line.tail, bytes.as_bytes()).is_some())
    }

    /// What came, once no request is under way any more or for at most two seconds.
    pub(crate) fn received(&self) -> Received {
        let quiet = || lock(&self.book).iter().all(|line| line.closed || line.tail.is_empty());
        within(Duration::from_secs(2), || quiet().then_some(()));
        let book = lock(&self.book);
        let mut received = Received::default();
        for line in book.iter() {
            received.whole.extend(line.whole.iter().cloned());
            if !line.tail.is_empty() && !line.stale {
                received.cut.push(line.tail.clone());
                received.hanging += usize::from(!line.closed);
            }
        }
        received
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(number: usize, mut socket: TcpStream, book: &Mutex<Vec<Line>>) {
    let _ = socket.set_read_timeout(Some(Duration::from_mins(1)));
    let mut unread = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        unread.extend(buffer.iter().take(count));
        while let Some(end) = end_of_request(&unread) {
            let request: Vec<u8> = unread.drain(..end).collect();
            let answer = answer(&request);
            with(book, number, |line| {
                if !std::mem::take(&mut line.stale) {
                    line.whole.push(request);
                }
            });
            if socket.write_all(&answer).is_err() {
                break;
            }
        }
        with(book, number, |line| line.tail.clone_from(&unread));
    }
    with(book, number, |line| line.closed = true);
}

fn with(book: &Mutex<Vec<Line>>, number: usize, change: impl FnOnce(&mut Line)) {
    if let Some(line) = lock(book).get_mut(number) {
        change(line);
    }
}

fn answer(request: &[u8]) -> Vec<u8> {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let length = line.len();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    if !line.starts_with(b"HEAD ") {
        answer.extend(line);
    }
    answer
}

/// Where the first request of `bytes` ends; none if it is not whole yet, or no end can be told.
pub(crate) fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
    let value = |name: &str| text.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
    if let Some(coding) = value("transfer-encoding:") {
        // A coding list is dirty, and named so by the judge; here it only matters where it ends.
        return if coding.contains("chunked") { end_of_chunks(bytes, head) } else { None };
    }
    let length: usize = value("content-length:").map_or(Ok(0), str::parse).ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

fn end_of_chunks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = find(bytes.get(at..)?, b"\r\n")?;
        let size = String::from_utf8_lossy(bytes.get(at..at + line)?).into_owned();
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            // The trailers, which are none if it is clean, end with an empty line.
            return if bytes.get(at..)?.starts_with(b"\r\n") {
                Some(at + 2)
            } else {
                find(bytes.get(at..)?, b"\r\n\r\n").map(|end| at + end + 4)
            };
        }
        at += size + 2;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::end_of_request;

    #[test]
    fn a_request_ends_where_its_framing_says() {
        for (bytes, end) in [
            ("GET / HTTP/1.1\r\n\r\nGET", Some(18)),
            ("GET / HTTP/1.1\r\n", None),
            ("P / H\r\nContent-Length: 3\r\n\r\nabcP", Some(31)),
            ("P / H\r\nContent-Length: 3\r\n\r\nab", None),
            ("P / H\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nP", Some(49)),
            ("P / H\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", Some(48)),
            ("P / H\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", None),
        ] {
            assert_eq!(end_of_request(bytes.as_bytes()), end, "{bytes:?}");
        }
    }
}
