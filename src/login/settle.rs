//! What follows from a verdict: a line in the audit, a mark in the record, and what the ledger remembers.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::attempt::{Initiator, Kind};
use super::fields::SEVERAL;
use super::policy::UserNames;
use super::verdict::{Outcome, Verdict};
use crate::bans::{Action, Ban, Culprit, Jail, Ledger, SessionId, UnderWay, UserId};
use crate::client::key::Key;
use crate::clock::Millis;
use crate::observe::Record;

/// Everything that is needed to settle an exchange, also when its answer is under way already.
#[derive(Debug)]
pub struct Settlement {
    /// Who failed, who is locked out, and who was seen to log in.
    pub ledger: Arc<Ledger>,
    /// The jail of failed logins.
    pub jail: Jail,
    /// Who tried; the user is filled in here.
    pub who: Culprit,
    /// The IPv6 network that failures count for, too, and its jail.
    pub network: Option<(Jail, Key)>,
    /// The address that the audit names.
    pub client: IpAddr,
    /// The site that it names.
    pub site: Box<str>,
    /// The id of the request, which the access log has, too.
    pub id: Box<str>,
    /// What it says of user names.
    pub user_names: UserNames,
    /// Whether the request was known for a try, or for what may be one, before the origin had it.
    pub foreseen: bool,
    /// The session of the backend that the answer begins.
    pub session: Option<SessionId>,
    /// The places of the tries, which are given back once it is counted what came of them.
    pub under_way: Vec<UnderWay>,
}

/// The name under which a user is counted: the same however it is typed, as far as databases do not tell it apart.
#[must_use]
pub fn user_id(name: &[u8]) -> UserId {
    let name = String::from_utf8_lossy(name.trim_ascii()).to_lowercase();
    UserId(short_hash(name.as_bytes()))
}

/// What a session's cookie is remembered by: too little to be sent as one, and made of too much to be guessed.
#[must_use]
pub fn session_id(cookie: &[u8]) -> SessionId {
    SessionId(short_hash(cookie))
}

/// The beginning of the SHA-256.
fn short_hash(bytes: &[u8]) -> u64 {
    let mut id = [0; 8];
    // The suite's hash is SHA-256; taking it from there saves a crate of its own.
    if let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() {
        let hash = suite.common.hash_provider.hash(bytes);
        id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    }
    u64::from_be_bytes(id)
}

impl Settlement {
    /// Settles it.
    pub fn settle(mut self, outcome: &Outcome, record: Option<&mut Record>, now: Millis) {
        let Outcome { attempt, verdict } = outcome;
        let (kind, verdict) = (attempt.kind, *verdict);
        self.who.user = attempt.user.as_deref().map(user_id);
        let user = match (self.user_names, &attempt.user, self.who.user) {
            (UserNames::Plain, Some(name), _) => String::from_utf8_lossy(name).into_owned(),
            (UserNames::Hashed, _, Some(id)) => format!("{:016x}", id.0),
            _ => String::new(),
        };
        tracing::info!(
            target: "ravelin::audit",
            event = "login",
            kind = kind.name(),
            verdict = verdict.name(),
            client = %self.client,
            site = &*self.site,
            user,
            id = &*self.id,
        );
        let ban = self.remember((kind, attempt.initiator), verdict, now);
        self.under_way.into_iter().for_each(UnderWay::give_back);
        if let Some(record) = record {
            record.login(kind, verdict, &user);
            if let Some(ban) = ban {
                record.banned(&ban.jail);
            }
        }
    }

    /// The ban that follows, if one does; the ledger tells the audit of it.
    fn remember(&self, (kind, initiator): (Kind, Initiator), verdict: Verdict, now: Millis) -> Option<Ban> {
        let jail = jail(&self.jail, kind, initiator);
        let counts = kind.is_guess() && initiator == Initiator::Own;
        let network = self.network.as_ref().filter(|_| counts);
        let network = network.map(|(jail, network)| (jail, Culprit { client: *network, ..self.who }));
        if verdict.counts() {
            // A ban that spares whoever is at work must be able to keep the next one from the origin.
            let jail = if self.foreseen { jail } else { unforeseen(jail) };
            let made = self.ledger.strike(&jail, &self.who, now);
            let network = network.and_then(|(jail, who)| self.ledger.strike(jail, &who, now));
            return made.or(network);
        }
        if verdict != Verdict::Success {
            return None;
        }
        // Who names several users could name his own and guess at another.
        if forgives(kind) && self.who.user != Some(user_id(SEVERAL)) {
            self.ledger.forgive(&jail, &self.who, now);
            if let Some((jail, who)) = &network {
                self.ledger.forgive(jail, who, now);
            }
            if !self.foreseen {
                self.ledger.forgive(&unforeseen(jail), &self.who, now);
            }
        }
        // Only a new session says who somebody is: an answer that looks like a right second factor or sudo password can
        // be had without one, since the router takes the login form for many addresses. And only one that is at work
        // has no second factor to come (`work`).
        if let (Kind::Backend | Kind::Relogin, Some(session)) = (kind, self.session) {
            self.ledger.began(self.who.client, self.who.site, session, now);
        }
        None
    }
}

/// Which failures a success makes forgotten: those of the same kind of account. A visitor who has an account of his
/// own, or an attacker who has a password and no second factor, would otherwise guess for ever.
pub(super) fn jail(login: &Jail, kind: Kind, initiator: Initiator) -> Jail {
    if initiator != Initiator::Own {
        // Whoever looks at a foreign page has not asked for it: tries that come so are refused, and nothing else.
        return Jail { name: Ban::CROSS_SITE.into(), action: Action::Refuse, ..login.clone() };
    }
    let suffix = match kind {
        Kind::Frontend => "-frontend",
        Kind::Mfa => "-mfa",
        Kind::PasswordReset => "-reset",
        Kind::Reaction => "-reaction",
        _ => return login.clone(),
    };
    // Asking for a new password is no guess at one, and a webhook with an old secret comes again and again.
    let patience = if matches!(kind, Kind::PasswordReset | Kind::Reaction) { 5 } else { 1 };
    let max_retry = login.max_retry.saturating_mul(patience);
    Jail { name: format!("{}{suffix}", login.name).into(), max_retry, ..login.clone() }
}

