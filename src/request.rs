//! A request as a connection hands it to the road: a head that is held, and a body to come.

use std::time::Instant;

use http::request;

use crate::body::Upload;
use crate::head::Head;
use crate::http1::grade::Fault;
use crate::http1::request::RequestHead;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: Held,
    /// Its body.
    pub upload: Upload,
    /// When its head began, if it did not end in time.
    pub slow_since: Option<Instant>,
}

/// A request head, held by whoever received it.
#[derive(Debug)]
pub enum Held {
    /// Our own decoder's (HTTP/1): the bytes that were received.
    Received(RequestHead),
    /// hyper's (HTTP/2), and what is wrong with it all the same.
    Parsed(Box<request::Parts>, Option<Fault>),
}

impl Held {
    /// The view that guards look at.
    #[must_use]
    pub fn view(&self) -> Head<'_> {
        match self {
            Self::Received(head) => Head::received(head),
            Self::Parsed(parts, fault) => Head::graded(parts, *fault),
        }
    }
}
