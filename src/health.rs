//! Health checks on the listeners that visitors use: answered before anybody asks for a host, a ban or a log line.
//!
//! A load balancer asks with an address as Host, from an address of its own, and again and again. What it asks
//! belongs to no site, so it takes no step of the road. Who is not allowed to ask, or asks for somebody else
//! (X-Forwarded-For), goes on as if this did not exist.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, FORWARDED};
use http::{HeaderValue, Method, StatusCode};

use crate::admin::State;
use crate::body::Body;
use crate::client::cidr::NetSet;
use crate::client::networks::{self, Networks};
use crate::client::{Peer, X_FORWARDED_FOR};
use crate::config::complaint::Complaints;
use crate::config::section::{Placed, Reading, Section};
use crate::head::Head;
use crate::reply::Reply;

/// Whether the process is alive.
pub const ALIVE: &str = "/-/healthz";
/// Whether it wants requests.
pub const READY: &str = "/-/readyz";

/// Who may ask unless it is said: this machine and what stands in a cloud's private networks.
const USUAL: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// What was written in `[health]`.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    on_listeners: Option<Placed<bool>>,
    sources: Option<Placed<Vec<Placed<Networks>>>>,
}

/// Who is answered; nobody if it is switched off.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    sources: Option<NetSet>,
}

impl Raw {
    /// Reads `[health]` and closes it.
    pub fn read(root: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut section) = root.section(reading, "health") else { return Self::default() };
        let raw = Self {
            on_listeners: section.get(reading, "on_listeners"),
            sources: section.get(reading, "sources"),
        };
        section.finish(reading);
        raw
    }

    /// What it means.
    #[must_use]
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        if !self.on_listeners.is_some_and(|on| on.value) {
            if let Some(sources) = &self.sources {
                let hint = Some("write `on_listeners = true` too".to_owned());
                complaints.warning(Some(&sources.place), "`health.sources` has no effect", hint);
            }
            return Policy::default();
        }
        let sources = match &self.sources {
            Some(sources) => networks::all(&sources.value).collect(),
            None => usual(),
        };
        Policy { sources: Some(sources) }
    }
}

fn usual() -> NetSet {
    let vpc = Networks::named("vpc").map(|vpc| vpc.nets).unwrap_or_default();
    let own = USUAL.iter().filter_map(|net| net.parse().ok());
    own.chain(vpc.iter().copied()).collect()
}

/// Whether health checks are answered and this path is one, whoever asks.
#[must_use]
pub fn is_asked_for(policy: &Policy, head: &Head<'_>) -> bool {
    policy.sources.is_some() && head.target().path.is_some_and(|path| [ALIVE, READY].contains(&path))
}

/// The answer to a health check; none if this is none, or not from one who may ask.
#[must_use]
pub fn answer(policy: &Policy, peer: &Peer, head: &Head<'_>, state: State) -> Option<Reply> {
    let sources = policy.sources.as_ref()?;
    let target = head.target();
    let path = target.path.filter(|path| [ALIVE, READY].contains(path))?;
    let asks = matches!(*head.method(), Method::GET | Method::HEAD) && target.query.is_none();
    // A balancer names the visitor for whom it asks, and nobody when it asks for itself.
    let forwarded = head.get(&X_FORWARDED_FOR).is_some() || head.get(&FORWARDED).is_some();
    let is_clear = head.fault().is_none() && !head.is_refused();
    if !asks || forwarded || !is_clear || !sources.contains(peer.addr.ip()) {
        return None;
    }
    let (status, text) = match (path, state) {
        (ALIVE, _) => (StatusCode::OK, "alive\n"),
        (_, State::Ready) => (StatusCode::OK, "ready\n"),
        (_, State::Starting) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        (_, State::Draining) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    };
    let mut reply = Reply::new(status, Body::full(text));
    reply.fields.push(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply.fields.push(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(reply)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(policy: &Policy, request: http::request::Builder, from: &str) -> Option<u16> {
        asked_in(policy, request, from, State::Ready)
    }

    fn asked_in(policy: &Policy, request: http::request::Builder, from: &str, state: State) -> Option<u16> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let addr = (from.parse::<std::net::IpAddr>().unwrap(), 4711).into();
        let peer = Peer { addr, local: addr, tls: None, listener: 0 };
        answer(policy, &peer, &Head::new(&parts), state).map(|reply| reply.status.as_u16())
    }

    #[test]
    fn only_who_may_ask_is_answered_and_only_what_is_asked_for_itself() {
        let policy = Policy { sources: Some(usual()) };
        let get = || Request::get(READY);
        for from in ["127.0.0.1", "::1", "10.0.3.9", "::ffff:10.0.3.9", "fd00::9"] {
            assert_eq!(asked(&policy, get(), from), Some(200), "{from}");
        }
        assert_eq!(asked(&policy, get(), "203.0.113.9"), None);
        assert_eq!(asked(&Policy::default(), get(), "127.0.0.1"), None, "switched off");
        let here = "127.0.0.1";
        assert_eq!(asked(&policy, get().header("X-Forwarded-For", "203.0.113.9"), here), None);
        assert_eq!(asked(&policy, get().header("Forwarded", "for=203.0.113.9"), here), None);
        assert_eq!(asked(&policy, Request::post(READY), here), None);
        assert_eq!(asked(&policy, Request::head(ALIVE), here), Some(200));
        for other in ["/-/healthz/", "/-/Healthz", "//-/healthz", "/-/healthz?x", "/%2d/healthz", "/"] {
            assert_eq!(asked(&policy, Request::get(other), here), None, "{other}");
        }
    }

    #[test]
    fn who_goes_down_is_alive_and_not_ready() {
        let policy = Policy { sources: Some(usual()) };
        for (state, ready) in [(State::Starting, 503), (State::Ready, 200), (State::Draining, 503)] {
            assert_eq!(asked_in(&policy, Request::get(READY), "::1", state), Some(ready), "{state:?}");
            assert_eq!(asked_in(&policy, Request::get(ALIVE), "::1", state), Some(200), "{state:?}");
        }
    }
}
