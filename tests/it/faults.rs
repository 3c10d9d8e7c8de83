//! What breaks around and inside a running Ravelin: `docs/faults.md` has the list and the results.

mod defect;
mod drain;
mod files;
mod load;
mod logs;
mod names;
mod reload;

use std::time::Duration;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
