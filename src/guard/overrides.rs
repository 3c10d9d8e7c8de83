//! May a field name another method or URL than the one that is asked? Only where the rules say so.
//!
//! Frameworks take a method from `X-HTTP-Method-Override` and a URL from `X-Original-URL`: whoever sends one gets
//! something that nobody has checked (CVE-2018-14773). So these fields are taken out of requests. Where
//! `override_headers` lets one through, what it names is held against the same rules as the request itself.

use http::Method;

use super::excerpt;
use crate::config::complaint::{Complaints, Place, did_you_mean};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::head::Head;
use crate::refusal::{Reason, Refusal};

/// What a field overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Method,
    Url,
}

/// Every override that is known, in lower case. All of them are taken out unless they are let through.
const NAMES: [(&str, Kind); 6] = [
    ("x-http-method-override", Kind::Method),
    ("x-http-method", Kind::Method),
    ("x-method-override", Kind::Method),
    ("x-original-url", Kind::Url),
    ("x-original-uri", Kind::Url),
    ("x-rewrite-url", Kind::Url),
];

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    names: Option<Placed<Vec<Placed<Text<Policy>>>>>,
}

/// Which overrides go on to the origin; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The places in the list above, as bits.
    places: u8,
}

/// One name is the policy that lets this one through.
impl FromText for Policy {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let name = text.to_ascii_lowercase();
        match place(name.as_bytes()) {
            Some(place) => Ok(Self { places: 1 << place }),
            None => Err(never(text, &name)),
        }
    }
}

/// Where a name (lower-case) stands in the list.
fn place(name: &[u8]) -> Option<usize> {
    NAMES.iter().position(|(known, _)| known.as_bytes() == name)
}

/// Why a field cannot be let through.
fn never(written: &str, name: &str) -> Fault {
    const CONNECTION: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const VOUCHED: [&str; 6] = ["x-amzn-", "x-amz-cf-", "cloudfront-", "x-arr-", "ssl-client-", "x-ssl-"];
    let is_ours = || {
        let starts =
            ["x-forwarded", "forwarded", "client-cert", "x-client-cert", "traceparent", "x-original-"];
        let names =
            ["host", "x-host", "x-request-id", "x-scheme", "x-url-scheme", "https", "front-end-https"];
        starts.iter().any(|start| name.starts_with(start))
            || names.contains(&name)
            || name.ends_with("host-override")
            || name.ends_with("ip")
            || name.ends_with("addr")
    };
    let hint = if CONNECTION.contains(&name) {
        "it is about the client's connection, or where its message ends: Ravelin writes its own for the origin"
    } else if name == "proxy" {
        "PHP takes it for the environment variable HTTP_PROXY (httpoxy, CVE-2016-5385)"
    } else if VOUCHED.iter().any(|start| name.starts_with(start)) {
        "anybody can send it; from a balancer in `[client] trusted_proxies` it goes on without being named"
    } else if is_ours() {
        "it says who asks, or for which host: Ravelin writes that itself; see `[client] trusted_proxies`"
    } else {
        let known = NAMES.iter().map(|(name, _)| *name);
        let hint = did_you_mean(name, known.clone()).unwrap_or_else(|| {
            format!("ordinary fields go on without being named; known here: {}", list(known))
        });
        return Fault::new(format!("`{written}` overrides neither method nor URL"), hint);
    };
    Fault::new(format!("`{written}` is never let through"), hint)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl Raw {
    /// Reads `override_headers`.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        Self { names: section.get(reading, "override_headers") }
    }

    /// This layer with a more specific one laid over it. Lists are replaced, not joined.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self { names: specific.names.or(self.names) }
    }

    /// Where `override_headers` was written, if it was.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.names.as_ref().map(|written| &written.place)
    }

    /// None unless written.
    pub fn compile(self, _complaints: &mut Complaints) -> Policy {
        let names = self.names.map(|written| written.value).unwrap_or_default();
        let places = names.into_iter().fold(0, |places, name| places | name.value.0.places);
        Policy { places }
    }
}

impl Policy {
    /// What of it holds for a request with this method: another method is taken from a POST only, as by most
    /// frameworks. A GET could be repeated, and then something else would be.
    #[must_use]
    pub fn of(self, method: &Method) -> Self {
        if self.places == 0 || *method == Method::POST {
            return self;
        }
        let methods = NAMES.iter().enumerate().filter(|(_, (_, kind))| *kind == Kind::Method);
        Self { places: methods.fold(self.places, |places, (place, _)| places & !(1 << place)) }
    }

