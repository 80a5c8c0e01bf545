//! The decode layer as something that is measured.
//!
//! Invariant: options become a typed request here, before a GPU is looked for.

use super::FAMILIES;
use super::tune::{self, TuneRequest};
use super::verify::{self, VerifyRequest};
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};
use crate::measure::tune::{Geometry, Gpu, Problem};

/// The layer, cooperative or ordinary.
pub const HARNESS: &dyn Harness = &DecodeLayer;

struct DecodeLayer;

impl Harness for DecodeLayer {
    fn names(&self) -> &'static [&'static str] {
        &FAMILIES
    }

    fn about(&self) -> &'static str {
        "the decode layer, every stage against its reference"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(verify::FLAGS),
            Verb::Tune => Some(tune::FLAGS),
            Verb::Bench | Verb::Regions => None,
        }
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = VerifyRequest::new(session.name, session.options)?;
        verify::verify(session.jit, &request, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = TuneRequest::new(session.jit, session.name, session.options)?;
        tune::tune(session.jit, &request, sink)
    }

    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        tune::heuristic(gpu, problem)
    }
}
