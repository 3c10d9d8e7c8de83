//! Which rules are off, reported or enforced.

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Placed, Reading, Section, Text};
use crate::config::units::Mode;
use crate::refusal::Reason;
use crate::step::Step;

/// What one layer's `[rules]` says.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    every: Written,
    method: Written,
    path: Written,
    access: Written,
    headers: Written,
    upgrade: Written,
    size: Written,
    host: Written,
    deny: Written,
    install_tool: Written,
    login_query: Written,
    ban: Written,
    rate: Written,
}

type Written = Option<Placed<Text<Mode>>>;

/// The mode of each rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// The allow-list of methods.
    pub method: Mode,
    /// Paths that cannot be normalised.
    pub path: Mode,
    /// Addresses that may not see a part of the site.
    pub access: Mode,
    /// Request fields that no honest client sends.
    pub headers: Mode,
    /// WebSocket where no path allows it.
    pub upgrade: Mode,
    /// Bodies beyond their limit.
    pub size: Mode,
    /// Hosts that belong to no site. Read from the top of the file, since no site is known yet.
    pub host: Mode,
    /// Closed paths.
    pub deny: Mode,
    /// The Install Tool.
    pub install_tool: Mode,
    /// `login_status` in the query of a request that reads.
    pub login_query: Mode,
    /// Clients that are locked out. Asked for before the path is known: at the top or in a site.
    pub ban: Mode,
    /// Clients that ask too often.
    pub rate: Mode,
}

