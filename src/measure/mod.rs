//! Measuring any kernel: timing, comparing, tuning, region timing.
//!
//! Invariant: it knows no family; a family brings its own buffers and references.

#![cfg_attr(test, allow(clippy::float_cmp, reason = "results are compared to the bit"))]

pub mod bench;
pub mod clocks;
pub mod compare;
pub mod declared;
mod error;
pub mod format;
pub mod former_flags;
pub mod harness;
pub mod models;
pub mod ncu;
pub mod npy;
pub mod number;
pub mod plot;
pub mod region;
pub mod rng;
pub mod run_files;
pub mod table;
pub mod timing;
pub mod tune;

pub use error::MeasureError;
