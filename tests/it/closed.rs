//! What is closed stays closed in every spelling, before real servers that would give it away, and everything else goes
//! on working (`tests/corpus/closed-paths.yaml`, `tests/corpus/php-names.yaml`, and a recorded editor's day).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::apache::Apache;
use crate::harness::front::at_once;
use crate::harness::log::text;
use crate::harness::names::field;
use crate::harness::nginx::Nginx;
use crate::harness::raw_origin::RawOrigin;
use crate::harness::reply::Reply;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, Wire, apache, proxy, run, test_file};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    guide: Vec<String>,
    rules: Vec<Row>,
    open: Vec<String>,
    spellings: Vec<Spelling>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[expect(dead_code, reason = "the rules themselves are tested where they are matched")]
    rule: String,
    closed: Vec<String>,
    open: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelling {
    write: String,
    to: Fate,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Closed,
    Refused,
}

#[derive(Deserialize)]
struct Names {
    spellings: Vec<String>,
    others: Vec<String>,
}

/// What every closed file holds.
const SECRET: &str = "What nobody may read.";

/// What Ravelin says of a closed address.
const NOTHING: &str = "There is nothing at this address.";

fn corpus() -> Corpus {
    let text = std::fs::read_to_string(test_file("corpus/closed-paths.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

fn names() -> Names {
    let text = std::fs::read_to_string(test_file("corpus/php-names.yaml")).expect("the corpus");
    serde_norway::from_str(&text).expect("the corpus is valid")
}

impl Corpus {
    fn closed(&self) -> Vec<&String> {
        let all: BTreeSet<_> = self.rules.iter().flat_map(|row| &row.closed).chain(&self.guide).collect();
        all.into_iter().collect()
    }

    fn open(&self) -> Vec<&String> {
        let all: BTreeSet<_> = self.rules.iter().flat_map(|row| &row.open).chain(&self.open).collect();
        all.into_iter().collect()
    }
}

/// A path with its escapes decoded.
fn plain(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("an escape"));
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("the corpus is UTF-8")
}

/// Every byte but slashes as `%` and two digits behind `lead`.
fn escaped(path: &str, lead: &str, upper: bool) -> String {
    let escape = |byte: u8| match byte {
        b'/' => "/".to_owned(),
        byte if upper => format!("{lead}{byte:02X}"),
        byte => format!("{lead}{byte:02x}"),
    };
    plain(path).bytes().map(escape).collect()
}

impl Spelling {
    fn of(&self, path: &str) -> String {
        let rest = &path[1..];
        self.write
            .replace("{}", rest)
            .replace("{escaped}", &escaped(rest, "%", false))
            .replace("{ESCAPED}", &escaped(rest, "%", true))
            .replace("{twice}", &escaped(rest, "%25", false))
            .replace("{thrice}", &escaped(rest, "%2525", false))
    }
}

/// A folder in which every closed path is a file that can be read.
fn laid_bare(paths: &[&String]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut paths: Vec<String> = paths.iter().map(|path| plain(path)).collect();
    // What lies deepest first: a name that is a folder already gets an index.
    paths.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    for path in paths {
        let mut file = dir.path().join(&path[1..]);
        if path.ends_with('/') || file.is_dir() {
            file.push("index.html");
        }
        let parent = file.parent().map(Path::to_path_buf).unwrap_or_default();
        // What lies behind a file is path info: there is nothing to put there.
        if std::fs::create_dir_all(parent).is_ok() {
            // Apache reads some of them: to it this is a comment.
            std::fs::write(&file, format!("# {SECRET}")).expect("a file");
        }
    }
    std::fs::write(dir.path().join("index.html"), "the front page").expect("a file");
    readable(dir.path());
    dir
}

/// nginx drops its privileges.
fn readable(dir: &Path) {
    run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(dir)).exits(0);
}

fn request(method: &str, target: &str) -> String {
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n")
}

fn get(target: &str) -> String {
    request("GET", target)
}

/// One answer over a connection that is opened again where the last answer closed it.
fn ask(port: u16, wire: &mut Option<Wire>, request: &str) -> Reply {
    let open = wire.get_or_insert_with(|| Wire::plain(port));
    let reply = open.send(request).reply();
    if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        *wire = None;
    }
    reply
}

