//! `jitc bench layer`: the decode layer as one cooperative launch, as ordinary
//! launches, and as separate kernels, beside the time to stream as many bytes.
//!
//! Invariant: every variant that is timed is held to the references first, and every
//! point to the bits of a second launch and of the other path; what is refused is not
//! timed. Of `separate` that is attention: its GEMVs have their gates elsewhere.

mod ask;
mod record;
mod report;
mod separate;
mod sets;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use super::report::Timed;
use super::{MeasureError, Session, files};
use crate::cli::output;
use crate::engine::jit::Jit;
use crate::engine::request::spec::{KernelSpec, SpecId};
use crate::families::decode_layer::Layer;
use crate::families::decode_layer::reference::Kv;
use crate::families::decode_layer::{copies, verify};
use crate::measure::timing::{Plan, Summary, sample};

pub(super) use ask::args;
use ask::{Ask, Path, roof, with_tokens};
use record::{At, Bits};
use separate::Separate;
use sets::Sets;

/// Positions of the sequence over which a variant is held to the references.
const GATE_LENGTH: usize = 257;

/// Launches of a graph, or more where more copies take turns.
const PER_GRAPH: usize = 10;

/// One point of the table.
struct Point {
    at: At,
    path: Path,
    spec: KernelSpec,
    timed: Timed,
    /// Tokens that share a decode of gate and up, and of down, in separate kernels.
    decodes: Option<[u32; 2]>,
}

/// A variant on both paths, and what the references said of it.
struct Variant {
    coop: KernelSpec,
    lite: KernelSpec,
}

/// What stays the same over a run.
struct Run<'a> {
    session: &'a Session<'a>,
    ask: Ask,
    out: Option<PathBuf>,
    gates: HashMap<SpecId, verify::Gate>,
    points: Vec<Point>,
}

pub(super) fn measure(jit: &Jit, matches: &ArgMatches, json: bool) -> Result<ExitCode, MeasureError> {
    let ask = Ask::new(matches).map_err(MeasureError::Request)?;
    let specs = crate::cli::specs(jit, &["beta_coop".to_owned()])?;
    let dims = roof(&specs)?;
    let tokens = &jit.registry().get("beta_coop")?.constants["tokens"];
    let chosen = jit.config().constant("tokens", &tokens.variables).is_some();
    let options = super::options(matches)?;
    let session = Session::open(jit, &options)?;
    let lite = jit.registry().get("beta_lite")?;
    let mut variants = Vec::new();
    for nat in &ask.nats {
        for spec in &specs {
            let variant = Variant {
                coop: with_tokens(spec, &spec.family, *nat, chosen)?,
                lite: with_tokens(spec, lite, *nat, chosen)?,
            };
            variants.push((*nat, variant));
        }
    }
    jit.prepare_each(variants.iter().flat_map(|(_, v)| [&v.coop, &v.lite]))?;
    let mut run = Run {
        session: &session,
        ask,
        out: options.out,
        gates: HashMap::new(),
        points: Vec::new(),
    };
    for (_, variant) in &variants {
        run.judge(&variant.coop)?;
    }
    let most = run.ask.nats.iter().copied().max().unwrap_or(1);
    for context in run.ask.contexts.clone() {
        let inputs = dims.inputs(&vec![context; most], Kv::Random, session.seed);
        let mut sets = Sets::new(&session, &dims, &inputs)?;
        let separate = if run.ask.paths.contains(&Path::Separate) {
            Some(Separate::new(&session, &dims, &inputs, sets.count())?)
        } else {
            None
        };
        for nat in run.ask.nats.clone() {
            let bytes = sets.bytes(context, nat);
            let plan = Plan {
                launches_per_graph: PER_GRAPH.max(sets.count()),
                ..session.plan
            };
            let at = At {
                context,
                nat,
                copies: sets.count(),
                plan,
                bytes,
                floor: sets.floor(&session, &plan, bytes)?,
            };
            for (_, variant) in variants.iter().filter(|(of, _)| *of == nat) {
                run.points_of(variant, at, &mut sets, separate.as_ref())?;
            }
        }
    }
    let summary = report::print(&run, json);
    if let Some(out) = &run.out {
        files::write_json(out, "summary.json", &summary)?;
        files::write(out, "points.csv", &report::csv(&run.points))?;
        let device = &session.context.device().name;
        files::write(out, "plot.svg", &report::picture(device, &run.points))?;
    }
    let refused = run.points.iter().any(|p| !p.timed.passes);
    Ok(ExitCode::from(u8::from(refused)))
}

