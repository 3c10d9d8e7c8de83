//! Networks as an operator lists them: in CIDR notation, by the name of a set, or from a file of them.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::clock::{self, Millis};
use crate::config::complaint::did_you_mean;
use crate::config::file;
use crate::config::section::{Fault, FromText, FromToml, Item, Placed, Reading};

/// One element of a list, and every network that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// As it was written: `10.0.0.0/8`, `vpc`, `file:PATH`.
    pub word: Box<str>,
    /// What it means.
    pub nets: Box<[IpNet]>,
}

/// The named sets: what stands in a cloud's private networks, and where AWS' CDN asks from.
const NAMED: [(&str, &str); 2] =
    [("vpc", VPC), ("cloudfront", include_str!("../../config/networks/cloudfront.txt"))];

/// RFC 1918, RFC 6598 (which AWS allows in a VPC too), RFC 4193.
const VPC: &str = "10.0.0.0/8\n172.16.0.0/12\n192.168.0.0/16\n100.64.0.0/10\nfc00::/7\n";

/// A list of a million networks fits; AWS' own is 3 MiB.
const LARGEST: u64 = 32 << 20;

/// The services of AWS whose addresses are those of its CDN, the more exact one first: no other service's may be trusted,
/// because anybody can rent an address of EC2.
const CLOUDFRONT: [&str; 2] = ["CLOUDFRONT_ORIGIN_FACING", "CLOUDFRONT"];

/// How old the list may be that this version came with: releases bring newer ones.
const SHIPPED_MAX: Duration = Duration::from_hours(365 * 24);

/// How old a list may be that the operator fetches: AWS changes it a few times a year.
const FETCHED_MAX: Duration = Duration::from_hours(90 * 24);

/// What renews a list that the operator fetches.
const RENEW: &str = "curl -fsSo ip-ranges.json https://ip-ranges.amazonaws.com/ip-ranges.json";

impl Networks {
    /// The networks of a named set; `None` for a word that names none.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        let (name, text) = NAMED.iter().find(|(name, _)| *name == word)?;
        Some(Self { word: (*name).into(), nets: list(text).unwrap_or_default() })
    }
}

impl FromToml for Networks {
    fn from_toml(item: &Item<'_>, reading: &mut Reading<'_>) -> Option<Self> {
        let word = item.text(reading)?;
        match read(&word, reading) {
            Ok((nets, stale)) => {
                if let Some(Fault { message, hint }) = stale {
                    let message = format!("`{}`: {message}", item.name());
                    reading.complaints.warning(Some(&item.place), message, hint);
                }
                Some(Self { word: word.into(), nets })
            }
            Err(fault) => {
                let message = format!("`{}`: {}", item.name(), fault.message);
                reading.complaints.error(Some(&item.place), message, fault.hint);
                None
            }
        }
    }
}

/// Every network of a list of elements.
pub fn all(list: &[Placed<Networks>]) -> impl Iterator<Item = IpNet> {
    list.iter().flat_map(|element| element.value.nets.iter().copied())
}

/// What a word means, and what there is to say of the age of it.
fn read(word: &str, reading: &Reading<'_>) -> Result<(Box<[IpNet]>, Option<Fault>), Fault> {
    if let Some(named) = Networks::named(word) {
        return Ok((named.nets, shipped_is_old(word, clock::millis())));
    }
    let Some(path) = word.strip_prefix("file:") else {
        return IpNet::from_text(word).map(|net| ([net].into(), None)).map_err(|fault| meant(word, fault));
    };
    let path = reading.base.join(path);
    let text = file::text(&path, LARGEST).map_err(|error| {
        let hint = "a list has one address or range on each line, or is AWS' ip-ranges.json";
        Fault::new(format!("cannot read {}: {error}", path.display()), hint)
    })?;
    let json = text.trim_start().starts_with('{');
    let nets = if json { ip_ranges(&text) } else { list(&text) };
    let place = path.display();
    let stale = json.then(|| fetched_is_old(&text, &place.to_string(), clock::millis())).flatten();
    nets.map(|nets| (nets, stale))
        .map_err(|fault| Fault { message: format!("{place}: {}", fault.message), ..fault })
}

/// Says that a named set is the list of a day long ago, if it is: only `CloudFront`'s has one.
fn shipped_is_old(word: &str, now: Millis) -> Option<Fault> {
    let (_, text) = NAMED.iter().find(|(name, _)| *name == word)?;
    let token = text.split_once("syncToken ")?.1.split(|c: char| !c.is_ascii_digit()).next()?;
    let days = older(token, SHIPPED_MAX, now)?;
    let message = format!("the list `{word}` of this version is {days} days old");
    Some(Fault::new(
        message,
        format!("install a newer version, or `{RENEW}` and `file:ip-ranges.json` in its place"),
    ))
}

