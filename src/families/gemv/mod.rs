//! `gemv`: a plain GEMV over NVFP4 weights by tensor cores, for any number of rows.
//!
//! Invariant: its reference is that of [`wo_gemv`](super::wo_gemv), over one head.

mod config;
pub mod verify;

use crate::families::wo_gemv::verify::{DEVICE, QUICK, SEEDS, VerifyRequest};
use crate::measure::MeasureError;
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};

pub use config::GemvConfig;

/// Name of the family.
pub const FAMILY: &str = "gemv";

/// `gemv` as something that is measured.
pub const HARNESS: &dyn Harness = &Gemv;

struct Gemv;

impl Harness for Gemv {
    fn names(&self) -> &'static [&'static str] {
        &[FAMILY]
    }

    fn about(&self) -> &'static str {
        "any NVFP4 GEMV by tensor cores, against float64"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        (verb == Verb::Verify).then_some(&[SEEDS, QUICK, DEVICE])
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let request = VerifyRequest::new(session.options)?;
        verify::verify(session.jit, &request, sink)
    }
}
