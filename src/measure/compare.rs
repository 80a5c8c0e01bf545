//! Judging results: equal to the bit, or how far off.
//!
//! Invariant: what is not equal bit for bit, or is NaN, is never reported as
//! a difference of zero mismatches, and NaN never as a distance of zero.

/// The smallest divisor of a relative difference, so that a zero in the
/// reference does not divide by zero.
pub const RELATIVE_FLOOR: f64 = 1e-30;

/// The first element that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Index into the flattened tensors.
    pub index: usize,
    /// Bits of the reference's f32.
    pub expected_bits: u32,
    /// Bits of the f32 under test.
    pub actual_bits: u32,
}

/// Two f32 tensors compared to the bit.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Largest |actual - expected|, differences taken in f64; infinite if a
    /// NaN is on either side.
    pub max_abs: f64,
    /// Largest |actual - expected| / max(|expected|, [`RELATIVE_FLOOR`]);
    /// infinite if a NaN is on either side.
    pub max_rel: f64,
    /// The mismatch of lowest index.
    pub first_mismatch: Option<Mismatch>,
    /// Elements whose bits differ or that are NaN on either side. 0.0 against
    /// -0.0 counts, although its difference is 0; so does NaN against the
    /// same NaN.
    pub mismatches: usize,
    /// Elements compared.
    pub elements: usize,
}

impl Comparison {
    /// Whether all elements are equal to the bit and none is NaN.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.mismatches == 0
    }
}

/// Compares `actual` to `expected` bit by bit.
///
/// # Panics
///
/// If the lengths differ: the caller compared two different tensors.
#[must_use]
pub fn compare(expected: &[f32], actual: &[f32]) -> Comparison {
    assert_eq!(expected.len(), actual.len(), "tensors of one shape");
    let mut comparison = Comparison {
        max_abs: 0.0,
        max_rel: 0.0,
        first_mismatch: None,
        mismatches: 0,
        elements: expected.len(),
    };
    for (index, (e, a)) in expected.iter().zip(actual).enumerate() {
        if e.to_bits() == a.to_bits() && !e.is_nan() {
            continue;
        }
        comparison.mismatches += 1;
        comparison.first_mismatch.get_or_insert(Mismatch {
            index,
            expected_bits: e.to_bits(),
            actual_bits: a.to_bits(),
        });
        let distance = Distance::of(f64::from(*e), f64::from(*a));
        comparison.max_abs = comparison.max_abs.max(distance.abs);
        comparison.max_rel = comparison.max_rel.max(distance.rel);
    }
    comparison
}

/// How far f32 results lie from a float64 yardstick. Reported, not judged.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Drift {
    /// Largest |actual - yardstick|; infinite if a NaN is on either side.
    pub max_abs: f64,
    /// Largest |actual - yardstick| / max(|yardstick|, [`RELATIVE_FLOOR`]).
    /// Cancellation makes single elements large: see `relative_l2`.
    pub max_rel: f64,
    /// Euclidean norm of the differences over that of the yardstick; 0 for
    /// two zero tensors, infinite if a NaN is on either side.
    pub relative_l2: f64,
}

/// Whether both are of one length and have the same bits throughout.
#[must_use]
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Measures `actual` against a float64 `yardstick`.
///
/// # Panics
///
/// If the lengths differ: the caller compared two different tensors.
#[must_use]
pub fn drift(actual: &[f32], yardstick: &[f64]) -> Drift {
    assert_eq!(actual.len(), yardstick.len(), "tensors of one shape");
    let (mut max_abs, mut max_rel) = (0.0f64, 0.0f64);
    let (mut error_square, mut reference_square) = (0.0, 0.0);
    for (a, y) in actual.iter().zip(yardstick) {
        let distance = Distance::of(*y, f64::from(*a));
        max_abs = max_abs.max(distance.abs);
        max_rel = max_rel.max(distance.rel);
        error_square += distance.abs * distance.abs;
        reference_square += y * y;
    }
    let relative_l2 = if error_square == 0.0 {
        0.0
    } else if error_square.is_infinite() {
        f64::INFINITY
    } else {
        (error_square / reference_square).sqrt()
    };
    Drift {
        max_abs,
        max_rel,
        relative_l2,
    }
}

/// One element's difference, never NaN: `f64::max` would drop a NaN.
struct Distance {
    abs: f64,
    rel: f64,
}

