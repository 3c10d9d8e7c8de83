//! What each step of the road costs, in nanoseconds: medians over batches, nothing asserted.
//!
//! Inputs are what a TYPO3 site sees: an ordinary page view by an ordinary browser.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Version};
use ravelin::clock;
use ravelin::config::complaint::{Complaints, Place, Source};
use ravelin::config::section::Placed;
use ravelin::guard::host::{HostPattern, HostTable};
use ravelin::guard::{framing, host, path, target};
use ravelin::head::Head;

/// A batch takes at least this long, so that reading the clock does not count.
const BATCH: Duration = Duration::from_millis(2);
/// So many batches, of which the median is printed.
const BATCHES: usize = 41;
/// How many prepared inputs a batch of a step that changes its input works through.
const PREPARED: usize = 512;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    println!("| step | ns (median) | ns (best) |\n| - | - | - |");
    framing_and_target()?;
    hosts()?;
    paths();
    Ok(())
}

/// A page view: what Chromium sends, with a TYPO3 session and a consent cookie.
fn page_view() -> Result<Parts, http::Error> {
    let request = Request::get("/produkte/werkzeug/detail?tx_shop_pi1%5Bid%5D=42&cHash=0a1b2c3d4e5f")
        .version(Version::HTTP_11)
        .header("host", "www.example.org")
        .header("connection", "keep-alive")
        .header("sec-ch-ua", "\"Chromium\";v=\"142\", \"Not A(Brand\";v=\"24\"")
        .header("sec-ch-ua-mobile", "?0")
        .header("sec-ch-ua-platform", "\"Linux\"")
        .header("upgrade-insecure-requests", "1")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36")
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8")
        .header("sec-fetch-site", "same-origin")
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document")
        .header("referer", "https://www.example.org/produkte/werkzeug")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("accept-language", "de-DE,de;q=0.9,en;q=0.8")
        .header("cookie", "fe_typo_user=4f1c0a9d8b7e6f5a4b3c2d1e0f9a8b7c; cookie_consent=necessary%2Cstatistics")
        .body(())?;
    Ok(request.into_parts().0)
}

fn framing_and_target() -> Outcome {
    let parts = page_view()?;
    let head = Head::new(&parts);
    let policy = framing::Policy::default();
    time("framing: check a page view", || framing::check(&policy, &head).is_ok());
    time("target: read", || target::read(&head).is_ok());
    let target = target::read(&head).map_err(|refusal| refusal.detail)?;
    time("host: the one authority", || host::authority(&head, &target).is_ok());
    Ok(())
}

/// From a host to its site must cost the same whether there are one or ten thousand.
fn hosts() -> Outcome {
    for sites in [1, 100, 10_000] {
        let table = table(sites)?;
        let last = format!("www.site-{}.example.org", sites - 1);
        time(&format!("host: look up, {sites} sites"), || table.get(black_box(&last)).is_some());
        time(&format!("host: wildcard, {sites} sites"), || table.get(black_box("a.b.example.com")).is_some());
    }
    Ok(())
}

fn table(sites: usize) -> Result<HostTable<usize>, Box<dyn Error>> {
    let source = Arc::new(Source { name: "bench".to_owned(), text: String::new() });
    let placed = |value| Placed { value, place: Place { source: Arc::clone(&source), span: 0..0 } };
    let mut entries = vec![(placed(HostPattern::Below("example.com".into())), 0)];
    for site in 0..sites {
        entries.push((placed(HostPattern::Exact(format!("www.site-{site}.example.org").into())), site));
    }
    let mut complaints = Complaints::default();
    let table = HostTable::compile(entries, &mut complaints);
    if complaints.has_errors() { Err("the table does not compile".into()) } else { Ok(table) }
}

fn paths() {
    for (name, raw) in [
        ("ordinary", "/produkte/werkzeug/detail"),
        ("long asset", "/fileadmin/_processed_/a/b/csm_titelbild-der-startseite_0a1b2c3d4e.webp"),
        ("encoded", "/fileadmin/Gesch%c3%a4ftsbericht%202026.pdf"),
        ("dots to resolve", "/typo3temp/./assets/../assets/css/site.css"),
        ("refused", "/fileadmin/%2e%2e%2ftypo3conf/system/settings.php"),
    ] {
        time(&format!("path: normalise, {name}"), || path::normalise(black_box(raw)).is_ok());
    }
}

/// Times a step that leaves its input as it is.
fn time<R>(name: &str, mut step: impl FnMut() -> R) {
    let mut calls = 16_u32;
    while batch(calls, &mut step) < BATCH && calls < 1 << 24 {
        calls *= 2;
    }
    report(name, (0..BATCHES).map(|_| batch(calls, &mut step).as_secs_f64() * 1e9 / f64::from(calls)).collect());
}

fn batch<R>(calls: u32, step: &mut impl FnMut() -> R) -> Duration {
    let begin = clock::now();
    for _ in 0..calls {
        black_box(step());
    }
    begin.elapsed()
}

fn report(name: &str, mut each: Vec<f64>) {
    each.sort_by(f64::total_cmp);
    let of = |at: usize| each.get(at).copied().unwrap_or(f64::NAN);
    println!("| {name} | {:.1} | {:.1} |", of(each.len() / 2), of(0));
}
