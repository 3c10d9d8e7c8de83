//! Files that never end, in the places where a configuration points to one.

use std::fs::{self, File};
use std::process::Command;

use super::PATIENCE;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Recorder, proxy, within};

#[test]
fn a_pipe_in_the_place_of_a_key_does_not_deafen_it() {
    let origin = Recorder::answering(OK);
    let mut site = proxy().site(HOST, &origin).table("[shutdown]\ndrain_delay = \"0 s\"").start();
    let key = site.dir().join("site0.key");
    fs::remove_file(&key).unwrap();
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    site.signal("HUP");
    let said = within(PATIENCE, || site.stderr().contains("a pipe").then_some(()));
    assert!(said.is_some(), "{}", site.stderr());
    site.get("/").status(200);
    site.signal("TERM");
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0));
}

#[test]
fn roots_that_are_a_pipe_or_too_large_are_refused_and_take_no_memory() {
    let origin = Recorder::answering(OK);
    let mut site = proxy().site(HOST, &origin).table("[shutdown]\ndrain_delay = \"0 s\"").start();
    let [pipe, large] = ["pipe.pem", "large.pem"].map(|name| site.dir().join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    File::create(&large).unwrap().set_len(200 << 20).unwrap();
    let good = fs::read_to_string(site.config()).unwrap();
    let tls = good.replace(&origin.url(), "https://127.0.0.1:1");
    let peak = site.resident_peak();
    let own = "client_certificate = { chain = \"large.pem\", key = \"pipe.pem\" }";
    for (keys, says) in [
        ("roots = \"pipe.pem\"", "pipe.pem: it is a pipe"),
        ("roots = \"large.pem\"", "large.pem: it is larger than"),
        (own, "large.pem: it is larger than"),
        (own, "pipe.pem: it is a pipe"),
    ] {
        fs::write(site.config(), format!("{tls}\n[site.upstream_tls]\n{keys}\n")).unwrap();
        let heard = site.stderr().len();
        site.signal("HUP");
        let said = || {
            let all = site.stderr();
            let new = all.get(heard..)?.replace("I/O error: ", "");
            (new.contains(says) && new.contains("nothing has changed")).then_some(())
        };
        assert!(within(PATIENCE, said).is_some(), "{says:?} in {:?}", site.stderr().get(heard..));
        site.get("/").status(200);
    }
    let grown = site.resident_peak().saturating_sub(peak);
    assert!(grown < 64 << 20, "{} KiB more for files that are refused", grown / 1024);
    site.signal("TERM");
    assert_eq!(site.ends_within(PATIENCE).code(), Some(0));
}
