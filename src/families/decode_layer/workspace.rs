//! The memory that a layer works in: its caller's, and its own.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};

use super::{LayerDims, Tensor, WorkspaceError};

/// What a layer reads and writes, besides its workspace. All contiguous; rows are
/// tokens, of which there is room for `max_tokens`.
#[derive(Debug, Clone, Copy)]
pub struct LayerTensors {
    /// bf16 `[max_tokens, q_heads, D]`: projected, normed, rotated.
    pub query: Tensor,
    /// u8 (E4M3) `[pages, 2, page_size, kv_heads, D]`: keys, then values.
    pub kv_cache: Tensor,
    /// i32 `[max_tokens, max_pages]`.
    pub page_table: Tensor,
    /// i32 `[max_tokens]`.
    pub seq_lens: Tensor,
    /// bf16 `[max_tokens, K]`, where the spec has `output_gate`.
    pub gate: Option<Tensor>,
    /// u8 `[H, K/2]`; this and the matrices below as checkpoints have them, or [`Packed`](super::Packed)
    /// by [`PACKED64`](crate::families::nvfp4::packed::PACKED64).
    pub wo_weight: Tensor,
    /// u8, swizzled and padded: its length is all that is checked.
    pub wo_scales: Tensor,
    /// f32 `[1]`, multiplied.
    pub wo_global_scale: Tensor,
    /// bf16 `[max_tokens, H]`, where the spec has `input_norm`.
    pub hidden_in: Option<Tensor>,
    /// bf16 `[max_tokens, H]`.
    pub residual_in: Tensor,
    /// bf16 `[H]`, where the spec has `input_norm`.
    pub input_gamma: Option<Tensor>,
    /// bf16 `[H]`.
    pub post_attn_gamma: Tensor,
    /// u8 `[I, H/2]`.
    pub gate_weight: Tensor,
    /// u8, `I * H / 16` bytes, padded where swizzled.
    pub gate_scales: Tensor,
    /// u8 `[I, H/2]`.
    pub up_weight: Tensor,
    /// As `gate_scales`.
    pub up_scales: Tensor,
    /// u8 `[H, I/2]`.
    pub down_weight: Tensor,
    /// u8, `H * I / 16` bytes, padded where swizzled.
    pub down_scales: Tensor,
    /// bf16 `[max_tokens, H]`, where the spec has `input_norm`.
    pub attn_input: Option<Tensor>,
    /// bf16 `[max_tokens, H]`: the MLP's input.
    pub attn_output: Tensor,
    /// bf16 `[max_tokens, H]`.
    pub residual_output: Tensor,
    /// bf16 `[max_tokens, H]`.
    pub mlp_output: Tensor,
}

/// The numbers that a launch takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerScales {
    /// 1 / sqrt(D) as a rule.
    pub softmax: f32,
    /// Of the cache's keys.
    pub k: f32,
    /// Of the cache's values.
    pub v: f32,
    /// Of both norms.
    pub rms_eps: f32,
    /// Global scale of gate and up, multiplied.
    pub gate_up: f32,
    /// Global scale of down, multiplied.
    pub down: f32,
}

/// Scratch of one launch at a time.
#[derive(Debug)]
pub struct Workspace {
    /// `[max_tokens, slots, H]`: `W_O`'s partials; slot 0 ends as their sum.
    pub(super) wo_output: CudaSlice<f32>,
    /// `[max_tokens, K]`: attention's result.
    pub(super) attn_rows: CudaSlice<u16>,
    /// `[max_tokens, H]`: residual + `W_O`, not rounded.
    pub(super) summed: CudaSlice<f32>,
    /// `[max_tokens, I]` bf16: the MLP's middle before requantization. Written
    /// where it was asked for.
    pub(super) middle: Option<CudaSlice<u16>>,
    /// `[max_tokens, I/2]`.
    pub(super) codes: CudaSlice<u8>,
    /// `[max_tokens, I/16]`.
    pub(super) code_scales: CudaSlice<u8>,
    /// Zero before the first launch; a launch leaves that of finished codes, which the next clears.
    pub(super) counters: CudaSlice<u32>,
    pub(super) partials: CudaSlice<f32>,
    /// `[max_tokens, slice_ctas, H]`: FC2's partials, in `geometry = original`.
    pub(super) mlp_partials: Option<CudaSlice<f32>>,
    pub(super) max_tokens: usize,
}

/// Counters of the whole grid, 128 bytes apart; those of tokens come behind them.
const GRID_COUNTERS: usize = 3 * 32;
/// `codes_done` of `layer/sync.cuh`, which a launch leaves as it is, and the next clears.
pub(super) const CODES_COUNTER: usize = 32;

/// Counters of a token: one a head, or those of `geometry = original`.
const TOKEN_COUNTERS: usize = 64;

impl Workspace {
    /// f32 `[max_tokens, slots, H]`: `W_O`'s partials; slot 0 ends as their sum.
    #[must_use]
    pub fn wo_output(&self) -> &CudaSlice<f32> {
        &self.wo_output
    }

    /// bf16 `[max_tokens, K]`: attention's result.
    #[must_use]
    pub fn attn_rows(&self) -> &CudaSlice<u16> {
        &self.attn_rows
    }

    /// f32 `[max_tokens, H]`: residual + `W_O`, not rounded.
    #[must_use]
    pub fn summed(&self) -> &CudaSlice<f32> {
        &self.summed
    }

    /// bf16 `[max_tokens, I]`: intermediate activations of the MLP, where they were asked for.
    #[must_use]
    pub fn middle(&self) -> Option<&CudaSlice<u16>> {
        self.middle.as_ref()
    }

    /// u8 `[max_tokens, I/2]`: the same, quantized, two codes a byte.
    #[must_use]
    pub fn codes(&self) -> &CudaSlice<u8> {
        &self.codes
    }

    /// u8 `[max_tokens, I/16]`: E4M3 scales of the codes.
    #[must_use]
    pub fn code_scales(&self) -> &CudaSlice<u8> {
        &self.code_scales
    }

    /// Tokens that there is room for.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Scratch for up to `max_tokens` tokens. `keep_middle` has the kernels write
    /// the MLP's middle too, which only checks need.
    pub fn new(
        stream: &Arc<CudaStream>,
        dims: &LayerDims,
        max_tokens: usize,
        keep_middle: bool,
    ) -> Result<Self, WorkspaceError> {
        let middle = max_tokens * dims.intermediate;
        Ok(Self {
            wo_output: stream.alloc_zeros(max_tokens * dims.slots * dims.hidden)?,
            attn_rows: stream.alloc_zeros(max_tokens * dims.k())?,
            summed: stream.alloc_zeros(max_tokens * dims.hidden)?,
            middle: keep_middle.then(|| stream.alloc_zeros(middle)).transpose()?,
            codes: stream.alloc_zeros(middle / 2)?,
            code_scales: stream.alloc_zeros(middle / 16)?,
            counters: stream.alloc_zeros(GRID_COUNTERS + max_tokens * TOKEN_COUNTERS)?,
            partials: stream.alloc_zeros(dims.partial_floats(max_tokens))?,
            mlp_partials: (dims.slice_ctas > 0)
                .then(|| stream.alloc_zeros(max_tokens * dims.slice_ctas * dims.hidden))
                .transpose()?,
            max_tokens,
        })
    }
}
