//! Origins that are named, not numbered.

use super::PATIENCE;
use crate::harness::recorder::OK;
use crate::harness::{HOST, Recorder, proxy, within};

#[test]
fn a_name_that_does_not_exist_is_502_and_one_that_does_is_served() {
    let origin = Recorder::answering(OK);
    let named = origin.url().replace("127.0.0.1", "localhost");
    let site = proxy().site(HOST, named.as_str()).site("nowhere.example.org", "http://no-such-host.invalid");
    let site = site.start();
    site.get("/").status(200);
    let asked = || site.ask_host(crate::harness::curl::Over::H1, "nowhere.example.org", "/").try_send().ok();
    within(PATIENCE, asked).expect("an answer").status(502).hardened();
    site.get("/").status(200);
}
