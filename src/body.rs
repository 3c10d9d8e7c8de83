//! The one body type, towards the origin and towards the client.
//!
//! A newtype from day one: an alias of boxes would leak into every signature and break `Send`
//! inference. Frames are data only; trailers are dropped on both ways, because an origin may merge
//! them into its header fields.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use self::client::ClientBody;
use crate::guard::pace::Meter;
use crate::login::{Tap, Window};
use crate::observe::{Received, Record};
use crate::refusal::Refusal;
use crate::upstream::{Blame, OriginBody, OriginStream, UpstreamError};

mod client;
mod upload;

pub use self::upload::{Inflow, Rest, Upload};

/// Bytes on their way.
pub struct Body {
    source: Source,
    /// Rides with the response body, counts its bytes, and is written when the body is dropped: at its
    /// end, or when the client hangs up.
    record: Option<Box<Record>>,
    /// Looks at the first bytes of an answer.
    window: Option<Box<Window>>,
}

enum Source {
    Empty,
    Full(Option<Bytes>),
    Client(Box<ClientBody>),
    Origin(Box<OriginBody>),
    Stream(Box<OriginStream>),
    #[cfg(test)]
    Scripted(Script),
}

/// What a body does when it is polled, for tests.
#[cfg(test)]
type Script = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> + Send + Sync>;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The client closed, or reset its stream.
    Client(std::io::Error),
    /// The client sent more than it may, too slowly, or broken chunks.
    Refused(Refusal),
    /// The origin closed too early, stalled, or broke the framing.
    Origin(std::io::Error),
}

impl BodyError {
    /// What ended an answer: the origin, or the client's own body, which still flowed the other way.
    fn of_exchange(error: std::io::Error) -> Self {
        match error.downcast::<UpstreamError>() {
            Ok(UpstreamError { refusal: Some(refusal), .. }) => Self::Refused(*refusal),
            Ok(error) if error.kind.blame() == Blame::Client => Self::Client(std::io::Error::other(error)),
            Ok(error) => Self::Origin(std::io::Error::other(error)),
            Err(error) => Self::Origin(error),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => write!(f, "the client's body broke off: {error}"),
            Self::Refused(refusal) => write!(f, "the client's body was refused: {}", refusal.detail),
            Self::Origin(error) => write!(f, "the origin's body broke off: {error}"),
        }
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// No body at all.
    #[must_use]
    pub fn empty() -> Self {
        Self { source: Source::Empty, record: None, window: None }
    }

    /// A body that is here already.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(Some(bytes.into())), record: None, window: None }
    }

    /// What a client sends, measured by `meter` and counted in `received`.
    #[must_use]
    pub fn client(upload: Upload, meter: Meter, received: Received) -> Self {
        Self {
            source: Source::Client(Box::new(ClientBody::new(upload, meter, received))),
            record: None,
            window: None,
        }
    }

    /// The same body, which tells `tap` what a client sends.
    #[must_use]
    pub fn tapped(mut self, tap: Tap) -> Self {
        if let Source::Client(body) = &mut self.source {
            body.tap(tap);
        } else {
            tap.with(crate::login::Watch::end);
        }
        self
    }

    /// The same body, at whose first bytes `window` looks.
    #[must_use]
    pub fn behind(mut self, window: Window) -> Self {
        self.window = Some(Box::new(window));
        self
    }

    /// What the origin sends.
    #[must_use]
    pub fn origin(body: OriginBody) -> Self {
        Self { source: Source::Origin(Box::new(body)), record: None, window: None }
    }

    /// What the origin sends over HTTP/2.
    #[must_use]
    pub fn stream(body: OriginStream) -> Self {
        Self { source: Source::Stream(Box::new(body)), record: None, window: None }
    }

    /// A body that a test plays by hand.
    #[cfg(test)]
    pub(crate) fn scripted(
        script: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> + Send + Sync + 'static,
    ) -> Self {
        Self { source: Source::Scripted(Box::new(script)), record: None, window: None }
    }

    /// Notes in the record what a tunnel carried behind this answer's head.
    pub fn carried(&mut self, from_client: u64, from_origin: u64) {
        if let Some(record) = &mut self.record {
            record.receiving().add(usize::try_from(from_client).unwrap_or(usize::MAX));
            record.sent(usize::try_from(from_origin).unwrap_or(usize::MAX));
        }
    }

    /// The same body with the record that it completes.
    #[must_use]
    pub fn recorded(mut self, mut record: Box<Record>) -> Self {
        if http_body::Body::is_end_stream(&self) {
            record.complete();
            if let Some(window) = &mut self.window {
                window.see(&[], true, Some(&mut record));
            }
        }
        self.record = Some(record);
        self
    }
}

