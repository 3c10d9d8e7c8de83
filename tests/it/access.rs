//! Who may connect, who may see what, and who asks: addresses of the loopback network stand for the world's.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::ports::Port;
use crate::harness::recorder;
use crate::harness::{HOST, Ravelin, Recorder, Said, proxy, ravelin, run, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// A connection whose other end sees it come from `source`.
fn connect(source: &str, port: u16) -> TcpStream {
    let source: IpAddr = source.parse().expect("an address");
    let domain = socket2::Domain::for_address(SocketAddr::new(source, 0));
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("a loopback address can be bound");
    let target: IpAddr = if source.is_ipv6() { "::1" } else { "127.0.0.1" }.parse().expect("an address");
    socket.connect(&SocketAddr::new(target, port).into()).expect("the kernel accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// What comes back for these bytes; empty if the connection was closed without a byte.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    // Who is kept out may be cut off while writing.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

/// The status that `source` gets for `path`; none if it was closed without a byte.
fn status(source: &str, port: u16, path: &str, fields: &str) -> Option<u16> {
    let answer = exchange(connect(source, port), &get(path, fields));
    answer.split(' ').nth(1)?.parse().ok()
}

/// Waits until it said so on standard error, which it writes on its own time.
#[track_caller]
fn says(site: &Ravelin, text: &str) {
    let said = within(PATIENCE, || site.stderr().contains(text).then_some(()));
    assert!(said.is_some(), "it should say {text:?}, but said {}", site.stderr());
}

/// The value of a metric with this text in front of it.
fn metric(site: &Ravelin, start: &str) -> u64 {
    let page = site.admin("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(start));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

fn rule(port: u16, sources: &str) -> String {
    format!("[[ingress]]\nport = {port}\nsource = {sources}\n")
}

#[test]
fn who_is_not_let_in_is_closed_before_tls_and_counted() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .site(HOST, &origin)
        .plain_serves()
        .table(&format!(
            "[[ingress]]\nport = \"{}-{}\"\nsource = [\"127.0.0.1\", \"127.0.2.0/24\"]",
            20_000, 29_999
        ))
        .start();
    for port in [site.http_port(), site.https_port()] {
        for source in ["127.0.0.2", "127.0.3.1", "127.255.0.1"] {
            assert_eq!(exchange(connect(source, port), &get("/", "")), "", "{source} at {port}");
        }
    }
    for source in ["127.0.0.1", "127.0.2.77"] {
        assert_eq!(status(source, site.http_port(), "/", ""), Some(200), "{source}");
    }
    let counted = within(PATIENCE, || {
        let kept = metric(&site, "ravelin_door_events_total{event=\"kept-out\"} ");
        (kept == 6).then_some(kept)
    });
    assert_eq!(counted, Some(6));
    says(&site, "no `[[ingress]]` rule lets this address in");
    let lines = site.stderr().matches("no `[[ingress]]` rule lets this address in").count();
    assert_eq!(lines, 1, "a flood is one line: {}", site.stderr());
    assert_eq!(site.get("/").status, 200);
}

#[test]
fn ingress_is_enforced_in_report_mode_and_changes_with_a_reload() {
    let origin = Recorder::answering(recorder::OK);
    let port = Port::reserve();
    let site = proxy()
        .site(HOST, &origin)
        .table("[rules]\nmode = \"report\"")
        .table(&format!("[[listen]]\nurl = \"http://127.0.0.1:{}\"\nplain = \"serve\"", port.number()))
        .table(&rule(port.number(), "[\"127.0.0.1\"]"))
        .start();
    assert_eq!(status("127.0.0.9", port.number(), "/", ""), None);
    let text = std::fs::read_to_string(site.config()).expect("the configuration");
    let open = text.replace("source = [\"127.0.0.1\"]", "source = [\"127.0.0.0/8\"]");
    assert_ne!(open, text);
    std::fs::write(site.config(), open).expect("the configuration is written");
    site.signal("HUP");
    let opened = within(PATIENCE, || status("127.0.0.9", port.number(), "/", ""));
    assert_eq!(opened, Some(200));
}

#[test]
fn ipv6_has_rules_of_its_own() {
    let origin = Recorder::answering(recorder::OK);
    let (inside, outside) = (Port::reserve(), Port::reserve());
    let listen =
        |port: &Port| format!("[[listen]]\nurl = \"http://[::]:{}\"\nplain = \"serve\"", port.number());
    let _site = proxy()
        .site(HOST, &origin)
        .table("[client]\ntrusted_proxies = []")
        .table(&listen(&inside))
        .table(&listen(&outside))
        .table(&rule(inside.number(), "[\"::1\"]"))
        .table(&rule(outside.number(), "[\"127.0.0.0/8\"]"))
        .start();
    assert_eq!(status("::1", inside.number(), "/", ""), Some(200));
    assert_eq!(status("127.0.0.1", inside.number(), "/", ""), None);
    assert_eq!(status("::1", outside.number(), "/", ""), None);
    assert_eq!(
        status("127.0.0.1", outside.number(), "/", ""),
        Some(200),
        "IPv4 over a socket for both is IPv4"
    );
}

const BACKEND: &str =
    "[[site.access]]\narea = \"backend\"\nallow = [\"127.0.1.0/24\"]\nexcept = [\"/typo3/reaction\"]";

#[test]
fn the_backend_is_open_to_the_office_and_webhooks_to_everybody() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).with(BACKEND).plain_serves().start();
    let at = |source: &str, path: &str| status(source, site.http_port(), path, "");
    for (source, path, expected) in [
        ("127.0.1.5", "/typo3/", 200),
        ("127.0.1.5", "/typo3/login", 200),
        ("127.0.2.5", "/", 200),
        ("127.0.2.5", "/typo3/", 403),
        ("127.0.2.5", "/typo3/login?x=1", 403),
        ("127.0.2.5", "//typo3/./%6cogin", 403),
        ("127.0.2.5", "/x/../typo3/index.php", 403),
        ("127.0.2.5", "/typo3/reaction/6ea7", 200),
        ("127.0.2.5", "/typo3/reaction/../login", 403),
    ] {
        assert_eq!(at(source, path), Some(expected), "{source} {path}");
    }
    let refused = site.get("/typo3/login").status(403).hardened().clone();
    let logged =
        || site.stdout().lines().find(|line| line.contains("\"client\":\"127.0.0.1\"")).map(str::to_owned);
    let line = within(PATIENCE, logged).expect("a log line");
    let entry: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&entry["reason"], &entry["step"]), (&"source-denied".into(), &"access".into()), "{line}");
    let detail = entry["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("127.0.0.1 does not stand in `allow` of ") && detail.contains("ravelin.toml:"),
        "{detail}"
    );
    assert!(!refused.text().contains("ravelin.toml"), "the page names no file: {}", refused.text());
}

