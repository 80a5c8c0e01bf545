//! `jitc verify beta_coop` and `beta_lite`: runs the decode layer on a GPU and
//! holds every stage to its reference.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr};
use half::bf16;
use serde_json::json;

use super::{Answer, output};
use crate::device::Context;
use crate::jit::{Error, Jit};
use crate::reference::layer::{
    self, Errors, Kv, LayerInputs, LayerShape, Lengths, Matrix, ScaleLayout, attention_f64, middle_f64,
    norm_f64, output_f64,
};
use crate::reference::{WoInputs, WoShape, compare, matmul_f64, split_order};
use crate::spec::KernelSpec;
use crate::target::Arch;
use crate::workspace::{Dtype, Layer, LayerScales, LayerTensors, Tensor, Workspace, WorkspaceError};

/// One variant over one set of inputs.
struct Case {
    /// hidden, intermediate, query heads, kv heads, head dim, page size.
    shape: [usize; 6],
    set: Vec<(&'static str, &'static str)>,
    lengths: Vec<usize>,
    kv: Kv,
    global_scale: f32,
}

const MODEL: [usize; 6] = [5120, 17408, 24, 4, 256, 64];
const SHAPE_NAMES: [&str; 6] = [
    "hidden",
    "intermediate",
    "num_q_heads",
    "num_kv_heads",
    "head_dim",
    "page_size",
];

fn cases(quick: bool) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |shape, set: &[(&'static str, &'static str)], lengths: &[usize], kv, global_scale| {
        all.push(Case {
            shape,
            set: set.to_vec(),
            lengths: lengths.to_vec(),
            kv,
            global_scale,
        });
    };
    // Small shapes: every head size, page size, grouping, layout and option.
    let small = [256, 320, 4, 2, 64, 16];
    for (split, mode) in [("1", "fma"), ("2", "mul_add"), ("4", "fma"), ("8", "mul_add")] {
        let set = [("wo_split", split), ("accumulate", mode), ("num_ctas", "6")];
        add(small, &set, &[17], Kv::ConstantV, 1.0);
        add(small, &set, &[0, 15, 83], Kv::EqualScores, 0.0123);
        add(small, &set, &[700, 1, 33, 257], Kv::Random, -3.7e-4);
    }
    let many: Vec<usize> = (0..9).map(|i| 40 * i + 1).collect();
    add(small, &[("num_ctas", "6")], &many, Kv::Random, 0.0123);
    let gated = [
        ("accumulate", "mul_add"),
        ("tokens", "4"),
        ("scale_layout", "linear"),
        ("output_gate", "true"),
        ("input_norm", "true"),
        ("num_ctas", "5"),
        ("num_threads", "128"),
        ("stages", "6"),
    ];
    add(
        [512, 1088, 6, 1, 128, 32],
        &gated,
        &[0, 31, 163],
        Kv::Random,
        0.0123,
    );
    let tensor = [
        ("accumulate", "mma"),
        ("wo_split", "4"),
        ("tokens", "8"),
        ("num_ctas", "7"),
        ("num_threads", "256"),
        ("stages", "3"),
    ];
    for lengths in [&[65][..], &[64, 63, 0, 300], &many] {
        add([384, 704, 8, 1, 256, 64], &tensor, lengths, Kv::Random, 0.0123);
    }
    let two = [
        ("accumulate", "mma"),
        ("wo_split", "8"),
        ("tokens", "2"),
        ("num_ctas", "9"),
        ("stages", "3"),
    ];
    add([640, 512, 24, 4, 256, 128], &two, &[129, 1, 128], Kv::Random, 1.0);
    let five = [("tokens", "2"), ("num_ctas", "11"), ("stages", "2")];
    add([512, 640, 40, 8, 128, 64], &five, &[63, 200], Kv::Random, 0.0123);
    let wide = [("accumulate", "mma"), ("num_ctas", "3"), ("stage_chunks", "4")];
    add(
        [256, 192, 16, 1, 64, 16],
        &wide,
        &[15, 16, 17],
        Kv::Random,
        0.0123,
    );
    add(
        [256, 192, 32, 8, 128, 32],
        &[("num_ctas", "4")],
        &[33],
        Kv::Random,
        0.0123,
    );
    if quick {
        return all;
    }
    // The model's shape.
    for split in ["1", "2", "4", "8"] {
        for mode in ["fma", "mul_add", "mma"] {
            let set = [("wo_split", split), ("accumulate", mode)];
            add(MODEL, &set, &[4096], Kv::Random, 0.0123);
        }
        add(MODEL, &[("wo_split", split)], &[65], Kv::ConstantV, 1.0);
    }
    let eight = [("wo_split", "8")];
    for lengths in [&[0][..], &[1, 63], &[64, 65, 1000], &[32_768], &[4096, 5, 0, 129]] {
        add(MODEL, &eight, lengths, Kv::Random, 0.0123);
    }
    let batch = [
        ("wo_split", "8"),
        ("accumulate", "mma"),
        ("tokens", "4"),
        ("stages", "3"),
    ];
    add(MODEL, &batch, &[4096, 100, 8000, 64], Kv::Random, 0.0123);
    add(MODEL, &batch, &[1, 2, 3, 4, 5, 6, 7, 8], Kv::Random, 0.0123);
    // Tensor-parallel shards of the model.
    add([5120, 8704, 12, 2, 256, 64], &eight, &[777], Kv::Random, 0.0123);
    add([5120, 4352, 6, 1, 256, 64], &eight, &[777], Kv::Random, 0.0123);
    all
}

