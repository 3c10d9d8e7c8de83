//! TLS towards the origin: what is believed, and what is not.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::upstream::pin::Pin;
use crate::upstream::tls::{Tls, Trust, config};

struct Authority(CertifiedIssuer<'static, KeyPair>);

struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Leaf { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.0.der().clone()).unwrap();
        store
    }
}

impl Leaf {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    fn pin(&self) -> Pin {
        Pin::of(&self.key.subject_public_key_info())
    }
}

fn trust(authority: &Authority) -> Trust {
    Trust { roots: Some(authority.store().into()), named: Vec::new(), pins: Vec::new(), client: None }
}

/// What becomes of one request to an origin with this certificate, by a client that trusts so.
async fn ask(leaf: &Leaf, clients: Option<&Authority>, trust: Trust, name: &str) -> Result<String, Kind> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(authority.store()), provider)
                .build()
                .unwrap(),
        ),
    };
    let server = builder.with_single_cert(vec![leaf.certificate.der().clone()], leaf.key()).unwrap();
    let origin = Origin::start().await;
    let endpoint = Endpoint::from_text(&origin.url().replace("http:", "https:")).unwrap();
    let tls = Tls::new(config(trust).unwrap(), ServerName::try_from(name.to_owned()).unwrap());
    let policy = Policy { members: vec![(endpoint, Some(tls))], pool: PoolPolicy::default() };
    let upstream = Upstream::new(&policy, LIMITS, 1);
    let (result, _open) = tokio::join!(
        async {
            for reused in [false, true] {
                let answer = upstream.send(0, get()).await?;
                assert_eq!(answer.facts.reused, reused);
                assert_eq!(text(answer).await.unwrap(), "ok");
            }
            Ok::<_, UpstreamError>("twice".to_owned())
        },
        async {
            let peer = origin.accept().await;
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(peer.stream).await.ok()?;
            for _ in 0..2 {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.ok()?);
                }
                stream.write_all(OK.as_bytes()).await.ok()?;
            }
            Some(stream)
        }
    );
    result.map_err(|error| error.kind)
}

#[tokio::test]
async fn the_chain_and_the_name_are_verified() {
    let (ours, other) = (Authority::new(), Authority::new());
    let leaf = ours.leaf("origin.internal");
    assert_eq!(ask(&leaf, None, trust(&ours), "origin.internal").await, Ok("twice".to_owned()));
    assert_eq!(ask(&leaf, None, trust(&other), "origin.internal").await, Err(Kind::Tls));
    assert_eq!(ask(&leaf, None, trust(&ours), "other.internal").await, Err(Kind::Tls));
}

#[tokio::test]
async fn a_self_signed_certificate_may_be_its_own_root() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["origin.internal".to_owned()]).unwrap();
    let leaf = Leaf { certificate: params.self_signed(&key).unwrap(), key };
    let mut store = RootCertStore::empty();
    store.add(leaf.certificate.der().clone()).unwrap();
    let trust = Trust { roots: Some(store.into()), named: Vec::new(), pins: Vec::new(), client: None };
    assert!(ask(&leaf, None, trust, "origin.internal").await.is_ok());
}

#[tokio::test]
async fn one_that_is_marked_as_a_ca_may_be_if_it_is_named_itself() {
    let made = |change: fn(&mut CertificateParams)| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["origin.internal".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        Leaf { certificate: params.self_signed(&key).unwrap(), key }
    };
    let trusting = |leaf: &Leaf, named: bool| {
        let mut store = RootCertStore::empty();
        store.add(leaf.certificate.der().clone()).unwrap();
        let named = if named { vec![leaf.certificate.der().clone()] } else { Vec::new() };
        Trust { roots: Some(store.into()), named, pins: Vec::new(), client: None }
    };
    let leaf = made(|_| {});
    assert!(ask(&leaf, None, trusting(&leaf, true), "origin.internal").await.is_ok());
    assert_eq!(ask(&leaf, None, trusting(&leaf, false), "origin.internal").await, Err(Kind::Tls));
    assert_eq!(ask(&leaf, None, trusting(&leaf, true), "other.internal").await, Err(Kind::Tls));
    assert_eq!(ask(&made(|_| {}), None, trusting(&leaf, true), "origin.internal").await, Err(Kind::Tls));
    let old = made(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let client = made(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]);
    for bad in [old, client] {
        assert_eq!(ask(&bad, None, trusting(&bad, true), "origin.internal").await, Err(Kind::Tls));
    }
    let pinned = Trust { pins: vec![made(|_| {}).pin()], ..trusting(&leaf, true) };
    assert_eq!(ask(&leaf, None, pinned, "origin.internal").await, Err(Kind::Tls), "pins still hold");
}

#[tokio::test]
async fn pins_come_on_top() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (leaf, stranger) = (ours.leaf("origin.internal"), ours.leaf("origin.internal"));
    let pinned = |pins: Vec<Pin>, roots: &Authority| Trust { pins, ..trust(roots) };
    let both = vec![stranger.pin(), leaf.pin()];
    assert!(ask(&leaf, None, pinned(both, &ours), "origin.internal").await.is_ok());
    let wrong = pinned(vec![stranger.pin()], &ours);
    assert_eq!(ask(&leaf, None, wrong, "origin.internal").await, Err(Kind::Tls));
    let right_but_untrusted = pinned(vec![leaf.pin()], &other);
    assert_eq!(ask(&leaf, None, right_but_untrusted, "origin.internal").await, Err(Kind::Tls));
}

#[tokio::test]
async fn any_certificate_only_if_it_is_spelled_dangerously_and_pins_still_hold() {
    let ours = Authority::new();
    let leaf = ours.leaf("whatever.internal");
    let any = |pins| Trust { roots: None, named: Vec::new(), pins, client: None };
    assert!(ask(&leaf, None, any(Vec::new()), "origin.internal").await.is_ok());
    let stranger = ours.leaf("whatever.internal");
    assert_eq!(ask(&leaf, None, any(vec![stranger.pin()]), "origin.internal").await, Err(Kind::Tls));
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let leaf = ours.leaf("origin.internal");
    let me = clients.leaf("ravelin");
    let chain = vec![me.certificate.der().clone()];
    let shown = Trust { client: Some((chain, me.key())), ..trust(&ours) };
    assert!(ask(&leaf, Some(&clients), shown, "origin.internal").await.is_ok());
    assert!(ask(&leaf, Some(&clients), trust(&ours), "origin.internal").await.is_err());
}
