//! Any family benchmarked: held to what was asked first, timed second, beside the kernel that
//! only reads as many bytes.
//!
//! Invariant: no time is taken of a variant that differs from what it was held to.

use serde_json::json;

use super::asked::{Asked, sizes_text};
use super::choose::{choose, known_by};
use super::memory::Memory;
use super::plan::Plan;
use super::verify::{Against, check, each, hold};
use crate::engine::run::device::driver_version;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::measure::MeasureError;
use crate::measure::bench::{BenchOptions, BenchSession, Timed};
use crate::measure::clocks::clocks;
use crate::measure::harness::{Event, Session, Sink, Verdict};
use crate::measure::timing::{self, Summary, cold_sets, sample};

/// Times every variant that is asked for, at every problem; of constants that nobody set,
/// what was tuned, else what the rules choose. Tells a `variant` object each.
///
/// # Errors
/// [`MeasureError::Request`] of what is not legal; [`MeasureError::Device`] without a GPU;
/// those of making, launching and timing kernels.
pub(super) fn bench(session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let options = session.options;
    let read = BenchOptions::read(options)?;
    let asked = Asked::read(session, read.seed)?;
    let all = Against::read(options)?;
    for (spec, sizes) in each(&asked.specs(asked.some_arch())?, &asked.problems) {
        check(&asked, &all, spec, sizes)?;
        known_by(&asked, spec, sizes)?;
    }
    let session = BenchSession::open(asked.jit, &read)?;
    let mut clock = Clock::new(&session, &read);
    let titles = ["sizes", "origin", "variant"].into_iter().chain(Timed::TITLES);
    let mut rows = vec![titles.map(str::to_owned).collect()];
    let (mut refused, is_set) = (0, !asked.forced().is_empty());
    for (spec, sizes) in each(&asked.specs(session.arch())?, &asked.problems) {
        let choice = choose(
            &asked,
            session.context.device(),
            &session.record,
            spec,
            sizes,
            sink,
        )?;
        let plan = Plan::of(&asked, &choice.spec, sizes)?;
        let mut wrong = 0;
        clock.hold(&plan)?;
        if !all.is_empty() {
            let outputs = clock.outputs(&plan)?;
            wrong = hold(&asked, &session.context, &all, (&plan, &outputs), sizes, sink)?;
        }
        let summary = if wrong == 0 {
            Summary::of(&clock.time(&plan, read.plan.samples)?)
        } else {
            None
        };
        let timed = Timed {
            passes: wrong == 0,
            summary,
            bytes: clock.bytes(),
            floor: clock.floor,
        };
        refused += usize::from(wrong > 0);
        let compared = !all.is_empty();
        let (origin, variant) = (choice.origin(is_set), choice.spec.variant());
        sink(Event::Object(
            json!({"event": "variant", "family": asked.family().name,
            "device": session.context.device().name, "sizes": sizes, "origin": origin,
            "variant": variant, "compared": compared, "passes": timed.passes, "summary": timed.summary,
            "method": clock.plan.method, "cold": read.cold, "sets": clock.sets(),
            "launches_per_graph": clock.plan.launches_per_graph,
            "driver": driver_version()?.to_string(), "clocks": clocks(&session.context),
            "bytes": timed.bytes, "gbps": timed.gbps(), "stream_us": timed.floor}),
        ));
        let mut row = vec![sizes_text(sizes), origin.to_owned(), variant];
        let mut cells = timed.cells();
        if !compared {
            cells[0] = "not compared".into();
        }
        row.extend(cells);
        rows.push(row);
    }
    sink(Event::Table(rows));
    Ok(Verdict::of(refused))
}

/// Memory of one plan on a GPU, the floor of launches over it, and how they are timed.
pub(super) struct Clock<'a> {
    session: &'a BenchSession<'a>,
    cold: bool,
    memory: Option<Memory>,
    pub(super) plan: timing::Plan,
    /// Time of the kernel that only reads as many bytes, microseconds.
    pub(super) floor: f64,
}

impl<'a> Clock<'a> {
    pub(super) fn new(session: &'a BenchSession<'a>, options: &BenchOptions) -> Self {
        Self {
            session,
            cold: options.cold,
            memory: None,
            plan: session.plan,
            floor: f64::NAN,
        }
    }

    /// Fills memory for a plan, where what is there is of another, and times the floor.
    pub(super) fn hold(&mut self, plan: &Plan) -> Result<(), MeasureError> {
        if self.memory.as_ref().is_some_and(|memory| memory.is_of(plan)) {
            return Ok(());
        }
        // Before as much again is allocated.
        self.memory = None;
        let context = &self.session.context;
        let sets = if self.cold {
            cold_sets(context.device().l2_bytes, plan.moved())
        } else {
            1
        };
        let memory = Memory::new(context, plan, sets)?;
        self.plan.launches_per_graph = self.session.plan.launches_per_graph.max(sets);
        let stream = context.cuda().default_stream();
        let result = stream.alloc_zeros::<u32>(1)?;
        let sink = Tensor::all_of(&stream, &result, Dtype::U32);
        stream.synchronize()?;
        // SAFETY: the sets and the word outlive the call.
        self.floor = unsafe { self.session.floor(&self.plan, &memory.streamed(), sink) }?;
        self.memory = Some(memory);
        Ok(())
    }

    /// What one launch of a plan writes.
    pub(super) fn outputs(&mut self, plan: &Plan) -> Result<super::verify::Outputs, MeasureError> {
        self.hold(plan)?;
        let kernel = self.session.jit.load(&plan.spec, &self.session.context)?;
        let Some(memory) = &mut self.memory else {
            return Ok(Vec::new());
        };
        let bound = memory.bind(&kernel, plan)?;
        memory.outputs(&bound)
    }

    /// Samples of a plan's launches, microseconds each.
    pub(super) fn time(&mut self, plan: &Plan, samples: usize) -> Result<Vec<f64>, MeasureError> {
        self.hold(plan)?;
        let context = &self.session.context;
        let kernel = self.session.jit.load(&plan.spec, context)?;
        let Some(memory) = &self.memory else {
            return Ok(Vec::new());
        };
        let bound = memory.bind(&kernel, plan)?;
        let how = timing::Plan { samples, ..self.plan };
        sample(context, &how, &mut |number, stream| {
            memory.launch(&bound, number, stream).map_err(MeasureError::from)
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::moved)
    }

    pub(super) fn sets(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::sets)
    }
}
