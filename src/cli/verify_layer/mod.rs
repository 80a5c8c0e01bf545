//! `jitc verify beta_coop` and `beta_lite`: runs the decode layer on a GPU and
//! holds every stage to its reference.

mod buffers;
mod cases;
mod soak;
mod stages;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::CudaStream;
use serde_json::{Value, json};

use super::{Answer, output};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::engine::run::device::Context;
use crate::families::decode_layer::reference::{self, Errors, LayerInputs, LayerShape, norm_f64};
use crate::families::decode_layer::{Layer, LayerDims, Written};
use crate::measure::MeasureError;

use buffers::run_once;
use cases::{Case, cases};
use stages::{Stage, check, floats, near};

const SHAPE_NAMES: [&str; 6] = [
    "hidden",
    "intermediate",
    "num_q_heads",
    "num_kv_heads",
    "head_dim",
    "page_size",
];

/// `soak`: launches and streams, instead of the cases.
pub(super) fn run(
    jit: &Jit,
    context: &Context,
    family: &str,
    quick: bool,
    soak: Option<(usize, usize)>,
    json: bool,
) -> Answer {
    if let Some((launches, streams)) = soak {
        let request = soak::Request {
            family,
            small: quick,
            launches,
            streams,
        };
        let differing = soak::run(jit, context, request, json)?;
        return Ok(ExitCode::from(u8::from(differing > 0)));
    }
    let started = Instant::now();
    let stream = context.cuda().default_stream();
    let (mut count, mut wrong) = (0, 0);
    prepare(jit, context, family, &cases(family, quick))?;
    let mut rows = vec![
        [
            "variant", "lengths", "inputs", "stage", "median", "p99", "max", "",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for case in cases(family, quick) {
        let spec = spec_of(jit, context, family, &case)?;
        let stages = judge(jit, context, &stream, &spec, &case)?;
        count += 1;
        wrong += usize::from(stages.iter().any(|s| !s.good));
        for stage in &stages {
            if json {
                let mut value = json!({"event": "stage", "family": family, "variant": spec.variant(),
                    "lengths": case.lengths, "inputs": format!("{:?}", case.kv)});
                if let (Value::Object(all), Value::Object(own)) = (&mut value, stage.json()) {
                    all.extend(own);
                }
                output::json(&value);
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

/// What the references said of a variant, stage by stage.
pub(super) struct Gate(Vec<Stage>);

impl Gate {
    /// The first stage that is wrong, and how.
    pub(super) fn wrong(&self) -> Option<String> {
        let stage = self.0.iter().find(|stage| !stage.good)?;
        Some(format!("{}: {}", stage.name, stage.detail))
    }

    pub(super) fn passes(&self) -> bool {
        self.wrong().is_none()
    }

    pub(super) fn stages(&self) -> Vec<Value> {
        self.0.iter().map(Stage::json).collect()
    }
}

/// Holds a variant to the references, for sequences of these lengths.
pub(super) fn gate(
    jit: &Jit,
    context: &Context,
    spec: &KernelSpec,
    lengths: Vec<usize>,
) -> Result<Gate, MeasureError> {
    let case = Case {
        shape: SHAPE_NAMES.map(|name| spec.number(name).unwrap_or(0) as usize),
        set: Vec::new(),
        lengths,
        kv: reference::Kv::Random,
        global_scale: 0.0123,
    };
    judge(jit, context, &context.cuda().default_stream(), spec, &case).map(Gate)
}

/// Compiles what the cache lacks, on all cores, before the GPU has to wait.
fn prepare(jit: &Jit, context: &Context, family: &str, cases: &[Case]) -> Result<(), MeasureError> {
    let mut specs = Vec::new();
    for case in cases {
        specs.push(spec_of(jit, context, family, case)?);
        if family == "beta_lite" {
            specs.push(spec_of(jit, context, "beta_coop", case)?);
        }
    }
    Ok(jit.prepare_each(specs.iter())?)
}

fn spec_of(jit: &Jit, context: &Context, family: &str, case: &Case) -> Result<KernelSpec, MeasureError> {
    let device = context.device();
    let numbers = case.shape.map(|n| n.to_string());
    let shape = SHAPE_NAMES.into_iter().zip(numbers.iter().map(String::as_str));
    let set = shape.chain(case.set.iter().copied());
    let arch = Arch::of_device(device.major, device.minor);
    Ok(KernelSpec::new(jit.registry().get(family)?, set, arch)?)
}

fn judge(
    jit: &Jit,
    context: &Context,
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    case: &Case,
) -> Result<Vec<Stage>, MeasureError> {
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
    let mut inputs = LayerDims::of(spec)?.inputs(&case.lengths, case.kv, 4242);
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
        let texts: Vec<(&String, String)> = spec.constants.iter().map(|(n, v)| (n, v.to_string())).collect();
        let set = texts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let coop = KernelSpec::new(jit.registry().get("beta_coop")?, set, spec.arch)?;
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

fn launched(
    jit: &Jit,
    context: &Context,
    stream: &Arc<CudaStream>,
    spec: &KernelSpec,
    inputs: &LayerInputs,
) -> Result<Written, MeasureError> {
    let layer = Layer::new(spec, jit.load(spec, context)?)?;
    Ok(run_once(&layer, stream, inputs)?)
}
