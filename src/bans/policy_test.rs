//! What the operator writes about bans, jails and limits: what it means, and what is complained about.

use std::path::PathBuf;

use http::{Method, StatusCode};

use crate::bans::rate::Asked;
use crate::bans::watch::Exchange;
use crate::bans::{Action, Policy, Reach, SiteId};
use crate::config::load_text;
use crate::config::units::Mode;
use crate::site::Area;

const REST: &str = "\n[[listen]]\nurl = \"http://127.0.0.1:0\"\n\
                    [[site]]\nhosts = [\"a.test\"]\nupstream = \"http://127.0.0.1:1\"\n";

fn policy(text: &str) -> std::sync::Arc<Policy> {
    let loaded = load_text("ravelin.toml", format!("{text}{REST}"), PathBuf::new());
    loaded.generation.unwrap_or_else(|| panic!("{}", loaded.complaints)).bans
}

#[test]
fn nothing_written_is_four_failures_in_ten_minutes() {
    let policy = policy("");
    let jail = policy.login();
    assert_eq!((jail.max_retry, jail.find_time.as_secs(), jail.ban_time.as_secs()), (4, 600, 600));
    assert_eq!((jail.longest.as_secs(), jail.action, jail.reach), (86_400, Action::Refuse, Reach::Site));
    assert!(policy.jails.is_empty() && jail.user_retry.is_none());
    assert_eq!(policy.rates.iter().map(|rate| &*rate.name).collect::<Vec<_>>(), ["login"]);
}

#[test]
fn jails_take_from_bans_what_they_do_not_say() {
    let policy = policy(
        "[bans]\nmax_retry = 7\naction = \"drop\"\nper_user = true\n\
         [[jail]]\nname = \"a\"\nmatch = { status = [404, \"5xx\"], method = \"GET\", area = \"frontend\", site = \"a.test\" }\n\
         scope = \"everything\"\nmode = \"report\"\n",
    );
    assert_eq!(policy.login().user_retry, Some(20));
    let watch = &policy.jails[0];
    let jail = &watch.jail;
    assert_eq!(
        (jail.max_retry, jail.action, jail.reach, jail.user_retry),
        (7, Action::Drop, Reach::Everything, None)
    );
    assert_eq!(
        (policy.mode_of("a"), policy.mode_of("login"), policy.mode_of("gone")),
        (Mode::Report, Mode::Enforce, Mode::Enforce)
    );
    assert!(jail.place.starts_with("ravelin.toml:5"), "{}", jail.place);
    let site = SiteId::of("a.test");
    let seen = |status: u16, method: Method, area, site| {
        let status = StatusCode::from_u16(status).unwrap();
        watch.sees(&Exchange { site, area, method: &method, path: "/x", status })
    };
    assert!(seen(404, Method::GET, Area::Frontend, site) && seen(503, Method::GET, Area::Frontend, site));
    assert!(!seen(403, Method::GET, Area::Frontend, site) && !seen(404, Method::POST, Area::Frontend, site));
    assert!(
        !seen(404, Method::GET, Area::Backend, site) && !seen(404, Method::GET, Area::Frontend, SiteId(9))
    );
}

#[test]
fn limits_count_what_they_are_about() {
    let policy = policy(
        "[[rate]]\nname = \"a\"\nrate = \"1/s\"\npath = [\"/api/*\"]\nmethod = [\"GET\", \"POST\"]\n\
         [[rate]]\nname = \"b\"\nrate = \"1/s\"\nexcept = \"/b/*\"\n",
    );
    let [a, b, login] = &*policy.rates else { panic!("{:?}", policy.rates) };
    let asked = |method, path, area| Asked { site: SiteId(1), area, method, path };
    let (get, post) = (Method::GET, Method::POST);
    assert!(
        a.counts(&asked(&get, "/api/x", Area::Frontend)) && !a.counts(&asked(&get, "/x", Area::Frontend))
    );
    assert!(a.counts(&asked(&post, "/%61pi/x", Area::Frontend)), "spelled otherwise");
    assert!(
        b.counts(&asked(&get, "/_assets/x.css", Area::Frontend))
            && !b.counts(&asked(&get, "/b/x", Area::Frontend))
    );
    assert!(b.counts(&asked(&post, "/b/x", Area::Frontend)), "a POST is no file");
    assert!(
        login.counts(&asked(&post, "/typo3/login", Area::Login))
            && !login.counts(&asked(&get, "/typo3/login", Area::Login))
    );
    for path in ["/typo3/ajax/login", "/typo3/index.php"] {
        assert!(login.counts(&asked(&post, path, Area::Backend)), "{path}");
    }
    for path in ["/typo3/module/web/layout", "/typo3/ajax/login/timedout", "/typo3/ajax/record/process"] {
        assert!(!login.counts(&asked(&post, path, Area::Backend)), "{path}");
    }
}

