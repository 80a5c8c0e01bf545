//! What families' typed constants have in common.
//!
//! Invariant: it knows no family.

use crate::engine::request::spec::KernelSpec;

/// A spec that lacks a constant which its family's host side reads.
#[derive(Debug, thiserror::Error)]
#[error("{family}: constant `{constant}` is missing, or not of the kind that is read")]
#[non_exhaustive]
pub struct ConstantError {
    /// The spec's family.
    pub family: String,
    /// The constant.
    pub constant: String,
}

impl ConstantError {
    pub(crate) fn new(spec: &KernelSpec, constant: &str) -> Self {
        Self {
            family: spec.family().name.clone(),
            constant: constant.to_owned(),
        }
    }
}
