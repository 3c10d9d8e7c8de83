//! The judge of what reached an origin: bytes are requests by the strictest reading of RFC 9112, or dirty.

/// One request that reached an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The target as written.
    pub(crate) target: String,
    /// Field lines in order, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body, decoded.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Every value of `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }
}

/// Reads all of `bytes` as requests, one after the other; the first thing that is not clean otherwise.
pub(crate) fn requests(mut bytes: &[u8]) -> Result<Vec<Request>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (request, rest) = request(bytes)?;
        all.push(request);
        bytes = rest;
    }
    Ok(all)
}

fn request(bytes: &[u8]) -> Result<(Request, &[u8]), String> {
    let (line, mut rest) = line(bytes)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words.as_slice() else {
        return Err(format!("the request line {line:?}"));
    };
    if !is_token(method) || target.is_empty() || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("the request line {line:?}"));
    }
    let mut fields = Vec::new();
    loop {
        let (line, after) = self::line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("the field line {line:?}"))?;
        if !is_token(name) {
            return Err(format!("the field name in {line:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let mut request =
        Request { method: (*method).to_owned(), target: (*target).to_owned(), fields, body: Vec::new() };
    let rest = body(&mut request, rest)?;
    Ok((request, rest))
}

fn body<'b>(request: &mut Request, rest: &'b [u8]) -> Result<&'b [u8], String> {
    if request.all("host").len() != 1 {
        return Err(format!("Host {:?}", request.all("host")));
    }
    match (request.all("content-length").as_slice(), request.all("transfer-encoding").as_slice()) {
        ([], []) => Ok(rest),
        ([length], []) => {
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length: usize = digits
                .then(|| length.parse().ok())
                .flatten()
                .ok_or_else(|| format!("Content-Length {length:?}"))?;
            let (body, rest) = rest.split_at_checked(length).ok_or("a body shorter than its length")?;
            request.body = body.to_vec();
            Ok(rest)
        }
        ([], ["chunked"]) => chunked(request, rest),
        (lengths, codings) => Err(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}

fn chunked<'b>(request: &mut Request, mut rest: &'b [u8]) -> Result<&'b [u8], String> {
    loop {
        let (size, after) = line(rest)?;
        let hex = !size.is_empty() && size.len() <= 15 && size.bytes().all(|b| b.is_ascii_hexdigit());
        let length = hex.then(|| usize::from_str_radix(&size, 16).ok()).flatten();
        let length = length.ok_or_else(|| format!("the chunk size {size:?}"))?;
        let (data, after) = after.split_at_checked(length).ok_or("a chunk shorter than its size")?;
        request.body.extend(data);
        let (end, after) = line(after)?;
        if !end.is_empty() {
            return Err(format!("a chunk or the trailers go on with {end:?}"));
        }
        rest = after;
        if length == 0 {
            return Ok(rest);
        }
    }
}

/// One line without its CR LF; no control byte may be in it.
fn line(bytes: &[u8]) -> Result<(String, &[u8]), String> {
    let end = bytes.windows(2).position(|window| window == b"\r\n");
    let end = end.ok_or_else(|| format!("no line in {:?}", String::from_utf8_lossy(bytes)))?;
    let (line, rest) = bytes.split_at(end);
    let text = String::from_utf8_lossy(line).into_owned();
    if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err(format!("a control byte in {text:?}"));
    }
    Ok((text, rest.get(2..).unwrap_or_default()))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::requests;

    #[test]
    fn clean_bytes_are_requests() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let all = requests(bytes).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].body, b"ok");
    }

    #[test]
    fn dirty_bytes_are_named() {
        for (dirty, why) in [
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\r\n\r\n", "Host"),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", "control byte"),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "field name"),
            ("GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n", "field"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "with",
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n", "x, chunked"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", "+1"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", "trailers"),
        ] {
            let fault = requests(dirty.as_bytes()).unwrap_err();
            assert!(fault.contains(why), "{dirty:?}: {fault}");
        }
    }
}
