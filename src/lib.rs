//! jitc: CUDA kernels specialised at compile time, made at run time.

pub mod artifact;
pub mod config;
pub mod constant;
pub mod key;
pub mod target;
