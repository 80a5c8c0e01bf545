//! A decode layer's inputs, outputs and workspace in a GPU's memory, as checks and
//! measurements want them; a server has its own.
//!
//! Invariant: addresses never change once the problem is made, so that a captured
//! launch may be replayed over inputs that were put in place afterwards. Everything
//! happens on the problem's one stream.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError, result, sys};
use half::bf16;

use super::weights::{LayerWeights, Uploaded, bits};
use super::workspace::CODES_COUNTER;
use super::{BoundLayer, Dtype, Layer, LayerDims, LayerTensors, Tensor, Workspace, WorkspaceError};
use crate::families::decode_layer::reference::LayerInputs;

/// How much a problem has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Tokens.
    pub tokens: usize,
    /// Pages of a sequence.
    pub max_pages: usize,
    /// Pages of the cache.
    pub pages: usize,
}

impl Room {
    /// Just enough for these inputs.
    #[must_use]
    pub fn of(dims: &LayerDims, inputs: &LayerInputs) -> Self {
        Self {
            tokens: inputs.num_tokens,
            max_pages: inputs.max_pages,
            pages: inputs.kv_cache.len() / page_bytes(dims),
        }
    }

    /// Enough for both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            max_pages: self.max_pages.max(other.max_pages),
            pages: self.pages.max(other.pages),
        }
    }
}

fn page_bytes(d: &LayerDims) -> usize {
    2 * d.page_size * d.num_kv_heads * d.head_dim
}

/// What a launch wrote, as bits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// bf16 `[num_tokens, K]`.
    pub attn_rows: Vec<u16>,
    /// f32 `[num_tokens, slots, H]`.
    pub wo_output: Vec<u32>,
    /// f32 `[num_tokens, H]`.
    pub summed: Vec<u32>,
    /// bf16 `[num_tokens, H]`.
    pub residual_output: Vec<u16>,
    /// bf16 `[num_tokens, H]`.
    pub attn_output: Vec<u16>,
    /// bf16 `[num_tokens, H]`, poison where the spec has no `input_norm`.
    pub attn_input: Vec<u16>,
    /// bf16 `[num_tokens, I]`, empty where the workspace keeps none.
    pub middle: Vec<u16>,
    /// `[num_tokens, I/2]`.
    pub codes: Vec<u8>,
    /// `[num_tokens, I/16]`.
    pub code_scales: Vec<u8>,
    /// bf16 `[num_tokens, H]`.
    pub mlp_output: Vec<u16>,
}

/// A layer's memory on one stream.
#[derive(Debug)]
pub struct LayerProblem {
    stream: Arc<CudaStream>,
    dims: LayerDims,
    room: Room,
    weights: Arc<LayerWeights>,
    query: CudaSlice<u16>,
    kv_cache: CudaSlice<u8>,
    page_table: CudaSlice<i32>,
    seq_lens: CudaSlice<i32>,
    gate: CudaSlice<u16>,
    hidden_in: CudaSlice<u16>,
    residual_in: CudaSlice<u16>,
    attn_input: CudaSlice<u16>,
    attn_output: CudaSlice<u16>,
    residual_output: CudaSlice<u16>,
    mlp_output: CudaSlice<u16>,
    workspace: Workspace,
}

impl LayerProblem {
    /// Memory for every layer whose sizes are at most `dims`. `keep_middle` as of
    /// [`Workspace::new`].
    pub fn new(
        stream: &Arc<CudaStream>,
        dims: &LayerDims,
        room: Room,
        weights: &Arc<LayerWeights>,
        keep_middle: bool,
    ) -> Result<Self, WorkspaceError> {
        let row = || stream.alloc_zeros::<u16>(room.tokens * dims.hidden);
        let heads = || stream.alloc_zeros::<u16>(room.tokens * dims.k());
        Ok(Self {
            stream: Arc::clone(stream),
            dims: *dims,
            room,
            weights: Arc::clone(weights),
            query: heads()?,
            kv_cache: stream.alloc_zeros(room.pages * page_bytes(dims))?,
            page_table: stream.alloc_zeros(room.tokens * room.max_pages)?,
            seq_lens: stream.alloc_zeros(room.tokens)?,
            gate: heads()?,
            hidden_in: row()?,
            residual_in: row()?,
            attn_input: row()?,
            attn_output: row()?,
            residual_output: row()?,
            mlp_output: row()?,
            workspace: Workspace::new(stream, dims, room.tokens, keep_middle)?,
        })
    }

    /// Puts inputs in the place of those before. Entries of the page table that no
    /// sequence uses point far outside the cache: a kernel that follows one faults.
    ///
    /// # Panics
    ///
    /// With more than there is room for.
    pub fn put(&mut self, inputs: &LayerInputs) -> Result<(), WorkspaceError> {
        self.put_behind(inputs, 0)
    }

