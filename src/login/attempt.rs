//! Is a request a try to log in? Its head says where to look, its body is looked at while it passes.

use http::Method;

use super::basic;
use super::fields::Fields;
use super::form::Form;
use super::multipart::{Multipart, Unreadable};
use super::policy::Policy;
use crate::guard::php;

/// What kind of login it is; the label in metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The backend's form, on whatever route.
    Backend,
    /// The overlay that asks for the password again when a session has expired.
    Relogin,
    /// The second factor.
    Mfa,
    /// The password once more, before something dangerous.
    Sudo,
    /// A mail that resets a password was asked for.
    PasswordReset,
    /// The Install Tool.
    InstallTool,
    /// A visitor's login.
    Frontend,
    /// HTTP Basic.
    Basic,
    /// The secret of a reaction (incoming webhook).
    Reaction,
    /// An answer 401, whatever was asked.
    Unauthorized,
    /// Something else that the application has told of.
    Application,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Backend,
        Self::Relogin,
        Self::Mfa,
        Self::Sudo,
        Self::PasswordReset,
        Self::InstallTool,
        Self::Frontend,
        Self::Basic,
        Self::Reaction,
        Self::Unauthorized,
        Self::Application,
    ];

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Relogin => "relogin",
            Self::Mfa => "mfa",
            Self::Sudo => "sudo",
            Self::PasswordReset => "password-reset",
            Self::InstallTool => "install-tool",
            Self::Frontend => "frontend",
            Self::Basic => "basic",
            Self::Reaction => "reaction",
            Self::Unauthorized => "unauthorized",
            Self::Application => "application",
        }
    }
}

/// What of a request's head is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The normalised path.
    pub path: &'a str,
    /// The query as it came, without its `?`.
    pub query: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// Whether the body is coded, or its type is said twice: no browser's is.
    pub odd: bool,
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// How long the body is, bytes, if that is known.
    pub length: Option<u64>,
}

/// Where a request goes, as far as logins are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The Install Tool, by its own file or by the parameter of TYPO3 14.
    InstallTool,
    /// `/ajax/login`.
    Relogin,
    /// `/auth/mfa`.
    Mfa,
    /// `/ajax/sudo-mode/verify`.
    Sudo,
    /// `/login/password-reset/initiate-reset`.
    PasswordReset,
    /// `/reaction/…`.
    Reaction,
    /// Every other route of the backend: TYPO3 reads a login on each.
    Backend,
    /// Every other path.
    Frontend,
    /// Where nothing is looked for.
    Elsewhere,
}

/// A request that may be a try to log in. Bounded: names and values are cut, the body is not kept.
#[derive(Debug)]
pub struct Watch {
    place: Place,
    fields: Fields,
    body: Reader,
    seen: u64,
    length: Option<u64>,
    ended: bool,
    /// The body cannot be read as the application may read it.
    unreadable: bool,
    basic: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum Reader {
    Nothing,
    Form(Box<Form>),
    Multipart(Box<Multipart>),
}

/// A try to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What kind.
    pub kind: Kind,
    /// The user name as it was typed, cut to [`super::form::VALUE_MAX`] bytes.
    pub user: Option<Box<[u8]>>,
}

/// Looks at a request's head; none if no try to log in can come of it.
#[must_use]
pub fn watch(policy: &Policy, asked: &Asked<'_>) -> Option<Watch> {
    let basic = asked.authorization.filter(|_| policy.basic).and_then(basic::user);
    let place =
        if takes_body(asked.method) { Place::of(policy, asked.path, asked.query) } else { Place::Elsewhere };
    if place == Place::Elsewhere && basic.is_none() {
        return None;
    }
    let (body, unreadable) = reader(place, asked);
    let mut fields = Fields::default();
    if let (true, Some(query)) = (place != Place::Elsewhere, asked.query) {
        fields.query(query.as_bytes());
    }
    Some(Watch { place, fields, body, seen: 0, length: asked.length, ended: false, unreadable, basic })
}

/// Whether TYPO3 reads the body of such a request. It checks no password that stands in a query alone.
#[must_use]
pub fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}

/// How the application reads a body, and whether it may read it in another way that cannot be followed.
fn reader(place: Place, asked: &Asked<'_>) -> (Reader, bool) {
    if place == Place::Elsewhere {
        return (Reader::Nothing, false);
    }
    let form = || Reader::Form(Box::default());
    let kind = asked.content_type.unwrap_or_default();
    // TYPO3's `ServerRequestFactory` takes the bodies of other methods for urlencoded, whatever their type.
    if *asked.method != Method::POST || is_type(kind, b"application/x-www-form-urlencoded") {
        return (form(), asked.odd);
    }
    if !is_type(kind, b"multipart/form-data") {
        return (Reader::Nothing, asked.odd);
    }
    match Multipart::new(kind) {
        Ok(multipart) => (Reader::Multipart(Box::new(multipart)), asked.odd),
        Err(Unreadable::Bare) => (Reader::Nothing, asked.odd),
        Err(Unreadable::Overlong) => (Reader::Nothing, true),
    }
}

