//! A run over `wo_gemv`: each variant held to the reference, then timed.
//!
//! Invariant: no time is taken of a kernel that the gate refused, and every time stands
//! beside that of the streaming kernel, taken by the same method.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::FAMILY;
use super::super::config::WoConfig;
use super::super::geometry::heuristic;
use super::super::reference::{WoInputs, WoOutput, WoShape, matmul_f64, split_order};
use super::super::request::{WoRequest, WoVariant};
use super::buffers::{Buffers, Layout};
use super::files::Case;
use super::gate::Gate;
use super::under_ncu;
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::run::launch::Order;
use crate::measure::MeasureError;
use crate::measure::bench::{BenchOptions, BenchSession, Timed};
use crate::measure::compare::Drift;
use crate::measure::harness::{Event, Sink};
use crate::measure::ncu::Counters;
use crate::measure::run_files;
use crate::measure::timing::{Plan, Summary, sample};
use crate::measure::tune::{Choice, choose};

/// A variant's result.
pub(crate) struct Measured {
    pub(super) case: Case,
    pub(crate) choice: Choice,
    pub(super) how: String,
    pub(super) plan: Plan,
    pub(crate) timed: Timed,
    pub(super) max_abs: f64,
    pub(super) drift: Drift,
    pub(super) counters: Option<Counters>,
}

/// What stays the same over a run.
pub(crate) struct WoSession<'a> {
    pub(crate) session: BenchSession<'a>,
    pub(crate) request: &'a WoRequest,
    cold: bool,
    pub(super) out: Option<PathBuf>,
    pub(super) ncu: bool,
}

/// Inputs of one global scale: on the GPU, and the references of them at the most
/// tokens; those of fewer are a prefix.
pub(crate) struct Inputs {
    global_scale: f32,
    pub(super) float64: Vec<f64>,
    pub(super) chained: WoOutput,
    pub(super) ordered: BTreeMap<(usize, bool), WoOutput>,
    pub(super) buffers: Buffers,
    plan: Plan,
    floor: f64,
}

impl<'a> WoSession<'a> {
    /// Opens the first GPU.
    pub(crate) fn open(
        jit: &'a Jit,
        request: &'a WoRequest,
        options: &BenchOptions,
    ) -> Result<Self, MeasureError> {
        Ok(Self {
            session: BenchSession::open(jit, options)?,
            request,
            cold: options.cold,
            out: options.out.clone(),
            ncu: false,
        })
    }

    /// The geometry of a variant: forced, tuned or by rule.
    pub(super) fn choose(&self, variant: &WoVariant, num_tokens: usize) -> Choice {
        let problem = self.request.problem(variant, num_tokens);
        choose(
            &self.session.record,
            &self.session.gpu(),
            &problem,
            &self.request.forced,
            heuristic,
        )
    }

    pub(super) fn layout(&self) -> Layout {
        Layout {
            cold: self.cold,
            packed: self.request.packed(),
        }
    }

    pub(super) fn spec(&self, variant: &WoVariant, choice: &Choice) -> Result<KernelSpec, MeasureError> {
        let family = self.session.jit.registry().get(FAMILY)?;
        Ok(self
            .request
            .spec(family, variant, &choice.geometry, self.session.arch())?)
    }

    /// Every variant at every number of tokens and global scale. Kernels are made first,
    /// side by side.
    pub(super) fn every(&self, sink: &mut Sink<'_>) -> Result<Vec<Measured>, MeasureError> {
        let request = self.request;
        let mut points = Vec::new();
        for variant in &request.variants {
            for num_tokens in &request.tokens {
                points.push((variant, *num_tokens, self.choose(variant, *num_tokens)));
            }
        }
        let specs = points
            .iter()
            .map(|(variant, _, choice)| self.spec(variant, choice))
            .collect::<Result<Vec<_>, _>>()?;
        self.session.jit.prepare_each(&specs)?;
        let mut all = Vec::new();
        for gs in &request.global_scales {
            let mut inputs = self.inputs(&request.variants, *gs)?;
            for (variant, num_tokens, choice) in &points {
                all.push(self.one(variant, *num_tokens, choice.clone(), &mut inputs, sink)?);
            }
        }
        Ok(all)
    }

