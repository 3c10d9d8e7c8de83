//! The access log: one line per request, in the form and at the place that `[log]` says.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::record::Record;
use super::render;
use super::settings::{Form, Place, Policy};
use super::spool::{Spool, Tally};
use super::target::Target;

/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(250);

/// Where records become lines.
#[derive(Debug)]
pub(super) struct AccessLog {
    form: AtomicU8,
    spool: Spool,
}

impl AccessLog {
    pub(super) fn open(policy: &Policy, workers: usize) -> io::Result<Self> {
        let spool = Spool::start(workers, target(policy)?, GATHER, true)?;
        Ok(Self { form: AtomicU8::new(policy.access as u8), spool })
    }

    /// Follows a changed `[log]`. If the new place cannot be opened, nothing changes. Requests that end
    /// in this very moment may still have the old form.
    pub(super) fn apply(&self, policy: &Policy, patience: Duration) -> io::Result<()> {
        self.spool.turn_to(target(policy)?, patience);
        self.form.store(policy.access as u8, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn write(&self, worker: usize, record: &Record, took: Duration) {
        let form = self.form();
        if form != Form::Off {
            self.spool.line(worker, |out, stamp| render::line(form, record, took, stamp, out));
        }
    }

    /// Whole lines of another kind.
    pub(super) fn insert(&self, lines: &str) {
        self.spool.line(0, |out, _| out.extend_from_slice(lines.as_bytes()));
    }

    pub(super) fn flush(&self, patience: Duration) -> bool {
        self.spool.flush(patience)
    }

    pub(super) fn reopen(&self, patience: Duration) -> io::Result<()> {
        self.spool.reopen(patience)
    }

    pub(super) fn tally(&self) -> Tally {
        self.spool.tally()
    }

    fn form(&self) -> Form {
        let form = self.form.load(Ordering::Relaxed);
        [Form::Json, Form::Combined].into_iter().find(|f| *f as u8 == form).unwrap_or(Form::Off)
    }
}

/// Opens the place; a log that is off opens no file.
fn target(policy: &Policy) -> io::Result<Target> {
    match &policy.file {
        Place::File(path) if policy.access != Form::Off => Target::file(path),
        Place::File(_) | Place::Stdout => Target::stdout(),
    }
}