pub(super) fn run(jit: &Jit, context: &Context, family: &str, quick: bool, json: bool) -> Answer {
    let started = Instant::now();
    let stream = context.cuda().default_stream();
    let (mut count, mut wrong) = (0, 0);
    prepare(jit, context, family, &cases(quick))?;
    let mut rows = vec![
        [
            "variant", "lengths", "inputs", "stage", "median", "p99", "max", "",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for case in cases(quick) {
        let spec = spec_of(jit, context, family, &case)?;
        let stages = judge(jit, context, &stream, &spec, &case)?;
        count += 1;
        wrong += usize::from(stages.iter().any(|s| !s.good));
        for stage in &stages {
            if json {
                output::json(
                    &json!({"event": "stage", "family": family, "variant": spec.variant(),
                    "lengths": case.lengths, "inputs": format!("{:?}", case.kv), "stage": stage.name,
                    "good": stage.good, "detail": stage.detail,
                    "median": stage.errors.map(|e| e.median), "p99": stage.errors.map(|e| e.p99),
                    "max": stage.errors.map(|e| e.max).filter(|m| m.is_finite())}),
                );
            } else if !stage.good || stage.errors.is_some() {
                let number = |f: fn(&Errors) -> f64| {
                    stage
                        .errors
                        .as_ref()
                        .map_or(String::new(), |e| format!("{:.3}", f(e)))
                };
                rows.push(vec![
                    spec.variant(),
                    format!("{:?}", case.lengths),
                    format!("{:?}", case.kv),
                    stage.name.to_owned(),
                    number(|e| e.median),
                    number(|e| e.p99),
                    number(|e| e.max),
                    if stage.good {
                        String::new()
                    } else {
                        format!("WRONG {}", stage.detail)
                    },
                ]);
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let device = &context.device().name;
    if json {
        output::json(
            &json!({"event": "summary", "family": family, "device": device, "cases": count,
            "wrong": wrong, "elapsed_ms": seconds * 1e3}),
        );
    } else {
        output::table(&rows);
        output::line(format!(
            "\nErrors are parts of the tolerance. Partials, sums, residual, codes and scales are held to the bit.\n\
             {device}: {family}: {count} cases, {wrong} wrong, in {seconds:.1} s"
        ));
    }
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

/// Compiles what the cache lacks, on all cores, before the GPU has to wait.
fn prepare(jit: &Jit, context: &Context, family: &str, cases: &[Case]) -> Result<(), Error> {
    let mut specs = Vec::new();
    for case in cases {
        specs.push(spec_of(jit, context, family, case)?);
        if family == "beta_lite" {
            specs.push(spec_of(jit, context, "beta_coop", case)?);
        }
    }
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                jit.prepare(spec)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(prepared) => prepared,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn spec_of(jit: &Jit, context: &Context, family: &str, case: &Case) -> Result<KernelSpec, Error> {
    let device = context.device();
    let numbers = case.shape.map(|n| n.to_string());
    let shape = SHAPE_NAMES.into_iter().zip(numbers.iter().map(String::as_str));
    let set = shape.chain(case.set.iter().copied());
    let arch = Arch::of_device(device.major, device.minor);
    Ok(KernelSpec::new(jit.registry().get(family)?, set, arch)?)
}

/// What came of one stage.
struct Stage {
    name: &'static str,
    good: bool,
    errors: Option<Errors>,
    detail: String,
}

fn near(name: &'static str, actual: &[f32], reference: &[f64], rtol: f64, atol: f64) -> Stage {
    let errors = Errors::of(actual.iter().map(|v| f64::from(*v)), reference, rtol, atol);
    Stage {
        name,
        good: errors.is_within(),
        errors: Some(errors),
        detail: format!(
            "at {}: {} instead of {}",
            errors.worst,
            actual.get(errors.worst).copied().unwrap_or(f32::NAN),
            reference.get(errors.worst).copied().unwrap_or(f64::NAN)
        ),
    }
}

fn exact<T: PartialEq + Copy + std::fmt::Debug>(name: &'static str, actual: &[T], expected: &[T]) -> Stage {
    let first = actual.iter().zip(expected).position(|(a, e)| a != e);
    let good = first.is_none() && actual.len() == expected.len();
    Stage {
        name,
        good,
        errors: None,
        detail: first.map_or(String::new(), |at| {
            format!("at {at}: {:?} instead of {:?}", actual[at], expected[at])
        }),
    }
}

/// What a launch wrote.
#[derive(PartialEq)]
struct Written {
    attn_rows: Vec<u16>,
    wo_output: Vec<u32>,
    summed: Vec<u32>,
    residual_output: Vec<u16>,
    attn_output: Vec<u16>,
    attn_input: Vec<u16>,
    middle: Vec<u16>,
    codes: Vec<u8>,
    code_scales: Vec<u8>,
    mlp_output: Vec<u16>,
}

fn judge(
    jit: &Jit,
    context: &Context,
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    case: &Case,
) -> Result<Vec<Stage>, Error> {
    let [
        hidden,
        intermediate,
        num_q_heads,
        num_kv_heads,
        head_dim,
        page_size,
    ] = case.shape;
    let shape = LayerShape {
        hidden,
        intermediate,
        num_q_heads,
        num_kv_heads,
        head_dim,
        page_size,
    };
    let name = |constant: &str| spec.constants[constant].to_string();
    let layout = if name("scale_layout") == "linear" {
        ScaleLayout::Linear
    } else {
        ScaleLayout::Swizzled
    };
    let mut inputs = LayerInputs::with_layout(&shape, &Lengths(case.lengths.clone()), case.kv, layout, 4242);
    inputs.wo_global = case.global_scale;
    let first = launched(jit, context, stream, spec, &inputs)?;
    let again = launched(jit, context, stream, spec, &inputs)?;
    let split = name("wo_split").parse().unwrap_or(1);
    let mut stages = check(
        &shape,
        &inputs,
        &first,
        split,
        &name("accumulate"),
        name("output_gate") == "true",
    );
    if name("input_norm") == "true" {
        let sum: Vec<f32> = inputs
            .hidden_in
            .iter()
            .zip(&inputs.residual_in)
            .map(|(h, r)| h.to_f32() + r.to_f32())
            .collect();
        let normed = norm_f64(&sum, &inputs.input_gamma, inputs.rms_eps);
        stages.push(near(
            "input norm",
            &floats(&first.attn_input),
            &normed,
            4.2e-3,
            1e-6,
        ));
    }
    stages.push(Stage {
        name: "another run",
        good: first == again,
        errors: None,
        detail: "has other bits".into(),
    });
    if spec.family.name == "beta_lite" {
        let coop = spec_of(jit, context, "beta_coop", case)?;
        let coop = launched(jit, context, stream, &coop, &inputs)?;
        stages.push(Stage {
            name: "beta_coop",
            good: first == coop,
            errors: None,
            detail: "has other bits".into(),
        });
    }
    Ok(stages)
}

fn floats(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|b| bf16::from_bits(*b).to_f32()).collect()
}

/// Every stage, each from what the kernel wrote before it.
fn check(
    shape: &LayerShape,
    inputs: &LayerInputs,
    w: &Written,
    split: usize,
    mode: &str,
    gated: bool,
) -> Vec<Stage> {
    let rows: Vec<bf16> = w.attn_rows.iter().map(|b| bf16::from_bits(*b)).collect();
    let attention = attention_f64(shape, inputs, gated);
    // With equal scores every weight is one and the sum of V exact: two roundings are left.
    let (rtol, atol) = if inputs.query.iter().all(|q| q.to_f32() == 0.0) {
        (3.95e-3, 1e-7)
    } else {
        (1e-2, 1e-2)
    };
    let mut stages = vec![near("attention", &floats(&w.attn_rows), &attention, rtol, atol)];
    let (nat, hidden) = (inputs.nat, shape.hidden);
    let wo_shape = WoShape {
        hidden,
        k: shape.k(),
        num_kv_heads: shape.num_kv_heads,
        wo_split: split,
    };
    let wo = WoInputs {
        attn: rows,
        weight: inputs.wo.codes.clone(),
        scales: inputs.wo.scales.clone(),
        global_scale: inputs.wo_global,
        nat,
    };
    let slots = wo_shape.num_slots();
    let output: Vec<f32> = w.wo_output.iter().map(|b| f32::from_bits(*b)).collect();
    let sums: Vec<f32> = (0..nat)
        .flat_map(|token| output[token * slots * hidden..][..hidden].to_vec())
        .collect();
    if mode == "mma" {
        let reference = matmul_f64(&wo_shape, &wo);
        let largest = reference.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        stages.push(near("W_O", &sums, &reference, 1e-5, largest * 1e-5 + 1e-30));
    } else {
        let expected = split_order(&wo_shape, &wo, mode == "fma");
        let sum = compare(&expected.output, &sums);
        stages.push(Stage {
            name: "W_O",
            good: sum.is_exact(),
            errors: None,
            detail: format!("{} of {} sums differ", sum.mismatches, sum.elements),
        });
        // Slot 0 holds the sum by now; the others are still partials.
        let mut partials = expected.partials;
        for token in 0..nat {
            let at = token * slots * hidden;
            partials[at..at + hidden].copy_from_slice(&sums[token * hidden..][..hidden]);
        }
        let rest = compare(&partials, &output);
        stages.push(Stage {
            name: "partials",
            good: rest.is_exact(),
            errors: None,
            detail: format!("{} of {} differ", rest.mismatches, rest.elements),
        });
    }
    let summed: Vec<f32> = sums
        .iter()
        .zip(&inputs.residual_in)
        .map(|(s, r)| r.to_f32() + s)
        .collect();
    let bits: Vec<u32> = summed.iter().map(|v| v.to_bits()).collect();
    stages.push(exact("residual", &w.summed, &bits));
    let rounded: Vec<u16> = summed.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
    stages.push(exact("residual_output", &w.residual_output, &rounded));
    let normed = norm_f64(&summed, &inputs.post_gamma, inputs.rms_eps);
    stages.push(near("norm", &floats(&w.attn_output), &normed, 4.2e-3, 1e-6));
    let x: Vec<bf16> = w.attn_output.iter().map(|b| bf16::from_bits(*b)).collect();
    let middle = middle_f64(inputs, &x);
    let largest = middle.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    stages.push(near(
        "middle",
        &floats(&w.middle),
        &middle,
        4.5e-3,
        largest * 1e-5 + 1e-30,
    ));
    let own: Vec<bf16> = w.middle.iter().map(|b| bf16::from_bits(*b)).collect();
    let blocks = layer::quantise(&own);
    stages.push(exact("block scales", &w.code_scales, &blocks.scales));
    stages.push(exact("codes", &w.codes, &blocks.codes));
    let result = output_f64(inputs, &layer::dequantise(&blocks));
    let largest = result.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    stages.push(near(
        "output",
        &floats(&w.mlp_output),
        &result,
        4.2e-3,
        largest * 1e-6 + 1e-30,
    ));
    stages
}

/// One launch with outputs poisoned before it.
fn launched(
    jit: &Jit,
    context: &Context,
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    inputs: &LayerInputs,
) -> Result<Written, Error> {
    let layer = Layer::new(spec, jit.load(spec, context)?)?;
    run_once(&layer, stream, inputs).map_err(Error::from)
}

fn run_once(
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
        query: tensor(stream, &query, Dtype::Bf16, &[nat, d.num_q_heads, d.head_dim]),
        kv_cache: tensor(
            stream,
            &kv_cache,
            Dtype::U8,
            &[pages, 2, d.page_size, d.num_kv_heads, d.head_dim],
        ),
        page_table: tensor(stream, &page_table, Dtype::I32, &[nat, inputs.max_pages]),
        seq_lens: tensor(stream, &seq_lens, Dtype::I32, &[nat]),
        gate: Some(tensor(stream, &gate, Dtype::Bf16, &[nat, d.k()])),
        wo_weight: tensor(stream, &wo.0, Dtype::U8, &[d.hidden, d.k() / 2]),
        wo_scales: tensor(stream, &wo.1, Dtype::U8, &[inputs.wo.scales.len()]),
        wo_global_scale: tensor(stream, &wo_global, Dtype::F32, &[1]),
        hidden_in: Some(tensor(stream, &hidden_in, Dtype::Bf16, &[nat, d.hidden])),
        residual_in: tensor(stream, &residual_in, Dtype::Bf16, &[nat, d.hidden]),
        input_gamma: Some(tensor(stream, &input_gamma, Dtype::Bf16, &[d.hidden])),
        post_attn_gamma: tensor(stream, &post_gamma, Dtype::Bf16, &[d.hidden]),
        gate_weight: tensor(stream, &gate_proj.0, Dtype::U8, &[d.intermediate, d.hidden / 2]),
        gate_scales: tensor(stream, &gate_proj.1, Dtype::U8, &[inputs.gate_proj.scales.len()]),
        up_weight: tensor(stream, &up_proj.0, Dtype::U8, &[d.intermediate, d.hidden / 2]),
        up_scales: tensor(stream, &up_proj.1, Dtype::U8, &[inputs.up_proj.scales.len()]),
        down_weight: tensor(stream, &down_proj.0, Dtype::U8, &[d.hidden, d.intermediate / 2]),
        down_scales: tensor(stream, &down_proj.1, Dtype::U8, &[inputs.down_proj.scales.len()]),
        attn_input: Some(tensor(stream, &attn_input, Dtype::Bf16, &[nat, d.hidden])),
        attn_output: tensor(stream, &attn_output, Dtype::Bf16, &[nat, d.hidden]),
        residual_output: tensor(stream, &residual_output, Dtype::Bf16, &[nat, d.hidden]),
        mlp_output: tensor(stream, &mlp_output, Dtype::Bf16, &[nat, d.hidden]),
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

fn tensor<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    slice: &CudaSlice<T>,
    dtype: Dtype,
    shape: &[usize],
) -> Tensor {
    Tensor::new(slice.device_ptr(stream).0, dtype, shape)
}
