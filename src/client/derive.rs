//! How a client's address was found, hop by hop: the story that `ravelin explain` tells.

use std::net::IpAddr;

use http::header::FORWARDED;

use super::{AddressFrom, Peer, Policy, X_FORWARDED_FOR, forwarded, viewer};
use crate::config::complaint::Place;
use crate::head::Head;

/// So many entries of a chain are shown.
const SHOWN: usize = 30;

/// One line for each hop, from the peer on. The last one begins with the address that [`identify`](super::identify)
/// finds.
#[must_use]
pub fn story(policy: &Policy, peer: &Peer, head: &Head<'_>) -> Vec<String> {
    let addr = peer.addr.ip().to_canonical();
    let ignored = chain(head).map_or(String::new(), |(name, _)| format!("; {name} is not believed"));
    let Some(by) = trusted(policy, addr) else {
        return vec![format!(
            "{addr} opened the connection and is no trusted proxy: it is the client{ignored}"
        )];
    };
    let mut lines = vec![format!("{addr} opened the connection, {by}")];
    if policy.address_from == AddressFrom::CloudFront {
        if let Some(viewer) = viewer::of(head) {
            lines.push(format!("{} is the client: CloudFront-Viewer-Address names it", viewer.addr));
            return lines;
        }
        lines.push("there is no clear CloudFront-Viewer-Address: X-Forwarded-For counts".to_owned());
    }
    let Some((name, entries)) = chain(head) else {
        lines.push(format!("{addr} is the client: there is no X-Forwarded-For and no Forwarded"));
        return lines;
    };
    let mut last = addr;
    for (entry, hop) in entries {
        let Some(hop) = hop else {
            let entry = String::from_utf8_lossy(entry).trim().escape_debug().to_string();
            lines.push(format!("{last} is the client: `{entry}` in {name} is no address, and ends the walk"));
            return shown(lines);
        };
        last = hop;
        let Some(by) = trusted(policy, hop) else {
            lines.push(format!("{hop} in {name} is the client: the first that is no trusted proxy"));
            return shown(lines);
        };
        lines.push(format!("{hop} in {name}, {by}"));
    }
    lines.push(format!("{last} is the client: the farthest of the chain, in which all are trusted"));
    shown(lines)
}

pub(super) type Hop<'a> = (&'a [u8], Option<IpAddr>);

/// The entries that count, nearest first, and the field that they are from.
pub(super) fn chain<'a>(head: &Head<'a>) -> Option<(&'static str, Vec<Hop<'a>>)> {
    if head.get(&X_FORWARDED_FOR).is_some() {
        let lines = head.all(&X_FORWARDED_FOR).rev();
        let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
        return Some(("X-Forwarded-For", entries.map(|entry| (entry, forwarded::address(entry))).collect()));
    }
    head.get(&FORWARDED)?;
    let elements = head.all(&FORWARDED).rev().flat_map(forwarded::elements);
    Some(("Forwarded", elements.map(|element| (element, forwarded::node(element))).collect()))
}

fn trusted(policy: &Policy, addr: IpAddr) -> Option<String> {
    let (word, place): (&str, &Place) = policy.trusted_by(addr)?;
    Some(format!("trusted by `{word}` ({})", place.label()))
}

/// The first hops and the outcome of a very long chain.
fn shown(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > SHOWN {
        let outcome = lines.split_off(lines.len() - 1);
        lines.truncate(SHOWN);
        lines.push("…".to_owned());
        lines.extend(outcome);
    }
    lines
}
