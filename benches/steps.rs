//! What each step of the road costs, in nanoseconds: medians over batches, nothing asserted.
//!
//! Inputs are what a TYPO3 site sees: an ordinary page view by an ordinary browser. With a word behind `--`
//! only rows whose name holds it are run: `cargo bench --bench steps -- harden`.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode, Version};
use ipnet::IpNet;
use ravelin::bans::rate::{Gcra, Spell};
use ravelin::bans::{self, Ban, Bounds, Culprit, Jail, Ledger, Memory, Meters, Subject, Who};
use ravelin::client::Peer;
use ravelin::client::cidr::NetSet;
use ravelin::client::key::{Key, Prefix};
use ravelin::clock::{self, Millis};
use ravelin::config::complaint::{Complaints, Place, Source};
use ravelin::config::load_text;
use ravelin::config::section::{FromText, Placed, Reading, Section};
use ravelin::fields::Fields;
use ravelin::gate::Witness;
use ravelin::guard::headers::UnderscoreHeaders;
use ravelin::guard::host::{HostPattern, HostTable};
use ravelin::guard::{access, deny, framing, host, overrides, path, target};
use ravelin::harden::{self, OriginAuthority};
use ravelin::head::Head;
use ravelin::http1::framing::RequestFraming;
use ravelin::http1::grade::Mode;
use ravelin::http1::request::{Decoder, Limits};
use ravelin::http1::{chunked, response};
use ravelin::observe::{Arrival, Observe, Origin, Seen, SiteId, Tls, settings};
use ravelin::pipeline::{self, Found};
use ravelin::refusal::Refusal;
use ravelin::site::{Area, Site};
use ravelin::upstream::rewrite::{self, Onward};
use toml::de::DeTable;

/// A batch takes at least this long, so that reading the clock does not count.
const BATCH: Duration = Duration::from_millis(2);
/// So many batches, of which the median is printed.
const BATCHES: usize = 41;
/// How many prepared inputs a batch of a step that changes its input works through. So few that their log lines
/// stay below what the writer's thread is woken for.
const PREPARED: u16 = 64;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    println!("| step | ns (median) | ns (best) |\n| - | - | - |");
    decoding()?;
    framing_and_target()?;
    hosts()?;
    lockout();
    paths();
    closed()?;
    road()?;
    networks()?;
    access()?;
    rewriting()?;
    answering();
    hardening()?;
    many_rules()?;
    recording()?;
    copying();
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

