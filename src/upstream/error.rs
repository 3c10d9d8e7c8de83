//! Why the origin gave no answer, with retry and blame as data.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::body::BodyError;
use crate::observe::Origin;
use crate::refusal::{Reason, Refusal};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No connection: refused, no route, no such name, no such socket, or too slow to connect.
    Unreachable,
    /// This process or the machine has no file or memory left for a connection: no fault of the origin.
    Exhausted,
    /// The origin has as many requests as it may have at once, and none of them was answered in time.
    Busy,
    /// The TLS handshake failed, or the certificate was not accepted.
    Tls,
    /// The answer was not one clear HTTP/1 message.
    Protocol,
    /// The origin closed before its answer was there.
    Closed,
    /// The response head is larger than allowed.
    HeadTooLarge,
    /// No response head in time.
    Timeout,
    /// Every member is left alone just now.
    Down,
    /// The request body broke off: the client went away.
    ClientBody,
    /// The request body was refused on its way: too large, or too slow.
    ClientRefused(Reason),
    /// The request body stopped coming, so the origin had nothing to answer yet.
    ClientStalled,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The origin's.
    Origin,
    /// The client's; nothing is wrong with the origin.
    Client,
    /// Ours.
    Proxy,
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No byte of it went out: anywhere, whatever the method.
    Anywhere,
    /// It went out on a kept connection that died before any byte of an answer: on a fresh one, if the
    /// method is safe to repeat.
    IfIdempotent,
    /// Never.
    Never,
}

/// A request that got no answer.
#[derive(Clone, Debug)]
pub struct UpstreamError {
    /// What went wrong.
    pub kind: Kind,
    /// What exactly was seen; for the log only.
    pub detail: Cow<'static, str>,
    /// Whether it could have been sent again. `send` has already done so where that is right.
    pub retry: Retry,
    /// How far it came.
    pub facts: Facts,
    /// The refusal of a request body on its way, with how long it holds.
    pub refusal: Option<Box<Refusal>>,
}

/// What the record of a request wants to know about the way to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The member that was asked last.
    pub member: Option<Arc<str>>,
    /// How long connecting took: name, TCP and TLS; `None` on a kept connection.
    pub connect: Option<Duration>,
    /// From the start of sending to the response head.
    pub first_byte: Option<Duration>,
    /// Whether the connection had carried a request before.
    pub reused: bool,
    /// How many connections were tried; 1 if all went well.
    pub attempts: u32,
    /// Bytes of the request, head and framing included, that had gone out when the response head
    /// came.
    pub sent: u64,
}

impl Facts {
    /// As the record of the request keeps it.
    #[must_use]
    pub fn seen(&self) -> Origin<'_> {
        Origin {
            member: self.member.as_deref().unwrap_or_default(),
            connect: self.connect,
            first_byte: self.first_byte,
            reused: self.reused,
            retries: self.attempts.saturating_sub(1),
        }
    }
}

impl Kind {
    /// The row of the refusal table.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Unreachable => Reason::OriginUnreachable,
            Self::Exhausted | Self::Busy => Reason::Overloaded,
            Self::Tls => Reason::OriginTls,
            Self::Protocol => Reason::OriginProtocol,
            Self::Closed => Reason::OriginClosed,
            Self::HeadTooLarge => Reason::OriginHeadTooLarge,
            Self::Timeout => Reason::OriginTimeout,
            Self::Down => Reason::OriginDown,
            Self::ClientBody => Reason::BodyIncomplete,
            Self::ClientRefused(reason) => reason,
            Self::ClientStalled => Reason::BodyTimeout,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::ClientBody | Self::ClientRefused(_) | Self::ClientStalled => Blame::Client,
            Self::Exhausted | Self::Busy => Blame::Proxy,
            _ => Blame::Origin,
        }
    }
}

impl UpstreamError {
    /// An error after which nothing is sent again.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry: Retry::Never, facts: Facts::default(), refusal: None }
    }

    /// The same error with what may be done about it.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// An error of the request body, as told apart from the origin's.
    #[must_use]
    pub fn body(error: &BodyError) -> Self {
        match error {
            BodyError::Refused(refusal) => {
                let known = Self::new(Kind::ClientRefused(refusal.reason), refusal.detail.clone());
                Self { refusal: Some(Box::new(refusal.clone())), ..known }
            }
            BodyError::Client(_) | BodyError::Origin(_) => Self::new(Kind::ClientBody, error.to_string()),
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match &self.facts.member {
            Some(member) => write!(f, " ({member})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        let detail = error.to_string();
        match error.refusal {
            Some(refusal) => Refusal { detail: detail.into(), ..*refusal },
            None => Refusal::new(error.kind.reason(), detail),
        }
    }
}
