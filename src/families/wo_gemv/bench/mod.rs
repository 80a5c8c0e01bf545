//! `wo_gemv` benchmarked: right first, timed second, beside the floor of the same run.
//!
//! Invariant: what was asked is validated before a GPU is looked for; nothing is printed.

mod buffers;
mod files;
mod gate;
mod models;
mod report;
mod session;
mod under_ncu;

use super::FAMILY;
use super::geometry::{heuristic, space};
use super::request::{GLOBAL_SCALE, WoRequest, WoVariant};
use crate::engine::jit::Jit;
use crate::engine::request::target::Arch;
use crate::engine::run::occupancy::known_device;
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchOptions};
use crate::measure::harness::{Flag, Options, Sink, Verdict};
use crate::measure::models::MODELS;
use crate::measure::run_files;
use crate::measure::tune::{Geometry, Gpu};

pub(super) use session::{Inputs, WoSession};

/// What benchmarking `wo_gemv` takes.
pub const FLAGS: &[Flag] = &[
    bench::METHOD,
    bench::COLD,
    bench::WARM,
    bench::LAUNCHES,
    bench::SEED,
    bench::TOKENS,
    GLOBAL_SCALE,
    bench::OUT,
    Flag::switch(
        "ncu",
        "Run again under ncu, a launch a variant, and add what the counters say",
    ),
    Flag::switch(
        "models",
        "Over the shapes of twelve public models, at every split unless --wo-split says which",
    ),
    Flag::unlisted_switch("under-ncu"),
];

/// What is to be benchmarked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BenchRequest {
    /// Shape, variants, tokens and global scales.
    pub wo: WoRequest,
    /// How to launch, how often, and where files go.
    pub options: BenchOptions,
    /// Whether each variant runs once more under ncu. This program has to be `jitc`.
    pub ncu: bool,
    /// Whether this is that run: a launch a variant, and nothing else.
    pub under_ncu: bool,
    /// Whether the shapes of [`MODELS`] are measured, one after the other.
    pub models: bool,
}

impl BenchRequest {
    /// Reads options and constants; needs no GPU.
    ///
    /// # Errors
    /// What is not legal or cannot be measured, with where it was written.
    pub fn new(jit: &Jit, options: &Options) -> Result<Self, MeasureError> {
        let mut wo = WoRequest::new(jit, options)?;
        let models = options.is_given("models");
        let mut shapes = vec![wo.clone()];
        if models {
            if options.is_given("ncu") {
                return Err(MeasureError::Request(
                    "--models: cannot be used with --ncu".into(),
                ));
            }
            wo.over_models(jit)?;
            shapes = MODELS.iter().map(|model| wo.of_model(model)).collect();
        }
        for shape in &shapes {
            for variant in &shape.variants {
                legal_somehow(jit, shape, variant)?;
            }
        }
        Ok(Self {
            wo,
            options: BenchOptions::read(options)?,
            ncu: options.is_given("ncu"),
            under_ncu: options.is_given("under-ncu"),
            models,
        })
    }
}

/// Refuses a variant that no geometry makes legal: not the one that was set, or, where
/// none was, not the default one, nor one by rule, nor any that there is to try.
fn legal_somehow(jit: &Jit, wo: &WoRequest, variant: &WoVariant) -> Result<(), MeasureError> {
    let family = jit.registry().get(FAMILY)?;
    let legal = |geometry: &Geometry| wo.spec(family, variant, geometry, Arch::DEFAULTS[0]);
    let Err(reason) = legal(&wo.forced) else {
        return Ok(());
    };
    let mut others = Vec::new();
    if wo.forced.is_empty() {
        // Of the GPUs that are known none has more room for a block.
        let large = known_device("h200").map(|device| Gpu::from(&device));
        let problem = wo.problem(variant, 1);
        others.extend(large.map(|gpu| heuristic(&gpu, &problem)));
        others.extend(space(wo.format(), variant.accumulate.name(), 1, &[]));
    }
    if others.iter().any(|geometry| legal(geometry).is_ok()) {
        return Ok(());
    }
    Err(reason.into())
}

/// Holds every variant to the reference, then times it. Tells a `variant` object a
/// variant; writes files where the options name a folder.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making, launching and timing, and of
/// the files.
pub fn bench(jit: &Jit, request: &BenchRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    if request.models {
        return models::bench(jit, request, sink);
    }
    let mut run = WoSession::open(jit, &request.wo, &request.options)?;
    run.ncu = request.ncu;
    if request.under_ncu {
        under_ncu::child(&run)?;
        return Ok(Verdict::Good);
    }
    let all = run.every(sink)?;
    let summary = report::tell(&run, &all, sink);
    if let Some(out) = &run.out {
        run_files::write_json(out, "summary.json", &summary)?;
        run_files::write(out, "plot.svg", &report::picture(&run, &all))?;
    }
    Ok(Verdict::of(all.iter().filter(|m| !m.timed.passes).count()))
}
