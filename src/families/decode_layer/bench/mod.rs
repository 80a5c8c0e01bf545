//! The decode layer benchmarked: as one cooperative launch, as ordinary launches, and as
//! separate kernels, beside the time to stream as many bytes.
//!
//! Invariant: every variant that is timed is held to the references first, and every
//! point to the bits of a second launch and of the other path; what is refused is not
//! timed. Of `kernels` that is attention: its GEMVs have their gates elsewhere.

mod own_kernels;
mod record;
mod report;
mod request;
mod sets;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::reference::Kv;
use super::verify::{self, Gate};
use super::{Layer, LayerConfig, LayerGeometry, copies};
use crate::engine::jit::Jit;
use crate::engine::request::spec::{KernelSpec, SpecId};
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchSession, Timed};
use crate::measure::harness::{Event, Flag, Sink, Verdict};
use crate::measure::run_files;
use crate::measure::timing::{Plan, Summary, sample};

use own_kernels::{Kernels, OwnKernels};
use record::{At, Bits};
pub use request::{BenchPath, LayerBenchRequest};
use request::{Variant, variants};
use sets::Sets;

/// What benchmarking the layer takes.
pub const FLAGS: &[Flag] = &[
    bench::METHOD,
    bench::COLD,
    bench::LAUNCHES,
    bench::SEED,
    bench::OUT,
    request::CONTEXT,
    bench::TOKENS,
    request::PATH,
];

/// Positions of the sequence over which a variant is held to the references.
const GATE_LENGTH: usize = 257;

/// Launches of a graph, or more where more copies take turns.
const PER_GRAPH: usize = 10;

/// One point of the table.
struct Point {
    at: At,
    path: BenchPath,
    spec: KernelSpec,
    timed: Timed,
    /// Tokens that share a decode of gate and up, and of down, in separate kernels.
    decodes: Option<[usize; 2]>,
}

/// What stays the same over a run.
struct Run<'a> {
    session: &'a BenchSession<'a>,
    request: &'a LayerBenchRequest,
    gates: HashMap<SpecId, Gate>,
    points: Vec<Point>,
}

/// Holds every variant to the references, then times its paths at every context and
/// number of tokens. Tells a `point` object a point; writes files where the options name
/// a folder.
///
/// # Errors
/// [`MeasureError::Device`] without a GPU; those of making, launching and timing, and of
/// the files.
pub fn bench(jit: &Jit, request: &LayerBenchRequest, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    // What is not legal is refused here, not once a GPU was found.
    variants(jit, &request.token_counts, None)?;
    let session = BenchSession::open(jit, &request.options)?;
    let (variants, dims) = variants(jit, &request.token_counts, Some(session.arch()))?;
    jit.prepare_each(variants.iter().flat_map(|v| [&v.cooperative, &v.separate]))?;
    let mut run = Run {
        session: &session,
        request,
        gates: HashMap::new(),
        points: Vec::new(),
    };
    for variant in &variants {
        run.judge(&variant.cooperative, sink)?;
    }
    let most = request.token_counts.iter().copied().max().unwrap_or(1);
    for context in request.contexts.iter().copied() {
        let inputs = dims.inputs(&vec![context; most], Kv::Random, session.seed);
        let mut sets = Sets::new(&session, &dims, &inputs)?;
        let own = if request.paths.contains(&BenchPath::Kernels) {
            Some(OwnKernels::new(&session, &dims, &inputs, sets.count())?)
        } else {
            None
        };
        for num_tokens in request.token_counts.iter().copied() {
            let bytes = sets.bytes(context, num_tokens);
            let plan = Plan {
                launches_per_graph: PER_GRAPH.max(sets.count()),
                ..session.plan
            };
            let at = At {
                context,
                num_tokens,
                copies: sets.count(),
                plan,
                bytes,
                floor: sets.floor(&session, &plan, bytes)?,
            };
            for variant in variants.iter().filter(|v| v.num_tokens == num_tokens) {
                run.points_of(variant, at, &mut sets, own.as_ref(), sink)?;
            }
        }
    }
    let summary = report::tell(&run, sink);
    if let Some(out) = &request.options.out {
        run_files::write_json(out, "summary.json", &summary)?;
        run_files::write(out, "points.csv", &report::csv(&run.points))?;
        let device = &session.context.device().name;
        run_files::write(out, "plot.svg", &report::picture(device, &run.points))?;
    }
    Ok(Verdict::of(run.points.iter().filter(|p| !p.timed.passes).count()))
}

