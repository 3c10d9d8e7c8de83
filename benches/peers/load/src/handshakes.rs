//! TLS 1.3 handshakes, full or resumed, as fast as the proxy takes them, one request on each connection.
//!
//! `openssl s_time -new` does this too, but one connection at a time, at OpenSSL 3.0's price and without
//! X25519MLKEM768; wrk and h2load keep their connections.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::args::Args;
use crate::client::{Client, Room, Target};
use crate::report::Report;

/// `handshakes --to A --connections 32 --seconds S [--group mlkem768] [--resume yes] [--path /1k]`
///
/// Of a visitor whose sessions are to be resumed only the first handshake may be a full one: any other is a fault.
pub async fn run(args: &Args) -> Result<(), Fault> {
    let target = Target::read(args)?;
    let request: Rc<[u8]> =
        target.head("GET", &args.get("path", "/1k".to_owned())?, "Connection: close\r\n").into();
    let until = Instant::now() + args.seconds()?;
    let report = Report::shared();
    let tasks: Vec<_> = (0..args.get("connections", 32)?)
        .map(|_| tokio::task::spawn_local(visitor(target.clone(), request.clone(), until, report.clone())))
        .collect();
    for task in tasks {
        task.await?;
    }
    println!("{}", report.borrow_mut().line());
    Ok(())
}

async fn visitor(target: Target, request: Rc<[u8]>, until: Instant, report: Rc<RefCell<Report>>) {
    let mut room = Room::default();
    let target = target.of_a_visitor();
    let mut is_known = false;
    while Instant::now() < until {
        let visit = async {
            let mut client = Client::open(&target).await?;
            if is_known && !client.is_resumed() {
                return Err(io::Error::other("a session was not resumed"));
            }
            client.send(&request).await?;
            client.answer(&mut room).await
        };
        let outcome =
            tokio::time::timeout(Duration::from_secs(5), visit).await.unwrap_or_else(|e| Err(e.into()));
        match outcome {
            Ok((status, bytes)) => {
                is_known = target.resumes();
                report.borrow_mut().answer(status, bytes);
            }
            Err(fault) => {
                report.borrow_mut().fault(&fault);
                tokio::time::sleep(Duration::from_millis(20)).await; // a proxy that is down must not spin us
            }
        }
    }
}
