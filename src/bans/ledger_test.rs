//! The ledger against a clock of its own: bans come, double, end, are told, and never grow without bound.

use proptest::prelude::*;

use super::*;
use crate::bans::Action;
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

/// Fails until a ban is made.
fn banned(ledger: &Ledger, jail: &Jail, who: &Culprit, now: Millis) -> Ban {
    (0..100).find_map(|_| ledger.strike(jail, who, now)).unwrap()
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

/// How long it takes until nobody is banned, by a clock that goes on from `now`.
fn until_free(ledger: &Ledger, client: Key, now: Millis) -> Duration {
    let minutes = (0..=60 * 24 * 30).map(Duration::from_mins);
    let free = |after: &Duration| ledger.banned(client, SITE, now.plus(*after)).is_none();
    minutes.into_iter().find(free).unwrap()
}

#[test]
fn no_jump_of_the_clock_makes_a_ban_that_does_not_end() {
    let (jail, who) = (Jail::default(), who("192.0.2.1"));
    let right = Millis(0).plus(Duration::from_hours(24 * 365 * 56));
    for ahead in [1, 5, 11, 60, 24 * 60, 365 * 24 * 60, 60 * 365 * 24 * 60].map(Duration::from_mins) {
        let ledger = Ledger::default();
        let ban = banned(&ledger, &jail, &who, right.plus(ahead));
        let length = ban.until.since(ban.since);
        assert!(ledger.banned(who.client, SITE, ban.since).is_some(), "it holds where the clock is");
        let left = until_free(&ledger, who.client, right);
        assert!(
            left <= length * 2 + Duration::from_mins(1),
            "{left:?} for one of {length:?} made {ahead:?} ahead"
        );
        // The failures are no trap either: who was ahead is counted like anybody else.
        let (free, day) = (right.plus(left), Duration::from_hours(24));
        if ahead > day {
            let made = strikes(&ledger, &jail, &who, &[free.0, free.0 + 1, free.0 + 2, free.0 + 3]);
            assert_eq!(made, [false, false, false, true], "{ahead:?}");
            assert!(until_free(&ledger, who.client, free.plus(Duration::from_secs(1))) <= length * 2);
        }
    }
}

#[test]
fn failures_of_a_clock_that_was_ahead_do_not_count() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let year = 365 * 24 * 60 * MINUTE;
    assert_eq!(strikes(&ledger, &jail, &who, &[60 * year, 60 * year + 1, 60 * year + 2]), [false; 3]);
    assert_eq!(strikes(&ledger, &jail, &who, &[56 * year, 56 * year + 1, 56 * year + 2]), [false; 3]);
    ledger.logged_in(who.client, SITE, Millis(60 * year));
    assert!(!ledger.knows(who.client, SITE, Millis(56 * year)), "nor does who logged in then");
}

#[test]
fn bans_from_before_a_start_with_a_clock_that_is_behind_hold_once_it_is_right() {
    let (before, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let right = Millis(0).plus(Duration::from_hours(24 * 365 * 56));
    let ban = banned(&before, &jail, &who, right);
    let ledger = Ledger::default();
    ledger.apply(Change::Banned(ban), Millis(0));
    ledger.sweep(Millis(1));
    assert!(ledger.banned(who.client, SITE, Millis(1)).is_none(), "in 1970 nobody is");
    assert!(ledger.banned(who.client, SITE, right.plus(Duration::from_secs(5))).is_some());
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

#[test]
fn bans_double_up_to_the_longest_and_are_forgiven_with_time() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let mut now = Millis(0);
    for level in 0..12_u8 {
        let ban = banned(&ledger, &jail, &who, now);
        assert_eq!(ban.level, level);
        let base = Duration::from_secs(600 << level).min(jail.longest);
        let length = ban.left(now);
        assert!(
            length >= base * 7 / 8 && length <= (base * 9 / 8).min(jail.longest),
            "{length:?} at {level}"
        );
        now = ban.until;
    }
    let later = now.plus(jail.longest * 5);
    assert_eq!(banned(&ledger, &jail, &who, later).level, 7, "five days forgive five of twelve");
}

#[test]
fn while_a_ban_holds_failures_do_not_count() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let ban = banned(&ledger, &jail, &who, Millis(0));
    assert!((1..50).all(|at| ledger.strike(&jail, &who, Millis(at)).is_none()));
    assert_eq!(ledger.banned(who.client, SITE, Millis(60)), Some(ban));
}

