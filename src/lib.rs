//! Ravelin: a security reverse proxy that stands in front of a TYPO3 web server.

pub mod admin;
pub mod body;
pub mod client;
pub mod clock;
pub mod config;
pub mod drain;
pub mod fields;
pub mod guard;
pub mod harden;
pub mod head;
pub mod http1;
pub mod listen;
pub mod observe;
pub mod refusal;
pub mod reply;
pub mod runtime;
pub mod step;
pub mod tls;
pub mod upstream;
