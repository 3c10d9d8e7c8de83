//! Large bodies, down or up, on kept connections.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::args::Args;
use crate::client::{Client, Room, Target};
use crate::report::Report;

/// How much of an upload is encrypted and sent at a time, bytes.
const PIECE: usize = 128 * 1024;
/// A transfer without an end for so long counts as stalled.
const STALL: Duration = Duration::from_secs(10);

/// What every connection of the run does over and over.
struct Job {
    target: Target,
    head: Vec<u8>,
    upload: usize,
    until: Instant,
    report: Rc<RefCell<Report>>,
}

/// `transfer --to A --connections 8 --seconds S --path /10m [--upload BYTES]`
pub async fn run(args: &Args) -> Result<(), Fault> {
    let target = Target::read(args)?;
    let path: String = args.get("path", "/10m".to_owned())?;
    let upload: usize = args.get("upload", 0)?;
    let head = match upload {
        0 => target.head("GET", &path, ""),
        n => target.head(
            "POST",
            &path,
            &format!("Content-Type: application/octet-stream\r\nContent-Length: {n}\r\n"),
        ),
    };
    let report = Report::shared();
    let until = Instant::now() + args.seconds()?;
    let job = Rc::new(Job { target, head, upload, until, report: report.clone() });
    let tasks: Vec<_> =
        (0..args.get("connections", 8)?).map(|_| tokio::task::spawn_local(carrier(job.clone()))).collect();
    for task in tasks {
        task.await?;
    }
    println!("{}", report.borrow_mut().line());
    Ok(())
}

async fn carrier(job: Rc<Job>) {
    while Instant::now() < job.until {
        if let Err(fault) = carry(&job).await {
            job.report.borrow_mut().fault(&fault);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Transfers on one connection until the time is up or it breaks.
async fn carry(job: &Job) -> io::Result<()> {
    let mut client = Client::open(&job.target).await?;
    let mut room = Room::default();
    while Instant::now() < job.until {
        let transfer = one(&mut client, job, &mut room);
        let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "stalled for 10 s");
        let (status, bytes) = tokio::time::timeout(STALL, transfer).await.map_err(stalled)??;
        job.report.borrow_mut().answer(status, bytes + job.upload as u64);
    }
    Ok(())
}

async fn one(client: &mut Client, job: &Job, room: &mut Room) -> io::Result<(u16, u64)> {
    client.send(&job.head).await?;
    let piece = [b'u'; PIECE];
    let mut left = job.upload;
    while left > 0 {
        let n = left.min(PIECE);
        client.send(piece.get(..n).unwrap_or_default()).await?;
        left -= n;
    }
    client.answer(room).await
}
