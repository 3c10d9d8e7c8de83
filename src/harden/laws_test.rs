//! The laws that hold for every response, whatever the origin sends and the operator writes.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::corpus_test::{facts, headers, policy};
use super::{Facts, apply, singleton};
use crate::fields::Fields;

fn names() -> impl Strategy<Value = String> {
    let odd = prop_oneof![Just("x-foo"), Just("x-bar"), Just("content-type"), Just("x-typo3-a")];
    let single = proptest::sample::select(singleton::SINGLETONS.map(|(name, _)| name).to_vec());
    prop_oneof![odd.prop_map(str::to_owned), single.prop_map(str::to_owned)]
}

fn responses() -> impl Strategy<Value = Fields> {
    let value = "(SAMEORIGIN|DENY|nosniff|max-age=[0-9]{1,3}|same-origin|\\?1|text/html|a|,|, |\"|){0,4}";
    proptest::collection::vec((names(), value), 0..14).prop_map(|lines| {
        let line = |(name, value): &(String, String)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value.trim()).unwrap())
        };
        lines.iter().map(line).collect()
    })
}

/// Rules of every kind for singletons and others.
fn rules() -> impl Strategy<Value = String> {
    let verb = proptest::sample::select(vec!["set", "append", "merge", "add", "setifempty", "unset", "none"]);
    let when = proptest::sample::select(vec!["", ", status = \"2xx\"", ", type = \"text/html\""]);
    let rule = (verb, when, any::<bool>());
    (rule.clone(), rule.clone(), rule.clone(), rule, any::<bool>()).prop_map(|(a, b, c, d, wild)| {
        let line = |name: &str, value: &str, (verb, when, twice): (&str, &str, bool)| {
            let one = match verb {
                "none" => return String::new(),
                "unset" => format!("{{ unset = true{when} }}"),
                verb => format!("{{ {verb} = \"{value}\"{when} }}"),
            };
            if twice { format!("{name} = [{one}, {one}]\n") } else { format!("{name} = {one}\n") }
        };
        let mut text = line("X-Frame-Options", "SAMEORIGIN", a);
        text += &line("Referrer-Policy", "same-origin", b);
        text += &line("Server", "ravelin", c);
        text += &line("X-Foo", "ours", d);
        text + if wild { "\"X-TYPO3-*\" = false\n" } else { "" }
    })
}

proptest! {
    #[test]
    fn a_singleton_never_leaves_twice(rules in rules(), mut sent in responses(), secure in any::<bool>(), hsts in any::<bool>()) {
        let policy = policy(&format!("[headers]\n{rules}[hsts]\nenabled = {hsts}\n"));
        apply(&policy, &Facts { secure, ..facts(200) }, &mut sent);
        for (name, _) in singleton::SINGLETONS {
            let name = HeaderName::from_static(name);
            prop_assert!(sent.all(&name).count() <= 1, "{name}: {sent:?}");
        }
        prop_assert!(secure || !sent.contains(&http::header::STRICT_TRANSPORT_SECURITY));
    }

    #[test]
    fn set_leaves_exactly_ours(mut sent in responses()) {
        apply(&headers("X-Frame-Options = \"DENY\"\nX-Foo = \"ours\""), &facts(200), &mut sent);
        let lines = |name| sent.all(&HeaderName::from_static(name)).map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        prop_assert_eq!(lines("x-frame-options"), ["DENY"]);
        prop_assert_eq!(lines("x-foo"), ["ours"]);
    }

    #[test]
    fn one_rule_in_a_list_is_the_rule(rules in rules(), sent in responses(), status in prop_oneof![Just(200_u16), Just(304), Just(404)]) {
        // The everyday operations have a fast way; lists take the other one. Both must mean the same.
        let listed: String = rules
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((name, rule)) if rule.starts_with('{') => {
                    format!("{name} = [{rule}, {{ edit = \"never matches this\", with = \"\" }}]\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let (mut a, mut b) = (sent.clone(), sent);
        apply(&headers(&rules), &facts(status), &mut a);
        apply(&headers(&listed), &facts(status), &mut b);
        let sorted = |fields: &Fields| {
            let mut all: Vec<_> = fields.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
            all.sort_by(|x, y| x.0.cmp(&y.0));
            all
        };
        prop_assert_eq!(sorted(&a), sorted(&b));
    }

    #[test]
    fn what_no_rule_is_about_passes(sent in responses()) {
        let mut out = sent.clone();
        apply(&headers("X-Bar = false"), &facts(200), &mut out);
        let others = |fields: &Fields| -> Vec<_> {
            fields.iter().filter(|(n, _)| ["x-foo", "content-type", "x-typo3-a"].contains(&n.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
        };
        prop_assert_eq!(others(&sent), others(&out));
    }

    #[test]
    fn applying_twice_is_applying_once(mut sent in responses()) {
        // What is joined behind a quote that never closes is inside it, for Apache too.
        prop_assume!(!sent.iter().any(|(_, value)| value.as_bytes().contains(&b'"')));
        let policy = headers("X-Frame-Options = \"DENY\"\nX-Foo = { setifempty = \"ours\" }\nX-Bar = { merge = \"ours\" }\nPermissions-Policy = \"usb=()\"");
        apply(&policy, &facts(200), &mut sent);
        let once = sent.clone();
        let again = apply(&policy, &facts(200), &mut sent);
        prop_assert_eq!(sent, once);
        prop_assert_eq!(again.conflicts, []);
    }
}
