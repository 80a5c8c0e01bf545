//! `jitc bench wo_gemv`: right first, timed second, beside the floor of the same run.
//!
//! Invariant: no time is printed of a kernel that the gate refused, and every time
//! stands beside that of the streaming kernel, taken by the same method.

mod buffers;
mod files;
mod flags;
mod layer;
mod ncu;
mod plot;
mod report;
mod request;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;

use super::{Answer, args, output};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::launch::Order;
use crate::families::wo_gemv::reference::WoInputs;
use crate::families::wo_gemv::reference::WoOutput;
use crate::families::wo_gemv::reference::matmul_f64;
use crate::families::wo_gemv::reference::split_order;
use crate::families::wo_gemv::tune::heuristic;
use crate::measure::MeasureError;
use crate::measure::compare::Drift;
use crate::measure::compare::compare;
use crate::measure::compare::drift;
use crate::measure::timing::{Plan, Summary, sample};
use crate::measure::tune::Choice;
use crate::measure::tune::choose;

use buffers::{Buffers, Layout};
use files::Case;
pub(super) use flags::{command, measuring};
use report::Timed;
pub(super) use request::{Request, Variant};
pub(super) use session::Session;

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let layer = matches.get_one::<String>("family").is_some_and(|f| f == "layer");
    let (what, others): (_, &[&str]) = if layer {
        ("layer", &["ncu", "warm", "global-scale"])
    } else {
        ("wo_gemv", &["context", "nat", "path"])
    };
    let measured = match args::refuse(matches, others, what) {
        Err(reason) => Err(MeasureError::Request(reason)),
        Ok(()) if layer => layer::measure(jit, matches, json),
        Ok(()) => measure(jit, matches, json),
    };
    match measured {
        Ok(code) => Ok(code),
        Err(error @ MeasureError::Engine(_)) => Err(error),
        Err(error) => {
            output::error(&error);
            Ok(ExitCode::from(2))
        }
    }
}

/// A variant's result.
pub(super) struct Measured {
    case: Case,
    pub(super) choice: Choice,
    how: String,
    plan: Plan,
    pub(super) timed: Timed,
    max_abs: f64,
    drift: Drift,
    counters: Option<ncu::Counters>,
}

/// A run over `wo_gemv`: what it was asked for, and what every measurement has.
pub(super) struct WoSession<'a> {
    pub(super) session: Session<'a>,
    pub(super) request: Request,
    cold: bool,
    out: Option<PathBuf>,
    ncu: bool,
}

fn measure(jit: &Jit, matches: &ArgMatches, json: bool) -> Result<ExitCode, MeasureError> {
    args::constants_of(jit, &["wo_gemv"])?;
    let request = request(jit, matches)?;
    let variants = request.variants().map_err(MeasureError::Request)?;
    let mut run = WoSession::open(jit, matches, request)?;
    run.out = matches.get_one::<PathBuf>("out").cloned();
    run.ncu = matches.get_flag("ncu");
    if matches.get_flag("under-ncu") {
        return ncu::child(&run, &variants);
    }
    let mut all = Vec::new();
    for gs in &run.request.global_scales {
        let mut inputs = run.inputs(&variants, *gs)?;
        for variant in &variants {
            for nat in &run.request.tokens {
                let choice = run.choose(variant, *nat);
                all.push(run.one(variant, *nat, choice, &mut inputs)?);
            }
        }
    }
    let summary = report::print(&run, &all, json);
    if let Some(out) = &run.out {
        files::write_json(out, "summary.json", &summary)?;
        files::write(out, "plot.svg", &report::picture(&run, &all))?;
    }
    let refused = all.iter().filter(|m| !m.timed.passes).count();
    Ok(ExitCode::from(u8::from(refused > 0)))
}

/// What the command line asks for; needs no GPU.
pub(super) fn request(jit: &Jit, matches: &ArgMatches) -> Result<Request, MeasureError> {
    let family = jit.registry().get("wo_gemv")?;
    Request::new(family, jit.config(), matches).map_err(MeasureError::Request)
}

