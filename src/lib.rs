//! jitc: a run-time compiler and verified disk cache for specialized CUDA kernels.
//!
//! Data goes one way: request → [`KernelSpec`](engine::request::spec::KernelSpec) →
//! [`RenderedSource`](engine::build::render::RenderedSource) →
//! [`CacheKey`](engine::build::key::CacheKey) → cache (miss: compile) →
//! [`Artifact`](engine::build::artifact::Artifact).
//!
//! * [`engine`] knows no family: requests, builds, the cache, loading and launching;
//! * [`measure`] works for any kernel: timing, comparing, tuning, regions;
//! * [`families`] are the kernels that come with jitc, each with all of its host side.

// For `main.rs` alone: it parses and prints, and what it does is in the three wings.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod engine;
pub mod families;
pub mod measure;

/// For build scripts: see [`engine::embed`].
pub use engine::embed as build;