impl Raw {
    /// Reads the table `rules` and closes it.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut rules) = section.section(reading, "rules") else { return Self::default() };
        let raw = Self {
            every: rules.get(reading, "mode"),
            method: rules.get(reading, "method"),
            path: rules.get(reading, "path"),
            access: rules.get(reading, "access"),
            headers: rules.get(reading, "headers"),
            upgrade: rules.get(reading, "upgrade"),
            size: rules.get(reading, "size"),
            host: rules.get(reading, "host"),
            deny: rules.get(reading, "deny"),
            install_tool: rules.get(reading, "install_tool"),
            login_query: rules.get(reading, "login_query"),
            ban: rules.get(reading, "ban"),
            rate: rules.get(reading, "rate"),
        };
        rules.finish(reading);
        raw
    }

    /// Complains about `host` in a site or a path: it is asked for before any site is known.
    pub fn check_inside(&self, complaints: &mut Complaints) {
        if let Some(host) = &self.host {
            let hint = "move it to the `[rules]` at the top of the file".to_owned();
            complaints.warning(Some(&host.place), "`rules.host` has no effect inside of a site", Some(hint));
        }
    }

    /// Complains about `ban` in a path: it is asked for before the path is known.
    pub fn check_path(&self, complaints: &mut Complaints) {
        if let Some(ban) = &self.ban {
            let hint = "move it to the `[rules]` of the site or of the file".to_owned();
            complaints.warning(Some(&ban.place), "`rules.ban` has no effect for a path", Some(hint));
        }
    }

    /// This layer with a more specific one laid over it. A layer's `mode` speaks for every rule that the
    /// layer does not name: `mode = "report"` in a site reports all of them, whatever the file says.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        let every = &specific.every;
        let lay = |general: Written, specific: Written| specific.or_else(|| every.clone()).or(general);
        Self {
            method: lay(self.method, specific.method),
            path: lay(self.path, specific.path),
            access: lay(self.access, specific.access),
            headers: lay(self.headers, specific.headers),
            upgrade: lay(self.upgrade, specific.upgrade),
            size: lay(self.size, specific.size),
            host: lay(self.host, specific.host),
            deny: lay(self.deny, specific.deny),
            install_tool: lay(self.install_tool, specific.install_tool),
            login_query: lay(self.login_query, specific.login_query),
            ban: lay(self.ban, specific.ban),
            rate: lay(self.rate, specific.rate),
            every: specific.every.or(self.every),
        }
    }

    /// Where the mode of the rule of `step` was written, if it was.
    #[must_use]
    pub fn place(&self, step: Step) -> Option<&Place> {
        let own = match step {
            Step::Host => &self.host,
            Step::Ban => &self.ban,
            Step::Rate => &self.rate,
            Step::Path => &self.path,
            Step::Access => &self.access,
            Step::Method => &self.method,
            Step::Headers => &self.headers,
            _ => return None,
        };
        own.as_ref().or(self.every.as_ref()).map(|written| &written.place)
    }

    /// Where the mode of the rule was written that refuses for `reason`, if it was. A step may have several rules.
    #[must_use]
    pub fn place_of(&self, reason: Reason) -> Option<&Place> {
        let own = match reason {
            Reason::Closed => &self.deny,
            Reason::InstallToolClosed => &self.install_tool,
            Reason::LoginInQuery => &self.login_query,
            _ => return self.place(reason.row().step),
        };
        own.as_ref().or(self.every.as_ref()).map(|written| &written.place)
    }

    /// Enforced where nothing was written.
    pub fn compile(self, complaints: &mut Complaints) -> Modes {
        if let Some(host) = self.host.as_ref().filter(|host| matches!(host.value.0, Mode::Share(_))) {
            let hint =
                "write `report` or `enforce`: the host is asked for before the client is known".to_owned();
            let message = "`rules.host` for a share of the clients is only reported";
            complaints.warning(Some(&host.place), message, Some(hint));
        }
        let word = |written: Written| written.map(|placed| placed.value.0);
        let every = word(self.every).unwrap_or_default();
        Modes {
            method: word(self.method).unwrap_or(every),
            path: word(self.path).unwrap_or(every),
            access: word(self.access).unwrap_or(every),
            headers: word(self.headers).unwrap_or(every),
            upgrade: word(self.upgrade).unwrap_or(every),
            size: word(self.size).unwrap_or(every),
            host: word(self.host).unwrap_or(every),
            deny: word(self.deny).unwrap_or(every),
            install_tool: word(self.install_tool).unwrap_or(every),
            login_query: word(self.login_query).unwrap_or(every),
            ban: word(self.ban).unwrap_or(every),
            rate: word(self.rate).unwrap_or(every),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    fn raw(text: &str) -> Raw {
        let (raw, complaints) = testing::read(text, Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        raw
    }

    fn modes(layers: &[&str]) -> Modes {
        let raw = layers.iter().fold(Raw::default(), |below, layer| below.over(raw(layer)));
        raw.compile(&mut Complaints::default())
    }

    #[test]
    fn everything_is_enforced_unless_said() {
        assert_eq!(modes(&[]), Modes::default());
        assert_eq!(Modes::default().path, Mode::Enforce);
    }

    #[test]
    fn a_layers_mode_speaks_for_the_rules_it_does_not_name() {
        let modes = modes(&["[rules]\nmethod = \"off\"", "[rules]\nmode = \"report\"\npath = \"enforce\""]);
        assert_eq!(modes.method, Mode::Report);
        assert_eq!(modes.path, Mode::Enforce);
        assert_eq!(modes.headers, Mode::Report);
        assert_eq!(modes.host, Mode::Report);
    }

    #[test]
    fn a_rule_named_more_specifically_wins() {
        let modes = modes(&["[rules]\nmode = \"report\"", "[rules]\nmethod = \"off\""]);
        assert_eq!(modes.method, Mode::Off);
        assert_eq!(modes.path, Mode::Report);
    }

    #[test]
    fn a_rule_about_hosts_belongs_to_the_top() {
        let mut complaints = Complaints::default();
        raw("[rules]\nhost = \"report\"").check_inside(&mut complaints);
        assert!(complaints.to_string().contains("has no effect inside of a site"), "{complaints}");
    }

    #[test]
    fn rules_that_come_too_early_for_their_place_are_complained_about() {
        let mut complaints = Complaints::default();
        raw("[rules]\nban = \"report\"").check_path(&mut complaints);
        assert!(complaints.to_string().contains("`rules.ban` has no effect for a path"), "{complaints}");
        let mut complaints = Complaints::default();
        raw("[rules]\nhost = \"enforce 10%\"").compile(&mut complaints);
        assert!(complaints.to_string().contains("is only reported"), "{complaints}");
        assert_eq!(modes(&["[rules]\nmode = \"enforce 10%\""]).ban, Mode::Share(10));
    }

    #[test]
    fn unknown_rules_are_complained_about() {
        let (_, complaints) = testing::read("[rules]\nmethods = \"off\"", Raw::read);
        assert!(complaints.to_string().contains("did you mean `method`?"), "{complaints}");
        let (_, complaints) = testing::read("[rules]\nmode = \"reprot\"", Raw::read);
        assert!(complaints.to_string().contains("did you mean `report`?"), "{complaints}");
    }
}
