//! Reading to the end of a growing buffer, which hyper's read cursor does not allow without `unsafe`.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::net::TcpStream;

/// A stream that appends what it has received to a buffer.
pub trait ReadInto {
    /// Appends what is there. Ready with the number of bytes; 0 is the end of the stream.
    fn poll_read_into(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// The socket below, for its options; none in memory.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}
