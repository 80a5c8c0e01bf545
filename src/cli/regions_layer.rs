//! `jitc regions --live beta_coop`: the decode layer with regions on a GPU.
//!
//! What a launch with regions writes is held to what one without them writes, bit
//! for bit; `jitc verify` is what holds the latter to the references.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, sys};
use half::bf16;

use super::regions::Run;
use super::regions_live::{chosen, geometry, measure, source, with_regions};
use crate::device::Context;
use crate::jit::{Error, Jit};
use crate::reference::layer::{Kv, LayerInputs, Lengths, Matrix, ScaleLayout};
use crate::region::{self, RegionBuffer, Table, Ticks};
use crate::spec::KernelSpec;
use crate::workspace::{
    BoundLayer, Dtype, Layer, LayerDims, LayerScales, LayerTensors, Tensor, Workspace, WorkspaceError,
};

/// Positions of each sequence's context.
const CONTEXT: usize = 4096;

/// A layer's inputs and outputs on the device, kept as long as they are launched over.
struct Memory {
    halves: Vec<CudaSlice<u16>>,
    _bytes: Vec<CudaSlice<u8>>,
    _numbers: Vec<CudaSlice<i32>>,
    _global: CudaSlice<f32>,
    tensors: LayerTensors,
    scales: LayerScales,
    workspace: Workspace,
}

pub(super) fn one(
    jit: &Jit,
    context: &Context,
    spec: &KernelSpec,
    nat: u32,
    scratch: &mut CudaSlice<u8>,
) -> Result<Result<Run, String>, Error> {
    let stream = context.cuda().default_stream();
    let count = chosen(spec);
    let (on, off) = (with_regions(spec, count)?, with_regions(spec, 0)?);
    let layer_on = Layer::new(&on, jit.load(&on, context)?)?;
    let off_kernel = jit.load(&off, context)?;
    let layer_off = Layer::new(&off, Arc::clone(&off_kernel))?;
    let table = Table::of(&on.family.name, count)?;
    let geometry = geometry(&on, &off_kernel, nat as usize);
    let memory = Memory::new(&stream, &on, layer_on.dims(), nat as usize)?;
    let mut words = stream
        .alloc_zeros::<u64>(table.words(&geometry))
        .map_err(WorkspaceError::from)?;
    let (address, _) = words.device_ptr_mut(&stream);
    let buffer = RegionBuffer {
        table,
        geometry,
        address,
    };
    let timing = region::argument(Some(&buffer), &on.family.name, count, &geometry)?;
    let bind = |layer: &Layer, timing: sys::CUdeviceptr| {
        layer.bind(
            &stream,
            &memory.tensors,
            &memory.scales,
            &memory.workspace,
            timing,
        )
    };
    let (bound_on, bound_off) = (bind(&layer_on, timing)?, bind(&layer_off, 0)?);

    launch(&bound_off, nat, &stream)?;
    let expected = memory.results(&stream)?;
    memory.poison(&stream)?;
    launch(&bound_on, nat, &stream)?;
    if memory.results(&stream)? != expected {
        let reason = "what a launch with regions writes differs from what one without writes";
        return Ok(Err(format!("{}: {reason}: nothing was timed", on.variant())));
    }

    let against = "equal to the kernel without regions in every bit";
    let account = |words: &[u64]| Ticks::from_words(table, geometry, source(&on), words);
    measure(
        context,
        scratch,
        &words,
        &off,
        against,
        &account,
        &mut |regions| {
            let bound = if regions { &bound_on } else { &bound_off };
            Ok(launch(bound, nat, &stream)?)
        },
    )
    .map(Ok)
}

fn launch(bound: &BoundLayer, nat: u32, stream: &CudaStream) -> Result<(), WorkspaceError> {
    // SAFETY: the caller keeps a `Memory` with every tensor alive and waits for the
    // stream; its lengths and pages come from `LayerInputs`, which keeps them inside.
    unsafe { bound.launch(nat, stream.cu_stream()) }
}

