//! The road of a request, top to bottom. Read this file and you know the product.
//!
//! ```text
//! answer()      the shell: one generation, one record, nothing leaves unhardened (health checks end here)
//!   serve()       decide, then ask the origin
//!     decide()      order is policy: cheap before dear, stateless before stateful, head before body
//!       1 one clear message, and for whom?   framing · host → site
//!       2 who asks?                          client identity · ban
//!       3 what is asked?                     scheme · path (normalised once) · access · closed · rate · method · headers
//!       4 what does it carry?                size
//!     5 ask the origin                       rewrite · send (pool, retry, timeouts)
//!   6 what leaves the house                  harden, for this site, path and status
//! ```

use std::borrow::Cow;
use std::future::Future;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::bans::rate;
use crate::bans::watch::Exchange;
use crate::bans::{self, Action, Ban, Memory, UnderWay, Who};
use crate::body::{Body, Upload};
use crate::client::key::Key;
use crate::client::{self, Client, Peer};
use crate::clock::{self, Millis};
use crate::config::units::{Draw, Mode};
use crate::gate::{Witness, gate, is_enforced};
use crate::generation::Generation;
use crate::guard::host::Authority;
use crate::guard::pace::Meter;
use crate::guard::target::{Form, Target};
use crate::guard::upgrade::Upgrade;
use crate::guard::{
    access, client_certificate, deny, framing, headers, host, install_tool, login_query, method, overrides,
    path, size, target, upgrade,
};
use crate::harden;
use crate::head::Head;
use crate::health;
use crate::load::Mark;
use crate::login::{self, Admission, Asked, Conclusion, Outcome, Settlement, Tap, Window};
use crate::observe::Record;
use crate::redirect;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::request::Request;
use crate::server::Worker;
use crate::site::{Route, Site};
use crate::step::Step;
use crate::tls::{self, clients::Wish};
use crate::upstream::{Call, rewrite};

/// The reference that a client can name, also on answers that are no refusals.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In a debug build, whatever carries this field meets a defect.
const X_RAVELIN_DEFECT: HeaderName = HeaderName::from_static("x-ravelin-defect");

/// Answers one request: the shell around the road. Whatever happens inside, exactly one reply leaves, it
/// is hardened, and one record is written once its last byte is out or the client is gone.
pub fn answer(
    worker: Arc<Worker>,
    peer: Arc<Peer>,
    request: Request,
) -> impl Future<Output = Reply> + Send + 'static {
    let Request { head, upload, slow_since } = request;
    // Not an async function, which would hold the request twice.
    async move {
        let generation = worker.live().load();
        let head = head.view();
        if let Some(mut reply) = health::answer(&generation.health, &peer, &head, worker.state()) {
            Found::nothing(&generation, &peer).harden(&worker, &mut reply);
            return reply;
        }
        let mut record = worker.record(&generation, &peer, &head, slow_since);
        let mut found = Found::nothing(&generation, &peer);
        let road = serve(&worker, &generation, &peer, head, upload, &mut found, &mut record);
        let outcome = AssertUnwindSafe(road).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(worker.panicked()));
        let refused = outcome.as_ref().err().map(|refusal| refusal.reason);
        let mut reply = match outcome {
            Ok(reply) => reply,
            Err(refusal) => {
                record.refused(&refusal);
                refuse(&worker, &generation, &refusal, &record, &head).await
            }
        };
        let leaving = || leave(&worker, &generation, &found, &head, refused, &mut reply, &mut record);
        if panic::catch_unwind(AssertUnwindSafe(leaving)).is_err() {
            let refusal = worker.panicked();
            record.refused(&refusal);
            reply = harden::page::bare(&refusal, record.id(), &head);
        }
        if let Ok(id) = HeaderValue::from_bytes(record.id_bytes()) {
            reply.fields.set(X_REQUEST_ID, id);
        }
        reply.close |= worker.is_short();
        record.answered(clock::now(), reply.status);
        if head.method() == Method::HEAD || reply.silent {
            record.complete();
        }
        reply.body = reply.body.recorded(record);
        reply
    }
}

