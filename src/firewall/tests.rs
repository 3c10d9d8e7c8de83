//! Tables of rules: what they mean (`tests/corpus/ingress.yaml`), and that they survive the way to AWS and back.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::config::complaint::Source;
use crate::guard::testing;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    table: String,
    #[serde(default = "usual")]
    own: Vec<u16>,
    #[serde(default, rename = "in")]
    inside: Vec<String>,
    #[serde(default)]
    out: Vec<String>,
    #[serde(default)]
    says: Vec<String>,
    times: Option<usize>,
}

fn usual() -> Vec<u16> {
    vec![80, 443]
}

fn compile(text: &str, own: &[u16]) -> (Table, Complaints) {
    let (raw, mut complaints) = testing::read(text, Raw::read);
    let source = Arc::new(Source { name: "listeners".to_owned(), text: String::new() });
    let place = |port: &u16| (*port, Place { source: Arc::clone(&source), span: 0..0 });
    let own: Vec<_> = own.iter().map(place).collect();
    let table = raw.compile(&own, &mut complaints);
    (table, complaints)
}

fn good(text: &str) -> Table {
    let (table, complaints) = compile(text, &[80, 443]);
    assert!(!complaints.has_errors(), "{complaints}");
    table
}

fn asked(entry: &str) -> (u16, IpAddr) {
    let (port, addr) = entry.split_once(' ').unwrap();
    (port.parse().unwrap(), addr.trim_matches('"').parse().unwrap())
}

#[test]
fn the_corpus_of_tables() {
    let corpus: Vec<Case> = serde_norway::from_str(include_str!("../../tests/corpus/ingress.yaml")).unwrap();
    assert!(corpus.len() >= 25);
    for case in corpus {
        let (table, complaints) = compile(&case.table, &case.own);
        let said = complaints.to_string();
        assert_eq!(case.says.is_empty(), complaints.is_empty(), "{}: {said}", case.name);
        for part in &case.says {
            assert!(said.contains(part), "{}: it should say {part:?}, but said {said}", case.name);
        }
        if let Some(times) = case.times {
            assert_eq!(complaints.iter().count(), times, "{}: {said}", case.name);
        }
        for (entries, expected) in [(&case.inside, true), (&case.out, false)] {
            for entry in entries {
                let (port, addr) = asked(entry);
                let found = table.sources(port).is_none_or(|sources| sources.contains(addr));
                assert_eq!(found, expected, "{}: {entry}", case.name);
                let named = table.sources(port).is_none() || table.admits(port, addr).is_some();
                assert_eq!(named, expected, "{}: {entry}, by rule", case.name);
            }
        }
    }
}

const EVERYTHING: &str = r#"
[[ingress]]
type = "HTTP"
source = ["0.0.0.0/0", "::/0"]
description = "visitors"
[[ingress]]
type = "HTTPS"
source = ["0.0.0.0/0", "::/0"]
[[ingress]]
type = "SSH"
source = ["203.0.113.0/24"]
description = "office | VPN \"home\""
[[ingress]]
protocol = "tcp"
port = "8000-8100"
source = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]
[[ingress]]
protocol = "icmp"
icmp_type = 3
icmp_code = 4
source = ["0.0.0.0/0"]
[[ingress]]
protocol = "icmpv6"
icmp_type = 128
source = ["::/0"]
[[ingress]]
type = "All ICMP - IPv4"
source = ["10.0.0.0/8"]
[[ingress]]
protocol = "47"
source = ["198.51.100.1"]
[[ingress]]
type = "All UDP"
source = ["10.0.0.0/8"]
[[egress]]
type = "MySQL"
destination = ["10.0.1.0/24"]
description = "the database"
[[egress]]
type = "All traffic"
destination = ["169.254.0.0/16"]
"#;

/// What a rule says, without where it stands.
fn meaning(table: &Table) -> Vec<String> {
    let say = |rule: &Rule| {
        let mut nets = rule.nets.to_vec();
        nets.sort();
        format!("{:?} {:?} {:?} {:?} {nets:?}", rule.direction, rule.protocol, rule.ports, rule.icmp)
    };
    let mut all: Vec<String> = table.rules().iter().map(say).collect();
    all.sort();
    all
}

