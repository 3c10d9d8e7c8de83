//! The composition root: the only place that knows everybody.
//!
//! ```text
//! main thread   control: signals, reload, admin, the end        ravelin-w0 … wN   accept, serve
//! ```

mod shown;
mod sockets;
mod worker;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use http::HeaderName;

use crate::acme::{self, Book, Steward};
use crate::admin::{self, Desk, Readiness};
use crate::bans::{Barred, Ledger, Meters, Tarpit};
use crate::client;
use crate::client::balancer::{self, Suspicion};
use crate::client::key::Key;
use crate::clock;
use crate::config::Loaded;
use crate::control::{self, Signals, Succession};
use crate::drain::{Drain, DrainWatch, Phase};
use crate::generation::{Generation, Listener};
use crate::listen::census::Census;
use crate::listen::inherited::Inherited;
use crate::listen::settings::Service;
use crate::listen::socket::BindError;
use crate::listen::tally::Tally;
use crate::listen::{Door, Terms, accept};
use crate::live::Live;
use crate::load::Load;
use crate::observe::{self, diagnostics::Diagnostics};
use crate::observe::{Observe, Seen};
use crate::pipeline;
use crate::pressure;
use crate::rlimit;
use crate::runtime::{self, Control};
use crate::service::Heartbeats;
use crate::state::{self, Keeper};
use crate::tls::policy::proof_config;
use crate::tls::tickets::Rotation;
use crate::tls::{self, Offer, Store};
use crate::upgrade::{Launch, Predecessor};

/// Reads the configuration again.
pub type Reload = Box<dyn Fn() -> Result<Loaded, String> + Send>;

/// Who was here before this process, and who comes after it.
#[derive(Debug, Default)]
pub struct Lineage {
    /// Sockets that are open already.
    pub inherited: Inherited,
    /// How to start a successor; none if there can be none.
    pub launch: Option<Launch>,
}

/// What every thread shares for the life of the process.
pub struct House {
    /// The generation in force.
    pub live: Live,
    /// What is seen.
    pub observe: Observe,
    /// The diagnostics, whose level follows a reload.
    pub diagnostics: Diagnostics,
    /// What happened at the door.
    pub tally: Arc<Tally>,
    /// Who is connected.
    pub census: Arc<Census<Key>>,
    /// How the store is, in which that is kept.
    pub state: Arc<state::Status>,
    /// Which requests are under way.
    pub load: Arc<Load>,
    /// Who failed, who is locked out, and who was seen to log in.
    pub ledger: Arc<Ledger>,
    /// Where every client stands with the limits on how often it may ask.
    pub meters: Arc<Meters>,
    /// Banned clients whose answer is late on purpose.
    pub tarpit: Arc<Tarpit>,
    /// How far the shutdown has come.
    pub drain: Drain,
    /// Whether balancers may send requests.
    pub readiness: Readiness,
    /// Where the house itself asks for a reload.
    pub wanted: control::Wanted,
    /// When each worker last came round.
    pub hearts: Heartbeats,
    /// Certificates that came by ACME, and what a CA may ask for.
    pub book: Arc<Book>,
    tls: tls::Policy,
    /// What holds for new connections, listener by listener.
    terms: Vec<Arc<ArcSwap<Terms>>>,
    /// When it may next be said that a balancer is not trusted.
    balancer: balancer::Seldom,
    /// What was warned about, once for each site and header: singleton conflicts, and by `Set-Cookie` a backend that moved.
    warned: Mutex<HashSet<(usize, HeaderName)>>,
}

/// One worker's end of the house.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    house: Arc<House>,
    seen: Seen,
    suspicion: Suspicion,
}

/// Why Ravelin could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound.
    Bind(BindError),
    /// A socket of the admin listener could not be opened.
    Admin(String),
    /// The access log's file could not be opened.
    Log(String),
    /// Anything else that the system refused.
    System(&'static str, io::Error),
    /// No random numbers, or no usable cryptography.
    Tls(rustls::Error),
}

