//! The words that Ravelin uses outside HTTP, in one place: log fields, metrics, and the reference id on pages.

/// Fields of a JSON access-log line.
pub(crate) mod field {
    /// The request id: equal to `X-Request-Id` and to the reference on a page.
    pub(crate) const ID: &str = "id";
    /// When it began, RFC 3339.
    pub(crate) const TIME: &str = "time";
    /// The client's address.
    pub(crate) const CLIENT: &str = "client";
    /// The host asked for.
    pub(crate) const HOST: &str = "host";
    /// The method.
    pub(crate) const METHOD: &str = "method";
    /// The request target, escaped.
    pub(crate) const TARGET: &str = "target";
    /// `HTTP/1.1`, `HTTP/2`.
    pub(crate) const PROTOCOL: &str = "protocol";
    /// The status answered.
    pub(crate) const STATUS: &str = "status";
    /// Bytes of the response body.
    pub(crate) const SENT: &str = "sent";
    /// The reason of a refusal (`crate::refusal::Reason::name`).
    pub(crate) const REASON: &str = "reason";
    /// What a rule in report mode would have refused.
    pub(crate) const WOULD_BLOCK: &str = "would_block";
    /// Who ended it before its end: `client` or `origin`.
    pub(crate) const ABORTED: &str = "aborted";
    /// The W3C trace id.
    pub(crate) const TRACE: &str = "trace";
}

/// Metrics, without their labels.
pub(crate) mod metric {
    /// Connections that did not speak HTTP, by protocol.
    pub(crate) const FOREIGN: &str = "ravelin_foreign_protocols_total";
    /// Refusals by step, reason and mode.
    pub(crate) const REFUSALS: &str = "ravelin_refusals_total";
}

/// The field that carries the request id, towards the origin and towards the client.
pub(crate) const REQUEST_ID: &str = "x-request-id";