/// What is done with every answer before it leaves: the jails count it, and it is hardened.
fn leave(
    worker: &Worker,
    generation: &Generation,
    found: &Found<'_, '_>,
    head: &Head<'_>,
    refused: Option<Reason>,
    reply: &mut Reply,
    record: &mut Record,
) {
    debug_assert!(!is_ordered(head, "leave"), "asked for by a test");
    if !generation.bans.jails.is_empty() {
        let memory = Memory { now: clock::millis(), ..worker.memory(record) };
        if let Some(ban) = found.count(generation, &memory, head, refused, reply.status) {
            record.banned(&ban.jail);
        }
    }
    found.harden(worker, reply);
}

/// Whether a test asks for a defect at this `place`; asked in debug builds only.
fn is_ordered(head: &Head<'_>, place: &str) -> bool {
    head.get(&X_RAVELIN_DEFECT).is_some_and(|asked| asked == place.as_bytes())
}

/// Says no: at once, late, or not at all.
async fn refuse(
    worker: &Worker,
    generation: &Generation,
    refusal: &Refusal,
    record: &Record,
    head: &Head<'_>,
) -> Reply {
    if refusal.action == Action::Tarpit {
        worker.tarpit().hold(generation.bans.tarpit).await;
    }
    let reply = harden::page::refusal(refusal, record.id(), head);
    Reply { silent: refusal.action == Action::Drop, ..reply }
}

/// Decides, and asks the origin if there is something to ask.
async fn serve<'g, 'r>(
    worker: &Worker,
    generation: &'g Generation,
    peer: &Peer,
    head: Head<'r>,
    upload: Upload,
    found: &mut Found<'g, 'r>,
    record: &mut Record,
) -> Result<Reply, Refusal> {
    worker.suspect(generation, peer, &head);
    // A CA comes by plain HTTP, to any name, before there is anything to redirect to.
    if let Some(reply) = worker.challenge(&head) {
        framing::check(&generation.framing, &head)?;
        return Ok(reply);
    }
    match decide(generation, &worker.memory(record), peer, head, found, record)? {
        Decision::Redirect(reply) => Ok(reply),
        Decision::Forward(errand) => {
            // A defect on demand, for the tests of the shell around this. Not compiled into a release.
            debug_assert!(!is_ordered(&head, "1"), "asked for by a test");
            let place = worker.enter(generation, &errand.client)?;
            let upstream = &errand.site.upstream;
            let tap = errand.watch(worker, generation, &head, &upload, record.draw())?;
            let call = errand.call(generation, peer, head, (upload, tap.as_ref()), found.secure, record)?;
            let call = Call { client: place.client(), ..call };
            record.hold(place);
            let answer = upstream.send(worker.index, call).await;
            let facts = answer.as_ref().map_or_else(|error| &error.facts, |answer| &answer.facts);
            record.origin(&facts.seen());
            let admitted = tap.as_ref().map(Tap::take_admitted).unwrap_or_default();
            admitted.would_block.iter().for_each(|refusal| record.would_block(refusal));
            let under_way = admitted.under_way;
            let mut reply = match answer {
                Ok(answer) => answer.reply,
                Err(error) => {
                    under_way.into_iter().for_each(UnderWay::give_back);
                    return Err(error.into());
                }
            };
            errand.conclude(worker, generation, &head, (tap.as_ref(), under_way), &mut reply, record);
            Ok(reply)
        }
    }
}

