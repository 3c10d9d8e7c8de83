//! Ravelin: a security reverse proxy that stands in front of a TYPO3 web server.
//!
//! The library is the whole product; the binary only calls [`cli::main`]. Read [`pipeline`] first: it is
//! the road of a request, top to bottom. Modules, in the order in which a request meets them:
//!
//! ```text
//! listen   sockets, caps, first bytes, one connection       tls      certificates, the stream, the development CA
//!    └─ pipeline   the road                                 step · refusal · gate   its table, its noes, its modes
//!         ├─ guard      what decides                        client   who asks
//!         ├─ upstream   the origin: rewrite, pool, send     http1    decoders for the origin's answers
//!         ├─ harden     what leaves the house               redirect from http to https
//!         └─ observe    record, access log, metrics         admin    their listener
//! config   read, complain, compile ─→ generation ─→ live    site     a site and its routes
//! firewall who may connect        login     tries to log in, and what came of them
//! bans     who is locked out      state     where that is kept, and shared
//! load     how much at once         pressure  what runs short
//! server   the composition root     control · service   signals   runtime · drain · clock · rlimit
//! replay   yesterday's requests, judged by today's rules
//! head · fields · body · reply      the forms in which messages are passed
//! ```

pub mod acme;
pub mod admin;
pub mod bans;
pub mod body;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod drain;
pub mod fields;
pub mod firewall;
pub mod gate;
pub mod generation;
pub mod guard;
pub mod harden;
pub mod head;
pub mod health;
pub mod http1;
pub mod listen;
pub mod live;
pub mod load;
pub mod login;
pub mod observe;
pub mod pipeline;
pub mod pressure;
pub mod redirect;
pub mod refusal;
pub mod replay;
pub mod reply;
pub mod request;
pub mod rlimit;
pub mod runtime;
pub mod server;
pub mod service;
pub mod site;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod upgrade;
pub mod upstream;