#[test]
fn what_cannot_be_is_named_with_its_line() {
    for (text, line, want) in [
        ("[bans]\nmax_retry = 0", 2, "`bans.max_retry` must be 1 to 1000"),
        (
            "[bans]\nban_time = \"2 h\"\nlongest = \"1 h\"",
            3,
            "`bans.longest` is shorter than `bans.ban_time`",
        ),
        ("[bans]\nfind_time = \"1 ms\"", 2, "`bans.find_time` must be a second or more"),
        ("[bans]\nmemory = \"1 KiB\"", 2, "`bans.memory` must be 1 MiB or more"),
        ("[bans]\naction = \"refuze\"", 2, "did you mean `refuse`?"),
        ("[bans]\nignore = [\"10.0.0.1/8\"]", 2, "did you mean `10.0.0.0/8`?"),
        ("[[jail]]\nmatch = { status = 404 }", 1, "this `[[jail]]` has no `name`"),
        ("[[jail]]\nname = \"x\"", 1, "would count every request"),
        ("[[jail]]\nname = \"login\"\nmatch = { status = 404 }", 2, "cannot be the name of this jail"),
        ("[[jail]]\nname = \"A b\"\nmatch = { status = 404 }", 2, "cannot be the name of this jail"),
        ("[[jail]]\nname = \"x\"\nmatch = { status = \"6xx\" }", 3, "is not a status"),
        ("[[jail]]\nname = \"x\"\nmatch = { path = \"wp\" }", 3, "`wp` can never match"),
        ("[[jail]]\nname = \"x\"\nmatch = { statsu = 404 }", 3, "did you mean `status`?"),
        ("[[rate]]\nname = \"x\"", 1, "this `[[rate]]` has no `rate`"),
        ("[[rate]]\nname = \"x\"\nrate = \"fast\"", 3, "`fast` is not a rate"),
        ("[[rate]]\nname = \"x\"\nrate = \"1/s\"\nburst = 0", 4, "`rate.burst` must be 1 to 1000000"),
        ("[[rate]]\nname = \"x\"\nrate = \"1/s\"\n[[rate]]\nname = \"x\"\nrate = \"1/s\"", 4, "stands twice"),
        ("[rules]\nban = \"enforce 200%\"", 2, "is not a mode"),
    ] {
        let loaded = load_text("ravelin.toml", format!("{text}{REST}"), PathBuf::new());
        let said = loaded.complaints.to_string();
        assert!(loaded.generation.is_none(), "{text}");
        assert!(said.contains(want) && said.contains(&format!("ravelin.toml:{line}")), "{text}: {said}");
    }
}

#[test]
fn networks_are_larger_than_clients_and_have_more_patience() {
    let network = |text: &str, addr: &str| {
        let policy = policy(text);
        policy.network(addr.parse().unwrap()).map(|(jail, key)| (jail.max_retry, key.addr().to_string()))
    };
    let usual = Some((40, "2001:db8:1::".to_owned()));
    assert_eq!(network("", "2001:db8:1:2:3::4"), usual);
    assert_eq!(network("", "192.0.2.1").or(network("", "::ffff:192.0.2.1")), None);
    assert_eq!(network("[bans]\nipv6_network = 0", "2001:db8::1"), None);
    let own = "[bans]\nipv6_network = 56\nnetwork_retry = 7\naction = \"drop\"\nper_user = true";
    assert_eq!(network(own, "2001:db8:1:23ff::4"), Some((7, "2001:db8:1:2300::".to_owned())));
    for (line, what) in [
        ("ipv6_network = 16", "must be 32 to 128, or 0"),
        ("ipv6_network = 300", "must be 32 to 128, or 0"),
        ("network_retry = 0", "must be 1 to 1000"),
    ] {
        let loaded = load_text("ravelin.toml", format!("[bans]\n{line}\n{REST}"), PathBuf::new());
        assert!(loaded.complaints.to_string().contains(what), "{line}: {}", loaded.complaints);
    }
}