    /// Weights of further sets, by number.
    pub(super) fn another<'b>(&'b self, shape: &'b WoShape) -> impl Fn(u64) -> WoInputs + 'b {
        |number| {
            let seed = self.session.seed.wrapping_add(number);
            self.request.random(shape, 1, 1.0, seed)
        }
    }

    /// Draws and uploads inputs, works out references, and times the floor.
    pub(crate) fn inputs(&self, variants: &[WoVariant], gs: f32) -> Result<Inputs, MeasureError> {
        let most_tokens = self.request.tokens.iter().copied().max().unwrap_or(1);
        let most_split = variants.iter().map(|v| v.wo_split).max().unwrap_or(1);
        let shape = self.request.wo_shape(most_split);
        let inputs = self.request.random(&shape, most_tokens, gs, self.session.seed);
        let mut ordered = BTreeMap::new();
        for variant in variants {
            let fused = variant.accumulate.is_fused();
            ordered
                .entry((variant.wo_split, fused))
                .or_insert_with(|| split_order(&self.request.wo_shape(variant.wo_split), &inputs, fused));
        }
        let slots = shape.num_slots();
        let buffers = Buffers::new(
            &self.session.context,
            &shape,
            &inputs,
            self.another(&shape),
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
            floor: buffers.floor(&self.session, &plan)?,
            buffers,
            plan,
        })
    }

    /// Holds one variant to the reference, then times it.
    pub(crate) fn one(
        &self,
        variant: &WoVariant,
        num_tokens: usize,
        choice: Choice,
        inputs: &mut Inputs,
        sink: &mut Sink<'_>,
    ) -> Result<Measured, MeasureError> {
        let (gs, plan, floor) = (inputs.global_scale, inputs.plan, inputs.floor);
        let shape = self.request.wo_shape(variant.wo_split);
        let case = Case {
            shape,
            heads: self.request.heads(),
            accumulate: variant.accumulate,
            geometry: variant.geometry,
            num_tokens,
            global_scale: gs,
            slice_ctas: self.request.slice_ctas(),
            packed: self.request.packed(),
            format: self.request.format(),
            row_scales: self.request.row_scales(),
            seed: self.session.seed,
        };
        let dir = self.out.as_ref().map(|out| out.join(case.folder()));
        let configured = |known| match &dir {
            Some(dir) => run_files::write_json(dir, "config.json", &case.config(&plan, self.ncu, known)),
            None => Ok(()),
        };
        configured(None)?;
        let spec = self.spec(variant, &choice)?;
        let prepared = self.session.jit.prepare(&spec)?;
        let key = prepared.request.key().to_string();
        configured(Some((key.as_str(), prepared.fetched.provenance.label())))?;
        let kernel = self.session.jit.load(&spec, &self.session.context)?;
        let tokens = u32::try_from(num_tokens).unwrap_or(u32::MAX);

        // Only a kernel that waits inside may start before the one ahead of it is done.
        let overlaps = WoConfig::try_from(&spec)?.may_overlap();
        inputs.buffers.set_order(if overlaps {
            Order::Programmatic
        } else {
            Order::Serial
        });
        let bound = inputs.buffers.bind(&kernel)?;
        let gate = Gate::of(inputs, &bound, &shape, variant.accumulate, tokens)?;
        if let Some(dir) = &dir {
            gate.write(dir)?;
        }
        let mut summary = None;
        if gate.passes {
            let samples = sample(&self.session.context, &plan, &mut |i, stream| {
                Buffers::launch(&bound, i, &[tokens], stream).map_err(MeasureError::from)
            })?;
            summary = Summary::of(&samples);
            if let Some(dir) = &dir {
                run_files::write(dir, "timing.csv", &case.timing(&samples))?;
            }
        } else {
            sink(Event::Failure(gate.refusal(&case.folder())));
        }
        let counters = if self.ncu && gate.passes {
            match under_ncu::count(&case, &choice, self.session.jit.config()) {
                Ok(counters) => Some(counters),
                Err(reason) => {
                    sink(Event::Note(reason.to_string()));
                    None
                }
            }
        } else {
            None
        };
        Ok(Measured {
            how: prepared.fetched.provenance.label().to_owned(),
            plan,
            max_abs: gate.max_abs(),
            timed: Timed {
                passes: gate.passes,
                summary,
                bytes: case.payload_bytes(),
                floor,
            },
            case,
            choice,
            drift: gate.drift,
            counters,
        })
    }
}
