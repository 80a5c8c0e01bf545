//! The decode layer's own rules, for `jitc.decode`: which variant runs a step, packing, and
//! inputs and results of jitc's own for comparing bits.
//!
//! Invariant: nothing here is decided anew: it is the Rust side's.

#![expect(
    clippy::needless_pass_by_value,
    reason = "arguments come from Python as values"
)]

use std::sync::Arc;

use half::bf16;
use jitc::engine::run::load::LoadedKernel;
use jitc::families::decode_layer::dispatch::{Layers, Path, Policy, Problem, Variant, select};
use jitc::families::decode_layer::reference::{Kv, LayerInputs, Matrix};
use jitc::families::decode_layer::{
    Layer, LayerDims, LayerProblem, LayerWeights, Packed, Room, WorkspaceError,
};
use jitc::families::nvfp4::packed::{PACKED64, Weight};
use jitc::families::nvfp4::swizzle;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors;
use crate::kernel::Kernel;

fn said<T>(py: Python<'_>, result: Result<T, WorkspaceError>) -> PyResult<T> {
    result.map_err(|error| errors::layer(py, error.to_string()))
}

fn layer_of(py: Python<'_>, kernel: &Kernel) -> PyResult<Layer> {
    let loaded: &Arc<LoadedKernel> = &kernel.loaded;
    said(py, Layer::new(loaded.spec(), Arc::clone(loaded)))
}

/// Sizes of a layer, and which of its matrices are packed. Refuses a kernel that is no decode
/// layer, or that would wait for ever.
#[pyfunction]
pub(crate) fn layer_facts<'py>(py: Python<'py>, kernel: &Bound<'py, Kernel>) -> PyResult<Bound<'py, PyDict>> {
    let dims = *layer_of(py, kernel.get())?.dims();
    let facts = PyDict::new(py);
    for (name, size) in [
        ("hidden", dims.hidden),
        ("intermediate", dims.intermediate),
        ("num_q_heads", dims.num_q_heads),
        ("num_kv_heads", dims.num_kv_heads),
        ("head_dim", dims.head_dim),
        ("page_size", dims.page_size),
    ] {
        facts.set_item(name, size)?;
    }
    facts.set_item("mlp_packed", dims.packed != Packed::None)?;
    facts.set_item("wo_packed", dims.packed == Packed::All)?;
    facts.set_item("swizzled", dims.swizzled)?;
    Ok(facts)
}

/// The kernel that runs a step of so many tokens, by its place, or none; and why.
#[pyfunction]
pub(crate) fn choose(
    py: Python<'_>,
    kernels: Vec<Bound<'_, Kernel>>,
    num_tokens: u32,
    max_tokens: u32,
    path: &str,
) -> PyResult<(Option<usize>, String)> {
    let path: Result<Path, _> = path.parse();
    let path = path.map_err(|why| errors::request(py, why.to_string()))?;
    let variants = kernels.iter().map(|kernel| {
        let loaded = &kernel.get().loaded;
        let capacity = loaded.entries().first().map_or(0, |entry| entry.capacity);
        let variant = Variant::of(loaded.spec(), capacity);
        variant.ok_or_else(|| {
            errors::layer(
                py,
                format!("`{}` is not a decode layer", loaded.spec().family().name),
            )
        })
    });
    let variants: Vec<Variant> = variants.collect::<PyResult<_>>()?;
    let policy = Policy {
        path,
        layers: Layers::all(),
        max_tokens,
    };
    let problem = Problem {
        num_tokens,
        layer: 0,
        decode_only: true,
    };
    let choice = select(&variants, &policy, &problem);
    Ok((choice.variant, choice.reason.to_string()))
}

/// NVFP4 weights as checkpoints have them, packed for the decode layer: codes and scales.
/// `linear`: scales lie row by row, else in swizzled tiles.
#[pyfunction]
pub(crate) fn pack_weight<'py>(
    py: Python<'py>,
    codes: &[u8],
    scales: &[u8],
    rows: usize,
    k: usize,
    linear: bool,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let wrong = |why: String| errors::argument(py, Some("scales"), why);
    let expected = rows.saturating_mul(k / 16);
    if linear && scales.len() != expected {
        return Err(wrong(format!(
            "the scales are {} bytes: expected {expected}",
            scales.len()
        )));
    }
    let packed = py.detach(|| {
        let scales = if linear {
            swizzle::swizzle(scales, rows, k / 16)
        } else {
            scales.to_vec()
        };
        let plain = Weight {
            codes: codes.to_vec(),
            scales,
        };
        PACKED64.pack(&plain, rows, k)
    });
    let packed = packed.map_err(|error| wrong(error.to_string()))?;
    Ok((PyBytes::new(py, &packed.codes), PyBytes::new(py, &packed.scales)))
}

