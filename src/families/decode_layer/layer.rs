//! A decode layer's memory and its launch: tensors whose dtype, shape and
//! alignment are checked once, and a workspace that is allocated once.
//!
//! Invariant: after [`Layer::bind`] a launch checks nothing but the number of
//! tokens, and every address is stable, so that it can be captured in a graph. A
//! workspace belongs to one launch at a time: streams that run at the same time
//! need one each.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, sys};

use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::bind::BoundKernel;
use crate::engine::run::launch::Order;
use crate::engine::run::load::{EntryPoint, LoadedKernel};
use crate::engine::run::packet::Passed;

use super::{Dtype, LayerConfig, LayerDims, LayerScales, LayerTensors, Tensor, Workspace, WorkspaceError};

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

/// A layer whose tensors were checked: ready to be launched again and again.
#[derive(Debug, Clone)]
pub struct BoundLayer(BoundKernel);

impl Layer {
    /// A loaded kernel of the decode layer, and its spec.
    pub fn new(spec: &KernelSpec, kernel: Arc<LoadedKernel>) -> Result<Self, WorkspaceError> {
        let config = LayerConfig::try_from(spec)?;
        enough_registers(&config, spec.arch(), &kernel)?;
        let early = config.dependent && spec.arch().number() >= 90;
        Ok(Self {
            kernel,
            dims: LayerDims::from(&config),
            order: if early { Order::Programmatic } else { Order::Serial },
        })
    }

    /// Sizes of the layer.
    #[must_use]
    pub fn dims(&self) -> &LayerDims {
        &self.dims
    }

    /// Checks every tensor against the family's declared parameters, and fixes the
    /// arguments. `region_timing` is the address of the timing buffer, 0 without one.
    pub fn bind(
        &self,
        stream: &Arc<CudaStream>,
        tensors: &LayerTensors,
        scales: &LayerScales,
        workspace: &Workspace,
        region_timing: sys::CUdeviceptr,
    ) -> Result<BoundLayer, WorkspaceError> {
        let (dims, t, w) = (&self.dims, tensors, workspace);
        let only = |wanted: bool, tensor: Option<Tensor>| tensor.filter(|_| wanted);
        let middle = |m: &CudaSlice<u16>| Tensor::all_of(stream, m, Dtype::Bf16);
        let f32s = |slice: &CudaSlice<f32>| Tensor::all_of(stream, slice, Dtype::F32);
        let max_pages = t.page_table.shape().get(1).copied().unwrap_or(0);
        let half = (dims.page_size * dims.num_kv_heads * dims.head_dim) as u64;
        let bound = (self.kernel.bind())
            .order(self.order)
            .size("num_tokens", u32::try_from(w.max_tokens).unwrap_or(u32::MAX))
            .arg("query", t.query)
            .arg("kv_cache", t.kv_cache)
            .arg("page_table", t.page_table)
            .arg("seq_lens", t.seq_lens)
            .arg("gate", only(dims.output_gate, t.gate))
            .arg("wo_weight", t.wo_weight)
            .arg("wo_scales", t.wo_scales.flattened())
            .arg("wo_global", t.wo_global_scale)
            .arg("hidden_in", only(dims.input_norm, t.hidden_in))
            .arg("residual_in", t.residual_in)
            .arg("input_gamma", only(dims.input_norm, t.input_gamma))
            .arg("post_gamma", t.post_attn_gamma)
            .arg("gate_weight", t.gate_weight)
            .arg("gate_scales", t.gate_scales.flattened())
            .arg("up_weight", t.up_weight)
            .arg("up_scales", t.up_scales.flattened())
            .arg("down_weight", t.down_weight)
            .arg("down_scales", t.down_scales.flattened())
            .arg("attn_input", only(dims.input_norm, t.attn_input))
            .arg("attn_output", t.attn_output)
            .arg("residual_output", t.residual_output)
            .arg("mlp_output", t.mlp_output)
            .arg("wo_output", f32s(&w.wo_output))
            .arg("attn_rows", Tensor::all_of(stream, &w.attn_rows, Dtype::Bf16))
            .arg("attn_partials", f32s(&w.partials))
            .arg("summed", f32s(&w.summed))
            .arg("inter", w.middle.as_ref().map(middle))
            .arg("inter_codes", Tensor::all_of(stream, &w.codes, Dtype::U8))
            .arg(
                "inter_scales",
                Tensor::all_of(stream, &w.code_scales, Dtype::E4m3),
            )
            .arg("mlp_partials", w.mlp_partials.as_ref().map(f32s))
            .arg("counters", Tensor::all_of(stream, &w.counters, Dtype::U32))
            .arg("region_timing", Tensor::at(region_timing, Dtype::U64))
            .arg("kv_page_stride", 2 * half)
            .arg("kv_half_stride", half)
            .arg("softmax_scale", scales.softmax)
            .arg("k_scale", scales.k)
            .arg("v_scale", scales.v)
            .arg("rms_eps", scales.rms_eps)
            .arg("gate_up_global", scales.gate_up)
            .arg("down_global", scales.down)
            .arg("max_pages", u32::try_from(max_pages).unwrap_or(u32::MAX));
        Ok(BoundLayer(bound.finish()?))
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
        self.0.kernel()
    }

    /// The one parameter that each of them takes by value: for who launches them in
    /// another way. `None` for more tokens than there is room for, or none.
    #[must_use]
    pub fn parameter(&self, num_tokens: u32) -> Option<Passed<'_>> {
        self.0.passed(&[num_tokens])
    }

    /// Launches the layer for the first `num_tokens` tokens: one cooperative launch, or
    /// the separate ones in order.
    ///
    /// # Safety
    ///
    /// The tensors and the workspace are alive until the stream is done with
    /// them and used by no other launch meanwhile; lengths and pages lie inside
    /// the page table and the cache; the stream is of the kernel's context, which
    /// is current on this thread.
    pub unsafe fn launch(&self, num_tokens: u32, stream: sys::CUstream) -> Result<(), WorkspaceError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.launch(&[num_tokens], stream) }?;
        Ok(())
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
        num_tokens: u32,
        stream: sys::CUstream,
    ) -> Result<(), WorkspaceError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.launch_entries(which, &[num_tokens], stream) }?;
        Ok(())
    }
}