/// Serves `generation` until a signal ends it. `ready` is called with the bound addresses, listener by
/// listener, once connections are taken.
///
/// # Errors
/// When an address is taken or the system refuses threads, files or random numbers; nothing was served.
pub fn run(
    mut generation: Generation,
    reload: Reload,
    lineage: Lineage,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), StartError> {
    let diagnostics = Diagnostics::install(&generation.log).map_err(StartError::system("set up its log"))?;
    rlimit::raise();
    // Before a port is open: whoever sees one may send a signal, and the default of most is the end.
    let control = Control::new().map_err(StartError::system("start its control thread"))?;
    let signals = control.run(async { Signals::new() }).map_err(StartError::system("receive signals"))?;
    let workers = generation.workers;
    let Lineage { mut inherited, launch } = lineage;
    let predecessor = inherited.line().map(Predecessor::new);
    let sockets = sockets::bind(&generation, workers, &mut inherited)?;
    let addresses: Vec<SocketAddr> =
        sockets.iter().filter_map(|s| s.iter().flatten().next().and_then(|l| l.local_addr().ok())).collect();
    let admin = sockets::administer(&generation, &mut inherited)?;
    inherited.close();
    let estate =
        sockets::estate(&sockets, &admin).map_err(StartError::system("keep its sockets for a successor"))?;
    let observe = Observe::open(&generation.log, workers, clock::wall())
        .map_err(|error| StartError::Log(log_failed(&generation, &error)))?;
    let tls = tls::Policy::new().map_err(StartError::Tls)?;
    generation.register(&observe);
    let generation = Arc::new(generation);
    let ledger = Arc::new(Ledger::new(generation.bans.bounds));
    let book = Arc::new(Book::default());
    let house = Arc::new(House {
        terms: terms(&tls, &generation, &ledger, &book).map_err(StartError::Tls)?,
        live: Live::new(Arc::clone(&generation)),
        ledger,
        tally: Arc::new(Tally::new(clock::now())),
        census: Arc::new(Census::new()),
        state: Arc::default(),
        load: Arc::new(Load::new()),
        meters: Arc::new(Meters::new(clock::now())),
        tarpit: Arc::default(),
        drain: Drain::new(),
        readiness: Readiness::default(),
        wanted: control::Wanted::default(),
        hearts: Heartbeats::new(workers, clock::now()),
        balancer: balancer::Seldom::default(),
        warned: Mutex::default(),
        observe,
        diagnostics,
        book,
        tls,
    });
    house.announce(&generation);
    shown::all(&house);
    let mut keeper =
        Keeper::new(Arc::clone(&house.ledger), generation.state.clone(), Arc::clone(&house.state));
    // From here on only one of the two has the state open.
    predecessor.iter().for_each(Predecessor::is_prepared);
    // Before the first request: who was banned is banned still.
    control.run(keeper.begin());
    let by_worker = sockets::deal(sockets, workers);
    let mut steward = Steward::new(Arc::clone(&house.book));
    control.run(steward.begin(generation.acme.clone()));
    let rotation = control.run(ticket_keys(&house));
    let inside = Arc::clone(&house);
    let running = runtime::start(workers, move |index| {
        let sockets = by_worker.get(index).map(take).unwrap_or_default();
        work(index, Arc::clone(&inside), sockets)
    })
    .map_err(StartError::system("start its threads"))?;
    let admin = admin.into_iter().map(|bound| (bound, house.desk())).collect();
    let succession = Succession { launch, estate, is_successor: predecessor.is_some() };
    let serving = control::run(&house, signals, admin, reload, succession, || {
        for (address, listener) in addresses.iter().zip(&generation.listeners) {
            let scheme = if listener.store.is_some() { "https" } else { "http" };
            tracing::info!("listening on {scheme}://{address}");
        }
        ready(&addresses);
        predecessor.iter().for_each(Predecessor::is_succeeded);
    });
    let watching = pressure::run(Arc::clone(&house));
    let telling = tell_cloudwatch(Arc::clone(&house));
    control.run(async {
        let watching = tokio::spawn(watching);
        let telling = tokio::spawn(telling);
        let (asked, told) = (Arc::clone(&house), Arc::clone(&house));
        let policy = move || asked.live.load().acme.clone();
        let caring = steward.run(policy, move || told.show_certificates(), house.drain.watch());
        let caring = tokio::spawn(caring);
        let rotating = tokio::spawn(rotate(rotation, house.drain.watch()));
        let mut watch = house.drain.watch();
        let keeping = tokio::spawn(keeper.run(async move { watch.reached(Phase::Killed).await }));
        serving.await;
        watching.abort();
        telling.abort();
        rotating.abort();
        let _ = caring.await;
        let _ = keeping.await;
    });
    control.end();
    running.join();
    let metrics = &house.live.load().metrics;
    if metrics.emf {
        house.observe.tell_cloudwatch(&metrics.namespace, clock::wall());
    }
    if !house.observe.flush() {
        tracing::warn!("the access log could not be written to its end");
    }
    let _ = house.diagnostics.flush(Duration::from_secs(1));
    Ok(())
}

