//! The decode layer as something that is measured.
//!
//! Invariant: options become a typed request here, before a GPU is looked for.

use super::bench::{self, LayerBenchRequest};
use super::tune::{self, TuneRequest};
use super::verify::{self, VerifyRequest};
use super::{FAMILY, regions};
use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::NamedFamily;
use crate::engine::run::device::Device;
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};
use crate::measure::region::Run;
use crate::measure::tune::{Geometry, Gpu, Problem};

/// The layer, cooperative or ordinary.
pub const HARNESS: &dyn Harness = &DecodeLayer;

/// What it is called for short, where it is measured.
const LAYER: &str = "layer";

struct DecodeLayer;

/// A name that it is measured under as the registry knows it.
fn family(name: &str) -> &str {
    if name == LAYER { FAMILY } else { name }
}

impl Harness for DecodeLayer {
    fn names(&self) -> &'static [&'static str] {
        &[FAMILY, LAYER]
    }

    fn about(&self) -> &'static str {
        "the decode layer, every stage against its reference"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(verify::FLAGS),
            Verb::Tune => Some(tune::FLAGS),
            Verb::Regions => Some(&[]),
            Verb::Bench => Some(bench::FLAGS),
        }
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = VerifyRequest::new(session.jit.registry(), family(session.name), session.options)?;
        verify::verify(session.jit, &request, sink)
    }

    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = LayerBenchRequest::new(session.jit.registry(), family(session.name), session.options)?;
        bench::bench(session.jit, &request, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = TuneRequest::new(session.jit, family(session.name), session.options)?;
        tune::tune(session.jit, &request, sink)
    }

    fn live(&self, session: Session<'_>, tokens: u32) -> Result<Vec<Run>, MeasureError> {
        regions::live(session.jit, family(session.name), tokens)
    }

    fn dispatched(
        &self,
        jit: &Jit,
        named: &NamedFamily,
        device: &Device,
    ) -> Result<Option<Vec<KernelSpec>>, MeasureError> {
        tune::dispatched(jit, named, device).map(Some)
    }

    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        tune::heuristic(gpu, problem)
    }
}
