//! Ravelin as its operators and its attackers meet it: the real binary between real clients and a real
//! Apache. One file per theme; `harness` holds the words they are written in.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says no by panicking"
)]

mod harness;

mod access;
mod acme;
mod authority;
mod balancer;
mod bans;
mod browser;
mod certificates;
mod closed;
mod config;
mod conversation;
mod demo;
mod deployment;
mod desync;
mod dev;
mod docs;
mod faults;
mod foreign_protocols;
mod fuzz_twin;
mod h2_floods;
mod h2_semantics;
mod hardening;
mod health;
mod hop_by_hop;
mod house;
mod lifecycle;
mod limits;
mod logins;
mod logs;
mod malformed;
mod office;
mod origin;
mod origin_faults;
mod origin_http2;
mod path_acl;
mod replay;
mod restricting;
mod service;
mod shedding;
mod slow_clients;
mod state;
mod tickets;
mod tls;
mod upgrade;
mod wire;
