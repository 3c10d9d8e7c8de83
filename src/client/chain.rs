//! What the origin is told of the way to the client: X-Forwarded-For, in the modes of AWS's load balancers.
//!
//! They append to what came, pass it on, or take it out (`routing.http.xff_header_processing.mode`). Here nothing of a
//! stranger goes on in any mode, and `append` leaves out what no trusted proxy vouches for.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Client, Peer, Policy, X_FORWARDED_FOR, derive};
use crate::config::section::{Fault, FromText};
use crate::config::units::choice;
use crate::head::Head;

/// What stands in X-Forwarded-For.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ForwardedFor {
    /// The client alone.
    #[default]
    Replace,
    /// The client, and every proxy between it and us.
    Append,
    /// What a trusted proxy sent.
    Preserve,
    /// There is none.
    Remove,
}

impl FromText for ForwardedFor {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let modes = [
            ("replace", Self::Replace),
            ("append", Self::Append),
            ("preserve", Self::Preserve),
            ("remove", Self::Remove),
        ];
        choice(text, &modes)
    }
}

/// The value of X-Forwarded-For.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The client's address.
    Client,
    /// These bytes.
    Written(Vec<u8>),
    /// The field is left out.
    Nothing,
}

/// What the origin of `client`'s request gets.
#[must_use]
pub fn of(policy: &Policy, peer: &Peer, head: &Head<'_>, client: &Client) -> Chain {
    match policy.forwarded_for {
        ForwardedFor::Remove => Chain::Nothing,
        ForwardedFor::Append if client.trusted => appended(policy, peer, head, client.addr),
        ForwardedFor::Preserve if client.trusted => preserved(head),
        _ => Chain::Client,
    }
}

/// The client first, and the peer last, as each proxy appends the one that it was asked by.
fn appended(policy: &Policy, peer: &Peer, head: &Head<'_>, client: IpAddr) -> Chain {
    let mut hops = vec![peer.addr.ip().to_canonical()];
    for (_, hop) in derive::chain(head).map(|(_, entries)| entries).unwrap_or_default() {
        let Some(hop) = hop else { break };
        hops.push(hop);
        if !policy.trusts(hop) {
            break;
        }
    }
    if hops.last() != Some(&client) {
        hops.push(client);
    }
    if hops.len() == 1 {
        return Chain::Client;
    }
    let mut text = String::new();
    for hop in hops.iter().rev() {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing into a `String` cannot fail.
        let _ = write!(text, "{comma}{hop}");
    }
    Chain::Written(text.into_bytes())
}

/// All lines as one, as they came; where they say nothing, the client's address.
fn preserved(head: &Head<'_>) -> Chain {
    let lines: Vec<&[u8]> = head.all(&X_FORWARDED_FOR).filter(|line| !line.trim_ascii().is_empty()).collect();
    if lines.is_empty() { Chain::Client } else { Chain::Written(lines.join(&b", "[..])) }
}