/// Says that a list of AWS' was made long ago, if it was.
fn fetched_is_old(text: &str, place: &str, now: Millis) -> Option<Fault> {
    let document: Value = serde_json::from_str(text).ok()?;
    let days = older(document.get("syncToken")?.as_str()?, FETCHED_MAX, now)?;
    let message =
        format!("{place} is {days} days old; visitors through newer networks of CloudFront count as one");
    Some(Fault::new(message, format!("in its folder: `{RENEW}`, then reload")))
}

/// The age in days of what was made then (seconds since 1970, as AWS writes it), if that is more than `most`.
fn older(token: &str, most: Duration, now: Millis) -> Option<u64> {
    let made = Millis(token.parse::<u64>().ok()?.saturating_mul(1_000));
    let age = now.since(made);
    (age > most).then_some(age.as_secs() / 86_400)
}

/// A word that is neither a range nor a name: perhaps a name misspelt.
fn meant(word: &str, fault: Fault) -> Fault {
    if word.bytes().any(|byte| byte.is_ascii_digit() || byte == b':') {
        return fault;
    }
    let hint = did_you_mean(word, NAMED.iter().map(|(name, _)| *name)).unwrap_or_else(|| {
        "write an address, a range (`192.0.2.0/24`), `vpc`, `cloudfront`, or `file:PATH`".to_owned()
    });
    Fault::new(fault.message, hint)
}

/// One address or range on each line; `#` begins a remark.
///
/// # Errors
/// For the first line that is none, with its number.
pub fn list(text: &str) -> Result<Box<[IpNet]>, Fault> {
    let lines = text.lines().zip(1..).map(|(line, number): (&str, usize)| {
        let entry = line.split('#').next().unwrap_or_default().trim();
        (!entry.is_empty()).then(|| {
            IpNet::from_text(entry)
                .map_err(|fault| Fault { message: format!("line {number}: {}", fault.message), ..fault })
        })
    });
    lines.flatten().collect()
}

/// The CDN's networks in the file that AWS publishes (<https://ip-ranges.amazonaws.com/ip-ranges.json>).
///
/// # Errors
/// When it is not that file, or names no network of the CDN.
pub fn ip_ranges(text: &str) -> Result<Box<[IpNet]>, Fault> {
    let whole = || Fault::new("it is JSON, but not AWS' ip-ranges.json", "fetch it again, whole");
    let document: Value = serde_json::from_str(text).map_err(|_| whole())?;
    let prefixes: Vec<&Value> = ["prefixes", "ipv6_prefixes"]
        .iter()
        .filter_map(|key| document.get(key)?.as_array())
        .flatten()
        .collect();
    if prefixes.is_empty() {
        return Err(whole());
    }
    let of = |service: &str| -> Result<Box<[IpNet]>, Fault> {
        let own =
            prefixes.iter().filter(|entry| entry.get("service").and_then(Value::as_str) == Some(service));
        own.map(|entry| prefix(entry).ok_or_else(whole)).collect()
    };
    for service in CLOUDFRONT {
        let nets = of(service)?;
        if !nets.is_empty() {
            return Ok(nets);
        }
    }
    let hint = "only CloudFront's networks are taken: anybody can rent an address of EC2";
    Err(Fault::new("there is no network of CloudFront in it", hint))
}

