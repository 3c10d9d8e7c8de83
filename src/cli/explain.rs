//! `ravelin explain`: step by step, what would happen to a request, and which line decides.
//!
//! It takes the same road as a request (`pipeline::decide`), so it cannot tell another story.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::SystemTime;

use bytes::BytesMut;
use clap::Args;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::source::Source;
use crate::admin::State;
use crate::bans::{Ledger, Memory, Meters};
use crate::client::key::Key;
use crate::client::{Client, Peer, TlsFacts, derive};
use crate::clock;
use crate::config::complaint::Place;
use crate::config::rules;
use crate::config::units::Draw;
use crate::fields::Fields;
use crate::gate::Witness;
use crate::generation::Generation;
use crate::harden;
use crate::harden::observatory::{self, Cors, Redirect, Scan, Scripts};
use crate::head::Head;
use crate::health;
use crate::http1::request::{Decoder, RequestHead};
use crate::pipeline::{self, Decision, Found};
use crate::refusal::{Reason, Refusal};
use crate::site::{Route, Site};
use crate::step::Step;
use crate::tls::clients::{self, Wish};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The method: GET, POST, …
    method: String,

    /// The whole address, with scheme and host.
    url: String,

    /// The address that the request comes from.
    #[arg(long, value_name = "IP", default_value = "203.0.113.9")]
    from: IpAddr,

    /// A header field, as often as needed.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,

    /// When it comes, such as `2026-07-06T22:00:00+02:00`; now if not said.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,

    #[command(flatten)]
    source: Source,
}

fn time(text: &str) -> Result<SystemTime, String> {
    text.parse::<jiff::Timestamp>().map(SystemTime::from).map_err(|error| error.to_string())
}

/// What the witness of an explanation writes down.
struct Story<'g> {
    generation: &'g Generation,
    peer: &'g Peer,
    lines: Vec<String>,
    /// How the client's address was found.
    hops: Vec<String>,
    /// The rules that hold so far, with the lines they were written in.
    written: rules::Raw,
    draw: Draw,
}

impl Witness for Story<'_> {
    fn would_block(&mut self, refusal: &Refusal) {
        let step = refusal.reason.row().step;
        self.lines.push(row(step, "would block", &blocked(refusal)));
        self.by("only reported, by", self.written.mode(refusal.reason).map(Place::label));
        self.by("decided by", self.decider(refusal.reason));
    }

    fn passed(&mut self, step: Step, note: impl FnOnce() -> String) {
        self.lines.push(row(step, "passed", &note()));
        if step == Step::Client {
            for hop in std::mem::take(&mut self.hops) {
                self.aside(&hop);
            }
        }
        let reason = match step {
            Step::Method => Reason::MethodNotAllowed,
            Step::Size => Reason::BodyTooLarge,
            Step::Headers => {
                return self.by("overrides go on by", self.written.overrides().map(Place::label));
            }
            _ => return,
        };
        self.by("decided by", self.decider(reason));
    }

    fn found_client(&mut self, _client: &Client, head: &Head<'_>) {
        self.hops = derive::story(&self.generation.client, self.peer, head);
    }

    fn found_site(&mut self, site: &Site) {
        if let Some(root) = site.root() {
            self.written = root.rules.written.clone();
        }
    }

    fn found_key(&mut self, key: Key) {
        self.draw = key.draw();
    }

    fn draw(&self) -> Draw {
        self.draw
    }

    fn found_route(&mut self, route: &Route) {
        self.written = route.rules.written.clone();
    }
}

