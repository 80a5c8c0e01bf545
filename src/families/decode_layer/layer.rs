//! A decode layer's memory and its launch: tensors whose dtype, shape and
//! alignment are checked once, and a workspace that is allocated once.
//!
//! Invariant: after [`Layer::bind`] a launch checks nothing but the number of
//! tokens, and every address is stable, so that it can be captured in a graph. A
//! workspace belongs to one launch at a time: streams that run at the same time
//! need one each.

use std::sync::Arc;

use cudarc::driver::{CudaStream, DevicePtr, sys};

use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::launch::{Arguments, Order, launch_grid};
use crate::engine::run::load::{EntryPoint, LoadedKernel};

use super::tensor::{check, maybe, scale_bytes};
use super::{Dtype, LayerConfig, LayerDims, LayerScales, LayerTensors, Packed, Workspace, WorkspaceError};

/// A layer's kernel with its sizes.
#[derive(Debug, Clone)]
pub struct Layer {
    kernel: Arc<LoadedKernel>,
    dims: LayerDims,
    order: Order,
}

/// Threads that compute in a block whose warps share registers out, and registers a
/// thread that it has to be launched with: as in `layer/block_ring.cuh`.
const SHARING_THREADS: u32 = 512;
const LAUNCH_REGISTERS: u32 = 96;

/// Number of 64-bit values that the kernels' one parameter holds.
pub const VALUES: usize = 42;

/// A layer whose tensors were checked: ready to be launched again and again.
#[derive(Debug, Clone)]
pub struct BoundLayer {
    kernel: Arc<LoadedKernel>,
    arguments: Arguments<VALUES>,
    max_tokens: u32,
    /// `Programmatic` of a variant with `dependent = true`.
    order: Order,
    /// Whether the grid has a layer of blocks a token.
    per_token: bool,
}

impl Layer {
    /// A loaded kernel of the decode layer, and its spec.
    pub fn new(spec: &KernelSpec, kernel: Arc<LoadedKernel>) -> Result<Self, WorkspaceError> {
        let config = LayerConfig::try_from(spec)?;
        enough_registers(&config, spec.arch, &kernel)?;
        let early = config.dependent && spec.arch.number() >= 90;
        Ok(Self {
            kernel,
            dims: LayerDims::from(&config),
            order: if early { Order::Programmatic } else { Order::Serial },
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
            order: self.order,
            per_token: dims.slice_ctas > 0,
        })
    }
}

/// Of packed weights, warps that only ask for them hand registers on to those that
/// compute, out of what the block was launched with: a kernel with fewer would wait
/// for ever.
fn enough_registers(config: &LayerConfig, arch: Arch, kernel: &LoadedKernel) -> Result<(), WorkspaceError> {
    let shares = arch.is_specific() && [90, 100, 103].contains(&arch.number());
    if !shares || config.block_threads != SHARING_THREADS {
        return Ok(());
    }
    let sharing = |entry: &&EntryPoint| entry.block_threads > SHARING_THREADS;
    match (kernel.entries().iter().filter(sharing)).find(|entry| entry.registers < LAUNCH_REGISTERS) {
        None => Ok(()),
        Some(entry) => Err(WorkspaceError::Registers {
            entry: entry.name().to_owned(),
            found: entry.registers,
            least: LAUNCH_REGISTERS,
        }),
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
    /// the separate ones in order.
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
    /// part of separate launches.
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
            unsafe { launch_grid(entry, grid, self.order, stream, &mut arguments) }?;
        }
        Ok(())
    }
}
