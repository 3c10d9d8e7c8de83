//! What Ravelin says about itself: `tracing` to standard error, as text or JSON.
//!
//! Off the hot path like the access log: a terminal or a collector that is stuck stops nobody.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::settings::{Format, Policy};
use super::spool::Spool;
use super::target::Target;

/// The diagnostics of this process. Their level follows a reload; their form stays.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    spool: Arc<Spool>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Diagnostics {
    /// Sets them up for the whole process. A second call leaves the first one in force.
    ///
    /// # Errors
    /// When standard error cannot be duplicated, or the thread that writes cannot be made.
    pub fn install(policy: &Policy) -> io::Result<Self> {
        // No gathering: what is said before a crash should be read after it.
        let spool = Arc::new(Spool::start(1, Target::stderr()?, Duration::ZERO, false)?);
        let (filter, handle) = reload::Layer::new(EnvFilter::new(&*policy.level));
        let layer = layer(policy.format, Lines(Arc::clone(&spool)));
        // Tests and embedders may have their own subscriber; theirs is as good.
        let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
        Ok(Self { spool, filter: handle })
    }

    /// Follows a changed level.
    pub fn apply(&self, policy: &Policy) {
        // The handle fails only if the subscriber is gone, and then nobody listens.
        let _ = self.filter.reload(EnvFilter::new(&*policy.level));
    }

    /// Writes what was said, waiting up to `patience`; call before the process ends.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.spool.flush(patience)
    }
}

type Subscriber = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn layer(format: Format, lines: Lines) -> Box<dyn Layer<Subscriber> + Send + Sync> {
    match format {
        Format::Text => fmt::layer().with_writer(lines).with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(lines).with_ansi(false).boxed(),
    }
}

/// Takes whole events, as `tracing_subscriber::fmt` writes them.
#[derive(Clone, Debug)]
struct Lines(Arc<Spool>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.line(0, |out, _| out.extend_from_slice(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(format: Format) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("diagnostics");
        let spool = Arc::new(Spool::start(1, Target::file(&path).unwrap(), Duration::ZERO, false).unwrap());
        let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
        let subscriber =
            tracing_subscriber::registry().with(filter).with(layer(format, Lines(Arc::clone(&spool))));
        let diagnostics = Diagnostics { spool, filter: handle };
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too low");
            tracing::info!(site = "www.example.org", "a line\u{1b}[2J\nand another");
            diagnostics.apply(&Policy { level: "debug".into(), ..Policy::default() });
            tracing::debug!("low enough now");
        });
        assert!(diagnostics.flush(Duration::from_secs(10)));
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn text_is_for_people() {
        let text = said(Format::Text);
        assert!(text.contains("site=\"www.example.org\""), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("too low"), "{text}");
        assert!(text.contains("low enough now"), "the level follows a reload: {text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = said(Format::Json);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["site"], "www.example.org");
        assert_eq!(lines[0]["message"], "a line\u{1b}[2J\nand another");
    }
}
