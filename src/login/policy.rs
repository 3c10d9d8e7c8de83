//! `[login]`: which tries to log in are looked for, and where.

use std::sync::{Arc, LazyLock};

use http::HeaderName;

use crate::config::complaint::Complaints;
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;

/// What one layer wrote.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    backend: Option<Placed<bool>>,
    frontend: Option<Placed<bool>>,
    install_tool: Option<Placed<bool>>,
    basic: Option<Placed<bool>>,
    count_401: Option<Placed<Text<Count401>>>,
    entry_point: Option<Placed<Text<EntryPoint>>>,
    cookie: Option<Placed<Text<CookieName>>>,
    frontend_cookie: Option<Placed<Text<CookieName>>>,
    user_names: Option<Placed<Text<UserNames>>>,
    signal_header: Option<Placed<Text<SignalHeader>>>,
}

/// What it means.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the operator's, by its name")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Logins below [`Policy::entry_point`]: form, overlay, second factor, sudo mode, password reset, reactions.
    pub backend: bool,
    /// Logins of visitors (felogin), on every other path.
    pub frontend: bool,
    /// Logins to the Install Tool.
    pub install_tool: bool,
    /// HTTP Basic (RFC 7617).
    pub basic: bool,
    /// Whether an answer 401 counts whatever it is about.
    pub count_401: Count401,
    /// `BE.entryPoint`, without a slash at its end.
    pub entry_point: Box<str>,
    /// `BE.cookieName`.
    pub cookie: Box<str>,
    /// `FE.cookieName`.
    pub frontend_cookie: Box<str>,
    /// What the log says of user names.
    pub user_names: UserNames,
    /// The response field by which the application tells what came of a login.
    pub signal_header: Option<HeaderName>,
}

/// The rule "count 401" of TYPO3's security guide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count401 {
    /// Not applied: the core never answers a failed login so.
    #[default]
    Off,
    /// Where the request carried credentials of some kind, and the answer is no redirect.
    Qualified,
    /// To the letter.
    All,
}

/// How user names appear in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserNames {
    /// As the hash under which they are counted.
    #[default]
    Hashed,
    /// As they were typed.
    Plain,
    /// Not at all.
    Off,
}

/// A path without a slash at its end.
#[derive(Clone, Debug)]
struct EntryPoint(Box<str>);

#[derive(Clone, Debug)]
struct CookieName(Box<str>);

/// None is the word `off`.
#[derive(Clone, Debug)]
struct SignalHeader(Option<HeaderName>);

impl FromText for Count401 {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("off", Self::Off), ("qualified", Self::Qualified), ("all", Self::All)])
    }
}

impl FromText for UserNames {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("hashed", Self::Hashed), ("plain", Self::Plain), ("off", Self::Off)])
    }
}

impl FromText for EntryPoint {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let hint = "write the path of `BE.entryPoint`, e.g. `/typo3`";
        if text.starts_with('/') && !text.contains(['?', '#', '%', '\\']) && !text.contains("//") {
            Ok(Self(text.trim_end_matches('/').into()))
        } else {
            Err(Fault::new(format!("`{text}` is not a path"), hint))
        }
    }
}

impl FromText for CookieName {
    fn from_text(text: &str) -> Result<Self, Fault> {
        // A token, RFC 6265 section 4.1.1; header names have the same grammar.
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(Fault::new(format!("`{text}` is not a cookie name"), "write e.g. `be_typo_user`")),
        }
    }
}

impl FromText for SignalHeader {
    fn from_text(text: &str) -> Result<Self, Fault> {
        const TAKEN: [&str; 6] =
            ["set-cookie", "location", "content-length", "content-type", "www-authenticate", "connection"];
        if text == "off" {
            return Ok(Self(None));
        }
        let name = HeaderName::from_text(text)?;
        if TAKEN.contains(&name.as_str()) {
            let hint =
                "take a name of your own, e.g. `X-Login-Result`: the field is taken out of every answer";
            return Err(Fault::new(format!("`{text}` has a meaning of its own"), hint));
        }
        Ok(Self(Some(name)))
    }
}