#[test]
fn a_success_forgets_failures_but_not_former_bans() {
    let (ledger, jail, who) = (Ledger::default(), Jail::default(), who("192.0.2.1"));
    let ban = banned(&ledger, &jail, &who, Millis(0));
    for at in 0..9 {
        let now = ban.until.plus(Duration::from_millis(at));
        assert!(ledger.strike(&jail, &who, now).is_none());
        ledger.forgive(&jail, &who, now);
    }
    assert_eq!(banned(&ledger, &jail, &who, ban.until).level, 1);
}

#[test]
fn scope_everything_counts_and_bans_over_all_sites() {
    let jail = Jail { reach: Reach::Everything, ..Jail::default() };
    let (ledger, here) = (Ledger::default(), who("192.0.2.1"));
    let there = Culprit { site: OTHER, ..here };
    let made: Vec<bool> =
        [here, there, here, there].iter().map(|who| ledger.strike(&jail, who, Millis(1)).is_some()).collect();
    assert_eq!(made, [false, false, false, true]);
    assert!(ledger.banned(here.client, SiteId(99), Millis(2)).is_some());
}

#[test]
fn a_user_name_is_banned_softly_across_clients_and_sites_stay_apart() {
    let (ledger, user) = (Ledger::default(), UserId(7));
    let jail = Jail { user_retry: Some(10), ..Jail::default() };
    for client in 0..10 {
        let who = Culprit { user: Some(user), ..who(&format!("192.0.2.{client}")) };
        ledger.strike(&jail, &who, Millis(client));
        assert!(ledger.banned(who.client, SITE, Millis(20)).is_none(), "no client fails twice");
    }
    assert!(ledger.user_banned(user, SITE, Millis(20)).is_some());
    assert!(ledger.user_banned(user, OTHER, Millis(20)).is_none());
    assert!(ledger.user_banned(UserId(8), SITE, Millis(20)).is_none());
}

#[test]
fn ignored_clients_are_not_banned() {
    let (ledger, jail) = (Ledger::default(), Jail::default());
    let who = Culprit { ignored: true, ..who("192.0.2.1") };
    assert!((0..50).all(|at| ledger.strike(&jail, &who, Millis(at)).is_none()));
    assert!(ledger.is_empty());
}

#[test]
fn bans_are_listed_lifted_and_flushed() {
    let (ledger, jail) = (Ledger::default(), Jail::default());
    let subject = |addr| Subject::Client(key(addr));
    for addr in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        banned(&ledger, &jail, &who(addr), Millis(0));
    }
    let by_hand = Ban {
        subject: subject("192.0.2.1"),
        site: None,
        jail: Ban::BY_HAND.into(),
        since: Millis(0),
        until: Millis(9 * MINUTE),
        level: 0,
        failures: 0,
        action: Action::Drop,
        why: "seen in the log".into(),
    };
    ledger.add(by_hand.clone(), Millis(0));
    assert_eq!((ledger.list(Millis(1)).len(), ledger.active()), (4, 3));
    assert_eq!(ledger.remove(subject("192.0.2.1"), None, Some("login")).len(), 1);
    assert_eq!(ledger.banned(key("192.0.2.1"), OTHER, Millis(1)), Some(by_hand));
    assert_eq!(ledger.remove(subject("192.0.2.1"), None, None).len(), 1);
    assert!(ledger.remove(subject("192.0.2.1"), None, None).is_empty());
    assert_eq!(
        banned(&ledger, &jail, &who("192.0.2.1"), Millis(1)).level,
        0,
        "former bans are forgotten too"
    );
    assert_eq!((ledger.flush(), ledger.active(), ledger.list(Millis(1)).len()), (3, 0, 0));
}

