//! What one launch of a check of `wo_gemv` gave, and the table of all of them.
//!
//! Invariant: a case is right if every bit of partials and outputs is; distances from
//! other sums are shown, never judged.

use std::collections::BTreeMap;

use super::super::reference::{WoOutput, WoShape};
use crate::measure::compare::{Comparison, Drift, compare, drift};

/// JSON has no infinity: a NaN on either side shows as null.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// What a launch must give, and what it is measured against without being judged.
pub(super) struct Expected<'a> {
    pub wo: WoOutput,
    pub chained: &'a [f32],
    pub float64: &'a [f64],
}

/// One launch, compared.
pub(super) struct Case {
    pub num_tokens: usize,
    pub partials: Comparison,
    pub output: Comparison,
    pub from_chained: Drift,
    pub from_float64: Drift,
}

impl Case {
    /// The references hold the most tokens; a launch has the first `num_tokens` of them.
    pub(super) fn new(
        shape: &WoShape,
        num_tokens: usize,
        expected: &Expected<'_>,
        actual: &WoOutput,
    ) -> Self {
        let rows = num_tokens * shape.hidden;
        let chained: Vec<f64> = expected.chained[..rows].iter().map(|v| f64::from(*v)).collect();
        let partials = &expected.wo.partials[..rows * shape.num_slots()];
        Self {
            num_tokens,
            partials: compare(partials, &actual.partials),
            output: compare(&expected.wo.output[..rows], &actual.output),
            from_chained: drift(&actual.output, &chained),
            from_float64: drift(&actual.output, &expected.float64[..rows]),
        }
    }

    fn is_exact(&self) -> bool {
        self.partials.is_exact() && self.output.is_exact()
    }
}

/// Cases of one shape, mode, geometry and split.
#[derive(Default)]
struct Line {
    cases: usize,
    wrong: usize,
    max_abs: f64,
    from_chained: f64,
    from_float64: f64,
}

#[derive(Default)]
pub(super) struct Tally {
    pub cases: usize,
    pub wrong: usize,
    lines: BTreeMap<(String, String, String, usize), Line>,
}

impl Tally {
    pub(super) fn add(&mut self, shape: &WoShape, mode: &str, geometry: &str, case: &Case) {
        let wrong = usize::from(!case.is_exact());
        self.cases += 1;
        self.wrong += wrong;
        let name = format!("{} x {}", shape.hidden, shape.k);
        let key = (name, geometry.to_owned(), mode.to_owned(), shape.wo_split);
        let line = self.lines.entry(key).or_default();
        line.cases += 1;
        line.wrong += wrong;
        line.max_abs = line.max_abs.max(case.partials.max_abs).max(case.output.max_abs);
        line.from_chained = line.from_chained.max(case.from_chained.relative_l2);
        line.from_float64 = line.from_float64.max(case.from_float64.relative_l2);
    }

    pub(super) fn table(&self) -> Vec<Vec<String>> {
        let heading = [
            "shape",
            "geometry",
            "accumulate",
            "split",
            "cases",
            "wrong",
            "max_abs",
            "drift from chained",
            "drift from float64",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for ((shape, geometry, mode, split), line) in &self.lines {
            rows.push(vec![
                shape.clone(),
                geometry.clone(),
                mode.clone(),
                split.to_string(),
                line.cases.to_string(),
                line.wrong.to_string(),
                format!("{:?}", line.max_abs),
                format!("{:.2e}", line.from_chained),
                format!("{:.2e}", line.from_float64),
            ]);
        }
        rows
    }
}
