//! The decode layer as something that is measured.
//!
//! Invariant: options become a typed request here, before a GPU is looked for.

use super::bench::{self, LayerBenchRequest};
use super::tune::{self, TuneRequest};
use super::verify::{self, VerifyRequest};
use super::{FAMILY, regions};
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};
use crate::measure::region::Run;
use crate::measure::tune::{Geometry, Gpu, Problem};

/// The layer, cooperative or ordinary.
pub const HARNESS: &dyn Harness = &DecodeLayer;

/// All ways to run the layer side by side.
pub const BENCH: &dyn Harness = &LayerBench;

struct DecodeLayer;

struct LayerBench;

impl Harness for DecodeLayer {
    fn names(&self) -> &'static [&'static str] {
        &[FAMILY]
    }

    fn about(&self) -> &'static str {
        "the decode layer, every stage against its reference"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(verify::FLAGS),
            Verb::Tune => Some(tune::FLAGS),
            Verb::Regions => Some(&[]),
            Verb::Bench => None,
        }
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = VerifyRequest::new(session.jit.registry(), session.name, session.options)?;
        verify::verify(session.jit, &request, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = TuneRequest::new(session.jit, session.name, session.options)?;
        tune::tune(session.jit, &request, sink)
    }

    fn live(&self, session: Session<'_>, tokens: u32) -> Result<Vec<Run>, MeasureError> {
        regions::live(session.jit, session.name, tokens)
    }

    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        tune::heuristic(gpu, problem)
    }
}

impl Harness for LayerBench {
    fn names(&self) -> &'static [&'static str] {
        &["layer"]
    }

    fn about(&self) -> &'static str {
        "the decode layer in one launch, in separate ones, and as kernels of their own, side by side"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        (verb == Verb::Bench).then_some(bench::FLAGS)
    }

    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = LayerBenchRequest::new(session.options)?;
        bench::bench(session.jit, &request, sink)
    }
}