    /// As [`put`](Self::put), the pages behind so many unused ones.
    ///
    /// # Panics
    ///
    /// As [`put`](Self::put), and with more pages than an `i32` counts.
    pub fn put_behind(&mut self, inputs: &LayerInputs, unused: usize) -> Result<(), WorkspaceError> {
        let (room, stream) = (self.room, &self.stream);
        let mut taken = Room::of(&self.dims, inputs);
        taken.pages += unused;
        assert!(room == room.or(taken), "inputs over {room:?}");
        let first = i32::try_from(unused).expect("pages are counted in i32");
        let put = |to: &mut CudaSlice<u16>, values: &[bf16]| stream.memcpy_htod(&bits(values), to);
        put(&mut self.query, &inputs.query)?;
        put(&mut self.gate, &inputs.gate)?;
        put(&mut self.hidden_in, &inputs.hidden_in)?;
        put(&mut self.residual_in, &inputs.residual_in)?;
        let mut behind = self.kv_cache.slice_mut(unused * page_bytes(&self.dims)..);
        stream.memcpy_htod(&inputs.kv_cache, &mut behind)?;
        let mut table = vec![i32::MAX; room.tokens * room.max_pages];
        for (token, row) in inputs.page_table.chunks(inputs.max_pages.max(1)).enumerate() {
            let used = inputs.seq_len(token).div_ceil(self.dims.page_size);
            for (to, page) in table[token * room.max_pages..].iter_mut().zip(&row[..used]) {
                *to = page + first;
            }
        }
        stream.memcpy_htod(&table, &mut self.page_table)?;
        stream.memcpy_htod(&inputs.seq_lens, &mut self.seq_lens)?;
        Ok(())
    }

    /// Fills everything that a launch writes and nobody reads before, with NaN.
    pub fn poison(&mut self) -> Result<(), WorkspaceError> {
        let stream = &self.stream;
        let w = &mut self.workspace;
        fill(stream, &mut w.wo_output)?;
        fill(stream, &mut w.attn_rows)?;
        fill(stream, &mut w.summed)?;
        if let Some(middle) = &mut w.middle {
            fill(stream, middle)?;
        }
        fill(stream, &mut w.codes)?;
        fill(stream, &mut w.code_scales)?;
        fill(stream, &mut self.attn_input)?;
        fill(stream, &mut self.attn_output)?;
        self.poison_outputs()
    }

    /// Fills the two results of the layer with NaN.
    pub fn poison_outputs(&mut self) -> Result<(), WorkspaceError> {
        fill(&self.stream, &mut self.residual_output)?;
        fill(&self.stream, &mut self.mlp_output)
    }

    /// The two results of the layer: `residual_output` and `mlp_output`.
    #[must_use]
    pub fn outputs(&self) -> [&CudaSlice<u16>; 2] {
        [&self.residual_output, &self.mlp_output]
    }

    /// The stream of everything here.
    #[must_use]
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The tensors of this memory, as a layer of these sizes takes them.
    ///
    /// # Panics
    ///
    /// If the layer wants packed weights and the inputs were not
    /// [packed](LayerInputs::pack).
    #[must_use]
    pub fn tensors(&self, layer: &LayerDims) -> LayerTensors {
        let (d, s, w, n) = (&self.dims, &self.stream, &self.weights, self.room.tokens);
        let matrices = w.of(layer);
        let half = |slice: &CudaSlice<u16>, shape: &[usize]| Tensor::of(s, slice, Dtype::Bf16, shape);
        let row = |slice: &CudaSlice<u16>| half(slice, &[n, d.hidden]);
        let matrix = |m: &Uploaded, rows: usize, k: usize| {
            (
                Tensor::of(s, &m.0, Dtype::U8, &[rows, k / 2]),
                Tensor::of(s, &m.1, Dtype::U8, &[m.1.len()]),
            )
        };
        let (wo_weight, wo_scales) = matrix(matrices.wo, d.hidden, d.k());
        let (gate_weight, gate_scales) = matrix(matrices.gate, d.intermediate, d.hidden);
        let (up_weight, up_scales) = matrix(matrices.up, d.intermediate, d.hidden);
        let (down_weight, down_scales) = matrix(matrices.down, d.hidden, d.intermediate);
        let cache = [self.room.pages, 2, d.page_size, d.num_kv_heads, d.head_dim];
        LayerTensors {
            query: half(&self.query, &[n, d.num_q_heads, d.head_dim]),
            kv_cache: Tensor::of(s, &self.kv_cache, Dtype::U8, &cache),
            page_table: Tensor::of(s, &self.page_table, Dtype::I32, &[n, self.room.max_pages]),
            seq_lens: Tensor::of(s, &self.seq_lens, Dtype::I32, &[n]),
            gate: Some(half(&self.gate, &[n, d.k()])),
            wo_weight,
            wo_scales,
            wo_global_scale: Tensor::of(s, &w.wo_global, Dtype::F32, &[1]),
            hidden_in: Some(row(&self.hidden_in)),
            residual_in: row(&self.residual_in),
            input_gamma: Some(half(&w.input_gamma, &[d.hidden])),
            post_attn_gamma: half(&w.post_gamma, &[d.hidden]),
            gate_weight,
            gate_scales,
            up_weight,
            up_scales,
            down_weight,
            down_scales,
            attn_input: Some(row(&self.attn_input)),
            attn_output: row(&self.attn_output),
            residual_output: row(&self.residual_output),
            mlp_output: row(&self.mlp_output),
        }
    }