fn once(site: &Ravelin, request: &str) -> Reply {
    site.wire().send(request).reply()
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// No spelling of a closed path gets anything out of a server in which all of them are files.
fn stays_closed(name: &'static str, origin: &str) {
    let corpus = corpus();
    let closed = corpus.closed();
    assert!(closed.len() > 150 && corpus.spellings.len() >= 25, "the corpus has shrunk");
    let stage = || proxy().site(HOST, origin).plain_serves().start();
    let found = at_once(&closed, stage, |site, path| {
        let mut faults = Vec::new();
        let mut wire = None;
        for spelling in &corpus.spellings {
            let target = spelling.of(path);
            let reply = ask(site.http_port(), &mut wire, &get(&target));
            let own = match spelling.to {
                Fate::Closed => reply.status == 404 && reply.text().contains(NOTHING),
                Fate::Refused => reply.status == 400 && !reply.text().contains(SECRET),
            };
            if !own {
                faults.push(format!(
                    "BYPASS: {target} was answered with {} {:?}",
                    reply.status,
                    reply.text()
                ));
            }
        }
        faults
    });
    let mut results = Results::of(name);
    for (path, faults) in closed.iter().zip(found) {
        results.add(path, &faults);
    }
    results.hold();
}

/// The measure has teeth: how many of the spellings the server itself gives away.
fn is_given_away(url: &str) -> usize {
    let corpus = corpus();
    let targets =
        corpus.closed().into_iter().flat_map(|path| corpus.spellings.iter().map(|one| one.of(path)));
    let reached = |target: &String| {
        let mut wire = Wire::plain(port_of(url));
        wire.send(get(target).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
        let (bytes, _) = wire.until_closed(std::time::Duration::from_secs(10));
        String::from_utf8_lossy(&bytes).contains(SECRET)
    };
    targets.filter(reached).count()
}

#[test]
fn closed_paths_stay_closed_before_an_apache_without_htaccess() {
    let site = laid_bare(&corpus().closed());
    let apache = Apache::of(site.path());
    let reached = is_given_away(&apache.url);
    println!("{reached} spellings lead to a file in Apache itself");
    assert!(reached > 1_000, "only {reached} spellings lead to a file in Apache itself");
    stays_closed("closed-apache", &apache.url);
}

#[test]
fn closed_paths_stay_closed_before_nginx() {
    let site = laid_bare(&corpus().closed());
    let Some(nginx) = Nginx::of(site.path()) else { return };
    let reached = is_given_away(&nginx.url);
    println!("{reached} spellings lead to a file in nginx itself");
    assert!(reached > 1_000, "only {reached} spellings lead to a file in nginx itself");
    stays_closed("closed-nginx", &nginx.url);
}

#[test]
fn the_addresses_of_the_security_guide_are_closed() {
    let guide = corpus().guide;
    assert_eq!(guide.len(), 28);
    let site = proxy().site(HOST, apache()).plain_serves().start();
    for path in guide {
        once(&site, &get(&path)).status(404).shows(NOTHING).hardened();
    }
}

#[test]
fn what_is_open_goes_on_as_it_came() {
    let origin = RawOrigin::start();
    let site = proxy().site(HOST, origin.url().as_str()).plain_serves().start();
    let mut results = Results::of("closed-open");
    let mut wire = None;
    for path in corpus().open() {
        let reply = ask(site.http_port(), &mut wire, &get(path));
        let fine = reply.text() == format!("GET {path} HTTP/1.1");
        results.add(path, &if fine { vec![] } else { vec![format!("{} {:?}", reply.status, reply.text())] });
    }
    results.hold();
}

#[test]
fn the_answer_may_say_403_and_the_log_names_the_rule() {
    let site = proxy().site(HOST, apache()).with("closed_answer = 403").plain_serves().start();
    once(&site, &get("/composer.lock?first")).status(403).hides(SECRET).hardened();
    let line = site.logged("/composer.lock?first");
    assert_eq!(text(&line, field::REASON), "closed", "{line}");
    assert!(line.to_string().contains("`deny.composer` (preset typo3:"), "{line}");
    assert!(site.counted(&["ravelin_refusals", "reason=\"closed\""]) >= 1.0, "{}", site.metrics());
}

#[test]
fn a_report_changes_nothing_and_says_what_would_be() {
    let origin = RawOrigin::start();
    let rules = "[site.rules]\ndeny = \"report\"\ninstall_tool = \"report\"\nlogin_query = \"report\"";
    let site = proxy().site(HOST, origin.url().as_str()).with(rules).plain_serves().start();
    for (target, reason) in [
        ("/vendor/autoload.php", "closed"),
        ("/?__typo3_install", "install-tool-closed"),
        ("/typo3/?login_status=login", "login-in-query"),
    ] {
        let reply = once(&site, &get(target));
        assert_eq!(reply.text(), format!("GET {target} HTTP/1.1"));
        let line = site.logged(target.split('=').next().unwrap_or(target));
        assert!(
            line.get(field::WOULD_BLOCK).is_some_and(|would| would.to_string().contains(reason)),
            "{line}"
        );
    }
}

/// With the rule for paths only reported, the origin gets what the client wrote, and nothing closed.
#[test]
fn closed_paths_stay_closed_where_paths_are_only_reported() {
    let corpus = corpus();
    let origin = RawOrigin::start();
    let site = proxy()
        .site(HOST, origin.url().as_str())
        .with("[site.rules]\npath = \"report\"")
        .plain_serves()
        .start();
    let mut results = Results::of("closed-verbatim");
    let mut wire = None;
    for path in ["/vendor/autoload.php", "/.git/config", "/composer.json", "/fileadmin/shell.php"] {
        for spelling in &corpus.spellings {
            let target = spelling.of(path);
            // What begins with no slash, or names no byte, is no path to anybody.
            if !target.starts_with('/') || target.ends_with('%') {
                continue;
            }
            let reply = ask(site.http_port(), &mut wire, &get(&target));
            let closed = reply.text().contains(NOTHING) || reply.status == 400;
            results.add(&target, &if closed { vec![] } else { vec![format!("BYPASS: {}", reply.text())] });
        }
    }
    results.hold();
}

/// What opens the Install Tool of TYPO3 14 at a real PHP is closed to strangers, and what does not is let through.
#[test]
fn the_install_tool_is_closed_in_every_spelling_of_php() {
    let Names { spellings, others } = names();
    let stranger = proxy().site(HOST, apache()).plain_serves().start();
    let listed = "[site.install_tool]\nsources = [\"127.0.0.1/32\"]";
    let listed = proxy().site(HOST, apache()).with(listed).plain_serves().start();
    let origin = port_of(&apache().url);
    let mut results = Results::of("install-tool");
    for path in ["/", "/index.php", "/en/any/page"] {
        for query in spellings.iter().filter(|query| !query.contains(' ')) {
            let target = format!("{path}?line=14.3&{query}");
            let mut faults = Vec::new();
            if !Wire::plain(origin).send(get(&target)).reply().text().contains("Install Tool") {
                faults.push("PHP itself does not open it: no spelling".to_owned());
            }
            let reply = once(&stranger, &get(&target));
            if reply.status != 404 || !reply.text().contains(NOTHING) {
                faults.push(format!("BYPASS: {} {:?}", reply.status, reply.text()));
            }
            if !once(&listed, &get(&target)).text().contains("Install Tool") {
                faults.push("closed to a listed source".to_owned());
            }
            results.add(&target, &faults);
        }
    }
    for query in others.iter().filter(|query| !query.contains('#')) {
        let target = format!("/?line=14.3&{query}");
        let reply = once(&stranger, &get(&target));
        let fine = reply.status == 200 && !reply.text().contains("Install Tool");
        results.add(&target, &if fine { vec![] } else { vec![format!("{} {}", reply.status, reply.text())] });
    }
    for target in
        ["/typo3/install.php", "/typo3/install.php/x?install[context]=backend", "/typo3/install.1.php"]
    {
        let reply = once(&stranger, &get(target));
        let fine = reply.status == 404 && reply.text().contains(NOTHING);
        results.add(target, &if fine { vec![] } else { vec![format!("{} {}", reply.status, reply.text())] });
    }
    results.hold();
}

/// A cookie proves nothing.
#[test]
fn a_session_cookie_does_not_open_the_install_tool() {
    let site = proxy().site(HOST, apache()).plain_serves().start();
    let cookies = "Cookie: be_typo_user=eyJhbGciOiJIUzI1NiJ9.e30.x; Typo3InstallTool=0123456789abcdef\r\n";
    let asked = get("/?line=14.3&__typo3_install").replace("\r\n\r\n", &format!("\r\n{cookies}\r\n"));
    once(&site, &asked).status(404).shows(NOTHING);
    let line = site.logged("__typo3_install");
    assert_eq!(text(&line, field::REASON), "install-tool-closed", "{line}");
}

#[test]
fn the_install_tool_has_the_backends_time() {
    let keys = "first_byte = \"300 ms\"\n[site.install_tool]\nopen_to = \"everybody\"";
    let site = proxy().site(HOST, apache()).with(keys).plain_serves().start();
    once(&site, &get("/slow?ms=1500")).status(504);
    once(&site, &get("/slow?ms=1500&__typo3_install")).status(200).shows("at last");
}

#[test]
fn a_login_in_the_query_is_refused_where_nothing_is_sent() {
    let origin = RawOrigin::start();
    let site = proxy().site(HOST, origin.url().as_str()).plain_serves().start();
    for query in [
        "login_status=login",
        "a&login.status=login",
        "%6cogin+status",
        "login[status=logout",
        "login_status[]=login",
    ] {
        for path in ["/typo3/", "/typo3/login", "/", "/admin/main"] {
            once(&site, &get(&format!("{path}?{query}"))).status(400);
        }
    }
    let target = "/typo3/login?login_status=login";
    assert_eq!(once(&site, &request("POST", target)).text(), format!("POST {target} HTTP/1.1"));
    let target = "/typo3/login?loginProvider=1433416747&redirect=login_status";
    assert_eq!(once(&site, &get(target)).text(), format!("GET {target} HTTP/1.1"));
}

#[test]
fn explain_names_the_rule() {
    let site = proxy().site(HOST, apache()).start();
    let explain = |target: &str| {
        let mut command = crate::harness::ravelin();
        command.args(["explain", "GET", &format!("https://{HOST}{target}"), "--config"]).arg(site.config());
        run(&mut command)
    };
    explain("/vendor/autoload.php").exits(0).says("REFUSED").says("404 closed: `deny.vendor` (preset typo3:");
    explain("/?__typo3.install").exits(0).says("404 install-tool-closed").says("`[install_tool]`");
    explain("/typo3/?login_status=login").exits(0).says("400 login-in-query");
    explain("/").exits(0).says("no closed path");
}

/// The recorded editor's day: `RAVELIN_TRAFFIC`, or beside the repository; none elsewhere.
fn recordings() -> Vec<(String, String)> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/facts/traffic");
    let dir = std::env::var_os("RAVELIN_TRAFFIC").map_or(beside, PathBuf::from);
    let Ok(files) = std::fs::read_dir(&dir) else { return Vec::new() };
    let files = files.map_while(Result::ok).map(|file| file.path());
    let files = files.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
    let lines = files.flat_map(|path| {
        let text = std::fs::read_to_string(path).expect("a recording");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let exchange = |line: String| {
        let line: Value = serde_json::from_str(&line).expect("a recorded exchange");
        (text(&line, "method").to_owned(), text(&line, "target").to_owned())
    };
    lines.map(exchange).collect()
}

#[test]
fn an_editors_day_meets_nothing_closed() {
    let recordings = recordings();
    if recordings.is_empty() {
        println!("SKIPPED: there are no recordings; RAVELIN_TRAFFIC names their folder");
        return;
    }
    let origin = RawOrigin::start();
    // A day in a second, without the limits on how often one may ask.
    let known = "[site.rules]\nrate = \"off\"\nban = \"off\"\n[site.install_tool]\nsources = [\"127.0.0.1\"]";
    let open = proxy().site(HOST, origin.url().as_str()).with(known).plain_serves().start();
    // The day holds logins, after which nobody is a stranger any more.
    let nobody = "[site.rules]\nrate = \"off\"\nban = \"off\"\n[site.install_tool]\nopen_to = \"nobody\"";
    let stranger = proxy().site(HOST, origin.url().as_str()).with(nobody).plain_serves().start();
    let mut results = Results::of("editors-day");
    let (mut wire, mut strange) = (None, None);
    for (number, (method, target)) in recordings.iter().enumerate() {
        let line = format!("{method} {target} HTTP/1.1");
        let asked = request(method, target);
        let reply = ask(open.http_port(), &mut wire, &asked);
        let mut faults = Vec::new();
        if reply.text() != line {
            faults.push(format!("{line}: {} {:?}", reply.status, reply.text()));
        }
        // Nobody saw this client log in: of all that an editor does, only the Install Tool is closed to it.
        let reply = ask(stranger.http_port(), &mut strange, &asked);
        let is_install = target.contains("/typo3/install.php") || target.contains("__typo3_install");
        if is_install != (reply.status == 404) {
            faults.push(format!("{line}: {} to a stranger", reply.status));
        }
        results.add(&format!("{number} {target}"), &faults);
    }
    println!("{} exchanges", recordings.len());
    results.hold();
}
