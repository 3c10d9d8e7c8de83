//! Says what AWS's desync guardian thinks of HTTP/1 requests.
//!
//! Standard input: requests, each as its length in four bytes (big-endian) and then its bytes. Standard output:
//! for each, one line `TIER<tab>REASON<tab>MESSAGE`, in order.

use std::io::{self, BufWriter, Read, Write};

use http_desync_guardian::request_analyzer::HttpRequestData;

fn main() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut rest = input.as_slice();
    while !rest.is_empty() {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "a request is cut short");
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (request, after) = after.split_at_checked(length).ok_or_else(cut)?;
        let verdict = HttpRequestData::analyze_raw_request(request);
        let message = verdict.message.unwrap_or_default().replace(['\n', '\r', '\t'], " ");
        writeln!(out, "{:?}\t{:?}\t{message}", verdict.tier, verdict.reason)?;
        rest = after;
    }
    out.flush()
}
