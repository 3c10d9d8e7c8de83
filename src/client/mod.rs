//! Who asks: the peer of the connection, or the client that a trusted proxy in front names.

pub mod balancer;
pub mod chain;
pub mod cidr;
pub mod derive;
pub mod forwarded;
pub mod key;
pub mod networks;
mod viewer;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::FORWARDED;

use crate::config::complaint::{Complaints, Place};
use crate::config::section::{Fault, FromText, Placed, Reading, Section, Text};
use crate::config::units::choice;
use crate::head::Head;
use crate::tls;
use chain::ForwardedFor;
use cidr::NetSet;
use key::{Key, Prefix};
use networks::Networks;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address and port; with the PROXY protocol, the address that it tells.
    pub addr: SocketAddr,
    /// The address and port that it connected to.
    pub local: SocketAddr,
    /// What was negotiated, if it speaks TLS.
    pub tls: Option<TlsFacts>,
    /// The number of the listener.
    pub listener: usize,
}

/// What a TLS handshake settled.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The server name that the client sent (SNI), lower-case.
    pub sni: Option<Box<str>>,
    /// The protocol version, as the log shows it.
    pub version: &'static str,
    /// The cipher suite, as the log shows it.
    pub cipher: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// What was asked of the client.
    pub clients: Arc<tls::clients::Policy>,
    /// Whom its certificate names, if it showed one.
    pub identity: Option<Arc<tls::Identity>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that the origin is told, and that counts for limits. Never an IPv4-mapped IPv6 address.
    pub addr: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub trusted: bool,
    /// Whether a trusted proxy says that the client reached it over https. The connection to Ravelin itself
    /// may be TLS as well; that is the peer's to say.
    pub secure: bool,
}

/// What `[client]` says.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    trusted_proxies: Option<Placed<Vec<Placed<Networks>>>>,
    ipv6_prefix: Option<Placed<u64>>,
    address_from: Option<Placed<Text<AddressFrom>>>,
    forwarded_for: Option<Placed<Text<ForwardedFor>>>,
    balancer_idle: Option<Placed<Text<Duration>>>,
}

/// Where a trusted proxy says who the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressFrom {
    /// In the chain that proxies write.
    #[default]
    Chain,
    /// In the field of `CloudFront`, if it is there.
    CloudFront,
}

impl FromText for AddressFrom {
    fn from_text(text: &str) -> Result<Self, Fault> {
        choice(text, &[("x-forwarded-for", Self::Chain), ("cloudfront-viewer-address", Self::CloudFront)])
    }
}

/// An AWS load balancer's idle time-out, if nothing else is set.
const BALANCER_IDLE: Duration = Duration::from_mins(1);

/// Whom to believe, and what counts as one client.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    trusted: Arc<NetSet>,
    prefix: Prefix,
    address_from: AddressFrom,
    forwarded_for: ForwardedFor,
    /// Element by element, for those who ask why somebody is trusted.
    written: Arc<[Placed<Networks>]>,
}

