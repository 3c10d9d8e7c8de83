//! Last words before there is a request: bytes to send, and the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, Write};

use super::converse::{Conversation, drive};
use super::limits;
use super::metered::Metered;
use super::pulse::Pulse;
use crate::drain::DrainWatch;

/// Sends `bytes` and closes, within `limits.header_read` and its farewell.
pub(super) async fn say<T: Read + Write + Unpin, G: Unpin>(
    io: Metered<T, G>,
    bytes: Vec<u8>,
    pulse: &Pulse,
    limits: &limits::Policy,
    drain: &DrainWatch,
) {
    // The pulse's deadlines apply: a write that blocks, and the patience after our side is closed.
    pulse.last_words();
    let mut last_words = LastWords { io, bytes: Bytes::from(bytes) };
    let _ = drive(&mut last_words, pulse, limits, drain, |_| ()).await;
}

/// Bytes to send before the end, and the end.
struct LastWords<T> {
    io: T,
    bytes: Bytes,
}

impl<T: Read + Write + Unpin> Conversation for LastWords<T> {
    type Error = io::Error;

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that is gone already hears nothing: any error is the end.
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes)) {
                Ok(count) if count > 0 => self.bytes.advance(count),
                _ => return Poll::Ready(Ok(())),
            }
        }
        let _ = ready!(Pin::new(&mut self.io).poll_flush(cx));
        let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        Poll::Ready(Ok(()))
    }

    fn part(&mut self) {}
}
