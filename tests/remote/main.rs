//! Stores that a fleet shares: each is started by the tests, on this machine.

#[path = "../it/apart.rs"]
mod apart;
#[path = "../it/cache_support.rs"]
mod cache_support;
#[path = "../it/command.rs"]
mod command;
mod events;
mod fake_registry;
mod herd;
mod hosts;
mod recipes;
mod registry;
mod releases;
mod seeing;
mod server;
mod servers;
mod tier;
mod tuned;
mod web;