#[test]
fn report_mode_says_who_would_be_kept_out() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).with("[site.rules]\naccess = \"report\"").with(BACKEND).start();
    site.get("/typo3/login").status(200);
    let logged = within(PATIENCE, || site.stdout().contains("source-denied").then_some(()));
    assert!(logged.is_some(), "would_block: {}", site.stdout());
}

#[test]
fn behind_a_balancer_the_client_counts_and_not_the_balancer() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .site(HOST, &origin)
        .with("[[site.access]]\narea = \"backend\"\nallow = [\"203.0.113.0/24\"]")
        .table("[client]\ntrusted_proxies = [\"127.0.7.0/24\"]")
        .plain_serves()
        .start();
    let at = |source: &str, chain: &str| {
        status(source, site.http_port(), "/typo3/", &format!("X-Forwarded-For: {chain}\r\n"))
    };
    assert_eq!(at("127.0.7.1", "203.0.113.9"), Some(200));
    assert_eq!(at("127.0.7.1", "203.0.113.9:4711, 127.0.7.2:80"), Some(200));
    assert_eq!(at("127.0.7.1", "203.0.113.9, 198.51.100.1"), Some(403), "what is forged stands on the left");
    assert_eq!(at("127.0.8.1", "203.0.113.9"), Some(403), "a stranger is not believed");
}

#[test]
fn a_balancer_that_is_not_trusted_is_noticed_once() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy().site(HOST, &origin).keys("limits.workers = 1").plain_serves().start();
    for number in 0..210 {
        let chain = format!("X-Forwarded-For: 203.0.113.{number}\r\n");
        let source = if number % 2 == 0 { "127.0.7.1" } else { "127.0.7.2" };
        assert_eq!(status(source, site.http_port(), "/", &chain), Some(200));
    }
    let said = within(PATIENCE, || site.stderr().contains("trusted_proxies = [").then(|| site.stderr()));
    let said = said.unwrap_or_else(|| panic!("it should be said: {}", site.stderr()));
    assert!(said.contains("trusted_proxies = [\"127.0.7.1\", \"127.0.7.2\"]"), "{said}");
    assert_eq!(said.matches("trusted_proxies = [").count(), 1, "once an hour: {said}");
}

