//! What the headers do in a real browser: the backend's own frames load, a stranger's do not.

use crate::demo::Demo;
use crate::harness::browser::visit;
use crate::harness::{HOST, apache, proxy};

#[test]
fn the_backends_modules_run_in_their_frame() {
    let site = proxy().site(HOST, apache()).start();
    let document = visit(&format!("{}/typo3/main", site.base()));
    assert!(
        document.contains("data-main=\"ready\""),
        "the frame's own script has the right nonce: {document}"
    );
    assert!(
        document.contains("data-module=\"loaded\""),
        "the module's script reached its parent: {document}"
    );
    assert!(document.contains("<title>module loaded</title>"), "{document}");
    let strict = proxy().site(HOST, apache()).with("level = \"strict\"").start();
    let document = visit(&format!("{}/typo3/main", strict.base()));
    assert!(document.contains("data-module=\"loaded\""), "nor does the strict level break it: {document}");
}

#[test]
fn a_page_may_frame_its_own_site() {
    let site = proxy().site(HOST, apache()).start();
    let document = visit(&format!("{}/framing", site.base()));
    assert!(document.contains("data-frame=\"framed\""), "{document}");
}

#[test]
fn a_stranger_may_not_frame_the_site() {
    let site = proxy()
        .site(HOST, apache())
        .bare_site("attacker.example.net", apache())
        .bare_site("bare.example.com", apache())
        .start();
    let port = site.https_port();
    let framing =
        |host: &str, target: &str| visit(&format!("https://{host}:{port}/framing?src={target}/framed"));
    let attacked = framing("attacker.example.net", &site.base());
    assert!(attacked.contains("<iframe") && !attacked.contains("data-frame"), "refused: {attacked}");
    // The same attack on a site without the preset works, so the test can fail.
    let unprotected = framing("attacker.example.net", &format!("https://bare.example.com:{port}"));
    assert!(unprotected.contains("data-frame=\"framed\""), "{unprotected}");
}

#[test]
fn an_uploaded_page_cannot_run_its_script() {
    let site = proxy().site(HOST, apache()).bare_site("bare.example.com", apache()).start();
    let document = visit(&format!("{}/fileadmin/bare/page.html", site.base()));
    // The script's text is part of the document; its doing is the title.
    assert!(document.contains("<title>an uploaded page</title>"), "{document}");
    let unprotected =
        visit(&format!("https://bare.example.com:{}/fileadmin/bare/page.html", site.https_port()));
    assert!(
        unprotected.contains("<title>the uploaded script ran</title>"),
        "the test can fail: {unprotected}"
    );
}

#[test]
fn the_login_page_is_alive_over_http2() {
    let site = proxy().site(HOST, apache()).start();
    for line in ["11.5", "12.4", "13.4", "14.3"] {
        let document = visit(&format!("{}/typo3/?line={line}", site.base()));
        assert!(document.contains("data-login=\"ready\""), "TYPO3 {line}: {document}");
    }
}

#[test]
fn the_demos_page_frames_its_own_site_and_no_stranger_frames_it() {
    let demo = Demo::start();
    let page = visit(&format!("{}/", demo.secure()));
    assert!(page.contains("data-frame=\"framed\""), "its own frame loads: {page}");
    let stranger = visit(&format!("http://127.0.0.1:{}/stranger", demo.alone()));
    assert!(
        stranger.contains("data-alone=\"framed\""),
        "without Ravelin it is framed, so the test can fail: {stranger}"
    );
    assert!(!stranger.contains("data-guarded"), "behind Ravelin it is refused: {stranger}");
    assert!(stranger.contains(&format!("src=\"{}/frame\"", demo.secure())), "and it was tried: {stranger}");
}
