//! Results of any type compared: equal to the bit, or within a tolerance.
//!
//! Invariant: an element that is NaN on either side is never equal, and results of another
//! shape are never compared.

use crate::engine::request::template::Measured;
use crate::measure::MeasureError;
use crate::measure::compare::RELATIVE_FLOOR;
use crate::measure::harness::Options;
use crate::measure::npy::Elements;
use crate::measure::number::{bits_of, lanes, value};

/// How far apart results may be: |actual - expected| <= atol + rtol |expected|. Without
/// either, bits are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tolerance {
    pub(super) rtol: Option<f64>,
    pub(super) atol: Option<f64>,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    /// Elements compared.
    pub(super) elements: usize,
    /// Those that differ.
    pub(super) differing: usize,
    /// Largest difference; infinite of NaN.
    pub(super) max_abs: f64,
    /// The same over what was expected.
    pub(super) max_rel: f64,
    /// The first that differs, for people.
    pub(super) first: Option<String>,
}

impl Tolerance {
    /// What was asked for, else what the family declares.
    pub(super) fn read(options: &Options, declared: &Measured) -> Result<Self, MeasureError> {
        let rtol = options.number("rtol", 0.0..=f64::MAX)?;
        let atol = options.number("atol", 0.0..=f64::MAX)?;
        Ok(match (rtol, atol) {
            (None, None) => Self {
                rtol: declared.rtol,
                atol: declared.atol,
            },
            (rtol, atol) => Self { rtol, atol },
        })
    }

    fn is_bits(self) -> bool {
        self.rtol.is_none() && self.atol.is_none()
    }

    fn allows(self, expected: f64, actual: f64) -> bool {
        let within = self.atol.unwrap_or(0.0) + self.rtol.unwrap_or(0.0) * expected.abs();
        // Of two equal infinities there is no difference.
        expected.to_bits() == actual.to_bits() && !expected.is_nan() || (actual - expected).abs() <= within
    }

    /// For people: `bit for bit`, `within rtol 0.001`.
    pub(super) fn text(self) -> String {
        let part = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value}"));
        let parts: Vec<String> = [part("rtol", self.rtol), part("atol", self.atol)]
            .into_iter()
            .flatten()
            .collect();
        if parts.is_empty() {
            "bit for bit".into()
        } else {
            format!("within {}", parts.join(", "))
        }
    }
}

impl Judged {
    pub(super) fn passes(&self) -> bool {
        self.differing == 0
    }
}

/// Compares what a launch wrote with what was expected; the text says why that cannot be.
pub(super) fn judge(expected: &Elements, actual: &Elements, tolerance: Tolerance) -> Result<Judged, String> {
    if expected.shape != actual.shape {
        return Err(format!(
            "{} {:?} was expected, and it is {} {:?}",
            expected.dtype, expected.shape, actual.dtype, actual.shape
        ));
    }
    if tolerance.is_bits() && expected.dtype != actual.dtype {
        return Err(format!(
            "{} was expected, and it is {}: two types are compared with --rtol or --atol",
            expected.dtype, actual.dtype
        ));
    }
    if lanes(expected.dtype) != lanes(actual.dtype) {
        return Err(format!(
            "{} and {} have not as many numbers each",
            expected.dtype, actual.dtype
        ));
    }
    let mut judged = Judged {
        elements: 0,
        differing: 0,
        max_abs: 0.0,
        max_rel: 0.0,
        first: None,
    };
    let all = expected.bytes.chunks_exact(expected.dtype.bytes());
    for (at, (one, other)) in all
        .zip(actual.bytes.chunks_exact(actual.dtype.bytes()))
        .enumerate()
    {
        judged.elements += 1;
        let (one, other) = (bits_of(one), bits_of(other));
        let mut same = !tolerance.is_bits() || one == other;
        for lane in 0..lanes(expected.dtype) {
            let (e, a) = (value(expected.dtype, one, lane), value(actual.dtype, other, lane));
            let nan = e.is_nan() || a.is_nan();
            same &= !nan && (tolerance.is_bits() || tolerance.allows(e, a));
            if e.to_bits() == a.to_bits() && !nan {
                continue;
            }
            let finite = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
            let distance = (a - e).abs();
            judged.max_abs = judged.max_abs.max(finite(distance));
            judged.max_rel = judged.max_rel.max(finite(distance / e.abs().max(RELATIVE_FLOOR)));
        }
        if !same {
            judged.differing += 1;
            let (e, a) = (value(expected.dtype, one, 0), value(actual.dtype, other, 0));
            judged.first.get_or_insert_with(|| {
                let place = place(&actual.shape, at);
                format!("[{place}] is {a} ({other:#x}), and {e} ({one:#x}) was expected")
            });
        }
    }
    Ok(judged)
}

