//! One order with one CA, from the account to the certificate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;

use super::book::{Book, Challenge as Open};
use super::client::{Client, TooOften};
use super::settings::{Challenge, Issuer, Policy};
use crate::clock;

/// How long the CA may take to look, and to sign.
const WAITING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2));
/// How long an open challenge is told to replicas.
const OPEN: Duration = Duration::from_mins(10);
/// Replicas look for an open challenge this often, and twice as long is waited for them.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// What an open challenge is kept as.
pub(super) const CHALLENGE: &str = "challenge.json";

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Refused {
    /// A sentence.
    pub(super) why: String,
    /// Whether the CA says that it was asked too often, and not for how long it is to be left alone.
    pub(super) rate_limited: bool,
    /// For how long it says that it is to be left alone.
    pub(super) after: Option<Duration>,
}

/// Records that stand in a zone for a proof, and their values.
pub(super) type Shown = Mutex<Vec<(String, String)>>;

/// What is to be ordered, and how.
pub(super) struct Order<'a> {
    pub(super) policy: &'a Policy,
    pub(super) book: &'a Book,
    pub(super) shown: &'a Shown,
    pub(super) issuer: &'a Issuer,
    /// The directory: that of the issuer, or its staging one.
    pub(super) directory: &'a str,
    pub(super) name: &'a str,
    /// How often it failed before: each time another challenge is tried first.
    pub(super) failures: u32,
    /// The certificate that this one replaces, of the same CA.
    pub(super) replaces: Option<&'a CertificateDer<'static>>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let rate_limited = matches!(&error, Error::Api(problem)
            if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":rateLimited")));
        if let Some(too_often) = too_often(&error) {
            return Self { why: error.to_string(), rate_limited: false, after: Some(too_often.after) };
        }
        Self { why: error.to_string(), rate_limited, after: None }
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, rate_limited: false, after: None }
    }
}

impl Order<'_> {
    /// Orders, proves, and comes back with the private key and the chain, PEM.
    pub(super) async fn place(&self) -> Result<String, Refused> {
        let account = account(self.policy, self.issuer, self.directory).await?;
        let wildcard = self.name.starts_with("*.");
        let identifier = match self.name.parse() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns(self.name.to_owned()),
        };
        let identifiers = [identifier];
        if let Some(profile) = self.issuer.profile.as_deref()
            && !account.profiles().any(|known| known.name == profile)
        {
            let mut known: Vec<&str> = account.profiles().map(|known| known.name).collect();
            known.sort_unstable();
            return Err(format!("it has no profile `{profile}`; it has: {}", known.join(", ")).into());
        }
        let mut order = self.order(&account, &identifiers).await?;
        let proven = self.prove(&mut order, wildcard).await;
        let proven = match proven {
            Ok(()) => order.poll_ready(&WAITING).await.map_err(Refused::from),
            Err(refused) => Err(refused),
        };
        take_back(self.policy, self.book, self.shown).await;
        match proven? {
            OrderStatus::Ready | OrderStatus::Valid => {}
            _ => return Err(reason(&mut order).await.into()),
        }
        let (key, request) = request(self.name)?;
        order.finalize_csr(&request).await?;
        let chain = order.poll_certificate(&WAITING).await?;
        Ok(format!("{key}{chain}"))
    }

    /// A renewal says which certificate it replaces, so that no limit is counted (RFC 9773 section 5); where that is not
    /// understood, it is an order like any other.
    async fn order(
        &self,
        account: &Account,
        identifiers: &[Identifier],
    ) -> Result<instant_acme::Order, Refused> {
        let wish = || match self.issuer.profile.as_deref() {
            Some(profile) => NewOrder::new(identifiers).profile(profile),
            None => NewOrder::new(identifiers),
        };
        let former = self.replaces.and_then(|der| CertificateIdentifier::try_from(der).ok());
        if let Some(former) = former {
            match account.new_order(&wish().replaces(former)).await {
                Err(error) if is_about_replacing(&error) => {}
                order => return Ok(order?),
            }
        }
        Ok(account.new_order(&wish()).await?)
    }

    async fn prove(&self, order: &mut instant_acme::Order, wildcard: bool) -> Result<(), Refused> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let offered: Vec<ChallengeType> =
                authorization.challenges.iter().map(|challenge| challenge.r#type.clone()).collect();
            let kind = self.choose(&offered, wildcard).ok_or_else(|| {
                format!("it offers none of the challenges that may be used, but {offered:?}")
            })?;
            let mut challenge =
                authorization.challenge(wire(kind)).ok_or_else(|| "the challenge is gone".to_owned())?;
            let proof = challenge.key_authorization();
            match kind {
                Challenge::Dns01 => {
                    let record = format!("_acme-challenge.{}", self.name.trim_start_matches("*."));
                    let hook =
                        self.policy.hook.as_ref().ok_or_else(|| "there is no `dns_hook`".to_owned())?;
                    let value = proof.dns_value();
                    lock(self.shown).push((record.clone(), value.clone()));
                    hook.run("add", &record, &value).await?;
                }
                Challenge::TlsAlpn01 | Challenge::Http01 => {
                    let open = Open {
                        tls: kind == Challenge::TlsAlpn01,
                        name: self.name.to_owned(),
                        token: challenge.token.clone(),
                        authorization: proof.as_str().to_owned(),
                        until: seconds(clock::wall()) + OPEN.as_secs(),
                    };
                    self.book.open(&open)?;
                    let told = serde_json::to_vec(&open).map_err(|error| error.to_string())?;
                    self.policy.storage.put(CHALLENGE, &told, Some(OPEN)).await?;
                    // The CA may come to another process that shares the storage, a folder too.
                    tokio::time::sleep(LOOK * 2).await;
                }
            }
            challenge.set_ready().await?;
        }
        Ok(())
    }

    /// The first that may be used and is offered; after a failure, another one first.
    fn choose(&self, offered: &[ChallengeType], wildcard: bool) -> Option<Challenge> {
        let usable = |challenge: &&Challenge| {
            (**challenge == Challenge::Dns01 || !wildcard) && offered.contains(&wire(**challenge))
        };
        let usable: Vec<Challenge> = self.policy.challenges.iter().filter(usable).copied().collect();
        let turn = usize::try_from(self.failures).unwrap_or_default().checked_rem(usable.len())?;
        usable.get(turn).copied()
    }
}

