//! What lets a variant through to the clock: the reference, and a second launch.
//!
//! Invariant: the exact modes are held to every bit; tensor cores to twice the exact
//! mode's distance from float64; all of them to the bits of a second launch.

use std::io;
use std::path::Path;

use super::super::config::Accumulate;
use super::super::reference::{WoOutput, WoShape};
use super::files;
use super::session::Inputs;
use crate::engine::run::bind::BoundKernel;
use crate::measure::MeasureError;
use crate::measure::compare::{Comparison, Drift, compare, drift, same_bits};
use crate::measure::run_files::write_json;

/// What was found of one variant.
pub(super) struct Gate {
    pub(super) passes: bool,
    /// Whether a second launch wrote the same bits.
    repeats: bool,
    is_exact: bool,
    wo_split: usize,
    sums: Comparison,
    partials: Comparison,
    chained: Comparison,
    /// Its distance from float64.
    pub(super) drift: Drift,
    /// The exact mode's.
    exact_drift: Drift,
}

impl Gate {
    /// Launches twice, and compares.
    pub(super) fn of(
        inputs: &mut Inputs,
        bound: &[BoundKernel],
        shape: &WoShape,
        accumulate: Accumulate,
        tokens: u32,
    ) -> Result<Self, MeasureError> {
        let mut actual: WoOutput = inputs.buffers.run(bound, shape, tokens)?;
        let again = inputs.buffers.run(bound, shape, tokens)?;
        let repeats =
            same_bits(&actual.partials, &again.partials) && same_bits(&actual.output, &again.output);
        if !repeats {
            // The gate judges what the second launch wrote: the first one left something behind.
            actual = again;
        }
        let len = actual.output.len();
        let expected = &inputs.ordered[&(shape.wo_split, accumulate.is_fused())];
        let sums = compare(&expected.output[..len], &actual.output);
        let partials = compare(&expected.partials[..actual.partials.len()], &actual.partials);
        let drift_of_actual = drift(&actual.output, &inputs.float64[..len]);
        let exact_drift = drift(&expected.output[..len], &inputs.float64[..len]);
        let is_right = if accumulate.is_exact() {
            sums.is_exact() && partials.is_exact()
        } else {
            drift_of_actual.relative_l2 <= 2.0 * exact_drift.relative_l2
        };
        Ok(Self {
            passes: repeats && is_right,
            repeats,
            is_exact: accumulate.is_exact(),
            wo_split: shape.wo_split,
            chained: compare(&inputs.chained.output[..len], &actual.output),
            sums,
            partials,
            drift: drift_of_actual,
            exact_drift,
        })
    }

    /// The largest difference from the reference.
    pub(super) fn max_abs(&self) -> f64 {
        self.sums.max_abs.max(self.partials.max_abs)
    }

    /// Why a variant is not timed.
    pub(super) fn refusal(&self, folder: &str) -> String {
        format!(
            "{folder}: the gate refuses it{}: {} of {} sums differ, largest by {}; not timed",
            if self.repeats {
                ""
            } else {
                " (two launches differ)"
            },
            self.sums.mismatches,
            self.sums.elements,
            self.sums.max_abs
        )
    }

    /// Writes its three files.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let gate = files::gate(self.passes, &self.sums, self.is_exact, self.wo_split);
        write_json(dir, "correctness_gate_split_order.json", &gate)?;
        let chained = files::chained(&self.chained);
        write_json(dir, "correctness_vs_chained.json", &chained)?;
        let float64 = files::float64(&self.drift, &self.exact_drift);
        write_json(dir, "correctness_vs_float64.json", &float64)
    }
}
