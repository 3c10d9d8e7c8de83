//! The grammar of HTTP/1 (RFC 9112): decoders and encoders without sockets, clocks or settings.
//!
//! Nothing here imports from the rest of the crate: bytes come in, values go out, and every refusal
//! is a named fault. Where the RFC leaves a choice, the safest one is made and said.

pub mod answer;
pub mod chunked;
pub mod connection;
pub mod framing;
pub mod grade;
pub mod request;
#[cfg(test)]
mod request_test;
#[cfg(test)]
mod request_twin_test;
pub mod response;
mod scan;