/// Inputs of one global scale: on the GPU, and the references of them at the most
/// tokens; those of fewer are a prefix.
pub(super) struct Inputs {
    global_scale: f32,
    float64: Vec<f64>,
    chained: WoOutput,
    ordered: BTreeMap<(usize, bool), WoOutput>,
    buffers: Buffers,
    plan: Plan,
    floor: f64,
}

impl<'a> WoSession<'a> {
    /// Opens the first GPU.
    pub(super) fn open(jit: &'a Jit, matches: &ArgMatches, request: Request) -> Result<Self, MeasureError> {
        Ok(Self {
            session: Session::open(jit, matches)?,
            request,
            cold: !matches.get_flag("warm"),
            out: None,
            ncu: false,
        })
    }

    /// The geometry of a variant: forced, tuned or by rule.
    fn choose(&self, variant: &Variant, nat: usize) -> Choice {
        let problem = self.request.problem(variant, nat);
        choose(
            &self.session.record,
            &self.session.gpu(),
            &problem,
            &self.request.forced,
            heuristic,
        )
    }

    fn layout(&self) -> Layout {
        Layout {
            cold: self.cold,
            packed: self.request.packed(),
        }
    }

    fn spec(&self, variant: &Variant, choice: &Choice) -> Result<KernelSpec, MeasureError> {
        let family = self.session.jit.registry().get("wo_gemv")?;
        Ok(self
            .request
            .spec(family, variant, &choice.geometry, self.session.arch())?)
    }

    /// Draws and uploads inputs, works out references, and times the floor.
    pub(super) fn inputs(&self, variants: &[Variant], gs: f32) -> Result<Inputs, MeasureError> {
        let most_tokens = self.request.tokens.iter().copied().max().unwrap_or(1);
        let most_split = variants.iter().map(|v| v.wo_split).max().unwrap_or(1);
        let shape = self.request.wo_shape(most_split);
        let inputs = WoInputs::random(&shape, most_tokens, gs, self.session.seed);
        let mut ordered = BTreeMap::new();
        for variant in variants {
            let fused = variant.accumulate != "mul_add";
            ordered
                .entry((variant.wo_split, fused))
                .or_insert_with(|| split_order(&self.request.wo_shape(variant.wo_split), &inputs, fused));
        }
        let slots = shape.num_slots();
        let buffers = Buffers::new(
            &self.session.context,
            &shape,
            &inputs,
            self.session.seed,
            self.layout(),
            slots,
        )?;
        let plan = Plan {
            launches_per_graph: self.session.plan.launches_per_graph.max(buffers.sets()),
            ..self.session.plan
        };
        Ok(Inputs {
            global_scale: gs,
            float64: matmul_f64(&shape, &inputs),
            chained: split_order(&self.request.wo_shape(1), &inputs, true),
            ordered,
            floor: self.floor(&buffers, &plan)?,
            buffers,
            plan,
        })
    }

    /// The streaming kernel over the same bytes.
    fn floor(&self, buffers: &Buffers, plan: &Plan) -> Result<f64, MeasureError> {
        let kernel = self.session.stream_kernel()?;
        let entry = &kernel.entries()[0];
        let samples = sample(&self.session.context, plan, &mut |i, stream| {
            buffers
                .launch_stream(entry, i, stream)
                .map_err(MeasureError::from)
        })?;
        Ok(Summary::of(&samples).map_or(f64::NAN, |s| s.median))
    }

