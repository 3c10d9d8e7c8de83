//! The backend: keep-alive HTTP/1.1 from memory, as cheap as tokio allows, so that the proxy in front of it
//! is what gets measured. It looks a little like TYPO3 on the wire: HTML, a few fields, and the two that
//! give the software away.
//!
//! Every line on standard input is answered with the requests and body bytes so far. A thread of its own
//! does that, so a busy event loop does not delay the answer.

use std::io;
use std::io::BufRead;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};

use crate::Fault;
use crate::args::Args;
use crate::client::length;

/// How much is read at a time, bytes.
const READ: usize = 256 * 1024;

/// What was served so far.
#[derive(Default)]
struct Count {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// The answers, head and body in one piece each.
struct Pages {
    small: Vec<u8>,
    middle: Vec<u8>,
    large: Vec<u8>,
    taken: Vec<u8>,
    missing: Vec<u8>,
}

/// `backend --listen 127.0.0.1:PORT`
pub async fn run(args: &Args) -> Result<(), Fault> {
    let listener = TcpListener::bind(args.loopback("listen")?).await?;
    let count = Arc::new(Count::default());
    let asked = count.clone();
    std::thread::spawn(move || answer_counts(&asked));
    let pages = Rc::new(Pages {
        small: page(200, 1024),
        middle: page(200, 16 * 1024),
        large: page(200, 10 * 1024 * 1024),
        taken: page(200, 2),
        missing: page(404, 9),
    });
    println!("{{\"listening\":true}}");
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::task::spawn_local(serve(socket, pages.clone(), count.clone()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

/// Answers until the referee closes the pipe, then ends the program.
fn answer_counts(count: &Count) {
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let requests = count.requests.load(Ordering::Relaxed);
        let bytes = count.bytes.load(Ordering::Relaxed);
        println!("{{\"requests\":{requests},\"bytes\":{bytes}}}");
    }
    std::process::exit(0);
}

fn page(status: u16, length: usize) -> Vec<u8> {
    let mut page = format!(
        "HTTP/1.1 {status} OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nServer: Apache/2.4.62 (Debian)\r\n\
         X-Powered-By: PHP/8.2.29\r\nContent-Language: en\r\nContent-Type: text/html; charset=utf-8\r\n\
         Cache-Control: max-age=0\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    page.resize(page.len() + length, b'x');
    page
}

async fn serve(socket: TcpStream, pages: Rc<Pages>, count: Arc<Count>) {
    // A connection that breaks is the proxy's business; the next one is served all the same.
    let _ = socket.set_nodelay(true);
    let _ = converse(&Conn { socket, count }, &pages).await;
}

struct Conn {
    socket: TcpStream,
    count: Arc<Count>,
}

/// How the body of a request is framed.
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

async fn converse(conn: &Conn, pages: &Pages) -> io::Result<()> {
    let mut input = Vec::with_capacity(4096);
    while let Some((end, framing, answer)) = head(conn, &mut input, pages).await? {
        let asked: Vec<u8> = input.drain(..end).collect();
        match framing {
            Framing::Length(length) => swallow(conn, &mut input, length).await?,
            Framing::Chunked => swallow_chunks(conn, &mut input).await?,
        }
        conn.count.requests.fetch_add(1, Ordering::Relaxed);
        match answer {
            Say::Page(page, body) => conn.write(page, body).await?,
            Say::Echo => conn.write(&echo(&asked), 0).await?,
        }
    }
    Ok(())
}

/// What to answer: a page and how many of its last bytes are body, or the request's own head.
enum Say<'a> {
    Page(&'a [u8], usize),
    Echo,
}

/// Waits for a whole head: where it ends, what follows it, and what to say to it.
async fn head<'a>(
    conn: &Conn,
    input: &mut Vec<u8>,
    pages: &'a Pages,
) -> io::Result<Option<(usize, Framing, Say<'a>)>> {
    loop {
        if !input.is_empty() {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut fields);
            if let httparse::Status::Complete(end) = request.parse(input).map_err(io::Error::other)? {
                return Ok(Some((end, framing(request.headers), say(&request, pages))));
            }
        }
        if conn.read(input).await? == 0 {
            return Ok(None);
        }
    }
}

fn framing(fields: &[httparse::Header<'_>]) -> Framing {
    if fields.iter().any(|f| f.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Framing::Chunked;
    }
    Framing::Length(length(fields).unwrap_or(0))
}

fn say<'a>(request: &httparse::Request<'_, '_>, pages: &'a Pages) -> Say<'a> {
    let (page, body): (&[u8], usize) = match (request.method, request.path) {
        (Some("POST"), _) => (&pages.taken, 2),
        (_, Some("/1k")) => (&pages.small, 1024),
        (_, Some("/16k")) => (&pages.middle, 16 * 1024),
        (_, Some("/10m")) => (&pages.large, 10 * 1024 * 1024),
        (_, Some("/echo")) => return Say::Echo,
        _ => (&pages.missing, 9),
    };
    if request.method == Some("HEAD") {
        return Say::Page(page.get(..page.len() - body).unwrap_or_default(), 0);
    }
    Say::Page(page, body)
}

/// The request as it arrived here, for the referee's check of what the proxy forwards.
fn echo(asked: &[u8]) -> Vec<u8> {
    let mut page = format!(
        "HTTP/1.1 200 OK\r\nServer: Apache\r\nX-Powered-By: PHP\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
        asked.len()
    )
    .into_bytes();
    page.extend_from_slice(asked);
    page
}

async fn swallow(conn: &Conn, input: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let here = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
    input.drain(..here);
    conn.count.bytes.fetch_add(here as u64, Ordering::Relaxed);
    let mut left = length - here as u64;
    if left == 0 {
        return Ok(());
    }
    let mut room = vec![0; READ];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(READ).min(READ);
        let n = conn.read_into(room.get_mut(..most).unwrap_or_default()).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        conn.count.bytes.fetch_add(n as u64, Ordering::Relaxed);
        left -= n as u64;
    }
    Ok(())
}

async fn swallow_chunks(conn: &Conn, input: &mut Vec<u8>) -> io::Result<()> {
    loop {
        match httparse::parse_chunk_size(input) {
            Ok(httparse::Status::Complete((start, size))) => {
                input.drain(..start);
                swallow(conn, input, size + 2).await?;
                if size == 0 {
                    return Ok(());
                }
            }
            Ok(httparse::Status::Partial) => {
                if conn.read(input).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Conn {
    async fn read(&self, input: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_read_buf(input) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    async fn read_into(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            match self.socket.try_read(room) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes a page whose last `body` bytes are counted as body.
    async fn write(&self, page: &[u8], body: usize) -> io::Result<()> {
        let mut left = page;
        while !left.is_empty() {
            match self.socket.try_write(left) {
                Ok(n) => {
                    let was = left.len().min(body);
                    left = left.get(n..).unwrap_or_default();
                    let counted = was - left.len().min(body);
                    self.count.bytes.fetch_add(counted as u64, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
