//! jitc: CUDA kernels specialised at compile time, made at run time.

pub mod artifact;
pub mod cache;
pub mod constant;
pub mod key;
pub mod target;
