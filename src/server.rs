//! The composition root: the only place that knows everybody.
//!
//! ```text
//! main thread   control: signals, reload, admin, the end        ravelin-w0 … wN   accept, serve
//! ```

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use http::HeaderName;

use crate::acme::{self, Book, Steward};
use crate::admin::{self, Desk, Readiness};
use crate::bans::{Barred, Ledger, Memory, Meters, Tarpit};
use crate::client::balancer::{self, Suspicion};
use crate::client::key::Key;
use crate::client::{self, Client, Peer};
use crate::clock;
use crate::config::Loaded;
use crate::control::{self, Signals, Succession};
use crate::drain::{Drain, DrainWatch, Phase};
use crate::generation::{Generation, Listener};
use crate::harden::Applied;
use crate::head::Head;
use crate::listen::census::Census;
use crate::listen::first_bytes::Protocol;
use crate::listen::inherited::Inherited;
use crate::listen::settings::Service;
use crate::listen::socket::{self, BindError};
use crate::listen::tally::{Event, Tally};
use crate::listen::{Door, Terms, accept};
use crate::live::Live;
use crate::load::{self, Load, Place};
use crate::observe::metrics::{Kind, Named, Outside};
use crate::observe::{self, diagnostics::Diagnostics};
use crate::observe::{Arrival, Observe, Record, Seen, Tls};
use crate::pipeline;
use crate::pressure;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::rlimit;
use crate::runtime::{self, Control};
use crate::service::Heartbeats;
use crate::site::Site;
use crate::state::{self, Keeper};
use crate::tls::{self, Offer, Store};
use crate::upgrade::{Estate, Launch, Predecessor};

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
    /// Singleton conflicts that were warned about: once for each site and header.
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
    let sockets = bind(&generation, workers, &mut inherited)?;
    let addresses: Vec<SocketAddr> =
        sockets.iter().filter_map(|s| s.iter().flatten().next().and_then(|l| l.local_addr().ok())).collect();
    let admin = administer(&generation, &mut inherited)?;
    inherited.close();
    let estate = estate(&sockets, &admin).map_err(StartError::system("keep its sockets for a successor"))?;
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
    show_door(&house);
    show_state(&house);
    show_acme(&house);
    let mut keeper =
        Keeper::new(Arc::clone(&house.ledger), generation.state.clone(), Arc::clone(&house.state));
    // From here on only one of the two has the state open.
    predecessor.iter().for_each(Predecessor::is_prepared);
    // Before the first request: who was banned is banned still.
    control.run(keeper.begin());
    let by_worker = deal(sockets, workers);
    let mut steward = Steward::new(Arc::clone(&house.book));
    control.run(steward.begin(generation.acme.clone()));
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
        let caring = steward.run(move || asked.live.load().acme.clone(), move || told.show_certificates());
        let caring = tokio::spawn(caring);
        let mut watch = house.drain.watch();
        let keeping = tokio::spawn(keeper.run(async move { watch.reached(Phase::Killed).await }));
        serving.await;
        watching.abort();
        telling.abort();
        caring.abort();
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

