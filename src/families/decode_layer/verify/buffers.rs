//! One launch of the decode layer over fresh memory.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::super::reference::LayerInputs;
use super::super::{Layer, LayerProblem, LayerWeights, Room, WorkspaceError, Written};

/// One launch with outputs poisoned before it.
pub(super) fn run_once(
    layer: &Layer,
    stream: &Arc<CudaStream>,
    inputs: &LayerInputs,
) -> Result<Written, WorkspaceError> {
    let weights = Arc::new(LayerWeights::new(stream, inputs)?);
    let room = Room::of(layer.dims(), inputs);
    let mut problem = LayerProblem::new(stream, layer.dims(), room, &weights, true)?;
    problem.put(inputs)?;
    problem.poison()?;
    let bound = problem.bind(layer)?;
    let num_tokens = u32::try_from(inputs.num_tokens).unwrap_or(u32::MAX);
    // SAFETY: bound to this problem just now, on the context's own stream.
    unsafe { problem.launch(&bound, num_tokens) }?;
    problem.read(inputs.num_tokens, layer.dims().slots)
}
