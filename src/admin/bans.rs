//! `/-/bans` and `/-/install-tool`: who is locked out and who is let in, and how an operator changes that.
//!
//! Everything is said in the query, so that `curl --unix-socket` needs no body:
//!
//! ```text
//! GET    /-/bans                                  [format=text]
//! POST   /-/bans?client=192.0.2.1                 [for=24h] [site=www.example.org] [action=drop] [why=…]
//! DELETE /-/bans?client=192.0.2.1 | user=…        [site=…] [jail=…]
//! DELETE /-/bans?all
//! GET    /-/install-tool
//! POST   /-/install-tool?from=192.0.2.0/24        [for=30m]
//! DELETE /-/install-tool?from=… | all
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode};
use ipnet::IpNet;

use crate::bans::{self, Action, Ban, Ledger, SiteId, Subject, UserId};
use crate::client::key::{Key, Prefix};
use crate::clock::Millis;
use crate::config::section::FromText as _;
use crate::observe::escape;
use crate::observe::stamp::Stamp;

/// How long a ban made by hand lasts if nothing is said, and at most.
const BAN: (Duration, Duration) = (Duration::from_hours(24), Duration::from_hours(24 * 365));
/// How long the Install Tool is open if nothing is said, and at most: it can change everything.
const OPEN: (Duration, Duration) = (Duration::from_mins(30), bans::LONGEST_GRANT);

/// What the counter needs to know.
#[derive(Clone, Debug)]
pub struct Counter {
    /// The bans.
    pub ledger: Arc<Ledger>,
    /// The names of the sites that are served.
    pub sites: Vec<Box<str>>,
    /// How much of an IPv6 address is one client.
    pub prefix: Prefix,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it went well.
    pub status: StatusCode,
    /// Whether the text is JSON.
    pub json: bool,
    /// The text.
    pub text: String,
}

/// Why not: a status, and a sentence for the operator.
type Refused = (StatusCode, String);