    /// Whether a field of this name (lower-case) goes on although it is an override.
    #[must_use]
    pub fn passes(self, name: &[u8]) -> bool {
        self.places != 0 && place(name).is_some_and(|place| self.places & (1 << place) != 0)
    }

    /// The overrides of a kind that go on, with their values.
    fn going_on<'h>(self, head: &Head<'h>, kind: Kind) -> impl Iterator<Item = (&'static str, &'h [u8])> {
        let policy = self.of(head.method());
        let lines = (policy.places != 0).then(|| head.lines());
        lines.into_iter().flatten().filter_map(move |(name, value)| {
            let (known, of) = NAMES.get(place(name)?)?;
            (*of == kind && policy.passes(name)).then_some((*known, value))
        })
    }
}

/// Refuses a method that goes on in a field and that `may` refuses, or that is none.
pub fn method(
    policy: Policy,
    head: &Head<'_>,
    may: impl Fn(&Method) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for (name, value) in one_each(policy, head, Kind::Method)? {
        // Frameworks read `delete` as DELETE.
        let method = Method::from_bytes(&value.to_ascii_uppercase())
            .map_err(|_| bad(format!("`{name}` names no method: {}", excerpt(value))))?;
        may(&method)
            .map_err(|refusal| Refusal { detail: format!("{method}, by `{name}`").into(), ..refusal })?;
    }
    Ok(())
}

/// The URLs that go on in fields: paths with or without a query, of visible characters.
pub fn urls<'h>(policy: Policy, head: &Head<'h>) -> Result<Vec<(&'static str, &'h str)>, Refusal> {
    let mut urls = Vec::new();
    for (name, value) in one_each(policy, head, Kind::Url)? {
        let text = std::str::from_utf8(value).ok().filter(|text| {
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        });
        let text = text.ok_or_else(|| bad(format!("`{name}` is no path: {}", excerpt(value))))?;
        urls.push((name, text));
    }
    Ok(urls)
}

/// The overrides of a kind that go on; refuses two of one name, of which an origin may take either.
fn one_each<'h>(
    policy: Policy,
    head: &Head<'h>,
    kind: Kind,
) -> Result<Vec<(&'static str, &'h [u8])>, Refusal> {
    let mut seen: Vec<(&'static str, &'h [u8])> = Vec::new();
    for (name, value) in policy.going_on(head, kind) {
        if seen.iter().any(|(before, _)| *before == name) {
            return Err(bad(format!("`{name}` stands twice")));
        }
        seen.push((name, value));
    }
    Ok(seen)
}

/// The URL that `name` holds is not one that this path may ask for.
#[must_use]
pub fn elsewhere(name: &str, url: &str) -> Refusal {
    bad(format!("`{name}` leads out of the rules of this path: {}", excerpt(url.as_bytes())))
}

fn bad(detail: String) -> Refusal {
    Refusal::new(Reason::BadHeader, detail)
}