/// The configuration of the commands below.
fn file(dir: &std::path::Path, more: &str) -> std::path::PathBuf {
    let path = dir.join("ravelin.toml");
    let text = format!(
        "[[listen]]\nurl = \"http://0.0.0.0:80\"\nplain = \"serve\"\n[client]\ntrusted_proxies = [\"vpc\", \"cloudfront\"]\n\
         [[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:8080\"\npreset = \"typo3\"\n{more}\n"
    );
    std::fs::write(&path, text).expect("the configuration is written");
    path
}

fn explain(config: &std::path::Path, arguments: &[&str]) -> Said {
    let mut command = ravelin();
    command.args(["explain", "GET"]).args(arguments).arg("--config").arg(config);
    run(&mut command)
}

#[test]
fn explain_tells_how_an_address_was_found_and_which_line_decided() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = "[[site.access]]\narea = \"backend\"\nallow = [\"203.0.113.0/24\"]\nhours = \"Mon-Fri 07:00-19:00\"\ntime_zone = \"Europe/Berlin\"";
    let config = file(dir.path(), lines);
    let url = format!("http://{HOST}/typo3/login");
    let chain = "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 130.176.1.1";
    let noon = "2026-07-06T12:00:00+02:00";
    explain(&config, &[&url, "--from", "10.0.0.5", "--header", chain, "--at", noon])
        .exits(0)
        .says("10.0.0.5 opened the connection, trusted by `vpc`")
        .says("130.176.1.1 in X-Forwarded-For, trusted by `cloudfront`")
        .says("203.0.113.9 in X-Forwarded-For is the client: the first that is no trusted proxy")
        .says("203.0.113.9 may come, by ")
        .says("ravelin.toml:10, for /typo3 (area backend)");
    explain(&config, &[&url, "--from", "10.0.0.5", "--header", chain, "--at", "2026-07-06T20:00:00+02:00"])
        .exits(0)
        .says("REFUSED     403 source-denied: 203.0.113.9 comes outside of Mon,Tue,Wed,Thu,Fri 07:00-19:00, Europe/Berlin");
    explain(&config, &[&url, "--from", "198.51.100.1", "--header", chain])
        .exits(0)
        .says("198.51.100.1 opened the connection and is no trusted proxy: it is the client; X-Forwarded-For is not believed")
        .says("does not stand in `allow` of");
    explain(&config, &[&url, "--at", "yesterday"]).exits(2);
}

const TABLE: &str = "[[ingress]]\ntype = \"HTTP\"\nsource = [\"0.0.0.0/0\", \"::/0\"]\n\
    [[ingress]]\ntype = \"SSH\"\nsource = [\"203.0.113.0/24\", \"203.0.113.128/25\", \"2001:db8::/48\"]\ndescription = \"the \\\"office\\\"\"\n\
    [[ingress]]\nport = \"8000-8100\"\nsource = [\"vpc\"]\n\
    [[ingress]]\nprotocol = \"icmp\"\nicmp_type = 8\nicmp_code = 0\nsource = [\"10.0.0.0/8\"]\n\
    [[ingress]]\nprotocol = \"icmpv6\"\nicmp_type = 128\nsource = [\"::/0\"]\n\
    [[ingress]]\nprotocol = \"47\"\nsource = [\"198.51.100.1\"]\n\
    [[ingress]]\ntype = \"All ICMP - IPv4\"\nsource = [\"10.0.0.0/8\"]\n\
    [[ingress]]\ntype = \"All ICMP - IPv6\"\nsource = [\"2001:db8::/32\"]\n\
    [[ingress]]\ntype = \"All UDP\"\nsource = [\"10.0.0.0/8\"]\n\
    [[ingress]]\ntype = \"All traffic\"\nsource = [\"10.9.0.0/16\"]\n\
    [[egress]]\ntype = \"MySQL\"\ndestination = [\"10.0.1.0/24\"]\n";

fn firewall(arguments: &[&str], config: Option<&std::path::Path>) -> Said {
    let mut command = ravelin();
    command.arg("firewall").args(arguments);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    run(&mut command)
}

