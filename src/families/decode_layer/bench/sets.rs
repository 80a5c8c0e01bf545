//! Copies of a layer's memory that take turns.
//!
//! Invariant: together they are many times the L2, so a launch finds nothing of its own
//! there.

use cudarc::driver::CudaSlice;

use super::super::copies::{Copies, weight_bytes};
use super::super::reference::LayerInputs;
use super::super::{BoundLayer, Layer, LayerDims, WorkspaceError, Written};
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::measure::MeasureError;
use crate::measure::bench::BenchSession;
use crate::measure::timing::Plan;

pub(super) struct Sets {
    copies: Copies,
    weight_bytes: usize,
    /// Bytes of one position of one sequence.
    position_bytes: usize,
    /// What the streaming kernel reads; as many of each copy's bytes.
    streamed: Vec<CudaSlice<u8>>,
    result: CudaSlice<u32>,
}

impl Sets {
    pub(super) fn new(
        session: &BenchSession<'_>,
        dims: &LayerDims,
        inputs: &LayerInputs,
    ) -> Result<Self, MeasureError> {
        let stream = session.context.cuda().default_stream();
        let copies = Copies::new(&session.context, dims, inputs)?;
        let weight_bytes = weight_bytes(inputs);
        let position_bytes = 2 * dims.num_kv_heads * dims.head_dim;
        let room = weight_bytes + inputs.kv_cache.len();
        let streamed = (0..copies.0.len())
            .map(|_| stream.alloc_zeros(room))
            .collect::<Result<_, _>>()?;
        let result = stream.alloc_zeros(1024)?;
        stream.synchronize()?;
        Ok(Self {
            copies,
            weight_bytes,
            position_bytes,
            streamed,
            result,
        })
    }

    /// How many copies take turns.
    pub(super) fn count(&self) -> usize {
        self.copies.0.len()
    }

    /// Bytes of weights, scales and cache that a launch has to read.
    pub(super) fn bytes(&self, context: usize, num_tokens: usize) -> usize {
        self.weight_bytes + num_tokens * context * self.position_bytes
    }

    /// A layer over each copy.
    pub(super) fn bind(&self, layer: &Layer) -> Result<Vec<BoundLayer>, WorkspaceError> {
        self.copies.bind(layer)
    }

    /// What a launch over the first copy writes into memory of NaN.
    pub(super) fn written(
        &mut self,
        bound: &[BoundLayer],
        num_tokens: u32,
        slots: usize,
    ) -> Result<Written, MeasureError> {
        let copy = &mut self.copies.0[0];
        copy.poison()?;
        // SAFETY: the first of `bound` was bound to this copy; the context is current.
        unsafe { copy.launch(&bound[0], num_tokens) }?;
        Ok(copy.read(num_tokens as usize, slots)?)
    }

    /// The streaming kernel over so many bytes.
    pub(super) fn floor(
        &self,
        session: &BenchSession<'_>,
        plan: &Plan,
        bytes: usize,
    ) -> Result<f64, MeasureError> {
        let own = session.context.cuda().default_stream();
        let read = |from| Tensor::of(&own, from, Dtype::U8, &[bytes]);
        let from: Vec<Tensor> = self.streamed.iter().map(read).collect();
        let result = Tensor::all_of(&own, &self.result, Dtype::U32);
        // SAFETY: these buffers outlive the call.
        unsafe { session.floor(plan, &from, result) }
    }
}