/// The keys of session tickets that are kept, before the first handshake.
async fn ticket_keys(house: &House) -> Option<Rotation> {
    let mut rotation = Rotation::new(house.tls.shared(), &house.live.load().state)?;
    rotation.begin().await;
    Some(rotation)
}

/// Keeps them new until another process does.
async fn rotate(rotation: Option<Rotation>, mut watch: DrainWatch) {
    if let Some(rotation) = rotation {
        rotation.run(async move { watch.handed_over().await }).await;
    }
}

/// One worker: its accept loops, then its connections until the last one is over.
async fn work(index: usize, house: Arc<House>, sockets: Vec<sockets::Socket>) {
    let seen = house.observe.worker(index);
    let worker = Arc::new(Worker { index, house: Arc::clone(&house), seen, suspicion: Suspicion::default() });
    let sweep = tokio::spawn(sweep(Arc::clone(&worker)));
    let doors = sockets.into_iter().filter_map(|(listener, socket)| {
        let terms = house.terms.get(listener)?;
        let worker = Arc::clone(&worker);
        let door = Door {
            listener,
            terms: Arc::clone(terms),
            census: Arc::clone(&house.census),
            tally: Arc::clone(&house.tally),
            drain: house.drain.watch(),
            serve: move |peer, request| pipeline::answer(Arc::clone(&worker), peer, request),
        };
        Some(accept::run(socket, Arc::new(door)))
    });
    for ended in join_all(doors).await {
        if let Err(error) = ended {
            tracing::error!(%error, worker = index, "a listener stopped");
        }
    }
    let mut watch: DrainWatch = house.drain.watch();
    watch.reached(Phase::Killed).await;
    sweep.abort();
    // Connections that were told to end get the chance to do so before the runtime drops them.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// After so many sites the sweep lets requests go first.
const SWEPT_AT_ONCE: usize = 256;

/// Closes idle connections to origins before the origins do.
async fn sweep(worker: Arc<Worker>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        worker.house.hearts.beat(worker.index, clock::now());
        let generation = worker.live().load();
        if worker.index == 0 {
            worker.ledger().sweep(clock::millis());
        }
        for some in generation.sites.chunks(SWEPT_AT_ONCE) {
            for site in some {
                site.upstream.sweep(worker.index);
            }
            // Ten thousand sites at once would keep requests waiting for half a millisecond.
            tokio::task::yield_now().await;
        }
    }
}

/// How often it is looked whether `CloudWatch` is to be told, while it is not.
const UNTOLD: Duration = Duration::from_mins(1);

/// Tells `CloudWatch` what is counted, as often as the configuration in force says. The end is told when all is over.
async fn tell_cloudwatch(house: Arc<House>) {
    loop {
        let policy = house.live.load().metrics.clone();
        tokio::time::sleep(if policy.emf { policy.every } else { UNTOLD }).await;
        if policy.emf {
            house.observe.tell_cloudwatch(&policy.namespace, clock::wall());
        }
    }
}

/// Which file could not be opened, and which key names it.
fn log_failed(generation: &Generation, error: &io::Error) -> String {
    let file = match &generation.log.file {
        observe::settings::Place::File(path) => path.display().to_string(),
        observe::settings::Place::Stdout => "standard output".to_owned(),
    };
    format!(
        "cannot open the access log {file}: {error}\n  help: see `[log] file`; the folder must exist and be writable"
    )
}

fn take<T: Default>(slot: &Mutex<T>) -> T {
    std::mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner))
}

fn terms(
    tls: &tls::Policy,
    generation: &Arc<Generation>,
    ledger: &Arc<Ledger>,
    book: &Arc<Book>,
) -> Result<Vec<Arc<ArcSwap<Terms>>>, rustls::Error> {
    let terms = |(number, listener)| {
        Ok(Arc::new(ArcSwap::from_pointee(terms_of(tls, generation, (ledger, book), number, listener)?)))
    };
    generation.listeners.iter().enumerate().map(terms).collect()
}

