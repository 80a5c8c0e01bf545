//! The search for `wo_gemv`'s fastest geometry on a GPU.
//!
//! Invariant: only a geometry that the gate lets through is timed, and a record is
//! written only after every candidate of its problem was.

use std::sync::Arc;

use serde_json::json;

use super::FAMILY;
use super::bench::{Inputs, WoSession};
use super::config::LaunchGeometry;
use super::geometry::space;
use super::request::{GLOBAL_SCALE, WoRequest, WoVariant};
use crate::engine::jit::Jit;
use crate::engine::request::target::Arch;
use crate::engine::request::template::Family;
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchOptions};
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::tune::{
    Choice, Geometry, Origin, Record, Space, Winner, empty_search_space, geometry_text, keep_faster,
    read_space,
};

/// What tuning `wo_gemv` takes.
pub const FLAGS: &[Flag] = &[
    bench::SPACE,
    bench::DRY_RUN,
    bench::METHOD,
    bench::COLD,
    bench::WARM,
    bench::LAUNCHES,
    bench::SEED,
    bench::TOKENS,
    GLOBAL_SCALE,
];

/// What is to be tuned.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TuneRequest {
    /// Shape, variants and tokens; of the global scales the first.
    pub wo: WoRequest,
    /// Values to try in place of the declared ones.
    pub space: Space,
    /// Candidates are listed, and none is timed; takes no GPU.
    pub dry_run: bool,
    /// How to launch, and how often.
    pub options: BenchOptions,
}

impl TuneRequest {
    /// Reads options and constants; needs no GPU.
    ///
    /// # Errors
    /// What is not legal or has nothing to tune, with where it was written.
    pub fn new(jit: &Jit, options: &Options) -> Result<Self, MeasureError> {
        let wo = WoRequest::new(jit, options)?;
        let space = read_space(jit.registry().get(FAMILY)?, options.all(bench::SPACE.name))?;
        if wo.variants.iter().any(|v| v.geometry != LaunchGeometry::Tiled) {
            return Err(MeasureError::Request(
                "geometry: only `tiled` has anything to tune; that of `original` is fixed".into(),
            ));
        }
        Ok(Self {
            wo,
            space,
            dry_run: options.is_given(bench::DRY_RUN.name),
            options: BenchOptions::read(options)?,
        })
    }

    /// Every variant at every number of tokens, with the candidates that the family
    /// allows. That does not depend on the arch, so no GPU is needed.
    fn problems(&self, jit: &Jit) -> Result<Vec<Problem<'_>>, MeasureError> {
        let family = jit.registry().get(FAMILY)?;
        let mut problems = Vec::new();
        for variant in &self.wo.variants {
            for num_tokens in &self.wo.tokens {
                let problem = Problem {
                    variant,
                    num_tokens: *num_tokens,
                    candidates: self.candidates(family, variant, *num_tokens),
                };
                if problem.candidates.is_empty() {
                    return Err(empty_search_space(&problem.label()));
                }
                problems.push(problem);
            }
        }
        Ok(problems)
    }

    fn candidates(&self, family: &Arc<Family>, variant: &WoVariant, num_tokens: usize) -> Vec<Geometry> {
        let allowed = |geometry: &Geometry| {
            geometry.keys().all(|name| family.constants.contains_key(name))
                && (self.wo)
                    .spec(family, variant, geometry, Arch::DEFAULTS[0])
                    .is_ok()
        };
        let mut all = space(
            self.wo.format(),
            variant.accumulate.name(),
            num_tokens,
            &self.space,
        );
        all.retain(allowed);
        all
    }
}

/// A variant at a number of tokens.
struct Problem<'a> {
    variant: &'a WoVariant,
    num_tokens: usize,
    candidates: Vec<Geometry>,
}

impl Problem<'_> {
    fn label(&self) -> String {
        let variant = self.variant;
        format!(
            "wo_split={} {} tokens={}",
            variant.wo_split, variant.accumulate, self.num_tokens
        )
    }
}

/// Times every candidate of every problem, and keeps the fastest of each beside the
/// cache. Tells a `candidate` object a candidate.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making, launching and timing, and of
/// the record.
pub fn tune(jit: &Jit, request: &TuneRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let problems = request.problems(jit)?;
    if request.dry_run {
        for problem in &problems {
            for geometry in &problem.candidates {
                tell(request, problem, geometry, None, sink);
            }
        }
        return Ok(Verdict::Good);
    }
    let path = Record::beside_cache(jit)?;
    let session = WoSession::open(jit, &request.wo, &request.options)?;
    let gs = request.wo.global_scales.first().copied().unwrap_or(1.0);
    let mut inputs = session.inputs(&request.wo.variants, gs)?;
    let mut untuned = 0;
    for problem in &problems {
        let Some(winner) = best(&session, request, problem, &mut inputs, sink)? else {
            untuned += 1;
            let label = problem.label();
            sink(Event::Failure(format!("{label}: no candidate passed the gate")));
            continue;
        };
        Record::keep(&path, jit.registry(), winner)?;
    }
    sink(Event::Line(format!("kept in {}", path.display())));
    Ok(Verdict::of(untuned))
}

/// Measures the candidates of one problem.
fn best(
    session: &WoSession<'_>,
    request: &TuneRequest,
    asked: &Problem<'_>,
    inputs: &mut Inputs,
    sink: &mut Sink<'_>,
) -> Result<Option<Winner>, MeasureError> {
    let problem = request.wo.problem(asked.variant, asked.num_tokens);
    let (mut winner, mut floor, mut tried) = (None::<Winner>, f64::NAN, 0);
    for geometry in &asked.candidates {
        let choice = Choice {
            origin: Origin::Forced,
            geometry: geometry.clone(),
        };
        let measured = session.one(asked.variant, asked.num_tokens, choice, inputs, sink)?;
        let Some(summary) = measured.timed.summary else {
            continue;
        };
        (floor, tried) = (measured.timed.floor, tried + 1);
        tell(request, asked, geometry, Some(summary.median), sink);
        let found = Winner {
            gpu: session.session.gpu(),
            problem: problem.clone(),
            geometry: measured.choice.geometry,
            median_us: summary.median,
            tried,
            policy: None,
        };
        keep_faster(&mut winner, found);
    }
    if let Some(winner) = &mut winner {
        winner.tried = tried;
        sink(Event::Line(format!(
            "{}: {} of {tried}, {:.2} us, {:.2} x streaming",
            asked.label(),
            geometry_text(&winner.geometry),
            winner.median_us,
            winner.median_us / floor
        )));
    }
    Ok(winner)
}

fn tell(
    request: &TuneRequest,
    asked: &Problem<'_>,
    geometry: &Geometry,
    median_us: Option<f64>,
    sink: &mut Sink<'_>,
) {
    let (constants, num_tokens) = (
        request.wo.problem(asked.variant, asked.num_tokens).constants,
        asked.num_tokens,
    );
    let median = median_us.map_or(String::new(), |us| format!("{us:8.2} us  "));
    let problem = ["wo_split", "accumulate"].map(|n| format!("{n}={}", constants[n]));
    sink(Event::Object(
        json!({"event": "candidate", "problem": constants, "tokens": num_tokens,
        "constants": geometry, "median_us": median_us}),
    ));
    sink(Event::Line(format!(
        "{median}{} tokens={num_tokens}  {}",
        problem.join(" "),
        geometry_text(geometry)
    )));
}
