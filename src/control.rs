//! The control thread: signals, reloads, and how it all ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Interval, interval, sleep, timeout};

use crate::admin::socket::Bound;
use crate::admin::{self, Desk, State};
use crate::clock;
use crate::config::complaint::Severity;
use crate::drain::Phase;
use crate::server::{House, Reload};
use crate::service;
use crate::tls::expiry::{self, Urgency};
use crate::tls::watch::{Watch, snapshot};
use crate::upgrade::{self, Estate, Heir, Launch};

/// Certificates made on the spot live 24 hours; this long before they end they are made again, by a
/// reload.
const MADE_AGAIN: Duration = Duration::from_hours(12);

/// How often certificates on the disk are looked at.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The signals that matter here.
#[derive(Debug)]
pub struct Signals {
    hang_up: Signal,
    user1: Signal,
    user2: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// The house's own wish to read its configuration again, say because a certificate on the disk has changed.
/// Wishes that come while one is waiting are one.
#[derive(Debug, Default)]
pub struct Wanted(Notify);

impl Wanted {
    /// Asks for a reload, as SIGHUP does, and says `why` in the diagnostics.
    pub fn reload(&self, why: &str) {
        tracing::info!("reloading: {why}");
        self.0.notify_one();
    }

    async fn asked(&self) {
        self.0.notified().await;
    }
}

/// How somebody wants it to end.
enum Stop {
    /// SIGTERM: balancers are to notice first.
    Gently,
    /// SIGINT, Ctrl-C: a person waits at the terminal.
    Soon,
    /// Another process has taken over.
    HandedOver,
}

/// Who comes after this process.
#[derive(Debug)]
pub struct Succession {
    /// How to start a successor; none if there can be none.
    pub launch: Option<Launch>,
    /// What it gets.
    pub estate: Estate,
    /// Whether this process is one itself: then its predecessor tells the service manager.
    pub is_successor: bool,
}

/// Idle connections are closed this long after a successor took over, at the earliest: with its next request a client is
/// told to come back, and no request crosses a close on its way.
const TO_COME_BACK: Duration = Duration::from_secs(2);

/// A successor on its way, and what came of it.
type Upgrade<'a> = Pin<Box<dyn Future<Output = Result<Heir, String>> + 'a>>;

/// Serves until a signal ends it; comes back when the last connection is over or the grace has passed.
pub async fn run(
    house: &Arc<House>,
    mut signals: Signals,
    admin: Vec<(Bound, Desk)>,
    reload: Reload,
    succession: Succession,
    ready: impl FnOnce(),
) {
    for (socket, desk) in admin {
        let (mut watch, mut door) = (house.drain.watch(), house.drain.watch());
        let stop = async move {
            tokio::select! {
                () = watch.reached(Phase::Killed) => {}
                () = door.handed_over() => {}
            }
        };
        tokio::spawn(admin::serve(socket, desk, stop));
    }
    house.readiness.set(State::Ready);
    ready();
    if !succession.is_successor {
        service::ready(&house.live.load().id);
    }
    let mut watchdog = service::watched().map(interval);
    let watching = tokio::spawn(watch(Arc::clone(house)));
    let stop = serve(house, &mut signals, &reload, &succession, &mut watchdog).await;
    watching.abort();
    // Our sockets close with the accept loops.
    drop(succession);
    wind_down(house, &stop, signals, watchdog).await;
}

/// Does what it is told by signals and by the house itself, until it is told to stop.
async fn serve(
    house: &House,
    signals: &mut Signals,
    reload: &Reload,
    succession: &Succession,
    watchdog: &mut Option<Interval>,
) -> Stop {
    let mut minute = interval(Duration::from_mins(1));
    let mut looked = clock::wall();
    let mut upgrade: Option<Upgrade<'_>> = None;
    // Whether a reload was asked for while a successor was on its way, which may have read what was there before.
    let mut missed = false;
    let stop = loop {
        tokio::select! {
            _ = signals.user2.recv(), if upgrade.is_none() => {
                missed = false;
                upgrade = succeed(house, succession);
            }
            outcome = outcome(&mut upgrade) => {
                upgrade = None;
                match outcome {
                    Ok(heir) => {
                        took_over(house, &succession.estate, heir, missed);
                        break Stop::HandedOver;
                    }
                    Err(message) => stays(house, &message),
                }
            }
            _ = minute.tick() => {
                let now = clock::wall();
                if is_due(house.live.load().made_until(), now) { reload_now(house, reload) }
                remind(house, looked, now);
                looked = now;
            }
            () = due(watchdog) => say_alive(house),
            _ = signals.hang_up.recv() => {
                missed = true;
                service::reloading();
                reload_now(house, reload);
                service::ready(&house.live.load().id);
            }
            () = house.wanted.asked() => {
                missed = true;
                reload_now(house, reload);
            }
            _ = signals.user1.recv() => reopen(house),
            _ = signals.terminate.recv() => break Stop::Gently,
            _ = signals.interrupt.recv() => break Stop::Soon,
        }
    };
    // A successor that is not in office yet is ended.
    if upgrade.take().is_some() {
        house.state.take_back();
    }
    stop
}

/// Tells clients to come back elsewhere, and lets what is under way finish.
async fn wind_down(house: &House, stop: &Stop, mut signals: Signals, mut watchdog: Option<Interval>) {
    let shutdown = house.live.load().shutdown;
    let delay = match stop {
        Stop::Gently => shutdown.drain_delay,
        Stop::Soon => Duration::ZERO,
        Stop::HandedOver => shutdown.drain_delay.max(TO_COME_BACK),
    };
    if matches!(stop, Stop::HandedOver) {
        house.drain.hand_over();
    } else {
        service::stopping();
        house.readiness.set(State::Draining);
        house.drain.advance(Phase::Draining);
    }
    tracing::info!(?delay, grace = ?shutdown.grace, connections = house.drain.live(), "stopping");
    tokio::select! {
        () = end(house, delay, shutdown.grace) => {}
        () = keep_alive(house, &mut watchdog) => {}
        () = signals.again(stop) => tracing::warn!(connections = house.drain.live(), "stopping at once"),
    }
    house.drain.advance(Phase::Killed);
}

/// Begins to start a successor, if there can be one.
fn succeed<'a>(house: &'a House, succession: &'a Succession) -> Option<Upgrade<'a>> {
    let launch = match &succession.launch {
        // With process 1 its whole container ends.
        Some(_) if std::process::id() == 1 => {
            tracing::error!("no upgrade: this is process 1 of a container; start another container instead");
            return None;
        }
        None => {
            tracing::error!("no upgrade: only `ravelin run` can be upgraded");
            return None;
        }
        Some(launch) => launch,
    };
    service::reloading();
    tracing::info!(program = %launch.program.display(), "starting a successor");
    Some(Box::pin(upgrade::hand_over(launch, &succession.estate, house.state.release())))
}

/// What came of an upgrade that is under way; never if there is none.
async fn outcome(upgrade: &mut Option<Upgrade<'_>>) -> Result<Heir, String> {
    match upgrade {
        Some(upgrade) => upgrade.await,
        None => std::future::pending().await,
    }
}

/// The successor serves. It reads its configuration again if somebody wanted that after it may have read it.
fn took_over(house: &House, estate: &Estate, heir: Heir, missed: bool) {
    estate.is_handed_over();
    if missed && let Err(error) = heir.hang_up() {
        tracing::error!(%error, "the new process cannot be told to read its configuration again: send it SIGHUP");
    }
    let process = heir.enthrone();
    service::handed_over(process);
    tracing::info!(process, connections = house.drain.live(), "upgraded: another process serves now");
}

/// There is no successor, and nothing has changed.
fn stays(house: &House, message: &str) {
    house.state.take_back();
    tracing::error!("upgrade failed, nothing has changed: {message}");
    service::ready(&house.live.load().id);
}

/// A worker that has not come round for so long hangs: the service manager hears nothing more, and acts.
const HANGS: Duration = Duration::from_secs(10);

fn say_alive(house: &House) {
    let silent = house.hearts.longest(clock::now());
    if silent < HANGS {
        service::alive();
    } else {
        tracing::error!(?silent, "a worker hangs");
    }
}

/// The next time that the service manager wants a sign of life; never if it wants none.
async fn due(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// Gives signs of life until the end is reached.
async fn keep_alive(house: &House, watchdog: &mut Option<Interval>) {
    loop {
        due(watchdog).await;
        say_alive(house);
    }
}

/// Serves on for `delay`, then lets what is under way finish within `grace`.
async fn end(house: &House, delay: Duration, grace: Duration) {
    sleep(delay).await;
    house.drain.advance(Phase::Closing);
    // The accept loops take what the kernel still holds before the connections are counted.
    sleep(Duration::from_millis(20)).await;
    if timeout(grace, house.drain.empty()).await.is_err() {
        tracing::warn!(connections = house.drain.live(), "the grace is over; what is open is cut");
    }
}

/// Asks for a reload whenever certificates on the disk have changed. A file system that hangs holds up nothing else.
async fn watch(house: Arc<House>) {
    let mut watch = Watch::since(house.live.load().read_at);
    loop {
        let all = house.live.load().watched();
        // A snapshot that cannot be taken is one that has not been taken.
        if let Ok(seen) = tokio::task::spawn_blocking(move || snapshot(&all)).await
            && watch.settled(seen)
        {
            house.wanted.reload("certificates on the disk have changed");
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

/// Says of every certificate that has come nearer to its end since the last look that it ends.
fn remind(house: &House, before: SystemTime, now: SystemTime) {
    let (loaded, came) = (house.live.load().certificates(), house.book.all());
    let loaded = loaded.iter().map(|own| expiry::of_a_file(&own.origin, &own.facts, before, now));
    let came = came.iter().map(|(name, own)| expiry::of_acme(name, &own.facts, before, now));
    // A clock that was set back has passed nothing.
    for (urgency, said) in loaded.chain(came).flatten().filter(|_| before < now) {
        match urgency {
            Urgency::Early | Urgency::Soon => tracing::warn!("{said}"),
            Urgency::Tomorrow | Urgency::Over => tracing::error!("{said}"),
        }
    }
}

/// Whether a certificate that was made on the spot has half its life left, or less. By the wall clock: a
/// machine that slept over it has not counted the hours.
fn is_due(until: Option<SystemTime>, now: SystemTime) -> bool {
    until.is_some_and(|until| until.duration_since(now).unwrap_or_default() < MADE_AGAIN)
}

fn reload_now(house: &House, reload: &Reload) {
    let loaded = match reload() {
        Ok(loaded) => loaded,
        Err(message) => return failed(house, &message),
    };
    for complaint in loaded.complaints.iter() {
        match complaint.severity {
            Severity::Error => tracing::error!("{complaint}"),
            Severity::Warning => tracing::warn!("{complaint}"),
        }
    }
    match loaded
        .generation
        .ok_or_else(|| "the configuration has errors".to_owned())
        .and_then(|g| house.reload(g))
    {
        Ok(()) => {}
        Err(message) => failed(house, &message),
    }
}

fn failed(house: &House, message: &str) {
    house.observe.reload_failed();
    let generation = house.live.load();
    tracing::error!(generation = %generation.id, "reload failed, nothing has changed: {message}");
}

/// On a thread that may wait: the lines for the old file are written first, and its disk may hang.
fn reopen(house: &House) {
    let observe = house.observe.clone();
    tokio::task::spawn_blocking(move || match observe.reopen() {
        Ok(()) => tracing::info!("access log opened again"),
        Err(error) => {
            tracing::error!(%error, "the access log could not be opened again; the old one stays in use");
        }
    });
}

impl Signals {
    /// Receives them from now on; those that come before somebody asks are kept. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Another signal to stop. After a successor took over the first one is none: a service manager that stops the
    /// service sends it to both, and what is under way here may finish as well.
    async fn again(&mut self, stop: &Stop) {
        for _ in 0..if matches!(stop, Stop::HandedOver) { 2 } else { 1 } {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_on_the_spot_is_made_again_and_in_time() {
        let now = clock::wall();
        assert!(!is_due(None, now), "files are the operator's");
        assert!(!is_due(Some(now + Duration::from_hours(24)), now));
        assert!(is_due(Some(now + Duration::from_hours(11)), now));
        assert!(is_due(Some(now - Duration::from_hours(60)), now), "the machine slept over the weekend");
    }
}
