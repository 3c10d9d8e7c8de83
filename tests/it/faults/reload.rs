//! A reload under load, with what an operator or a full disk may leave in the place of a configuration or a
//! certificate.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::PATIENCE;
use super::load::{Connections, Load};
use crate::harness::recorder::OK;
use crate::harness::{HOST, Ravelin, Recorder, certs, proxy, run, within};

/// Puts something in the place of the configuration.
type Make<'m> = Box<dyn Fn(&Path) + 'm>;

fn loads(site: &Ravelin, result: &str) -> f64 {
    site.counted(&["ravelin_loads_total", &format!("result=\"{result}\"")])
}

/// Sends SIGHUP and waits until a load with this result was counted.
#[track_caller]
fn reload(site: &Ravelin, result: &str) {
    let before = loads(site, result);
    site.signal("HUP");
    let counted = within(PATIENCE, || (loads(site, result) > before).then_some(()));
    assert!(counted.is_some(), "no load was counted as {result}:\n{}", site.stderr());
}

#[test]
fn ten_reloads_lose_no_request_of_any_kind_of_client() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).plain_serves().start();
    let mut load = Load::new();
    for connections in [Connections::Kept, Connections::New] {
        load = load.http1(&site, false, connections, "/").http1(&site, true, connections, "/");
        load = load.http2(&site, connections, "/");
    }
    let first = fs::read_to_string(site.config()).unwrap();
    for round in 1..=10 {
        load.goes_on(50);
        fs::write(site.config(), format!("{first}\n[site.headers]\nX-Generation = \"{round}\"\n")).unwrap();
        reload(&site, "ok");
    }
    load.goes_on(50);
    let done = load.end();
    site.get("/").status(200).header_once("x-generation", "10");
    println!("measured: {} requests over 10 reloads, 0 failed, slowest {:?}", done.answered, done.slowest);
}

/// A hundred reloads, or `RAVELIN_RELOADS`; with every tenth one comes a new certificate.
#[test]
fn many_reloads_under_load_keep_memory_and_descriptors_flat() {
    let asked = std::env::var("RAVELIN_RELOADS").ok().and_then(|count| count.parse().ok());
    let count: usize = asked.unwrap_or(100);
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).table("[log]\naccess = \"off\"").plain_serves().start();
    let mut load = Load::new();
    for connections in [Connections::Kept, Connections::New] {
        load = load.http1(&site, false, connections, "/").http1(&site, true, connections, "/");
        load = load.http2(&site, connections, "/");
    }
    let first = fs::read_to_string(site.config()).unwrap();
    let mut early = 0;
    let mut shown = shown(&site);
    for round in 1..=count {
        load.goes_on(5);
        if round % 10 == 0 {
            certs::issue(site.dir(), "site0", &[HOST]);
        }
        fs::write(site.config(), format!("{first}\n[site.headers]\nX-Generation = \"{round}\"\n")).unwrap();
        reload(&site, "ok");
        if round % 10 == 0 {
            let now = self::shown(&site);
            assert_ne!(now, shown, "the certificate of round {round} is not shown");
            shown = now;
        }
        if round == count / 5 {
            early = site.resident();
        }
        if round % 50 == 0 {
            // What is recorded is not looked at.
            origin.forget();
        }
    }
    let (late, files) = (site.resident(), open_files(&site));
    let done = load.end();
    site.get("/").status(200).header_once("x-generation", &count.to_string());
    println!(
        "measured: {} requests over {count} reloads and {} certificates, 0 failed, slowest {:?}; {} KiB resident after a \
         fifth of them, {} KiB after all; {files} descriptors",
        done.answered,
        count / 10,
        done.slowest,
        early / 1024,
        late / 1024
    );
    assert!(late < early + (12 << 20), "{} KiB became {} KiB", early / 1024, late / 1024);
    let left = || (open_files(&site) < 60).then_some(());
    assert!(within(PATIENCE, left).is_some(), "{} descriptors are open", open_files(&site));
}

fn open_files(site: &Ravelin) -> usize {
    fs::read_dir(format!("/proc/{}/fd", site.pid())).map_or(0, Iterator::count)
}

