//! Every way to say no: one closed table from cause to status, public text and log level.
//!
//! The public text says nothing that helps an attacker; the private detail goes to the log. Both meet
//! again through the reference id that every refusal page carries.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

use crate::bans::Action;
use crate::http1::grade::Fault;
use crate::step::Step;

/// Why a request was refused. The label is part of the metrics, the log and the operator's reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The request target is of no form that this method may use (RFC 9112 section 3.2).
    BadTarget,
    /// CONNECT, TRACE or TRACK: never forwarded.
    ForbiddenMethod,
    /// The fields that delimit the body are not exactly one clear statement (RFC 9112 section 6).
    BadFraming,
    /// The chunks of the body are not exactly what RFC 9112 section 7.1 says.
    BadChunk,
    /// `Expect` is something other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// More header fields than allowed.
    TooManyHeaders,
    /// Header fields larger than allowed.
    HeadersTooLarge,
    /// The request line is longer than allowed.
    TargetTooLong,
    /// The request head did not end in time.
    HeadTimeout,
    /// No Host, several, or one that is not a host (RFC 9112 section 3.2).
    BadHost,
    /// The host belongs to no site.
    UnknownHost,
    /// The host belongs to no site, and the operator prefers to say no more than 404.
    NoSuchHost,
    /// TLS was negotiated for another site than Host names.
    Misdirected,
    /// The client is locked out.
    Banned,
    /// The path cannot be normalised without guessing.
    BadPath,
    /// The address may not see this part of the site, or not now.
    SourceDenied,
    /// A path that nobody needs.
    Closed,
    /// The Install Tool, asked for by somebody to whom it is not open.
    InstallToolClosed,
    /// A request that reads carries a login in its query.
    LoginInQuery,
    /// The client asks too often.
    RateLimited,
    /// The client, or somebody with this user name, tried to log in too often.
    LoginRateLimited,
    /// The method is not allowed here.
    MethodNotAllowed,
    /// An upgrade that this path does not allow.
    UpgradeNotAllowed,
    /// A header field that no honest client sends.
    BadHeader,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body came too slowly or stopped.
    BodyTimeout,
    /// The client stopped sending the body before its end.
    BodyIncomplete,
    /// No connection to the origin.
    OriginUnreachable,
    /// The origin's certificate was not accepted.
    OriginTls,
    /// The origin's answer was not HTTP, or not one clear message.
    OriginProtocol,
    /// The origin closed before it answered.
    OriginClosed,
    /// The origin's response head is larger than allowed.
    OriginHeadTooLarge,
    /// The origin did not answer in time.
    OriginTimeout,
    /// Every origin of the site is marked down.
    OriginDown,
    /// Too much is going on at once.
    Overloaded,
    /// A defect in Ravelin.
    Internal,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The label.
    pub name: &'static str,
    /// The status that the client gets.
    pub status: StatusCode,
    /// The step that says it.
    pub step: Step,
    /// What the client reads.
    pub public: &'static str,
    /// What the operator can do about it.
    pub advice: &'static str,
    /// Whether an HTTP/1 connection is closed after it.
    pub close: bool,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Reason; 36] = [
        Reason::BadTarget,
        Reason::ForbiddenMethod,
        Reason::BadFraming,
        Reason::BadChunk,
        Reason::Expectation,
        Reason::TooManyHeaders,
        Reason::HeadersTooLarge,
        Reason::TargetTooLong,
        Reason::HeadTimeout,
        Reason::BadHost,
        Reason::UnknownHost,
        Reason::NoSuchHost,
        Reason::Misdirected,
        Reason::Banned,
        Reason::BadPath,
        Reason::SourceDenied,
        Reason::Closed,
        Reason::InstallToolClosed,
        Reason::LoginInQuery,
        Reason::RateLimited,
        Reason::LoginRateLimited,
        Reason::MethodNotAllowed,
        Reason::UpgradeNotAllowed,
        Reason::BadHeader,
        Reason::BodyTooLarge,
        Reason::BodyTimeout,
        Reason::BodyIncomplete,
        Reason::OriginUnreachable,
        Reason::OriginTls,
        Reason::OriginProtocol,
        Reason::OriginClosed,
        Reason::OriginHeadTooLarge,
        Reason::OriginTimeout,
        Reason::OriginDown,
        Reason::Overloaded,
        Reason::Internal,
    ];

    /// The label in metrics, logs and the operator's reference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The status that the client gets.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// The row of the table.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one row per reason: a table, not logic")]
    pub const fn row(self) -> Row {
        const fn row(
            name: &'static str,
            status: StatusCode,
            step: Step,
            public: &'static str,
            advice: &'static str,
        ) -> Row {
            Row { name, status, step, public, advice, close: false }
        }
        const fn closing(row: Row) -> Row {
            Row { close: true, ..row }
        }
        match self {
            Reason::BadTarget => closing(row(
                "bad-target",
                StatusCode::BAD_REQUEST,
                Step::Framing,
                "The address in this request could not be understood.",
                "The request line is malformed; ordinary browsers never send this.",
            )),
            Reason::ForbiddenMethod => closing(row(
                "forbidden-method",
                StatusCode::METHOD_NOT_ALLOWED,
                Step::Framing,
                "This kind of request is not served here.",
                "CONNECT, TRACE and TRACK are never forwarded; no setting allows them.",
            )),
            Reason::BadFraming => closing(row(
                "bad-framing",
                StatusCode::BAD_REQUEST,
                Step::Framing,
                "The request does not say clearly where it ends.",
                "Transfer-Encoding, Content-Length or a connection-specific field is malformed; ordinary clients never send this.",
            )),
            Reason::BadChunk => closing(row(
                "bad-chunk",
                StatusCode::BAD_REQUEST,
                Step::Framing,
                "The request does not say clearly where it ends.",
                "The chunked framing of the body is malformed; ordinary clients never send this, so somebody probably tries to smuggle a request past Ravelin. `desync_reason` says what was wrong.",
            )),
            Reason::Expectation => closing(row(
                "expectation-failed",
                StatusCode::EXPECTATION_FAILED,
                Step::Framing,
                "The request expects something that this server does not do.",
                "Only `Expect: 100-continue` is served.",
            )),
            Reason::TooManyHeaders => closing(row(
                "too-many-headers",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Step::Framing,
                "The request carries too many header fields.",
                "Raise `limits.header_count` if an honest client needs more.",
            )),
            Reason::HeadersTooLarge => closing(row(
                "headers-too-large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Step::Framing,
                "The request's header fields are too large. Deleting this site's cookies may help.",
                "Raise `limits.header_size` if an honest client needs more.",
            )),
            Reason::TargetTooLong => closing(row(
                "target-too-long",
                StatusCode::URI_TOO_LONG,
                Step::Framing,
                "The address in this request is too long.",
                "Raise `limits.request_line` if an honest client needs more.",
            )),
            Reason::HeadTimeout => closing(row(
                "head-timeout",
                StatusCode::REQUEST_TIMEOUT,
                Step::Framing,
                "The request took too long to arrive. Please try again.",
                "See `limits.header_read`; a client that sends its head byte by byte is an attack or a very bad line.",
            )),
            Reason::BadHost => closing(row(
                "bad-host",
                StatusCode::BAD_REQUEST,
                Step::Host,
                "The request does not say clearly which site it is for.",
                "Exactly one valid Host is required, agreeing with the request target.",
            )),
            Reason::UnknownHost => row(
                "unknown-host",
                StatusCode::MISDIRECTED_REQUEST,
                Step::Host,
                "The site you asked for is not served here.",
                "Add the host to `hosts` of a `[[site]]` if it should be.",
            ),
            Reason::NoSuchHost => row(
                "no-such-host",
                StatusCode::NOT_FOUND,
                Step::Host,
                "There is nothing here.",
                "Add the host to `hosts` of a `[[site]]` if it should be served; `unknown_host = 421` names the cause.",
            ),
            Reason::Misdirected => closing(row(
                "misdirected",
                StatusCode::MISDIRECTED_REQUEST,
                Step::Host,
                "This connection was opened for another site. Please try again.",
                "The TLS server name and Host belong to different sites, or the site requires a client certificate that this connection has not shown: see docs/tls.md.",
            )),
            Reason::Banned => row(
                "banned",
                StatusCode::FORBIDDEN,
                Step::Ban,
                "Access from your address is suspended for a while, after too many failed attempts.",
                "`ravelin bans list` shows who and why, `ravelin bans remove` lifts a ban; `bans.ignore` is for addresses that are never to be banned.",
            ),
            Reason::BadPath => row(
                "bad-path",
                StatusCode::BAD_REQUEST,
                Step::Path,
                "The address in this request could not be understood.",
                "The path holds an encoding that origins read in different ways. Set `rules.path = \"report\"` to watch without blocking.",
            ),
            Reason::SourceDenied => row(
                "source-denied",
                StatusCode::FORBIDDEN,
                Step::Access,
                "This part of the site is not open to you.",
                "The log names the `[[site.access]]` line that decided. Add the address to its `allow`, or a path to its `except`; `rules.access = \"report\"` watches without blocking.",
            ),
            Reason::Closed => row(
                "closed",
                StatusCode::NOT_FOUND,
                Step::Closed,
                "There is nothing at this address.",
                "The log names the rule and its line; `NAME = false` under `[deny]` takes it out, see docs/closed-paths.md.",
            ),
            Reason::InstallToolClosed => row(
                "install-tool-closed",
                StatusCode::NOT_FOUND,
                Step::Closed,
                "There is nothing at this address.",
                "Log in to the backend first; or list the address in `sources` of `[install_tool]`, or open it for a while: `ravelin install-tool open --for 30m --from IP`.",
            ),
            Reason::LoginInQuery => row(
                "login-in-query",
                StatusCode::BAD_REQUEST,
                Step::Closed,
                "The address in this request could not be understood.",
                "`login_status` in the query of a GET locks out everybody behind the same address; TYPO3 never sends it. Set `rules.login_query = \"report\"` to watch without blocking.",
            ),
            Reason::RateLimited => row(
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                Step::Rate,
                "Too many requests in a short time. Please try again in a moment.",
                "Raise `rate` or `burst` of the `[[rate]]` that the log names, or set its `mode = \"report\"`.",
            ),
            Reason::LoginRateLimited => row(
                "login-rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                Step::Rate,
                "Too many attempts to log in. Please try again later.",
                "Attempts from one address are bounded by the `[[rate]]` named `login`, those with one user name by `bans.per_user`.",
            ),
            Reason::MethodNotAllowed => row(
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                Step::Method,
                "This kind of request is not allowed here.",
                "Add the method to `methods` of the site or of a `[[site.path]]`.",
            ),
            Reason::UpgradeNotAllowed => row(
                "upgrade-not-allowed",
                StatusCode::FORBIDDEN,
                Step::Headers,
                "This kind of connection is not allowed here.",
                "Set `websocket = true` in a `[[site.path]]` to allow WebSocket there.",
            ),
            Reason::BadHeader => row(
                "bad-header",
                StatusCode::BAD_REQUEST,
                Step::Headers,
                "The request carries a header field that is not accepted.",
                "Set `rules.headers = \"report\"` to watch without blocking.",
            ),
            Reason::BodyTooLarge => closing(row(
                "body-too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                Step::Size,
                "What you sent is larger than this site accepts.",
                "Raise `body_size` of the site or of a `[[site.path]]`.",
            )),
            Reason::BodyTimeout => closing(row(
                "body-timeout",
                StatusCode::REQUEST_TIMEOUT,
                Step::Size,
                "What you sent came too slowly.",
                "See `limits.body_idle` and `limits.body_rate`.",
            )),
            Reason::BodyIncomplete => closing(row(
                "body-incomplete",
                StatusCode::BAD_REQUEST,
                Step::Size,
                "What you sent ended too early.",
                "The client went away in the middle of a request body.",
            )),
            Reason::OriginUnreachable => row(
                "origin-unreachable",
                StatusCode::BAD_GATEWAY,
                Step::Origin,
                "The site cannot be reached right now. Please try again in a moment.",
                "Is the web server running, and does it listen where `upstream` says?",
            ),
            Reason::OriginTls => row(
                "origin-tls",
                StatusCode::BAD_GATEWAY,
                Step::Origin,
                "The site cannot be reached right now. Please try again in a moment.",
                "The origin's certificate is not accepted; see `[site.upstream_tls]`.",
            ),
            Reason::OriginProtocol => row(
                "origin-protocol",
                StatusCode::BAD_GATEWAY,
                Step::Origin,
                "The site gave an answer that could not be understood.",
                "The origin's answer is not one clear HTTP/1.1 message; the log says why.",
            ),
            Reason::OriginClosed => row(
                "origin-closed",
                StatusCode::BAD_GATEWAY,
                Step::Origin,
                "The site closed the connection before it answered.",
                "Look into the web server's error log: a crash or a restart is likely.",
            ),
            Reason::OriginHeadTooLarge => row(
                "origin-head-too-large",
                StatusCode::BAD_GATEWAY,
                Step::Origin,
                "The site gave an answer that could not be understood.",
                "Raise `limits.response_head` (TYPO3's debug cache tags can be long).",
            ),
            Reason::OriginTimeout => row(
                "origin-timeout",
                StatusCode::GATEWAY_TIMEOUT,
                Step::Origin,
                "The site took too long to answer.",
                "Raise `first_byte` of the site or of a `[[site.path]]` for slow pages.",
            ),
            Reason::OriginDown => row(
                "origin-down",
                StatusCode::SERVICE_UNAVAILABLE,
                Step::Origin,
                "The site is not available right now. Please try again in a moment.",
                "Every member of `upstream` failed lately; they are tried again by themselves.",
            ),
            Reason::Overloaded => row(
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                Step::Origin,
                "The site is very busy right now. Please try again in a moment.",
                "The log says which limit was met: see `requests`, `requests_per_client` and `memory` in `[limits]`, `requests` and `queue` in `[site.upstream_pool]`, and the limit of open files.",
            ),
            Reason::Internal => row(
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                Step::Origin,
                "Something went wrong.",
                "This is a defect in Ravelin: please report it with the log line.",
            ),
        }
    }
}