/// Every decision that needs no body and no origin, in order. The only road: requests, `ravelin explain`
/// and the tests all take it.
pub fn decide<'g, 'r>(
    generation: &'g Generation,
    memory: &Memory<'_>,
    peer: &Peer,
    head: Head<'r>,
    found: &mut Found<'g, 'r>,
    witness: &mut impl Witness,
) -> Result<Decision<'g, 'r>, Refusal> {
    // 1 · One clear message, and for whom? Always enforced: every later step stands on these facts.
    framing::check(&generation.framing, &head)?;
    let target = target::read(&head)?;
    witness.passed(Step::Framing, || format!("{} {:?}", head.method(), head.version()));
    let authority = host::authority(&head, &target)?;
    found.authority = Some(authority.clone());
    let site = select(generation, peer, &authority, witness)?;
    found.enter(site);
    witness.found_site(site);
    witness.passed(Step::Host, || format!("site {} ({})", site.name, site.place.label()));

    // 2 · Who asks?
    let client = client::identify(&generation.client, peer, &head);
    found.secure |= client.secure;
    witness.found_client(&client, &head);
    let key = generation.client.key(client.addr);
    found.client = Some((client.addr, key));
    witness.found_key(key);
    witness.passed(Step::Client, || client.addr.to_string());
    let who = Who { addr: client.addr, client: key, site: site.id };
    if let Some((mode, refusal)) = bans::check(&generation.bans, memory, &who) {
        gate(witness, found.route.rules.modes.ban.min(mode), || Err(refusal))?;
    }
    witness.passed(Step::Ban, || {
        let is_spared = generation.bans.ignores(client.addr);
        if is_spared { "never locked out: it stands in `ignore` of `[bans]`" } else { "not locked out" }
            .to_owned()
    });

    // 3 · What is asked? The redirect comes before the path: it repeats what the client wrote.
    if let Some(reply) = redirect::check(generation, peer, found.secure, &head, &target, &authority) {
        witness.passed(Step::Scheme, || redirect::describe(&reply));
        return Ok(Decision::Redirect(reply));
    }
    let tls = peer.tls.as_ref();
    if let Some(listener) = generation.listeners.get(peer.listener) {
        let wanted = listener.clients.of(Some(site.index));
        let named = || generation.asked(peer.listener, tls?.sni.as_deref()).map(Arc::as_ref);
        client_certificate::check(wanted, named, tls, memory.now.into())?;
    }
    witness.passed(Step::Scheme, || if found.secure { "https".to_owned() } else { "http".to_owned() });
    let (path, verbatim) = normalise(site, &target, witness)?;
    let route = site.route(&path).unwrap_or(found.route);
    found.route = route;
    if !generation.bans.jails.is_empty() {
        found.path = Some(path.clone());
    }
    witness.found_route(route);
    witness.passed(Step::Path, || format!("{path}, by the rules of {}", route.label()));
    let rules = &route.rules;
    let (area, addr, now) = (route.area, client.addr, memory.now.into());
    gate(witness, rules.modes.access, || access::check(&site.access, &path, area, addr, now))?;
    witness.passed(Step::Access, || access::describe(&site.access, &path, area, addr, now));
    let asked =
        Question { site, route, client: &client, method: head.method(), path: &path, target: &target };
    let first_byte = closed(generation, memory, &asked, witness)?;
    let counted = rate::Asked { site: site.id, area: route.area, method: head.method(), path: &path };
    for rate in generation.bans.rates.iter().filter(|rate| rate.counts(&counted)) {
        gate(witness, rules.modes.rate.min(rate.mode), || rate.check(memory, key, &counted))?;
    }
    witness.passed(Step::Rate, || "not too often".to_owned());
    gate(witness, rules.modes.method, || method::check(&rules.methods, head.method()))?;
    let on_list = |other: &Method| method::check(&rules.methods, other);
    gate(witness, rules.modes.method, || overrides::method(rules.overrides, &head, on_list))?;
    witness.passed(Step::Method, || head.method().to_string());
    gate(witness, rules.modes.headers, || headers::check(&rules.headers, &head))?;
    let draw = witness.draw();
    gate(witness, rules.modes.headers, || {
        let urls = overrides::urls(rules.overrides, &head)?;
        urls.iter().try_for_each(|url| overriding(generation, &asked, memory.now, draw, *url))
    })?;
    let upgrade = match upgrade::check(&rules.upgrade, &head) {
        Ok(upgrade) => upgrade,
        // Only reported, or not looked at: the handshake goes on as it came.
        Err(refusal) => gate(witness, rules.modes.upgrade, || Err(refusal)).map(|()| Upgrade::WebSocket)?,
    };
    witness.passed(Step::Headers, || {
        format!("{} fields{}", head.len(), overrides::describe(rules.overrides, &head))
    });

    // 4 · What does it carry? What comes without a length is counted while it streams.
    gate(witness, rules.modes.size, || size::check(&rules.size, &head))?;
    witness.passed(Step::Size, || format!("at most {} bytes", rules.size.body_size));
    Ok(Decision::Forward(Errand {
        site,
        route,
        client,
        authority,
        path,
        verbatim,
        target,
        upgrade,
        first_byte,
    }))
}

