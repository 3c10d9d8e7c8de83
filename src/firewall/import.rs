//! A security group of AWS (`aws ec2 describe-security-groups`) as `[[ingress]]` and `[[egress]]`.

use std::fmt::Write as _;

use ipnet::IpNet;
use serde_json::Value;

use super::kind;
use super::rule::{ALL_PORTS, Direction, Ports, Protocol};
use crate::config::section::FromText;

/// What became of a security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The rules, TOML. What cannot be said in it stands there as a remark.
    pub toml: String,
    /// How many rules were written.
    pub rules: usize,
    /// What could not be taken over, one sentence each.
    pub left_out: Vec<String>,
}

/// Reads the output of `aws ec2 describe-security-groups`, or the input of `authorize-security-group-ingress` that
/// `ravelin firewall export --format aws` writes.
///
/// # Errors
/// A sentence, when the text is no JSON or of another kind.
pub fn aws(text: &str) -> Result<Imported, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    let mut imported = Imported::default();
    if let Some(groups) = document.get("SecurityGroups").and_then(Value::as_array) {
        for group in groups {
            imported.group(group);
        }
        return Ok(imported);
    }
    let mut found = false;
    for direction in [Direction::Ingress, Direction::Egress] {
        let key = format!("authorize-security-group-{}", direction.word());
        if let Some(permissions) = document.get(&key).and_then(|input| array(input, "IpPermissions")) {
            found = true;
            for permission in permissions {
                imported.permission(direction, permission);
            }
        }
    }
    if found {
        return Ok(imported);
    }
    let permissions = array(&document, "IpPermissions").ok_or(
        "there is neither `SecurityGroups` nor `IpPermissions` in it: write the output of \
         `aws ec2 describe-security-groups --group-ids sg-… --output json` to a file",
    )?;
    for permission in permissions {
        imported.permission(Direction::Ingress, permission);
    }
    Ok(imported)
}

impl Imported {
    fn group(&mut self, group: &Value) {
        let of = |key| text(group, key);
        let _ = writeln!(
            self.toml,
            "# Security group {} ({}): {}\n",
            of("GroupId"),
            of("GroupName"),
            of("Description")
        );
        for (direction, key) in
            [(Direction::Ingress, "IpPermissions"), (Direction::Egress, "IpPermissionsEgress")]
        {
            for permission in array(group, key).into_iter().flatten() {
                self.permission(direction, permission);
            }
        }
    }

    fn permission(&mut self, direction: Direction, permission: &Value) {
        let service = match service(permission) {
            Ok(service) => service,
            Err(why) => return self.leave_out(direction, &why),
        };
        // AWS describes each range, and a rule is described as a whole: one rule for each description.
        let mut described: Vec<(String, Vec<IpNet>)> = Vec::new();
        for (list, key) in [("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")] {
            for range in array(permission, list).into_iter().flatten() {
                let written = text(range, key);
                let Ok(net) = IpNet::from_text(&written) else {
                    self.leave_out(direction, &format!("`{written}`, which is no address range"));
                    continue;
                };
                let description = text(range, "Description");
                match described.iter_mut().find(|(known, _)| *known == description) {
                    Some((_, nets)) => nets.push(net),
                    None => described.push((description, vec![net])),
                }
            }
        }
        for (description, nets) in described {
            self.rule(direction, &service, &nets, &description);
        }
        self.references(direction, &service, permission);
    }

    /// What only AWS can look up: who is in a group, or on a list.
    fn references(&mut self, direction: Direction, service: &Service, permission: &Value) {
        for pair in array(permission, "UserIdGroupPairs").into_iter().flatten() {
            let what = format!(
                "{} {} whatever has security group {}{}: only AWS knows its members; name their addresses instead",
                service.label(),
                towards(direction),
                text(pair, "GroupId"),
                remark(pair),
            );
            self.leave_out(direction, &what);
        }
        for list in array(permission, "PrefixListIds").into_iter().flatten() {
            let what = format!(
                "{} {} prefix list {}{}: `aws ec2 get-managed-prefix-list-entries` says its ranges; CloudFront's are \
                 the named set `cloudfront`",
                service.label(),
                towards(direction),
                text(list, "PrefixListId"),
                remark(list),
            );
            self.leave_out(direction, &what);
        }
    }

