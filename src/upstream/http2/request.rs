//! A request head for HTTP/2, read back from the one that was written for HTTP/1.
//!
//! Which fields go on is decided in one place, [`rewrite`](crate::upstream::rewrite); here they only change their form.

use http::header::{AUTHORIZATION, COOKIE, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::refusal::Reason;
use crate::upstream::error::{Kind, UpstreamError};

/// The request that `head` says, with `body` behind it; `secure` is how the origin is reached.
pub(super) fn read_back<B>(head: &[u8], secure: bool, body: B) -> Result<Request<B>, UpstreamError> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let method = Method::from_bytes(words.next().unwrap_or_default()).map_err(|_| bad(Reason::BadTarget))?;
    let target =
        PathAndQuery::try_from(words.next().unwrap_or_default()).map_err(|_| bad(Reason::BadTarget))?;
    let mut request = Request::new(body);
    let mut authority = None;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, [_, value @ ..]) = line
            .split_at_checked(line.iter().position(|byte| *byte == b':').unwrap_or_default())
            .unwrap_or_default()
        else {
            return Err(bad(Reason::BadHeader));
        };
        let name = HeaderName::from_bytes(name).map_err(|_| bad(Reason::BadHeader))?;
        let mut value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| bad(Reason::BadHeader))?;
        if name == HOST {
            authority = Some(value).filter(|value| !value.is_empty());
        } else if name != TRANSFER_ENCODING {
            // Never put into a table that other clients' requests share (RFC 7541 section 7.1.3).
            value.set_sensitive(name == COOKIE || name == AUTHORIZATION);
            request.headers_mut().append(name, value);
        }
    }
    *request.method_mut() = method;
    (*request.uri_mut(), *request.version_mut()) = match authority {
        Some(authority) => {
            let authority = Authority::try_from(authority.as_bytes()).map_err(|_| bad(Reason::BadHost))?;
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(authority);
            parts.path_and_query = Some(target);
            (Uri::from_parts(parts).map_err(|_| bad(Reason::BadTarget))?, Version::HTTP_2)
        }
        // HTTP/1.0 needs no host, and then there is none to be told.
        None => (Uri::from(target), Version::HTTP_11),
    };
    Ok(request)
}

fn bad(reason: Reason) -> UpstreamError {
    UpstreamError::new(Kind::ClientRefused(reason), "the request cannot be said in HTTP/2")
}