impl Counter {
    /// Does what is asked for at one of the two paths; none if it is another path. `who` asks.
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str, query: &str, who: &str, now: Millis) -> Option<Answer> {
        let asked = match Asked::read(query) {
            Ok(asked) => asked,
            Err(why) => return Some(Answer::text(StatusCode::BAD_REQUEST, why)),
        };
        let answer = match (path, method) {
            ("/-/bans", &Method::GET | &Method::HEAD) => Ok(self.list(asked.text, now)),
            ("/-/bans", &Method::POST) => self.add(&asked, who, now),
            ("/-/bans", &Method::DELETE) => self.remove(&asked, who),
            ("/-/install-tool", &Method::GET | &Method::HEAD) => Ok(self.list_grants(asked.text, now)),
            ("/-/install-tool", &Method::POST) => self.open(&asked, who, now),
            ("/-/install-tool", &Method::DELETE) => self.close(&asked, who, now),
            ("/-/bans" | "/-/install-tool", _) => {
                Err((StatusCode::METHOD_NOT_ALLOWED, "Only GET, POST and DELETE are served here.".to_owned()))
            }
            _ => return None,
        };
        Some(answer.unwrap_or_else(|(status, why)| Answer::text(status, why)))
    }

    fn list(&self, text: bool, now: Millis) -> Answer {
        let mut bans = self.ledger.list(now);
        bans.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.subject.cmp(&b.subject)));
        if text { self.table(&bans, now) } else { self.array(&bans, now) }
    }

    fn array(&self, bans: &[Ban], now: Millis) -> Answer {
        let mut out = String::from("[");
        for (n, ban) in bans.iter().enumerate() {
            let _ = write!(
                out,
                "{}\n{{\"who\":\"{}\",\"site\":{},\"jail\":\"{}\",\"since\":\"{}\",\"until\":\"{}\",\"seconds_left\":{},\
                 \"level\":{},\"failures\":{},\"action\":\"{}\",\"why\":\"{}\"}}",
                if n == 0 { "" } else { "," },
                ban.subject,
                ban.site.map_or_else(|| "null".to_owned(), |site| format!("\"{}\"", json(&self.name(site)))),
                json(&ban.jail),
                rfc3339(ban.since),
                rfc3339(ban.until),
                ban.left(now).as_secs(),
                ban.level,
                ban.failures,
                ban.action.word(),
                json(&ban.why),
            );
        }
        out.push_str(if bans.is_empty() { "]\n" } else { "\n]\n" });
        Answer { status: StatusCode::OK, json: true, text: out }
    }

    fn table(&self, bans: &[Ban], now: Millis) -> Answer {
        if bans.is_empty() {
            return Answer::text(StatusCode::OK, "Nobody is banned.".to_owned());
        }
        let mut rows =
            vec![["WHO", "SITE", "JAIL", "UNTIL", "LEFT", "BANS", "ACTION", "WHY"].map(str::to_owned)];
        rows.extend(bans.iter().map(|ban| {
            [
                ban.subject.to_string(),
                ban.site.map_or_else(|| "*".to_owned(), |site| self.name(site)),
                ban.jail.to_string(),
                rfc3339(ban.until),
                words(ban.left(now)),
                (u32::from(ban.level) + 1).to_string(),
                ban.action.word().to_owned(),
                ban.why.to_string(),
            ]
        }));
        Answer::text(StatusCode::OK, aligned(&rows))
    }

    fn add(&self, asked: &Asked, who: &str, now: Millis) -> Result<Answer, Refused> {
        let subject = asked.subject(self.prefix)?.ok_or_else(|| bad("say who: `client=192.0.2.1`"))?;
        let length = asked.length(BAN)?;
        let why = asked.why.as_deref().unwrap_or("no reason given");
        let ban = Ban {
            subject,
            site: self.site(asked)?,
            jail: Ban::BY_HAND.into(),
            since: now,
            until: now.plus(length),
            level: 0,
            failures: 0,
            action: asked.action.unwrap_or_default(),
            why: format!("{why} ({who})").into(),
        };
        audit(who, "bans-add", &subject.to_string(), ban.site.map(|site| self.name(site)).as_deref(), why);
        self.ledger.add(ban, now);
        Ok(Answer::text(StatusCode::OK, format!("{subject} is banned for {}", words(length))))
    }

    fn remove(&self, asked: &Asked, who: &str) -> Result<Answer, Refused> {
        let site = self.site(asked)?;
        match asked.subject(self.prefix)? {
            Some(subject) => {
                audit(
                    who,
                    "bans-remove",
                    &subject.to_string(),
                    site.map(|site| self.name(site)).as_deref(),
                    "",
                );
                let lifted = self.ledger.remove(subject, site, asked.jail.as_deref());
                let text = match lifted.len() {
                    0 => format!("{subject} was not banned; its failures are forgotten"),
                    1 => format!("{subject} is no longer banned"),
                    many => format!("{subject} is no longer banned ({many} bans)"),
                };
                Ok(Answer::text(StatusCode::OK, text))
            }
            None if asked.all => {
                audit(who, "bans-flush", "*", None, "");
                let flushed = self.ledger.flush();
                Ok(Answer::text(StatusCode::OK, format!("nobody is banned any more ({flushed} were)")))
            }
            None => Err(bad("say who: `client=192.0.2.1`, or `all`")),
        }
    }

    fn list_grants(&self, text: bool, now: Millis) -> Answer {
        let grants = self.ledger.grants(now);
        if text && grants.is_empty() {
            return Answer::text(
                StatusCode::OK,
                "The Install Tool is open to nobody in particular.".to_owned(),
            );
        }
        if text {
            let mut rows = vec![["FROM", "UNTIL", "LEFT"].map(str::to_owned)];
            rows.extend(
                grants.iter().map(|(net, until)| [net.to_string(), rfc3339(*until), words(until.since(now))]),
            );
            return Answer::text(StatusCode::OK, aligned(&rows));
        }
        let row = |(net, until): &(IpNet, Millis)| {
            format!("{{\"from\":\"{net}\",\"until\":\"{}\"}}", rfc3339(*until))
        };
        let rows: Vec<String> = grants.iter().map(row).collect();
        Answer { status: StatusCode::OK, json: true, text: format!("[{}]\n", rows.join(",\n")) }
    }

    fn open(&self, asked: &Asked, who: &str, now: Millis) -> Result<Answer, Refused> {
        let net = self.net(asked)?.ok_or_else(|| bad("say for whom: `from=192.0.2.1`, or a network"))?;
        let wide = if net.addr().is_ipv4() { 8 } else { 16 };
        if net.prefix_len() < wide {
            return Err(bad(&format!("{net} is nearly everybody: name a network of /{wide} or smaller")));
        }
        let length = asked.length(OPEN)?;
        audit(who, "install-tool-open", &net.to_string(), None, &words(length));
        self.ledger.grant(net, now.plus(length), now);
        Ok(Answer::text(StatusCode::OK, format!("the Install Tool is open to {net} for {}", words(length))))
    }

    fn close(&self, asked: &Asked, who: &str, now: Millis) -> Result<Answer, Refused> {
        let net = self.net(asked)?;
        if net.is_none() && !asked.all {
            return Err(bad("say to whom: `from=192.0.2.1`, or `all`"));
        }
        let mut open: Vec<IpNet> = self.ledger.grants(now).into_iter().map(|(net, _)| net).collect();
        open.retain(|own| net.is_none_or(|net| net == *own));
        for net in &open {
            audit(who, "install-tool-close", &net.to_string(), None, "");
            self.ledger.grant(*net, Millis(0), now);
        }
        Ok(Answer::text(StatusCode::OK, format!("closed ({} were let in)", open.len())))
    }

    /// A single address is the client that it belongs to.
    fn net(&self, asked: &Asked) -> Result<Option<IpNet>, Refused> {
        let Some(text) = &asked.from else { return Ok(None) };
        if let Ok(addr) = text.parse::<IpAddr>() {
            let key = Key::new(addr, self.prefix).addr();
            let bits = if key.is_ipv4() { 32 } else { self.prefix.bits() };
            return Ok(IpNet::new(key, bits).ok());
        }
        let net =
            text.parse::<IpNet>().map_err(|_| bad(&format!("`{text}` is no address and no network")))?;
        Ok(Some(net.trunc()))
    }

    /// The site that was named; one that is not served is a typing error.
    fn site(&self, asked: &Asked) -> Result<Option<SiteId>, Refused> {
        let Some(name) = asked.site.as_deref() else { return Ok(None) };
        if self.sites.iter().any(|site| &**site == name) {
            return Ok(Some(SiteId::of(name)));
        }
        let known = self.sites.iter().take(10).map(|site| &**site).collect::<Vec<_>>().join(", ");
        Err(bad(&format!("there is no site `{name}`; a site is called by its first host: {known}")))
    }

    /// The name of a site; the number of one that is not served here.
    fn name(&self, id: SiteId) -> String {
        let found = self.sites.iter().find(|site| SiteId::of(site) == id);
        found.map_or_else(|| format!("{:016x}", id.0), ToString::to_string)
    }
}

