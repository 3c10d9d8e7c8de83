//! The table of rules for those who enforce or read it: AWS, nftables, people, programs.

use std::fmt::Write as _;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::rule::{ALL_PORTS, Direction, Icmp, Protocol, Rule};
use super::{Table, merged};

/// The longest description that AWS takes, in characters; nftables takes 128 bytes for a remark.
const AWS_DESCRIPTION: usize = 255;
const NFT_REMARK: usize = 128;

/// What Ravelin itself does about a rule, in words.
#[must_use]
pub fn enforced(table: &Table, rule: &Rule) -> String {
    match table.beyond(rule) {
        None => "enforced by Ravelin when a connection is accepted".to_owned(),
        Some(part @ "only for the ports that Ravelin listens on") => format!("enforced by Ravelin {part}"),
        Some(why) => format!("not enforced by Ravelin: {why}"),
    }
}

/// The input of `aws ec2 authorize-security-group-ingress` or `-egress` (`--cli-input-json`).
#[must_use]
pub fn aws(table: &Table, direction: Direction, group: &str) -> Value {
    let rules = table.rules().iter().filter(|rule| rule.direction == direction && !rule.nets.is_empty());
    json!({ "GroupId": group, "IpPermissions": rules.map(permission).collect::<Vec<_>>() })
}

fn permission(rule: &Rule) -> Value {
    let mut permission = Map::new();
    permission.insert("IpProtocol".to_owned(), rule.protocol.to_string().into());
    let bounds = match (rule.protocol, rule.ports, rule.icmp) {
        (_, Some(ports), _) => Some((i32::from(ports.first), i32::from(ports.last))),
        (_, _, Some(Icmp { kind, code })) => Some((i32::from(kind), code.map_or(-1, i32::from))),
        (Protocol::Icmp | Protocol::Icmpv6, ..) => Some((-1, -1)),
        _ => None,
    };
    if let Some((from, to)) = bounds {
        permission.insert("FromPort".to_owned(), from.into());
        permission.insert("ToPort".to_owned(), to.into());
    }
    let description = rule.description.as_deref().map(aws_description);
    let ranges = |key: &str, v6: bool| -> Vec<Value> {
        let nets = rule.nets.iter().filter(|net| matches!(net, IpNet::V6(_)) == v6);
        let range = |net: &IpNet| match &description {
            Some(text) => json!({ key: net.to_string(), "Description": text }),
            None => json!({ key: net.to_string() }),
        };
        nets.map(range).collect()
    };
    for (name, key, v6) in [("IpRanges", "CidrIp", false), ("Ipv6Ranges", "CidrIpv6", true)] {
        let ranges = ranges(key, v6);
        if !ranges.is_empty() {
            permission.insert(name.to_owned(), ranges.into());
        }
    }
    permission.into()
}

/// AWS takes letters, digits, blanks and `._-:/()#,@[]+=&;{}!$*` (EC2 API, `IpRange`).
fn aws_description(text: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(letter);
    text.chars().map(|letter| if allowed(letter) { letter } else { '_' }).take(AWS_DESCRIPTION).collect()
}

/// Every rule for programs.
#[must_use]
pub fn json(table: &Table) -> Value {
    let rule = |rule: &Rule| {
        json!({
            "direction": rule.direction.word(),
            "type": rule.kind(),
            "protocol": rule.protocol.to_string(),
            "port": rule.ports.map(|ports| ports.to_string()),
            "icmp_type": rule.icmp.map(|icmp| icmp.kind),
            "icmp_code": rule.icmp.and_then(|icmp| icmp.code),
            rule.direction.key(): rule.nets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "description": rule.description,
            "enforced_by_ravelin": table.beyond(rule).is_none(),
            "note": enforced(table, rule),
            "line": rule.place.as_ref().map(crate::config::complaint::Place::label),
        })
    };
    table.rules().iter().map(rule).collect()
}

/// A table for people, in Markdown.
#[must_use]
pub fn markdown(table: &Table) -> String {
    let mut out = String::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let (title, other) = match direction {
            Direction::Ingress => ("Ingress", "Source"),
            Direction::Egress => ("Egress", "Destination"),
        };
        let mut rules = table.rules().iter().filter(|rule| rule.direction == direction).peekable();
        if rules.peek().is_none() {
            continue;
        }
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ =
            writeln!(out, "{gap}## {title}\n\n| Type | Protocol | Port | {other} | Description | Enforced |");
        let _ = writeln!(out, "|---|---|---|---|---|---|");
        for rule in rules {
            let protocol =
                if rule.protocol == Protocol::All { "all".to_owned() } else { rule.protocol.to_string() };
            let nets: Vec<String> = rule.nets.iter().map(|net| format!("`{net}`")).collect();
            let nets = if nets.is_empty() { "nobody".to_owned() } else { nets.join(", ") };
            let description = cell(rule.description.as_deref().unwrap_or_default());
            let port = port(rule);
            let _ = writeln!(
                out,
                "| {} | {protocol} | {port} | {nets} | {description} | {} |",
                rule.kind(),
                enforced(table, rule)
            );
        }
    }
    out
}

