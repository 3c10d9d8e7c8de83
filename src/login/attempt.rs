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

    /// Whether it is a guess at a password or a factor, sent on purpose: credentials that ride on every request, a page's
    /// 401, webhooks and mails are none.
    #[must_use]
    pub const fn is_guess(self) -> bool {
        !matches!(self, Self::Basic | Self::Unauthorized | Self::PasswordReset | Self::Reaction)
    }

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
    /// Whether a page of another site has the browser send it (`Sec-Fetch-Site: cross-site`).
    pub cross_site: bool,
    /// How long the body is, bytes, if that is known.
    pub length: Option<u64>,
}

/// Where a request goes, as far as logins are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
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
    /// Whether the Install Tool may be meant, by its own file or by the parameter of TYPO3 14, which other lines
    /// do not know: then it is a request like any other.
    tool: bool,
    fields: Fields,
    body: Reader,
    seen: u64,
    length: Option<u64>,
    ended: bool,
    /// The body cannot be read as the application may read it.
    unreadable: bool,
    /// What the head says of it.
    initiator: Initiator,
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
    /// Who had it sent.
    pub initiator: Initiator,
}

/// Who had a try sent, as far as the browser says (Fetch Metadata). Whoever is no browser can say what he likes, and gains
/// nothing but a jail of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initiator {
    /// The site itself, a person, or a client that says nothing.
    #[default]
    Own,
    /// A page of another site, with a password: perhaps against the will of who looks at it.
    CrossSite,
    /// A page of another site, without a password: how identity providers send people back (SAML, `OpenID` Connect).
    Callback,
}

/// Looks at a request's head; none if no try to log in can come of it.
#[must_use]
pub fn watch(policy: &Policy, asked: &Asked<'_>) -> Option<Watch> {
    let basic = asked.authorization.filter(|_| policy.basic).and_then(basic::user);
    let tool = takes_body(asked.method) && opens_tool(policy, asked.path, asked.query);
    let leads = Place::of(policy, asked.path, asked.query);
    // A second factor is read from the query too, whatever the method (`TotpProvider::getTotp`).
    let place = if takes_body(asked.method) || leads == Place::Mfa { leads } else { Place::Elsewhere };
    let anywhere = place != Place::Elsewhere || tool;
    if !anywhere && basic.is_none() {
        return None;
    }
    let (body, unreadable) = if anywhere { reader(asked) } else { (Reader::Nothing, false) };
    let initiator = if asked.cross_site { Initiator::CrossSite } else { Initiator::Own };
    let mut fields = Fields::default();
    if let (true, Some(query)) = (anywhere, asked.query) {
        fields.query(query.as_bytes());
    }
    Some(Watch {
        place,
        tool,
        fields,
        body,
        seen: 0,
        length: asked.length,
        ended: false,
        unreadable,
        initiator,
        basic,
    })
}

/// Whether TYPO3 reads the body of such a request. It checks no password that stands in a query alone.
#[must_use]
pub fn takes_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE)
}