impl Run<'_> {
    /// Holds every stage of a variant to its reference, with as many tokens as share a pass.
    fn judge(&mut self, spec: &KernelSpec, sink: &mut Sink<'_>) -> Result<(), MeasureError> {
        if let Entry::Vacant(place) = self.gates.entry(spec.id()) {
            let tokens = LayerConfig::try_from(spec)?.tokens_per_pass;
            let lengths = vec![GATE_LENGTH; tokens as usize];
            let gate = verify::gate(self.session.jit, &self.session.context, spec, lengths)?;
            if let Some(reason) = gate.wrong() {
                sink(Event::Failure(format!("{}: WRONG {reason}", spec.variant())));
            }
            place.insert(gate);
        }
        Ok(())
    }

    /// Gates and times one variant's paths at one point.
    fn points_of(
        &mut self,
        variant: &Variant,
        at: At,
        sets: &mut Sets,
        own: Option<&OwnKernels>,
        sink: &mut Sink<'_>,
    ) -> Result<(), MeasureError> {
        let (session, plan) = (self.session, at.plan);
        let num_tokens = u32::try_from(at.num_tokens).unwrap_or(u32::MAX);
        let layer = |spec: &KernelSpec| -> Result<Layer, MeasureError> {
            let kernel = session.jit.load(spec, &session.context)?;
            Ok(Layer::new(spec, kernel)?)
        };
        let (one_launch, five_launches) = (layer(&variant.cooperative)?, layer(&variant.separate)?);
        let (cooperative, separate) = (sets.bind(&one_launch)?, sets.bind(&five_launches)?);
        let slots = one_launch.dims().slots;
        let expected = sets.written(&separate, num_tokens, slots)?;
        // nvllm's geometry divides FC2's sums otherwise, so it is held to itself
        // and to the references alone.
        let geometry = LayerConfig::try_from(&variant.cooperative)?.geometry;
        let spread = geometry == LayerGeometry::Spread;
        let gated = self
            .gates
            .get(&variant.cooperative.id())
            .is_some_and(Gate::passes);
        for path in self.request.paths.iter().copied() {
            let bound = if path == BenchPath::Cooperative {
                &cooperative
            } else {
                &separate
            };
            let mut bits = Bits::default();
            if gated {
                let (one, two) = (
                    sets.written(bound, num_tokens, slots)?,
                    sets.written(bound, num_tokens, slots)?,
                );
                bits = Bits {
                    repeat: Some(one == two),
                    as_separate: spread.then_some(one == expected),
                };
            }
            let passes = gated && bits.are_good();
            let kernels = match own {
                Some(own) if path == BenchPath::Kernels => {
                    Some(own.kernels(session, &variant.cooperative, num_tokens)?)
                }
                _ => None,
            };
            let specs: Vec<&KernelSpec> = match (&kernels, path) {
                (Some(kernels), _) => [&variant.separate].into_iter().chain(kernels.specs()).collect(),
                (None, BenchPath::Cooperative) => vec![&variant.cooperative],
                (None, _) => vec![&variant.separate],
            };
            let dir = (self.request.options.out.as_ref())
                .map(|out| out.join(record::folder(path, &variant.cooperative, &at)));
            if let Some(dir) = &dir {
                let known = specs.iter().map(|spec| record::known(session.jit, spec));
                let known = known.collect::<Result<Vec<_>, _>>()?;
                let config = record::config(path, &at, session.seed, &known);
                run_files::write_json(dir, "config.json", &config)?;
                let gate = &self.gates[&variant.cooperative.id()];
                let gate = record::gate(passes, gate, bits, &variant.cooperative, path);
                run_files::write_json(dir, "correctness_gate_layer.json", &gate)?;
            }
            let mut summary = None;
            if passes {
                let samples = match (&kernels, own) {
                    (Some(kernels), Some(own)) => {
                        own.sample(session, &plan, &separate, kernels, num_tokens)?
                    }
                    _ => sample(&session.context, &plan, &mut |i, stream| {
                        Ok::<_, MeasureError>(copies::launch(bound, i, num_tokens, stream)?)
                    })?,
                };
                summary = Summary::of(&samples);
                if let Some(dir) = &dir {
                    run_files::write(dir, "timing.csv", &run_files::timing_csv(at.bytes, 0, &samples))?;
                }
            } else {
                let why = bits.wrong().unwrap_or("refused by the references");
                sink(Event::Failure(format!(
                    "{} {} at context {}, {} tokens: {why}; not timed",
                    path.name(),
                    variant.cooperative.variant(),
                    at.context,
                    at.num_tokens
                )));
            }
            self.points.push(Point {
                at,
                path,
                spec: variant.cooperative.clone(),
                timed: Timed {
                    passes,
                    summary,
                    bytes: at.bytes,
                    floor: at.floor,
                },
                decodes: kernels.as_ref().map(Kernels::decodes),
            });
        }
        Ok(())
    }
}
