//! Integration tests, one binary.

mod cache_store;
mod cache_support;
