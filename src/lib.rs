//! jitc: CUDA kernels specialised at compile time, made at run time.
//!
//! Data goes one way: request → [`spec::KernelSpec`] → [`render::RenderedSource`]
//! → [`key::CacheKey`] → cache (miss: compile) → [`artifact::Artifact`].

pub mod artifact;
pub mod cache;
pub mod config;
pub mod constant;
mod expression;
pub mod key;
pub mod render;
pub mod spec;
pub mod target;
pub mod template;