impl Memory {
    fn new(
        stream: &Arc<CudaStream>,
        spec: &KernelSpec,
        d: &LayerDims,
        nat: usize,
    ) -> Result<Self, WorkspaceError> {
        let shape = d.shape;
        let layout = if spec.constants["scale_layout"].to_string() == "linear" {
            ScaleLayout::Linear
        } else {
            ScaleLayout::Swizzled
        };
        let lengths = Lengths(vec![CONTEXT; nat]);
        let inputs = LayerInputs::with_layout(&shape, &lengths, Kv::Random, layout, 4242);
        let mut halves = Vec::new();
        let mut put = |values: &[bf16], shape: &[usize]| -> Result<Tensor, DriverError> {
            let bits: Vec<u16> = values.iter().map(|v| v.to_bits()).collect();
            halves.push(stream.clone_htod(&bits)?);
            Ok(Tensor::of(stream, &halves[halves.len() - 1], Dtype::Bf16, shape))
        };
        let row = [nat, d.hidden];
        let nothing = vec![bf16::NAN; nat * d.hidden];
        let query = put(&inputs.query, &[nat, d.num_q_heads, d.head_dim])?;
        let gate = put(&inputs.gate, &[nat, d.k()])?;
        let hidden_in = put(&inputs.hidden_in, &row)?;
        let residual_in = put(&inputs.residual_in, &row)?;
        let input_gamma = put(&inputs.input_gamma, &[d.hidden])?;
        let post_attn_gamma = put(&inputs.post_gamma, &[d.hidden])?;
        let attn_input = put(&nothing, &row)?;
        let attn_output = put(&nothing, &row)?;
        let residual_output = put(&nothing, &row)?;
        let mlp_output = put(&nothing, &row)?;

        let mut bytes = Vec::new();
        let mut keep = |values: &[u8], shape: &[usize]| -> Result<Tensor, DriverError> {
            bytes.push(stream.clone_htod(values)?);
            Ok(Tensor::of(stream, &bytes[bytes.len() - 1], Dtype::U8, shape))
        };
        let pages = inputs.kv_cache.len() / (2 * d.page_size * d.num_kv_heads * d.head_dim);
        let kv_cache = keep(
            &inputs.kv_cache,
            &[pages, 2, d.page_size, d.num_kv_heads, d.head_dim],
        )?;
        let mut matrix = |m: &Matrix, rows: usize, k: usize| -> Result<(Tensor, Tensor), DriverError> {
            Ok((
                keep(&m.codes, &[rows, k / 2])?,
                keep(&m.scales, &[m.scales.len()])?,
            ))
        };
        let (wo_weight, wo_scales) = matrix(&inputs.wo, d.hidden, d.k())?;
        let (gate_weight, gate_scales) = matrix(&inputs.gate_proj, d.intermediate, d.hidden)?;
        let (up_weight, up_scales) = matrix(&inputs.up_proj, d.intermediate, d.hidden)?;
        let (down_weight, down_scales) = matrix(&inputs.down_proj, d.hidden, d.intermediate)?;
        let numbers = vec![
            stream.clone_htod(&inputs.page_table)?,
            stream.clone_htod(&inputs.seq_lens)?,
        ];
        let global = stream.clone_htod(&[inputs.wo_global])?;
        Ok(Self {
            tensors: LayerTensors {
                query,
                kv_cache,
                page_table: Tensor::of(stream, &numbers[0], Dtype::I32, &[nat, inputs.max_pages]),
                seq_lens: Tensor::of(stream, &numbers[1], Dtype::I32, &[nat]),
                gate: Some(gate),
                wo_weight,
                wo_scales,
                wo_global_scale: Tensor::of(stream, &global, Dtype::F32, &[1]),
                hidden_in: Some(hidden_in),
                residual_in,
                input_gamma: Some(input_gamma),
                post_attn_gamma,
                gate_weight,
                gate_scales,
                up_weight,
                up_scales,
                down_weight,
                down_scales,
                attn_input: Some(attn_input),
                attn_output,
                residual_output,
                mlp_output,
            },
            scales: LayerScales {
                softmax: inputs.softmax_scale,
                k: inputs.k_scale,
                v: inputs.v_scale,
                rms_eps: inputs.rms_eps,
                gate_up: inputs.gate_up_global,
                down: inputs.down_global,
            },
            workspace: Workspace::new(stream, d, nat, false)?,
            halves,
            _bytes: bytes,
            _numbers: numbers,
            _global: global,
        })
    }

    /// Attention's output, residual and MLP's output, the last three that were put.
    fn results(&self, stream: &Arc<CudaStream>) -> Result<Vec<Vec<u16>>, WorkspaceError> {
        let outputs = &self.halves[self.halves.len() - 3..];
        let read = outputs
            .iter()
            .map(|o| stream.clone_dtoh(o))
            .collect::<Result<_, _>>()?;
        stream.synchronize()?;
        Ok(read)
    }

    fn poison(&self, stream: &Arc<CudaStream>) -> Result<(), WorkspaceError> {
        for output in &self.halves[self.halves.len() - 3..] {
            let (address, _written) = output.device_ptr(stream);
            // SAFETY: the buffer has that many bytes, and no launch is under way.
            unsafe {
                cudarc::driver::result::memset_d8_async(address, 0xff, 2 * output.len(), stream.cu_stream())
            }?;
        }
        Ok(())
    }
}
