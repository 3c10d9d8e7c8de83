//! An origin that answers every request with what a test has put there, and keeps the last request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::raw_origin::end_of_request;

/// The origin.
pub(crate) struct Scripted {
    port: u16,
    shared: Arc<Mutex<Shared>>,
    stopping: Arc<AtomicBool>,
}

/// Makes an answer from a request.
type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

#[derive(Default)]
struct Shared {
    answer: Option<Answer>,
    last: Vec<u8>,
}

impl Scripted {
    /// Starts it.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (inside, stop) = (Arc::clone(&shared), Arc::clone(&stopping));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let inside = Arc::clone(&inside);
                std::thread::spawn(move || serve(socket, &inside));
            }
        });
        Self { port, shared, stopping }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it answers so.
    pub(crate) fn answers(&self, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).answer = Some(Box::new(answer));
    }

    /// The last request, byte for byte.
    pub(crate) fn last(&self) -> Vec<u8> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut socket: TcpStream, shared: &Mutex<Shared>) {
    let _ = socket.set_read_timeout(Some(Duration::from_mins(1)));
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        unread.extend(buffer.iter().take(count));
        while let Some(end) = end_of_request(&unread) {
            let request: Vec<u8> = unread.drain(..end).collect();
            let answer = {
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = shared.answer.as_ref().map(|answer| answer(&request)).unwrap_or_default();
                shared.last = request;
                answer
            };
            if socket.write_all(&answer).is_err() {
                return;
            }
        }
    }
}
