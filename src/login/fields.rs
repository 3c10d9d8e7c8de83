//! The handful of parameters that make a request a try to log in.

use super::form::{Sink, VALUE_MAX};
use crate::guard::php;

/// What was found of them. A parameter that is sent several times counts with each of its values, because which of
/// them PHP takes depends on its settings (`max_input_vars` cuts the list) and nobody honest sends two.
#[derive(Debug, Default)]
pub struct Fields {
    /// Which of the words came.
    words: u8,
    /// `username`, what the backend's form calls a user, or [`SEVERAL`].
    pub backend_user: Option<Box<[u8]>>,
    /// `user`, what felogin calls one, or [`SEVERAL`].
    pub frontend_user: Option<Box<[u8]>>,
    /// What the parameter that is being read may be.
    candidates: u8,
    /// Whether one came that holds a password. Its value is read past.
    password: bool,
}

/// Names that are looked for, as PHP registers them.
const NAMES: [(&[u8], u8); 6] = [
    (b"login_status", LOGIN_STATUS),
    (b"logintype", LOGIN_TYPE),
    (b"install[action]", INSTALL_ACTION),
    (b"action", ACTION),
    (b"username", BACKEND_USER),
    (b"user", FRONTEND_USER),
];
const LOGIN_STATUS: u8 = 1;
const LOGIN_TYPE: u8 = 1 << 1;
const INSTALL_ACTION: u8 = 1 << 2;
const ACTION: u8 = 1 << 3;
const BACKEND_USER: u8 = 1 << 4;
const FRONTEND_USER: u8 = 1 << 5;

/// Names of what is secret, as PHP registers them.
const PASSWORDS: [&[u8]; 6] = [b"userident", b"p_field", b"pass", b"password", b"totp", b"recoveryCode"];

impl Fields {
    /// `login_status=login` came (`AbstractUserAuthentication`, backend).
    #[must_use]
    pub fn login_status(&self) -> bool {
        self.words & LOGIN_STATUS != 0
    }

    /// `logintype=login` came (the same, frontend).
    #[must_use]
    pub fn login_type(&self) -> bool {
        self.words & LOGIN_TYPE != 0
    }

    /// `install[action]=login` came (`install/Classes/Middleware/Maintenance.php`).
    #[must_use]
    pub fn install_login(&self) -> bool {
        self.words & INSTALL_ACTION != 0
    }

    /// `action=verify` came (`backend/Classes/Controller/MfaController.php`).
    #[must_use]
    pub fn verify(&self) -> bool {
        self.words & ACTION != 0
    }

    /// A password or a code came, whatever it is worth: `userident` and `pass` (`AbstractUserAuthentication`), or what
    /// second factors are called.
    #[must_use]
    pub fn password(&self) -> bool {
        self.password
    }

    /// Looks through a query.
    pub fn query(&mut self, query: &[u8]) {
        for (name, value) in php::pairs(query) {
            self.candidates = 0;
            self.folded(&name);
            // As much of it as of a value in a body: the same name is one name, wherever it stands.
            self.value(value.get(..VALUE_MAX).unwrap_or(&value), value.len() <= VALUE_MAX);
        }
    }

    fn folded(&mut self, name: &[u8]) {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        self.candidates |= known.map_or(0, |(_, bit)| *bit);
        self.password |= PASSWORDS.contains(&name);
    }
}

impl Sink for Fields {
    fn begin(&mut self) {
        self.candidates = 0;
    }

    fn name(&mut self, name: &[u8]) {
        self.folded(&php::fold(name));
    }

    fn wants(&self) -> bool {
        self.candidates != 0
    }

    fn value(&mut self, value: &[u8], whole: bool) {
        self.words |= match value {
            b"login" if whole => self.candidates & (LOGIN_STATUS | LOGIN_TYPE | INSTALL_ACTION),
            b"verify" if whole => self.candidates & ACTION,
            _ => 0,
        };
        if self.candidates & BACKEND_USER != 0 {
            name(&mut self.backend_user, value);
        }
        if self.candidates & FRONTEND_USER != 0 {
            name(&mut self.frontend_user, value);
        }
    }
}

/// What a user is called of whom a request names several: PHP takes the last one that `max_input_vars` lets through, and
/// TYPO3 that of the query if the body has none, so that nobody knows here who was meant.
pub const SEVERAL: &[u8] = b"\0several";

fn name(user: &mut Option<Box<[u8]>>, value: &[u8]) {
    let differs = user.as_ref().is_some_and(|before| **before != *value);
    *user = Some(if differs { SEVERAL.into() } else { value.into() });
}