/// An element's place by dimension: `3, 17`.
fn place(shape: &[usize], at: usize) -> String {
    let mut rest = at;
    let mut places: Vec<String> = (shape.iter().rev())
        .map(|length| {
            let place = rest % (*length).max(1);
            rest /= (*length).max(1);
            place.to_string()
        })
        .collect();
    places.reverse();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::dtype::Dtype;
    use crate::measure::number::bits;

    const BITS: Tolerance = Tolerance {
        rtol: None,
        atol: None,
    };

    fn of(dtype: Dtype, values: &[f64]) -> Elements {
        let bytes = values
            .iter()
            .flat_map(|v| bits(dtype, *v).to_le_bytes()[..dtype.bytes()].to_vec());
        Elements {
            dtype,
            shape: vec![values.len() / 2, 2],
            bytes: bytes.collect(),
        }
    }

    fn within(rtol: f64, atol: f64) -> Tolerance {
        Tolerance {
            rtol: Some(rtol),
            atol: Some(atol),
        }
    }

    #[test]
    fn bits_are_compared_and_nan_and_the_sign_of_zero_differ() {
        let judged = judge(
            &of(Dtype::F16, &[1.0, 0.0, f64::NAN, 2.0]),
            &of(Dtype::F16, &[1.0, -0.0, f64::NAN, 2.0]),
            BITS,
        );
        let judged = judged.expect("compared");
        assert_eq!((judged.elements, judged.differing), (4, 2));
        assert_eq!(judged.max_abs, f64::INFINITY);
        assert_eq!(
            judged.first.as_deref(),
            Some("[0, 1] is -0 (0x8000), and 0 (0x0) was expected")
        );
        let same = of(Dtype::I64, &[1.0, -7.0]);
        assert!(judge(&same, &same, BITS).expect("compared").passes());
    }

    #[test]
    fn a_tolerance_is_absolute_and_relative_and_no_nan_is_within_it() {
        let expected = of(Dtype::F32, &[100.0, 0.0, f64::INFINITY, f64::NAN]);
        let actual = of(Dtype::F32, &[100.5, 0.01, f64::INFINITY, f64::NAN]);
        let differing = |tolerance| judge(&expected, &actual, tolerance).expect("compared").differing;
        assert_eq!(differing(within(0.01, 0.1)), 1, "NaN alone");
        assert_eq!(differing(within(0.001, 0.1)), 2);
        assert_eq!(differing(within(0.01, 0.0)), 2);
        assert_eq!(differing(within(f64::MAX, f64::MAX)), 1);
    }

    #[test]
    fn another_type_is_compared_by_value_and_another_shape_never() {
        let (exact, short) = (of(Dtype::F64, &[1.001, 2.0]), of(Dtype::Bf16, &[1.001, 2.0]));
        assert!(
            judge(&exact, &short, within(0.01, 0.0))
                .expect("compared")
                .passes()
        );
        let refused = judge(&exact, &short, BITS).expect_err("two types");
        assert_eq!(
            refused,
            "f64 was expected, and it is bf16: two types are compared with --rtol or --atol"
        );
        let longer = of(Dtype::Bf16, &[1.0, 2.0, 3.0, 4.0]);
        let refused = judge(&exact, &longer, within(1.0, 1.0)).expect_err("two shapes");
        assert_eq!(refused, "f64 [1, 2] was expected, and it is bf16 [2, 2]");
        assert!(judge(&of(Dtype::E2m1x2, &[1.0, 2.0]), &short, within(1.0, 1.0)).is_err());
    }

    #[test]
    fn both_halves_of_a_byte_are_compared() {
        let byte = |byte: u8| Elements {
            dtype: Dtype::E2m1x2,
            shape: vec![1],
            bytes: vec![byte],
        };
        assert!(!judge(&byte(0x12), &byte(0x42), BITS).expect("compared").passes());
        let judged = judge(&byte(0x12), &byte(0x22), within(0.0, 0.5)).expect("compared");
        assert!(judged.passes() && judged.max_abs == 0.5, "{judged:?}");
    }
}
