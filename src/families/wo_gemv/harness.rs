//! `wo_gemv` as something that is measured.
//!
//! Invariant: options become a typed request here, before a GPU is looked for.

use super::FAMILY;
use super::bench::{self, BenchRequest};
use super::geometry;
use super::regions;
use super::tune::{self, TuneRequest};
use super::verify::{self, VerifyRequest};
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};
use crate::measure::region::Run;
use crate::measure::tune::{Geometry, Gpu, Problem};

/// `wo_gemv`, all of its geometries and modes.
pub const HARNESS: &dyn Harness = &WoGemv;

struct WoGemv;

impl Harness for WoGemv {
    fn names(&self) -> &'static [&'static str] {
        &[FAMILY]
    }

    fn about(&self) -> &'static str {
        "the output projection, bit for bit; tensor cores against float64"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(verify::FLAGS),
            Verb::Bench => Some(bench::FLAGS),
            Verb::Tune => Some(tune::FLAGS),
            Verb::Regions => Some(&[]),
        }
    }

    fn is_usual(&self, verb: Verb) -> bool {
        verb != Verb::Regions
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = VerifyRequest::new(session.options)?;
        verify::verify(session.jit, &request, sink)
    }

    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = BenchRequest::new(session.jit, session.options)?;
        bench::bench(session.jit, &request, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = TuneRequest::new(session.jit, session.options)?;
        tune::tune(session.jit, &request, sink)
    }

    fn live(&self, session: Session<'_>, tokens: u32) -> Result<Vec<Run>, MeasureError> {
        regions::live(session.jit, tokens)
    }

    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        geometry::heuristic(gpu, problem)
    }
}
