//! Elements of the types that kernels take, as numbers and back.
//!
//! Invariant: a number becomes the nearest element of a type, of two equally near the even
//! one, and what is beyond the largest becomes that; only NaN becomes NaN.

use half::{bf16, f16};

use crate::engine::request::dtype::Dtype;

/// A short floating-point format: bits of the exponent and of the fraction, and how many of
/// its positive codes are finite.
struct Short {
    fraction: u32,
    bias: i32,
    finite: u64,
    nan: u64,
    sign: u64,
}

const E4M3: Short = Short {
    fraction: 3,
    bias: 7,
    finite: 0x7f,
    nan: 0x7f,
    sign: 0x80,
};
const E5M2: Short = Short {
    fraction: 2,
    bias: 15,
    finite: 0x7c,
    nan: 0x7f,
    sign: 0x80,
};
const E2M1: Short = Short {
    fraction: 1,
    bias: 1,
    finite: 8,
    // It has none: NaN becomes zero, as on a GPU.
    nan: 0,
    sign: 8,
};

impl Short {
    /// The number of a positive code that is finite.
    fn positive(&self, code: u64) -> f64 {
        let fraction = number(code & ((1 << self.fraction) - 1));
        let whole = number(1 << self.fraction);
        let exponent = i32::try_from(code >> self.fraction).unwrap_or(0);
        match exponent {
            0 => fraction / whole * 2f64.powi(1 - self.bias),
            _ => (1.0 + fraction / whole) * 2f64.powi(exponent - self.bias),
        }
    }

    fn value(&self, code: u64) -> f64 {
        let magnitude = match code & (self.sign - 1) {
            finite if finite < self.finite => self.positive(finite),
            // E5M2 has infinities, right behind its finite numbers.
            code if code == self.finite && self.finite != self.nan => f64::INFINITY,
            _ => f64::NAN,
        };
        if code & self.sign == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    fn code(&self, value: f64) -> u64 {
        if value.is_nan() {
            return self.nan;
        }
        let magnitude = value.abs();
        // The least code whose number is not less.
        let (mut low, mut high) = (0, self.finite - 1);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.positive(middle) < magnitude {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let code = if low > 0 {
            let (below, above) = (self.positive(low - 1), self.positive(low));
            let (to_below, to_above) = (magnitude - below, above - magnitude);
            let lower = to_below < to_above || (to_below - to_above == 0.0 && (low - 1) % 2 == 0);
            low - u64::from(lower)
        } else {
            0
        };
        code | if value.is_sign_negative() { self.sign } else { 0 }
    }
}

fn number(small: u64) -> f64 {
    f64::from(u32::try_from(small).unwrap_or(u32::MAX))
}

/// Numbers of an element: two codes share a byte of `e2m1x2`.
#[must_use]
pub fn lanes(dtype: Dtype) -> usize {
    if dtype == Dtype::E2m1x2 { 2 } else { 1 }
}

/// The number of a lane of an element, given by its bits. Whole numbers of 64 bits are
/// rounded.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the low bits are the element; whole numbers of 64 bits are rounded, as said"
)]
pub fn value(dtype: Dtype, bits: u64, lane: usize) -> f64 {
    match dtype {
        Dtype::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        Dtype::F16 => f16::from_bits(bits as u16).to_f64(),
        Dtype::F32 => f32::from_bits(bits as u32).into(),
        Dtype::F64 => f64::from_bits(bits),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 | Dtype::Bool => bits as f64,
        Dtype::I8 => (bits as u8).cast_signed().into(),
        Dtype::I16 => (bits as u16).cast_signed().into(),
        Dtype::I32 => (bits as u32).cast_signed().into(),
        Dtype::I64 => bits.cast_signed() as f64,
        Dtype::E4m3 => E4M3.value(bits),
        Dtype::E5m2 => E5M2.value(bits),
        Dtype::E8m0 if bits == 0xff => f64::NAN,
        Dtype::E8m0 => 2f64.powi(bits as i32 - 127),
        Dtype::E2m1x2 => E2M1.value((bits >> (4 * lane)) & 0xf),
    }
}

/// The bits of the element nearest to a number; of `e2m1x2` those of one code, in the low
/// half of its byte. Of powers of two the sign is dropped.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, as is said"
)]
pub fn bits(dtype: Dtype, value: f64) -> u64 {
    let whole = value.round_ties_even();
    match dtype {
        // Largest finite ones: an infinity that somebody wrote stays one.
        Dtype::Bf16 => short(value, f64::from(bf16::MAX), |v| {
            u64::from(bf16::from_f32(to_odd(v)).to_bits())
        }),
        Dtype::F16 => short(value, f64::from(f16::MAX), |v| {
            u64::from(f16::from_f32(to_odd(v)).to_bits())
        }),
        Dtype::F32 => short(value, f64::from(f32::MAX), |v| u64::from((v as f32).to_bits())),
        Dtype::F64 => value.to_bits(),
        Dtype::U8 => (whole as u8).into(),
        Dtype::U16 => (whole as u16).into(),
        Dtype::U32 => (whole as u32).into(),
        Dtype::U64 => whole as u64,
        Dtype::I8 => (whole as i8).cast_unsigned().into(),
        Dtype::I16 => (whole as i16).cast_unsigned().into(),
        Dtype::I32 => (whole as i32).cast_unsigned().into(),
        Dtype::I64 => (whole as i64).cast_unsigned(),
        Dtype::Bool => u64::from(whole != 0.0),
        Dtype::E4m3 => E4M3.code(value),
        Dtype::E5m2 => E5M2.code(value),
        Dtype::E8m0 if value.is_nan() => 0xff,
        Dtype::E8m0 => (value.abs().log2().round().clamp(-127.0, 127.0) + 127.0) as u64,
        Dtype::E2m1x2 => E2M1.code(value),
    }
}