fn prefix(entry: &Value) -> Option<IpNet> {
    let text = entry.get("ip_prefix").or_else(|| entry.get("ipv6_prefix"))?.as_str()?;
    IpNet::from_text(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::cidr::NetSet;
    use crate::guard::testing;

    #[test]
    fn the_named_sets_are_what_they_say() {
        let holds = |name: &str, addr: &str| {
            let nets = Networks::named(name).unwrap().nets;
            nets.iter().copied().collect::<NetSet>().contains(addr.parse().unwrap())
        };
        for inside in ["10.1.2.3", "172.31.255.255", "192.168.0.1", "100.64.0.1", "fd00:ec2::1"] {
            assert!(holds("vpc", inside), "{inside}");
        }
        for outside in ["172.32.0.1", "100.128.0.1", "127.0.0.1", "169.254.169.254", "fe80::1", "2001:db8::1"]
        {
            assert!(!holds("vpc", outside), "{outside}");
        }
        assert!(holds("cloudfront", "130.176.1.1") && holds("cloudfront", "2600:9000:1000::1"));
        assert!(!holds("cloudfront", "3.5.140.1") && !holds("cloudfront", "10.0.0.1"));
        assert!(Networks::named("cloudfront").unwrap().nets.len() > 40, "the shipped list is whole");
    }

    #[test]
    fn a_list_is_read_line_by_line() {
        let nets = list("# the office\n192.0.2.7\n\n2001:db8::/32 # and v6\n").unwrap();
        assert_eq!(
            nets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.7/32", "2001:db8::/32"]
        );
        let fault = list("192.0.2.0/24\n192.0.2.1/24\n").unwrap_err();
        assert!(fault.message.starts_with("line 2: "), "{fault:?}");
        assert_eq!(fault.hint.as_deref(), Some("did you mean `192.0.2.0/24`?"));
    }

    #[test]
    fn of_aws_ranges_only_cloudfronts_are_taken() {
        let entry = |key: &str, net: &str, service: &str| {
            format!("{{\"{key}\":\"{net}\",\"region\":\"GLOBAL\",\"service\":\"{service}\"}}")
        };
        let file = |v4: &[String], v6: &[String]| {
            format!("{{\"prefixes\":[{}],\"ipv6_prefixes\":[{}]}}", v4.join(","), v6.join(","))
        };
        let ec2 = entry("ip_prefix", "3.5.140.0/22", "EC2");
        let edge = entry("ip_prefix", "13.32.0.0/15", "CLOUDFRONT");
        let origin = entry("ipv6_prefix", "2600:9000:1000::/36", "CLOUDFRONT_ORIGIN_FACING");
        let taken =
            |text: &str| ip_ranges(text).map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>());
        let found = taken(&file(&[ec2.clone(), edge.clone()], &[origin])).unwrap();
        assert_eq!(found, ["2600:9000:1000::/36"]);
        assert_eq!(taken(&file(&[ec2.clone(), edge], &[])).unwrap(), ["13.32.0.0/15"]);
        assert!(ip_ranges(&file(&[ec2], &[])).unwrap_err().hint.unwrap().contains("rent an address"));
        for broken in ["{", "{}", "{\"prefixes\":[]}", "{\"prefixes\":[{\"service\":\"CLOUDFRONT\"}]}", "[]"]
        {
            assert!(ip_ranges(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_list_that_grew_old_is_said_with_what_renews_it() {
        let made = 1_787_411_825;
        let day = |days: u64| Millis((made + days * 86_400) * 1_000);
        assert!(
            shipped_is_old("cloudfront", day(365)).is_none()
                && shipped_is_old("cloudfront", Millis(0)).is_none()
        );
        assert!(shipped_is_old("vpc", day(9_999)).is_none(), "those ranges never change");
        let said = shipped_is_old("cloudfront", day(366)).unwrap();
        assert!(
            said.message.contains("366 days old") && said.hint.unwrap().contains(RENEW),
            "{}",
            said.message
        );
        let text = format!("{{\"syncToken\":\"{made}\",\"prefixes\":[]}}");
        assert!(fetched_is_old(&text, "x.json", day(90)).is_none());
        let said = fetched_is_old(&text, "x.json", day(91)).unwrap();
        assert!(said.message.starts_with("x.json is 91 days old") && said.hint.unwrap().contains(RENEW));
        for odd in ["{}", "{\"syncToken\":7}", "{\"syncToken\":\"-1\"}", "{"] {
            assert!(fetched_is_old(odd, "x.json", day(9_999)).is_none(), "{odd}");
        }
    }

    #[test]
    fn an_old_file_is_a_warning_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let entry = "{\"ipv6_prefix\":\"2600:9000:1000::/36\",\"service\":\"CLOUDFRONT\"}";
        let text = format!("{{\"syncToken\":\"1500000000\",\"prefixes\":[],\"ipv6_prefixes\":[{entry}]}}");
        std::fs::write(folder.path().join("ip-ranges.json"), text).unwrap();
        let written = format!("nets = [\"file:{}\"]", folder.path().join("ip-ranges.json").display());
        let (nets, complaints) = testing::read(&written, |section, reading| {
            section.get::<Vec<Placed<Networks>>>(reading, "nets").unwrap()
        });
        assert_eq!(all(&nets.value).count(), 1, "it is in force");
        let said = complaints.to_string();
        assert!(!complaints.has_errors() && said.contains("days old") && said.contains(RENEW), "{said}");
    }

    #[test]
    fn elements_are_ranges_names_and_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("list"), "198.51.100.0/24\n").unwrap();
        let file = format!("file:{}", folder.path().join("list").display());
        let text = format!("nets = [\"192.0.2.0/24\", \"vpc\", \"{file}\"]");
        let (nets, complaints) = testing::read(&text, |section, reading| {
            section.get::<Vec<Placed<Networks>>>(reading, "nets").unwrap()
        });
        assert!(complaints.is_empty(), "{complaints}");
        assert_eq!(all(&nets.value).count(), 1 + 5 + 1);
        assert_eq!(&*nets.value[1].value.word, "vpc");
        for (written, said) in [
            ("cloudfrnt", "did you mean `cloudfront`?"),
            ("everybody", "or `file:PATH`"),
            ("10.0.0.1/8", "did you mean `10.0.0.0/8`?"),
            ("file:/nowhere/list", "cannot read /nowhere/list"),
        ] {
            let (_, complaints) = testing::read(&format!("nets = [\"{written}\"]"), |section, reading| {
                section.get::<Vec<Placed<Networks>>>(reading, "nets")
            });
            assert!(
                complaints.has_errors() && complaints.to_string().contains(said),
                "{written}: {complaints}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}", lines in "([0-9a-f.:/# ]{0,20}\n){0,5}") {
            let _ = (list(&text), list(&lines), ip_ranges(&text));
        }
    }
}
