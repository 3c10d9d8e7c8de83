//! The sockets of the listeners: opened or taken over, dealt to the workers, and kept for a successor.

use std::io;
use std::net::TcpListener;
use std::sync::Mutex;

use super::StartError;
use crate::admin;
use crate::generation::{Generation, Listener};
use crate::listen::inherited::Inherited;
use crate::listen::socket;
use crate::upgrade::Estate;

/// The sockets of each listener, worker by worker: those that are open already, or new ones.
pub(super) fn bind(
    generation: &Generation,
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Vec<Vec<Vec<TcpListener>>>, StartError> {
    let bind = |listener: &Listener| {
        let address = listener.settings.address;
        let open = inherited.tcp(address);
        if open.is_empty() {
            let sockets = socket::bind(address, workers).map_err(StartError::Bind)?;
            return Ok(sockets.into_iter().map(|socket| vec![socket]).collect());
        }
        tracing::info!(%address, sockets = open.len(), "this listener's sockets were handed over");
        socket::adopt(open, workers).map_err(StartError::system("use the sockets that were handed over"))
    };
    generation.listeners.iter().map(bind).collect()
}

/// A socket, and the number of its listener.
pub(super) type Socket = (usize, TcpListener);

/// The sockets of each worker.
pub(super) fn deal(sockets: Vec<Vec<Vec<TcpListener>>>, workers: usize) -> Vec<Mutex<Vec<Socket>>> {
    let mut by_worker: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    for (listener, shares) in sockets.into_iter().enumerate() {
        for (worker, share) in by_worker.iter_mut().zip(shares) {
            worker.extend(share.into_iter().map(|socket| (listener, socket)));
        }
    }
    by_worker.into_iter().map(Mutex::new).collect()
}

/// What a successor would get.
pub(super) fn estate(
    sockets: &[Vec<Vec<TcpListener>>],
    admin: &[admin::socket::Bound],
) -> io::Result<Estate> {
    let mut estate = Estate::default();
    for socket in sockets.iter().flatten().flatten() {
        estate.add(socket.try_clone()?.into());
    }
    for bound in admin {
        let (socket, name) = bound.heir()?;
        estate.add(socket);
        if let Some(name) = name {
            estate.add_name(name);
        }
    }
    Ok(estate)
}

/// The sockets of the admin listener.
pub(super) fn administer(
    generation: &Generation,
    inherited: &mut Inherited,
) -> Result<Vec<admin::socket::Bound>, StartError> {
    let policy = &generation.admin;
    let bind =
        |address| admin::socket::bind(address, policy.socket_mode, inherited).map_err(StartError::Admin);
    policy.listen.iter().map(bind).collect()
}