impl Body {
    /// Nobody asks the client for more until it is polled again: what it does not send meanwhile is not its fault.
    pub fn pause(&mut self) {
        if let Source::Client(body) = &mut self.source {
            body.pause();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let frame = match &mut self.source {
            Source::Empty => None,
            Source::Full(bytes) => bytes.take().filter(|b| !b.is_empty()).map(Ok),
            Source::Client(body) => ready!(body.poll_data(cx)),
            Source::Origin(body) => {
                ready!(body.poll_data(cx)).map(|data| data.map_err(BodyError::of_exchange))
            }
            Source::Stream(body) => {
                ready!(body.poll_data(cx)).map(|data| data.map_err(BodyError::of_exchange))
            }
            #[cfg(test)]
            Source::Scripted(script) => ready!(script(cx)),
        };
        // hyper asks no further once the end is known, so the last piece completes the record.
        let ended = http_body::Body::is_end_stream(self);
        if let Some(window) = &mut self.window {
            let piece = frame.as_ref().and_then(|frame| frame.as_ref().ok());
            let over = frame.is_none() || ended;
            window.see(piece.map_or(&[], |piece| piece), over, self.record.as_deref_mut());
        }
        if let Some(record) = &mut self.record {
            match &frame {
                Some(Ok(data)) => record.sent(data.len()),
                Some(Err(error)) => record.broke_off(error),
                None => record.complete(),
            }
            if ended && !matches!(frame, Some(Err(_))) {
                record.complete();
            }
        }
        Poll::Ready(frame)
    }

    /// What is left after a defect: nothing, and the word of it.
    fn broken(&mut self) -> BodyError {
        // Not dropped by its own rules: it may be in the middle of anything.
        self.window = None;
        self.source = Source::Empty;
        let error = BodyError::Origin(std::io::Error::other(
            "a panic while passing it on; standard error says where",
        ));
        if let Some(record) = &mut self.record {
            record.panicked();
            record.broke_off(&error);
        }
        error
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(mut window) = self.window.take() {
            window.close(self.record.as_deref_mut());
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        // A defect while an answer is passed on ends that answer, and over HTTP/2 not the others of its connection.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| this.poll_next(cx)));
        let frame = match polled {
            Ok(polled) => ready!(polled),
            Err(_) => Some(Err(this.broken())),
        };
        Poll::Ready(frame.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Source::Client(body) => body.is_end(),
            Source::Origin(body) => body.is_end(),
            Source::Stream(body) => body.is_end(),
            #[cfg(test)]
            Source::Scripted(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Client(body) => body.size_hint(),
            Source::Origin(body) => body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Stream(body) => body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            #[cfg(test)]
            Source::Scripted(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.source {
            Source::Empty => "empty",
            Source::Full(_) => "full",
            Source::Client(_) => "client",
            Source::Origin(_) => "origin",
            Source::Stream(_) => "stream",
            #[cfg(test)]
            Source::Scripted(_) => "scripted",
        };
        f.debug_struct("Body").field("source", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::refusal::Reason;
    use crate::upstream::Kind;

    #[test]
    fn an_answer_that_the_client_s_own_body_ends_is_not_the_origin_s_fault() {
        let of = |error| BodyError::of_exchange(std::io::Error::other(error));
        let refused = UpstreamError::body(&BodyError::Refused(Refusal::new(Reason::BadChunk, "broken")));
        assert!(matches!(of(refused), BodyError::Refused(refusal) if refusal.reason == Reason::BadChunk));
        assert!(matches!(of(UpstreamError::new(Kind::ClientBody, "gone")), BodyError::Client(_)));
        assert!(matches!(of(UpstreamError::new(Kind::Closed, "gone")), BodyError::Origin(_)));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(BodyError::of_exchange(reset), BodyError::Origin(_)));
    }

    #[test]
    fn a_defect_while_a_body_is_passed_on_ends_that_body_and_not_well() {
        let mut asked = 0;
        let mut body = Body::scripted(move |_| {
            asked += 1;
            assert!(asked < 2, "a defect");
            Poll::Ready(Some(Ok(Bytes::from_static(b"hello"))))
        });
        let mut next = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(next(), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "hello"));
        let Poll::Ready(Some(Err(error))) = next() else { unreachable!("no error") };
        assert!(error.to_string().contains("a panic while passing it on"), "{error}");
        assert!(matches!(next(), Poll::Ready(None)), "nothing is asked again");
    }
}
