//! A decode layer's memory and its launch: tensors whose dtype, shape and
//! alignment are checked once, and a workspace that is allocated once.
//!
//! Invariant: after [`Layer::bind`] a launch checks nothing but the number of
//! tokens, and every address is stable, so that it can be captured in a graph. A
//! workspace belongs to one launch at a time: streams that run at the same time
//! need one each.

mod problem;
mod tensor;

use std::ops::Deref;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DriverError, sys};

use crate::launch::{Arguments, LaunchError, Order, launch_grid};
use crate::load::LoadedKernel;
use crate::reference::layer::{Kv, LayerInputs, LayerShape, Lengths, ScaleLayout};
use crate::spec::KernelSpec;

pub use problem::{LayerProblem, LayerWeights, Room, Written};
pub use tensor::{Dtype, Tensor};
use tensor::{check, maybe, scale_bytes};

/// Why a layer could not be set up or launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The spec is of another family.
    #[error("`{0}` is no decode layer: expected beta_coop or beta_lite")]
    Family(String),
    /// A tensor is not what the layer takes.
    #[error("tensor `{name}`: expected {expected}, got {found}")]
    Tensor {
        /// Its name, as in [`LayerTensors`].
        name: &'static str,
        /// What was expected.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The workspace was made for a smaller layer.
    #[error(
        "workspace: `{name}` has {found} elements, and this layer takes {least}: make it for the largest variant"
    )]
    Small {
        /// Which part.
        name: &'static str,
        /// Its elements.
        found: usize,
        /// Elements that the layer takes.
        least: usize,
    },
    /// More tokens than there is room for, or none.
    #[error("{asked} tokens: this layer was bound for 1 to {room}")]
    Tokens {
        /// Tokens asked for.
        asked: u32,
        /// Tokens that there is room for.
        room: u32,
    },
    /// The kernel left a counter that the next launch expects to be zero.
    #[error("a launch left counter {index} at {value}: the next one would not wait for it")]
    Counter {
        /// Which one.
        index: usize,
        /// What it holds.
        value: u32,
    },
    /// The launch did not happen.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A launch that was to become a graph left none.
    #[error("the launch was captured, and no graph came of it")]
    NoGraph,
    /// The driver said no.
    #[error("the CUDA driver said {0:?}")]
    Driver(#[from] DriverError),
}

/// Which matrices of a layer are packed for tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packed {
    /// None: as checkpoints have them.
    None,
    /// Gate, up and down; `W_O`'s chains read it as checkpoints have it.
    Mlp,
    /// `W_O` too, on tensor cores.
    All,
}

/// Sizes of a layer, from the constants of its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerDims {
    /// What the layer is; the rest is how it is laid out.
    pub shape: LayerShape,
    /// Slots of `W_O`.
    pub slots: usize,
    /// Blocks of the spread grid.
    pub num_ctas: usize,
    /// Slice groups of the original geometry; 0 in the spread one.
    pub slice_ctas: usize,
    /// Whether attention is gated.
    pub output_gate: bool,
    /// Whether the input norm is written.
    pub input_norm: bool,
    /// Whether the MLP's scales lie in padded tiles.
    pub swizzled: bool,
    /// Which matrices are packed for tensor cores (`packed64`).
    pub packed: Packed,
    /// Regions that the kernels time.
    pub num_regions: usize,
}

impl LayerDims {
    /// The sizes of a spec of `beta_coop` or `beta_lite`.
    pub fn of(spec: &KernelSpec) -> Result<Self, WorkspaceError> {
        let family = || WorkspaceError::Family(spec.family.name.clone());
        let number = |name: &str| {
            let value = spec.constants.get(name).and_then(crate::constant::Value::as_u32);
            value.map(|n| n as usize).ok_or_else(family)
        };
        let named = |name: &str| (spec.constants.get(name)).and_then(crate::constant::Value::as_name);
        let flag = |name: &str| match spec.constants.get(name) {
            Some(crate::constant::Value::Bool(flag)) => Ok(*flag),
            _ => Err(family()),
        };
        Ok(Self {
            shape: LayerShape {
                hidden: number("hidden")?,
                intermediate: number("intermediate")?,
                num_q_heads: number("num_q_heads")?,
                num_kv_heads: number("num_kv_heads")?,
                head_dim: number("head_dim")?,
                page_size: number("page_size")?,
            },
            slots: number("num_kv_heads")? * number("wo_split")?,
            num_ctas: number("num_ctas")?,
            slice_ctas: match named("geometry") {
                Some("original") => number("slice_ctas")?,
                _ => 0,
            },
            output_gate: flag("output_gate")?,
            input_norm: flag("input_norm")?,
            swizzled: named("scale_layout") != Some("linear"),
            packed: match (named("weight_layout"), named("accumulate")) {
                (Some("packed64"), Some("mma")) => Packed::All,
                (Some("packed64"), _) => Packed::Mlp,
                _ => Packed::None,
            },
            // Not every family has regions.
            num_regions: number("num_regions").unwrap_or(0),
        })
    }

