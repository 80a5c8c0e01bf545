//! Stores that a fleet shares: each is started by the tests, on this machine.

#[expect(dead_code, reason = "the other test binary uses more of it")]
#[path = "../it/cache_support.rs"]
mod cache_support;
#[expect(dead_code, reason = "the other test binary uses more of it")]
#[path = "../it/command.rs"]
mod command;
mod events;
mod server;
mod servers;
mod tier;
mod web;
