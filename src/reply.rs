//! An answer on its way to the client, before it becomes a protocol's message.

use http::{Response, StatusCode};

use crate::body::Body;
use crate::fields::Fields;

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
    /// Carried over to hyper, which needs them for upgrades.
    pub extensions: http::Extensions,
}

impl Reply {
    /// A reply with no field yet.
    #[must_use]
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self { status, fields: Fields::default(), body, extensions: http::Extensions::new() }
    }

    /// The message that hyper writes.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.into_map();
        *response.extensions_mut() = self.extensions;
        response
    }
}