fn short(value: f64, most: f64, to_bits: impl Fn(f64) -> u64) -> u64 {
    if value.is_finite() {
        to_bits(value.clamp(-most, most))
    } else {
        to_bits(value)
    }
}

/// The f32 next to a number that is none, of the two the odd one: what is rounded from it to
/// fewer bits comes out as if the number had been.
#[expect(clippy::cast_possible_truncation, reason = "what is lost is put right")]
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    let exact = f64::from(near);
    if exact.to_bits() == value.to_bits() || value.is_nan() {
        return near;
    }
    let beyond = u32::from(exact.abs() > value.abs());
    f32::from_bits((near.to_bits() - beyond) | 1)
}

/// The bits of an element, from its bytes.
#[must_use]
pub fn bits_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: [Dtype; 5] = [Dtype::Bf16, Dtype::F16, Dtype::E4m3, Dtype::E5m2, Dtype::E8m0];

    #[test]
    fn every_code_of_a_short_type_is_the_number_that_it_is_made_of() {
        for dtype in SHORT {
            for code in 0..1_u64 << (8 * dtype.bytes()) {
                let number = value(dtype, code, 0);
                if number.is_nan() {
                    assert!(value(dtype, bits(dtype, number), 0).is_nan(), "{dtype} {code:#x}");
                } else if number.is_infinite() && dtype == Dtype::E5m2 {
                    // What is written is finite where the format saturates.
                    assert_eq!(bits(dtype, number) & 0x7f, 0x7b);
                } else {
                    assert_eq!(bits(dtype, number), code, "{dtype} {number}");
                }
            }
        }
        for code in 0..16 {
            assert_eq!(bits(Dtype::E2m1x2, value(Dtype::E2m1x2, code << 4, 1)), code);
        }
        let fp4: Vec<f64> = (0..8).map(|code| value(Dtype::E2m1x2, code, 0)).collect();
        assert_eq!(fp4, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    }

    #[test]
    fn a_number_between_two_goes_to_the_nearer_and_in_the_middle_to_the_even_one() {
        for (dtype, number, nearest) in [
            (Dtype::E4m3, 448.0, 448.0),
            (Dtype::E4m3, 1e9, 448.0),
            (Dtype::E4m3, -1e9, -448.0),
            (Dtype::E4m3, 17.0, 16.0),
            (Dtype::E4m3, 19.0, 20.0),
            (Dtype::E4m3, 17.1, 18.0),
            (Dtype::E4m3, 2f64.powi(-10), 0.0),
            (Dtype::E4m3, 1.6 * 2f64.powi(-10), 2f64.powi(-9)),
            (Dtype::E5m2, 57_344.0, 57_344.0),
            (Dtype::E5m2, 1e9, 57_344.0),
            (Dtype::E2m1x2, 2.5, 2.0),
            (Dtype::E2m1x2, 5.0, 4.0),
            (Dtype::E2m1x2, -100.0, -6.0),
            (Dtype::E8m0, -3.0, 4.0),
            (Dtype::E8m0, 0.0, 2f64.powi(-127)),
            (Dtype::F16, 1e9, 65_504.0),
            (Dtype::F16, f64::INFINITY, f64::INFINITY),
            (Dtype::Bf16, 1.0 + 2f64.powi(-8), 1.0),
            (Dtype::Bf16, 1.0 + 3.0 * 2f64.powi(-8), 1.0 + 2f64.powi(-6)),
            (Dtype::F32, 1e300, f64::from(f32::MAX)),
            (Dtype::I8, 300.0, 127.0),
            (Dtype::I8, -2.5, -2.0),
            (Dtype::U8, -1.0, 0.0),
            (Dtype::I64, -9e15, -9e15),
            (Dtype::Bool, 0.7, 1.0),
        ] {
            let rounded = value(dtype, bits(dtype, number), 0);
            assert_eq!(
                rounded.to_bits(),
                nearest.to_bits(),
                "{dtype} {number}: {rounded}"
            );
        }
    }

    #[test]
    fn a_half_rounds_once_and_not_by_way_of_f32() {
        // Just above the middle of two halves: rounded to f32 first, it would be the middle.
        let number = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(bits(Dtype::F16, number), 0x3c01);
        let number = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(bits(Dtype::Bf16, number), 0x3f81);
    }
}
