//! Families' own errors on their way through a measurement: whole, as what they are.

use crate::engine::request::spec::KernelSpec;
use crate::families::decode_layer::WorkspaceError;
use crate::families::nvfp4::packed::PackError;
use crate::families::wo_gemv::problem::ProblemError;
use crate::measure::MeasureError;

/// A spec that lacks a constant which its family's host side reads.
#[derive(Debug, thiserror::Error)]
#[error("{family}: constant `{constant}` is missing, or not of the kind that is read")]
pub struct ConstantError {
    /// The spec's family.
    pub family: String,
    /// The constant.
    pub constant: String,
}

impl ConstantError {
    pub(crate) fn new(spec: &KernelSpec, constant: &str) -> Self {
        Self {
            family: spec.family.name.clone(),
            constant: constant.to_owned(),
        }
    }
}

impl From<ConstantError> for MeasureError {
    fn from(error: ConstantError) -> Self {
        Self::Family(Box::new(error))
    }
}

impl From<ProblemError> for MeasureError {
    fn from(error: ProblemError) -> Self {
        Self::Family(Box::new(error))
    }
}

impl From<WorkspaceError> for MeasureError {
    fn from(error: WorkspaceError) -> Self {
        Self::Family(Box::new(error))
    }
}

impl From<PackError> for MeasureError {
    fn from(error: PackError) -> Self {
        Self::Family(Box::new(error))
    }
}
