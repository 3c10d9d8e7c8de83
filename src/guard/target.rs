//! Which form the request target has, and what it names (RFC 9112 section 3.2, RFC 9113 section 8.3.1).

use http::{Method, Version};

use super::excerpt;
use crate::head::{Head, RawTarget};
use crate::refusal::{Reason, Refusal};

/// A request target in its parts, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path as received, neither decoded nor normalised; `*` in asterisk-form.
    pub path: &'a str,
    /// The query as received, without its `?`. Nobody changes it on the road.
    pub query: Option<&'a str>,
    /// The authority that the target itself names: of an absolute-form, or HTTP/2's `:authority`.
    pub authority: Option<&'a str>,
    /// The scheme that the target itself names. On HTTP/2 this is `:scheme`, which says nothing about
    /// how the request really arrived.
    pub scheme: Option<Scheme>,
    /// Its form.
    pub form: Form,
}

/// The forms of RFC 9112 section 3.2 that are served. Authority-form belongs to CONNECT and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`; also every HTTP/2 target that is not `*`.
    Origin,
    /// `https://host/path?query`, over HTTP/1.
    Absolute,
    /// `*`, for OPTIONS only.
    Asterisk,
}

/// The only schemes that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The port that the scheme stands for where none is written (RFC 9110 section 4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Reads the target. Refuses what the method may not use, authority-form, and foreign schemes.
pub fn read<'a>(head: &Head<'a>) -> Result<Target<'a>, Refusal> {
    let RawTarget { scheme: written, authority, path, query } = head.target();
    let Some(path) = path else {
        return Err(bad(format!("authority-form with {}", head.method())));
    };
    [path, query.unwrap_or_default()].into_iter().try_for_each(check_bytes)?;
    let scheme = written.map(scheme).transpose()?;
    let absolute = scheme.is_some() && head.version() != Version::HTTP_2;
    // `http://a.test` names the root (RFC 9110 section 4.2.3).
    let path = if absolute && path.is_empty() { "/" } else { path };
    let form = form(head.method(), absolute, path, query)?;
    Ok(Target { path, query, authority, scheme, form })
}

fn form(method: &Method, absolute: bool, path: &str, query: Option<&str>) -> Result<Form, Refusal> {
    match path.as_bytes().first() {
        _ if absolute => Ok(Form::Absolute),
        Some(b'*') if path.len() == 1 && query.is_none() && *method == Method::OPTIONS => Ok(Form::Asterisk),
        Some(b'*') => Err(bad(format!("`*` with {method}"))),
        Some(b'/') => Ok(Form::Origin),
        _ => Err(bad(format!("the target is `{}`", excerpt(path.as_bytes())))),
    }
}

fn scheme(written: &str) -> Result<Scheme, Refusal> {
    match written {
        s if s.eq_ignore_ascii_case("https") => Ok(Scheme::Https),
        s if s.eq_ignore_ascii_case("http") => Ok(Scheme::Http),
        s => Err(bad(format!("the scheme is `{}`", excerpt(s.as_bytes())))),
    }
}

/// Neither can be there, since the parser in front refuses or cuts them; one pass makes sure that a change
/// there never becomes a request line of the client's making here.
fn check_bytes(part: &str) -> Result<(), Refusal> {
    let bad_byte = part.bytes().find(|b| *b <= b' ' || *b == 0x7f || *b == b'#');
    bad_byte.map_or(Ok(()), |byte| Err(bad(format!("byte 0x{byte:02x} in the target"))))
}

fn bad(detail: String) -> Refusal {
    Refusal::new(Reason::BadTarget, detail)
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use serde::Deserialize;

    use super::*;
    use crate::guard::testing;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Corpus {
        served: Vec<Served>,
        refused: Vec<Refused>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Served {
        method: String,
        target: String,
        #[serde(default)]
        http2: bool,
        form: String,
        path: String,
        query: Option<String>,
        authority: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Refused {
        method: String,
        target: String,
        #[serde(default)]
        http2: bool,
        because: String,
    }

    fn version(http2: bool) -> Version {
        if http2 { Version::HTTP_2 } else { Version::HTTP_11 }
    }

    #[test]
    fn the_corpus_of_targets() {
        let corpus: Corpus = serde_norway::from_str(include_str!("../../tests/corpus/targets.yaml")).unwrap();
        for case in corpus.served {
            let parts = testing::head(&case.method, &case.target, version(case.http2), &[]);
            let target = read(&Head::new(&parts)).unwrap();
            assert_eq!(format!("{:?}", target.form).to_lowercase(), case.form, "{}", case.target);
            assert_eq!(target.path, case.path, "{}", case.target);
            assert_eq!(target.query, case.query.as_deref(), "{}", case.target);
            assert_eq!(target.authority, case.authority.as_deref(), "{}", case.target);
        }
        for case in corpus.refused {
            // What the parser in front refuses by itself never reaches the guard.
            if case.target.parse::<Uri>().is_err() {
                assert_eq!(case.because, "not a uri", "{}", case.target);
                continue;
            }
            let parts = testing::head(&case.method, &case.target, version(case.http2), &[]);
            let refusal = read(&Head::new(&parts)).unwrap_err();
            assert_eq!(refusal.reason, Reason::BadTarget, "{}", case.target);
            assert!(refusal.detail.contains(&case.because), "{}: {}", case.target, refusal.detail);
        }
    }

    #[test]
    fn an_http2_path_that_is_no_path_is_refused() {
        let mut parts = testing::head("GET", "/", Version::HTTP_2, &[]);
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some("?x=1".parse().unwrap());
        parts.uri = Uri::from_parts(uri).unwrap();
        assert_eq!(read(&Head::new(&parts)).unwrap_err().reason, Reason::BadTarget);
    }
}