/// One worker: its accept loops, then its connections until the last one is over.
async fn work(index: usize, house: Arc<House>, sockets: Vec<Socket>) {
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

/// Shows on the metrics page what is counted at the door.
fn show_door(house: &Arc<House>) {
    let show = |name, help, kind, label, read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>| {
        house.observe.show(Outside { name, help, kind, label, read });
    };
    let tally = Arc::clone(&house.tally);
    let events = move || Event::ALL.iter().map(|event| (event.name(), tally.count(*event))).collect();
    show("door_events", "What happened to connections, by event", Kind::Counter, "event", Box::new(events));
    let tally = Arc::clone(&house.tally);
    let foreign = move || Protocol::ALL.iter().map(|p| (p.name(), tally.foreign_count(*p))).collect();
    let help = "Connections that spoke something else than what they were opened for, by protocol";
    show("foreign_protocols", help, Kind::Counter, "protocol", Box::new(foreign));
    let tally = Arc::clone(&house.tally);
    let failed = move || tally.handshakes();
    show(
        "tls_handshakes_failed",
        "TLS handshakes that failed, by cause",
        Kind::Counter,
        "cause",
        Box::new(failed),
    );
    let load = Arc::clone(&house.load);
    let refused = move || load::Limit::ALL.iter().map(|limit| (limit.name(), load.refused(*limit))).collect();
    let help = "Requests refused because too much was under way, by the limit that said so";
    show("overload_refusals", help, Kind::Counter, "limit", Box::new(refused));
    let ledger = Arc::clone(&house.ledger);
    let active = move || vec![("", ledger.active() as u64)];
    show("bans_active", "Clients and user names that are banned", Kind::Gauge, "", Box::new(active));
    let ledger = Arc::clone(&house.ledger);
    house.observe.show_named(Named {
        name: "bans_made",
        help: "Bans that were made, by the jail that did",
        label: "jail",
        read: Box::new(move || ledger.made()),
    });
    let ledger = Arc::clone(&house.ledger);
    let pushed_out = move || vec![("bans", ledger.pushed_out().0), ("failures", ledger.pushed_out().1)];
    let help = "What was forgotten too early because there was too much of it; see `bans.memory`";
    show("bans_pushed_out", help, Kind::Counter, "what", Box::new(pushed_out));
    let tarpit = Arc::clone(&house.tarpit);
    let held = move || vec![("", tarpit.held() as u64)];
    show("tarpit_held", "Banned clients whose answer is late on purpose", Kind::Gauge, "", Box::new(held));
    let load = Arc::clone(&house.load);
    let under_way = move || vec![("", load.under_way() as u64)];
    let help = "Requests that the origins were asked and that are not over";
    show("requests_under_way", help, Kind::Gauge, "", Box::new(under_way));
    let load = Arc::clone(&house.load);
    let short = move || vec![("", u64::from(load.is_short()))];
    let help = "Whether memory is short, so that nothing new begins: 1 or 0";
    show("memory_short", help, Kind::Gauge, "", Box::new(short));
    let load = Arc::clone(&house.load);
    let memory = move || vec![("taken", load.memory().0), ("allowed", load.memory().1)];
    let help = "Memory in bytes, and what of it is allowed; 0 if there is no bound";
    show("memory_bytes", help, Kind::Gauge, "memory", Box::new(memory));
    let house_now = Arc::downgrade(house);
    let open = move || {
        let open = house_now.upgrade().map_or(0, |house| house.drain.live());
        vec![("", open as u64)]
    };
    show("connections_open", "Connections that are open now", Kind::Gauge, "", Box::new(open));
}

/// The sockets of the admin listener.
fn administer(
    generation: &Generation,
    inherited: &mut Inherited,
) -> Result<Vec<admin::socket::Bound>, StartError> {
    let policy = &generation.admin;
    let bind =
        |address| admin::socket::bind(address, policy.socket_mode, inherited).map_err(StartError::Admin);
    policy.listen.iter().map(bind).collect()
}

/// Shows on the metrics page how the store is.
fn show_state(house: &Arc<House>) {
    let show = |name, help, kind, label, read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>| {
        house.observe.show(Outside { name, help, kind, label, read });
    };
    let state = Arc::clone(&house.state);
    let up = move || vec![("", u64::from(state.is_up()))];
    let help = "Whether the store of bans was reached last time: 1 or 0; 0 too while bans are kept in memory";
    show("state_up", help, Kind::Gauge, "", Box::new(up));
    let state = Arc::clone(&house.state);
    let changes = move || state.counts().into();
    let help = "Changes written to the store of bans, taken over from it, not understood, refused by it; and how often it failed";
    show("state_changes", help, Kind::Counter, "what", Box::new(changes));
    let ledger = Arc::clone(&house.ledger);
    let lost = move || vec![("", ledger.changes_lost())];
    let help = "Changes that the store of bans was not told, because there were too many while it was gone";
    show("state_changes_lost", help, Kind::Counter, "", Box::new(lost));
}

/// Shows on the metrics page what becomes of certificates from a CA.
fn show_acme(house: &Arc<House>) {
    let show = |name, help, kind, label, read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>| {
        house.observe.show(Outside { name, help, kind, label, read });
    };
    let book = Arc::clone(&house.book);
    let waiting = move || {
        let [waiting, ..] = book.counts();
        vec![("", waiting)]
    };
    let help = "Names that wait for their certificate by ACME, and are served with a self-signed one";
    show("acme_waiting", help, Kind::Gauge, "", Box::new(waiting));
    let book = Arc::clone(&house.book);
    let orders = move || {
        let [_, issued, failed] = book.counts();
        vec![("issued", issued), ("failed", failed)]
    };
    let help = "Certificates that came by ACME, and rounds of orders in which no CA gave one";
    show("acme_orders", help, Kind::Counter, "result", Box::new(orders));
}

/// The sockets of each listener, worker by worker: those that are open already, or new ones.
fn bind(
    generation: &Generation,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Vec<Vec<Vec<TcpListener>>>, StartError> {
    let bind = |listener: &Listener| {
        let address = listener.settings.address;
        let open = inherited.tcp(address);
        if open.is_empty() {
            let sockets = socket::bind(address, workers).map_err(StartError::Bind)?;
            return Ok(sockets.into_iter().map(|socket| vec![socket]).collect());
        }
        tracing::info!(%address, sockets = open.len(), "this listener's sockets were handed over");
        socket::adopt(open, workers).map_err(StartError::system("use the sockets that were handed over"))
    };
    generation.listeners.iter().map(bind).collect()
}

/// A socket, and the number of its listener.
type Socket = (usize, TcpListener);

/// The sockets of each worker.
fn deal(sockets: Vec<Vec<Vec<TcpListener>>>, workers: usize) -> Vec<Mutex<Vec<Socket>>> {
    let mut by_worker: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    for (listener, shares) in sockets.into_iter().enumerate() {
        for (worker, share) in by_worker.iter_mut().zip(shares) {
            worker.extend(share.into_iter().map(|socket| (listener, socket)));
        }
    }
    by_worker.into_iter().map(Mutex::new).collect()
}

/// What a successor would get.
fn estate(sockets: &[Vec<Vec<TcpListener>>], admin: &[admin::socket::Bound]) -> io::Result<Estate> {
    let mut estate = Estate::default();
    for socket in sockets.iter().flatten().flatten() {
        estate.add(socket.try_clone()?.into());
    }
    for bound in admin {
        let (socket, name) = bound.heir()?;
        estate.add(socket);
        if let Some(name) = name {
            estate.add_name(name);
        }
    }
    Ok(estate)
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
            Some(Arc::new(Offer::new(&listener.clients, &generation.hosts, |clients| match &by_acme {
                Some(resolver) => {
                    let config = tls.server_config(Arc::clone(resolver), &https.profile, clients)?;
                    Ok(acme::answering(config))
                }
                None => tls.server_config(Arc::<Store>::clone(store), &https.profile, clients),
            })?))
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
    }
}

impl House {
    /// Shows when the certificates in use end.
    pub fn show_certificates(&self) {
        self.show_certificates_of(&self.live.load());
    }

    fn show_certificates_of(&self, generation: &Generation) {
        let (loaded, came) = (generation.certificates(), self.book.all());
        let loaded = loaded.iter().map(|certificate| {
            let name = certificate.facts.names.first().map_or("unnamed", |name| &**name);
            (name, certificate.facts.not_after)
        });
        let came = came.iter().map(|(name, certificate)| (&**name, certificate.facts.not_after));
        self.observe.certificates(loaded.chain(came));
    }
}

impl Worker {
    /// The answer to a challenge of ACME, if this asks for one.
    #[must_use]
    pub fn challenge(&self, head: &Head<'_>) -> Option<Reply> {
        self.house.book.answer(head)
    }

    /// A place for a request of `client` among those that are under way.
    ///
    /// # Errors
    /// When too many are.
    pub fn enter(&self, generation: &Generation, client: &Client) -> Result<Place, Refusal> {
        self.house.load.enter(generation.client.key(client.addr), &generation.load)
    }

    /// Whether memory is short, so that no connection is kept for another request.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.house.load.is_short()
    }

    /// Looks for a balancer that is not trusted, and says so, at most once an hour.
    pub fn suspect(&self, generation: &Generation, peer: &Peer, head: &Head<'_>) {
        let Some(found) = self.suspicion.saw(balancer::looks_like_one(&generation.client, peer, head)) else {
            return;
        };
        if self.house.balancer.turn(clock::now()) {
            tracing::warn!(
                sources = %found,
                "nearly all requests come from private addresses that send X-Forwarded-For and are not trusted: a load \
                 balancer or proxy stands in front, and all its clients count as one. Limits and bans would hit \
                 everybody. Write `trusted_proxies = [{found}]`, or its subnets, into `[client]`"
            );
        }
    }

    /// Who failed, who is locked out, and who was seen to log in.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.house.ledger
    }

    /// Where every client stands with the limits on how often it may ask.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.house.meters
    }

    /// Banned clients whose answer is late on purpose.
    #[must_use]
    pub fn tarpit(&self) -> &Tarpit {
        &self.house.tarpit
    }

    /// What is remembered of clients, at the time when this request came.
    #[must_use]
    pub fn memory(&self, record: &Record) -> Memory<'_> {
        let (wall, instant) = record.arrived();
        let House { ledger, meters, .. } = &*self.house;
        Memory { ledger, meters, now: wall.into(), instant }
    }

    /// The generation slot.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.house.live
    }

    /// How far the process is.
    #[must_use]
    pub fn state(&self) -> admin::State {
        self.house.readiness.state()
    }

    /// Begins the record of a request.
    #[must_use]
    pub fn record(&self, generation: &Generation, peer: &Peer, head: &Head<'_>) -> Box<Record> {
        let tls = peer.tls.as_ref();
        let arrival = Arrival {
            now: clock::now(),
            wall: clock::wall(),
            peer: peer.addr,
            listener: peer.listener,
            tls: tls.map(|tls| Tls {
                version: tls.version,
                cipher: tls.cipher,
                sni: tls.sni.as_deref(),
                client: tls.identity.as_ref().map(|identity| &*identity.subject),
            }),
            generation: &generation.id,
        };
        self.seen.record(&arrival, head)
    }

    /// A request panicked: counted, and answered like any other refusal.
    #[must_use]
    pub fn panicked(&self) -> Refusal {
        self.seen.panicked();
        Refusal::new(Reason::Internal, "a panic while answering; standard error says where")
    }

    /// Singleton headers on which origin and configuration disagree: said once for each site and header.
    pub fn conflicts(&self, site: Option<&Site>, applied: &Applied) {
        for conflict in &applied.conflicts {
            let key = (site.map_or(usize::MAX, |site| site.index), conflict.name.clone());
            if self.house.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
                let site = site.map_or("none", |site| &site.name);
                tracing::warn!(
                    site,
                    header = %conflict.name,
                    origin = ?conflict.sent,
                    kept = ?conflict.kept,
                    "the origin sends this header too; it leaves once"
                );
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
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
