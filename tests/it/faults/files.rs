//! Files that never end, in the places where a configuration points to one.

use std::fs;
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
