//! An answer on its way to the client, before it becomes a protocol's message.

use http::{Response, StatusCode};

use crate::body::Body;
use crate::fields::Fields;
use crate::upstream::Tunnel;

/// Status, fields and body: from the origin, from a refusal, or from a redirect. The hardening step
/// works on this form, so it sees every one of them alike.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: StatusCode,
    /// The header fields in order.
    pub fields: Fields,
    /// The body.
    pub body: Body,
    /// Whether an HTTP/1 connection ends with this reply.
    pub close: bool,
    /// Whether nothing of it is sent: the connection just ends.
    pub silent: bool,
    /// The origin's connection, after a 101: the client's is joined with it.
    pub tunnel: Option<Box<Tunnel>>,
}

impl Reply {
    /// A reply with no field yet.
    #[must_use]
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self { status, fields: Fields::default(), body, close: false, silent: false, tunnel: None }
    }

    /// The message that hyper writes (HTTP/2).
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.into_map();
        response
    }
}
