//! One line in the diagnostics for each ban that was made or lifted: who, where, by what, why and until when.
//!
//! What a ban does is the rule's to say: in report mode it is made, and refuses nobody.

use std::time::{Duration, UNIX_EPOCH};

use super::Ban;

/// A ban was made, here and not in another replica.
pub(super) fn made(ban: &Ban, site: Option<&str>) {
    tracing::warn!(
        target: "ravelin::audit",
        event = "ban-made",
        who = %ban.subject,
        site = site.unwrap_or("*"),
        jail = &*ban.jail,
        failures = ban.failures,
        level = ban.level,
        action = ban.action.word(),
        seconds = ban.until.since(ban.since).as_secs(),
        until = until(ban),
        why = &*ban.why,
        "locked out"
    );
}

/// A ban was lifted before its end.
pub(super) fn lifted(ban: &Ban, site: Option<&str>) {
    tracing::warn!(
        target: "ravelin::audit",
        event = "ban-lifted",
        who = %ban.subject,
        site = site.unwrap_or("*"),
        jail = &*ban.jail,
        until = until(ban),
        why = &*ban.why,
        "no longer locked out"
    );
}

/// Every ban was lifted.
pub(super) fn flushed(count: usize) {
    tracing::warn!(target: "ravelin::audit", event = "bans-flushed", count, "nobody is locked out any more");
}

/// The end of a ban in words; none that the calendar of HTTP cannot write.
fn until(ban: &Ban) -> String {
    let end = UNIX_EPOCH.checked_add(Duration::from_millis(ban.until.0));
    let year_9999 = Duration::from_secs(253_402_300_799);
    let end = end.filter(|end| end.duration_since(UNIX_EPOCH).is_ok_and(|since| since < year_9999));
    end.map_or_else(|| "for ever".to_owned(), httpdate::fmt_http_date)
}
