//! `axpy` benchmarked: right first, timed second, beside the kernel that only reads.
//!
//! Invariant: no time is taken of a variant that the reference refuses.

use serde_json::json;

use super::vectors::{BYTES_PER_ELEMENT, Vectors};
use super::{spec, tune};
use crate::engine::jit::Jit;
use crate::engine::run::tensor::{Dtype, Tensor};
use crate::measure::MeasureError;
use crate::measure::bench::{self, BenchOptions, BenchSession, Timed};
use crate::measure::harness::{Event, Flag, Options, Sink, Verdict};
use crate::measure::timing::{Plan, Summary, cold_sets, sample};
use crate::measure::tune::{Geometry, choose, combinations, geometry_text};

/// Elements of the vectors.
pub(super) const ELEMENTS: Flag = Flag::new(
    "elements",
    "LIST",
    Some("16777216"),
    "Elements of x and of y (axpy)",
);

/// What benchmarking `axpy` takes.
pub const FLAGS: &[Flag] = &[
    ELEMENTS,
    bench::METHOD,
    bench::COLD,
    bench::WARM,
    bench::LAUNCHES,
    bench::SEED,
];

/// What was asked for, read before a GPU is looked for.
pub(super) fn elements(options: &Options) -> Result<Vec<u32>, MeasureError> {
    options.list(ELEMENTS.name, 1..=1 << 28)
}

/// Compares with the reference, and times, the geometries that were set, else the tuned
/// one, else the one by rule. Tells a `variant` object each.
///
/// # Errors
/// [`MeasureError::Request`] of what is not legal; [`MeasureError::Device`] without a GPU;
/// those of making, launching and timing.
pub fn bench(jit: &Jit, options: &Options, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
    let (sizes, read) = (elements(options)?, BenchOptions::read(options)?);
    let set = tune::set(jit)?;
    let session = BenchSession::open(jit, &read)?;
    let titles = ["elements", "origin", "geometry"]
        .into_iter()
        .chain(Timed::TITLES);
    let mut rows = vec![titles.map(str::to_owned).collect()];
    let mut refused = 0;
    for n in sizes {
        let mut clock = Clock::new(&session, &read, n)?;
        // Where nothing was set, there is one geometry, which sets nothing.
        for forced in combinations(&[], &set) {
            let problem = tune::problem(n);
            let choice = choose(&session.record, &session.gpu(), &problem, &forced, tune::rule);
            let timed = clock.time(&choice.geometry)?;
            refused += usize::from(!timed.passes);
            sink(Event::Object(
                json!({"event": "variant", "elements": n, "origin": choice.origin,
                "constants": choice.geometry, "passes": timed.passes, "summary": timed.summary,
                "bytes": timed.bytes, "gbps": timed.gbps(), "stream_us": timed.floor}),
            ));
            let mut row = vec![
                n.to_string(),
                format!("{:?}", choice.origin),
                geometry_text(&choice.geometry),
            ];
            row.extend(timed.cells());
            rows.push(row);
        }
    }
    sink(Event::Table(rows));
    Ok(Verdict::of(refused))
}

/// Vectors of one size, and the floor of launches over them.
pub(super) struct Clock<'a> {
    session: &'a BenchSession<'a>,
    vectors: Vectors,
    plan: Plan,
    bytes: usize,
    floor: f64,
}

impl<'a> Clock<'a> {
    /// Uploads sets that take turns, and times the streaming kernel over them.
    pub(super) fn new(
        session: &'a BenchSession<'a>,
        options: &BenchOptions,
        n: u32,
    ) -> Result<Self, MeasureError> {
        let bytes = n as usize * BYTES_PER_ELEMENT;
        let l2 = session.context.device().l2_bytes;
        let sets = if options.cold { cold_sets(l2, bytes) } else { 1 };
        let stream = session.context.cuda().default_stream();
        let vectors = Vectors::new(&stream, n, sets, session.seed)?;
        let plan = Plan {
            launches_per_graph: session.plan.launches_per_graph.max(sets),
            ..session.plan
        };
        let result = stream.alloc_zeros::<u32>(1)?;
        let sink = Tensor::all_of(&stream, &result, Dtype::U32);
        // SAFETY: the sets and the word outlive the call.
        let floor = unsafe { session.floor(&plan, &vectors.streamed(), sink) }?;
        Ok(Self {
            session,
            vectors,
            plan,
            bytes,
            floor,
        })
    }

    /// Compares one geometry with the reference, then times it.
    pub(super) fn time(&mut self, geometry: &Geometry) -> Result<Timed, MeasureError> {
        let (jit, context) = (self.session.jit, &self.session.context);
        let kernel = jit.load(&spec(jit, geometry, self.session.arch())?, context)?;
        let bound = self.vectors.bind(&kernel)?;
        let passes = self.vectors.check(&bound)?.is_exact();
        let mut summary = None;
        if passes {
            let launch = &mut |i, stream| self.vectors.launch(&bound, i, stream);
            summary = Summary::of(&sample(context, &self.plan, launch)?);
        }
        Ok(Timed {
            passes,
            summary,
            bytes: self.bytes,
            floor: self.floor,
        })
    }
}
