//! The search for a layer's fastest geometry on a GPU.
//!
//! Invariant: every stage of a candidate passed its reference before it is timed,
//! and the weights and caches of its launches take turns, so that none lie in L2; a
//! record is written only after every candidate of its problem was timed.

use serde_json::json;

use super::super::copies::{self, Copies};
use super::super::reference::Kv;
use super::super::verify::gate;
use super::super::{Layer, LayerConfig};
use super::{layer_space, set_geometry};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::device::{Context, Device};
use crate::engine::run::occupancy::known_device;
use crate::measure::MeasureError;
use crate::measure::bench::{DRY_RUN, SPACE, TOKENS};
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::timing::{Method, Plan, Summary, sample};
use crate::measure::tune::{
    Geometry, Gpu, Problem, Record, Space, Winner, empty_search_space, geometry_text, keep_faster, read_space,
};

/// What tuning the layer takes.
pub const FLAGS: &[Flag] = &[
    SPACE,
    DRY_RUN,
    Flag::new(
        "context",
        "POSITIONS",
        Some("4096"),
        "Of a decode layer: the length of every sequence",
    ),
    TOKENS,
    Flag::new("launches", "COUNT", Some("50"), "Samples"),
    Flag::switch(
        "cold",
        "Another set of weights each launch, so that none lies in L2 [the default]",
    ),
];

/// What is to be tuned; which problems, the settings of the [`Jit`] say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TuneRequest<'a> {
    /// A name of the family; a former one stands for a `launch`.
    pub family: &'a str,
    /// Values to try in place of the declared ones.
    pub space: Space,
    /// Candidates are listed, and none is timed; takes no GPU.
    pub dry_run: bool,
    /// Tokens of a launch, a problem each.
    pub tokens: Vec<u32>,
    /// Positions of every sequence.
    pub context: usize,
    /// Samples of a candidate.
    pub samples: usize,
}

impl<'a> TuneRequest<'a> {
    /// Reads options; needs no GPU.
    pub fn new(jit: &Jit, family: &'a str, options: &Options) -> Result<Self, MeasureError> {
        Ok(Self {
            family,
            space: read_space(jit.registry().named(family)?.family(), options.all(SPACE.name))?,
            dry_run: options.is_given(DRY_RUN.name),
            tokens: read_tokens(options)?,
            context: options.count("context")?.unwrap_or(4096),
            samples: options.count("launches")?.unwrap_or(50),
        })
    }
}

/// Times every candidate of every problem, and keeps the fastest of each beside the
/// cache. Tells a `candidate` object a candidate.
pub fn tune(jit: &Jit, request: &TuneRequest<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let family = request.family;
    jit.registry().check_constants(&[family], jit.config())?;
    // What is not legal is refused here, not once a GPU was found.
    if let Some(device) = known_device("h200") {
        problems(jit, &device, request)?;
    }
    let context = if request.dry_run {
        None
    } else {
        Some(Context::new(0)?)
    };
    let here = context.as_ref().map(|c| c.device().clone());
    // Candidates follow from the number of multiprocessors.
    let device = (here.or_else(|| known_device("h200")))
        .ok_or_else(|| MeasureError::Request("no GPU to list candidates for".into()))?;
    let mut untuned = 0;
    for (base, problem) in problems(jit, &device, request)? {
        let candidates = candidates(jit, &request.space, &device, &base, &problem);
        if candidates.is_empty() {
            return Err(empty_search_space(&format!("{family} tokens={}", problem.tokens)));
        }
        let Some(context) = &context else {
            for (_, geometry) in &candidates {
                say(sink, &problem, geometry, None);
            }
            continue;
        };
        let path = Record::beside_cache(jit)?;
        jit.prepare_each(candidates.iter().map(|(spec, _)| spec))?;
        let Some(winner) = best(jit, context, request, &problem, &candidates, sink)? else {
            untuned += 1;
            sink(Event::Failure(format!(
                "{family} tokens={}: no candidate passed",
                problem.tokens
            )));
            continue;
        };
        Record::keep(&path, jit.registry(), winner)?;
    }
    Ok(Verdict::of(untuned))
}

/// What is worked out, once for every number of tokens of a launch.
fn problems(
    jit: &Jit,
    device: &Device,
    TuneRequest { family, tokens, .. }: &TuneRequest<'_>,
) -> Result<Vec<(KernelSpec, Problem)>, MeasureError> {
    let family = jit.registry().named(family)?;
    let arch = device.arch();
    let mut problems: Vec<(KernelSpec, Problem)> = Vec::new();
    for spec in KernelSpec::expand(&family, jit.config(), &[arch])? {
        for tokens in tokens.iter().copied() {
            let problem = Problem::of_layer(&spec, tokens);
            match problems.iter().find(|(_, other)| *other == problem) {
                None => problems.push((spec.clone(), problem)),
                Some((first, _)) => one_value_each(first, &spec)?,
            }
        }
    }
    Ok(problems)
}

/// Refuses two specs of one problem: what lays a layer out is fixed by one value, or
/// tried by `--space`.
fn one_value_each(first: &KernelSpec, other: &KernelSpec) -> Result<(), MeasureError> {
    let several = (first.constants().iter()).find(|(name, value)| {
        // `--tokens` is a list of launches.
        *name != "tokens_per_pass" && other.constants().get(*name) != Some(value)
    });
    let Some((name, value)) = several else {
        return Ok(());
    };
    let second = &other.constants()[name];
    Err(MeasureError::Request(format!(
        "{name} = {value},{second}: one value fixes it; --space {name}={value},{second} tries both"
    )))
}

