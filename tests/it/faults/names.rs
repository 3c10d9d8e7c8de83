//! Origins that are named, not numbered.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

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

/// An origin that keeps connections for ever and says which one it is; `/slow` is answered in halves.
struct Keeper {
    open: Arc<AtomicUsize>,
    go: Arc<AtomicBool>,
}

impl Keeper {
    fn at(address: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((address, port)).expect("the address is free");
        let it = Self { open: Arc::default(), go: Arc::default() };
        let (open, go) = (Arc::clone(&it.open), Arc::clone(&it.go));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (open, go) = (Arc::clone(&open), Arc::clone(&go));
                std::thread::spawn(move || {
                    open.fetch_add(1, Ordering::SeqCst);
                    let _ = Self::serve(&socket, &address.to_string(), &go);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        it
    }

    /// Until the other side closes.
    fn serve(mut socket: &TcpStream, name: &str, go: &AtomicBool) -> std::io::Result<()> {
        let mut lines = BufReader::new(socket).lines();
        while let Some(request) = lines.next().transpose()? {
            while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", name.len() * 2);
            socket.write_all(format!("{head}{name}").as_bytes())?;
            if request.contains("/slow") {
                within(PATIENCE, || go.load(Ordering::SeqCst).then_some(()));
            }
            socket.write_all(name.as_bytes())?;
        }
        Ok(())
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

#[test]
fn a_name_that_moves_takes_its_kept_connections_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    let (old, new) = (Ipv4Addr::new(127, 0, 9, 1), Ipv4Addr::new(127, 0, 9, 2));
    let leads_to = |address: Ipv4Addr| {
        fs::write(&hosts, format!("127.0.0.1 localhost\n{address} origin.test\n")).expect("it is written");
    };
    leads_to(old);
    let port = crate::harness::ports::Port::reserve();
    let (first, second) = (Keeper::at(old, port.number()), Keeper::at(new, port.number()));
    let site = proxy()
        .site(HOST, format!("http://origin.test:{}", port.number()).as_str())
        .with("[site.upstream_pool]\nidle = \"60 s\"")
        .hosts(&hosts)
        .start();
    let asked = |path: &str| site.get(path).status(200).text();
    assert_eq!(asked("/"), "127.0.9.1127.0.9.1");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| asked("/slow"));
        within(PATIENCE, || (first.open() >= 1).then_some(())).expect("it is under way");
        leads_to(new);
        // Asked again and again, so that without a look at the name the kept connection would never be let go of.
        let moved = within(PATIENCE, || {
            std::thread::sleep(Duration::from_millis(100));
            (asked("/") == "127.0.9.2127.0.9.2").then_some(())
        });
        assert!(moved.is_some(), "requests follow the name");
        first.go.store(true, Ordering::SeqCst);
        assert_eq!(slow.join().expect("it ends"), "127.0.9.1127.0.9.1", "what was under way ends in peace");
    });
    within(PATIENCE, || (first.open() == 0).then_some(())).expect("no connection is kept to the old address");
    assert!(second.open() >= 1);
}