impl Raw {
    /// Reads the table `client` and closes it.
    pub fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let Some(mut client) = section.section(reading, "client") else { return Self::default() };
        let raw = Self {
            trusted_proxies: client.get(reading, "trusted_proxies"),
            ipv6_prefix: client.get(reading, "ipv6_prefix"),
            address_from: client.get(reading, "address_from"),
            forwarded_for: client.get(reading, "forwarded_for"),
            balancer_idle: client.get(reading, "balancer_idle"),
        };
        client.finish(reading);
        raw
    }

    /// This layer with a more specific one laid over it.
    #[must_use]
    pub fn over(self, specific: Self) -> Self {
        Self {
            trusted_proxies: specific.trusted_proxies.or(self.trusted_proxies),
            ipv6_prefix: specific.ipv6_prefix.or(self.ipv6_prefix),
            address_from: specific.address_from.or(self.address_from),
            forwarded_for: specific.forwarded_for.or(self.forwarded_for),
            balancer_idle: specific.balancer_idle.or(self.balancer_idle),
        }
    }

    /// Whether it is said who is trusted, and be it nobody.
    #[must_use]
    pub fn says_whom_to_trust(&self) -> bool {
        self.trusted_proxies.is_some()
    }

    /// Complains if connections from a balancer are closed before it does that itself: a request that it sends at that
    /// moment is lost, and answered with 502 by the balancer.
    pub fn check_keep_alive(&self, keep_alive: Duration, complaints: &mut Complaints) {
        let trusts = self.trusted_proxies.as_ref().filter(|nets| !nets.value.is_empty());
        let place = self.balancer_idle.as_ref().map(|idle| &idle.place);
        let Some(place) = place.or(trusts.map(|nets| &nets.place)) else { return };
        let idle = self.balancer_idle.as_ref().map_or(BALANCER_IDLE, |idle| idle.value.0);
        if keep_alive > idle {
            return;
        }
        let message = format!(
            "`limits.keep_alive` is {keep_alive:?}, and the balancer in front keeps a silent connection for {idle:?}: \
             requests that it sends just when Ravelin closes are answered with 502"
        );
        let hint = format!(
            "write `keep_alive = \"{} s\"` into `[limits]`, or the balancer's own idle time-out as `balancer_idle`",
            (idle + BALANCER_IDLE / 4).as_secs()
        );
        complaints.warning(Some(place), message, Some(hint));
    }

    /// Nobody is trusted unless written.
    pub fn compile(self, complaints: &mut Complaints) -> Policy {
        let nets = self.trusted_proxies.map_or_else(Vec::new, |placed| placed.value);
        let everybody =
            |element: &&Placed<Networks>| element.value.nets.iter().any(|net| net.prefix_len() == 0);
        for element in nets.iter().filter(everybody) {
            let message =
                format!("`{}` trusts everybody: any client can choose its own address", element.value.word);
            let hint = "name the addresses of the proxies in front, such as the subnets of a load balancer";
            complaints.warning(Some(&element.place), message, Some(hint.to_owned()));
        }
        let forwarded_for = self.forwarded_for;
        if let Some(written) = forwarded_for.as_ref().filter(|w| w.value.0 == ForwardedFor::Preserve) {
            let message = "X-Forwarded-For goes on as it came: its first entries are what strangers wrote";
            let hint = "an origin must read the entry that a proxy wrote (TYPO3: `reverseProxyHeaderMultiValue` = `last`); \
                        `append` keeps the chain without what was forged";
            complaints.warning(Some(&written.place), message, Some(hint.to_owned()));
        }
        Policy {
            address_from: self.address_from.map_or_else(Default::default, |written| written.value.0),
            forwarded_for: forwarded_for.map_or_else(Default::default, |written| written.value.0),
            trusted: Arc::new(networks::all(&nets).collect()),
            written: nets.into(),
            prefix: self.ipv6_prefix.map_or_else(Prefix::default, |bits| prefix(&bits, complaints)),
        }
    }
}

fn prefix(bits: &Placed<u64>, complaints: &mut Complaints) -> Prefix {
    u8::try_from(bits.value).ok().and_then(Prefix::new).unwrap_or_else(|| {
        let message = format!("`client.ipv6_prefix` is {}: it must lie between 32 and 128", bits.value);
        let hint = "64 is what one household or server gets; 128 counts every address alone";
        complaints.error(Some(&bits.place), message, Some(hint.to_owned()));
        Prefix::default()
    })
}

impl Policy {
    /// Whether `addr` is a trusted proxy.
    #[must_use]
    pub fn trusts(&self, addr: IpAddr) -> bool {
        self.trusted.contains(addr)
    }

    /// The element of `trusted_proxies` that `addr` is trusted by, and where it was written.
    #[must_use]
    pub fn trusted_by(&self, addr: IpAddr) -> Option<(&str, &Place)> {
        let addr = addr.to_canonical();
        let holds = |element: &&Placed<Networks>| element.value.nets.iter().any(|net| net.contains(&addr));
        self.written.iter().find(holds).map(|element| (&*element.value.word, &element.place))
    }

    /// How much of an IPv6 address is one client.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// What counts as one client for limits.
    #[must_use]
    pub fn key(&self, addr: IpAddr) -> Key {
        Key::new(addr, self.prefix)
    }
}