/// How the application reads a body, and whether it may read it in another way that cannot be followed.
fn reader(asked: &Asked<'_>) -> (Reader, bool) {
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

/// Whether the Install Tool may answer: TYPO3 14 opens it on every path.
fn opens_tool(policy: &Policy, path: &str, query: Option<&str>) -> bool {
    let is_file = |rest: &str| rest == "/install.php" || rest.starts_with("/install.php/");
    let asks =
        |query: &str| php::pairs(query.as_bytes()).any(|(name, _)| php::base(&name) == b"__typo3_install");
    policy.install_tool && (below(policy, path).is_some_and(is_file) || query.is_some_and(asks))
}

/// Whether an identity provider sends people back to such a login. Second factors call their codes what they like (TYPO3's
/// recovery codes: `rc`), a reset needs no password, and a reaction's secret is in its head: each is a try without one.
fn ends_a_detour(kind: Kind) -> bool {
    matches!(kind, Kind::Backend | Kind::Relogin | Kind::Frontend)
}

/// What of a path stands behind the entry point.
fn below<'p>(policy: &Policy, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(&*policy.entry_point).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Place {
    /// Where this path and query lead.
    #[must_use]
    pub fn of(policy: &Policy, path: &str, query: Option<&str>) -> Self {
        match below(policy, path) {
            Some(rest) if policy.backend => Self::of_route(rest, query),
            None if policy.frontend => Self::Frontend,
            _ => Self::Elsewhere,
        }
    }

    /// By the part of the path behind the entry point; TYPO3 11 takes the route from the query, too.
    fn of_route(rest: &str, query: Option<&str>) -> Self {
        let named = || {
            // Of several, PHP takes the last.
            let pairs = php::pairs(query.unwrap_or_default().as_bytes());
            pairs.filter(|(name, _)| **name == *b"route").last().map(|(_, route)| route.into_owned())
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

    /// Whether the Install Tool may answer.
    #[must_use]
    pub fn may_open_tool(&self) -> bool {
        self.tool
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

    /// Whether all of the body was seen.
    #[must_use]
    pub fn is_through(&self) -> bool {
        self.ended || self.length.is_some_and(|length| self.seen >= length)
    }

    /// Whether all of the body was seen, and read as the application reads it.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        (self.is_through() || !self.reads()) && !self.unreadable
    }

    /// Whether it may be a try that only the answer tells: credentials ride on it, or nobody can read it.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.basic.is_some() || self.unreadable
    }

    /// The tries to log in that it may be, by what came so far; nothing is read afterwards. One request can be
    /// several: a wrong second factor that also says `login_status=login`, say. The answer tells which one it was.
    pub fn attempts(&mut self) -> Vec<Attempt> {
        match std::mem::replace(&mut self.body, Reader::Nothing) {
            Reader::Nothing => {}
            // If the body goes on, its last parameter may not be whole: then the answer will say so.
            Reader::Form(mut form) => form.end(&mut self.fields),
            Reader::Multipart(mut multipart) => multipart.end(&mut self.fields),
        }
        let fields = &self.fields;
        let password = match self.place {
            Place::Elsewhere => None,
            Place::Frontend => fields.login_type().then_some((Kind::Frontend, &fields.frontend_user)),
            _ if !fields.login_status() && !self.unreadable => None,
            Place::Relogin => Some((Kind::Relogin, &fields.backend_user)),
            _ => Some((Kind::Backend, &fields.backend_user)),
        };
        let route = match self.place {
            Place::Mfa if fields.verify() || self.unreadable => Some(Kind::Mfa),
            Place::Sudo => Some(Kind::Sudo),
            Place::PasswordReset => Some(Kind::PasswordReset),
            Place::Reaction => Some(Kind::Reaction),
            _ => None,
        };
        let tool = self.tool && (fields.install_login() || self.unreadable);
        let named = password.map(|(kind, user)| (kind, user.clone()));
        let others = route.into_iter().chain(tool.then_some(Kind::InstallTool)).map(|kind| (kind, None));
        let secret = fields.password() || tool || self.unreadable;
        let initiator = |kind| match self.initiator {
            Initiator::CrossSite if !secret && ends_a_detour(kind) => Initiator::Callback,
            said => said,
        };
        let all = named.into_iter().chain(others);
        all.map(|(kind, user)| {
            let initiator = initiator(kind);
            Attempt { kind, user: user.filter(|user| !user.is_empty()), initiator }
        })
        .collect()
    }

    /// The user of HTTP Basic credentials, which ride on every request; empty if none was named.
    #[must_use]
    pub fn basic(&self) -> Option<&[u8]> {
        self.basic.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::SEVERAL;
    use super::*;

    fn asked<'a>(method: &'a Method, path: &'a str, query: Option<&'a str>) -> Asked<'a> {
        let content_type = Some(&b"application/x-www-form-urlencoded"[..]);
        Asked {
            method,
            path,
            query,
            content_type,
            odd: false,
            authorization: None,
            cross_site: false,
            length: Some(100),
        }
    }

    fn kind(asked: &Asked<'_>, body: &[u8]) -> Option<Kind> {
        let mut watch = watch(&Policy::typo3(), asked)?;
        watch.push(body);
        watch.attempts().first().map(|attempt| attempt.kind)
    }

    #[test]
    fn an_answer_that_comes_early_is_judged_by_what_is_known() {
        let mut watch = watch(&Policy::typo3(), &asked(&Method::POST, "/typo3/login", None)).unwrap();
        watch.push(b"login_status=login&username=edi");
        assert!(!watch.is_clear(), "the body is not through");
        let attempt = watch.attempts().remove(0);
        assert_eq!((attempt.kind, attempt.user.as_deref()), (Kind::Backend, Some(&b"edi"[..])));
        watch.push(b"tor&userident=x");
        assert_eq!(watch.attempts(), [attempt], "it stays that one");
    }

    #[test]
    fn a_body_is_clear_when_all_of_it_was_seen() {
        let known = asked(&Method::POST, "/typo3/login", None);
        let mut by_length = watch(&Policy::typo3(), &Asked { length: Some(2), ..known }).unwrap();
        assert!(!by_length.is_clear());
        by_length.push(b"ab");
        assert!(by_length.is_clear());
        let mut by_end = watch(&Policy::typo3(), &Asked { length: None, ..known }).unwrap();
        by_end.push(b"ab");
        assert!(!by_end.is_clear());
        by_end.end();
        assert!(by_end.is_clear());
        let odd = watch(&Policy::typo3(), &Asked { length: Some(0), odd: true, ..known }).unwrap();
        assert!(!odd.is_clear());
    }

    #[test]
    fn what_no_browser_writes_is_a_try_wherever_one_could_be() {
        let long = format!("multipart/form-data; boundary={}", "b".repeat(65_001));
        let overlong =
            Asked { content_type: Some(long.as_bytes()), ..asked(&Method::POST, "/typo3/main", None) };
        assert_eq!(kind(&overlong, b""), Some(Kind::Backend));
        let coded = Asked { odd: true, ..asked(&Method::POST, "/typo3/login", None) };
        assert_eq!(kind(&coded, b"\x1f\x8b"), Some(Kind::Backend));
        assert_eq!(
            kind(&Asked { path: "/contact", ..coded }, b"\x1f\x8b"),
            None,
            "visitors send all kinds of things"
        );
    }

    #[test]
    fn a_page_of_another_site_is_told_from_an_identity_provider() {
        let known = asked(&Method::POST, "/typo3/login", Some("login_status=login"));
        let initiator = |cross_site, body: &[u8]| {
            let mut watch = watch(&Policy::typo3(), &Asked { cross_site, ..known }).unwrap();
            watch.push(body);
            watch.attempts().remove(0).initiator
        };
        let password = b"username=a&user.ident=b";
        assert_eq!(initiator(false, b"username=a&userident=b"), Initiator::Own);
        assert_eq!(initiator(true, b"username=a&userident=b"), Initiator::CrossSite);
        assert_eq!(initiator(true, b"a=b&%75serident[]=b"), Initiator::Callback, "PHP makes a list of it");
        assert_eq!(initiator(true, b"a=b& %75serident=b"), Initiator::CrossSite);
        assert_eq!(initiator(true, b"SAMLResponse=PHNhbWw%2B&RelayState=x"), Initiator::Callback);
        assert_eq!(initiator(true, password), Initiator::Callback);
    }

    #[test]
    fn of_several_names_none_is_believed() {
        let user = |path, query, body: &[u8]| {
            let mut watch = watch(&Policy::typo3(), &asked(&Method::POST, path, query)).unwrap();
            watch.push(body);
            watch.attempts().remove(0).user
        };
        let several = Some(SEVERAL.into());
        let twice = b"login_status=login&username=victim&a=1&a=1&username=own";
        assert_eq!(
            user("/typo3/login", None, twice),
            several,
            "`max_input_vars` may cut the list before the last"
        );
        let late = b"login_status=login&username=own";
        assert_eq!(user("/typo3/login", Some("username=victim"), late), several);
        assert_eq!(user("/", Some("user=victim"), b"logintype=login&user=own"), several);
        assert_eq!(user("/", Some("user=own"), b"logintype=login&user=own"), Some(b"own"[..].into()));
    }

    #[test]
    fn only_logins_are_ends_of_a_detour() {
        for (path, body, kind) in [
            ("/typo3/auth/mfa", "action=verify&identifier=recovery-codes&rc=1", Kind::Mfa),
            ("/typo3/auth/mfa", "action=verify&identifier=other&number=1", Kind::Mfa),
            ("/typo3/login/password-reset/initiate-reset", "email=a", Kind::PasswordReset),
            ("/typo3/ajax/sudo-mode/verify", "secret=a", Kind::Sudo),
            ("/typo3/reaction/1", "a=b", Kind::Reaction),
        ] {
            let known = Asked { cross_site: true, ..asked(&Method::POST, path, None) };
            let mut watch = watch(&Policy::typo3(), &known).unwrap();
            watch.push(body.as_bytes());
            let attempt = Attempt { kind, user: None, initiator: Initiator::CrossSite };
            assert_eq!(watch.attempts(), [attempt], "{path} {body}");
        }
    }

    #[test]
    fn other_requests_are_not_looked_at() {
        let policy = Policy::typo3();
        assert!(watch(&policy, &asked(&Method::GET, "/typo3/login", Some("login_status=login"))).is_none());
        assert!(watch(&policy, &asked(&Method::HEAD, "/typo3/login", None)).is_none());
        assert!(watch(&Policy::default(), &asked(&Method::POST, "/typo3/login", None)).is_none());
        let json = Asked { content_type: Some(b"application/json"), ..asked(&Method::POST, "/api", None) };
        assert!(watch(&policy, &json).is_some_and(|watch| !watch.reads() && watch.is_clear()));
    }

    #[test]
    fn places_are_told_apart() {
        let policy = Policy::typo3();
        let root = Policy { entry_point: "".into(), ..Policy::typo3() };
        for (policy, path, query, want) in [
            (&policy, "/typo3", None, Place::Backend),
            (&policy, "/typo3/ajax/login", None, Place::Relogin),
            (&policy, "/typo3/ajax/login/", None, Place::Relogin),
            (&policy, "/typo3/index.php", Some("route=%2fauth%2fmfa&action=verify"), Place::Mfa),
            (&policy, "/typo3/", Some("route=/main&route=/ajax/login"), Place::Relogin),
            (&policy, "/typo3/", Some("route=/ajax/login&%72oute=/main"), Place::Backend),
            (&policy, "/typo3/install.php", None, Place::Backend),
            (&policy, "/typo3x", None, Place::Frontend),
            (&root, "/auth/mfa", None, Place::Mfa),
            (&root, "/reaction/1", None, Place::Reaction),
        ] {
            assert_eq!(Place::of(policy, path, query), want, "{path} {query:?}");
        }
        for (path, query, opens) in [
            ("/typo3/install.php", None, true),
            ("/typo3/install.php/x", None, true),
            ("/typo3/main", Some("a=1&_.typo3[install"), true),
            ("/any", Some("__TYPO3_INSTALL"), false),
            ("/install.php", None, false),
        ] {
            assert_eq!(opens_tool(&policy, path, query), opens, "{path} {query:?}");
        }
    }

    #[test]
    fn one_request_can_be_several_tries() {
        let every = |path, query, body: &[u8]| {
            let mut watch = watch(&Policy::typo3(), &asked(&Method::POST, path, query)).unwrap();
            watch.push(body);
            watch.attempts().into_iter().map(|attempt| attempt.kind).collect::<Vec<_>>()
        };
        let login = b"login_status=login&install[action]=login";
        assert_eq!(every("/typo3/auth/mfa", Some("action=verify"), login), [Kind::Backend, Kind::Mfa]);
        assert_eq!(every("/typo3/ajax/sudo-mode/verify", None, login), [Kind::Backend, Kind::Sudo]);
        assert_eq!(every("/typo3/login", Some("__typo3_install"), login), [Kind::Backend, Kind::InstallTool]);
        let visitor = b"logintype=login&install[action]=login";
        assert_eq!(every("/", Some("__typo3_install"), visitor), [Kind::Frontend, Kind::InstallTool]);
    }
}
