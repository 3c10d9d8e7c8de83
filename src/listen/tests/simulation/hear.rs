//! Reads what a server said, on its own terms: nothing of the product takes part.

/// One answer, perhaps cut.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) mark: String,
    pub(super) body: Vec<u8>,
    pub(super) is_whole: bool,
    pub(super) closes: bool,
    pub(super) says_keep: bool,
    /// How often `100 Continue` came before it.
    pub(super) interims: usize,
}

/// All that was said.
#[derive(Debug, Default)]
pub(super) struct Speech {
    pub(super) answers: Vec<Heard>,
    /// Whether a head was begun behind the last answer.
    pub(super) has_tail: bool,
    /// Interim answers behind the last answer.
    pub(super) interims: usize,
}

/// Reads `bytes`; `is_head` says of the nth answer that it answers HEAD, `ended` that nothing more comes.
pub(super) fn hear(mut bytes: &[u8], is_head: impl Fn(usize) -> bool, ended: bool) -> Result<Speech, String> {
    let mut speech = Speech::default();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let (head, rest) = bytes.split_at(end + 4);
        let head = std::str::from_utf8(head).map_err(|_| format!("no text: {head:?}"))?;
        if head == "HTTP/1.1 100 Continue\r\n\r\n" {
            speech.interims += 1;
            bytes = rest;
            continue;
        }
        let mut heard = Heard { interims: std::mem::take(&mut speech.interims), ..Heard::default() };
        let (length, chunked) = read_head(head, &mut heard)?;
        let bodiless = is_head(speech.answers.len()) || matches!(heard.status, 204 | 304);
        bytes = match (bodiless, length, chunked) {
            // Of a head that was refused, the server need not have read that it was HEAD.
            (true, Some(length), false) if heard.closes && rest.len() == length => {
                heard.is_whole = true;
                heard.body = rest.to_vec();
                &[]
            }
            (true, ..) => {
                heard.is_whole = true;
                rest
            }
            (_, Some(_), true) => return Err(format!("two lengths: {head}")),
            (_, Some(length), _) => {
                let (body, rest) = rest.split_at(length.min(rest.len()));
                heard.is_whole = body.len() == length;
                heard.body = body.to_vec();
                rest
            }
            (_, None, true) => read_chunks(rest, &mut heard)?,
            (_, None, false) => {
                heard.is_whole = ended;
                heard.body = rest.to_vec();
                if !heard.closes {
                    return Err(format!("no length, and the connection is kept: {head}"));
                }
                &[]
            }
        };
        let is_whole = heard.is_whole;
        speech.answers.push(heard);
        if !is_whole {
            return Ok(speech);
        }
    }
    speech.has_tail = !bytes.is_empty();
    let start = b"HTTP/1.1 ";
    let common = bytes.len().min(start.len());
    if bytes[..common] != start[..common] {
        return Err(format!("no answer begins like this: {:?}", String::from_utf8_lossy(bytes)));
    }
    Ok(speech)
}

fn read_head(head: &str, heard: &mut Heard) -> Result<(Option<usize>, bool), String> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3));
    heard.status = status.and_then(|s| s.parse().ok()).ok_or_else(|| format!("no status line: {head}"))?;
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("no field: {line:?} in {head}"))?;
        match (name, value) {
            ("content-length", value) if length.is_none() => {
                length = Some(value.parse::<usize>().map_err(|_| format!("no length: {head}"))?);
            }
            ("transfer-encoding", "chunked") if !chunked => chunked = true,
            ("connection", "close") => heard.closes = true,
            ("connection", "keep-alive") => heard.says_keep = true,
            ("x-mark", mark) if heard.mark.is_empty() => mark.clone_into(&mut heard.mark),
            ("date", _) => {}
            _ => return Err(format!("not sent by anybody: {line:?} in {head}")),
        }
    }
    Ok((length, chunked))
}

fn read_chunks<'b>(mut bytes: &'b [u8], heard: &mut Heard) -> Result<&'b [u8], String> {
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(&[]) };
        let size =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("no chunk size: {:?}", &bytes[..end]))?;
        let data = &bytes[end + 2..];
        heard.body.extend_from_slice(&data[..size.min(data.len())]);
        let Some(behind) = data.get(size..).filter(|behind| behind.len() >= 2) else { return Ok(&[]) };
        if &behind[..2] != b"\r\n" {
            return Err(format!("a chunk of {size} bytes does not end where it should"));
        }
        bytes = &behind[2..];
        if size == 0 {
            heard.is_whole = true;
            return Ok(bytes);
        }
    }
}