impl Story<'_> {
    /// A line below the last one.
    fn aside(&mut self, text: &str) {
        self.lines.push(format!("{:24}{text}", ""));
    }

    fn by(&mut self, what: &str, whom: Option<String>) {
        if let Some(whom) = whom {
            self.aside(&format!("{what} {whom}"));
        }
    }

    /// The line of the configuration that `reason` rests on; none where no key has a say.
    fn decider(&self, reason: Reason) -> Option<String> {
        let key = match reason {
            Reason::MethodNotAllowed => "methods",
            Reason::UpgradeNotAllowed => "websocket",
            Reason::BodyTooLarge => "body_size",
            _ => return self.written.decides(reason).map(Place::label),
        };
        let written = self.written.decides(reason).map(Place::label);
        Some(written.unwrap_or_else(|| format!("the default of `{key}`")))
    }

    fn refused(&mut self, refusal: &Refusal) {
        let said = refusal.reason.row();
        self.lines.push(row(said.step, "REFUSED", &blocked(refusal)));
        self.by("decided by", self.decider(refusal.reason));
        self.aside(said.advice);
    }
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    let request = match request(arguments) {
        Ok(request) => request,
        Err(message) => return super::complain(&message),
    };
    let generation = match arguments.source.generation() {
        Ok(generation) => generation,
        Err(code) => return code,
    };
    let peer = match peer(&generation, arguments) {
        Ok(peer) => peer,
        Err(message) => return super::complain(&message),
    };
    match decode(&generation, request) {
        Ok(head) => say_on!("{}", tell(&generation, &peer, &head, arguments.at.unwrap_or_else(clock::wall))),
        Err(message) => return super::complain(&message),
    }
    ExitCode::SUCCESS
}

/// The request head as a client would have sent it over HTTP/1.1.
fn request(arguments: &Arguments) -> Result<BytesMut, String> {
    let method = Method::from_bytes(arguments.method.as_bytes())
        .map_err(|_| format!("`{}` is not a method", arguments.method))?;
    let url: Uri = arguments.url.parse().map_err(|error| format!("`{}`: {error}", arguments.url))?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(format!("`{}` must be a whole address: https://www.example.org/path", arguments.url));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("`{scheme}://` is neither http nor https: it would never get past the door"));
    }
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let mut out = BytesMut::new();
    // Writing into a `BytesMut` grows it and cannot fail.
    let _ = write!(out, "{method} {target} HTTP/1.1\r\nhost: {authority}\r\n");
    for field in &arguments.header {
        let (name, value) = header(field)?;
        let _ = write!(out, "{name}: ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// What the decoder makes of it: a broken head goes the same road, to its refusal.
fn decode(generation: &Generation, mut request: BytesMut) -> Result<RequestHead, String> {
    let limits = &generation.limits;
    match Decoder::default().decode(&mut request, &limits.request(), limits.desync) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err("the request head has no end".to_owned()),
        Err(broken) => Ok(broken.head),
    }
}

fn header(field: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = field.split_once(':').ok_or_else(|| format!("`{field}` is not `Name: value`"))?;
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("`{name}` is not a header name"))?;
    let value =
        HeaderValue::from_str(value.trim()).map_err(|_| format!("`{value}` is not a header value"))?;
    Ok((name, value))
}

/// A client at `--from` on the listener that the address names: by its port, or the first of its kind.
fn peer(generation: &Generation, arguments: &Arguments) -> Result<Peer, String> {
    let url: Uri = arguments.url.parse().map_err(|error| format!("`{}`: {error}", arguments.url))?;
    let https = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let kinds =
        || generation.listeners.iter().enumerate().filter(|(_, listener)| listener.store.is_some() == https);
    let found =
        kinds().find(|(_, listener)| listener.settings.address.port() == port).or_else(|| kinds().next());
    let Some((listener, chosen)) = found else {
        let scheme = if https { "https" } else { "http" };
        return Err(format!("no `[[listen]]` takes {scheme}: the connection would be refused"));
    };
    let host = url.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let tls = https.then(|| TlsFacts {
        clients: generation.asked(listener, Some(&host)).cloned().unwrap_or_else(clients::Policy::off),
        sni: Some(host.into()),
        version: "TLSv1.3",
        cipher: "",
        resumed: false,
        identity: None,
    });
    Ok(Peer { addr: SocketAddr::new(arguments.from, 50_000), local: chosen.settings.address, tls, listener })
}