/// The chain of addresses that proxies write.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who asks. No field counts unless the peer is a trusted proxy; then the chain is walked from its end, past
/// every trusted proxy, to the first address that is none.
#[must_use]
pub fn identify(policy: &Policy, peer: &Peer, head: &Head<'_>) -> Client {
    let addr = peer.addr.ip().to_canonical();
    if !policy.trusts(addr) {
        return Client { addr, trusted: false, secure: false };
    }
    if policy.address_from == AddressFrom::CloudFront
        && let Some(viewer) = viewer::of(head)
    {
        let secure = viewer.secure.unwrap_or_else(|| secure(head));
        return Client { addr: viewer.addr, trusted: true, secure };
    }
    Client { addr: walk(policy, addr, head), trusted: true, secure: secure(head) }
}

/// X-Forwarded-For, and Forwarded only where there is none: a proxy that writes the one may pass the other on
/// as a client sent it.
fn walk(policy: &Policy, peer: IpAddr, head: &Head<'_>) -> IpAddr {
    let trusts = |addr| policy.trusts(addr);
    if head.get(&X_FORWARDED_FOR).is_some() {
        let lines = head.all(&X_FORWARDED_FOR).rev();
        return forwarded::walk(peer, lines.flat_map(forwarded::hops), trusts);
    }
    let lines = head.all(&FORWARDED).rev();
    let hops = lines.flat_map(forwarded::elements).map(forwarded::node);
    forwarded::walk(peer, hops, trusts)
}

/// What the nearest proxy says of the client's connection: the last entry, for it wrote that one.
fn secure(head: &Head<'_>) -> bool {
    let https = |word: &[u8]| word.eq_ignore_ascii_case(b"https");
    if let Some(line) = head.all(&X_FORWARDED_PROTO).next_back() {
        return https(forwarded::last(line));
    }
    if head.get(&X_FORWARDED_FOR).is_some() {
        return false;
    }
    let element = head.all(&FORWARDED).next_back().and_then(|line| forwarded::elements(line).next());
    element.and_then(|element| forwarded::parameter(element, b"proto")).is_some_and(https)
}

#[cfg(test)]
mod tests {
    use http::Version;
    use serde::Deserialize;