impl Raw {
    /// Reads `[login]` and closes it.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut login) = section.section(reading, "login") else { return Self::default() };
        let raw = Self {
            backend: login.get(reading, "backend"),
            frontend: login.get(reading, "frontend"),
            install_tool: login.get(reading, "install_tool"),
            basic: login.get(reading, "basic"),
            count_401: login.get(reading, "count_401"),
            entry_point: login.get(reading, "entry_point"),
            cookie: login.get(reading, "cookie"),
            frontend_cookie: login.get(reading, "frontend_cookie"),
            user_names: login.get(reading, "user_names"),
            signal_header: login.get(reading, "signal_header"),
        };
        login.finish(reading);
        raw
    }

    /// This layer with a more specific one laid over it, key by key.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self {
            backend: specific.backend.or(self.backend),
            frontend: specific.frontend.or(self.frontend),
            install_tool: specific.install_tool.or(self.install_tool),
            basic: specific.basic.or(self.basic),
            count_401: specific.count_401.or(self.count_401),
            entry_point: specific.entry_point.or(self.entry_point),
            cookie: specific.cookie.or(self.cookie),
            frontend_cookie: specific.frontend_cookie.or(self.frontend_cookie),
            user_names: specific.user_names.or(self.user_names),
            signal_header: specific.signal_header.or(self.signal_header),
        }
    }

    /// What was written, over the defaults.
    pub fn compile(self, _complaints: &mut Complaints) -> Arc<Policy> {
        let whether = |written: Option<Placed<bool>>| written.is_some_and(|placed| placed.value);
        let default = &*DEFAULT;
        let policy = Policy {
            backend: whether(self.backend),
            frontend: whether(self.frontend),
            install_tool: whether(self.install_tool),
            basic: whether(self.basic),
            count_401: self.count_401.map_or(default.count_401, |placed| placed.value.0),
            entry_point: self.entry_point.map_or_else(|| default.entry_point.clone(), |p| p.value.0.0),
            cookie: self.cookie.map_or_else(|| default.cookie.clone(), |p| p.value.0.0),
            frontend_cookie: self
                .frontend_cookie
                .map_or_else(|| default.frontend_cookie.clone(), |p| p.value.0.0),
            user_names: self.user_names.map_or(default.user_names, |placed| placed.value.0),
            signal_header: self.signal_header.and_then(|placed| placed.value.0.0),
        };
        // Thousands of routes of sites that say nothing of their own share two policies.
        [&DEFAULT, &TYPO3]
            .into_iter()
            .find(|known| ****known == policy)
            .map_or_else(|| Arc::new(policy), |known| Arc::clone(known))
    }
}

impl Default for Policy {
    /// Looks for nothing, but knows TYPO3's names.
    fn default() -> Self {
        Self {
            backend: false,
            frontend: false,
            install_tool: false,
            basic: false,
            count_401: Count401::Off,
            entry_point: "/typo3".into(),
            cookie: "be_typo_user".into(),
            frontend_cookie: "fe_typo_user".into(),
            user_names: UserNames::Hashed,
            signal_header: None,
        }
    }
}

impl Policy {
    /// Looks for every login that TYPO3 knows, as its preset does.
    #[must_use]
    pub fn typo3() -> Self {
        Self { backend: true, frontend: true, install_tool: true, basic: true, ..Self::default() }
    }
}

static DEFAULT: LazyLock<Arc<Policy>> = LazyLock::new(Arc::default);
static TYPO3: LazyLock<Arc<Policy>> = LazyLock::new(|| Arc::new(Policy::typo3()));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing;

    fn policy(text: &str) -> (Arc<Policy>, String) {
        let (raw, mut complaints) = testing::read(text, Raw::read);
        (Raw::default().over(raw).compile(&mut complaints), complaints.to_string())
    }

    #[test]
    fn the_policy_is_read() {
        let (read, said) = policy(
            "[login]\nbackend = true\nentry_point = \"/admin/\"\ncookie = \"be\"\nuser_names = \"plain\"\n\
             count_401 = \"qualified\"\nsignal_header = \"X-Login-Result\"",
        );
        assert_eq!(said, "");
        let want = Policy {
            backend: true,
            entry_point: "/admin".into(),
            cookie: "be".into(),
            user_names: UserNames::Plain,
            count_401: Count401::Qualified,
            signal_header: Some(HeaderName::from_static("x-login-result")),
            ..Policy::default()
        };
        assert_eq!(*read, want);
    }

    #[test]
    fn what_is_usual_is_shared() {
        let typo3 = "[login]\nbackend = true\nfrontend = true\ninstall_tool = true\nbasic = true";
        assert!(Arc::ptr_eq(&policy(typo3).0, &policy(typo3).0));
        assert!(Arc::ptr_eq(&policy("").0, &policy("").0));
    }

    #[test]
    fn what_cannot_work_is_said() {
        for (line, what) in [
            ("entry_point = \"typo3\"", "is not a path"),
            ("cookie = \"a b\"", "is not a cookie name"),
            ("signal_header = \"Set-Cookie\"", "a meaning of its own"),
            ("count_401 = \"yes\"", "is not one of"),
        ] {
            assert!(policy(&format!("[login]\n{line}")).1.contains(what), "{line}");
        }
        assert_eq!(policy("[login]\nsignal_header = \"off\"").0.signal_header, None);
    }
}