impl Answer {
    fn text(status: StatusCode, mut text: String) -> Self {
        text.push('\n');
        Self { status, json: false, text }
    }
}

/// What the query says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    client: Option<IpAddr>,
    user: Option<UserId>,
    from: Option<String>,
    site: Option<String>,
    jail: Option<String>,
    why: Option<String>,
    length: Option<Duration>,
    action: Option<Action>,
    all: bool,
    text: bool,
}

impl Asked {
    fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("`{name}` is not percent-encoded UTF-8"))?;
            let wrong = |want: &str| format!("`{name}` must be {want}, not `{}`", value.escape_debug());
            match name {
                "client" => asked.client = Some(value.parse().map_err(|_| wrong("an address"))?),
                "user" => {
                    asked.user = Some(user(&value).ok_or_else(|| wrong("the hash that the list shows"))?);
                }
                "from" => asked.from = Some(value),
                "site" => asked.site = Some(value),
                "jail" => asked.jail = Some(value),
                "why" => asked.why = Some(value.chars().take(200).collect()),
                "for" => {
                    asked.length =
                        Some(length(&value).ok_or_else(|| wrong("a time such as `30m` or `12h`"))?);
                }
                "action" => {
                    let action = Action::from_text(&value).map_err(|_| wrong("refuse, tarpit or drop"))?;
                    asked.action = Some(action);
                }
                "all" => asked.all = true,
                "format" => asked.text = value == "text",
                _ => return Err(format!("`{}` means nothing here", name.escape_debug())),
            }
        }
        Ok(asked)
    }

    fn subject(&self, prefix: Prefix) -> Result<Option<Subject>, Refused> {
        match (self.client, self.user) {
            (Some(_), Some(_)) => Err(bad("say `client` or `user`, not both")),
            (Some(addr), None) => Ok(Some(Subject::Client(Key::new(addr, prefix)))),
            (None, Some(user)) => Ok(Some(Subject::User(user))),
            (None, None) => Ok(None),
        }
    }

    fn length(&self, (usual, most): (Duration, Duration)) -> Result<Duration, Refused> {
        let length = self.length.unwrap_or(usual);
        if length.is_zero() || length > most {
            return Err(bad(&format!("`for` must be more than nothing and at most {}", words(most))));
        }
        Ok(length)
    }
}