    fn leave_out(&mut self, direction: Direction, what: &str) {
        let _ = writeln!(self.toml, "# Left out of [[{}]]: {what}\n", direction.word());
        self.left_out.push(format!("{}: {what}", direction.word()));
    }

    fn rule(&mut self, direction: Direction, service: &Service, nets: &[IpNet], description: &str) {
        let out = &mut self.toml;
        let _ = writeln!(out, "[[{}]]", direction.word());
        for line in service.lines() {
            let _ = writeln!(out, "{line}");
        }
        let list: Vec<String> = nets.iter().map(|net| format!("\"{net}\"")).collect();
        let _ = writeln!(out, "{} = [{}]", direction.key(), list.join(", "));
        if !description.is_empty() {
            let _ = writeln!(out, "description = {}", quoted(description));
        }
        out.push('\n');
        self.rules += 1;
    }
}

/// Protocol, ports, and ICMP's type and code.
struct Service {
    protocol: Protocol,
    ports: Option<Ports>,
    icmp: Option<(u8, Option<u8>)>,
}

impl Service {
    fn lines(&self) -> Vec<String> {
        let name = kind::name(self.protocol, self.ports);
        let mut lines = Vec::new();
        match (self.protocol, self.ports) {
            (protocol, Some(ports)) => {
                lines.push(format!("type = \"{name}\""));
                if name.starts_with("Custom") {
                    lines.push(format!("protocol = \"{protocol}\""));
                    lines.push(if ports.first == ports.last {
                        format!("port = {ports}")
                    } else {
                        format!("port = \"{ports}\"")
                    });
                }
            }
            (Protocol::Number(number), None) => {
                lines.push("type = \"custom\"".to_owned());
                lines.push(format!("protocol = \"{number}\""));
            }
            (_, None) if self.icmp.is_none() => lines.push(format!("type = \"{name}\"")),
            (protocol, None) => {
                lines.push("type = \"custom\"".to_owned());
                lines.push(format!("protocol = \"{protocol}\""));
            }
        }
        if let Some((kind, code)) = self.icmp {
            lines.push(format!("icmp_type = {kind}"));
            lines.extend(code.map(|code| format!("icmp_code = {code}")));
        }
        lines
    }

    fn label(&self) -> String {
        match (self.protocol, self.ports) {
            (Protocol::All, _) => "all traffic".to_owned(),
            (protocol, Some(ports)) => format!("{protocol} {ports}"),
            (protocol, None) => protocol.to_string(),
        }
    }
}

fn service(permission: &Value) -> Result<Service, String> {
    let written = text(permission, "IpProtocol");
    let protocol = Protocol::from_text(&written).map_err(|fault| fault.message)?;
    let bound = |key: &str| permission.get(key).and_then(Value::as_i64);
    let (from, to) = (bound("FromPort"), bound("ToPort"));
    let odd = || format!("{protocol} with ports from {from:?} to {to:?}, which no rule can say");
    let port = |number: i64| u16::try_from(number).map_err(|_| odd());
    let byte = |number: i64| u8::try_from(number).map_err(|_| odd());
    let service = |ports, icmp| Service { protocol, ports, icmp };
    match (protocol, from, to) {
        (Protocol::Tcp | Protocol::Udp, None | Some(-1), _) => Ok(service(Some(ALL_PORTS), None)),
        (Protocol::Tcp | Protocol::Udp, Some(from), to) => {
            let ports = Ports { first: port(from)?, last: port(to.unwrap_or(from))? };
            if ports.first > ports.last || ports.last == 0 {
                Err(odd())
            } else {
                Ok(service(Some(ports), None))
            }
        }
        (Protocol::Icmp | Protocol::Icmpv6, Some(kind @ 0..), code) => {
            let code = code.filter(|code| *code >= 0).map(byte).transpose()?;
            Ok(service(None, Some((byte(kind)?, code))))
        }
        _ => Ok(service(None, None)),
    }
}

fn towards(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

fn remark(entry: &Value) -> String {
    let text = text(entry, "Description");
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn array<'v>(value: &'v Value, key: &str) -> Option<&'v Vec<Value>> {
    value.get(key)?.as_array()
}

/// A string without control characters: it stands in remarks, which end with their line.
fn text(value: &Value, key: &str) -> String {
    let text = value.get(key).and_then(Value::as_str).unwrap_or_default();
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
