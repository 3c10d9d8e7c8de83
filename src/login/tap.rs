//! Looks into bodies on their way: the request's towards the origin, the first bytes of an answer's towards the
//! client. Nothing is held back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::attempt::Watch;
use super::short::Short;
use super::verdict::{self, Verdict};
use crate::observe::Record;

/// What a request's body tells, shared by the body and the road.
#[derive(Clone, Debug)]
pub struct Tap(Arc<Mutex<Watch>>);

impl Tap {
    /// A tap that tells `watch`.
    #[must_use]
    pub fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(watch)))
    }

    /// A piece passes.
    pub fn push(&self, piece: &[u8]) {
        self.with(|watch| watch.push(piece));
    }

    /// The body is through.
    pub fn end(&self) {
        self.with(Watch::end);
    }

    /// Asks or tells what is watched.
    pub fn with<T>(&self, f: impl FnOnce(&mut Watch) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
    use super::*;

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