/// The page view as it comes over the wire; the copy of its bytes into the buffer is counted too.
fn decoding() -> Outcome {
    let parts = page_view()?;
    let mut page = format!("{} {} HTTP/1.1\r\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        page.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    page.extend_from_slice(b"\r\n");
    let limits = Limits { request_line: 16 << 10, fields: 100, fields_size: 64 << 10 };
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(4096));
    time("http1: decode a page view", || {
        buffer.extend_from_slice(black_box(&page));
        let Ok(Some(head)) = decoder.decode(&mut buffer, &limits, Mode::Strictest) else { return false };
        let decoded = black_box(&head).len() == parts.headers.len();
        buffer = decoder.reclaim(head);
        decoded
    });
    buffer.extend_from_slice(&page);
    let head = decoder.decode(&mut buffer, &limits, Mode::Strictest).map_err(|broken| broken.to_string())?;
    let head = head.ok_or("the page view is not complete")?;
    time("http1: look up a field that is absent", || head.get(black_box("x-forwarded-for")).is_some());
    time("http1: look up the last of 15 fields", || head.get(black_box("cookie")).is_some());
    Ok(())
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

/// The client with this number.
fn client(number: u32) -> Key {
    Key::new(IpAddr::V4(Ipv4Addr::from_bits(number)), Prefix::default())
}

/// Whether a client is banned must cost the same whether ten are or a million.
fn lockout() {
    let (site, jail, now) = (bans::SiteId::of("www.example.org"), Jail::default(), Millis(1_000_000));
    let policy = bans::Policy::default();
    let meters = Meters::new(clock::now());
    for count in [0_u32, 10, 10_000, 1_000_000] {
        if !is_wanted("bans:") {
            break;
        }
        let ledger = Ledger::new(Bounds { bans: 2_000_000, failures: 2_000_000, known: 64 });
        let before = resident();
        for number in 0..count {
            let ban = Ban {
                subject: Subject::Client(client(number << 3)),
                site: Some(site),
                jail: Arc::clone(&jail.name),
                since: now,
                until: now.plus(Duration::from_hours(1)),
                level: 0,
                failures: 4,
                action: jail.action,
                why: Arc::clone(&jail.place),
            };
            ledger.apply(bans::Change::Banned(ban), now);
        }
        if count >= 10_000 {
            let each = resident().saturating_sub(before) / u64::from(count);
            println!("| bans: bytes for one ban and its level, {count} banned | {each} | – |");
        }
        let memory = Memory { ledger: &ledger, meters: &meters, now, instant: clock::now() };
        let mut number = 0_u32;
        let mut ask = |banned: u32| {
            let among = if banned == 1 { count } else { count.max(1_000) };
            number = number.wrapping_add(7_919) % among.max(1);
            let client = client((number << 3) + (1 - banned));
            let who = Who { addr: client.addr(), client, site };
            bans::check(&policy, &memory, &who).is_some()
        };
        time(&format!("bans: check a client that is not, {count} banned"), || ask(0));
        if count > 0 {
            time(&format!("bans: check one that is, with its refusal, {count} banned"), || ask(1));
        }
        if count > 0 {
            let at_work = client(0);
            ledger.logged_in(at_work, site, now);
            let who = Who { addr: at_work.addr(), client: at_work, site };
            time(&format!("bans: check one that is and is spared, {count} banned"), || {
                bans::check(&policy, &memory, black_box(&who)).is_none()
            });
        }
        let addr = IpAddr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, 1]);
        time(&format!("bans: check an IPv6 network that is not, {count} banned"), || {
            bans::check_network(&policy, &ledger, black_box(addr), site, now).is_none()
        });
        let mut number = 0_u32;
        let jail = Jail { max_retry: 1_000, find_time: Duration::from_millis(1), ..Jail::default() };
        time(&format!("bans: count a failure, {count} banned"), || {
            number = number.wrapping_add(7_919) % 100_000;
            let who = Culprit { client: client((number << 3) + 1), site, user: None, ignored: false };
            ledger.strike(&jail, &who, now).is_none()
        });
    }
    let Ok(spell) = Spell::from_text("10/s") else { return };
    let gcra = Gcra::new(spell, 20);
    for count in [1_u32, 10_000, 1_000_000] {
        let mut number = 0_u32;
        time(&format!("rates: ask of one limit, {count} clients"), || {
            number = number.wrapping_add(7_919) % count;
            meters.ask(&gcra, (1_u64, site, client(number)), clock::now()).is_none()
        });
    }
    let epoch = clock::now();
    time("rates: the same without reading the clock", || {
        meters.ask(&gcra, (1_u64, site, client(7)), epoch).is_none()
    });
}

/// Bytes of this process that are in memory; 0 where the system does not say.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
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

/// All that is decided about a request before the origin is asked, with the preset and its limits, while somebody else
/// is banned.
fn road() -> Outcome {
    struct Nobody;
    impl Witness for Nobody {
        fn would_block(&mut self, _: &Refusal) {}
    }
    let text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\nplain = \"serve\"\n[client]\ntrusted_proxies = []\n[[site]]\n\
                hosts = [\"www.example.org\"]\nupstream = \"http://127.0.0.1:1\"\npreset = \"typo3\"\n";
    let loaded = load_text("bench", text.to_owned(), PathBuf::new());
    let generation = loaded.generation.ok_or_else(|| loaded.complaints.to_string())?;
    let (ledger, meters) = (Ledger::new(Bounds::default()), Meters::new(clock::now()));
    let site = generation.sites.first().ok_or("there is no site")?.id;
    let stranger = Key::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), Prefix::default());
    let culprit = Culprit { client: stranger, site, user: None, ignored: false };
    for _ in 0..4 {
        let _ = ledger.strike(generation.bans.login(), &culprit, clock::millis());
    }
    let local = SocketAddr::from(([127, 0, 0, 1], 80));
    let peer = Peer { addr: SocketAddr::from(([203, 0, 113, 7], 50_000)), local, tls: None, listener: 0 };
    let parts = page_view()?;
    time("road: everything that is decided about a page view", || {
        let memory = Memory { ledger: &ledger, meters: &meters, now: clock::millis(), instant: clock::now() };
        let mut found = Found::nothing(&generation, &peer);
        pipeline::decide(&generation, &memory, &peer, Head::new(&parts), &mut found, &mut Nobody).is_ok()
    });
    Ok(())
}