    /// A kernel with regions stores to its buffer whether there is one or not.
    fn check_timing(&self, region_timing: sys::CUdeviceptr) -> Result<(), WorkspaceError> {
        if self.num_regions == 0 || region_timing != 0 {
            return Ok(());
        }
        Err(WorkspaceError::Tensor {
            name: "region_timing",
            expected: format!("a buffer for the spec's {} regions", self.num_regions),
            found: "none".into(),
        })
    }

    /// How the scales of the MLP's matrices lie.
    #[must_use]
    pub fn scale_layout(&self) -> ScaleLayout {
        if self.swizzled {
            ScaleLayout::Swizzled
        } else {
            ScaleLayout::Linear
        }
    }

    /// Random inputs in the layouts of a layer of these sizes.
    #[must_use]
    pub fn inputs(&self, lengths: &[usize], kv: Kv, seed: u64) -> LayerInputs {
        let lengths = Lengths(lengths.to_vec());
        let inputs = LayerInputs::with_layout(&self.shape, &lengths, kv, self.scale_layout(), seed);
        if self.packed == Packed::None {
            inputs
        } else {
            inputs.pack()
        }
    }

    /// Floats that attention's units of work leave for each other.
    fn partial_floats(&self, tokens: usize) -> usize {
        let octets = (self.num_q_heads / self.num_kv_heads).div_ceil(8);
        (self.num_ctas + tokens * self.num_kv_heads) * octets * (8 * self.head_dim + 16)
    }
}

/// Its sizes are read as its own.
impl Deref for LayerDims {
    type Target = LayerShape;

    fn deref(&self) -> &LayerShape {
        &self.shape
    }
}

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
    /// u8 `[H, K/2]`; this and the matrices below as checkpoints have them, or [`Packed`]
    /// by [`PACKED64`](crate::reference::packed::PACKED64).
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
    pub wo_output: CudaSlice<f32>,
    /// `[max_tokens, K]`: attention's result.
    pub attn_rows: CudaSlice<u16>,
    /// `[max_tokens, H]`: residual + `W_O`, not rounded.
    pub summed: CudaSlice<f32>,
    /// `[max_tokens, I]` bf16: the MLP's middle before requantisation. Written
    /// where it was asked for.
    pub middle: Option<CudaSlice<u16>>,
    /// `[max_tokens, I/2]`.
    pub codes: CudaSlice<u8>,
    /// `[max_tokens, I/16]`.
    pub code_scales: CudaSlice<u8>,
    /// Zero before and after every launch.
    pub counters: CudaSlice<u32>,
    partials: CudaSlice<f32>,
    /// `[max_tokens, slice_ctas, H]`: FC2's partials, in the original geometry.
    mlp_partials: Option<CudaSlice<f32>>,
    max_tokens: usize,
}

/// Counters of the whole grid, 128 bytes apart; those of tokens come behind them.
const GRID_COUNTERS: usize = 4 * 32;

/// Counters of a token: one a head, or those of the original geometry.
const TOKEN_COUNTERS: usize = 64;

impl Workspace {
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

    /// Whether it was made for a layer as large as this one: one workspace may
    /// serve several variants in turn, if it was made for the largest.
    fn check(&self, dims: &LayerDims) -> Result<(), WorkspaceError> {
        let n = self.max_tokens;
        let mlp_partials = self.mlp_partials.as_ref().map_or(0, CudaSlice::len);
        for (name, found, least) in [
            ("wo_output", self.wo_output.len(), n * dims.slots * dims.hidden),
            ("attn_rows", self.attn_rows.len(), n * dims.k()),
            ("summed", self.summed.len(), n * dims.hidden),
            ("codes", self.codes.len(), n * dims.intermediate / 2),
            ("attn_partials", self.partials.len(), dims.partial_floats(n)),
            ("mlp_partials", mlp_partials, n * dims.slice_ctas * dims.hidden),
        ] {
            if found < least {
                return Err(WorkspaceError::Small { name, found, least });
            }
        }
        Ok(())
    }
}

