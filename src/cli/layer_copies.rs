//! Copies of a decode layer's memory that take turns, so that a launch finds nothing
//! of its own in L2.
//!
//! Invariant: a bound layer is launched over memory that its `Copies` keep.

use std::sync::Arc;

use cudarc::driver::{CudaStream, sys};

use crate::launch::LaunchError;
use crate::reference::layer::LayerInputs;
use crate::workspace::{BoundLayer, Layer, LayerDims, LayerProblem, LayerWeights, Room, WorkspaceError};

pub(super) struct Copies(pub(super) Vec<LayerProblem>);

impl Copies {
    /// So many copies of the inputs, for every layer whose sizes are at most `most`.
    pub(super) fn new(
        stream: &Arc<CudaStream>,
        most: &LayerDims,
        inputs: &LayerInputs,
        count: usize,
    ) -> Result<Self, WorkspaceError> {
        let one = || -> Result<LayerProblem, WorkspaceError> {
            let weights = Arc::new(LayerWeights::new(stream, inputs)?);
            let mut problem = LayerProblem::new(stream, most, Room::of(most, inputs), &weights, false)?;
            problem.put(inputs)?;
            Ok(problem)
        };
        let copies = (0..count).map(|_| one()).collect::<Result<_, _>>();
        stream.synchronize()?;
        Ok(Self(copies?))
    }

    /// A layer over each copy.
    pub(super) fn bind(&self, layer: &Layer) -> Result<Vec<BoundLayer>, WorkspaceError> {
        self.0.iter().map(|copy| copy.bind(layer)).collect()
    }
}

/// One launch over copy `number` modulo their count.
pub(super) fn launch(
    bound: &[BoundLayer],
    number: usize,
    nat: u32,
    stream: sys::CUstream,
) -> Result<(), LaunchError> {
    // SAFETY: the memory is that of `Copies`, which the caller keeps until the stream
    // is done; one launch follows the other.
    launched(unsafe { bound[number % bound.len()].launch(nat, stream) })
}

/// The launch's own error. Copies are made for the tokens that are launched, so
/// nothing else is refused; if it is, it is said in the launch's name.
pub(super) fn launched(result: Result<(), WorkspaceError>) -> Result<(), LaunchError> {
    match result {
        Ok(()) => Ok(()),
        Err(WorkspaceError::Launch(error)) => Err(error),
        Err(other) => Err(LaunchError::Driver {
            entry: other.to_string(),
            reason: cudarc::driver::DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE),
        }),
    }
}
