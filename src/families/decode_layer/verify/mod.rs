//! The decode layer verified on a GPU: every stage against its reference.
//!
//! Invariant: what was asked is validated before a GPU is looked for; nothing is printed.

mod buffers;
mod cases;
mod soak;
mod stages;

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::CudaStream;
use serde_json::{Value, json};

use super::reference::{self, Errors, LayerInputs, LayerShape, norm_f64};
use super::{FAMILY, Launch, Layer, LayerConfig, LayerDims, Written, launches, with_launch};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::Registry;
use crate::engine::run::device::Context;
use crate::measure::MeasureError;
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};

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

/// What verifying the layer takes.
pub const FLAGS: &[Flag] = &[
    Flag::switch("quick", "The small odd shapes only"),
    Flag::new(
        "launch",
        "NAME",
        None,
        "Of the decode layer: cooperative or separate [default: both]",
    ),
    Flag::new(
        "soak",
        "LAUNCHES",
        None,
        "Of the decode layer: this many random launches instead, and replays of a graph",
    ),
    Flag::new(
        "streams",
        "COUNT",
        Some("4"),
        "Streams that a soak launches on at once",
    ),
    Flag::new("device", "ORDINAL", Some("0"), "Which GPU, in the driver's order"),
];

/// Many random launches, instead of the cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soak {
    /// Launches, over all streams; at least one.
    pub launches: usize,
    /// Streams at once, 1 to 64.
    pub streams: usize,
}

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    /// How the layer is launched, one after another.
    pub launches: Vec<Launch>,
    /// The small odd shapes alone; of a soak, the small shape.
    pub quick: bool,
    /// Launches instead of the cases.
    pub soak: Option<Soak>,
    /// Which GPU, in the driver's order.
    pub device: u32,
}

impl VerifyRequest {
    /// Reads options of a name of the family; needs no GPU.
    pub fn new(registry: &Registry, name: &str, options: &Options) -> Result<Self, MeasureError> {
        let count = options.count("soak")?;
        if options.is_given("streams") && count.is_none() {
            return Err(MeasureError::Request(
                "--streams: of use with --soak alone".into(),
            ));
        }
        let streams = options.number("streams", 1..=64)?.unwrap_or(1);
        Ok(Self {
            launches: launches(registry, name, options.text("launch"))?,
            quick: options.is_given("quick"),
            soak: count.map(|launches| Soak { launches, streams }),
            device: options.number("device", 0..=u32::MAX)?.unwrap_or(0),
        })
    }
}

/// Holds every stage of every case to its reference, or soaks. Tells a `stage` object a
/// stage and a `summary`; of a soak, a `replays` and a `soak` object.
pub fn verify(jit: &Jit, request: &VerifyRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    jit.registry().get(FAMILY)?;
    let context = Context::new(request.device)?;
    let mut wrong = 0;
    for launch in request.launches.iter().copied() {
        wrong += match request.soak {
            Some(soak) => soak::run(jit, &context, launch, request.quick, soak, sink)?,
            None => all_cases(jit, &context, launch, request.quick, sink)?,
        };
    }
    Ok(Verdict::of(wrong))
}

fn all_cases(
    jit: &Jit,
    context: &Context,
    launch: Launch,
    quick: bool,
    sink: &mut Sink<'_>,
) -> Result<usize, MeasureError> {
    let (way, started) = (launch.name(), Instant::now());
    let stream = context.cuda().default_stream();
    let (mut count, mut wrong) = (0, 0);
    prepare(jit, context, launch, &cases(launch, quick))?;
    let titles = [
        "variant", "lengths", "inputs", "stage", "median", "p99", "max", "",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for case in cases(launch, quick) {
        let spec = spec_of(jit, context, launch, &case)?;
        let stages = judge(jit, context, &stream, &spec, &case)?;
        count += 1;
        wrong += usize::from(stages.iter().any(|s| !s.good));
        for stage in &stages {
            let mut value = json!({"event": "stage", "family": FAMILY, "launch": way, "variant": spec.variant(),
                "lengths": case.lengths, "inputs": format!("{:?}", case.kv)});
            if let (Value::Object(all), Value::Object(own)) = (&mut value, stage.json()) {
                all.extend(own);
            }
            sink(Event::Object(value));
            if !stage.good || stage.errors.is_some() {
                rows.push(row(&spec, &case, stage));
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let device = &context.device().name;
    sink(Event::Object(
        json!({"event": "summary", "family": FAMILY, "launch": way, "device": device, "cases": count,
        "wrong": wrong, "elapsed_ms": seconds * 1e3}),
    ));
    sink(Event::Table(rows));
    sink(Event::Line(format!(
        "\nErrors are parts of the tolerance. Partials, sums, residual, codes and scales are compared bit for bit.\n\
         {device}: {FAMILY}, {way}: {count} cases, {wrong} wrong, in {seconds:.1} s"
    )));
    Ok(wrong)
}

fn row(spec: &KernelSpec, case: &Case, stage: &Stage) -> Vec<String> {
    let number = |f: fn(&Errors) -> f64| {
        let errors = stage.errors.as_ref();
        errors.map_or(String::new(), |e| format!("{:.3}", f(e)))
    };
    vec![
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
    ]
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
fn prepare(jit: &Jit, context: &Context, launch: Launch, cases: &[Case]) -> Result<(), MeasureError> {
    let mut specs = Vec::new();
    for case in cases {
        let spec = spec_of(jit, context, launch, case)?;
        if launch == Launch::Separate {
            specs.push(with_launch(&spec, Launch::Cooperative)?);
        }
        specs.push(spec);
    }
    Ok(jit.prepare_each(specs.iter())?)
}

fn spec_of(jit: &Jit, context: &Context, launch: Launch, case: &Case) -> Result<KernelSpec, MeasureError> {
    let device = context.device();
    let numbers = case.shape.map(|n| n.to_string());
    let shape = SHAPE_NAMES.into_iter().zip(numbers.iter().map(String::as_str));
    let set = shape
        .chain(case.set.iter().copied())
        .chain([("launch", launch.name())]);
    let arch = device.arch();
    Ok(KernelSpec::new(jit.registry().get(FAMILY)?, set, arch)?)
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
    let name = |constant: &str| spec.constants()[constant].to_string();
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
    if LayerConfig::try_from(spec)?.launch == Launch::Separate {
        let coop = with_launch(spec, Launch::Cooperative)?;
        let coop = launched(jit, context, stream, &coop, &inputs)?;
        stages.push(Stage {
            name: "one cooperative launch",
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