/// What applies to new connections of one listener.
fn terms_of(
    tls: &tls::Policy,
    generation: &Arc<Generation>,
    (ledger, book): (&Arc<Ledger>, &Arc<Book>),
    number: usize,
    listener: &Listener,
) -> Result<Terms, rustls::Error> {
    let tls = match (&listener.store, &listener.settings.service) {
        (Some(store), Service::Https(https)) => {
            let by_acme = acme::resolver(generation, number, book, store);
            // A CA has no certificate to show: where one is required, it gets a configuration of its own.
            let apart = by_acme.is_some() && listener.clients.is_required();
            let offer = Offer::new(&listener.clients, &generation.hosts, |clients| match &by_acme {
                Some(resolver) => {
                    let config = tls.server_config(Arc::clone(resolver), &https.profile, clients)?;
                    Ok(if apart { config } else { acme::answering(config) })
                }
                None => tls.server_config(Arc::<Store>::clone(store), &https.profile, clients),
            })?;
            let prover = || proof_config(Arc::new(acme::Prover(Arc::clone(book))), &https.profile);
            Some(Arc::new(if apart { offer.proving(prover()?) } else { offer }))
        }
        _ => None,
    };
    Ok(Terms {
        limits: generation.limits.clone().within(rlimit::files()),
        tls,
        client: generation.client.clone(),
        proxies: listener.settings.proxies.clone(),
        sources: generation.firewall.sources(listener.settings.address.port()),
        barred: Some(Barred::new(ledger, &generation.bans, generation.outside.rules.modes.ban)),
    })
}

impl House {
    /// What the admin listener serves.
    #[must_use]
    pub fn desk(self: &Arc<Self>) -> Desk {
        let house = Arc::downgrade(self);
        let bans = move || {
            let generation = house.upgrade().map(|house| (Arc::clone(&house.ledger), house.live.load()));
            match generation {
                Some((ledger, generation)) => admin::bans::Counter {
                    ledger,
                    sites: generation.sites.iter().map(|site| site.name.clone()).collect(),
                    prefix: generation.client.prefix(),
                },
                None => admin::bans::Counter {
                    ledger: Arc::default(),
                    sites: Vec::new(),
                    prefix: client::key::Prefix::default(),
                },
            }
        };
        Desk { observe: self.observe.clone(), readiness: self.readiness.clone(), bans: Arc::new(bans) }
    }

    /// Puts another generation in force, or says why not and changes nothing.
    pub fn reload(&self, mut generation: Generation) -> Result<(), String> {
        let old = self.live.load();
        let addresses =
            |g: &Generation| -> Vec<SocketAddr> { g.listeners.iter().map(|l| l.settings.address).collect() };
        if addresses(&old) != addresses(&generation) {
            return Err(
                "the addresses of `[[listen]]` changed: they are bound at the start; upgrade (SIGUSR2) or restart to change them"
                    .to_owned(),
            );
        }
        if old.workers != generation.workers || old.admin != generation.admin || old.state != generation.state
        {
            tracing::warn!(
                "`limits.workers`, `[admin]` and `[state]` take effect with the next process: upgrade (SIGUSR2) or restart"
            );
        }
        generation.register(&self.observe);
        let generation = Arc::new(generation);
        let fresh = generation.listeners.iter().enumerate().map(|(number, listener)| {
            terms_of(&self.tls, &generation, (&self.ledger, &self.book), number, listener)
        });
        let fresh: Vec<Terms> = fresh.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        // The last step that can fail: from here on everything is swapped.
        self.observe.apply(&generation.log).map_err(|error| log_failed(&generation, &error))?;
        for (slot, terms) in self.terms.iter().zip(fresh) {
            slot.store(Arc::new(terms));
        }
        self.diagnostics.apply(&generation.log);
        self.live.swap(Arc::clone(&generation));
        take(&self.warned);
        self.announce(&generation);
        Ok(())
    }

    /// Says which generation is in force.
    fn announce(&self, generation: &Generation) {
        self.observe.generation(&generation.id, clock::wall());
        self.ledger.learn(generation.sites.iter().map(|site| &*site.name));
        self.show_certificates_of(generation);
        tracing::info!(generation = %generation.id, sites = generation.sites.len(), "configuration in force");
        warn_of_few_files(generation);
    }
}

/// Who is turned away because of a limit that nobody wrote would otherwise raise the wrong one.
fn warn_of_few_files(generation: &Generation) {
    let limits = generation.limits.clone().within(rlimit::files());
    if let Some(files) = limits.short_of_files {
        tracing::warn!(
            files,
            connections = limits.connections,
            "`limits.connections` = {} needs {} open files; so many fewer connections are let in. Raise the limit of open \
             files (LimitNOFILE= in the systemd unit, --ulimit nofile= in a container), or lower `limits.connections`",
            generation.limits.connections,
            generation.limits.files()
        );
    }
}

impl StartError {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System(what, error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Admin(message) | Self::Log(message) => f.write_str(message),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Tls(error) => write!(f, "cannot set up TLS: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
