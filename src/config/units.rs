//! How sizes, durations and modes are written: `64 KiB`, `30 s`, `report`.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::complaint::did_you_mean;
use super::section::{Fault, FromText};

/// A number of bytes, written with a binary unit: `512 B`, `64 KiB`, `256 MiB`, `2 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromText for Size {
    fn from_text(text: &str) -> Result<Self, Fault> {
        const UNITS: [(&str, u64); 5] =
            [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        let hint = "a size is a whole number and a unit: `512 B`, `64 KiB`, `256 MiB`, `2 GiB`";
        measure(text, &UNITS).map(Self).ok_or_else(|| Fault::new(format!("`{text}` is not a size"), hint))
    }
}

/// A span of time, written with its unit: `250 ms`, `30 s`, `5 min`, `12 h`, `365 d`.
impl FromText for Duration {
    fn from_text(text: &str) -> Result<Self, Fault> {
        const UNITS: [(&str, u64); 5] =
            [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let hint = "a duration is a whole number and a unit: `250 ms`, `30 s`, `5 min`, `12 h`, `365 d`";
        measure(text, &UNITS)
            .map(Duration::from_millis)
            .ok_or_else(|| Fault::new(format!("`{text}` is not a duration"), hint))
    }
}

/// `NUMBER UNIT`, the blank optional, multiplied out; `None` if it is not of that form or overflows.
fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// How a rule is applied. In `report` it never changes a byte, but is counted, logged and visible as
/// `would_block`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The rule is not looked at.
    Off,
    /// The rule is looked at, and what it would have refused is said, not done.
    Report,
    /// The rule refuses so many of a hundred clients, and is only reported for the others.
    Share(u8),
    /// The rule refuses.
    #[default]
    Enforce,
}

impl Mode {
    /// The word that stands in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Share(_) | Self::Enforce => "enforce",
        }
    }

    /// What it is for the client with this number.
    #[must_use]
    pub fn of(self, draw: Draw) -> Self {
        match self {
            Self::Share(percent) if draw.0 < percent => Self::Enforce,
            Self::Share(_) => Self::Report,
            plain => plain,
        }
    }
}

/// A number from 0 to 99 that a client keeps, so that a rule for a share of the clients is always for the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(u8);

impl Draw {
    /// Of a client that nobody knows yet: rules for a share of the clients are only reported.
    pub const NONE: Self = Self(u8::MAX);

    /// The number of a client from a hash of it.
    #[must_use]
    pub fn of(hash: u64) -> Self {
        Self(u8::try_from(hash % 100).unwrap_or(u8::MAX))
    }
}

impl FromText for Mode {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if let Some(share) = text.strip_prefix("enforce ") {
            let percent = share.trim().strip_suffix('%').and_then(|number| number.trim().parse::<u8>().ok());
            return match percent {
                Some(100) => Ok(Self::Enforce),
                Some(percent @ 1..100) => Ok(Self::Share(percent)),
                _ => {
                    let hint = "write `enforce 10%` for a tenth of the clients: a whole number from 1 to 100";
                    Err(Fault::new(format!("`{text}` is not a mode"), hint))
                }
            };
        }
        choice(text, &[("off", Self::Off), ("report", Self::Report), ("enforce", Self::Enforce)])
    }
}

/// One of a few words; the fault names them all.
pub fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let hint = did_you_mean(text, words.iter().map(|(word, _)| *word))
        .unwrap_or_else(|| format!("write one of {}", all.join(", ")));
    Err(Fault::new(format!("`{text}` is not one of {}", all.join(", ")), hint))
}

impl FromText for IpNet {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let hint = "write an address (`192.0.2.7`) or a range (`192.0.2.0/24`, `2001:db8::/32`)";
        let net = net.map_err(|_| Fault::new(format!("`{text}` is not an address range"), hint))?;
        if net.trunc() != net {
            let message = format!("`{text}` has bits set behind its prefix");
            return Err(Fault::new(message, format!("did you mean `{}`?", net.trunc())));
        }
        Ok(net)
    }
}

impl FromText for Method {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let upper = text.to_ascii_uppercase();
        if text != upper {
            let message = format!("`{text}`: methods are case-sensitive (RFC 9110 section 9.1)");
            return Err(Fault::new(message, format!("did you mean `{upper}`?")));
        }
        Method::from_bytes(text.as_bytes())
            .map_err(|_| Fault::new(format!("`{text}` is not a method"), "write e.g. `GET`"))
    }
}

impl FromText for HeaderName {
    fn from_text(text: &str) -> Result<Self, Fault> {
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
            let message = format!("`{text}` is not a header name");
            Fault::new(message, "a name is letters, digits and `-`, without blank or colon")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_may_be_for_a_share_of_the_clients() {
        assert_eq!(Mode::from_text("enforce 10%"), Ok(Mode::Share(10)));
        assert_eq!(Mode::from_text("enforce 100 %"), Ok(Mode::Enforce));
        for wrong in ["enforce 0%", "enforce 101%", "enforce 10", "enforce -1%", "report 10%"] {
            assert!(Mode::from_text(wrong).is_err(), "{wrong}");
        }
        let enforced = (0..1000).filter(|hash| Mode::Share(10).of(Draw::of(*hash)) == Mode::Enforce);
        assert_eq!(enforced.count(), 100);
        assert_eq!(Mode::Share(99).of(Draw::NONE), Mode::Report, "nobody knows yet for whom");
        assert!(Mode::Off < Mode::Report && Mode::Report < Mode::Share(1) && Mode::Share(99) < Mode::Enforce);
    }
}