#[test]
fn a_table_is_exported_and_comes_back_from_aws() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = file(dir.path(), TABLE);
    let ingress =
        firewall(&["export", "--format", "aws", "--direction", "ingress", "--group", "sg-7"], Some(&config));
    ingress.exits(0).says("note: ingress tcp 22 (").says("needs a firewall: Ravelin does not listen there");
    let input: Value = serde_json::from_str(&ingress.out).expect("JSON");
    assert_eq!(
        (&input["GroupId"], input["IpPermissions"].as_array().map(Vec::len)),
        (&"sg-7".into(), Some(10))
    );
    let both = firewall(&["export", "--format", "aws"], Some(&config));
    let group = dir.path().join("group.json");
    std::fs::write(&group, &both.out).expect("a file");
    let imported = firewall(&["import", &group.display().to_string()], None);
    imported.exits(0).says("11 rules read from");
    let again = file(dir.path(), &imported.out);
    let twice = firewall(&["export", "--format", "aws"], Some(&again));
    assert_eq!(both.out, twice.out, "the way there and back changes nothing:\n{}", imported.out);
    firewall(&["export", "--format", "markdown"], Some(&config))
        .exits(0)
        .says("| HTTP | tcp | 80 | `0.0.0.0/0`, `::/0` |  | enforced by Ravelin when a connection is accepted |")
        .says("## Egress");
    let json = firewall(&["export", "--format", "json"], Some(&config));
    assert_eq!(serde_json::from_str::<Value>(&json.out).expect("JSON").as_array().map(Vec::len), Some(11));
    firewall(&["import", "/nowhere"], None).exits(1).says("cannot read /nowhere");
}

/// nft itself loads the script, twice, in a network of its own.
#[test]
fn nft_takes_the_exported_script() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = file(dir.path(), TABLE);
    let script = firewall(&["export", "--format", "nftables"], Some(&config));
    script.exits(0).says("type filter hook input priority filter; policy drop;");
    let path = dir.path().join("ravelin.nft");
    std::fs::write(&path, &script.out).expect("a file");
    let load = "nft -c -f \"$0\" && nft -f \"$0\" && nft -f \"$0\" && nft list table inet ravelin";
    let said = run(Command::new("unshare").args(["--net", "--map-root-user", "sh", "-c", load]).arg(&path));
    assert_eq!(said.code, Some(0), "nft says:\n{}\nof\n{}", said.err, script.out);
    let rules = said.out.lines().filter(|line| line.contains("tcp dport 22 accept")).count();
    assert_eq!(rules, 2, "one for each family, and none twice:\n{}", said.out);
}

#[test]
fn check_counts_the_rules_and_warns_of_what_is_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |text: &str| {
        let config = file(dir.path(), text);
        run(ravelin().arg("check").arg("--config").arg(config))
    };
    check(TABLE).exits(0).says("11 firewall rules (10 of them for `ravelin firewall export`)");
    check("[[ingress]]\ntype = \"SSH\"\nsource = [\"0.0.0.0/0\"]\n")
        .exits(0)
        .says("SSH (port 22) is open to the whole world")
        .says("none for this listener's port 80");
    check("[[ingress]]\ntype = \"HTPS\"\nsource = [\"0.0.0.0/0\"]\n").exits(1).says("did you mean `HTTPS`?");
}

/// A header of version 2 for a client of IPv4, with a TLV as AWS writes it.
fn version_2(client: [u8; 4]) -> Vec<u8> {
    let tlv = [0xea, 0, 5, 1, b'v', b'p', b'c', b'e'];
    let [a, b, c, d] = client;
    let body = [&[a, b, c, d, 10, 0, 0, 1, 0xc8, 0x15, 1, 0xbb], &tlv[..]].concat();
    let length = u8::try_from(body.len()).expect("short");
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[length], &body].concat()
}

