//! The judge from outside: AWS's desync guardian, a separate crate (`tests/guardian`) because of what it depends on.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::outside;

/// What the guardian says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `Compliant`, `Acceptable`, `Ambiguous` or `Severe`.
    pub(crate) tier: String,
    /// Why.
    pub(crate) reason: String,
}

/// Judges requests, head and body or head alone, in order.
#[track_caller]
pub(crate) fn judge(requests: &[Vec<u8>]) -> Vec<Verdict> {
    if requests.is_empty() {
        return Vec::new();
    }
    let mut judge = Command::new(outside::judge())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the judge starts");
    let mut input = Vec::new();
    for request in requests {
        // The guardian reads lines up to the empty one; a body is not its business.
        let head =
            request.windows(4).position(|window| window == b"\r\n\r\n").map_or(request.len(), |at| at + 4);
        let head = request.get(..head).unwrap_or_default();
        input.extend(u32::try_from(head.len()).expect("a head is short").to_be_bytes());
        input.extend(head);
    }
    let mut pipe = judge.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = judge.wait_with_output().expect("the judge ends");
    writer.join().expect("the writer ends").expect("the judge reads");
    let text = String::from_utf8(output.stdout).expect("the judge writes text");
    let verdicts: Vec<Verdict> = text.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), requests.len(), "one verdict for each request: {text}");
    verdicts
}

fn verdict(line: &str) -> Verdict {
    let mut words = line.split('\t').map(str::to_owned);
    Verdict { tier: words.next().unwrap_or_default(), reason: words.next().unwrap_or_default() }
}

#[test]
fn the_judge_knows_good_from_bad() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "Compliant"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "Compliant"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Ambiguous",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "Severe"),
    ];
    let requests: Vec<Vec<u8>> = cases.iter().map(|(request, _)| request.as_bytes().to_vec()).collect();
    let tiers: Vec<String> = judge(&requests).into_iter().map(|verdict| verdict.tier).collect();
    assert_eq!(tiers, cases.map(|(_, tier)| tier.to_owned()));
}