fn bad(why: &str) -> Refused {
    (StatusCode::BAD_REQUEST, why.to_owned())
}

/// An operator changed something.
fn audit(who: &str, verb: &'static str, whom: &str, site: Option<&str>, why: &str) {
    tracing::warn!(
        target: "ravelin::audit",
        event = verb,
        by = who,
        who = whom,
        site = site.unwrap_or("*"),
        why,
        "changed by hand"
    );
}

/// `user:0123456789abcdef`, or without what stands before.
fn user(text: &str) -> Option<UserId> {
    u64::from_str_radix(text.strip_prefix("user:").unwrap_or(text), 16).ok().map(UserId)
}

/// The configuration's durations, and `30m` as people type it.
pub(crate) fn length(text: &str) -> Option<Duration> {
    let minutes = text.strip_suffix('m').map(|number| format!("{number} min"));
    Duration::from_text(text).ok().or_else(|| Duration::from_text(&minutes?).ok())
}

fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

fn json(text: &str) -> String {
    let mut out = Vec::new();
    escape::json(text.as_bytes(), &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn rfc3339(time: Millis) -> String {
    // Beyond it the calendar has five digits.
    let year_9999 = 253_402_300_799_000;
    let wall = UNIX_EPOCH.checked_add(Duration::from_millis(time.0.min(year_9999))).unwrap_or(UNIX_EPOCH);
    let mut out = Vec::new();
    Stamp::default().rfc3339(wall, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The two largest units: `1 d 2 h`, `9 min 5 s`.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (d, h, min, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let parts = [(d, "d"), (h, "h"), (min, "min"), (s, "s")];
    let some: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).take(2).map(|(n, unit)| format!("{n} {unit}")).collect();
    if some.is_empty() { "0 s".to_owned() } else { some.join(" ") }
}

/// Columns as wide as their widest cell; what a terminal would act on is escaped.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let shown: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.escape_debug().to_string()).collect()).collect();
    let width =
        |column: usize| shown.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let lines: Vec<String> = shown
        .iter()
        .map(|row| {
            let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:0$}", width(n).unwrap_or(0)));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn counter() -> Counter {
        let sites = vec!["www.example.org".into(), "shop.example.org".into()];
        Counter { ledger: Arc::new(Ledger::default()), sites, prefix: Prefix::default() }
    }

    fn ask(counter: &Counter, method: &str, target: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = counter.answer(&method, path, query, "uid 0", NOW).unwrap();
        (answer.status.as_u16(), answer.text)
    }

    #[test]
    fn a_ban_is_made_listed_and_lifted() {
        let counter = counter();
        assert_eq!(ask(&counter, "GET", "/-/bans"), (200, "[]\n".to_owned()));
        assert_eq!(ask(&counter, "GET", "/-/bans?format=text").1, "Nobody is banned.\n");
        let target = "/-/bans?client=192.0.2.1&for=30m&site=www.example.org&why=too+loud%0a%22";
        assert_eq!(ask(&counter, "POST", target), (200, "192.0.2.1 is banned for 30 min\n".to_owned()));
        let rows: serde_json::Value = serde_json::from_str(&ask(&counter, "GET", "/-/bans").1).unwrap();
        let ban = &rows[0];
        assert_eq!(ban["who"], "192.0.2.1");
        assert_eq!(ban["site"], "www.example.org");
        assert_eq!(ban["jail"], "by-hand");
        assert_eq!(ban["seconds_left"], 1800);
        assert_eq!(ban["why"], "too loud\n\" (uid 0)");
        assert!(ban["until"].as_str().unwrap().starts_with("2023-11-14T22:43:20"), "{ban}");
        let table = ask(&counter, "GET", "/-/bans?format=text").1;
        assert!(table.starts_with("WHO ") && table.lines().count() == 2, "{table}");
        assert_eq!(ask(&counter, "DELETE", "/-/bans?client=192.0.2.1").0, 200);
        assert_eq!(ask(&counter, "GET", "/-/bans").1, "[]\n");
        assert!(ask(&counter, "DELETE", "/-/bans?client=192.0.2.1").1.contains("was not banned"));
    }

    #[test]
    fn an_address_of_ipv6_is_its_network_and_flush_lifts_all() {
        let counter = counter();
        ask(&counter, "POST", "/-/bans?client=2001:db8::7");
        ask(&counter, "POST", "/-/bans?client=192.0.2.1&action=drop");
        let list = ask(&counter, "GET", "/-/bans").1;
        assert!(list.contains("\"2001:db8::\"") && list.contains("\"drop\""), "{list}");
        assert_eq!(ask(&counter, "DELETE", "/-/bans").0, 400, "flushing is said");
        assert!(ask(&counter, "DELETE", "/-/bans?all").1.contains("2 were"));
    }

    #[test]
    fn the_install_tool_opens_for_a_time_and_closes() {
        let counter = counter();
        let holds = |addr: &str| counter.ledger.granted(addr.parse().unwrap(), NOW);
        assert_eq!(ask(&counter, "POST", "/-/install-tool?from=192.0.2.0/24&for=30m").0, 200);
        assert_eq!(ask(&counter, "POST", "/-/install-tool?from=2001:db8::7").0, 200);
        assert!(holds("192.0.2.9") && holds("2001:db8::1") && !holds("192.0.3.1"));
        assert!(ask(&counter, "GET", "/-/install-tool").1.contains("192.0.2.0/24"));
        assert!(ask(&counter, "GET", "/-/install-tool?format=text").1.contains("30 min"));
        assert_eq!(ask(&counter, "DELETE", "/-/install-tool?from=192.0.2.0/24").0, 200);
        assert!(!holds("192.0.2.9") && holds("2001:db8::1"));
        ask(&counter, "DELETE", "/-/install-tool?all");
        assert!(!holds("2001:db8::1"));
    }

    #[test]
    fn mistakes_are_named() {
        let counter = counter();
        for (method, target, says) in [
            ("POST", "/-/bans", "say who"),
            ("POST", "/-/bans?client=nobody", "an address"),
            ("POST", "/-/bans?client=192.0.2.1&for=ever", "a time"),
            ("POST", "/-/bans?client=192.0.2.1&for=0s", "more than nothing"),
            ("POST", "/-/bans?client=192.0.2.1&site=other.org", "there is no site"),
            ("POST", "/-/bans?client=192.0.2.1&colour=red", "means nothing"),
            ("POST", "/-/bans?client=192.0.2.1&why=%ff", "UTF-8"),
            ("POST", "/-/install-tool", "say for whom"),
            ("POST", "/-/install-tool?from=0.0.0.0/0", "nearly everybody"),
            ("POST", "/-/install-tool?from=::1&for=2d", "at most 1 d"),
            ("DELETE", "/-/install-tool", "say to whom"),
        ] {
            let (status, text) = ask(&counter, method, target);
            assert!(status == 400 && text.contains(says), "{target}: {status} {text}");
        }
        assert_eq!(ask(&counter, "PATCH", "/-/bans").0, 405);
    }

    #[test]
    fn times_read_as_people_write_them() {
        for (text, seconds) in [("30m", 1800), ("30 min", 1800), ("12h", 43_200), ("1 d", 86_400), ("5s", 5)]
        {
            assert_eq!(length(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(length("m"), None);
        assert_eq!(words(Duration::from_secs(93_784)), "1 d 2 h");
        assert_eq!(words(Duration::from_millis(5)), "0 s");
    }
}
