//! The steps of the road, in order. This enum is the metrics label, the log field, the docs table and
//! what `ravelin explain` walks, so the order never lives only in a document.

/// Where on the road a decision was made. Cheap before dear, stateless before stateful, head before
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// Is this one clear message? Target form, CONNECT, Expect, field counts and sizes.
    Framing,
    /// For whom is it? Exactly one authority, a known site, SNI and Host agreeing.
    Host,
    /// Who asks? The client's address, through trusted proxies only.
    Client,
    /// Is the client locked out?
    Ban,
    /// Does this listener serve, or redirect to https?
    Scheme,
    /// What is asked? The path, normalised once; from here only that one exists.
    Path,
    /// May this address see this part of the site, now?
    Access,
    /// Is this something that nobody needs, or not everybody? Closed paths, the Install Tool, logins in a query.
    Closed,
    /// Does the client ask too often?
    Rate,
    /// May this method be used here?
    Method,
    /// May these fields go on, and is an upgrade allowed here?
    Headers,
    /// What does it carry? The size of the body.
    Size,
    /// Ask the origin: connect, send, wait.
    Origin,
}

impl Step {
    /// Every step, in the order of the road.
    pub const ALL: [Step; 13] = [
        Step::Framing,
        Step::Host,
        Step::Client,
        Step::Ban,
        Step::Scheme,
        Step::Path,
        Step::Access,
        Step::Closed,
        Step::Rate,
        Step::Method,
        Step::Headers,
        Step::Size,
        Step::Origin,
    ];

    /// The label in metrics, logs and `explain`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Step::Framing => "framing",
            Step::Host => "host",
            Step::Client => "client",
            Step::Ban => "ban",
            Step::Scheme => "scheme",
            Step::Path => "path",
            Step::Access => "access",
            Step::Closed => "closed",
            Step::Rate => "rate",
            Step::Method => "method",
            Step::Headers => "headers",
            Step::Size => "size",
            Step::Origin => "origin",
        }
    }

    /// What the step asks, for the operator's reference and `explain`.
    #[must_use]
    pub const fn question(self) -> &'static str {
        match self {
            Step::Framing => "is this one clear message?",
            Step::Host => "for which site is it?",
            Step::Client => "who asks?",
            Step::Ban => "is the client locked out?",
            Step::Scheme => "does this listener serve, or redirect to https?",
            Step::Path => "what is asked for?",
            Step::Access => "may this address see it, now?",
            Step::Closed => "is this closed, to all or to this client?",
            Step::Rate => "does the client ask too often?",
            Step::Method => "may this method be used here?",
            Step::Headers => "may these fields and this upgrade go on?",
            Step::Size => "is the body within its limit?",
            Step::Origin => "what does the origin say?",
        }
    }
}