/// The preset's closed paths, and the queries that are looked into for the Install Tool and for logins.
fn closed() -> Outcome {
    let text = "[[listen]]\nurl = \"http://127.0.0.1:0\"\n[[site]]\nhosts = [\"a.test\"]\n\
                upstream = \"http://127.0.0.1:1\"\npreset = \"typo3\"\n";
    let loaded = load_text("bench", text.to_owned(), PathBuf::new());
    let generation = loaded.generation.ok_or_else(|| loaded.complaints.to_string())?;
    let root = generation.sites.first().and_then(Site::root).ok_or("there is no site")?;
    for (name, path) in [
        ("root", "/"),
        ("ordinary", "/produkte/werkzeug/detail"),
        ("long asset", "/fileadmin/_processed_/a/b/csm_titelbild-der-startseite_0a1b2c3d4e.webp"),
        ("index.php", "/index.php"),
        ("encoded", "/fileadmin/Gesch%C3%A4ftsbericht%202026.pdf"),
        ("classic asset", "/typo3/sysext/felogin/Resources/Public/Icons/Extension.svg"),
    ] {
        time(&format!("closed: open path, {name}"), || {
            deny::check(&root.rules.deny, black_box(path)).is_ok()
        });
    }
    time("closed: a closed path", || {
        deny::check(&root.rules.deny, black_box("/vendor/autoload.php")).is_err()
    });
    let long = format!("/{}", "flexform".repeat(2_000));
    time("closed: 16 KiB that hold a word everywhere", || {
        deny::check(&root.rules.deny, black_box(&long)).is_ok()
    });
    let tool = &generation.install_tool;
    for (name, query) in [
        ("none", None),
        ("ordinary", Some("tx_shop_pi1%5Bid%5D=42&cHash=0a1b2c3d4e5f")),
        (
            "backend",
            Some(
                "token=0123456789abcdef0123456789abcdef01234567&id=12&edit%5Bpages%5D%5B12%5D=edit&returnUrl=%2Ftypo3%2Fmodule%2Fweb%2Flayout",
            ),
        ),
    ] {
        time(&format!("install tool: not asked for, query {name}"), || {
            !tool.is_asked(black_box("/produkte"), black_box(query))
        });
    }
    Ok(())
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

/// An address among networks must cost about the same whether there are ten or a million.
fn networks() -> Outcome {
    for count in [10_u32, 10_000, 100_000, 1_000_000] {
        // Networks of 16 addresses with gaps between them: nothing merges.
        let set: NetSet = (0..count)
            .map(|at| IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + at * 32)), 28))
            .collect::<Result<_, _>>()?;
        let v6: NetSet = (0..u128::from(count))
            .map(|at| IpNet::new(IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (at << 65))), 64))
            .collect::<Result<_, _>>()?;
        let mut at = 0_u32;
        let mut next = move || {
            // A different one each time, so that no cache line is always warm.
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            at % count
        };
        time(&format!("networks: look up IPv4, {count} networks"), || {
            set.contains(black_box(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0007 + next() * 32))))
        });
        time(&format!("networks: look up IPv6, {count} networks"), || {
            v6.contains(black_box(IpAddr::V6(Ipv6Addr::from_bits(
                (0x2001_0db8 << 96) + (u128::from(next()) << 65) + 7,
            ))))
        });
    }
    Ok(())
}

/// `[[site.access]]`: what a request pays that no line is about, and one that two lines are about.
fn access() -> Outcome {
    let lines = "[[site.access]]\narea = \"backend\"\nallow = [\"203.0.113.0/24\"]\nexcept = [\"/typo3/reaction\"]\n\
                 [[site.access]]\narea = \"backend\"\nallow = [\"198.51.100.0/24\"]\nhours = \"00:00-24:00\"\n\
                 time_zone = \"Europe/Berlin\"\n[[site.access]]\npath = \"/intern\"\nallow = [\"vpc\"]\n";
    let text = format!(
        "[[listen]]\nurl = \"http://127.0.0.1:0\"\nplain = \"serve\"\n[[site]]\nhosts = [\"a.test\"]\n\
         upstream = \"http://127.0.0.1:1\"\npreset = \"typo3\"\n{lines}"
    );
    let loaded = load_text("bench.toml", text, PathBuf::new());
    let generation = loaded.generation.ok_or_else(|| loaded.complaints.to_string())?;
    let policy = &generation.sites.first().ok_or("a site")?.access;
    let (office, agency) = (IpAddr::from([203, 0, 113, 9]), IpAddr::from([198, 51, 100, 9]));
    let now = clock::wall();
    for (name, path, area, client) in [
        ("no line is about it", "/produkte/werkzeug/detail", Area::Frontend, office),
        ("allowed by the first line", "/typo3/module/web/layout", Area::Backend, office),
        ("allowed in opening hours", "/typo3/module/web/layout", Area::Backend, agency),
    ] {
        time(&format!("access: {name}"), || {
            access::check(policy, black_box(path), area, client, now).is_ok()
        });
    }
    Ok(())
}