#[test]
fn what_is_told_makes_the_same_ledger_elsewhere() {
    let (here, there, jail) = (Ledger::default(), Ledger::default(), Jail::default());
    here.follow();
    banned(&here, &jail, &who("192.0.2.1"), Millis(0));
    banned(&here, &jail, &who("192.0.2.2"), Millis(0));
    strikes(&here, &jail, &who("192.0.2.3"), &[1, 2, 3]);
    strikes(&here, &jail, &who("192.0.2.4"), &[1, 2]);
    here.forgive(&jail, &who("192.0.2.4"), Millis(3));
    here.logged_in(key("192.0.2.5"), SITE, Millis(3));
    here.remove(Subject::Client(key("192.0.2.2")), None, None);
    for change in here.changes() {
        there.apply(change, Millis(4));
    }
    let sorted = |ledger: &Ledger| {
        let mut list = ledger.list(Millis(4));
        list.sort_by_key(|ban| ban.subject);
        list
    };
    assert_eq!(sorted(&here), sorted(&there));
    assert!(
        there.knows(key("192.0.2.5"), SITE, Millis(4)) && !there.knows(key("192.0.2.5"), OTHER, Millis(4))
    );
    assert!(
        there.strike(&jail, &who("192.0.2.3"), Millis(5)).is_some(),
        "the fourth failure, three of them there"
    );
    assert!(there.strike(&jail, &who("192.0.2.4"), Millis(5)).is_none());
    there.follow();
    assert!(there.changes().is_empty(), "what was applied is not told again");
    let ban = there.list(Millis(5)).into_iter().find(|ban| ban.subject == Subject::Client(key("192.0.2.1")));
    assert_eq!(banned(&there, &jail, &who("192.0.2.1"), ban.unwrap().until).level, 1);
}

#[test]
fn changes_that_nobody_fetches_are_dropped_and_counted() {
    let (ledger, jail) = (Ledger::default(), Jail { max_retry: 1000, ..Jail::default() });
    strikes(&ledger, &jail, &who("192.0.2.1"), &[1]);
    assert!(ledger.changes().is_empty(), "nobody follows yet");
    ledger.follow();
    for number in 0..u32::try_from(CHANGES_KEPT).unwrap() + 10 {
        let client = std::net::Ipv4Addr::from_bits(number / 500).to_string();
        ledger.strike(&jail, &who(&client), Millis(u64::from(number)));
    }
    assert_eq!((ledger.changes().len(), ledger.changes_lost()), (CHANGES_KEPT, 10));
}

#[test]
fn many_failures_are_counted_in_a_few_moments() {
    let jail = Jail { max_retry: 500, ..Jail::default() };
    let (ledger, who) = (Ledger::default(), who("192.0.2.1"));
    let times: Vec<u64> = (0..500).map(|i| i * 1_000).collect();
    let made = strikes(&ledger, &jail, &who, &times);
    assert_eq!(made.iter().position(|made| *made), Some(499));
    let slow: Vec<u64> = (0..2_000).map(|i| 10_000_000 + i * 1_300).collect();
    let calm = Jail { name: "calm".into(), ..jail };
    assert!(!strikes(&ledger, &calm, &who, &slow).contains(&true), "461 in any ten minutes");
}

#[test]
fn a_login_is_known_for_eight_hours() {
    let ledger = Ledger::default();
    ledger.logged_in(key("192.0.2.1"), SITE, Millis(0));
    let hours = |hours: u64| Millis(hours * 60 * MINUTE);
    assert!(
        ledger.knows(key("192.0.2.1"), SITE, hours(7)) && !ledger.knows(key("192.0.2.1"), SITE, hours(8))
    );
}