fn port(rule: &Rule) -> String {
    match (rule.protocol, rule.ports, rule.icmp) {
        (Protocol::All, ..) => "all".to_owned(),
        (_, Some(ports), _) if ports == ALL_PORTS => "all".to_owned(),
        (_, Some(ports), _) => ports.to_string(),
        (_, _, Some(Icmp { kind, code: Some(code) })) => format!("type {kind} code {code}"),
        (_, _, Some(Icmp { kind, code: None })) => format!("type {kind}"),
        _ => "–".to_owned(),
    }
}

/// Text that neither ends a cell nor a line, and starts no HTML.
fn cell(text: &str) -> String {
    let escaped = |letter: char| match letter {
        '|' | '\\' | '<' | '`' | '[' => format!("\\{letter}"),
        letter if letter.is_control() => " ".to_owned(),
        letter => letter.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// What every host needs: answers to what it asked for, itself, and the messages without which IPv6 does not work
/// (RFC 4890 section 4.4).
const NFT_BASE: &str = "\t\tct state established,related accept\n\t\tct state invalid drop\n\t\tIF lo accept\n\
    \t\ticmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, \
    nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, \
    mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept\n";

/// A script for `nft -f`: one table of its own, which replaces itself when it is loaded again.
#[must_use]
pub fn nftables(table: &Table) -> String {
    let mut out = "#!/usr/sbin/nft -f\n# Made by `ravelin firewall export --format nftables`. It replaces the table `inet ravelin` \
                   and touches no other.\n# Try it first: nft -c -f FILE. What is not let in below is dropped, ssh included.\n\n\
                   table inet ravelin\ndelete table inet ravelin\n\ntable inet ravelin {\n"
        .to_owned();
    chain(table, Direction::Ingress, &mut out);
    let egress = table.rules().iter().any(|rule| rule.direction == Direction::Egress);
    if egress {
        out.push('\n');
        chain(table, Direction::Egress, &mut out);
    }
    out.push_str("}\n");
    out
}

fn chain(table: &Table, direction: Direction, out: &mut String) {
    let (name, interface) = match direction {
        Direction::Ingress => ("input", "iif"),
        Direction::Egress => ("output", "oif"),
    };
    let _ = writeln!(out, "\tchain {name} {{\n\t\ttype filter hook {name} priority filter; policy drop;");
    out.push_str(&NFT_BASE.replace("IF", interface));
    for rule in table.rules().iter().filter(|rule| rule.direction == direction) {
        nft_rule(table, rule, out);
    }
    out.push_str("\t}\n");
}

fn nft_rule(table: &Table, rule: &Rule, out: &mut String) {
    let side = if rule.direction == Direction::Ingress { "saddr" } else { "daddr" };
    let _ = writeln!(out, "\t\t# {} ({}): {}", rule.kind(), rule.service(), enforced(table, rule));
    let nets = merged(&rule.nets);
    let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) = nets.iter().partition(|net| matches!(net, IpNet::V4(_)));
    for (family, nets) in [("ip", v4), ("ip6", v6)] {
        if nets.is_empty() {
            continue;
        }
        let list: Vec<String> = nets.iter().map(ToString::to_string).collect();
        let everywhere = nets.iter().any(|net| net.prefix_len() == 0);
        let from = if everywhere {
            nfproto(family).to_owned()
        } else {
            format!("{family} {side} {{ {} }}", list.join(", "))
        };
        let remark = rule.description.as_deref().map(remark).unwrap_or_default();
        let _ = writeln!(out, "\t\t{from}{} accept{remark}", nft_service(rule));
    }
}

fn nfproto(family: &str) -> &'static str {
    if family == "ip" { "meta nfproto ipv4" } else { "meta nfproto ipv6" }
}

fn nft_service(rule: &Rule) -> String {
    match (rule.protocol, rule.ports, rule.icmp) {
        (Protocol::All, ..) => String::new(),
        (protocol, Some(ports), _) if ports == ALL_PORTS => format!(" meta l4proto {protocol}"),
        (protocol, Some(ports), _) => format!(" {protocol} dport {ports}"),
        (protocol, _, Some(Icmp { kind, code })) => {
            let code = code.map(|code| format!(" {protocol} code {code}")).unwrap_or_default();
            format!(" {protocol} type {kind}{code}")
        }
        (Protocol::Icmpv6, ..) => " meta l4proto ipv6-icmp".to_owned(),
        (protocol, ..) => format!(" meta l4proto {protocol}"),
    }
}

/// A remark in quotes, which nftables cannot escape.
fn remark(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        let letter = if letter == '"' || letter == '\\' || letter.is_control() { ' ' } else { letter };
        if plain.len() + letter.len_utf8() > NFT_REMARK {
            break;
        }
        plain.push(letter);
    }
    format!(" comment \"{plain}\"")
}