/// A no: the reason, and what only the log may know.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The row of the table.
    pub reason: Reason,
    /// What exactly was seen; for the log and `explain`, never for the client.
    pub detail: Cow<'static, str>,
    /// The methods for `Allow`, when the reason is about the method (RFC 9110 section 15.5.6).
    pub allow: Option<http::HeaderValue>,
    /// The status, where the operator chose another one than the table's.
    pub answer: Option<StatusCode>,
    /// How long the refusal holds, for `Retry-After` (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// How it is said: at once, late, or not at all.
    pub action: Action,
    /// What is wrong with the request as a message, if it is refused for that.
    pub fault: Option<Fault>,
}

impl Refusal {
    /// A refusal with its private detail.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        let (allow, answer, retry_after, fault) = (None, None, None, None);
        Self { reason, detail: detail.into(), allow, answer, retry_after, action: Action::Refuse, fault }
    }

    /// The same refusal of a message that two readers could understand differently.
    #[must_use]
    pub fn graded(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// The same refusal with another status than the table's.
    #[must_use]
    pub fn answered(self, status: StatusCode) -> Self {
        Self { answer: Some(status), ..self }
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.answer.unwrap_or_else(|| self.reason.status())
    }

    /// The same, with the time for which it holds.
    #[must_use]
    pub fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// The same, said in another way.
    #[must_use]
    pub fn said(self, action: Action) -> Self {
        Self { action, ..self }
    }

    /// A 405 with the methods that would have been allowed.
    pub fn method(reason: Reason, detail: impl Into<Cow<'static, str>>, allow: http::HeaderValue) -> Self {
        Self { allow: Some(allow), ..Self::new(reason, detail) }
    }
}
