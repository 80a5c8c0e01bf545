//! Integration tests, one binary.

mod cache_layers;
mod cache_store;
mod cache_support;