    /// Holds one variant to the reference, then times it.
    pub(super) fn one(
        &self,
        variant: &Variant,
        nat: usize,
        choice: Choice,
        inputs: &mut Inputs,
    ) -> Result<Measured, MeasureError> {
        let (gs, plan, floor) = (inputs.global_scale, inputs.plan, inputs.floor);
        let shape = self.request.wo_shape(variant.wo_split);
        let case = Case {
            shape,
            heads: self.request.heads(),
            accumulate: variant.accumulate.clone(),
            geometry: variant.geometry.clone(),
            nat,
            global_scale: gs,
            slice_ctas: self.request.slice_ctas(),
            packed: self.request.packed(),
            seed: self.session.seed,
        };
        let dir = self.out.as_ref().map(|out| out.join(case.folder()));
        let configured = |known| match &dir {
            Some(dir) => files::write_json(dir, "config.json", &case.config(&plan, self.ncu, known)),
            None => Ok(()),
        };
        configured(None)?;
        let spec = self.spec(variant, &choice)?;
        let prepared = self.session.jit.prepare(&spec)?;
        let key = prepared.request.key().to_string();
        configured(Some((key.as_str(), prepared.fetched.provenance.label())))?;
        let kernel = self.session.jit.load(&spec, &self.session.context)?;
        let entry = &kernel.entries()[0];
        let tokens = u32::try_from(nat).unwrap_or(u32::MAX);

        // Only a kernel that waits inside may start before the one ahead of it is done.
        let waits = spec.number("dependent") == Some(1) && spec.number("by_mma") == Some(1);
        inputs
            .buffers
            .set_order(if waits { Order::Programmatic } else { Order::Serial });
        inputs.buffers.set_global_scale(gs)?;
        let mut actual = inputs.buffers.run(entry, &shape, tokens)?;
        let again = inputs.buffers.run(entry, &shape, tokens)?;
        let repeats =
            same_bits(&actual.partials, &again.partials) && same_bits(&actual.output, &again.output);
        if !repeats {
            // The gate judges what the second launch wrote: the first one left something behind.
            actual = again;
        }
        let expected = &inputs.ordered[&(variant.wo_split, variant.accumulate != "mul_add")];
        let sums = compare(&expected.output[..actual.output.len()], &actual.output);
        let partials = compare(&expected.partials[..actual.partials.len()], &actual.partials);
        let to_f64 = |values: &[f32]| drift(values, &inputs.float64[..actual.output.len()]);
        let (drift, exact_drift) = (
            to_f64(&actual.output),
            to_f64(&expected.output[..actual.output.len()]),
        );
        let exact = variant.accumulate != "mma";
        let passes = repeats
            && if exact {
                sums.is_exact() && partials.is_exact()
            } else {
                drift.relative_l2 <= 2.0 * exact_drift.relative_l2
            };
        if let Some(dir) = &dir {
            let gate = files::gate(passes, &sums, exact, variant.wo_split);
            files::write_json(dir, "correctness_gate_split_order.json", &gate)?;
            let chained = compare(&inputs.chained.output[..actual.output.len()], &actual.output);
            files::write_json(dir, "correctness_vs_chained.json", &files::chained(&chained))?;
            let float64 = files::float64(&drift, &exact_drift);
            files::write_json(dir, "correctness_vs_float64.json", &float64)?;
        }
        let mut summary = None;
        if passes {
            let samples = sample(&self.session.context, &plan, &mut |i, stream| {
                Ok::<_, MeasureError>(inputs.buffers.launch(entry, i, tokens, stream)?)
            })?;
            summary = Summary::of(&samples);
            if let Some(dir) = &dir {
                files::write(dir, "timing.csv", &case.timing(&samples))?;
            }
        } else {
            output::error(format!(
                "{}: the gate refuses it{}: {} of {} sums differ, largest by {}; not timed",
                case.folder(),
                if repeats { "" } else { " (two launches differ)" },
                sums.mismatches,
                sums.elements,
                sums.max_abs
            ));
        }
        let counters = if self.ncu && passes {
            ncu::run(&case, &choice, self.session.jit.config())?
        } else {
            None
        };
        Ok(Measured {
            how: prepared.fetched.provenance.label().to_owned(),
            plan,
            max_abs: sums.max_abs.max(partials.max_abs),
            timed: Timed {
                passes,
                summary,
                bytes: case.payload_bytes(),
                floor,
            },
            case,
            choice,
            drift,
            counters,
        })
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