/// What has been found out about a request so far: enough to harden whatever leaves, even a refusal in
/// the middle of the road.
#[derive(Debug)]
pub struct Found<'g, 'r> {
    /// The site, once the host is known.
    pub site: Option<&'g Site>,
    /// The route; until the path is known, the site's own rules, and before that those that hold outside
    /// of every site.
    pub route: &'g Route,
    /// Host and port as the client named them.
    pub authority: Option<Authority<'r>>,
    /// Whether the client came by https.
    pub secure: bool,
    /// The client's address and what it counts as.
    pub client: Option<(IpAddr, Key)>,
    /// The normalised path, if a jail wants to know it once there is an answer.
    pub path: Option<Cow<'r, str>>,
}

/// What is to be done with a request that no rule refuses.
#[derive(Debug)]
pub enum Decision<'g, 'r> {
    /// The client is sent to https.
    Redirect(Reply),
    /// The origin is asked.
    Forward(Errand<'g, 'r>),
}

/// What the origin is asked, and under which rules.
#[derive(Debug)]
pub struct Errand<'g, 'r> {
    /// The site.
    pub site: &'g Site,
    /// The route.
    pub route: &'g Route,
    /// Who asks.
    pub client: Client,
    /// Host and port as the client named them.
    pub authority: Authority<'r>,
    /// The normalised path, which the rules saw.
    pub path: Cow<'r, str>,
    /// Whether the origin gets the path as the client wrote it: the rule is not enforced.
    pub verbatim: bool,
    /// The request target as it came.
    pub target: Target<'r>,
    /// Whether this is a WebSocket handshake.
    pub upgrade: Upgrade,
    /// How long the origin may take to its first byte.
    pub first_byte: Duration,
}

/// The site of an authority. TLS that was negotiated for one site is not used for another one
/// (RFC 9110 section 7.4).
fn select<'g>(
    generation: &'g Generation,
    peer: &Peer,
    authority: &Authority<'_>,
    witness: &mut impl Witness,
) -> Result<&'g Site, Refusal> {
    let number = generation.hosts.get(&authority.host);
    let Some(site) = number.and_then(|number| generation.sites.get(*number)) else {
        let refusal = generation.unknown_host.unknown(authority);
        let Some(first) = generation.sites.first() else { return Err(refusal) };
        // With the rule switched off or only reported, the first site answers for every host.
        let mode = generation.outside.rules.modes.host;
        return gate(witness, mode, || Err(refusal)).map(|()| first);
    };
    let sni = peer.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    match sni.filter(|name| **name != *authority.host).map(|name| (name, generation.hosts.get(name))) {
        Some((name, Some(other))) if Some(other) != number => Err(Refusal::new(
            Reason::Misdirected,
            format!("TLS was negotiated for `{name}`, Host is `{}`", authority.host),
        )),
        _ => Ok(site),
    }
}

/// What is asked, by whom: all that decides whether it is closed.
struct Question<'q, 'r> {
    site: &'q Site,
    route: &'q Route,
    client: &'q Client,
    method: &'q Method,
    path: &'q str,
    target: &'q Target<'r>,
}

