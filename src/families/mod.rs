//! The kernels that come with jitc: everything that knows one of them, a folder each.
//!
//! Invariant: a family uses the engine, what measures, and [`nvfp4`], the weight format
//! that they share; [`decode_layer`] holds its `W_O` to the reference of [`wo_gemv`], and
//! times that family's kernels beside its own. No family uses [`decode_layer`].

#![cfg_attr(
    test,
    allow(clippy::float_cmp, reason = "references are compared bit for bit")
)]

pub mod axpy;
mod config;
pub mod decode_layer;
mod dispatched;
mod error;
pub mod gemv;
pub mod nvfp4;
pub mod wo_gemv;

use crate::engine::request::template::Registry;
use crate::measure::declared;
use crate::measure::harness::{Harness, Verb};

pub use config::ConstantError;
pub use dispatched::{Dispatched, dispatched, for_gpus};

/// Every family that can be measured; a new one is added here, and nowhere else.
pub const BUILT_IN: &[&dyn Harness] = &[
    wo_gemv::HARNESS,
    gemv::HARNESS,
    decode_layer::HARNESS,
    axpy::HARNESS,
];

/// Whatever measures families: those that come with jitc, and what measures any other by its
/// declaration.
pub fn harnesses() -> impl Iterator<Item = &'static dyn Harness> {
    BUILT_IN.iter().copied().chain([declared::HARNESS])
}

/// The built-in harness that answers to a name.
#[must_use]
pub fn harness(name: &str) -> Option<&'static dyn Harness> {
    BUILT_IN.iter().copied().find(|h| h.names().contains(&name))
}

/// The harness that a verb is about where nobody names a family.
#[must_use]
pub fn usual_harness(verb: Verb) -> Option<&'static dyn Harness> {
    BUILT_IN.iter().copied().find(|h| h.is_usual(verb))
}

/// What measures a family of a name as people and files write it: its own, or one that it
/// had; a family without a harness of its own is measured by its declaration.
#[must_use]
pub fn harness_of(registry: &Registry, name: &str) -> Option<&'static dyn Harness> {
    let named = registry.named(name).ok();
    let family = named.as_ref().map_or(name, |named| named.family().name.as_str());
    harness(family).or_else(|| named.is_some().then_some(declared::HARNESS))
}
