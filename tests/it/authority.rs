//! For which site is a request? Server name, Host, target and `:authority` must not say different things
//! (`tests/corpus/authority.yaml`), over HTTP/1 and HTTP/2.

use serde::Deserialize;

use crate::desync::bytes;
use crate::harness::front::{at_once, refusal_faults};
use crate::harness::h2::{End, H2};
use crate::harness::raw_origin::RawOrigin;
use crate::harness::waiting::Results;
use crate::harness::{HOST, Ravelin, Wire, judge, proxy, strict, test_file};

const SHOP: &str = "shop.example.com";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    why: String,
    send: Option<String>,
    fields: Option<Vec<(String, String)>>,
    sni: Option<String>,
    answer: Vec<Answer>,
    to: Option<Site>,
    #[serde(default = "root")]
    target: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum Answer {
    Status(u16),
    Word(Word),
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Word {
    Reset,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Site {
    Www,
    Shop,
}

/// Two sites, each with its own origin.
struct Street {
    site: Ravelin,
    www: RawOrigin,
    shop: RawOrigin,
}

impl Street {
    fn open() -> Self {
        let (www, shop) = (RawOrigin::start(), RawOrigin::start());
        let site = proxy()
            .site(HOST, www.url().as_str())
            .also("example.org")
            .site(SHOP, shop.url().as_str())
            .also("*.shop.example.com")
            .plain_serves()
            .start();
        Self { site, www, shop }
    }

    /// What is wrong with what became of a case sent this way.
    fn faults(&self, case: &Case, end: &End) -> Vec<String> {
        let mut faults = Vec::new();
        let fine = match end {
            End::Answer(reply) => case.answer.contains(&Answer::Status(reply.status)),
            End::Reset(_) | End::Goaway(_) | End::Closed => case.answer.contains(&Answer::Word(Word::Reset)),
            End::Silent => false,
        };
        if !fine {
            faults.push(format!("ended with {end:?}, not one of {:?}", case.answer));
        }
        let served = matches!(end, End::Answer(reply) if reply.status < 400);
        if let End::Answer(reply) = end
            && !served
        {
            faults.extend(refusal_faults(&self.site, reply));
        }
        for (which, origin) in [(Site::Www, &self.www), (Site::Shop, &self.shop)] {
            let seen = origin.received().whole;
            let expected = usize::from(served && case.to == Some(which));
            if seen.len() != expected {
                faults.push(format!("the origin of {which:?} got {} requests, not {expected}", seen.len()));
            }
            for (request, verdict) in seen.iter().zip(judge::judge(&seen)) {
                if verdict.tier != "Compliant" {
                    faults.push(format!("dirty: {verdict:?}"));
                }
                match strict::requests(request).as_deref() {
                    Ok([request]) if request.target == case.target => {}
                    other => faults.push(format!("the origin of {which:?} got {other:?}")),
                }
            }
        }
        faults
    }

    fn over_h1(&self, case: &Case, send: &str, mut wire: Wire) -> Vec<String> {
        self.forget();
        wire.send(bytes(send));
        let end = match wire.try_reply() {
            Some(reply) => End::Answer(Box::new(reply)),
            None => End::Closed,
        };
        self.faults(case, &end)
    }

    fn over_h2(&self, case: &Case, fields: &[(String, String)]) -> Vec<String> {
        self.forget();
        let mut client = H2::named(&self.site, case.sni.as_deref().unwrap_or(HOST));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        client.headers(1, &fields, true);
        self.faults(case, &client.end_of(1))
    }

    fn forget(&self) {
        self.www.forget();
        self.shop.forget();
    }
}

#[test]
fn authority_is_one_clear_word() {
    let text = std::fs::read_to_string(test_file("corpus/authority.yaml")).expect("the corpus");
    let cases: Vec<Case> = serde_norway::from_str(&text).expect("the corpus is valid");
    assert!(cases.len() >= 60, "the corpus has {} cases", cases.len());
    let found = at_once(&cases, Street::open, |street, case| match (&case.send, &case.fields) {
        (Some(send), None) => {
            let sni = case.sni.as_deref();
            let tls = street.site.wire_named(sni.unwrap_or(HOST), &[b"http/1.1"]);
            let mut faults = street.over_h1(case, send, tls);
            if sni.is_none() {
                faults.extend(street.over_h1(case, send, street.site.wire()));
            }
            faults
        }
        (None, Some(fields)) => street.over_h2(case, fields),
        _ => vec!["either `send` or `fields`".to_owned()],
    });
    let mut results = Results::of("authority");
    for (case, mut faults) in cases.iter().zip(found) {
        if !faults.is_empty() {
            faults.insert(0, case.why.clone());
        }
        results.add(&case.name, &faults);
    }
    results.hold();
}

#[test]
fn what_is_forwarded_names_the_host_that_was_decided_on() {
    let street = Street::open();
    for host in [HOST, "WWW.EXAMPLE.ORG", "example.org"] {
        street.forget();
        street.site.wire().say(&format!("GET / HTTP/1.1\nHost: {host}\n\n")).reply().status(200);
        let seen = street.www.received().whole;
        let seen: Vec<_> = seen.iter().flat_map(|bytes| strict::requests(bytes).unwrap()).collect();
        for field in ["host", "x-forwarded-host"] {
            let told: Vec<&str> = seen.iter().flat_map(|request| request.all(field)).collect();
            assert_eq!(told, [host], "{field}");
        }
    }
}