#[test]
fn a_small_ledger_stays_small_and_keeps_the_newest() {
    let ledger = Ledger::new(Bounds { bans: 640, failures: 640, known: 640 });
    let jail = Jail { max_retry: 1, ..Jail::default() };
    for number in 0..20_000_u32 {
        let addr = std::net::Ipv4Addr::from_bits(number).to_string();
        assert!(ledger.strike(&jail, &who(&addr), Millis(u64::from(number))).is_some());
        assert!(ledger.banned(key(&addr), SITE, Millis(u64::from(number))).is_some());
        ledger.logged_in(key(&addr), SITE, Millis(u64::from(number)));
    }
    assert!(ledger.active() <= 640 && ledger.pushed_out().0 >= 19_000);
    for _ in 0..80 {
        ledger.sweep(Millis(40 * 24 * 60 * MINUTE));
    }
    assert_eq!(ledger.active(), 0, "and all of it ends");
}

#[test]
fn nothing_is_lost_between_threads() {
    let (ledger, jail) = (Ledger::default(), Jail { max_retry: 100, ..Jail::default() });
    let made: usize = std::thread::scope(|scope| {
        let strike =
            || (0..100).filter(|_| ledger.strike(&jail, &who("192.0.2.1"), Millis(1)).is_some()).count();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(strike)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!((made, ledger.active()), (1, 1));
}

proptest! {
    /// Against a model that keeps every failure: a ban is made exactly when enough of them are in the window.
    #[test]
    fn a_ban_is_made_when_enough_failures_are_in_the_window(
        steps in prop::collection::vec((0u64..200, 0u8..8), 0..80),
        max_retry in 1u32..6, find_time in 100u64..600,
    ) {
        let find_time = Duration::from_millis(find_time);
        let ban_time = Duration::from_millis(300);
        let jail = Jail { max_retry, find_time, ban_time, longest: ban_time * 4, ..Jail::default() };
        let (ledger, who) = (Ledger::default(), who("192.0.2.1"));
        let (mut now, mut failures, mut until) = (Millis(0), Vec::<Millis>::new(), Millis(0));
        for (step, what) in steps {
            now = now.plus(Duration::from_millis(step));
            if what == 0 {
                ledger.forgive(&jail, &who, now);
                failures.clear();
                continue;
            }
            let ban = ledger.strike(&jail, &who, now);
            if now < until {
                prop_assert!(ban.is_none());
                continue;
            }
            failures.retain(|at| now.since(*at) < find_time);
            failures.push(now);
            prop_assert_eq!(ban.is_some(), failures.len() >= max_retry as usize);
            if let Some(ban) = ban {
                prop_assert!(ban.until > now && ban.left(now) <= jail.longest);
                until = ban.until;
                failures.clear();
            }
            prop_assert_eq!(ledger.banned(who.client, SITE, now).is_some(), now < until);
        }
    }
}

#[test]
fn tries_at_once_take_the_places_of_failures() {
    let (ledger, jail, who) = (Arc::new(Ledger::default()), Jail::default(), who("192.0.2.1"));
    let mut open: Vec<_> = (0..4).map(|_| ledger.begin(&jail, &who, Millis(0)).unwrap()).collect();
    let full = ledger.begin(&jail, &who, Millis(0)).unwrap_err();
    assert_eq!((full.failures, full.under_way, full.most), (0, 4, 4));
    assert!(ledger.begin(&jail, &Culprit { site: OTHER, ..who }, Millis(0)).is_ok());
    assert!(ledger.begin(&jail, &Culprit { ignored: true, ..who }, Millis(0)).is_ok());
    open.pop().unwrap().give_back();
    open.push(ledger.begin(&jail, &who, Millis(1)).unwrap());
    for try_ in open {
        assert!(ledger.banned(who.client, SITE, Millis(2)).is_none());
        ledger.strike(&jail, &who, Millis(2));
        try_.give_back();
    }
    assert!(ledger.banned(who.client, SITE, Millis(3)).is_some(), "by failures, not by places");
    let over = Millis(60 * MINUTE);
    ledger.strike(&jail, &who, over);
    let open: Vec<_> = (0..3).map(|_| ledger.begin(&jail, &who, over).unwrap()).collect();
    assert!(ledger.begin(&jail, &who, over).is_err(), "one failure and three tries");
    open.into_iter().for_each(UnderWay::give_back);
    assert!(ledger.begin(&Jail { max_retry: 1, ..jail }, &who, over).is_ok(), "one at a time can always try");
}

#[test]
fn the_places_of_a_user_name_are_counted_over_all_clients() {
    let ledger = Arc::new(Ledger::default());
    let jail = Jail { user_retry: Some(2), ..Jail::default() };
    let named = |addr: &str| Culprit { user: Some(UserId(7)), ..who(addr) };
    let first = ledger.begin(&jail, &named("192.0.2.1"), Millis(0)).unwrap();
    let _second = ledger.begin(&jail, &named("192.0.2.2"), Millis(0)).unwrap();
    assert!(ledger.begin(&jail, &named("192.0.2.3"), Millis(0)).is_err());
    first.give_back();
    assert!(ledger.begin(&jail, &named("192.0.2.3"), Millis(0)).is_ok());
}

#[test]
fn a_try_whose_client_has_left_keeps_its_place_for_ten_seconds() {
    let mut tries = super::super::under_way::Tries::default();
    assert_eq!(tries.begin(0, 1, Millis(0)), Ok(()));
    assert!(!tries.end(Some(Millis(1_000))));
    assert!(tries.begin(0, 1, Millis(10_999)).is_err());
    assert_eq!(tries.begin(0, 1, Millis(11_000)), Ok(()));
    assert!(tries.end(None), "nothing is left to remember");
}

#[test]
fn only_a_session_that_began_here_and_is_at_work_makes_its_client_known() {
    let (here, there) = (Ledger::default(), Ledger::default());
    here.follow();
    let (client, other) = (key("192.0.2.1"), key("192.0.2.2"));
    here.began(client, SITE, SessionId(7), Millis(1));
    for change in here.changes() {
        there.apply(change, Millis(1));
    }
    for ledger in [&here, &there] {
        ledger.at_work(client, SITE, SessionId(8), Millis(2));
        ledger.at_work(client, OTHER, SessionId(7), Millis(2));
        ledger.at_work(other, SITE, SessionId(7), Millis(2));
        assert!(!ledger.knows(client, SITE, Millis(2)) && !ledger.knows_somewhere(other, Millis(2)));
        ledger.at_work(client, SITE, SessionId(7), Millis(3));
        assert!(ledger.knows(client, SITE, Millis(3)) && !ledger.knows(client, OTHER, Millis(3)));
    }
    assert!(matches!(here.changes()[..], [Change::LoggedIn { .. }]), "it is told");
    here.began(other, SITE, SessionId(9), Millis(0));
    here.at_work(other, SITE, SessionId(9), Millis(61 * MINUTE));
    assert!(!here.knows(other, SITE, Millis(61 * MINUTE)), "nobody waits for ever");
    for number in 0..100_000 {
        here.began(client, SITE, SessionId(number), Millis(number));
    }
    let kept: usize = here.shards.iter().map(|shard| lock(shard).begun.len()).sum();
    assert!(kept <= BEGUN, "{kept}");
}

const HOUR: u64 = 60 * MINUTE;

#[test]
fn who_works_on_stays_known_for_a_day_at_most() {
    let ledger = Ledger::default();
    let client = key("192.0.2.1");
    ledger.began(client, SITE, SessionId(7), Millis(0));
    for minute in (0..40 * 60).step_by(5) {
        let now = Millis(minute * MINUTE);
        ledger.at_work(client, SITE, SessionId(7), now);
        let counts = minute * MINUTE < 24 * HOUR - 15 * MINUTE;
        assert!(!counts || ledger.knows(client, SITE, now), "minute {minute}");
        assert!(minute * MINUTE < 24 * HOUR || !ledger.knows(client, SITE, now), "minute {minute}");
    }
    ledger.began(client, SITE, SessionId(8), Millis(40 * HOUR));
    ledger.at_work(client, SITE, SessionId(8), Millis(40 * HOUR));
    assert!(ledger.knows(client, SITE, Millis(48 * HOUR - 1)), "a new login begins a new day");
    assert!(!ledger.knows(client, SITE, Millis(48 * HOUR)));
    ledger.at_work(client, SITE, SessionId(8), Millis(48 * HOUR));
    assert!(!ledger.knows(client, SITE, Millis(48 * HOUR)), "eight hours without use are the end");
}

#[test]
fn a_forged_session_or_one_from_elsewhere_extends_nothing() {
    let ledger = Ledger::default();
    let (client, other) = (key("192.0.2.1"), key("192.0.2.2"));
    ledger.began(client, SITE, SessionId(7), Millis(0));
    ledger.at_work(client, SITE, SessionId(7), Millis(0));
    for minute in 0..8 * 60 {
        let now = Millis(minute * MINUTE);
        ledger.at_work(client, SITE, SessionId(minute + 100), now);
        ledger.at_work(client, OTHER, SessionId(7), now);
        ledger.at_work(other, SITE, SessionId(7), now);
    }
    assert!(!ledger.knows(client, SITE, Millis(8 * HOUR)));
    assert!(!ledger.knows_somewhere(other, Millis(0)) && !ledger.knows(client, OTHER, Millis(0)));
}

#[test]
fn the_use_of_a_session_is_told_once_in_a_quarter_and_followed_by_all() {
    let (here, there) = (Ledger::default(), Ledger::default());
    here.follow();
    there.follow();
    let client = key("192.0.2.1");
    here.began(client, SITE, SessionId(7), Millis(0));
    for second in 0..3_600 {
        here.at_work(client, SITE, SessionId(7), Millis(second * 1_000));
    }
    let changes = here.changes();
    assert_eq!(changes.len(), 1 + 4, "its beginning, and four quarters: {changes:?}");
    for change in changes.into_iter().skip(1) {
        there.apply(change, Millis(HOUR));
    }
    there.at_work(client, SITE, SessionId(7), Millis(45 * MINUTE + 1));
    assert!(there.changes().is_empty(), "the other one told this quarter");
    there.at_work(client, SITE, SessionId(7), Millis(8 * HOUR));
    assert!(there.knows(client, SITE, Millis(15 * HOUR)), "also where it neither began nor was used");
    let told = there.changes();
    assert!(
        matches!(told[..], [Change::LoggedIn { work: Some((SessionId(7), Millis(0))), .. }]),
        "with its beginning: {told:?}"
    );
    // What a store says of a session that nobody saw begin is bounded all the same.
    let work = Some((SessionId(7), Millis(u64::MAX)));
    there.apply(Change::LoggedIn { client, site: SITE, at: Millis(u64::MAX), work }, Millis(9 * HOUR));
    there.at_work(client, SITE, SessionId(7), Millis(16 * HOUR));
    assert!(!there.knows(client, SITE, Millis(17 * HOUR)), "the earliest beginning holds");
    for number in 0..100_000 {
        here.began(client, SITE, SessionId(number), Millis(number));
        here.at_work(client, SITE, SessionId(number), Millis(number));
    }
    let kept: usize = here.shards.iter().map(|shard| lock(shard).working.len()).sum();
    assert!(kept <= WORKING, "{kept}");
}