/// A layer's kernel with its sizes.
#[derive(Debug, Clone)]
pub struct Layer {
    kernel: Arc<LoadedKernel>,
    dims: LayerDims,
}

/// Number of 64-bit values that the kernels' one parameter holds.
pub const VALUES: usize = 42;

/// A layer whose tensors were checked: ready to be launched again and again.
#[derive(Debug, Clone)]
pub struct BoundLayer {
    kernel: Arc<LoadedKernel>,
    arguments: Arguments<VALUES>,
    max_tokens: u32,
    /// Whether the grid has a layer of blocks a token.
    per_token: bool,
}

impl Layer {
    /// A loaded kernel of `beta_coop` or `beta_lite`, and its spec.
    pub fn new(spec: &KernelSpec, kernel: Arc<LoadedKernel>) -> Result<Self, WorkspaceError> {
        Ok(Self {
            kernel,
            dims: LayerDims::of(spec)?,
        })
    }

    /// Its sizes.
    #[must_use]
    pub fn dims(&self) -> &LayerDims {
        &self.dims
    }

    /// Checks every tensor and fixes the arguments. `region_timing` is the address
    /// of the timing buffer, 0 without one.
    pub fn bind(
        &self,
        stream: &Arc<CudaStream>,
        tensors: &LayerTensors,
        scales: &LayerScales,
        workspace: &Workspace,
        region_timing: sys::CUdeviceptr,
    ) -> Result<BoundLayer, WorkspaceError> {
        let (dims, t) = (&self.dims, tensors);
        let tokens = workspace.max_tokens;
        workspace.check(dims)?;
        dims.check_timing(region_timing)?;
        let (hidden, inner, k) = (dims.hidden, dims.intermediate, dims.k());
        let max_pages = t.page_table.shape().get(1).copied().unwrap_or(0);
        let pages = t.kv_cache.shape().first().copied().unwrap_or(0);
        let row = |name, tensor, width| check(name, tensor, Dtype::Bf16, &[tokens, width]);
        let normed = |name, tensor, shape: &[usize]| maybe(dims.input_norm, name, tensor, shape);
        let weight = |name, tensor, rows, width| check(name, tensor, Dtype::U8, &[rows, width / 2]);
        let padded = dims.swizzled && dims.packed == Packed::None;
        let middle = workspace
            .middle
            .as_ref()
            .map_or(0, |middle| middle.device_ptr(stream).0);
        let mlp_partials = workspace
            .mlp_partials
            .as_ref()
            .map_or(0, |partials| partials.device_ptr(stream).0);
        let query_shape = [tokens, dims.num_q_heads, dims.head_dim];
        let cache_shape = [pages, 2, dims.page_size, dims.num_kv_heads, dims.head_dim];
        let half = dims.page_size * dims.num_kv_heads * dims.head_dim;
        let arguments = Arguments::<VALUES>::new()
            .pointer(check("query", &t.query, Dtype::Bf16, &query_shape)?)
            .pointer(check("kv_cache", &t.kv_cache, Dtype::U8, &cache_shape)?)
            .pointer(check(
                "page_table",
                &t.page_table,
                Dtype::I32,
                &[tokens, max_pages],
            )?)
            .pointer(check("seq_lens", &t.seq_lens, Dtype::I32, &[tokens])?)
            .pointer(maybe(dims.output_gate, "gate", t.gate.as_ref(), &[tokens, k])?)
            .pointer(weight("wo_weight", &t.wo_weight, hidden, k)?)
            .pointer(scale_bytes(
                "wo_scales",
                &t.wo_scales,
                hidden,
                k,
                dims.packed != Packed::All,
            )?)
            .pointer(check("wo_global_scale", &t.wo_global_scale, Dtype::F32, &[1])?)
            .pointer(normed("hidden_in", t.hidden_in.as_ref(), &[tokens, hidden])?)
            .pointer(row("residual_in", &t.residual_in, hidden)?)
            .pointer(normed("input_gamma", t.input_gamma.as_ref(), &[hidden])?)
            .pointer(check(
                "post_attn_gamma",
                &t.post_attn_gamma,
                Dtype::Bf16,
                &[hidden],
            )?)
            .pointer(weight("gate_weight", &t.gate_weight, inner, hidden)?)
            .pointer(scale_bytes("gate_scales", &t.gate_scales, inner, hidden, padded)?)
            .pointer(weight("up_weight", &t.up_weight, inner, hidden)?)
            .pointer(scale_bytes("up_scales", &t.up_scales, inner, hidden, padded)?)
            .pointer(weight("down_weight", &t.down_weight, hidden, inner)?)
            .pointer(scale_bytes("down_scales", &t.down_scales, hidden, inner, padded)?)
            .pointer(normed("attn_input", t.attn_input.as_ref(), &[tokens, hidden])?)
            .pointer(row("attn_output", &t.attn_output, hidden)?)
            .pointer(row("residual_output", &t.residual_output, hidden)?)
            .pointer(row("mlp_output", &t.mlp_output, hidden)?)
            .pointer(workspace.wo_output.device_ptr(stream).0)
            .pointer(workspace.attn_rows.device_ptr(stream).0)
            .pointer(workspace.partials.device_ptr(stream).0)
            .pointer(workspace.summed.device_ptr(stream).0)
            .pointer(middle)
            .pointer(workspace.codes.device_ptr(stream).0)
            .pointer(workspace.code_scales.device_ptr(stream).0)
            .pointer(mlp_partials)
            .pointer(workspace.counters.device_ptr(stream).0)
            .pointer(region_timing)
            .u64(2 * half as u64)
            .u64(half as u64)
            .f32(scales.softmax)
            .f32(scales.k)
            .f32(scales.v)
            .f32(scales.rms_eps)
            .f32(scales.gate_up)
            .f32(scales.down)
            .u32(u32::try_from(max_pages).unwrap_or(u32::MAX));
        Ok(BoundLayer {
            kernel: Arc::clone(&self.kernel),
            arguments,
            max_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            per_token: dims.slice_ctas > 0,
        })
    }
}