fn rewriting() -> Outcome {
    let parts = page_view()?;
    let head = Head::new(&parts);
    let onward = Onward {
        chain: &ravelin::client::chain::Chain::Client,
        amzn_trace: b"",
        uncoded: false,
        reserved: None,
        path: "/produkte/werkzeug/detail",
        query: Some("tx_shop_pi1%5Bid%5D=42&cHash=0a1b2c3d4e5f"),
        host: "www.example.org",
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
        secure: true,
        port: 443,
        request_id: b"0jv1m2c3a8q4w9x7",
        traceparent: b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate: false,
        websocket: false,
        underscores: UnderscoreHeaders::default(),
        overrides: overrides::Policy::default(),
        trusted: false,
        certificate: &[],
        framing: RequestFraming::None,
    };
    time("rewrite: the head for the origin", || rewrite::head(&head, &onward).is_ok());
    Ok(())
}

/// What Apache answers, from the bytes of the wire to fields; and the coding of a chunked page.
fn answering() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nServer: Apache/2.4.62 (Debian)\r\n\
        X-Powered-By: PHP/8.3.14\r\nContent-Language: de\r\nContent-Type: text/html; charset=utf-8\r\n\
        Cache-Control: max-age=3600\r\nExpires: Sun, 22 Nov 2026 13:00:00 GMT\r\nETag: \"f2c5a8e1\"\r\n\
        Vary: Accept-Encoding\r\nKeep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive\r\n\
        Content-Length: 18231\r\n\r\n";
    let head = || vec![BytesMut::from(HEAD); PREPARED.into()];
    time_prepared("answer: decode a head of 12 fields", head, |input| {
        response::Decoder::default().decode(input, 128 * 1024).is_ok()
    });
    let mut page = BytesMut::new();
    for first in [true, false, false, false] {
        chunked::encode_size(first, 4096, &mut page);
        page.extend_from_slice(&[b'x'; 4096]);
    }
    chunked::encode_end(false, &mut page);
    let page = page.freeze();
    time("answer: decode 16 KiB in four chunks", || {
        let (mut decoder, mut input) = (chunked::Decoder::default(), page.clone());
        while let Ok(chunked::Piece::Data(data)) = decoder.decode(&mut input) {
            black_box(data);
        }
        decoder.is_end()
    });
}

/// Why blocks begin at an offset. A TLS record is copied to a few bytes behind its header; where both ends
/// lie at nearly the same place of a 4096-byte page, that copy is twenty times slower on some processors.
/// The first figure is what happens without the offset: if it ever is as good as the second one, the
/// offsets are not needed here.
fn copying() {
    const PAGE: usize = 4096;
    const RECORD: usize = 16 * 1024;
    let from = vec![1_u8; RECORD + 2 * PAGE];
    let mut to = vec![0_u8; RECORD + 2 * PAGE];
    let aligned = |address: usize| (PAGE - address % PAGE) % PAGE;
    let (source, target) = (aligned(from.as_ptr().addr()), aligned(to.as_ptr().addr()) + 5);
    for (name, lead) in [("page-aligned", 0), ("1024 bytes into the page", 1024)] {
        let (source, target) = (source + lead..source + lead + RECORD, target..target + RECORD);
        time(&format!("copy: a record, its source {name}"), || {
            if let (Some(from), Some(to)) = (from.get(source.clone()), to.get_mut(target.clone())) {
                black_box(to).copy_from_slice(black_box(from));
            }
        });
    }
}

