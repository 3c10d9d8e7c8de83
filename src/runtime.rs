//! The two worlds of threads: N workers, each a runtime of its own, and one control thread.
//!
//! This file alone knows the flavour. Each worker runs a current-thread runtime: its listeners, its
//! connections and its pool of origin connections never cross to another core.

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Runtime};

/// Worker threads that are running.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

/// The number of workers for what is configured; 0 means one for each core that this process may use.
#[must_use]
pub fn worker_count(configured: usize) -> usize {
    match configured {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        count => count,
    }
}

/// Starts `count` threads named `ravelin-w0`, `ravelin-w1`, …; each runs `entry(its number)` to its end
/// on a runtime of its own. What `entry` has spawned is dropped when it returns.
///
/// A panic that leaves `entry` ends the whole process with a message and an abort: a proxy that goes on
/// with fewer workers would leave connections unanswered in the kernel's queue of the dead one. Panics
/// in spawned tasks end only their task, so an accept loop belongs into `entry` itself, not into a task.
///
/// # Errors
/// When a thread or a runtime cannot be made (limits on threads or file descriptors).
pub fn start<F, Fut>(count: usize, entry: F) -> io::Result<Workers>
where
    F: Fn(usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()>,
{
    let entry = Arc::new(entry);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        // Made here, so that a failure is an answer and not a panic in the thread.
        let runtime = current_thread()?;
        let entry = Arc::clone(&entry);
        let run = move || {
            or_abort(index, || {
                runtime.block_on(entry(index));
                // Not `drop`, which waits for what blocks: a resolver that hangs, for half a minute.
                runtime.shutdown_background();
            });
        };
        threads.push(thread::Builder::new().name(format!("ravelin-w{index}")).spawn(run)?);
    }
    Ok(Workers { threads })
}

/// The control world on the calling thread: admin, certificates, signals, health.
#[derive(Debug)]
pub struct Control(Runtime);

impl Control {
    /// A world in which nothing runs yet.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn new() -> io::Result<Self> {
        current_thread().map(Self)
    }

    /// Ends it. Does not wait for what blocks: a disk that hangs, or a resolver.
    pub fn end(self) {
        self.0.shutdown_background();
    }

    /// Runs `main` to its end. What it leaves behind goes on with the next one.
    pub fn run<F: Future>(&self, main: F) -> F::Output {
        self.0.block_on(main)
    }
}

/// Runs `main` on the calling thread, in a control world of its own.
///
/// # Errors
/// When the runtime cannot be made.
pub fn control<F: Future>(main: F) -> io::Result<F::Output> {
    Ok(Control::new()?.run(main))
}

impl Workers {
    /// Waits until every worker's entry has returned.
    pub fn join(self) {
        for thread in self.threads {
            // A panic never gets here: it has aborted the process.
            let _ = thread.join();
        }
    }

    /// Whether every worker's entry has returned.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn or_abort(index: usize, run: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
        // The panic hook has printed where and why.
        tracing::error!(worker = index, "a worker panicked; aborting, because the others cannot take over");
        eprintln!("ravelin: worker {index} panicked: aborting. This is a defect: please report it.");
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_worker_runs_the_entry_once_on_its_own_named_thread() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let workers = start(3, move |index| {
            let notes = Arc::clone(&notes);
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let name = thread::current().name().map(str::to_owned);
                notes.lock().unwrap().push((index, name));
            }
        });
        workers.unwrap().join();
        let mut seen = seen.lock().unwrap().clone();
        seen.sort();
        let want: Vec<_> = (0..3).map(|i| (i, Some(format!("ravelin-w{i}")))).collect();
        assert_eq!(seen, want);
    }

    #[test]
    fn a_call_that_blocks_does_not_hold_the_end_up() {
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        let workers = start(1, move |_| {
            let waits = Arc::clone(&waits);
            async move {
                let (begun, begins) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    waits.lock().unwrap().recv()
                });
                begins.await.unwrap();
            }
        });
        let (over, ended) = std::sync::mpsc::channel();
        thread::spawn(move || {
            workers.unwrap().join();
            over.send(()).unwrap();
        });
        let ended = ended.recv_timeout(std::time::Duration::from_secs(20));
        drop(go_on);
        assert!(ended.is_ok(), "it waits for the call");
    }

    #[test]
    fn zero_workers_means_one_per_core() {
        assert!(worker_count(0) >= 1);
        assert_eq!(worker_count(7), 7);
    }

    #[test]
    fn control_runs_on_this_thread() {
        let here = thread::current().id();
        assert_eq!(control(async { thread::current().id() }).unwrap(), here);
    }

    /// Run by the test below in a process of its own, because it ends that process.
    #[test]
    #[ignore = "aborts the process; run by a_panicking_worker_aborts"]
    fn child_with_a_panicking_worker() {
        start(2, |index| async move { assert!(index != 1, "worker 1 is broken") }).unwrap().join();
        thread::sleep(std::time::Duration::from_secs(5));
    }

    #[test]
    fn a_panicking_worker_aborts() {
        let itself = std::fs::read_link("/proc/self/exe").unwrap();
        let name = "runtime::tests::child_with_a_panicking_worker";
        let child =
            Command::new(itself).args(["--ignored", "--exact", name, "--nocapture"]).output().unwrap();
        assert!(!child.status.success());
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(said.contains("worker 1 panicked: aborting"), "{said}");
    }
}