fn read_tokens(options: &Options) -> Result<Vec<u32>, MeasureError> {
    let list = options.text(TOKENS.name).unwrap_or("1");
    list.split(',')
        .map(|text| match text.trim().parse() {
            Ok(0) | Err(_) => Err(MeasureError::Request(format!(
                "--tokens {list}: expected numbers of tokens, such as 1,4"
            ))),
            Ok(tokens) => Ok(tokens),
        })
        .collect()
}

/// Geometries that the family allows and the GPU has shared memory for; constants
/// that somebody set are as they were set.
fn candidates(
    jit: &Jit,
    space: &Space,
    device: &Device,
    base: &KernelSpec,
    problem: &Problem,
) -> Vec<(KernelSpec, Geometry)> {
    let set = set_geometry(jit.config(), base.family());
    let mut all: Vec<(KernelSpec, Geometry)> = Vec::new();
    for declared in layer_space(&Gpu::from(device), problem) {
        for mut geometry in product(declared, space) {
            geometry.retain(|name, _| name == "tokens_per_pass" || !set.contains(&name.as_str()));
            let spec = base.with(geometry.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let Ok(spec) = spec else { continue };
            let fits = LayerConfig::try_from(&spec)
                .is_ok_and(|config| config.shared_bytes <= device.shared_mem_per_block);
            if fits && all.iter().all(|(_, other)| *other != geometry) {
                all.push((spec, geometry));
            }
        }
    }
    all
}

/// A geometry with every value of the lists in the place of its own.
fn product(geometry: Geometry, lists: &Space) -> Vec<Geometry> {
    let mut all = vec![geometry];
    for (name, values) in lists {
        let with = |geometry: &Geometry, value: &String| {
            let mut geometry = geometry.clone();
            geometry.insert(name.clone(), value.clone());
            geometry
        };
        all = (values.iter())
            .flat_map(|value| all.iter().map(move |geometry| with(geometry, value)))
            .collect();
    }
    all
}

fn best(
    jit: &Jit,
    context: &Context,
    request: &TuneRequest<'_>,
    problem: &Problem,
    candidates: &[(KernelSpec, Geometry)],
    sink: &mut Sink<'_>,
) -> Result<Option<Winner>, MeasureError> {
    let Some((first, _)) = candidates.first() else {
        return Ok(None);
    };
    let lengths = vec![request.context; problem.tokens as usize];
    let mut most = Layer::new(first, jit.load(first, context)?)?.dims().to_owned();
    most.slots = most.num_kv_heads * 8;
    most.num_ctas = 1024;
    let inputs = most.inputs(&lengths, Kv::Random, 4242);
    let copies = Copies::new(context, &most, &inputs)?;
    let (mut winner, mut tried) = (None::<Winner>, 0);
    for (spec, geometry) in candidates {
        if let Some(reason) = gate(jit, context, spec, lengths.clone())?.wrong() {
            sink(Event::Failure(format!("{}: not timed: {reason}", spec.variant())));
            continue;
        }
        let layer = Layer::new(spec, jit.load(spec, context)?)?;
        let median = time(&copies, context, &layer, problem.tokens, request.samples)?;
        tried += 1;
        say(sink, problem, geometry, Some(median));
        let found = Winner {
            gpu: Gpu::from(context.device()),
            problem: problem.clone(),
            geometry: geometry.clone(),
            median_us: median,
            tried,
            policy: None,
        };
        keep_faster(&mut winner, found);
    }
    if let Some(winner) = &mut winner {
        winner.tried = tried;
        sink(Event::Line(format!(
            "{} tokens={}: {} of {tried}, {:.1} us",
            problem.family,
            problem.tokens,
            geometry_text(&winner.geometry),
            winner.median_us
        )));
    }
    Ok(winner)
}

/// Median, microseconds a launch.
fn time(
    copies: &Copies,
    context: &Context,
    layer: &Layer,
    num_tokens: u32,
    samples: usize,
) -> Result<f64, MeasureError> {
    let bound = copies.bind(layer)?;
    let plan = Plan {
        method: Method::Graph,
        launches_per_graph: 2 * bound.len(),
        warmups: 3,
        samples,
    };
    let samples = sample(context, &plan, &mut |at, stream| {
        Ok::<_, MeasureError>(copies::launch(&bound, at, num_tokens, stream)?)
    })?;
    Ok(Summary::of(&samples).map_or(f64::NAN, |s| s.median))
}

fn say(sink: &mut Sink<'_>, problem: &Problem, geometry: &Geometry, median_us: Option<f64>) {
    sink(Event::Object(
        json!({"event": "candidate", "family": problem.family,
        "problem": problem.constants, "tokens": problem.tokens, "constants": geometry,
        "median_us": median_us}),
    ));
    let median = median_us.map_or(String::new(), |us| format!("{us:8.1} us  "));
    sink(Event::Line(format!(
        "{median}{} tokens={}  {}",
        problem.family,
        problem.tokens,
        geometry_text(geometry)
    )));
}
