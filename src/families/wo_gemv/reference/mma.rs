//! What tensor-core results are held to: float64, and the exact mode's own distance
//! from it.
//!
//! Invariant: a result that is not finite where float64 is, or that differs between
//! two launches, never passes.

use crate::families::nvfp4::{e4m3, fp4, swizzle};
use crate::measure::compare::{Drift, drift};

/// How much farther from float64 than the exact mode a tensor-core result may be.
pub const FACTOR: f64 = 2.0;

/// Tensor-core and exact results against the same yardstick.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Accuracy {
    /// Of the result under test.
    pub mma: Drift,
    /// Of the exact mode on the same inputs.
    pub exact: Drift,
}

impl Accuracy {
    /// Measures a result and the exact mode's against float64.
    ///
    /// # Panics
    ///
    /// If the lengths differ: the caller compared two different tensors.
    #[must_use]
    pub fn of(mma: &[f32], exact: &[f32], yardstick: &[f64]) -> Self {
        Self {
            mma: drift(mma, yardstick),
            exact: drift(exact, yardstick),
        }
    }

    /// Whether the result is within [`FACTOR`] of the exact mode's distance, overall
    /// and for the worst element. A half ulp of the largest value is always granted:
    /// the exact mode may have hit float64 by luck.
    #[must_use]
    pub fn passes(&self, largest: f64) -> bool {
        let ulp = f64::from(f32::EPSILON);
        self.mma.relative_l2 <= FACTOR * self.exact.relative_l2.max(ulp / 4.0)
            && self.mma.max_abs <= FACTOR * self.exact.max_abs.max(ulp / 4.0 * largest)
    }
}

/// Weights `[rows, K]` as checkpoints hold them: per 16 k the E4M3 scale that puts the
/// largest at 6, and the nearest codes under it. Codes `[rows, K/2]` and swizzled scales.
#[must_use]
pub fn quantize(weights: &[f32], rows: usize, k: usize, global_scale: f32) -> (Vec<u8>, Vec<u8>) {
    let mut codes = Vec::with_capacity(rows * k / 2);
    let mut scales = Vec::with_capacity(rows * k / 16);
    for group in weights.chunks(16) {
        let largest = group.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
        let scale = e4m3::encode(largest / fp4::MAX / global_scale);
        scales.push(scale);
        let step = e4m3::decode(scale) * global_scale;
        for pair in group.chunks(2) {
            let code = |w: f32| if step == 0.0 { 0 } else { fp4::encode(w / step) };
            codes.push(code(pair[0]) | code(pair[1]) << 4);
        }
    }
    (codes, swizzle::swizzle(&scales, rows, k / 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantized_group_reaches_the_largest_code_and_rounds_the_rest() {
        let mut weights = [0.0_f32; 16];
        (weights[0], weights[1], weights[5]) = (6.0, -3.1, 0.4);
        let (codes, scales) = quantize(&weights, 1, 16, 1.0);
        assert_eq!((codes[0], codes[2], scales[0]), (0xd7, 0x10, 0x38));
    }

    #[test]
    fn as_far_as_twice_the_exact_mode_passes_and_farther_does_not() {
        let (exact, yardstick) = ([1.0 + 1e-5, 2.0], [1.0, 2.0]);
        let of = |error: f32| Accuracy::of(&[1.0 + error, 2.0], &exact, &yardstick).passes(2.0);
        assert!(of(1.9e-5));
        assert!(!of(2.2e-5));
        assert!(!of(f32::NAN));
    }

    #[test]
    fn half_an_ulp_of_the_largest_is_granted_where_the_exact_mode_has_no_error() {
        let of = |value: f32| Accuracy::of(&[value, 1.0], &[1.0, 1.0], &[1.0, 1.0]).passes(1.0);
        assert!(of(1.0f32.next_down()));
        assert!(!of(1.0 + 4.0 * f32::EPSILON));
    }
}