/// Unix time.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Nothing of a proof stays.
pub(super) async fn take_back(policy: &Policy, book: &Book, shown: &Shown) {
    book.close();
    if let Err(why) = policy.storage.remove(CHALLENGE).await {
        tracing::debug!(why, "the closed challenge ends by itself");
    }
    // Whoever is cut off in here is asked again: each record is forgotten once it is gone.
    loop {
        let last = lock(shown).last().cloned();
        let Some((record, value)) = last else { break };
        if let Some(hook) = &policy.hook
            && let Err(why) = hook.run("remove", &record, &value).await
        {
            tracing::warn!(why, record, "the record stays in the zone");
        }
        lock(shown).pop();
    }
}

fn lock(shown: &Shown) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wire(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

fn too_often(error: &Error) -> Option<&TooOften> {
    match error {
        Error::Other(error) => error.downcast_ref(),
        _ => None,
    }
}

fn is_about_replacing(error: &Error) -> bool {
    match error {
        // Without its words it would be a second try.
        Error::Other(_) if too_often(error).is_some() => false,
        Error::Unsupported(_) | Error::Other(_) => true,
        Error::Api(problem) => problem
            .r#type
            .as_deref()
            .is_some_and(|kind| kind.ends_with(":alreadyReplaced") || kind.ends_with(":malformed")),
        _ => false,
    }
}

/// What the CA found wrong.
async fn reason(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.to_string();
        }
    }
    "it does not believe the proof, and does not say why".to_owned()
}

/// A new key, PEM, and the request for a certificate for `name`, DER.
fn request(name: &str) -> Result<(String, Vec<u8>), String> {
    let said = |error: rcgen::Error| format!("no request can be made for `{name}`: {error}");
    let mut params = CertificateParams::new([name.to_owned()]).map_err(said)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().map_err(said)?;
    let request = params.serialize_request(&key).map_err(said)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// The account at a directory, opened when there is none.
pub(super) async fn account(policy: &Policy, issuer: &Issuer, directory: &str) -> Result<Account, Refused> {
    let key = account_key(directory);
    let builder = || Account::builder_with_http(Box::new(Client(Arc::clone(&issuer.tls))));
    if let Some(kept) = policy.storage.get(&key).await? {
        let credentials = serde_json::from_slice::<AccountCredentials>(&kept).map_err(|error| {
            format!("the account in {key} cannot be read: {error}; delete it to open another")
        })?;
        return Ok(builder().from_credentials(credentials).await?);
    }
    let contact = policy.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let wish = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let binding = issuer.eab.as_ref().map(|(id, value)| ExternalAccountKey::new(id.clone(), value));
    let (account, credentials) = builder().create(&wish, directory.to_owned(), binding.as_ref()).await?;
    let kept = serde_json::to_vec(&credentials).map_err(|error| error.to_string())?;
    policy.storage.put(&key, &kept, None).await?;
    tracing::info!(issuer = %issuer.name, directory, "an ACME account was opened");
    Ok(account)
}

fn account_key(directory: &str) -> String {
    let name: String = directory
        .trim_start_matches("https://")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(120)
        .collect();
    format!("account-{name}.json")
}

/// When the CA suggests to renew, and after how long it may be asked again (RFC 9773).
pub(super) async fn renewal_info(
    account: &Account,
    der: &CertificateDer<'static>,
) -> Result<((SystemTime, SystemTime), Duration), String> {
    let id = CertificateIdentifier::try_from(der)?;
    let (info, again) = account.renewal_info(&id).await.map_err(|error| error.to_string())?;
    let window = info.suggested_window;
    Ok(((window.start.into(), window.end.into()), again))
}