impl Distance {
    fn of(reference: f64, actual: f64) -> Self {
        let abs = if reference.to_bits() == actual.to_bits() && !reference.is_nan() {
            0.0
        } else {
            (actual - reference).abs()
        };
        let rel = abs / reference.abs().max(RELATIVE_FLOOR);
        let or_infinite = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
        Self {
            abs: or_infinite(abs),
            rel: or_infinite(rel),
        }
    }
}

/// The largest magnitude; 0 of none.
#[must_use]
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bits_are_exact() {
        let values = [0.0, -0.0, 1.5, f32::INFINITY, f32::from_bits(1)];
        let comparison = compare(&values, &values);
        assert!(comparison.is_exact());
        assert_eq!(comparison.first_mismatch, None);
        assert_eq!((comparison.max_abs, comparison.max_rel), (0.0, 0.0));
        assert_eq!(comparison.elements, 5);
    }

    #[test]
    fn the_first_mismatch_carries_its_index_and_both_bit_patterns() {
        let comparison = compare(&[1.0, 2.0, -4.0, 8.0], &[1.0, 2.5, -3.0, 8.0]);
        assert!(!comparison.is_exact());
        assert_eq!(comparison.mismatches, 2);
        assert_eq!(
            comparison.first_mismatch,
            Some(Mismatch {
                index: 1,
                expected_bits: 2.0f32.to_bits(),
                actual_bits: 2.5f32.to_bits(),
            })
        );
        assert_eq!((comparison.max_abs, comparison.max_rel), (1.0, 0.25));
    }

    #[test]
    fn zeros_of_different_sign_are_a_mismatch_of_distance_zero() {
        let comparison = compare(&[0.0], &[-0.0]);
        assert_eq!(comparison.mismatches, 1);
        assert_eq!((comparison.max_abs, comparison.max_rel), (0.0, 0.0));
    }

    #[test]
    fn nan_on_any_side_is_an_infinite_mismatch_even_against_itself() {
        for (expected, actual) in [
            (f32::NAN, f32::NAN),
            (f32::NAN, 0.0),
            (0.0, f32::NAN),
            (f32::NAN, f32::INFINITY),
        ] {
            let comparison = compare(&[1.0, expected], &[1.0, actual]);
            assert_eq!(comparison.mismatches, 1);
            assert_eq!(comparison.max_abs, f64::INFINITY);
            assert_eq!(comparison.max_rel, f64::INFINITY);
        }
    }

    #[test]
    fn a_nan_is_not_hidden_by_later_elements() {
        let comparison = compare(&[1.0, 1.0, 1.0], &[f32::NAN, 2.0, 1.0]);
        assert_eq!(comparison.max_abs, f64::INFINITY);
        assert_eq!(comparison.mismatches, 2);
    }

    #[test]
    fn infinities_of_different_sign_are_infinitely_far_apart() {
        let comparison = compare(&[f32::INFINITY], &[f32::NEG_INFINITY]);
        assert_eq!(comparison.max_abs, f64::INFINITY);
        assert_eq!(comparison.max_rel, f64::INFINITY);
    }

    #[test]
    fn a_zero_reference_is_divided_by_the_floor() {
        let comparison = compare(&[0.0], &[1.0]);
        assert!((comparison.max_rel / 1e30 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn drift_reports_the_largest_and_the_overall_difference() {
        let measured = drift(&[3.0, 4.5], &[3.0, 4.0]);
        assert_eq!((measured.max_abs, measured.max_rel), (0.5, 0.125));
        assert!((measured.relative_l2 - 0.1).abs() < 1e-15);
        assert_eq!(drift(&[0.0], &[0.0]).relative_l2, 0.0);
        assert_eq!(drift(&[1.0], &[0.0]).relative_l2, f64::INFINITY);
    }

    #[test]
    fn drift_from_or_to_nan_is_infinite() {
        for measured in [drift(&[f32::NAN], &[1.0]), drift(&[1.0], &[f64::NAN])] {
            assert_eq!(measured.max_abs, f64::INFINITY);
            assert_eq!(measured.max_rel, f64::INFINITY);
            assert_eq!(measured.relative_l2, f64::INFINITY);
        }
    }

    #[test]
    #[should_panic(expected = "tensors of one shape")]
    fn tensors_of_different_length_are_refused() {
        let _ = compare(&[1.0], &[1.0, 2.0]);
    }
}
