//! From http to https: 301 for GET and HEAD, 308 for everything else, so that a POST stays a POST.

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::client::Peer;
use crate::generation::Generation;
use crate::guard::host::Authority;
use crate::guard::target::{Form, Target};
use crate::head::Head;
use crate::listen::settings::Service;
use crate::reply::Reply;

/// The redirect, if this listener redirects and the client did not come by https already (through a
/// trusted proxy in front).
#[must_use]
pub fn check(
    generation: &Generation,
    peer: &Peer,
    secure: bool,
    head: &Head<'_>,
    target: &Target<'_>,
    authority: &Authority<'_>,
) -> Option<Reply> {
    let listener = generation.listeners.get(peer.listener)?;
    let Service::Redirect { https_port } = listener.settings.service else { return None };
    if secure {
        return None;
    }
    let location = location(authority, https_port, target)?;
    // RFC 9110 section 15.4.2: user agents may change POST to GET after a 301; never after a 308.
    let status = match *head.method() {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let mut reply = Reply::new(status, Body::full("This site is served over https only.\n"));
    reply.fields.push(LOCATION, location);
    reply.fields.push(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(reply)
}

/// What `explain` says about a redirect.
#[must_use]
pub fn describe(reply: &Reply) -> String {
    let location = reply.fields.get(&LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    format!("{} to {location}", reply.status.as_u16())
}

/// The same address under https. Host and target have passed their grammars, so nothing in them can
/// leave the field.
fn location(authority: &Authority<'_>, port: u16, target: &Target<'_>) -> Option<HeaderValue> {
    let host = &authority.host;
    let mut url = if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
    url.push_str(if target.form == Form::Asterisk { "/" } else { target.path });
    if let Some(query) = target.query {
        url.push('?');
        url.push_str(query);
    }
    HeaderValue::try_from(url).ok()
}
