//! NVFP4: two 4-bit floats a byte, an E4M3 scale for sixteen of them, a global scale.
//!
//! Invariant: a reference states the order of every rounding and nothing else
//! decides it; no flag of the compiler and no width of a vector changes a bit.

pub mod e4m3;
pub mod files;
pub mod fp4;
pub mod packed;
pub mod swizzle;
