//! A network of one thread: what is dialled in it leads to whoever the simulation put there.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::pipe::End;

/// What becomes of an attempt to connect: after a while, a line or an error.
pub(crate) type Dialled = (Duration, io::Result<End>);

type Answer = Rc<dyn Fn(&str) -> Dialled>;

thread_local! {
    static NET: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

/// There for as long as it lives.
pub(crate) struct Net(());

impl Net {
    /// A network in which `answer` says what becomes of who dials a name.
    pub(crate) fn new(answer: impl Fn(&str) -> Dialled + 'static) -> Self {
        NET.set(Some(Rc::new(answer)));
        Self(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        NET.set(None);
    }
}

/// Dials `name`; none where no network is simulated.
pub(crate) async fn dial(name: &str) -> Option<io::Result<End>> {
    let (time, dialled) = NET.with_borrow(Option::clone).map(|answer| answer(name))?;
    sleep(time).await;
    Some(dialled)
}
