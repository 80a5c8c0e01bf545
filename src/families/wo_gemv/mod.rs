//! `wo_gemv`: the `W_O` GEMV over NVFP4 or FP8 weights, whose order of sums is fixed.

pub mod bench;
mod config;
pub mod device_buffers;
pub mod geometry;
mod harness;
pub mod reference;
pub mod regions;
mod request;
pub mod tune;
pub mod verify;

pub use config::{Accumulate, LaunchGeometry, WeightLayout, WoConfig, WoFormat};
pub use harness::HARNESS;
pub use request::{WoRequest, WoVariant};

/// Name of the family.
pub const FAMILY: &str = "wo_gemv";
