//! Looks into bodies on their way: the request's towards the origin, the first bytes of an answer's towards the
//! client. Nothing is held back.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admit::Admitted;
use super::attempt::{Attempt, Watch};
use super::short::Short;
use super::verdict::{self, Verdict};
use crate::observe::Record;
use crate::refusal::Refusal;

/// What a request's body tells, shared by the body and the road.
#[derive(Clone)]
pub struct Tap {
    state: Arc<Mutex<State>>,
    guard: Option<Guard>,
}

#[derive(Debug)]
struct State {
    watch: Watch,
    /// Once the guard was asked.
    admitted: Option<Admitted>,
}

/// Whether the tries of a request may go on, once all of it is known.
type Guard = Arc<dyn Fn(&[Attempt], bool) -> Result<Admitted, Refusal> + Send + Sync>;

impl Tap {
    /// A tap that tells `watch`.
    #[must_use]
    pub fn new(watch: Watch) -> Self {
        Self { state: Arc::new(Mutex::new(State { watch, admitted: None })), guard: None }
    }

    /// The same tap, which asks `guard` about the tries that the body holds, and whether there may be others, once, before the last piece of it goes
    /// on: without that piece no origin looks at a password.
    #[must_use]
    pub fn guarded(
        self,
        guard: impl Fn(&[Attempt], bool) -> Result<Admitted, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self { guard: Some(Arc::new(guard)), ..self }
    }

    /// A piece is about to pass.
    ///
    /// # Errors
    /// When the guard says no: then it must not.
    pub fn push(&self, piece: &[u8]) -> Result<(), Refusal> {
        let through = self.with(|watch| {
            watch.push(piece);
            watch.is_through()
        });
        if through { self.ask() } else { Ok(()) }
    }

    /// The body is through, and its end is about to pass.
    ///
    /// # Errors
    /// When the guard says no: then it must not.
    pub fn end(&self) -> Result<(), Refusal> {
        self.with(Watch::end);
        self.ask()
    }

    fn ask(&self) -> Result<(), Refusal> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let mut state = self.lock();
        if state.admitted.is_none() {
            let attempts = state.watch.attempts();
            state.admitted = Some(guard(&attempts, state.watch.is_doubtful())?);
        }
        Ok(())
    }

    /// What the guard gave to the tries that went on: theirs to give back once their outcome is known.
    #[must_use]
    pub fn take_admitted(&self) -> Admitted {
        self.lock().admitted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Asks or tells what is watched.
    pub fn with<T>(&self, f: impl FnOnce(&mut Watch) -> T) -> T {
        f(&mut self.lock().watch)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What is done with a verdict that the answer's body told.
type Then = Box<dyn FnOnce(Verdict, Option<&mut Record>) + Send + Sync>;

/// The first bytes of the Install Tool's answer, blanks left out.
pub struct Window {
    start: Short<24>,
    then: Option<Then>,
}

impl Window {
    /// A window that tells `then`, once.
    #[must_use]
    pub fn new(then: impl FnOnce(Verdict, Option<&mut Record>) + Send + Sync + 'static) -> Self {
        Self { start: Short::default(), then: Some(Box::new(then)) }
    }

    /// A piece passes, and perhaps it was the last.
    pub fn see(&mut self, piece: &[u8], ended: bool, record: Option<&mut Record>) {
        if self.then.is_none() {
            return;
        }
        let visible = piece.iter().filter(|byte| !byte.is_ascii_whitespace()).take(24);
        visible.for_each(|byte| self.start.push(*byte));
        if let Some(verdict) = verdict::install_tool(self.start.start(), ended) {
            self.tell(verdict, record);
        }
    }

    /// The body is dropped. A client that goes before it has heard whether its password was right has failed:
    /// otherwise it could read the answer's length and leave.
    pub fn close(&mut self, record: Option<&mut Record>) {
        self.tell(Verdict::Failure, record);
    }

    fn tell(&mut self, verdict: Verdict, record: Option<&mut Record>) {
        if let Some(then) = self.then.take() {
            then(verdict, record);
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::attempt::{Asked, watch};
    use super::super::policy::Policy;
    use super::*;
    use crate::refusal::Reason;

    fn guarded(length: Option<u64>) -> Tap {
        let (method, path) = (&Method::PUT, "/typo3/login");
        let (query, content_type, authorization, odd) = (None, None, None, false);
        let asked =
            Asked { method, path, query, content_type, odd, authorization, cross_site: false, length };
        Tap::new(watch(&Policy::typo3(), &asked).unwrap()).guarded(|attempts, _| {
            let is_this = |attempt: &Attempt| attempt.user.as_deref() == Some(b"editor");
            if attempts.iter().any(is_this) {
                return Err(Refusal::new(Reason::Internal, "not this one"));
            }
            Ok(Admitted::default())
        })
    }

    #[test]
    fn a_try_that_may_not_be_is_stopped_before_its_end() {
        let body = b"login_status=login&username=editor&userident=x";
        let tap = guarded(Some(body.len() as u64));
        assert!(tap.push(&body[..40]).is_ok(), "the name may go on");
        assert!(tap.push(&body[40..]).is_err());
        let tap = guarded(None);
        assert!(tap.push(body).is_ok() && tap.end().is_err());
        let other = b"login_status=login&username=other";
        let tap = guarded(Some(other.len() as u64));
        assert!(tap.push(other).is_ok() && tap.end().is_ok());
        let harmless = b"login_status=logout&username=editor";
        assert!(guarded(Some(harmless.len() as u64)).push(harmless).is_ok());
    }

    fn told(pieces: &[&str], ended: bool) -> Option<Verdict> {
        let said = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&said);
        let mut window = Window::new(move |verdict, _| *slot.lock().unwrap() = Some(verdict));
        for (index, piece) in pieces.iter().enumerate() {
            window.see(piece.as_bytes(), ended && index + 1 == pieces.len(), None);
        }
        *said.lock().unwrap()
    }

    #[test]
    fn a_verdict_is_told_as_soon_as_it_is_known() {
        assert_eq!(told(&["{\"suc", "cess\": tr", "ue"], false), Some(Verdict::Success));
        assert_eq!(told(&["\r\n {\"success\":false,", "…"], false), Some(Verdict::Failure));
        assert_eq!(told(&["{\"suc"], false), None);
        assert_eq!(told(&["{\"suc", ""], true), Some(Verdict::Neutral));
        assert_eq!(told(&["<html>"], false), Some(Verdict::Neutral));
    }

    #[test]
    fn who_leaves_before_the_answer_has_failed() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let slot = Arc::clone(&said);
        let mut window = Window::new(move |verdict, _| slot.lock().unwrap().push(verdict));
        window.close(None);
        window.close(None);
        assert_eq!(*said.lock().unwrap(), [Verdict::Failure]);
    }
}
