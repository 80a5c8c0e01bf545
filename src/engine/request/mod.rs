//! What is asked for: constants, families, specs, and lists of specs.
//!
//! Invariant: a [`KernelSpec`](spec::KernelSpec) is validated; later rooms never check again.

pub mod constant;
pub(crate) mod cxx_name;
pub mod dtype;
pub mod formula;
pub mod header_set;
pub mod matrix;
pub mod regions;
pub mod select;
pub mod signature;
pub mod spec;
pub mod target;
pub mod template;
mod tera_strict;