/// The whole explanation.
fn tell(generation: &Generation, peer: &Peer, received: &RequestHead, now: SystemTime) -> String {
    let head = Head::received(received);
    let mut story = Story {
        generation,
        peer,
        lines: Vec::new(),
        hops: Vec::new(),
        written: generation.outside.rules.written.clone(),
        draw: Draw::NONE,
    };
    let mut found = Found::nothing(generation, peer);
    // Of a process that has just started; `ravelin bans list` asks the one that runs.
    let (ledger, meters) = (Ledger::new(generation.bans.bounds), Meters::new(clock::now()));
    let memory = Memory { ledger: &ledger, meters: &meters, now: now.into(), instant: clock::now() };
    story.lines.extend(asks(generation, peer));
    let status = if let Some(reply) = health::answer(&generation.health, peer, &head, State::Ready) {
        let note =
            format!("{} before anything else is asked: `[health] on_listeners`", reply.status.as_u16());
        story.lines.push(line("health", "answered", &note));
        reply.status
    } else {
        if health::is_asked_for(&generation.health, &head) {
            story.lines.push(line(
                "health",
                "passed by",
                "no health check: those are GET or HEAD from `[health] sources`",
            ));
            story.aside("without a query and without X-Forwarded-For or Forwarded");
        }
        match pipeline::decide(generation, &memory, peer, head, &mut found, &mut story) {
            Ok(Decision::Forward(errand)) => {
                let members: Vec<&str> = errand.site.upstream.members().map(|(name, ..)| name).collect();
                let path = if errand.verbatim { errand.target.path } else { &errand.path };
                story.lines.push(row(Step::Origin, "asked", &format!("{} for {path}", members.join(" or "))));
                StatusCode::OK
            }
            Ok(Decision::Redirect(reply)) => reply.status,
            Err(refusal) => {
                story.refused(&refusal);
                refusal.status()
            }
        }
    };
    let mut out = format!("{} {} from {}\n\n", received.method(), received.target(), peer.addr.ip());
    for line in &story.lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "\nRules of {}, which decide what leaves:\n", found.route.label());
    for said in found.route.rules.written.decisions() {
        let _ = writeln!(out, "  {:28} {:60} {}", said.header, said.rule, said.place.label());
    }
    let _ = writeln!(out, "\n{}", grade(&found, status));
    out
}

/// The grade that an answer of an origin that sends nothing itself would get.
fn grade(found: &Found<'_, '_>, status: StatusCode) -> String {
    let mut fields = Fields::default();
    fields.push(http::header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let _ = harden::apply(&found.route.rules.harden, &found.facts(status), &mut fields);
    let mut out = format!("An HTML page with status {} leaves with:\n\n", status.as_u16());
    for (name, value) in fields.iter() {
        let _ = writeln!(out, "  {name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let scan = Scan {
        fields: &fields,
        https: found.secure,
        redirect: Redirect::ToHttps,
        scripts: Scripts::default(),
        cors: Cors::default(),
    };
    let report = observatory::score(&scan);
    let _ = write!(out, "\nMDN HTTP Observatory, computed offline: {} ({})", report.score, report.grade);
    out
}

/// What the client is asked in the handshake, before there is a request. The story goes on with what it may show.
fn asks(generation: &Generation, peer: &Peer) -> Option<String> {
    let tls = peer.tls.as_ref()?;
    let told = match tls.clients.wish {
        Wish::Off => return None,
        Wish::Request => "a client certificate is asked for, and may be missing",
        Wish::Require => "a client certificate is required: without a valid one there is no connection",
    };
    let listener = generation.listeners.get(peer.listener)?;
    let own = listener.clients.of(None);
    let site = tls.sni.as_deref().and_then(|host| generation.hosts.get(host)).copied();
    let site = site.filter(|_| !own.is_same(&tls.clients)).and_then(|site| generation.sites.get(site));
    let (whose, place) = match site {
        Some(site) => (format!("site {}", site.name), site.place.label()),
        None => ("the listener".to_owned(), listener.settings.place.label()),
    };
    Some(line("tls", "asked", &format!("{told}\n{:24}by `client_certificates` of {whose} ({place})", "")))
}

fn row(step: Step, outcome: &str, note: &str) -> String {
    line(step.name(), outcome, note)
}

fn line(step: &str, outcome: &str, note: &str) -> String {
    format!("{step:<12}{outcome:<12}{note}")
}

fn blocked(refusal: &Refusal) -> String {
    format!("{} {}: {}", refusal.status().as_u16(), refusal.reason.name(), refusal.detail)
}
