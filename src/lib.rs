//! jitc: CUDA kernels specialised at compile time, made at run time.
//!
//! Data goes one way: request → [`spec::KernelSpec`] → [`render::RenderedSource`]
//! → [`key::CacheKey`] → cache (miss: compile) → [`artifact::Artifact`].

pub mod artifact;
pub mod cache;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compile;
pub mod config;
pub mod constant;
pub mod device;
pub mod dispatch;
mod expression;
pub mod jit;
pub mod key;
pub mod launch;
pub mod load;
pub mod matrix;
pub mod problem;
pub mod reference;
pub mod region;
pub mod render;
pub mod spec;
pub mod target;
pub mod template;
pub mod timing;
pub mod toolchain;
pub mod tune;
pub mod workspace;
