//! Integration tests, one binary.

mod cache_layers;
mod cache_store;
mod cache_support;
mod cli;
mod key;
<<<<<<< HEAD
mod regions;
=======
mod policy;
>>>>>>> 33294a0 (Facade: miss policy, required receipts, traces, listeners; settings of the cache's tiers and bounds)
mod walk;