#[test]
fn a_required_proxy_header_says_who_the_client_is() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .site(HOST, &origin)
        .with("[[site.access]]\npath = \"/intern\"\nallow = [\"203.0.113.0/24\", \"2001:db8::/32\"]")
        .plain_serves()
        .http("proxy_protocol = \"require\"\nproxy_protocol_from = [\"127.0.0.1\", \"127.0.7.0/24\"]")
        .table("[[ingress]]\nport = \"20000-29999\"\nsource = [\"127.0.0.1\", \"203.0.113.0/24\", \"198.51.100.0/24\", \"2001:db8::/32\"]")
        .start();
    let ask = |source: &str, header: &[u8]| {
        let answer = exchange(connect(source, site.http_port()), &[header, &get("/intern", "")].concat());
        answer.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok())
    };
    let line = |client: &str, family: &str, to: &str| {
        format!("PROXY {family} {client} {to} 4711 443\r\n").into_bytes()
    };
    assert_eq!(ask("127.0.7.1", &line("203.0.113.9", "TCP4", "10.0.0.1")), Some(200));
    assert_eq!(ask("127.0.7.1", &line("2001:db8::9", "TCP6", "fd00::1")), Some(200));
    assert_eq!(ask("127.0.7.1", &version_2([203, 0, 113, 77])), Some(200));
    assert_eq!(
        ask("127.0.7.1", &version_2([198, 51, 100, 1])),
        Some(403),
        "[[site.access]] goes by the client"
    );
    assert_eq!(ask("127.0.7.1", &version_2([192, 0, 2, 1])), None, "[[ingress]] goes by the client");
    assert_eq!(
        ask("127.0.9.1", &version_2([203, 0, 113, 77])),
        None,
        "whoever is not the balancer is closed"
    );
    assert_eq!(ask("127.0.7.1", b""), None, "no header, no answer");
    assert_eq!(ask("127.0.7.1", b"PROXY TCP4 203.0.113.9\r\n"), None);
    assert_eq!(ask("127.0.0.1", b"PROXY UNKNOWN\r\n"), Some(403), "the balancer's own connection is its own");
    assert_eq!(ask("127.0.0.1", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"), Some(403), "LOCAL");
    let seen = origin.text();
    assert!(
        seen.contains("x-forwarded-for: 203.0.113.77") && seen.contains("x-forwarded-port: 443"),
        "{seen}"
    );
    let bad = within(PATIENCE, || {
        (metric(&site, "ravelin_door_events_total{event=\"bad-proxy-header\"} ") == 3).then_some(())
    });
    assert!(bad.is_some(), "{}", site.admin("/metrics").text());
    says(&site, "this listener requires a PROXY header");
    let logged = within(PATIENCE, || site.stdout().contains("\"peer\":\"203.0.113.77:51221\"").then_some(()));
    assert!(logged.is_some(), "{}", site.stdout());
}

/// Byte by byte, in two pieces with what follows, and never at all.
#[test]
fn a_proxy_header_may_come_in_pieces_but_not_late() {
    let origin = Recorder::answering(recorder::OK);
    let site = proxy()
        .site(HOST, &origin)
        .plain_serves()
        .http("proxy_protocol = \"require\"\nproxy_protocol_from = [\"127.0.0.0/8\"]")
        .start();
    let whole = [version_2([203, 0, 113, 5]), get("/", "")].concat();
    for piece in [1, 7, 30] {
        let mut stream = connect("127.0.0.1", site.http_port());
        stream.set_nodelay(true).expect("no delay");
        for bytes in whole.chunks(piece) {
            stream.write_all(bytes).expect("it is read");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(exchange(stream, b"").starts_with("HTTP/1.1 200 "), "in pieces of {piece}");
    }
    let mut silent = connect("127.0.0.1", site.http_port());
    silent.write_all(b"PROXY TCP4 ").expect("it is read");
    assert_eq!(exchange(silent, b""), "", "closed before the test's own patience ends");
    says(&site, "there was none within 5 seconds");
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let origin = Recorder::answering(recorder::OK);
    let lines = "proxy_protocol = \"require\"\nproxy_protocol_from = [\"127.0.0.1\"]";
    let site = proxy().site(HOST, &origin).https(lines).start();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--haproxy-protocol",
        "--http2",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{http_version}",
    ]);
    curl.arg("--cacert")
        .arg(site.authority())
        .args(["--connect-to", &format!("{HOST}:443:127.0.0.1:{}", site.https_port())]);
    let said = run(curl.arg(format!("https://{HOST}/")));
    assert_eq!(said.out, "200 2", "{}", said.all());
    assert!(site.wire_to_tls_port().whatever(PATIENCE).0.is_empty(), "without a header nothing is said");
}

#[test]
fn proxy_protocol_must_say_whom_it_believes() {
    let dir = tempfile::tempdir().expect("a directory");
    let check = |lines: &str| {
        let config = dir.path().join("ravelin.toml");
        let text = format!(
            "[[listen]]\nurl = \"http://127.0.0.1:80\"\nplain = \"serve\"\n{lines}\n[[site]]\nhosts = [\"{HOST}\"]\n\
             upstream = \"http://127.0.0.1:8080\"\npreset = \"typo3\"\n"
        );
        std::fs::write(&config, text).expect("the configuration is written");
        run(ravelin().arg("check").arg("--config").arg(config))
    };
    check("proxy_protocol = \"require\"").exits(1).says("needs to know whose headers are believed");
    check("proxy_protocol = \"required\"").exits(1).says("did you mean `require`?");
    check("proxy_protocol_from = [\"vpc\"]").exits(1).says("`proxy_protocol_from` has no meaning");
    check("proxy_protocol = \"require\"\nproxy_protocol_from = [\"::/0\"]")
        .exits(0)
        .says("believes everybody");
    check("proxy_protocol = \"require\"\nproxy_protocol_from = [\"vpc\"]").exits(0).says("(0 warnings)");
}
