//! `axpy`: y = a x + y over f32 vectors. The worked example of a built-in family: all that
//! one has, and nothing that one does not need.
//!
//! Invariant: geometry never changes bits. An element is one fused multiply-add, whoever
//! works it out.

pub mod bench;
pub mod tune;
mod vectors;
pub mod verify;

use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::target::Arch;
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};
use crate::measure::tune::{Geometry, Gpu, Problem};

/// Name of the family.
pub const FAMILY: &str = "axpy";

/// `axpy` as something that is measured.
pub const HARNESS: &dyn Harness = &Axpy;

struct Axpy;

impl Harness for Axpy {
    fn names(&self) -> &'static [&'static str] {
        &[FAMILY]
    }

    fn about(&self) -> &'static str {
        "y = a x + y, bit for bit"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(verify::FLAGS),
            Verb::Bench => Some(bench::FLAGS),
            Verb::Tune => Some(tune::FLAGS),
            // Regions and parameters are declared: these are timed without any code.
            Verb::Regions => None,
        }
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        verify::verify(session.jit, session.options, sink)
    }

    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        bench::bench(session.jit, session.options, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        tune::tune(session.jit, session.options, sink)
    }

    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        tune::rule(gpu, problem)
    }
}

/// A geometry as a spec.
fn spec(jit: &Jit, geometry: &Geometry, arch: Arch) -> Result<KernelSpec, MeasureError> {
    let set = geometry
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(KernelSpec::new(jit.registry().get(FAMILY)?, set, arch)?)
}