/// The whole preset against what TYPO3 answers; the copying of the answer's fields is not counted.
fn hardening() -> Outcome {
    let authority = OriginAuthority { host: "127.0.0.1".into(), port: 8080 };
    let facts = harden::Facts {
        status: StatusCode::OK,
        secure: true,
        dev_host: false,
        host: "www.example.org",
        port: None,
        origin_authorities: &[authority],
    };
    for (level, policy) in [("safe", preset(false)?), ("strict", preset(true)?)] {
        for (name, answer) in [("page", page()?), ("page with cookies and debug headers", noisy_page()?)] {
            let prepare = || (0..PREPARED).map(|_| received(&answer)).collect();
            time_prepared(&format!("harden: {level}, {name}"), prepare, |fields: &mut Fields| {
                harden::apply(&policy, &facts, fields).conflicts.len()
            });
        }
    }
    let mut answer = page()?;
    harden::apply(&preset(false)?, &facts, &mut answer);
    let prepare = || vec![answer.clone(); PREPARED.into()];
    time_prepared("fields: the map of a hardened page, for HTTP/2", prepare, |fields: &mut Fields| {
        std::mem::take(fields).into_map()
    });
    Ok(())
}

/// What a table of rules costs when few of them have anything to do with an answer, and when all have.
fn many_rules() -> Outcome {
    let facts = harden::Facts {
        status: StatusCode::OK,
        secure: true,
        dev_host: false,
        host: "www.example.org",
        port: None,
        origin_authorities: &[],
    };
    for (kind, rule) in [
        ("names that are not sent", "= false"),
        ("another status", "= { set = \"1\", status = \"404\" }"),
        ("all add a line", "= \"1\""),
    ] {
        for count in [10, 1_000] {
            let rules = (0..count).map(|i| format!("X-Rule-{i} {rule}")).collect::<Vec<_>>().join("\n");
            let raw = layer("rules.toml", &format!("[headers]\n{rules}"))?;
            let policy = raw.compile(&mut Complaints::default());
            let answer = page()?;
            let prepare = || vec![answer.clone(); PREPARED.into()];
            time_prepared(&format!("harden: {count} rules, {kind}"), prepare, |fields| {
                harden::apply(&policy, &facts, fields).conflicts.len()
            });
        }
    }
    Ok(())
}

/// The fields with the room that the decoder of answers leaves.
fn received(answer: &Fields) -> Fields {
    let mut fields = Fields::with_capacity(answer.len() + 8);
    answer.iter().for_each(|(name, value)| fields.push(name.clone(), value.clone()));
    fields
}

fn preset(strict: bool) -> Result<harden::Policy, Box<dyn Error>> {
    let mut raw = layer("typo3.toml", include_str!("../config/presets/typo3.toml"))?;
    if strict {
        raw = raw.over(layer("typo3-strict.toml", include_str!("../config/presets/typo3-strict.toml"))?);
    }
    let mut complaints = Complaints::default();
    let policy = raw.compile(&mut complaints);
    if complaints.has_errors() { Err(complaints.to_string().into()) } else { Ok(policy) }
}

fn layer(name: &str, text: &str) -> Result<harden::Raw, Box<dyn Error>> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let document = DeTable::parse(&source.text)?;
    let mut reading = Reading { complaints: Complaints::default(), env: &|_| None, base: PathBuf::new() };
    let raw = harden::Raw::read(&mut Section::root(document.get_ref(), &source), &mut reading);
    if reading.complaints.has_errors() { Err(reading.complaints.to_string().into()) } else { Ok(raw) }
}

/// A cached page of a production site.
fn page() -> Result<Fields, Box<dyn Error>> {
    fields(&[
        ("date", "Sun, 22 Nov 2026 12:00:00 GMT"),
        ("server", "Apache/2.4.62 (Debian)"),
        ("x-powered-by", "PHP/8.3.14"),
        ("content-language", "de"),
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "max-age=3600"),
        ("expires", "Sun, 22 Nov 2026 13:00:00 GMT"),
        ("etag", "\"f2c5a8e1\""),
        ("vary", "Accept-Encoding"),
        ("content-encoding", "gzip"),
        ("content-length", "18231"),
    ])
}

