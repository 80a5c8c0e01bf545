//! GPUs: finding them, loading kernels, launching them.
//!
//! Invariant: what can be checked once is checked when a kernel is loaded.

pub mod device;
pub mod launch;
pub mod load;
pub mod occupancy;
