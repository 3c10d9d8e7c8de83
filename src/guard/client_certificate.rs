//! Was the TLS of this connection negotiated with what this site asks of its clients?
//!
//! A certificate is asked for in the handshake, by the server name; Host comes later. Whoever names an open site there
//! and a closed one here gets 421 (RFC 9110 section 15.5.20), and nothing else.

use std::time::SystemTime;

use crate::client::TlsFacts;
use crate::refusal::{Reason, Refusal};
use crate::tls::clients::{Policy, Wish};

/// `wanted` is what the site of Host asks; `named` tells what a client is asked now that sends the same server name.
///
/// # Errors
/// When the client has to come again, with the right name or with a certificate.
pub fn check<'p>(
    wanted: &Policy,
    named: impl FnOnce() -> Option<&'p Policy>,
    tls: Option<&TlsFacts>,
    now: SystemTime,
) -> Result<(), Refusal> {
    let Some(tls) = tls else {
        return match wanted.wish {
            Wish::Require => Err(no("this site requires a client certificate, and there is no TLS")),
            Wish::Off | Wish::Request => Ok(()),
        };
    };
    let identity = tls.identity.as_deref();
    if wanted.wish != Wish::Off && identity.is_some_and(|identity| identity.not_after < now) {
        return Err(no("the client's certificate has expired since it was shown"));
    }
    if tls.clients.is_same(wanted) {
        return Ok(());
    }
    if !named().is_some_and(|named| named.is_same(wanted)) {
        return Err(no("TLS was negotiated for a site that asks something else of its clients"));
    }
    // A reload has changed what this site asks. Connections from before it are judged by what holds now.
    wanted.accepts(identity, now).map_err(no)
}

fn no(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::Misdirected, detail)
}