    use super::chain::Chain;
    use super::*;
    use crate::guard::testing;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        peer: String,
        #[serde(default)]
        trusted: Vec<String>,
        #[serde(default)]
        cloudfront: bool,
        #[serde(default)]
        fields: Vec<(String, String)>,
        client: IpAddr,
        #[serde(default)]
        secure: bool,
        /// What the origin gets with `append`, and with `preserve`; from strangers always the client alone.
        append: Option<String>,
        preserve: Option<String>,
    }

    fn policy(trusted: &[String]) -> Policy {
        policy_with(trusted, "")
    }

    fn policy_with(trusted: &[String], more: &str) -> Policy {
        let nets: Vec<String> = trusted.iter().map(|net| format!("\"{net}\"")).collect();
        let text = format!("[client]\ntrusted_proxies = [{}]\n{more}", nets.join(", "));
        let (raw, complaints) = testing::read(&text, Raw::read);
        assert!(complaints.is_empty(), "{complaints}");
        raw.compile(&mut Complaints::default())
    }

    fn peer(addr: &str) -> Peer {
        let addr: IpAddr = addr.parse().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 1], 443));
        Peer { addr: SocketAddr::new(addr, 50_000), local, tls: None, listener: 0 }
    }

    #[test]
    fn the_corpus_of_chains() {
        let corpus: Vec<Case> =
            serde_norway::from_str(include_str!("../../tests/corpus/forwarded.yaml")).unwrap();
        for case in corpus {
            let fields: Vec<_> = case.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let parts = testing::head("GET", "/", Version::HTTP_11, &fields);
            let from = if case.cloudfront { "cloudfront-viewer-address" } else { "x-forwarded-for" };
            let from = format!("address_from = \"{from}\"\n");
            let policy = policy_with(&case.trusted, &from);
            let client = identify(&policy, &peer(&case.peer), &Head::new(&parts));
            assert_eq!((client.addr, client.secure), (case.client, case.secure), "{}", case.name);
            let trusted = policy.trusts(case.peer.parse().unwrap());
            assert_eq!(client.trusted, trusted, "{}", case.name);
            let story = derive::story(&policy, &peer(&case.peer), &Head::new(&parts));
            let last = story.last().unwrap();
            assert!(last.starts_with(&format!("{} ", case.client)), "{}: {story:?}", case.name);
            let stranger = |said: &Option<String>| match said {
                Some(chain) => Some(Chain::Written(chain.clone().into())),
                None => (!trusted).then_some(Chain::Client),
            };
            for (mode, want) in [
                ("append", stranger(&case.append)),
                ("preserve", stranger(&case.preserve)),
                ("remove", Some(Chain::Nothing)),
                ("replace", Some(Chain::Client)),
            ] {
                let Some(want) = want else { continue };
                let policy = policy_with(&case.trusted, &format!("{from}forwarded_for = \"{mode}\""));
                let chain = chain::of(&policy, &peer(&case.peer), &Head::new(&parts), &client);
                assert_eq!(chain, want, "{} {mode}", case.name);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_last_hop() {
        let mut parts = testing::head("GET", "/", Version::HTTP_11, &[]);
        let chain = http::HeaderValue::from_bytes(b"\xff\xfe, 203.0.113.9").unwrap();
        parts.headers.insert(&X_FORWARDED_FOR, chain);
        let client = identify(&policy(&["10.0.0.0/8".to_owned()]), &peer("10.0.0.1"), &Head::new(&parts));
        assert_eq!(client.addr, IpAddr::from([203, 0, 113, 9]));
    }

    #[test]
    fn trusting_everybody_is_warned_about() {
        let (raw, _) = testing::read("[client]\ntrusted_proxies = [\"0.0.0.0/0\", \"::/0\"]", Raw::read);
        let mut complaints = Complaints::default();
        raw.compile(&mut complaints);
        assert_eq!(complaints.iter().count(), 2);
        assert!(!complaints.has_errors());
    }

    #[test]
    fn mistakes_are_complained_about() {
        for (text, said) in [
            ("[client]\ntrusted_proxys = []", "did you mean `trusted_proxies`?"),
            ("[client]\ntrusted_proxies = [\"10.0.0.1/8\"]", "did you mean `10.0.0.0/8`?"),
            ("[client]\nipv6_prefix = 8", "between 32 and 128"),
            ("[client]\nipv6_prefix = 320", "between 32 and 128"),
            ("[client]\nforwarded_for = \"apend\"", "did you mean `append`?"),
            ("[client]\naddress_from = \"x-real-ip\"", "cloudfront-viewer-address"),
        ] {
            let (raw, mut complaints) = testing::read(text, Raw::read);
            raw.compile(&mut complaints);
            assert!(complaints.has_errors() && complaints.to_string().contains(said), "{text}: {complaints}");
        }
    }

    #[test]
    fn a_balancer_must_not_outlast_our_connections() {
        let said = |text: &str, keep_alive| {
            let (raw, mut complaints) = testing::read(&format!("[client]\n{text}"), Raw::read);
            raw.check_keep_alive(Duration::from_secs(keep_alive), &mut complaints);
            assert!(!complaints.has_errors(), "{complaints}");
            complaints.to_string()
        };
        assert_eq!(said("", 10), "", "nothing is said of a balancer");
        assert_eq!(said("trusted_proxies = []", 10), "");
        assert_eq!(said("trusted_proxies = [\"10.0.0.0/8\"]", 61), "");
        assert!(said("trusted_proxies = [\"10.0.0.0/8\"]", 60).contains("`keep_alive = \"75 s\"`"));
        assert!(said("balancer_idle = \"120 s\"", 75).contains("`keep_alive = \"135 s\"`"));
        assert_eq!(said("balancer_idle = \"120 s\"", 121), "");
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_prefix() {
        let (raw, _) = testing::read("[client]\nipv6_prefix = 56", Raw::read);
        let policy = raw.compile(&mut Complaints::default());
        let key = |addr: &str| policy.key(addr.parse().unwrap());
        assert_eq!(key("2001:db8:0:1::1"), key("2001:db8:0:ff::2"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8:0:100::1"));
    }
}