/// The jail of failures that only their answers tell.
fn unforeseen(jail: Jail) -> Jail {
    Jail { name: format!("{}{}", jail.name, Ban::UNFORESEEN).into(), ..jail }
}

/// Whether a success proves that whoever failed before was only clumsy: a new session, the Install Tool's own word, or
/// the application's. A redirect, a 200 or an answer that is no 401 can be had without any password.
fn forgives(kind: Kind) -> bool {
    matches!(kind, Kind::Backend | Kind::Relogin | Kind::Frontend | Kind::InstallTool | Kind::Application)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bans::SiteId;
    use crate::client::key::Prefix;

    #[test]
    fn a_name_is_one_however_it_is_typed() {
        assert_eq!(user_id(b"Editor "), user_id(b"editor"));
        assert_eq!(user_id("\u{c4}rger".as_bytes()), user_id("\u{e4}rger".as_bytes()));
        assert_ne!(user_id(b"editor"), user_id(b"editor2"));
        assert_eq!(format!("{:016x}", user_id(b"admin").0), "8c6976e5b5410415", "SHA-256, cut");
    }

    #[test]
    fn successes_forgive_their_own_kind_only() {
        let login = Jail::default();
        let name = |kind| jail(&login, kind, Initiator::Own).name.to_string();
        assert_eq!(name(Kind::Relogin), name(Kind::Backend));
        assert_ne!(name(Kind::Frontend), name(Kind::Backend));
        assert_ne!(name(Kind::Mfa), name(Kind::Backend));
        assert!(!forgives(Kind::Basic) && !forgives(Kind::Reaction) && forgives(Kind::Backend));
        assert!(
            !forgives(Kind::Sudo) && !forgives(Kind::Mfa),
            "a 200 or a redirect can be had without a password"
        );
    }

    #[test]
    fn an_answer_without_a_session_makes_nobody_known() {
        let (site, now) = (SiteId(1), Millis(1_000));
        let client = Key::new(IpAddr::from([192, 0, 2, 1]), Prefix::default());
        for (kind, known) in
            [(Kind::Sudo, false), (Kind::Mfa, false), (Kind::Frontend, false), (Kind::Backend, true)]
        {
            let settlement = Settlement {
                ledger: Arc::new(Ledger::default()),
                jail: Jail::default(),
                who: Culprit { client, site, user: None, ignored: false },
                client: client.addr(),
                site: "a.test".into(),
                id: "id".into(),
                user_names: UserNames::Off,
                network: None,
                foreseen: true,
                session: Some(SessionId(1)),
                under_way: Vec::new(),
            };
            assert_eq!(settlement.remember((kind, Initiator::Own), Verdict::Success, now), None);
            assert!(!settlement.ledger.knows(client, site, now), "{kind:?}: a second factor may follow");
            settlement.ledger.at_work(client, site, SessionId(1), now);
            assert_eq!(settlement.ledger.knows(client, site, now), known, "{kind:?}");
        }
    }

    #[test]
    fn who_names_several_users_is_forgiven_nothing() {
        let (site, now) = (SiteId(1), Millis(1_000));
        let client = Key::new(IpAddr::from([192, 0, 2, 1]), Prefix::default());
        for (name, banned) in [(&b"editor"[..], false), (SEVERAL, true)] {
            let ledger = Arc::new(Ledger::default());
            let settlement = Settlement {
                ledger,
                jail: Jail::default(),
                who: Culprit { client, site, user: Some(user_id(name)), ignored: false },
                client: client.addr(),
                site: "a.test".into(),
                id: "id".into(),
                user_names: UserNames::Off,
                network: None,
                foreseen: true,
                session: None,
                under_way: Vec::new(),
            };
            let say = |verdict| settlement.remember((Kind::Backend, Initiator::Own), verdict, now);
            for _ in 1..settlement.jail.max_retry {
                assert_eq!(say(Verdict::Failure), None);
            }
            assert_eq!(say(Verdict::Success), None);
            assert_eq!(say(Verdict::Failure).is_some(), banned, "{name:?}");
        }
    }

    #[test]
    fn whoever_asks_for_a_new_password_still_has_all_tries() {
        let login = Jail::default();
        assert!(jail(&login, Kind::PasswordReset, Initiator::Own).max_retry > login.max_retry);
        assert_ne!(jail(&login, Kind::Reaction, Initiator::Own).name, login.name);
    }

    #[test]
    fn a_second_factor_in_a_query_is_a_try_too() {
        use crate::login::attempt::{Asked, watch};
        use crate::login::policy::Policy;
        let asked = |query| Asked {
            method: &http::Method::GET,
            path: "/typo3/auth/mfa",
            query: Some(query),
            content_type: None,
            odd: false,
            authorization: None,
            cross_site: false,
            length: Some(0),
        };
        let kinds = |query| -> Vec<Kind> {
            let mut watch = watch(&Policy::typo3(), &asked(query)).unwrap();
            watch.attempts().iter().map(|attempt| attempt.kind).collect()
        };
        assert_eq!(kinds("action=verify&identifier=totp&totp=123456"), [Kind::Mfa]);
        assert!(kinds("identifier=totp").is_empty(), "the page with the form");
    }
}