/// What becomes of each override in a request, for `ravelin explain`.
#[must_use]
pub fn describe(policy: Policy, head: &Head<'_>) -> String {
    let policy = policy.of(head.method());
    let overrides = head.lines().filter_map(|(name, _)| Some((name, NAMES.get(place(name)?)?.0)));
    let fates = overrides.map(|(bytes, name)| {
        format!(
            ", {name} {}",
            if policy.passes(bytes) { "goes on" } else { "is taken out (`override_headers`)" }
        )
    });
    fates.collect()
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::guard::testing;

    fn compile(text: &str) -> (Policy, Complaints) {
        let (raw, mut complaints) = testing::read(text, Raw::read);
        let policy = raw.compile(&mut complaints);
        (policy, complaints)
    }

    fn only_get_and_delete(method: &Method) -> Result<(), Refusal> {
        let listed = matches!(*method, Method::GET | Method::DELETE);
        if listed { Ok(()) } else { Err(Refusal::new(Reason::MethodNotAllowed, "")) }
    }

    #[test]
    fn nothing_passes_unless_it_was_named() {
        let (none, complaints) = compile("");
        assert!(complaints.is_empty(), "{complaints}");
        for (name, _) in NAMES {
            assert!(!none.passes(name.as_bytes()), "{name}");
            let (one, complaints) = compile(&format!("override_headers = [\"{}\"]", name.to_uppercase()));
            assert!(complaints.is_empty(), "{complaints}");
            let passing: Vec<&str> =
                NAMES.iter().map(|(other, _)| *other).filter(|other| one.passes(other.as_bytes())).collect();
            assert_eq!(passing, [name]);
            assert!(!one.passes(name.replace('-', "_").as_bytes()), "{name} in another spelling");
        }
    }

    #[test]
    fn a_method_is_taken_from_a_post_only() {
        let (policy, _) = compile("override_headers = [\"X-HTTP-Method-Override\", \"X-Original-URL\"]");
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
            assert!(!policy.of(&method).passes(b"x-http-method-override"), "{method}");
            assert!(policy.of(&method).passes(b"x-original-url"), "{method}");
        }
        assert_eq!(policy.of(&Method::POST), policy);
    }

    #[test]
    fn a_method_in_a_field_is_held_against_the_list() {
        let (policy, _) = compile("override_headers = [\"X-HTTP-Method-Override\", \"X-Method-Override\"]");
        let verdict = |method: &str, fields: &[(&str, &str)]| {
            let parts = testing::head(method, "/", Version::HTTP_11, fields);
            super::method(policy, &Head::new(&parts), only_get_and_delete).map_err(|refusal| refusal.reason)
        };
        for value in ["DELETE", "delete", "GET"] {
            assert_eq!(verdict("POST", &[("x-http-method-override", value)]), Ok(()), "{value}");
        }
        for (value, reason) in [
            ("PUT", Reason::MethodNotAllowed),
            ("TRACE", Reason::MethodNotAllowed),
            ("", Reason::BadHeader),
            ("DELETE, GET", Reason::BadHeader),
        ] {
            assert_eq!(verdict("POST", &[("x-http-method-override", value)]), Err(reason), "{value}");
        }
        let two = [("x-http-method-override", "DELETE"), ("x-method-override", "PUT")];
        assert_eq!(verdict("POST", &two), Err(Reason::MethodNotAllowed), "each of them is looked at");
        let twice = [("x-method-override", "GET"), ("x-method-override", "DELETE")];
        assert_eq!(verdict("POST", &twice), Err(Reason::BadHeader));
        // What does not go on is nobody's business.
        assert_eq!(verdict("GET", &[("x-http-method-override", "PUT")]), Ok(()));
        assert_eq!(verdict("POST", &[("x-http-method", "PUT")]), Ok(()));
    }

    #[test]
    fn a_url_is_a_path() {
        let (policy, _) = compile("override_headers = \"X-Rewrite-URL\"");
        let urls = |value: &str| {
            let parts = testing::head("GET", "/", Version::HTTP_11, &[("x-rewrite-url", value)]);
            let head = Head::new(&parts);
            urls(policy, &head).map(|urls| urls.iter().map(|(_, url)| (*url).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(urls("/a?b=c").unwrap(), ["/a?b=c"]);
        for value in ["", "a", "http://www.example.org/a", "/a b", "/a#b", "*"] {
            assert_eq!(urls(value).unwrap_err().reason, Reason::BadHeader, "{value}");
        }
    }

    #[test]
    fn what_is_never_let_through_says_why() {
        for (name, why) in [
            ("Connection", "about the client's connection"),
            ("HTTP2-Settings", "about the client's connection"),
            ("Upgrade", "about the client's connection"),
            ("Transfer-Encoding", "about the client's connection"),
            ("Proxy", "httpoxy"),
            ("X-Forwarded-For", "who asks"),
            ("X-Real-IP", "who asks"),
            ("X-Original-Host", "who asks"),
            ("X-Client-Cert-Subject", "who asks"),
            ("x-amzn-mtls-clientcert", "trusted_proxies"),
            ("CloudFront-Viewer-Address", "trusted_proxies"),
            ("Accept", "ordinary fields go on"),
            ("X-HTTP-Method-Overide", "did you mean `x-http-method-override`?"),
        ] {
            let (policy, complaints) = compile(&format!("override_headers = [\"{name}\"]"));
            assert!(complaints.has_errors(), "{name}");
            assert!(complaints.to_string().contains(why), "{name}: {complaints}");
            assert_eq!(policy, Policy::default(), "{name}");
        }
    }

    #[test]
    fn a_list_replaces_the_one_below() {
        let (general, _) = testing::read("override_headers = [\"X-Original-URL\"]", Raw::read);
        let (specific, _) = testing::read("override_headers = []", Raw::read);
        let mut complaints = Complaints::default();
        assert_eq!(general.clone().over(specific).compile(&mut complaints), Policy::default());
        assert!(general.over(Raw::default()).compile(&mut complaints).passes(b"x-original-url"));
    }
}