    /// Binds a layer to this memory.
    pub fn bind(&self, layer: &Layer) -> Result<BoundLayer, WorkspaceError> {
        self.bind_tensors(layer, &self.tensors(layer.dims()))
    }

    /// As [`bind`](Self::bind), over tensors of the caller's own.
    pub fn bind_tensors(&self, layer: &Layer, tensors: &LayerTensors) -> Result<BoundLayer, WorkspaceError> {
        layer.bind(&self.stream, tensors, &self.weights.scales, &self.workspace, 0)
    }

    /// Binds a layer with regions, which writes them to this address.
    pub fn bind_timed(
        &self,
        layer: &Layer,
        region_timing: sys::CUdeviceptr,
    ) -> Result<BoundLayer, WorkspaceError> {
        let (tensors, scales) = (self.tensors(layer.dims()), &self.weights.scales);
        layer.bind(&self.stream, &tensors, scales, &self.workspace, region_timing)
    }

    /// Launches a layer that was bound to this memory.
    ///
    /// # Safety
    ///
    /// It was [`bind`](Self::bind) of this problem that bound it, and the context
    /// is current on this thread.
    pub unsafe fn launch(&self, bound: &BoundLayer, num_tokens: u32) -> Result<(), WorkspaceError> {
        // SAFETY: the memory is this problem's, which outlives what its stream does
        // with it; lengths and pages come from `LayerInputs`, which keeps them inside.
        unsafe { bound.launch(num_tokens, self.stream.cu_stream()) }
    }

    /// Waits, and reads what the last launch wrote for its `num_tokens` tokens with a
    /// `W_O` of so many slots. A counter that is not zero is an error.
    pub fn read(&self, num_tokens: usize, slots: usize) -> Result<Written, WorkspaceError> {
        let (d, w, stream) = (&self.dims, &self.workspace, &self.stream);
        let words = |slice: &CudaSlice<f32>, count: usize| -> Result<Vec<u32>, DriverError> {
            let values = stream.clone_dtoh(&slice.slice(..count))?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        let halves =
            |slice: &CudaSlice<u16>, width: usize| stream.clone_dtoh(&slice.slice(..num_tokens * width));
        let bytes =
            |slice: &CudaSlice<u8>, width: usize| stream.clone_dtoh(&slice.slice(..num_tokens * width));
        let middle = w.middle.as_ref().map(|m| halves(m, d.intermediate)).transpose()?;
        let written = Written {
            attn_rows: halves(&w.attn_rows, d.k())?,
            wo_output: words(&w.wo_output, num_tokens * slots * d.hidden)?,
            summed: words(&w.summed, num_tokens * d.hidden)?,
            residual_output: halves(&self.residual_output, d.hidden)?,
            attn_output: halves(&self.attn_output, d.hidden)?,
            attn_input: halves(&self.attn_input, d.hidden)?,
            middle: middle.unwrap_or_default(),
            codes: bytes(&w.codes, d.intermediate / 2)?,
            code_scales: bytes(&w.code_scales, d.intermediate / 16)?,
            mlp_output: halves(&self.mlp_output, d.hidden)?,
        };
        let counters = stream.clone_dtoh(&w.counters)?;
        stream.synchronize()?;
        let left = |&(index, value): &(usize, u32)| value != 0 && index != CODES_COUNTER;
        match counters.into_iter().enumerate().find(left) {
            None => Ok(written),
            Some((index, value)) => Err(WorkspaceError::Counter { index, value }),
        }
    }

    /// Adds to a counter, which makes the next launch wait for ever, or until its
    /// `timeout_ms`: for the test of that.
    pub fn spoil_counter(&mut self, index: usize, value: u32) -> Result<(), WorkspaceError> {
        let mut one = self.workspace.counters.slice_mut(index..=index);
        Ok(self.stream.memcpy_htod(&[value], &mut one)?)
    }
}

/// All bytes ones: NaN as bf16 and as f32.
fn fill<T>(stream: &CudaStream, slice: &mut CudaSlice<T>) -> Result<(), WorkspaceError> {
    let count = slice.num_bytes();
    let (address, _written) = slice.device_ptr_mut(stream);
    // SAFETY: the slice has that many bytes, borrowed for writing, in stream order.
    unsafe { result::memset_d8_async(address, 0xff, count, stream.cu_stream()) }?;
    Ok(())
}
