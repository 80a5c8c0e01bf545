//! What a family can do besides being compiled: be verified, benchmarked, tuned, and
//! timed by regions, on a GPU.
//!
//! Invariant: a harness neither prints nor reads a command line. It is given
//! [`Options`] by name and tells what it finds as [`Event`]s; who asked decides what
//! becomes of them.

mod event;
mod options;

pub use event::{Event, Verdict};
pub use options::{Flag, Options};

use crate::engine::jit::Jit;
use crate::engine::request::spec::KernelSpec;
use crate::engine::request::template::NamedFamily;
use crate::engine::run::device::Device;
use crate::measure::MeasureError;
use crate::measure::region::Run;
use crate::measure::tune::{Geometry, Gpu, Problem};

/// What may be asked of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Compare a kernel's results with a reference.
    Verify,
    /// Verify, then time.
    Bench,
    /// Time geometries, and keep the fastest.
    Tune,
    /// Time a launch by regions.
    Regions,
}

impl Verb {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Bench => "bench",
            Self::Tune => "tune",
            Self::Regions => "regions",
        }
    }
}

/// A request: who makes kernels, for which family, and with which options.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// Makes and loads the kernels; its settings hold the constants that were set.
    pub jit: &'a Jit,
    /// The name under which the family was asked for, one of [`Harness::names`] or one that
    /// the family had.
    pub name: &'a str,
    /// What was asked.
    pub options: &'a Options,
}

/// Who hears of events, in order.
pub type Sink<'a> = dyn FnMut(Event) + 'a;

/// The measuring side of one family, or of a few that are measured together.
///
/// Every verb has a default: it is not offered. A verb validates what was asked before it
/// looks for a GPU, so that a wrong option is told as such everywhere.
pub trait Harness: Sync {
    /// Names that it answers to, the family's first; former names of the family are known
    /// from its declaration. None of what measures any family.
    fn names(&self) -> &'static [&'static str];

    /// One line for people: what is measured, and against what.
    fn about(&self) -> &'static str;

    /// The flags that a verb of it takes; `None` where it does not offer the verb.
    fn flags(&self, verb: Verb) -> Option<&'static [Flag]>;

    /// Whether a verb is about this family where nobody names one; of one family for each
    /// verb.
    fn is_usual(&self, verb: Verb) -> bool {
        let _ = verb;
        false
    }

    /// Compares results with a reference.
    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let _ = sink;
        Err(self.not_offered(session, Verb::Verify))
    }

    /// Verifies, then times; what is refused by the reference is not timed.
    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let _ = sink;
        Err(self.not_offered(session, Verb::Bench))
    }

    /// Times geometries, and keeps the fastest beside the cache.
    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        let _ = sink;
        Err(self.not_offered(session, Verb::Tune))
    }

    /// Times launches of so many tokens by regions, of every variant that the settings ask
    /// for, each first held to its reference.
    fn live(&self, session: Session<'_>, tokens: u32) -> Result<Vec<Run>, MeasureError> {
        let _ = tokens;
        Err(self.not_offered(session, Verb::Regions))
    }

    /// The geometry by rule; empty where there is none.
    fn rule(&self, gpu: &Gpu, problem: &Problem) -> Geometry {
        let _ = (gpu, problem);
        Geometry::new()
    }

    /// Every variant that a dispatch by code of its own can come to on a GPU, which need not
    /// be here, for what the settings ask of the family; `None` where it has no such code.
    fn dispatched(
        &self,
        jit: &Jit,
        named: &NamedFamily,
        device: &Device,
    ) -> Result<Option<Vec<KernelSpec>>, MeasureError> {
        let _ = (jit, named, device);
        Ok(None)
    }

    /// The error of a verb that is not offered.
    fn not_offered(&self, session: Session<'_>, verb: Verb) -> MeasureError {
        MeasureError::Request(format!("{}: {} is not offered for it", session.name, verb.name()))
    }
}
