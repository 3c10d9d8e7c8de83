//! One real Apache with PHP for the whole test binary, started when the first test asks for it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::curl::{Ask, Over};
use super::ports::Port;
use super::{test_file, within};

/// The running Apache.
#[derive(Debug)]
pub(crate) struct Apache {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    root: PathBuf,
    _port: Port,
    // Its standard input stays open as long as this process lives; `serve --tied` ends Apache when it
    // closes, however the tests end.
    _serve: Mutex<Child>,
}

/// The shared Apache.
pub(crate) fn apache() -> &'static Apache {
    static APACHE: OnceLock<Apache> = OnceLock::new();
    APACHE.get_or_init(|| Apache::start(None))
}

impl Apache {
    /// One of its own for a folder.
    pub(crate) fn of(site: &Path) -> Self {
        Self::start(Some(site))
    }

    fn start(site: Option<&Path>) -> Self {
        let port = Port::reserve();
        let mut serve = Command::new(test_file("origin/serve"))
            .envs(site.map(|site| ("ORIGIN_SITE", site)))
            .args(["--tied", &port.number().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/origin/serve starts");
        let mut lines = BufReader::new(serve.stdout.take().expect("its output is piped")).lines();
        let mut word = |word: &str| {
            let line = lines.next().and_then(Result::ok);
            line.as_deref().and_then(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned())
        };
        let root = word("root").expect("serve says where its files are");
        let url = word("ready").expect("Apache starts (see above; tests/run installs what it needs)");
        Self { url, root: root.into(), _port: port, _serve: Mutex::new(serve) }
    }

    /// The lines of Apache's own access log that contain `marker`: how often the origin really saw it.
    #[track_caller]
    pub(crate) fn saw(&self, marker: &str) -> usize {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        // Apache writes a line after it has answered: whatever came before this request is written once
        // this one is.
        let last = format!("/?seen-{}-", TURN.fetch_add(1, Ordering::Relaxed));
        Ask::url(&format!("{}{last}", self.url), Over::Plain).send();
        let counted = within(Duration::from_secs(5), || {
            let log = std::fs::read_to_string(self.root.join("logs/access.log")).unwrap_or_default();
            let count = log.lines().filter(|line| line.contains(marker)).count();
            log.contains(&last).then_some(count)
        });
        counted.expect("Apache writes its access log")
    }
}
