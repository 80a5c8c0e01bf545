//! Families' own errors on their way through a measurement: whole, as what they are.

use crate::families::config::ConstantError;
use crate::families::decode_layer::WorkspaceError;
use crate::families::nvfp4::packed::PackError;
use crate::families::wo_gemv::device_buffers::ProblemError;
use crate::measure::MeasureError;

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