/// Whether PHP takes the content type for this one (`sapi_read_post_data` in PHP's `main/SAPI.c`).
fn is_type(content_type: &[u8], want: &[u8]) -> bool {
    let word = content_type.split(|byte| matches!(byte, b';' | b',' | b' ')).next();
    word.is_some_and(|word| word.eq_ignore_ascii_case(want))
}

impl Place {
    /// Where this path and query lead.
    #[must_use]
    pub fn of(policy: &Policy, path: &str, query: Option<&str>) -> Self {
        let below =
            path.strip_prefix(&*policy.entry_point).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let is_tool = |rest: &str| rest == "/install.php" || rest.starts_with("/install.php/");
        let opens_tool = |query: &str| {
            php::pairs(query.as_bytes()).any(|(name, _)| php::base(&name) == b"__typo3_install")
        };
        if policy.install_tool && (below.is_some_and(is_tool) || query.is_some_and(opens_tool)) {
            return Self::InstallTool;
        }
        match below {
            Some(rest) if policy.backend => Self::of_route(rest, query),
            None if policy.frontend => Self::Frontend,
            _ => Self::Elsewhere,
        }
    }

    /// By the part of the path behind the entry point; TYPO3 11 takes the route from the query, too.
    fn of_route(rest: &str, query: Option<&str>) -> Self {
        let named = || {
            let mut pairs = php::pairs(query.unwrap_or_default().as_bytes());
            pairs.find(|(name, _)| **name == *b"route").map(|(_, route)| route.into_owned())
        };
        let route = match rest {
            "" | "/" | "/index.php" => named().unwrap_or_default(),
            rest => rest.as_bytes().to_vec(),
        };
        let route = route.strip_suffix(b"/").unwrap_or(&route);
        match route {
            b"/ajax/login" => Self::Relogin,
            b"/auth/mfa" => Self::Mfa,
            b"/ajax/sudo-mode/verify" => Self::Sudo,
            b"/login/password-reset/initiate-reset" => Self::PasswordReset,
            route if route.starts_with(b"/reaction/") => Self::Reaction,
            _ => Self::Backend,
        }
    }
}

impl Watch {
    /// Whether the body has to be looked at while it passes.
    #[must_use]
    pub fn reads(&self) -> bool {
        !matches!(self.body, Reader::Nothing)
    }

    /// Where it goes.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.seen = self.seen.saturating_add(piece.len() as u64);
        match &mut self.body {
            Reader::Nothing => {}
            Reader::Form(form) => form.push(piece, &mut self.fields),
            Reader::Multipart(multipart) => multipart.push(piece, &mut self.fields),
        }
    }

    /// The body is through.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether all of the body was seen, and read as the application reads it.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        let through = self.ended || self.length.is_some_and(|length| self.seen >= length) || !self.reads();
        through && !self.unreadable
    }

    /// The try to log in that it is, by what came so far. Nothing is read afterwards.
    pub fn attempt(&mut self) -> Option<Attempt> {
        match std::mem::replace(&mut self.body, Reader::Nothing) {
            Reader::Nothing => {}
            // If the body goes on, its last parameter may not be whole: then the answer will say so.
            Reader::Form(mut form) => form.end(&mut self.fields),
            Reader::Multipart(mut multipart) => multipart.end(&mut self.fields),
        }
        let fields = &self.fields;
        let kind = match self.place {
            Place::Elsewhere => return None,
            Place::InstallTool => (fields.install_login() || self.unreadable).then_some(Kind::InstallTool)?,
            Place::Frontend => fields.login_type().then_some(Kind::Frontend)?,
            Place::Relogin if fields.login_status() => Kind::Relogin,
            _ if fields.login_status() => Kind::Backend,
            Place::Mfa => fields.verify().then_some(Kind::Mfa)?,
            Place::Sudo => Kind::Sudo,
            Place::PasswordReset => Kind::PasswordReset,
            Place::Reaction => Kind::Reaction,
            Place::Relogin | Place::Backend => self.unreadable.then_some(Kind::Backend)?,
        };
        let user = match kind {
            Kind::Backend | Kind::Relogin => fields.backend_user.clone(),
            Kind::Frontend => fields.frontend_user.clone(),
            _ => None,
        };
        Some(Attempt { kind, user: user.filter(|user| !user.is_empty()) })
    }

    /// The user of HTTP Basic credentials, which ride on every request; empty if none was named.
    #[must_use]
    pub fn basic(&self) -> Option<&[u8]> {
        self.basic.as_deref()
    }
}
