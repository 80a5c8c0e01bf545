//! CPU references: the numbers that the kernels must reproduce.
//!
//! Invariant: a reference states the order of every rounding and nothing else
//! decides it; no flag of the compiler and no width of a vector changes a bit.

#![cfg_attr(test, allow(clippy::float_cmp, reason = "references are held to the bit"))]

pub mod compare;
pub mod e4m3;
pub mod fp4;
pub mod layer;
pub mod mma;
pub mod packed;
mod rng;
pub mod swizzle;
mod wo;

pub use compare::{Comparison, Drift, Mismatch, compare, drift, largest};
pub use rng::Rng;
pub use wo::{WoInputs, WoOutput, WoShape, chained, matmul_f64, split_order};