/// Random inputs of jitc's own for a layer, as bytes by parameter, numbers as they are; the
/// matrices in the layout that the kernel reads.
#[pyfunction]
pub(crate) fn sample<'py>(
    py: Python<'py>,
    kernel: &Bound<'py, Kernel>,
    lengths: Vec<usize>,
    seed: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let dims = *layer_of(py, kernel.get())?.dims();
    let inputs = py.detach(|| dims.inputs(&lengths, Kv::Random, seed));
    let named = PyDict::new(py);
    let put = |name: &str, bytes: &[u8]| named.set_item(name, PyBytes::new(py, bytes));
    put("query", &of_bf16(&inputs.query))?;
    put("kv_cache", &inputs.kv_cache)?;
    put("page_table", &of_i32(&inputs.page_table))?;
    put("seq_lens", &of_i32(&inputs.seq_lens))?;
    put("residual_in", &of_bf16(&inputs.residual_in))?;
    put("post_gamma", &of_bf16(&inputs.post_gamma))?;
    put("wo_global", &inputs.wo_global.to_le_bytes())?;
    if dims.output_gate {
        put("gate", &of_bf16(&inputs.gate))?;
    }
    if dims.input_norm {
        put("hidden_in", &of_bf16(&inputs.hidden_in))?;
        put("input_gamma", &of_bf16(&inputs.input_gamma))?;
    }
    for (name, matrix, packed) in [
        ("wo", &inputs.wo, dims.packed == Packed::All),
        ("gate", &inputs.gate_proj, dims.packed != Packed::None),
        ("up", &inputs.up_proj, dims.packed != Packed::None),
        ("down", &inputs.down_proj, dims.packed != Packed::None),
    ] {
        let (codes, scales) = layout_of(matrix, packed);
        put(&format!("{name}_weight"), codes)?;
        put(&format!("{name}_scales"), scales)?;
    }
    for (name, number) in [
        ("softmax_scale", inputs.softmax_scale),
        ("k_scale", inputs.k_scale),
        ("v_scale", inputs.v_scale),
        ("rms_eps", inputs.rms_eps),
        ("gate_up_global", inputs.gate_up_global),
        ("down_global", inputs.down_global),
    ] {
        named.set_item(name, number)?;
    }
    named.set_item("max_pages", inputs.max_pages)?;
    Ok(named)
}

/// What jitc's own Rust makes of those inputs on the GPU: bytes of the layer's results.
#[pyfunction]
pub(crate) fn run_sample<'py>(
    py: Python<'py>,
    kernel: &Bound<'py, Kernel>,
    lengths: Vec<usize>,
    seed: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let loaded = &kernel.get().loaded;
    let layer = layer_of(py, kernel.get())?;
    let _entered = loaded.context().enter().map_err(|e| errors::device(py, e))?;
    let dims = *layer.dims();
    let inputs = py.detach(|| dims.inputs(&lengths, Kv::Random, seed));
    let written = said(py, run(&layer, &dims, &inputs, loaded))?;
    let results = PyDict::new(py);
    for (name, halves) in [
        ("residual_output", &written.residual_output),
        ("attn_output", &written.attn_output),
        ("mlp_output", &written.mlp_output),
    ] {
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        results.set_item(name, PyBytes::new(py, &bytes))?;
    }
    Ok(results)
}

fn run(
    layer: &Layer,
    dims: &LayerDims,
    inputs: &LayerInputs,
    loaded: &LoadedKernel,
) -> Result<jitc::families::decode_layer::Written, WorkspaceError> {
    let stream = loaded.context().cuda().new_stream()?;
    let weights = Arc::new(LayerWeights::new(&stream, inputs)?);
    let room = Room::of(dims, inputs);
    let mut problem = LayerProblem::new(&stream, dims, room, &weights, false)?;
    problem.put(inputs)?;
    problem.poison()?;
    let bound = problem.bind(layer)?;
    let num_tokens = u32::try_from(inputs.num_tokens).unwrap_or(0);
    // SAFETY: the problem's own memory and inputs; the context is current.
    unsafe { problem.launch(&bound, num_tokens) }?;
    problem.read(inputs.num_tokens, dims.slots)
}

fn layout_of(matrix: &Matrix, packed: bool) -> (&[u8], &[u8]) {
    match &matrix.packed {
        Some(weight) if packed => (&weight.codes, &weight.scales),
        _ => (&matrix.codes, &matrix.scales),
    }
}

fn of_bf16(values: &[bf16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn of_i32(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
