//! How the operator writes hosts: `www.example.org`, `*.example.com`, or `*`.

use std::fmt;

use super::decode::Authority;
use crate::config::section::{Fault, FromText};

/// A host or a family of hosts, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host and no other.
    Exact(Box<str>),
    /// Every host with one or more labels in front of this name; not the name itself.
    Below(Box<str>),
    /// Every host.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl FromText for HostPattern {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        check_spelling(text, name)?;
        let authority = Authority::parse(name)
            .map_err(|fault| Fault::new(format!("`{text}` is not a host: {fault}"), HINT))?;
        check_normal(text, &authority, below)?;
        let host = authority.host.into_owned().into_boxed_str();
        Ok(if below { Self::Below(host) } else { Self::Exact(host) })
    }
}

const HINT: &str = "write `www.example.org`, `*.example.com` (every name below it), or `*` (every host)";

/// The mistakes that have a better answer than the grammar's.
fn check_spelling(text: &str, name: &str) -> Result<(), Fault> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?']).next().unwrap_or(rest);
        return Err(Fault::new(format!("`{text}` is an address, not a host"), mean(host)));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(Fault::new(format!("`{text}` has a path; a host has none"), mean(host)));
    }
    if !text.is_ascii() {
        let message = format!("`{text}` is not in the form that browsers send");
        let hint =
            "write its ASCII form, which starts with `xn--` (your registrar names it, or `idn2 NAME` does)";
        return Err(Fault::new(message, hint));
    }
    if name.contains('*') {
        return Err(Fault::new(format!("`{text}`: `*` can only stand for whole labels at the front"), HINT));
    }
    Ok(())
}

/// What parses but is not the normal form, which is what requests are compared in.
fn check_normal(text: &str, authority: &Authority<'_>, below: bool) -> Result<(), Fault> {
    let normal = if below { format!("*.{}", authority.host) } else { authority.host.to_string() };
    if authority.port.is_some() {
        let message = format!("`{text}` has a port; a site is found by its host alone, on every listener");
        return Err(Fault::new(message, mean(&normal)));
    }
    if normal != text {
        return Err(Fault::new(format!("`{text}` is not in its normal form"), mean(&normal)));
    }
    let is_address = authority.host.ends_with(|c: char| c == ']' || c.is_ascii_digit())
        && super::address(&authority.host).is_some();
    if below && is_address {
        return Err(Fault::new(
            format!("`{text}`: there is no name below an address"),
            mean(&authority.host),
        ));
    }
    Ok(())
}

fn mean(host: &str) -> String {
    format!("did you mean `{host}`?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        HostPattern::from_text(text).unwrap_err()
    }

    #[test]
    fn the_three_forms() {
        assert_eq!(HostPattern::from_text("*").unwrap(), HostPattern::Any);
        assert_eq!(HostPattern::from_text("a.test").unwrap(), HostPattern::Exact("a.test".into()));
        assert_eq!(HostPattern::from_text("*.a.test").unwrap(), HostPattern::Below("a.test".into()));
        assert_eq!(HostPattern::from_text("[::1]").unwrap(), HostPattern::Exact("[::1]".into()));
        for text in ["*", "a.test", "*.a.test", "[::1]", "192.0.2.1"] {
            assert_eq!(HostPattern::from_text(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_told_with_what_was_meant() {
        for (text, meant) in [
            ("WWW.Example.org", "`www.example.org`"),
            ("www.example.org.", "`www.example.org`"),
            ("www.example.org:443", "`www.example.org`"),
            ("https://www.example.org/", "`www.example.org`"),
            ("www.example.org/shop", "`www.example.org`"),
            ("*.Example.org:8080", "`*.example.org`"),
            ("[2001:DB8::1]", "`[2001:db8::1]`"),
            ("*.192.0.2.1", "`192.0.2.1`"),
            ("münchen.de", "xn--"),
            ("*.com.*", "`*.example.com`"),
            ("*example.com", "`*.example.com`"),
            ("", "`www.example.org`"),
            ("*.", "`www.example.org`"),
            ("a b", "`www.example.org`"),
        ] {
            let hint = fault(text).hint.unwrap();
            assert!(hint.contains(meant), "{text}: {hint}");
        }
    }
}