impl Run<'_> {
    /// Holds every stage of a variant to its reference, with as many tokens as share a pass.
    fn judge(&mut self, spec: &KernelSpec) -> Result<(), MeasureError> {
        if let Entry::Vacant(place) = self.gates.entry(spec.id()) {
            let lengths = vec![GATE_LENGTH; spec.number("tokens").unwrap_or(1) as usize];
            let gate = verify::gate(self.session.jit, &self.session.context, spec, lengths)?;
            if let Some(reason) = gate.wrong() {
                output::error(format!("{}: WRONG {reason}", spec.variant()));
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
        separate: Option<&Separate>,
    ) -> Result<(), MeasureError> {
        let (session, plan) = (self.session, at.plan);
        let nat = u32::try_from(at.nat).unwrap_or(u32::MAX);
        let layer = |spec: &KernelSpec| -> Result<Layer, MeasureError> {
            let kernel = session.jit.load(spec, &session.context)?;
            Ok(Layer::new(spec, kernel)?)
        };
        let (coop_layer, lite_layer) = (layer(&variant.coop)?, layer(&variant.lite)?);
        let (coop, lite) = (sets.bind(&coop_layer)?, sets.bind(&lite_layer)?);
        let slots = coop_layer.dims().slots;
        let expected = sets.written(&lite, nat, slots)?;
        // The original's geometry divides FC2's sums otherwise, so it is held to itself
        // and to the references alone.
        let spread = variant.coop.constants["geometry"].to_string() == "spread";
        let gated = self
            .gates
            .get(&variant.coop.id())
            .is_some_and(verify::Gate::passes);
        for path in self.ask.paths.clone() {
            let bound = if path == Path::Coop { &coop } else { &lite };
            let mut bits = Bits::default();
            if gated {
                let (one, two) = (sets.written(bound, nat, slots)?, sets.written(bound, nat, slots)?);
                bits = Bits {
                    repeat: Some(one == two),
                    as_lite: spread.then_some(one == expected),
                };
            }
            let passes = gated && bits.are_good();
            let kernels = match separate {
                Some(separate) if path == Path::Separate => {
                    Some(separate.kernels(session, &variant.coop, nat)?)
                }
                _ => None,
            };
            let specs: Vec<&KernelSpec> = match (&kernels, path) {
                (Some(kernels), _) => [&variant.lite].into_iter().chain(kernels.specs()).collect(),
                (None, Path::Coop) => vec![&variant.coop],
                (None, _) => vec![&variant.lite],
            };
            let dir = (self.out.as_ref()).map(|out| out.join(record::folder(path, &variant.coop, &at)));
            if let Some(dir) = &dir {
                let known = specs.iter().map(|spec| record::known(session, spec));
                let known = known.collect::<Result<Vec<_>, _>>()?;
                let config = record::config(path, &at, session.seed, &known);
                files::write_json(dir, "config.json", &config)?;
                let gate = &self.gates[&variant.coop.id()];
                let gate = record::gate(passes, gate, bits, &variant.coop, path);
                files::write_json(dir, "correctness_gate_layer.json", &gate)?;
            }
            let mut summary = None;
            if passes {
                let samples = match (&kernels, separate) {
                    (Some(kernels), Some(separate)) => {
                        separate.sample(session, &plan, &lite, kernels, nat)?
                    }
                    _ => sample(&session.context, &plan, &mut |i, stream| {
                        Ok::<_, MeasureError>(copies::launch(bound, i, nat, stream)?)
                    })?,
                };
                summary = Summary::of(&samples);
                if let Some(dir) = &dir {
                    files::write(dir, "timing.csv", &files::timing_csv(at.bytes, 0, &samples))?;
                }
            } else {
                let why = bits.wrong().unwrap_or("refused by the references");
                output::error(format!(
                    "{} {} at context {}, {} tokens: {why}; not timed",
                    path.name(),
                    variant.coop.variant(),
                    at.context,
                    at.nat
                ));
            }
            self.points.push(Point {
                at,
                path,
                spec: variant.coop.clone(),
                timed: Timed {
                    passes,
                    summary,
                    bytes: at.bytes,
                    floor: at.floor,
                },
                decodes: kernels.as_ref().map(separate::Kernels::decodes),
            });
        }
        Ok(())
    }
}
