//! The `[cookies]` block: attributes that the origin's cookies leave with.
//!
//! `Secure` on TLS, `HttpOnly` for the session cookies that are listed, `SameSite=Lax` where asked for
//! and missing. Nothing is taken away, renamed, merged or reordered. Lines that delete a cookie are
//! treated like every other: the attributes do them no harm, and one rule is easier to trust than two.

use http::HeaderValue;

use super::describe::Said;
use super::set_cookie::{self, Wanted};
use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;

/// What one layer wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    secure: Option<Placed<bool>>,
    http_only: Option<Placed<Vec<Placed<String>>>>,
    same_site: Option<Placed<SameSite>>,
}

/// What it means.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    secure: bool,
    http_only: Box<[Box<[u8]>]>,
    lax: bool,
}

/// Whether `SameSite` is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SameSite {
    /// Left to the origin.
    Off,
    /// `SameSite=Lax` where there is none.
    Lax,
}

impl FromText for SameSite {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("off", Self::Off), ("lax", Self::Lax)])
    }
}

impl Raw {
    /// Reads `[cookies]` if it is there.
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut block) = section.section(reading, "cookies") else { return Self::default() };
        let raw = Self {
            secure: block.get(reading, "secure"),
            http_only: block.get(reading, "http_only"),
            same_site: block.get::<Text<SameSite>>(reading, "same_site").map(|site| site.map(|text| text.0)),
        };
        block.finish(reading);
        raw
    }

    /// This layer with a more specific one over it, key by key; a list replaces the list.
    pub(super) fn over(self, specific: Self) -> Self {
        Self {
            secure: specific.secure.or(self.secure),
            http_only: specific.http_only.or(self.http_only),
            same_site: specific.same_site.or(self.same_site),
        }
    }

    /// Checks the names and compiles.
    pub(super) fn compile(self, complaints: &mut Complaints) -> Policy {
        let names = self.http_only.map_or_else(Vec::new, |list| list.value);
        let http_only = names
            .into_iter()
            .filter(|name| {
                let good = is_token(&name.value);
                if !good {
                    let message = format!("`{}` is not a cookie name", name.value);
                    complaints.error(Some(&name.place), message, Some("write e.g. `PHPSESSID`".to_owned()));
                }
                good
            })
            .map(|name| name.value.into_bytes().into_boxed_slice())
            .collect();
        Policy {
            secure: self.secure.is_some_and(|secure| secure.value),
            http_only,
            lax: self.same_site.is_some_and(|site| site.value == SameSite::Lax),
        }
    }

    /// Which lines decide, for `explain`.
    pub(super) fn describe(&self) -> Vec<Said> {
        let said = |rule: String, place: &Place| Said {
            header: "Set-Cookie".to_owned(),
            rule,
            place: place.clone(),
        };
        let secure = self.secure.as_ref().filter(|on| on.value);
        let lax = self.same_site.as_ref().filter(|site| site.value == SameSite::Lax);
        let names = self.http_only.as_ref().filter(|list| !list.value.is_empty()).map(|list| {
            let names: Vec<&str> = list.value.iter().map(|name| name.value.as_str()).collect();
            said(format!("add HttpOnly to {}", names.join(", ")), &list.place)
        });
        secure
            .map(|on| said("add Secure on TLS".to_owned(), &on.place))
            .into_iter()
            .chain(names)
            .chain(lax.map(|site| said("add SameSite=Lax where missing".to_owned(), &site.place)))
            .collect()
    }
}

impl Policy {
    /// Whether nothing is ever added.
    pub(super) fn is_idle(&self) -> bool {
        !self.secure && !self.lax && self.http_only.is_empty()
    }

    /// The line as it leaves, or `None` if it stays as it is.
    pub(super) fn complete(&self, line: &HeaderValue, secure: bool) -> Option<HeaderValue> {
        let line = line.as_bytes();
        let name = set_cookie::name(line);
        let http_only = self.http_only.iter().any(|listed| **listed == *name);
        let wanted = Wanted { secure: self.secure && secure, http_only, lax: self.lax };
        HeaderValue::from_maybe_shared(bytes::Bytes::from(set_cookie::complete(line, wanted)?)).ok()
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
