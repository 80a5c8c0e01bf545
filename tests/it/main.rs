//! Integration tests, one binary.

mod bench;
mod cache_cli;
mod cache_damage;
mod cache_faults;
mod cache_fuzz;
mod cache_layers;
mod cache_processes;
mod cache_quiet;
mod cache_store;
mod cache_support;
mod cli;
mod host_code;
mod interrupt;
mod key;
mod layer;
mod pack;
mod policy;
mod regions;
mod regions_cli;
mod regions_page;
mod regions_trace;
mod runs_index;
mod walk;
mod webdriver;
mod wo_tile;
mod worker;
