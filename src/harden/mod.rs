//! What leaves the house: the fields of every response, hardened.
//!
//! [`Raw`] is what an operator writes in `[headers]`, `[hsts]` and `[cookies]`, [`Policy`] is what the
//! merged layers mean for one route, and [`apply`] brings a response into that form. There is one table
//! and no "always": every response goes through it, from the origin or from Ravelin itself.
//!
//! Rules by name, most specific layer first; an exact name beats a wildcard; within a name the
//! operations run in order. Then, whatever anybody wrote: a singleton header leaves at most once, HSTS
//! never leaves on plain HTTP or for development hosts, cookies get their attributes, and URLs that name
//! the origin get their public form.

mod apply;
mod condition;
pub(crate) use condition::range as status_range;
mod cookies;
mod csp;
mod describe;
mod edit;
mod hsts;
mod intern;
mod lint;
mod location;
pub mod observatory;
pub mod page;
mod permissions;
mod policy;
mod rule;
pub mod set_cookie;
mod shared;
mod singleton;
mod table;

#[cfg(test)]
mod corpus_test;
#[cfg(test)]
mod laws_test;
#[cfg(test)]
mod preset_test;

pub use apply::{Applied, Conflict, Facts, apply};
pub use describe::Said;
pub use location::OriginAuthority;
pub use policy::Policy;
pub use shared::Shared;

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Reading, Section};
use rule::Verb;

/// What one layer wrote about responses; merged layers are again one.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    headers: table::Raw,
    hsts: hsts::Raw,
    cookies: cookies::Raw,
}

impl Raw {
    /// Reads `[headers]`, `[hsts]` and `[cookies]` of a layer; the caller closes the section. Values are
    /// checked and built here.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self {
            headers: table::Raw::read(section, reading),
            hsts: hsts::Raw::read(section, reading),
            cookies: cookies::Raw::read(section, reading),
        }
    }

    /// This layer with a more specific one over it: header by header, key by key.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self {
            headers: self.headers.over(specific.headers),
            hsts: self.hsts.over(specific.hsts),
            cookies: self.cookies.over(specific.cookies),
        }
    }

    /// What the merged layers mean.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let hsts = self.hsts.compile(complaints);
        let cookies = self.cookies.compile(complaints);
        Policy::new(&self.headers, hsts, cookies, complaints)
    }

    /// Complains about what would break TYPO3's backend. For the merged rules of routes in the area
    /// `backend` or `login`.
    pub fn check_backend(&self, complaints: &mut Complaints) {
        for name in ["content-security-policy", "referrer-policy", "x-frame-options"] {
            let Some(written) = self.headers.about(name) else { continue };
            for rule in &written.rules {
                backend_rule(name, &rule.verb, &rule.place, complaints);
            }
        }
    }

    /// Which configuration line decides each header, for `ravelin explain`: the table in the order of
    /// names, then `[hsts]`, then `[cookies]`.
    #[must_use]
    pub fn describe(&self) -> Vec<Said> {
        self.headers.describe().chain(self.hsts.describe()).chain(self.cookies.describe()).collect()
    }
}

fn backend_rule(name: &str, verb: &Verb, place: &Place, complaints: &mut Complaints) {
    let value = match verb {
        Verb::Set(value)
        | Verb::SetIfEmpty(value)
        | Verb::Add(value)
        | Verb::Append(value)
        | Verb::Merge(value) => value.to_str().unwrap_or_default(),
        Verb::Complete(..) | Verb::Unset | Verb::Edit(..) => "",
    };
    match name {
        "content-security-policy" if !matches!(verb, Verb::SetIfEmpty(_)) => {
            let hint = "TYPO3's own policy carries a nonce per page: use `setifempty`, or `inherit = false`";
            let message = "a Content-Security-Policy in the backend is never altered";
            complaints.error(Some(place), message, Some(hint.to_owned()));
        }
        "referrer-policy"
            if ["no-referrer", "origin", "strict-origin"].contains(&value.to_ascii_lowercase().as_str()) =>
        {
            let hint = "write `strict-origin-when-cross-origin` or `same-origin`";
            let message =
                format!("Referrer-Policy `{value}` breaks TYPO3's backend, which requires its own Referer");
            complaints.warning(Some(place), message, Some(hint.to_owned()));
        }
        "x-frame-options" if value.eq_ignore_ascii_case("DENY") => {
            let hint = "write `SAMEORIGIN`";
            let message = "X-Frame-Options `DENY` breaks TYPO3's backend, whose modules live in frames";
            complaints.warning(Some(place), message, Some(hint.to_owned()));
        }
        _ => {}
    }
}