/// Is this closed, to everybody or to this client? Says how long the origin may think: the Install Tool works as long
/// as the backend does, though its address may be `/`.
fn closed(
    generation: &Generation,
    memory: &Memory<'_>,
    asked: &Question<'_, '_>,
    witness: &mut impl Witness,
) -> Result<Duration, Refusal> {
    let (path, query, rules) = (asked.path, asked.target.query, &asked.route.rules);
    let as_chosen = |refusal: Refusal| refusal.answered(rules.closed_answer);
    gate(witness, rules.modes.deny, || deny::check(&rules.deny, path).map_err(as_chosen))?;
    gate(witness, rules.modes.login_query, || login_query::check(asked.method, query))?;
    if !generation.install_tool.is_asked(path, query) {
        witness.passed(Step::Closed, || "no closed path".to_owned());
        return Ok(rules.first_byte);
    }
    gate(witness, rules.modes.install_tool, || {
        let addr = asked.client.addr;
        let (key, site, now) = (generation.client.key(addr), asked.site.id, memory.now);
        let knows = || memory.ledger.knows(key, site, now);
        let granted = || memory.ledger.granted(addr, now);
        install_tool::check(&rules.install_tool, addr, path, knows, granted).map_err(as_chosen)
    })?;
    witness.passed(Step::Closed, || "the Install Tool, open to this client".to_owned());
    Ok(asked.site.patience())
}

/// A URL in a field that goes on must be one that this client could ask for under the same rules: the origin may serve it.
fn overriding(
    generation: &Generation,
    asked: &Question<'_, '_>,
    now: Millis,
    draw: Draw,
    (name, url): (&str, &str),
) -> Result<(), Refusal> {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let path = path::normalise(path)?;
    let (site, rules) = (asked.site, &asked.route.rules);
    let same = site.route(&path).is_some_and(|route| std::ptr::eq(route, asked.route));
    if !same || generation.install_tool.is_asked(&path, query) {
        return Err(overrides::elsewhere(name, url));
    }
    // As far as these are enforced for the path of the request itself.
    if is_enforced(draw, rules.modes.access) {
        access::check(&site.access, &path, asked.route.area, asked.client.addr, now.into())?;
    }
    if is_enforced(draw, rules.modes.deny) {
        deny::check(&rules.deny, &path).map_err(|refusal| refusal.answered(rules.closed_answer))?;
    }
    if is_enforced(draw, rules.modes.login_query) { login_query::check(asked.method, query) } else { Ok(()) }
}

/// The one path that rules see, and whether the origin gets it as the client wrote it instead.
fn normalise<'r>(
    site: &Site,
    target: &Target<'r>,
    witness: &mut impl Witness,
) -> Result<(Cow<'r, str>, bool), Refusal> {
    let mode = site.root().map_or(Mode::Enforce, |route| route.rules.modes.path);
    let verbatim = !is_enforced(witness.draw(), mode) || target.form == Form::Asterisk;
    if target.form == Form::Asterisk {
        return Ok((Cow::Borrowed("/"), verbatim));
    }
    match path::normalise(target.path) {
        Ok(path) => Ok((path, verbatim)),
        Err(fault) => {
            gate(witness, mode, || Err(fault.into()))?;
            Ok((Cow::Borrowed(target.path), verbatim))
        }
    }
}

