use super::*;

use crate::client::key::Prefix;

const SITE: SiteId = SiteId(1);
const OTHER: SiteId = SiteId(2);
const MINUTE: u64 = 60_000;

fn key(addr: &str) -> Key {
    Key::new(addr.parse().unwrap(), Prefix::default())
}

fn who(addr: &str) -> Culprit {
    Culprit { client: key(addr), site: SITE, user: None, ignored: false }
}

fn strikes(ledger: &Ledger, jail: &Jail, who: &Culprit, times: &[u64]) -> Vec<bool> {
    times.iter().map(|at| ledger.strike(jail, who, Millis(*at)).is_some()).collect()
}

#[test]
fn the_fourth_failure_in_ten_minutes_makes_a_ban_that_ends() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    assert_eq!(strikes(&ledger, &jail, &who, &[0, 1, 2]), [false; 3]);
    assert!(ledger.banned(who.client, SITE, Millis(3)).is_none());
    let ban = ledger.strike(&jail, &who, Millis(3)).unwrap();
    assert_eq!((ban.level, ban.failures, ban.site), (0, 4, Some(SITE)));
    let minutes = ban.left(Millis(3)).as_secs_f64() / 60.0;
    assert!((10.0..=11.25).contains(&minutes), "{minutes}");
    assert_eq!(ledger.banned(who.client, SITE, Millis(4)), Some(ban.clone()));
    assert!(ledger.banned(who.client, OTHER, Millis(4)).is_none());
    assert!(ledger.banned(key("192.0.2.2"), SITE, Millis(4)).is_none());
    assert!(ledger.banned(who.client, SITE, ban.until).is_none());
}

#[test]
fn failures_that_are_old_do_not_count() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let times: Vec<u64> = (0..40).map(|i| i * 4 * MINUTE).collect();
    assert_eq!(strikes(&ledger, &jail, &who, &times), vec![false; 40], "three in ten minutes for hours");
}

#[test]
fn an_ipv6_network_is_one_client() {
    let (ledger, jail) = (Ledger::default(), Jail::default());
    for i in 1..=4 {
        ledger.strike(&jail, &who(&format!("2001:db8::{i}")), Millis(i));
    }
    assert!(ledger.banned(key("2001:db8::ffff"), SITE, Millis(5)).is_some());
    assert!(ledger.banned(key("2001:db8:0:1::1"), SITE, Millis(5)).is_none());
}
