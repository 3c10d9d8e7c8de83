//! The access log: one line per request, in the form and at the place that `[log]` says.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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
    /// Whether lines go to standard output, which is never opened again.
    on_stdout: AtomicBool,
}

impl AccessLog {
    pub(super) fn open(policy: &Policy, workers: usize) -> io::Result<Self> {
        let spool = Spool::start(workers, target(policy)?, GATHER, true)?;
        let on_stdout = AtomicBool::new(goes_to_stdout(policy));
        Ok(Self { form: AtomicU8::new(policy.access as u8), spool, on_stdout })
    }

    /// Follows a changed `[log]`. If the new place cannot be opened, nothing changes. Requests that end
    /// in this very moment may still have the old form.
    pub(super) fn apply(&self, policy: &Policy, patience: Duration) -> io::Result<()> {
        let target = target(policy)?;
        let stays = goes_to_stdout(policy);
        // A turn waits until the old place takes its lines; nobody waits for a reader that is stuck, to stay with it.
        if !(self.on_stdout.swap(stays, Ordering::Relaxed) && stays) {
            self.spool.turn_to(target, patience);
        }
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
        if self.on_stdout.load(Ordering::Relaxed) {
            return Ok(());
        }
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

/// Opens the place.
fn target(policy: &Policy) -> io::Result<Target> {
    match &policy.file {
        Place::File(path) if !goes_to_stdout(policy) => Target::file(path),
        _ => Target::stdout(),
    }
}

/// A log that is off opens no file.
fn goes_to_stdout(policy: &Policy) -> bool {
    policy.access == Form::Off || policy.file == Place::Stdout
}