impl<'g> Found<'g, '_> {
    /// Nothing yet.
    #[must_use]
    pub fn nothing(generation: &'g Generation, peer: &Peer) -> Self {
        Self {
            site: None,
            route: &generation.outside,
            authority: None,
            secure: peer.tls.is_some(),
            client: None,
            path: None,
        }
    }

    fn enter(&mut self, site: &'g Site) {
        self.site = Some(site);
        self.route = site.root().unwrap_or(self.route);
    }

    /// Counts the answer where a jail of the operator calls it a failure. What was refused because of a ban or a
    /// limit is no new one.
    pub fn count(
        &self,
        generation: &Generation,
        memory: &Memory<'_>,
        head: &Head<'_>,
        refused: Option<Reason>,
        status: http::StatusCode,
    ) -> Option<Ban> {
        let jails = &generation.bans.jails;
        let known = matches!(
            refused,
            Some(Reason::Banned | Reason::RateLimited | Reason::LoginRateLimited | Reason::Overloaded)
        );
        if jails.is_empty() || known {
            return None;
        }
        let (site, (addr, key)) = (self.site?, self.client?);
        let path = self.path.as_deref().or(head.target().path).unwrap_or_default();
        let exchange = Exchange { site: site.id, area: self.route.area, method: head.method(), path, status };
        let who = generation.bans.culprit(addr, key, site.id, None);
        let mut made = None;
        for watch in jails.iter().filter(|watch| watch.sees(&exchange)) {
            made = memory.ledger.strike(&watch.jail, &who, memory.now).or(made);
        }
        made
    }

    /// Applies the rules of what was found to whatever leaves.
    fn harden(&self, worker: &Worker, reply: &mut Reply) {
        let applied = harden::apply(&self.route.rules.harden, &self.facts(reply.status), &mut reply.fields);
        worker.conflicts(self.site, &applied);
    }

    /// What the hardening step is told.
    #[must_use]
    pub fn facts(&self, status: http::StatusCode) -> harden::Facts<'_> {
        let host = self.authority.as_ref().map_or("", |authority| &authority.host);
        harden::Facts {
            status,
            secure: self.secure,
            dev_host: host::is_dev_host(host),
            host,
            port: self.authority.as_ref().and_then(|authority| authority.port),
            origin_authorities: self.site.map_or(&[], |site| &site.origin_authorities),
        }
    }
}

impl Errand<'_, '_> {
    /// Looks whether the request may be a try to log in. It is stopped before the last piece of its body goes on, and
    /// before any password is looked at, where client or user name are locked out by then, or tries are too many.
    fn watch(
        &self,
        worker: &Worker,
        generation: &Generation,
        head: &Head<'_>,
        upload: &Upload,
        draw: Draw,
    ) -> Result<Option<Tap>, Refusal> {
        let asked = Asked::of(head, &self.path, self.target.query, upload.size_hint().exact());
        let rules = &self.route.rules;
        let Some(watch) = login::watch(&rules.login, &asked) else { return Ok(None) };
        let (addr, client) = (self.client.addr, generation.client.key(self.client.addr));
        let admission = Admission {
            ledger: Arc::clone(worker.ledger()),
            meters: Arc::clone(worker.meters()),
            bans: Arc::clone(&generation.bans),
            who: Who { addr, client, site: self.site.id },
            area: self.route.area,
            method: head.method().clone(),
            path: (*self.path).into(),
            modes: (rules.modes.ban, rules.modes.rate),
            draw,
        };
        let tap = Tap::new(watch).guarded(move |attempts, doubtful| admission.check(attempts, doubtful));
        if upload.is_end() {
            // All of it stands in the head.
            tap.end()?;
        }
        Ok(Some(tap))
    }

    /// Looks what came of it, and has that counted. Nothing is held back for it.
    fn conclude(
        &self,
        worker: &Worker,
        generation: &Generation,
        head: &Head<'_>,
        (tap, under_way): (Option<&Tap>, Vec<UnderWay>),
        reply: &mut Reply,
        record: &mut Record,
    ) {
        let policy = &self.route.rules.login;
        let signal = login::take_signal(policy, &mut reply.fields);
        let (client, site) = (generation.client.key(self.client.addr), self.site.id);
        let answer = (reply.status, &reply.fields);
        for session in login::work::sessions(policy, head, (&self.path, self.target.query), answer) {
            worker.ledger().at_work(client, site, session, clock::millis());
        }
        if let Some(entry) =
            login::moved::entry_point(policy, &self.path, reply.status.as_u16(), &reply.fields)
        {
            worker.moved(self.site, entry);
        }
        let unauthorized = reply.status == StatusCode::UNAUTHORIZED;
        if tap.is_none() && signal.is_none() && !unauthorized {
            return;
        }
        let judge = |watch: Option<&mut login::Watch>| {
            let known = || worker.ledger().knows(client, site, clock::millis());
            let answer = (reply.status, &reply.fields);
            login::conclude(policy, watch, head, signal.as_deref(), answer, known)
        };
        let conclusion = match tap {
            Some(tap) => tap.with(|watch| judge(Some(watch))),
            None => judge(None),
        };
        let Some(conclusion) = conclusion else {
            return under_way.into_iter().for_each(UnderWay::give_back);
        };
        let session = login::verdict::new_session(policy, &reply.fields).map(login::session_id);
        let settlement = Settlement {
            ledger: Arc::clone(worker.ledger()),
            jail: generation.bans.login().clone(),
            who: generation.bans.culprit(self.client.addr, client, site, None),
            network: generation.bans.network(self.client.addr).map(|(jail, key)| (jail.clone(), key)),
            client: self.client.addr,
            site: self.site.name.clone(),
            id: record.id().into(),
            user_names: policy.user_names,
            foreseen: tap
                .is_some_and(|tap| tap.with(|watch| watch.is_doubtful() || !watch.attempts().is_empty())),
            session,
            under_way,
        };
        match conclusion {
            Conclusion::Now(outcome) => settlement.settle(&outcome, Some(record), clock::millis()),
            Conclusion::InBody(attempt) => {
                let window = Window::new(move |verdict, record| {
                    settlement.settle(&Outcome { attempt, verdict }, record, clock::millis());
                });
                reply.body = std::mem::take(&mut reply.body).behind(window);
            }
        }
    }

