//! Copies of a decode layer's memory that take turns, so that a launch finds nothing
//! of its own in L2.
//!
//! Invariant: a bound layer is launched over memory that its `Copies` keep.

use std::sync::Arc;

use cudarc::driver::sys;

use super::reference::LayerInputs;
use super::{BoundLayer, Layer, LayerDims, LayerProblem, LayerWeights, Room, WorkspaceError};
use crate::engine::run::device::Context;
use crate::measure::timing::cold_sets;

pub(super) struct Copies(pub(super) Vec<LayerProblem>);

impl Copies {
    /// As many copies of the inputs as make a launch over the next one cold, for every
    /// layer whose sizes are at most `most`.
    pub(super) fn new(
        context: &Context,
        most: &LayerDims,
        inputs: &LayerInputs,
    ) -> Result<Self, WorkspaceError> {
        let stream = &context.cuda().default_stream();
        let bytes = weight_bytes(inputs) + inputs.kv_cache.len();
        let count = cold_sets(context.device().l2_bytes, bytes);
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

/// Codes and scales of a layer's matrices.
pub(super) fn weight_bytes(inputs: &LayerInputs) -> usize {
    let matrices = [&inputs.wo, &inputs.gate_proj, &inputs.up_proj, &inputs.down_proj];
    matrices.iter().map(|m| m.codes.len() + m.scales.len()).sum()
}

/// One launch over copy `number` modulo their count.
pub(super) fn launch(
    bound: &[BoundLayer],
    number: usize,
    num_tokens: u32,
    stream: sys::CUstream,
) -> Result<(), WorkspaceError> {
    // SAFETY: the memory is that of `Copies`, which the caller keeps until the stream
    // is done; one launch follows the other.
    unsafe { bound[number % bound.len()].launch(num_tokens, stream) }
}
