//! Any family, measured by its declaration: inputs from its declared parameters, sizes from
//! the command line or its TOML, results held to another variant or to a file.
//!
//! Invariant: nothing is known of what a kernel computes, so nothing is called right that
//! was not compared with something; and all that was asked is checked before a GPU is
//! looked for.

mod asked;
mod bench;
mod choose;
mod draw;
mod judge;
mod memory;
mod plan;
mod race;
mod tune;
mod verify;

use crate::measure::MeasureError;
use crate::measure::bench::{COLD, DRY_RUN, LAUNCHES, METHOD, SEED, SPACE, WARM};
use crate::measure::harness::{Flag, Harness, Session, Sink, Verb, Verdict};

/// Any family as something that is measured.
pub const HARNESS: &dyn Harness = &Declared;

/// Sizes of a launch.
const SIZE: Flag = Flag::repeated(
    "size",
    "NAME=LIST",
    "A launch size, or a size of [dispatch]; a measurement for each [default: of [measure.sizes]]",
);
/// Scalars of a launch.
const VALUE: Flag = Flag::repeated("value", "NAME=NUMBER", "A scalar that the kernel takes");
/// What memory holds.
const FILL: Flag = Flag::repeated(
    "fill",
    "NAME=FILL",
    "What a parameter holds: uniform, normal, zeros, ones, iota, a number, a FILE.npy, or a table as in TOML",
);
/// One entry point of several.
const ENTRY: Flag = Flag::new(
    "entry",
    "NAME",
    None,
    "The entry point to launch [default: all, which take one list]",
);
/// What results are held to.
const AGAINST: Flag = Flag::repeated(
    "against",
    "WHAT",
    "What results are compared with: NAME=VALUE,.. of constants, `defaults`, or [OUTPUT=]FILE.npy",
);
const RTOL: Flag = Flag::new(
    "rtol",
    "NUMBER",
    None,
    "Relative tolerance [default: of [measure], else bits are compared]",
);
const ATOL: Flag = Flag::new("atol", "NUMBER", None, "Absolute tolerance");
const SAVE: Flag = Flag::new(
    "save",
    "DIR",
    None,
    "Folder for the inputs, written before a GPU is looked for, and the outputs: NAME.npy each",
);
const MARGIN: Flag = Flag::new(
    "margin",
    "PART",
    None,
    "By what part of its time the rules' choice has to be beaten [default: of [tune], else 0.02]",
);

const VERIFY: &[Flag] = &[AGAINST, RTOL, ATOL, SIZE, VALUE, FILL, ENTRY, SEED, SAVE];
const BENCH: &[Flag] = &[
    SIZE, VALUE, FILL, ENTRY, AGAINST, RTOL, ATOL, METHOD, COLD, WARM, LAUNCHES, SEED,
];
const TUNE: &[Flag] = &[
    SPACE, DRY_RUN, MARGIN, SIZE, VALUE, FILL, ENTRY, RTOL, ATOL, METHOD, COLD, WARM, LAUNCHES, SEED,
];

struct Declared;

impl Harness for Declared {
    fn names(&self) -> &'static [&'static str] {
        &[]
    }

    fn about(&self) -> &'static str {
        "any other family that declares its parameters: inputs are made from these"
    }

    fn flags(&self, verb: Verb) -> Option<&'static [Flag]> {
        match verb {
            Verb::Verify => Some(VERIFY),
            Verb::Bench => Some(BENCH),
            Verb::Tune => Some(TUNE),
            // Regions of any family have a way of their own.
            Verb::Regions => None,
        }
    }

    fn verify(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        verify::verify(session, sink)
    }

    fn bench(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        bench::bench(session, sink)
    }

    fn tune(&self, session: Session<'_>, sink: &mut Sink<'_>) -> Result<Verdict, MeasureError> {
        tune::tune(session, sink)
    }
}