/// What `aws ec2 describe-security-groups` would show of a group with these rules.
fn described(table: &Table) -> String {
    let permissions = |direction| export::aws(table, direction, "sg-1")["IpPermissions"].clone();
    json!({ "SecurityGroups": [{
        "GroupId": "sg-1", "GroupName": "web", "Description": "two\nlines",
        "IpPermissions": permissions(Direction::Ingress), "IpPermissionsEgress": permissions(Direction::Egress),
    }]})
    .to_string()
}

#[test]
fn a_table_goes_to_aws_and_comes_back() {
    let table = good(EVERYTHING);
    let imported = import::aws(&described(&table)).unwrap();
    assert_eq!((imported.rules, imported.left_out.len()), (table.rules().len(), 0), "{}", imported.toml);
    assert_eq!(meaning(&good(&imported.toml)), meaning(&table), "{}", imported.toml);
    assert!(imported.toml.contains("description = \"the database\""), "{}", imported.toml);
    assert!(imported.toml.contains("# Security group sg-1 (web): two lines\n"), "{}", imported.toml);
}

#[test]
fn what_aws_alone_can_look_up_is_left_out_and_said() {
    let text = r#"{"SecurityGroups":[{"GroupId":"sg-9","GroupName":"x","Description":"y","IpPermissions":[
        {"IpProtocol":"tcp","FromPort":80,"ToPort":80,"IpRanges":[{"CidrIp":"10.0.0.0/8"}],"Ipv6Ranges":[],
         "PrefixListIds":[{"PrefixListId":"pl-3b927c52","Description":"CloudFront"}],
         "UserIdGroupPairs":[{"GroupId":"sg-0a","UserId":"1","Description":"the ALB"}]},
        {"IpProtocol":"icmp","FromPort":8,"ToPort":-1,"IpRanges":[{"CidrIp":"0.0.0.0/0","Description":"ping"}]},
        {"IpProtocol":"tcp","FromPort":22,"ToPort":22,"UserIdGroupPairs":[{"GroupId":"sg-0b"}]},
        {"IpProtocol":"bogus","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}],
        "IpPermissionsEgress":[{"IpProtocol":"-1","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}]}]}"#;
    let imported = import::aws(text).unwrap();
    assert_eq!(imported.rules, 3, "{}", imported.toml);
    let said = imported.left_out.join("\n");
    for part in [
        "pl-3b927c52 (CloudFront)",
        "sg-0a (the ALB)",
        "tcp 22 from whatever has security group sg-0b",
        "bogus",
    ] {
        assert!(said.contains(part) && imported.toml.contains(part), "{part}: {said}\n{}", imported.toml);
    }
    let table = good(&imported.toml);
    assert_eq!(table.rules()[1].icmp, Some(rule::Icmp { kind: 8, code: None }));
    assert_eq!(table.rules()[2].service(), "all traffic");
    for broken in ["", "[]", "{}", "{\"SecurityGroups\":3}"] {
        assert!(import::aws(broken).is_err(), "{broken:?}");
    }
}

#[test]
fn every_export_says_what_ravelin_does_not_enforce() {
    let table = good(EVERYTHING);
    let json = export::json(&table);
    let notes: Vec<(&str, bool)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (rule["type"].as_str().unwrap(), rule["enforced_by_ravelin"].as_bool().unwrap()))
        .collect();
    assert_eq!(&notes[..3], [("HTTP", true), ("HTTPS", true), ("SSH", false)]);
    assert!(notes[3..].iter().all(|(_, enforced)| !enforced));
    let markdown = export::markdown(&table);
    assert!(markdown.contains("| SSH | tcp | 22 | `203.0.113.0/24` | office \\| VPN \"home\" | not enforced by Ravelin: Ravelin does not listen there |"), "{markdown}");
    assert!(
        markdown.contains("## Egress") && markdown.contains("| MYSQL/Aurora | tcp | 3306 | `10.0.1.0/24` |")
    );
    let nft = export::nftables(&table);
    for line in [
        "type filter hook input priority filter; policy drop;",
        "ct state established,related accept",
        "iif lo accept",
        "nd-neighbor-solicit",
        "meta nfproto ipv4 tcp dport 443 accept",
        "ip saddr { 203.0.113.0/24 } tcp dport 22 accept comment \"office | VPN  home \"",
        "ip saddr { 10.0.0.0/8 } tcp dport 8000-8100 accept",
        "icmp type 3 icmp code 4 accept",
        "ip daddr { 10.0.1.0/24 } tcp dport 3306 accept comment \"the database\"",
        "hook output priority filter; policy drop;",
        "not enforced by Ravelin: Ravelin does not listen there",
    ] {
        assert!(nft.contains(line), "{line}\n{nft}");
    }
    let no_egress = export::nftables(&good("[[ingress]]\ntype = \"HTTP\"\nsource = [\"0.0.0.0/0\"]"));
    assert!(
        !no_egress.contains("output"),
        "what goes out is not restricted by a table that says nothing of it"
    );
}

#[test]
fn aws_gets_what_it_takes() {
    let input = export::aws(&good(EVERYTHING), Direction::Ingress, "sg-1");
    let permissions = input["IpPermissions"].as_array().unwrap();
    assert_eq!(
        permissions[0],
        json!({
            "IpProtocol": "tcp", "FromPort": 80, "ToPort": 80,
            "IpRanges": [{ "CidrIp": "0.0.0.0/0", "Description": "visitors" }],
            "Ipv6Ranges": [{ "CidrIpv6": "::/0", "Description": "visitors" }],
        })
    );
    assert_eq!(permissions[2]["IpRanges"][0]["Description"], "office _ VPN _home_");
    assert_eq!((&permissions[4]["FromPort"], &permissions[4]["ToPort"]), (&json!(3), &json!(4)));
    assert_eq!((&permissions[5]["FromPort"], &permissions[5]["ToPort"]), (&json!(128), &json!(-1)));
    assert_eq!(permissions[7]["FromPort"], Value::Null);
    assert_eq!(
        permissions[8],
        json!({
            "IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, "IpRanges": [{ "CidrIp": "10.0.0.0/8" }],
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The flattened table lets in exactly whom one of the rules lets in.
    #[test]
    fn the_flattened_table_agrees_with_asking_every_rule(
        rules in prop::collection::vec(
            (1u16..6, 0u16..4, prop::collection::vec((0u32..256, 24u8..=32, any::<bool>()), 0..6)), 1..8),
        asked in prop::collection::vec((1u16..8, 0u32..256, any::<bool>()), 1..30),
    ) {
        let addr = |bits: u32, v6: bool| if v6 {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::from(bits)))
        } else {
            IpAddr::V4(bits.into())
        };
        let net = |(bits, length, v6): &(u32, u8, bool)| {
            let length = if *v6 { length + 96 } else { *length };
            IpNet::new(addr(*bits, *v6), length).unwrap().trunc()
        };
        let mut text = String::new();
        for (first, more, nets) in &rules {
            let list: Vec<String> = nets.iter().map(|entry| format!("\"{}\"", net(entry))).collect();
            let _ = write!(
                text,"[[ingress]]\nport = \"{first}-{}\"\nsource = [{}]\n", first + more, list.join(","));
        }
        let table = compile(&text, &[]).0;
        for (port, bits, v6) in asked {
            let who = addr(bits, v6);
            let of_port = || rules.iter().filter(|(first, more, _)| (*first..=first + more).contains(&port));
            let naive = of_port().any(|(.., nets)| nets.iter().any(|entry| net(entry).contains(&who)));
            let found = table.sources(port).map(|sources| sources.contains(who));
            prop_assert_eq!(found, of_port().next().map(|_| naive));
        }
    }

    #[test]
    fn any_json_is_survived(text in "\\PC{0,60}", port in any::<i64>(), protocol in "[a-z0-9-]{0,6}") {
        let _ = import::aws(&text);
        let group = json!({ "SecurityGroups": [{ "IpPermissions": [
            { "IpProtocol": protocol, "FromPort": port, "ToPort": port, "IpRanges": [{ "CidrIp": text }] }] }] });
        let _ = import::aws(&group.to_string());
    }
}
