//! Free loopback ports that no other test process takes.
//!
//! Asking for port 0 does not work across processes: the port must be written into a configuration before
//! the proxy binds it. So a port from below the ephemeral range is locked by a file for as long as it is held.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a free port.
    pub(crate) fn reserve() -> Self {
        let user = std::fs::metadata("/proc/self").map(|m| m.uid()).expect("/proc/self is readable");
        let dir = std::env::temp_dir().join(format!("ravelin-test-ports-{user}"));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let start = std::process::id().wrapping_mul(61);
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number =
                u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("the range ends below 65536");
            let path = dir.join(number.to_string());
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
            let lock = open.expect("a lock file can be opened");
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