/// The same with what a debugging site, an .htaccess and a login add.
fn noisy_page() -> Result<Fields, Box<dyn Error>> {
    let mut noisy = page()?;
    let more = fields(&[
        ("x-frame-options", "SAMEORIGIN"),
        ("x-frame-options", "SAMEORIGIN"),
        ("strict-transport-security", "max-age=300"),
        ("x-typo3-parsetime", "112ms"),
        ("x-typo3-debug-cache", "Cached page generated 22-11-26 11:58."),
        (
            "content-security-policy",
            "default-src 'self'; script-src 'self' 'nonce-Yk1tPq'; frame-ancestors 'self'",
        ),
        ("permissions-policy", "geolocation=(self)"),
        ("set-cookie", "fe_typo_user=4f1c0a9d8b7e6f5a4b3c2d1e0f9a8b7c; path=/; HttpOnly; SameSite=lax"),
        ("set-cookie", "shop=basket-42; path=/"),
    ])?;
    for (name, value) in more.iter() {
        noisy.push(name.clone(), value.clone());
    }
    Ok(noisy)
}

fn fields(lines: &[(&'static str, &'static str)]) -> Result<Fields, Box<dyn Error>> {
    let mut fields = Fields::with_capacity(lines.len() + 16);
    for (name, value) in lines {
        fields.push(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(fields)
}

/// From the arrival of a request to its line in the log's buffer; writing the buffer to the file is
/// another thread's work.
fn recording() -> Outcome {
    let parts = page_view()?;
    for (name, access) in [
        ("a JSON line", settings::Form::Json),
        ("a combined line", settings::Form::Combined),
        ("metrics only", settings::Form::Off),
    ] {
        let file = settings::Place::File("/dev/null".into());
        let policy = settings::Policy { access, file, ..settings::Policy::default() };
        let observe = Observe::open(&policy, 1, clock::wall())?;
        let (seen, site) = (observe.worker(0), observe.site("www.example.org"));
        let prepare = || {
            let _written = observe.flush();
            vec![(); PREPARED.into()]
        };
        time_prepared(&format!("observe: a record with {name}"), prepare, |()| record(&seen, site, &parts));
    }
    Ok(())
}

fn record(seen: &Seen, site: SiteId, parts: &Parts) {
    let head = Head::new(parts);
    let (now, wall) = (clock::now(), clock::wall());
    let peer = SocketAddr::from(([203, 0, 113, 7], 51324));
    let tls = Tls {
        version: "TLSv1.3",
        cipher: "TLS13_AES_128_GCM_SHA256",
        sni: Some("www.example.org"),
        client: None,
    };
    let arrival = Arrival { now, wall, peer, listener: 0, tls: Some(tls), generation: "4f1d2c3b5a69" };
    let mut record = seen.record(&arrival, &head);
    record.client(peer.ip(), false, &head);
    record.site(site, "www.example.org");
    record.area("frontend");
    let first_byte = Some(Duration::from_millis(12));
    record.origin(&Origin { member: "127.0.0.1:8080", connect: None, first_byte, reused: true, retries: 0 });
    record.answered(clock::now(), StatusCode::OK);
    record.sent(18_231);
    record.complete();
}

/// Whether a row was asked for: by a word on the command line, or because there is none.
fn is_wanted(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    words.peek().is_none() || words.any(|word| name.contains(&word))
}

/// Times a step that leaves its input as it is.
fn time<R>(name: &str, mut step: impl FnMut() -> R) {
    if !is_wanted(name) {
        return;
    }
    let mut calls = 16_u32;
    while batch(calls, &mut step) < BATCH && calls < 1 << 24 {
        calls *= 2;
    }
    report(
        name,
        (0..BATCHES).map(|_| batch(calls, &mut step).as_secs_f64() * 1e9 / f64::from(calls)).collect(),
    );
}

fn batch<R>(calls: u32, step: &mut impl FnMut() -> R) -> Duration {
    let begin = clock::now();
    for _ in 0..calls {
        black_box(step());
    }
    begin.elapsed()
}

/// Times a step that changes its input; making the inputs is not counted.
fn time_prepared<T, R>(name: &str, mut prepare: impl FnMut() -> Vec<T>, mut step: impl FnMut(&mut T) -> R) {
    if !is_wanted(name) {
        return;
    }
    let mut once = || {
        let mut inputs = prepare();
        let begin = clock::now();
        for input in &mut inputs {
            black_box(step(input));
        }
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(PREPARED)
    };
    once();
    report(name, (0..BATCHES).map(|_| once()).collect());
}

fn report(name: &str, mut each: Vec<f64>) {
    each.sort_by(f64::total_cmp);
    let of = |at: usize| each.get(at).copied().unwrap_or(f64::NAN);
    println!("| {name} | {:.1} | {:.1} |", of(each.len() / 2), of(0));
}