#[test]
fn what_is_no_configuration_is_refused_and_the_old_one_serves() {
    let origin = Recorder::answering(OK);
    let mut site =
        proxy().site(HOST, &origin).with("[site.headers]\nX-Generation = \"good\"").plain_serves().start();
    let load = Load::new().http1(&site, false, Connections::Kept, "/");
    let good = fs::read_to_string(site.config()).unwrap();
    let half = good.find("plain = ").unwrap() + 4;
    let roots = format!(
        "{}\n[site.upstream_tls]\nroots = \"bad.pem\"\n",
        good.replace(&origin.url(), "https://127.0.0.1:1")
            .replace("[site.headers]\nX-Generation = \"good\"", "")
    );
    fs::write(
        site.dir().join("bad.pem"),
        "-----BEGIN CERTIFICATE-----\nMIIBnotreally\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let peak = site.resident_peak();
    let file = |path: &Path, bytes: &[u8]| fs::write(path, bytes).unwrap();
    let cases: Vec<(&str, &str, Make<'_>)> = vec![
        ("half-written", "ravelin.toml:", Box::new(|path| file(path, &good.as_bytes()[..half]))),
        ("empty", "ravelin.toml", Box::new(|path| file(path, b""))),
        ("a bad CA", "bad.pem", Box::new(|path| file(path, roots.as_bytes()))),
        ("not UTF-8", "UTF-8", Box::new(|path| file(path, b"[log]\nfile = \"\xff\xfe\"\n"))),
        (
            "200 MB of zeros",
            "larger than",
            Box::new(|path| File::create(path).unwrap().set_len(200 << 20).unwrap()),
        ),
        ("a folder", "is a directory", Box::new(|path| fs::create_dir(path).unwrap())),
        ("nothing", "No such file", Box::new(|_| ())),
        ("unreadable", "symbolic links", Box::new(|path| symlink(path, path).unwrap())),
        ("a device", "a device", Box::new(|path| symlink("/dev/zero", path).unwrap())),
        (
            "a pipe",
            "a pipe",
            Box::new(|path| {
                assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
        ),
    ];
    let config = site.config();
    for (name, says, make) in cases {
        fs::remove_file(&config).unwrap();
        make(&config);
        let heard = site.stderr().len();
        reload(&site, "failed");
        let said = || {
            let all = site.stderr();
            let new = all.get(heard..)?;
            (new.contains(says) && new.contains("nothing has changed")).then_some(())
        };
        assert!(within(PATIENCE, said).is_some(), "{name}: {says:?} in {:?}", site.stderr().get(heard..));
        assert!(site.lives(), "{name}");
        site.get("/").status(200).header_once("x-generation", "good");
        let _ = fs::remove_dir(&config);
        let _ = fs::remove_file(&config);
        file(&config, good.as_bytes());
    }
    let grown = site.resident_peak().saturating_sub(peak);
    assert!(grown < 64 << 20, "{} KiB more for files that are refused", grown / 1024);
    load.goes_on(10);
    println!(
        "measured: {} requests meanwhile, 0 failed; peak memory +{} KiB",
        load.end().answered,
        grown / 1024
    );
    fs::write(&config, good.replace("\"good\"", "\"better\"")).unwrap();
    reload(&site, "ok");
    site.get("/").status(200).header_once("x-generation", "better");
}

/// The certificate that is shown to somebody who asks for the site.
fn shown(site: &Ravelin) -> Option<String> {
    let target = format!("127.0.0.1:{}", site.https_port());
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &target, "-servername", HOST]).stdin(std::process::Stdio::null());
    let all = run(&mut client).out;
    let (_, rest) = all.split_once("-----BEGIN CERTIFICATE-----")?;
    rest.split("-----END").next().map(str::to_owned)
}

/// A certificate that ended in 2020, with its key, in the files that are in use.
fn expire(site: &Ravelin) {
    let mut params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = params.self_signed(&key).expect("a certificate");
    fs::write(site.dir().join("site0.pem"), leaf.pem()).expect("written");
    let mut file = File::create(site.dir().join("site0.key")).expect("opened");
    file.write_all(key.serialize_pem().as_bytes()).expect("written");
}

#[test]
fn certificates_are_swapped_or_refused_under_load() {
    let origin = Recorder::answering(OK);
    let site = proxy().site(HOST, &origin).start();
    let load = Load::new()
        .http1(&site, true, Connections::Kept, "/")
        .http1(&site, true, Connections::New, "/")
        .http2(&site, Connections::New, "/");
    for round in 0..3 {
        load.goes_on(20);
        let before = shown(&site).expect("a certificate");
        certs::issue(site.dir(), "site0", &[HOST]);
        let began = Instant::now();
        site.signal("HUP");
        let changed = within(PATIENCE, || shown(&site).filter(|now| *now != before));
        assert!(changed.is_some(), "round {round}: the new one is not shown:\n{}", site.stderr());
        println!("measured: a new certificate is shown after {:?}", began.elapsed());
    }
    let good = shown(&site);
    let other = certs::issue(site.dir(), "other", &["other.example.org"]);
    let key = site.dir().join("site0.key");
    let kept = fs::read(&key).unwrap();
    let wrong_key = || assert!(fs::copy(&other.key, &key).unwrap() > 0);
    let half_key = || fs::write(&key, &kept[..kept.len() / 2]).unwrap();
    let no_key = || fs::remove_file(&key).unwrap();
    let expired = || expire(&site);
    let cases: [(&str, &dyn Fn(), &str); 4] = [
        ("another key", &wrong_key, "does not belong to the certificate"),
        ("half a key", &half_key, "site0.key"),
        ("no key", &no_key, "site0.key"),
        ("an old certificate", &expired, "expired on 2020-01-01"),
    ];
    for (name, make, says) in cases {
        make();
        reload(&site, "failed");
        let said = within(PATIENCE, || site.stderr().contains(says).then_some(()));
        assert!(said.is_some(), "{name}: {says:?} in:\n{}", site.stderr());
        assert_eq!(shown(&site), good, "{name}: the good one stays");
        load.goes_on(5);
    }
    println!("measured: {} requests meanwhile, 0 failed", load.end().answered);
}