impl BoundLayer {
    /// Its kernels, in the order of their launches.
    #[must_use]
    pub fn kernel(&self) -> &LoadedKernel {
        &self.kernel
    }

    /// The one parameter that each of them takes by value, as words: for who
    /// launches them in another way.
    #[must_use]
    pub fn parameter(&self, nat: u32) -> Arguments<VALUES> {
        self.arguments.clone().u32(nat)
    }

    /// Launches the layer for the first `nat` tokens: one cooperative launch, or
    /// the kernels of `beta_lite` in order.
    ///
    /// # Safety
    ///
    /// The tensors and the workspace are alive until the stream is done with
    /// them and used by no other launch meanwhile; lengths and pages lie inside
    /// the page table and the cache; the stream is of the kernel's context, which
    /// is current on this thread.
    pub unsafe fn launch(&self, nat: u32, stream: sys::CUstream) -> Result<(), WorkspaceError> {
        if nat == 0 || nat > self.max_tokens {
            return Err(WorkspaceError::Tokens {
                asked: nat,
                room: self.max_tokens,
            });
        }
        // SAFETY: the caller's promise.
        unsafe { self.launch_entries(0..self.kernel.entries().len(), nat, stream) }
    }

    /// Launches only these of the layer's kernels, in order: for measurements of a
    /// part of `beta_lite`.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    ///
    /// # Safety
    ///
    /// As for [`launch`](Self::launch); what the kernels left out would have written
    /// was written before.
    pub unsafe fn launch_entries(
        &self,
        which: std::ops::Range<usize>,
        nat: u32,
        stream: sys::CUstream,
    ) -> Result<(), WorkspaceError> {
        for entry in &self.kernel.entries()[which] {
            // The kernels take one struct by value, whose fields are these values
            // side by side; of the pointers to them the driver reads the first.
            let mut arguments = self.parameter(nat);
            let [x, y, z] = entry.grid(nat);
            let grid = [x, y, if self.per_token { nat } else { z }];
            // SAFETY: the caller's promise, and `bind` checked what can be checked.
            unsafe { launch_grid(entry, grid, Order::Serial, stream, &mut arguments) }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_room_covers_every_unit_of_work() {
        let dims = LayerDims {
            shape: LayerShape {
                hidden: 5120,
                intermediate: 17408,
                num_q_heads: 24,
                num_kv_heads: 4,
                head_dim: 256,
                page_size: 64,
            },
            slots: 32,
            num_ctas: 132,
            slice_ctas: 0,
            output_gate: false,
            input_norm: false,
            swizzled: true,
            packed: Packed::None,
            num_regions: 0,
        };
        // One unit a block, and one more a head where lengths do not divide.
        assert_eq!(dims.partial_floats(2), (132 + 8) * (8 * 256 + 16));
        assert_eq!(dims.k(), 6144);
    }
}
