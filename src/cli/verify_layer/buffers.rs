//! The decode layer's inputs and outputs on a GPU, for one launch.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream};
use half::bf16;

use crate::reference::layer::{LayerInputs, Matrix};
use crate::workspace::{Dtype, Layer, LayerScales, LayerTensors, Tensor, Workspace, WorkspaceError};

/// What a launch wrote.
#[derive(PartialEq)]
pub(super) struct Written {
    pub(super) attn_rows: Vec<u16>,
    pub(super) wo_output: Vec<u32>,
    pub(super) summed: Vec<u32>,
    pub(super) residual_output: Vec<u16>,
    pub(super) attn_output: Vec<u16>,
    pub(super) attn_input: Vec<u16>,
    pub(super) middle: Vec<u16>,
    pub(super) codes: Vec<u8>,
    pub(super) code_scales: Vec<u8>,
    pub(super) mlp_output: Vec<u16>,
}

/// One launch with outputs poisoned before it.
pub(super) fn run_once(
    layer: &Layer,
    stream: &Arc<CudaStream>,
    inputs: &LayerInputs,
) -> Result<Written, WorkspaceError> {
    let (d, nat) = (*layer.dims(), inputs.nat);
    let put_bf16 = |values: &[bf16]| -> Result<CudaSlice<u16>, WorkspaceError> {
        let bits: Vec<u16> = values.iter().map(|v| v.to_bits()).collect();
        Ok(stream.clone_htod(&bits)?)
    };
    let poison = |count: usize| stream.clone_htod(&vec![0xffff_u16; count]);
    let query = put_bf16(&inputs.query)?;
    let kv_cache = stream.clone_htod(&inputs.kv_cache)?;
    let page_table = stream.clone_htod(&inputs.page_table)?;
    let seq_lens = stream.clone_htod(&inputs.seq_lens)?;
    let gate = put_bf16(&inputs.gate)?;
    let wo_global = stream.clone_htod(&[inputs.wo_global])?;
    let hidden_in = put_bf16(&inputs.hidden_in)?;
    let residual_in = put_bf16(&inputs.residual_in)?;
    let input_gamma = put_bf16(&inputs.input_gamma)?;
    let post_gamma = put_bf16(&inputs.post_gamma)?;
    let matrix =
        |m: &Matrix| Ok::<_, WorkspaceError>((stream.clone_htod(&m.codes)?, stream.clone_htod(&m.scales)?));
    let (wo, gate_proj) = (matrix(&inputs.wo)?, matrix(&inputs.gate_proj)?);
    let (up_proj, down_proj) = (matrix(&inputs.up_proj)?, matrix(&inputs.down_proj)?);
    let rows = nat * d.hidden;
    let (attn_input, attn_output) = (poison(rows)?, poison(rows)?);
    let (residual_output, mlp_output) = (poison(rows)?, poison(rows)?);
    let mut workspace = Workspace::new(stream, &d, nat, true)?;
    workspace.wo_output = stream.clone_htod(&vec![f32::NAN; workspace.wo_output.len()])?;
    workspace.attn_rows = poison(nat * d.k())?;
    workspace.summed = stream.clone_htod(&vec![f32::NAN; rows])?;
    workspace.middle = Some(poison(nat * d.intermediate)?);

    let pages = inputs.kv_cache.len() / (2 * d.page_size * d.num_kv_heads * d.head_dim);
    let tensors = LayerTensors {
        query: Tensor::of(stream, &query, Dtype::Bf16, &[nat, d.num_q_heads, d.head_dim]),
        kv_cache: Tensor::of(
            stream,
            &kv_cache,
            Dtype::U8,
            &[pages, 2, d.page_size, d.num_kv_heads, d.head_dim],
        ),
        page_table: Tensor::of(stream, &page_table, Dtype::I32, &[nat, inputs.max_pages]),
        seq_lens: Tensor::of(stream, &seq_lens, Dtype::I32, &[nat]),
        gate: Some(Tensor::of(stream, &gate, Dtype::Bf16, &[nat, d.k()])),
        wo_weight: Tensor::of(stream, &wo.0, Dtype::U8, &[d.hidden, d.k() / 2]),
        wo_scales: Tensor::of(stream, &wo.1, Dtype::U8, &[inputs.wo.scales.len()]),
        wo_global_scale: Tensor::of(stream, &wo_global, Dtype::F32, &[1]),
        hidden_in: Some(Tensor::of(stream, &hidden_in, Dtype::Bf16, &[nat, d.hidden])),
        residual_in: Tensor::of(stream, &residual_in, Dtype::Bf16, &[nat, d.hidden]),
        input_gamma: Some(Tensor::of(stream, &input_gamma, Dtype::Bf16, &[d.hidden])),
        post_attn_gamma: Tensor::of(stream, &post_gamma, Dtype::Bf16, &[d.hidden]),
        gate_weight: Tensor::of(stream, &gate_proj.0, Dtype::U8, &[d.intermediate, d.hidden / 2]),
        gate_scales: Tensor::of(stream, &gate_proj.1, Dtype::U8, &[inputs.gate_proj.scales.len()]),
        up_weight: Tensor::of(stream, &up_proj.0, Dtype::U8, &[d.intermediate, d.hidden / 2]),
        up_scales: Tensor::of(stream, &up_proj.1, Dtype::U8, &[inputs.up_proj.scales.len()]),
        down_weight: Tensor::of(stream, &down_proj.0, Dtype::U8, &[d.hidden, d.intermediate / 2]),
        down_scales: Tensor::of(stream, &down_proj.1, Dtype::U8, &[inputs.down_proj.scales.len()]),
        attn_input: Some(Tensor::of(stream, &attn_input, Dtype::Bf16, &[nat, d.hidden])),
        attn_output: Tensor::of(stream, &attn_output, Dtype::Bf16, &[nat, d.hidden]),
        residual_output: Tensor::of(stream, &residual_output, Dtype::Bf16, &[nat, d.hidden]),
        mlp_output: Tensor::of(stream, &mlp_output, Dtype::Bf16, &[nat, d.hidden]),
    };
    let scales = LayerScales {
        softmax: inputs.softmax_scale,
        k: inputs.k_scale,
        v: inputs.v_scale,
        rms_eps: inputs.rms_eps,
        gate_up: inputs.gate_up_global,
        down: inputs.down_global,
    };
    let bound = layer.bind(stream, &tensors, &scales, &workspace, 0)?;
    let count = u32::try_from(nat).unwrap_or(u32::MAX);
    // SAFETY: all buffers live to the end of this function, which waits for the
    // stream; lengths and pages come from `LayerInputs`, which keeps them inside.
    unsafe { bound.launch(count, stream.cu_stream()) }?;
    let bits = |values: Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
    let middle = workspace
        .middle
        .as_ref()
        .map(|m| stream.clone_dtoh(m))
        .transpose()?;
    let written = Written {
        attn_rows: stream.clone_dtoh(&workspace.attn_rows)?,
        wo_output: bits(stream.clone_dtoh(&workspace.wo_output)?),
        summed: bits(stream.clone_dtoh(&workspace.summed)?),
        residual_output: stream.clone_dtoh(&residual_output)?,
        attn_output: stream.clone_dtoh(&attn_output)?,
        attn_input: stream.clone_dtoh(&attn_input)?,
        middle: middle.unwrap_or_default(),
        codes: stream.clone_dtoh(&workspace.codes)?,
        code_scales: stream.clone_dtoh(&workspace.code_scales)?,
        mlp_output: stream.clone_dtoh(&mlp_output)?,
    };
    let counters = stream.clone_dtoh(&workspace.counters)?;
    stream.synchronize()?;
    match counters.iter().position(|c| *c != 0) {
        None => Ok(written),
        Some(at) => Err(WorkspaceError::Counter {
            index: at,
            value: counters[at],
        }),
    }
}