    /// What the origin is told of the client's certificate: nothing, unless this site asks for one.
    fn certificate<'p>(&self, generation: &Generation, peer: &'p Peer) -> &'p [tls::identity::Field] {
        let wanted = generation.listeners.get(peer.listener);
        let wanted = wanted.map_or(Wish::Off, |listener| listener.clients.of(Some(self.site.index)).wish);
        match (wanted, peer.tls.as_ref().and_then(|tls| tls.identity.as_ref())) {
            (Wish::Off, _) => &[],
            (_, Some(identity)) => identity.fields(),
            (_, None) => tls::identity::anonymous(),
        }
    }

    /// The request as the origin gets it.
    fn call(
        &self,
        generation: &Generation,
        peer: &Peer,
        head: Head<'_>,
        (upload, tap): (Upload, Option<&Tap>),
        secure: bool,
        record: &mut Record,
    ) -> Result<Call, Refusal> {
        let rules = &self.route.rules;
        let exact = upload.size_hint().exact();
        let framing = rewrite::framing(head.method(), exact);
        let websocket = self.upgrade == Upgrade::WebSocket;
        let chain = client::chain::of(&generation.client, peer, &head, &self.client);
        let amzn_trace = record.amzn_trace();
        let onward = rewrite::Onward {
            path: if self.verbatim { self.target.path } else { &self.path },
            query: self.target.query,
            host: self.authority.raw,
            client: self.client.addr,
            chain: &chain,
            secure,
            port: self.authority.port_or(if secure { 443 } else { peer.local.port() }),
            request_id: record.id_bytes(),
            traceparent: record.traceparent(),
            amzn_trace: amzn_trace.as_ref().map_or(&[], AsRef::as_ref),
            tracestate: record.continues_trace(),
            websocket,
            underscores: rules.headers.underscores,
            overrides: rules.overrides.of(head.method()),
            trusted: self.client.trusted,
            uncoded: tap.is_some_and(|tap| tap.with(|watch| watch.may_open_tool())),
            reserved: rules.login.signal_header.as_ref(),
            certificate: self.certificate(generation, peer),
            framing,
        };
        let written = rewrite::head(&head, &onward)?;
        let limit =
            if is_enforced(record.draw(), rules.modes.size) { rules.size.body_size } else { u64::MAX };
        let body = if upload.is_end() {
            Body::empty()
        } else {
            Body::client(upload, Meter::new(generation.pace, limit), record.receiving())
        };
        let body = match tap {
            Some(tap) => body.tapped(tap.clone()),
            None => body,
        };
        Ok(Call {
            client: Mark::default(),
            method: head.method().clone(),
            head: written,
            framing,
            body,
            websocket,
            first_byte: self.first_byte,
            many_streams: head.version() == Version::HTTP_2,
        })
    }
}
