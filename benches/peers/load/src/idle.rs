//! Thousands of kept connections that do nothing: how much memory does each one cost the proxy?
//!
//! Each level of `--levels 2000,5000` is opened (one request on every connection, so that it is a kept
//! connection and not a fresh one), a line is printed, and a line from standard input asks for the next.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Fault;
use crate::args::Args;
use crate::client::{Client, Room, Target};

/// How many handshakes run at once.
const AT_ONCE: usize = 32;

/// `idle --to A --levels 2000,5000`
pub async fn run(args: &Args) -> Result<(), Fault> {
    let target = Target::read(args)?;
    let levels: String = args.get("levels", "2000,5000".to_owned())?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut open = Vec::new();
    for level in levels.split(',') {
        let level: usize = level.trim().parse()?;
        while open.len() < level {
            let by = AT_ONCE.min(level - open.len());
            grow(&target, &mut open, by).await?;
        }
        println!("{{\"open\":{}}}", open.len());
        match tokio::time::timeout(Duration::from_secs(120), orders.next_line()).await {
            Ok(Ok(Some(_))) => {}
            _ => break,
        }
    }
    Ok(())
}

async fn grow(target: &Target, open: &mut Vec<Client>, by: usize) -> Result<(), Fault> {
    let tasks: Vec<_> = (0..by).map(|_| tokio::task::spawn_local(visit(target.clone()))).collect();
    for task in tasks {
        open.push(task.await??);
    }
    Ok(())
}

async fn visit(target: Target) -> std::io::Result<Client> {
    let mut client = Client::open(&target).await?;
    client.send(&target.head("GET", "/1k", "")).await?;
    client.answer(&mut Room::default()).await?;
    Ok(client)
}
